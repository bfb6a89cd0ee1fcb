//! What a promotion would leave behind, from what both copies say of themselves. Pure, so that every case stands in a test.

use super::{PointId, Role, VolumeState};
use crate::{digest::Digest, error::Kind};

/// What the agent at the other site says of its copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCopy {
    pub role: Role,
    /// In the middle of a promotion of its own.
    pub is_promoting: bool,
    /// Newest sync point, and its root digest.
    pub newest: Option<(PointId, Digest)>,
}

/// Why a promotion that loses nothing is not to be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsafe {
    #[error("the peer can't be asked: {0}. What was written there after this copy's newest point would be lost")]
    PeerUnknown(String),
    #[error("the copy at the peer is primary: demote it first, so that nothing is written there any more")]
    PeerIsPrimary,
    #[error("the copy at the peer is being promoted: wait until that has ended, and look which one is primary")]
    PeerIsPromoting,
    #[error(
        "the peer has point {newest}, which this copy lacks: it is at {}",
        ours.map_or_else(|| "none".to_owned(), |id| format!("point {id}"))
    )]
    Behind { newest: PointId, ours: Option<PointId> },
    #[error(
        "a verification found that point {0} here is not what the source had: promote the other copy and sync once, which mends it"
    )]
    Damaged(PointId),
}

impl Unsafe {
    /// By force it would not be had either: both copies would be written to.
    pub fn is_final(&self) -> bool {
        match self {
            Self::PeerIsPrimary | Self::PeerIsPromoting => true,
            Self::PeerUnknown(_) | Self::Behind { .. } | Self::Damaged(_) => false,
        }
    }

    pub fn kind(&self) -> Kind {
        match self {
            Self::PeerIsPromoting => Kind::Conflict,
            Self::PeerUnknown(_) | Self::PeerIsPrimary | Self::Behind { .. } => Kind::Precondition,
            Self::Damaged(_) => Kind::DataLoss,
        }
    }

    pub fn reason(&self) -> &'static str {
        match self {
            Self::PeerIsPrimary => "peer-is-primary",
            Self::PeerIsPromoting => "peer-in-verb",
            Self::PeerUnknown(_) | Self::Behind { .. } => "promote-unsafe",
            Self::Damaged(_) => "point-damaged",
        }
    }
}

/// Whether a promotion of `local` would lose nothing. A demotion has looked whether its copy was what its newest point says
/// (`Volume::demote`), so points are all that is to be compared.
pub fn planned(local: &VolumeState, peer: Result<&PeerCopy, String>) -> Result<(), Unsafe> {
    let peer = peer.map_err(Unsafe::PeerUnknown)?;
    if peer.role == Role::Primary {
        return Err(Unsafe::PeerIsPrimary);
    }
    if peer.is_promoting {
        return Err(Unsafe::PeerIsPromoting);
    }
    if let Some(damaged) = local.current.filter(|at| local.damaged.contains(at)) {
        return Err(Unsafe::Damaged(damaged));
    }
    // After a rollback the tree is at an older point, and what came after that is not what it would go on from.
    let at = local.current.and_then(|current| local.history.iter().position(|point| point.id == current));
    let led_here = &local.history[..at.map_or(0, |at| at + 1)];
    let is_here = |(id, root): (PointId, Digest)| led_here.iter().any(|point| point.id == id && point.root == root);
    match peer.newest {
        Some((newest, root)) if !is_here((newest, root)) => Err(Unsafe::Behind { newest, ours: local.current }),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        id::{LineageId, VolumeId},
        path::RelPath,
        point::{Label, Origin, Point, PointTotals},
    };

    fn digest(number: u64) -> Digest {
        Digest::of(&number.to_le_bytes())
    }

    fn local(points: u64) -> VolumeState {
        let mut state = VolumeState::new(VolumeId::random(), RelPath::root(), Role::Secondary, 3);
        state.history = (1..=points)
            .map(|number| Point {
                id: PointId::sync(number),
                origin: Origin::Sync,
                lineage: LineageId::random(),
                epoch: 1,
                parent: None,
                taken_at: 0,
                root: digest(number),
                totals: PointTotals::default(),
                label: Label::PerFile,
                bytes_moved: 0,
                lost: Vec::new(),
                is_cut: false,
            })
            .collect();
        state.current = state.newest().map(|newest| newest.id);
        state
    }

    fn peer(role: Role, newest: Option<u64>) -> PeerCopy {
        PeerCopy { role, is_promoting: false, newest: newest.map(|number| (PointId::sync(number), digest(number))) }
    }

    #[test]
    fn what_the_peer_had_must_be_here() {
        let local = local(5);
        for newest in [None, Some(1), Some(5)] {
            assert_eq!(planned(&local, Ok(&peer(Role::Secondary, newest))), Ok(()));
        }
        let behind = planned(&local, Ok(&peer(Role::Secondary, Some(6))));
        assert_eq!(behind, Err(Unsafe::Behind { newest: PointId::sync(6), ours: Some(PointId::sync(5)) }));
        // Rolled back, and so behind.
        let rolled_back = VolumeState { current: Some(PointId::sync(3)), ..local.clone() };
        assert_eq!(planned(&rolled_back, Ok(&peer(Role::Secondary, Some(3)))), Ok(()));
        let behind = planned(&rolled_back, Ok(&peer(Role::Secondary, Some(5))));
        assert_eq!(behind, Err(Unsafe::Behind { newest: PointId::sync(5), ours: Some(PointId::sync(3)) }));
        // The same number of another line.
        let other =
            PeerCopy { role: Role::Secondary, is_promoting: false, newest: Some((PointId::sync(5), digest(9))) };
        assert!(matches!(planned(&local, Ok(&other)), Err(Unsafe::Behind { .. })));
    }

    #[test]
    fn force_overrides_what_is_lost_and_no_second_primary() {
        let local = local(5);
        let primary = planned(&local, Ok(&peer(Role::Primary, Some(5)))).unwrap_err();
        let unknown = planned(&local, Err("it is dead".to_owned())).unwrap_err();
        let behind = planned(&local, Ok(&peer(Role::Secondary, Some(6)))).unwrap_err();
        let promoting = PeerCopy { is_promoting: true, ..peer(Role::Secondary, Some(5)) };
        let promoting = planned(&local, Ok(&promoting)).unwrap_err();
        assert_eq!([primary, promoting, unknown, behind].map(|why| why.is_final()), [true, true, false, false]);
    }
}
