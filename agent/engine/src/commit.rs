//! From staging to the tree: the commit record, applying it, undoing it (R1 to R4).
//!
//! ```text
//! staged, synced ── record written, synced ── steps ── sync ── state written ── old things retired ── record removed
//!        crash: staging is kept     crash: steps are replayed (or undone)   crash: retiring is finished
//! ```
//! The record holds everything that applying and undoing need: the steps with the identities of the inodes they move,
//! old and new metadata, what becomes of what was taken out, and the volume's state as it will be. Undo data is thereby
//! durable before the first step, and old contents are only ever renamed, never written to (R3).

mod apply;
mod codec;
mod record;
mod retire;
#[cfg(test)]
mod tests;
mod undo;

use std::io;

pub use apply::ApplyError;
pub(crate) use record::{CommitRecord, Direction};
pub(crate) use retire::retire;

use crate::{fault, path::RelPath, point::VolumeState, record::sync_filesystem, stage::Staging};
use drover_linux::{Dir, Time, file::WriteLease};

/// How applying ended.
#[derive(Debug)]
pub(crate) enum Applied {
    /// The new point stands and is durable; old things wait to be retired.
    Forward,
    /// It could not be finished; the old point stands again.
    Undone { why: ApplyError, left: Vec<RelPath> },
}

/// Where a commit is carried out.
pub(crate) struct Site<'a> {
    /// The volume's root: its own inode is never replaced.
    pub(crate) live: &'a Dir,
    pub(crate) staging: &'a Staging,
    /// The volume's directory beside the root.
    pub(crate) beside: &'a Dir,
    pub(crate) leased: Option<Leased<'a>>,
}

/// The file of a block volume, where nobody else has it open.
#[derive(Clone, Copy)]
pub(crate) struct Leased<'a> {
    pub(crate) lease: &'a WriteLease,
    /// Before the first step.
    pub(crate) ctime: Time,
}

impl Site<'_> {
    /// Applies a record that is durable, or undoes it: as the record says, or because a step can't be done.
    pub(crate) fn carry_out(&self, record: &CommitRecord) -> io::Result<Applied> {
        let why = match record.direction {
            // A failed sync is not tried again: the kernel forgets what it could not write (R3).
            Direction::Forward => match apply::forward(self, &record.steps).and_then(|()| self.sync()) {
                Ok(()) => return self.settle(record),
                Err(why) => why,
            },
            Direction::Undo => ApplyError::Resumed,
        };
        // From here on only backwards, whatever interrupts it.
        record.reversed().store(self.beside)?;
        fault::hit("undo.recorded")?;
        let left = undo::backward(self, &record.steps);
        fault::hit("undo.done")?;
        sync_filesystem(self.live)?;
        Ok(Applied::Undone { why, left })
    }

    fn sync(&self) -> Result<(), ApplyError> {
        fault::hit("apply.sync").and_then(|()| sync_filesystem(self.live)).map_err(ApplyError::Sync)
    }

    fn settle(&self, record: &CommitRecord) -> io::Result<Applied> {
        fault::hit("apply.state")?;
        store_state(self.beside, &record.state)?;
        fault::hit("apply.done")?;
        Ok(Applied::Forward)
    }
}

const STATE: crate::record::RecordKind = crate::record::RecordKind { magic: *b"DRVS", version: 1 };

pub(crate) fn store_state(beside: &Dir, state: &VolumeState) -> io::Result<()> {
    crate::record::replace(beside, b"state", STATE, &serde_json::to_vec(state)?)
}

pub(crate) fn load_state(beside: &Dir) -> Result<Option<VolumeState>, crate::record::RecordError> {
    let Some((_, payload)) = crate::record::load(beside, b"state", STATE)? else {
        return Ok(None);
    };
    serde_json::from_slice(&payload).map(Some).map_err(|_| crate::record::RecordError::Malformed {
        name: "state".to_owned(),
        source: crate::codec::DecodeError::Json,
    })
}
