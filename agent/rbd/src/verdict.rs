//! What a promotion would do, from the snapshot lists of both sites. librbd's own check looks at the local image alone: after one
//! demotion it lets both sites be promoted, and it takes a demotion of long ago for the last one.

use serde::Serialize;

use crate::{
    point::{self, Point},
    view::{ImageView, MirrorSnapshot, MirrorState, Mirroring, SnapshotKind, TurnView, Verb},
};

/// Why a promotion that loses nothing is not to be had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "kebab-case", tag = "why")]
pub enum Unsafe {
    #[error("the image is not mirrored by snapshots")]
    NotMirrored,
    #[error("the peer can't be asked: {0}")]
    PeerUnknown(String),
    #[error("the copy at the peer is primary: demote it first, so that nothing is written there any more")]
    PeerIsPrimary,
    #[error("the peer was not demoted as its last act; its newest snapshot {newest} is another one")]
    PeerNotDemoted { newest: u64 },
    #[error("the peer's last snapshot {newest} has not arrived: {arrived}")]
    Behind { newest: u64, arrived: String },
    #[error("the two copies are of different images: {ours} and {theirs}")]
    OtherImage { ours: String, theirs: String },
    #[error("the peer is in the middle of {0}: wait until it has ended, and look again")]
    PeerIsChanging(TurnView),
}

impl Unsafe {
    /// By force it would not be had either: both sites would be primary, or nothing would be.
    pub fn is_final(&self) -> bool {
        match self {
            Self::NotMirrored | Self::PeerIsPrimary | Self::OtherImage { .. } | Self::PeerIsChanging(_) => true,
            Self::PeerUnknown(_) | Self::PeerNotDemoted { .. } | Self::Behind { .. } => false,
        }
    }
}

/// Whether a promotion here, without force, would lose nothing. `peer` is the image at the other site.
pub fn planned(local: &ImageView, peer: Result<&ImageView, String>) -> Result<(), Unsafe> {
    if local.mirroring != Mirroring::Snapshot {
        return Err(Unsafe::NotMirrored);
    }
    let peer = peer.map_err(Unsafe::PeerUnknown)?;
    // An interrupted promotion is demoted before it is begun again.
    let demoted = local.is_half_primary.then(|| as_demoted(local));
    let local = demoted.as_ref().unwrap_or(local);
    // Before all that force overrides.
    still(peer)?;
    if !peer.is_same_image(local) {
        return Err(Unsafe::OtherImage { ours: local.global_id.clone(), theirs: peer.global_id.clone() });
    }
    if peer.is_primary {
        return Err(Unsafe::PeerIsPrimary);
    }
    arrived(local, peer)
}

/// What the peer held when it was demoted is here, or what is here was demoted and nothing has happened since.
fn arrived(local: &ImageView, peer: &ImageView) -> Result<(), Unsafe> {
    let (newest, last) = peer.newest_mirror_snapshot().ok_or(Unsafe::NotMirrored)?;
    if is_follower(peer, local) {
        return Ok(());
    }
    if last.state != MirrorState::PrimaryDemoted {
        return Err(Unsafe::PeerNotDemoted { newest });
    }
    if has_gone_on(local, peer, newest) {
        return Ok(());
    }
    let behind = |arrived: String| Unsafe::Behind { newest, arrived };
    let (_, ours) = local.newest_mirror_snapshot().ok_or_else(|| behind("nothing has".to_owned()))?;
    if ours.primary_uuid != peer.site_uuid || ours.primary_id != Some(newest) {
        let arrived = ours.primary_id.map_or_else(|| "none".to_owned(), |id| format!("snapshot {id}"));
        return Err(behind(format!("{arrived} is the newest here")));
    }
    if !ours.is_complete {
        return Err(behind(format!("{} of {} objects have", ours.objects_copied, local.objects)));
    }
    if ours.state == MirrorState::NonPrimaryDemoted { Ok(()) } else { Err(Unsafe::PeerNotDemoted { newest }) }
}

/// The peer's demotion `newest` is here whole, and what came after it is this copy's own: a promotion that was interrupted, or taken back.
fn has_gone_on(local: &ImageView, peer: &ImageView, newest: u64) -> bool {
    let is_demotion = |mirror: &MirrorSnapshot| {
        mirror.state == MirrorState::NonPrimaryDemoted
            && mirror.is_complete
            && mirror.primary_uuid == peer.site_uuid
            && mirror.primary_id == Some(newest)
    };
    let is_own = |mirror: &MirrorSnapshot| matches!(mirror.state, MirrorState::Primary | MirrorState::PrimaryDemoted);
    let mut later = local.mirror_snapshots().skip_while(|(_, mirror)| !is_demotion(mirror)).skip(1).peekable();
    later.peek().is_some() && later.all(|(_, mirror)| is_own(mirror))
}

/// What the next step of its promotion makes of it.
fn as_demoted(half: &ImageView) -> ImageView {
    let mut demoted = ImageView { is_primary: false, is_half_primary: false, ..half.clone() };
    let mut mirrors = demoted.snapshots.iter_mut().rev().filter_map(|snapshot| match &mut snapshot.kind {
        SnapshotKind::Mirror(mirror) => Some(mirror),
        SnapshotKind::User | SnapshotKind::Other => None,
    });
    if let Some(newest) = mirrors.next().filter(|newest| newest.state == MirrorState::Primary) {
        newest.state = MirrorState::PrimaryDemoted;
    }
    demoted
}

/// `demoted` was primary as its last act, and all that `follower` has is of it.
fn is_follower(follower: &ImageView, demoted: &ImageView) -> bool {
    let (Some((last, ours)), Some((_, theirs))) = (demoted.newest_mirror_snapshot(), follower.newest_mirror_snapshot())
    else {
        return false;
    };
    ours.state == MirrorState::PrimaryDemoted
        && matches!(theirs.state, MirrorState::NonPrimary | MirrorState::NonPrimaryDemoted)
        && theirs.primary_uuid == demoted.site_uuid
        && theirs.primary_id.is_some_and(|id| id <= last)
}

/// What `copy` is, or becomes by itself, is what `primary` holds: it is copied from there, or was demoted before that was promoted.
pub fn follows(copy: &ImageView, primary: &ImageView) -> bool {
    let is_of = |(_, newest): (u64, &MirrorSnapshot)| match newest.state {
        MirrorState::NonPrimary | MirrorState::NonPrimaryDemoted => {
            newest.primary_uuid == primary.site_uuid && newest.primary_id.is_some()
        }
        MirrorState::PrimaryDemoted => !is_split_brain(copy, primary),
        MirrorState::Primary | MirrorState::Unknown => false,
    };
    !copy.is_primary && copy.global_id == primary.global_id && copy.newest_mirror_snapshot().is_none_or(is_of)
}

/// Something of `primary` has arrived since it was promoted. rbd-mirror begins with an image only while it is primary, up to 30 s after its
/// promotion: a demotion before that never arrives, and neither copy could be promoted without force.
pub fn has_begun_to_follow(copy: &ImageView, primary: &ImageView) -> bool {
    let demoted = primary.mirror_snapshots().filter(|(_, mirror)| mirror.state == MirrorState::PrimaryDemoted);
    let demoted = demoted.map(|(id, _)| id).max().unwrap_or(0);
    let promoted =
        primary.mirror_snapshots().find(|(id, mirror)| *id > demoted && mirror.state == MirrorState::Primary);
    let is_since = |id: u64| promoted.is_some_and(|(promoted, _)| id >= promoted);
    copy.newest_not_orphan().is_some_and(|(_, newest)| {
        newest.state == MirrorState::NonPrimary
            && newest.primary_uuid == primary.site_uuid
            && newest.primary_id.is_some_and(is_since)
    })
}

/// No verb is under way at the peer that may change what it told.
pub fn still(peer: &ImageView) -> Result<(), Unsafe> {
    match &peer.turn {
        Some(turn) if !matches!(turn.verb, Verb::Point | Verb::Fence) && !turn.has_ended => {
            Err(Unsafe::PeerIsChanging(turn.clone()))
        }
        Some(_) | None => Ok(()),
    }
}

/// Where a promotion by force would end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "ends")]
pub enum Forced {
    /// On the newest mirror snapshot, which is complete; the point is what it holds at least.
    OnNewest { point: Option<Point> },
    /// A sync is half copied, or an earlier promotion did not end: librbd would go back behind the last complete sync, to an empty image
    /// even, or crash. The point is what a copy of its snapshot has.
    InTheMiddle { point: Option<Point> },
    /// This copy was primary and was demoted: on what it held then. Nothing that the peer has written since is here.
    OnOwnDemotion { point: Option<Point> },
    /// Nothing has ever arrived whole.
    Nothing,
    /// It is primary already.
    Primary,
}

pub fn forced(local: &ImageView) -> Forced {
    if local.is_primary {
        return Forced::Primary;
    }
    let point = point::newest_whole(local);
    // Of a promotion that did not end: where the one before it is whole, so is the head, which librbd had not touched.
    match local.newest_not_orphan() {
        Some((_, newest)) if newest.state == MirrorState::PrimaryDemoted => Forced::OnOwnDemotion { point },
        Some((_, newest)) if point::is_proof(newest) => Forced::OnNewest { point },
        _ if local.mirror_snapshots().any(|(_, mirror)| point::is_proof(mirror)) => Forced::InTheMiddle { point },
        _ => Forced::Nothing,
    }
}

/// For an operator who is about to decide.
pub fn told(forced: &Forced) -> String {
    let at = |point: &Option<Point>| {
        point.map_or_else(|| "on the newest sync".to_owned(), |point| format!("on point {} or later", point.name))
    };
    match forced {
        Forced::OnNewest { point } => at(point),
        Forced::InTheMiddle { point } => {
            let stands_in = |point: &Point| {
                format!(
                    "on point {}: a sync is half copied, and a clone of that point would take its place",
                    point.name
                )
            };
            let none =
                || "behind the last complete sync, because one is half copied and no point is whole: don't".to_owned();
            point.as_ref().map_or_else(none, stands_in)
        }
        Forced::OnOwnDemotion { point } => format!("{}, without anything that the peer has written since", at(point)),
        Forced::Nothing => "on an empty image: don't".to_owned(),
        Forced::Primary => "where it is: it is primary already".to_owned(),
    }
}

/// Each has taken writes that the other lacks: both are primary, or one was demoted after the other had been promoted without its last
/// snapshot.
pub fn is_split_brain(local: &ImageView, peer: &ImageView) -> bool {
    match (local.is_primary, peer.is_primary) {
        (true, true) => true,
        (true, false) => is_left_behind(peer, local),
        (false, true) => is_left_behind(local, peer),
        (false, false) => is_left_behind(local, peer) && is_left_behind(peer, local),
    }
}

/// What `demoted` held when it was demoted never came to `primary`.
fn is_left_behind(demoted: &ImageView, primary: &ImageView) -> bool {
    let Some((last, _)) = demoted.newest_mirror_snapshot().filter(|(_, it)| it.state == MirrorState::PrimaryDemoted)
    else {
        return false;
    };
    let is_it = |mirror: &MirrorSnapshot| mirror.primary_uuid == demoted.site_uuid && mirror.primary_id == Some(last);
    !primary.mirror_snapshots().any(|(_, mirror)| is_it(mirror) && mirror.is_complete)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::{mirror, mirror_of, primary, secondary, user};

    #[test]
    fn planned_needs_the_demotion_itself_whole() {
        let peer =
            primary(vec![mirror(7, MirrorState::Primary, true), mirror(9, MirrorState::PrimaryDemoted, true)], false);
        let local = |snapshots| secondary(snapshots);
        let demoted = MirrorState::NonPrimaryDemoted;
        assert_eq!(planned(&local(vec![mirror_of(3, demoted, true, 9)]), Ok(&peer)), Ok(()));
        let half = planned(&local(vec![mirror_of(3, demoted, false, 9)]), Ok(&peer));
        assert!(matches!(half, Err(Unsafe::Behind { newest: 9, .. })), "{half:?}");
        // An old demotion, of an earlier switch.
        let old = planned(&local(vec![mirror_of(3, demoted, true, 7)]), Ok(&peer));
        assert!(matches!(old, Err(Unsafe::Behind { newest: 9, .. })), "{old:?}");
        let alive = primary(vec![mirror(9, MirrorState::Primary, true)], true);
        assert_eq!(planned(&local(vec![mirror_of(3, demoted, true, 9)]), Ok(&alive)), Err(Unsafe::PeerIsPrimary));
        // Demoted, promoted again and demoted by nobody since.
        let restless =
            primary(vec![mirror(9, MirrorState::PrimaryDemoted, true), mirror(10, MirrorState::Primary, true)], false);
        assert_eq!(
            planned(&local(vec![mirror_of(3, demoted, true, 9)]), Ok(&restless)),
            Err(Unsafe::PeerNotDemoted { newest: 10 })
        );
        let gone = planned(&local(vec![mirror_of(3, demoted, true, 9)]), Err("it is dead".to_owned()));
        assert!(matches!(gone, Err(Unsafe::PeerUnknown(_))), "{gone:?}");
    }

    #[test]
    fn a_demotion_can_be_taken_back_while_nothing_has_followed() {
        let ours = primary(vec![mirror(9, MirrorState::PrimaryDemoted, true)], false);
        let follower = |state, of| secondary(vec![mirror_of(4, state, true, of)]);
        assert_eq!(planned(&ours, Ok(&follower(MirrorState::NonPrimary, 7))), Ok(()));
        assert_eq!(planned(&ours, Ok(&follower(MirrorState::NonPrimaryDemoted, 9))), Ok(()));
        // It has been primary itself since.
        let since = secondary(vec![
            mirror_of(4, MirrorState::NonPrimaryDemoted, true, 9),
            mirror(5, MirrorState::PrimaryDemoted, true),
        ]);
        assert!(matches!(planned(&ours, Ok(&since)), Err(Unsafe::Behind { newest: 5, .. })));
    }

    #[test]
    fn who_is_in_the_middle_of_a_verb_is_not_trusted() {
        let mut peer = primary(vec![mirror(9, MirrorState::PrimaryDemoted, true)], false);
        let local = secondary(vec![mirror_of(3, MirrorState::NonPrimaryDemoted, true, 9)]);
        let turn = |verb| {
            Some(TurnView {
                agent: "site-a".to_owned(),
                verb,
                since_unix_secs: 0,
                has_ended: false,
                unwhole: Vec::new(),
            })
        };
        peer.turn = turn(Verb::Point);
        assert_eq!(planned(&local, Ok(&peer)), Ok(()));
        for verb in [Verb::Promote, Verb::Demote, Verb::Resync] {
            peer.turn = turn(verb);
            assert!(matches!(planned(&local, Ok(&peer)), Err(Unsafe::PeerIsChanging(_))), "{verb}");
            let behind = secondary(vec![mirror_of(3, MirrorState::NonPrimary, true, 7)]);
            assert!(planned(&behind, Ok(&peer)).is_err_and(|why| why.is_final()), "{verb}");
        }
    }

    #[test]
    fn what_was_left_behind_by_a_promotion_is_split_brain_after_its_demotion_too() {
        let demoted = primary(vec![mirror(9, MirrorState::PrimaryDemoted, true)], false);
        let promoted = |of| {
            let copied = mirror_of(4, MirrorState::NonPrimary, true, of);
            let mut view = secondary(vec![copied, mirror(5, MirrorState::Primary, true)]);
            view.is_primary = true;
            view
        };
        assert!(is_split_brain(&demoted, &promoted(7)) && is_split_brain(&promoted(7), &demoted));
        assert!(!is_split_brain(&demoted, &promoted(9)));
        // It follows again.
        let following = primary(
            vec![mirror(9, MirrorState::PrimaryDemoted, true), mirror_of(10, MirrorState::NonPrimary, true, 5)],
            false,
        );
        assert!(!is_split_brain(&following, &promoted(7)));
    }

    #[test]
    fn forced_in_the_middle_of_a_sync_is_told_apart() {
        let point = user(1, "drover.1.20261122T031500Z");
        let whole = mirror(2, MirrorState::NonPrimary, true);
        assert!(matches!(forced(&secondary(vec![point.clone(), whole.clone()])), Forced::OnNewest { point: Some(_) }));
        let half = mirror(4, MirrorState::NonPrimary, false);
        let middle = forced(&secondary(vec![point, whole, half.clone()]));
        assert!(matches!(middle, Forced::InTheMiddle { point: Some(point) } if point.name.number == 1), "{middle:?}");
        assert_eq!(forced(&secondary(vec![half.clone()])), Forced::Nothing);
        // What a promotion leaves that does not end says nothing, and hides nothing.
        let mut orphan = mirror(5, MirrorState::NonPrimary, true);
        if let SnapshotKind::Mirror(mirror) = &mut orphan.kind {
            mirror.primary_id = None;
        }
        let whole = mirror(2, MirrorState::NonPrimary, true);
        assert!(matches!(forced(&secondary(vec![whole.clone(), orphan.clone()])), Forced::OnNewest { .. }));
        assert!(matches!(forced(&secondary(vec![whole, half, orphan])), Forced::InTheMiddle { .. }));
    }

    /// librbd was interrupted in a promotion of what the peer's demotion had brought, and the peer may have begun to follow.
    #[test]
    fn an_interrupted_promotion_goes_on_without_loss() {
        let here = [mirror_of(4, MirrorState::NonPrimaryDemoted, true, 9), mirror(5, MirrorState::Primary, true)];
        let half = ImageView { is_primary: true, is_half_primary: true, ..secondary(here.to_vec()) };
        let peer = |snapshots| ImageView { site_uuid: "uuid-of-a".to_owned(), ..secondary(snapshots) };
        assert_eq!(planned(&half, Ok(&peer(vec![mirror(9, MirrorState::PrimaryDemoted, true)]))), Ok(()));
        let mut copy = mirror_of(10, MirrorState::NonPrimary, true, 5);
        let SnapshotKind::Mirror(of) = &mut copy.kind else { panic!("a mirror snapshot") };
        of.primary_uuid = "uuid-of-b".to_owned();
        assert_eq!(planned(&half, Ok(&peer(vec![mirror(9, MirrorState::PrimaryDemoted, true), copy]))), Ok(()));
        // The peer was promoted and demoted again since.
        let again = planned(&half, Ok(&peer(vec![mirror(12, MirrorState::PrimaryDemoted, true)])));
        assert!(matches!(again, Err(Unsafe::Behind { newest: 12, .. })), "{again:?}");
    }

    /// rbd-mirror would not begin with an image that is demoted already.
    #[test]
    fn a_copy_has_begun_to_follow_when_something_has_arrived_since_the_promotion() {
        let of = |id| mirror_of(3, MirrorState::NonPrimary, true, id);
        let primary =
            |snapshots| ImageView { is_primary: true, site_uuid: "uuid-of-a".to_owned(), ..secondary(snapshots) };
        let first = primary(vec![mirror(5, MirrorState::Primary, true), mirror(7, MirrorState::Primary, true)]);
        for (id, has_begun) in [(4, false), (5, true), (7, true)] {
            assert_eq!(has_begun_to_follow(&secondary(vec![of(id)]), &first), has_begun, "{id}");
        }
        // Demoted, and that was taken back before anything of it had arrived.
        let again = [
            mirror(5, MirrorState::Primary, true),
            mirror(6, MirrorState::PrimaryDemoted, true),
            mirror(8, MirrorState::Primary, true),
        ];
        let again = primary(again.to_vec());
        for (id, has_begun) in [(5, false), (8, true)] {
            assert_eq!(has_begun_to_follow(&secondary(vec![of(id)]), &again), has_begun, "{id}");
        }
        for state in [MirrorState::NonPrimaryDemoted, MirrorState::PrimaryDemoted, MirrorState::Primary] {
            assert!(!has_begun_to_follow(&secondary(vec![mirror_of(3, state, true, 9)]), &again), "{state:?}");
        }
        assert!(!has_begun_to_follow(&secondary(Vec::new()), &again));
        let other = ImageView { site_uuid: "uuid-of-c".to_owned(), ..again };
        assert!(!has_begun_to_follow(&secondary(vec![of(8)]), &other));
    }
}
