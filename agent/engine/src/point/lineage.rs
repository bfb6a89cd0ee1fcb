//! R6: may this replica be synced from this source? Pure, so that every case stands in a test.

use super::{Point, Role, VolumeKind, VolumeState};
use crate::id::{LineageId, VolumeId};

/// Why a sync is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acceptance {
    /// The replica has no point yet.
    Initial,
    /// The replica's point is in the source's history.
    Ancestor,
    /// It is not, and someone chose to give the replica's line up; its data is kept as a restore point first.
    Discard,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LineageConflict {
    #[error("source has volume {source_volume}, replica has volume {replica_volume}")]
    Volume { source_volume: VolumeId, replica_volume: VolumeId },
    #[error("source is a {source_kind}, replica is a {replica_kind}")]
    Kind { source_kind: VolumeKind, replica_kind: VolumeKind },
    #[error("the source's copy is a secondary; promote it first, or sync from its peer")]
    SourceNotPrimary,
    #[error(
        "both copies are primary (source epoch {source_epoch}, other epoch {replica_epoch}); demote the one to be \
         overwritten. {histories}"
    )]
    BothPrimary { source_epoch: u64, replica_epoch: u64, histories: Histories },
    #[error("source was superseded: its epoch is {source_epoch}, the replica's is {replica_epoch}")]
    Superseded { source_epoch: u64, replica_epoch: u64 },
    #[error(
        "split-brain: the replica's point is not in the source's history; resync the copy to be given up (its data is \
         kept as a restore point). {histories}"
    )]
    SplitBrain { histories: Histories },
    #[error("replica was rolled back to point {at}; release it before it is synced again")]
    Paused { at: String },
}

/// The newest points of both copies, as they are shown with a conflict.
#[derive(Debug, PartialEq, Eq)]
pub struct Histories {
    /// Epoch and lineage of each copy: a promotion begins a line before it has a point.
    lines: [(u64, LineageId); 2],
    source: Vec<Point>,
    replica: Vec<Point>,
}

impl Histories {
    const SHOWN: usize = 5;

    fn of(source: &VolumeState, replica: &VolumeState) -> Self {
        let newest = |state: &VolumeState| state.history.iter().rev().take(Self::SHOWN).cloned().collect();
        let lines = [(source.epoch, source.lineage), (replica.epoch, replica.lineage)];
        Self { lines, source: newest(source), replica: newest(replica) }
    }
}

impl std::fmt::Display for Histories {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let side = |f: &mut std::fmt::Formatter<'_>, name, (epoch, line): (u64, LineageId), points: &[Point]| {
            let line = line.to_string();
            write!(f, "{name} is in epoch {epoch}, lineage {}, its history, newest first:", &line[..8])?;
            if points.is_empty() {
                write!(f, " none")?;
            }
            points.iter().try_for_each(|p| {
                let lineage = p.lineage.to_string();
                write!(
                    f,
                    " {} (epoch {}, lineage {}, root {})",
                    p.id,
                    p.epoch,
                    &lineage[..8],
                    &p.root.to_string()[..12]
                )
            })
        };
        side(f, "source", self.lines[0], &self.source)?;
        f.write_str("; ")?;
        side(f, "replica", self.lines[1], &self.replica)
    }
}

pub fn accept(source: &VolumeState, replica: &VolumeState) -> Result<Acceptance, LineageConflict> {
    let (source_epoch, replica_epoch) = (source.epoch, replica.epoch);
    if source.volume != replica.volume {
        return Err(LineageConflict::Volume { source_volume: source.volume, replica_volume: replica.volume });
    }
    if source.kind != replica.kind && !(source.kind.is_block() && replica.kind.is_block()) {
        return Err(LineageConflict::Kind { source_kind: source.kind, replica_kind: replica.kind });
    }
    if source.role != Role::Primary {
        return Err(LineageConflict::SourceNotPrimary);
    }
    if replica.role == Role::Primary {
        let histories = Histories::of(source, replica);
        return Err(LineageConflict::BothPrimary { source_epoch, replica_epoch, histories });
    }
    if replica_epoch > source_epoch && !replica.resync {
        return Err(LineageConflict::Superseded { source_epoch, replica_epoch });
    }
    if replica.paused {
        let at = replica.current.map_or_else(|| "none".to_owned(), |id| id.to_string());
        return Err(LineageConflict::Paused { at });
    }
    // A primary whose first point was never confirmed has one all the same: the one that it offered.
    let head = match replica.current {
        Some(_) => replica.current_point(),
        None => replica.offered.as_ref().or_else(|| replica.newest()),
    };
    if head.is_none() && replica.current.is_none() {
        return Ok(Acceptance::Initial);
    }
    let led_here = || source.history.iter().chain(&source.offered);
    // A copy that was promoted on its own began a line that the source knows nothing of, even when it made no point yet.
    let knows_line = source.lineage == replica.lineage || led_here().any(|point| point.lineage == replica.lineage);
    if knows_line && head.is_some_and(|head| led_here().any(|point| point.is(head))) {
        Ok(Acceptance::Ancestor)
    } else if replica.resync {
        Ok(Acceptance::Discard)
    } else {
        Err(LineageConflict::SplitBrain { histories: Histories::of(source, replica) })
    }
}
