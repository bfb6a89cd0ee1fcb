//! Guards: plans that look like an accident are refused, whoever asked (design: no silent destruction).

use crate::{error::Kind, report::Changes, session::SyncOptions, tree::Totals};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuardError {
    #[error(
        "source is empty and the replica holds {entries} entries: is the source mounted? Allow an empty source if it is meant"
    )]
    EmptySource { entries: u64 },
    #[error("the image of the source is not there, and the replica's is kept: put it back, or promote the replica")]
    NoImage,
    #[error("{deletes} of {entries} entries would be deleted, more than {percent} %: raise the limit if it is meant")]
    DeletePercent { deletes: u64, entries: u64, percent: u8 },
    #[error("{deletes} entries would be deleted, the limit is {limit}: raise the limit if it is meant")]
    DeleteEntries { deletes: u64, limit: u64 },
    #[error("the worst case needs {needed} bytes on the replica's file system, {free} are free")]
    Space { needed: u64, free: u64 },
}

impl GuardError {
    pub fn kind(&self) -> Kind {
        match self {
            Self::EmptySource { .. } | Self::NoImage | Self::DeletePercent { .. } | Self::DeleteEntries { .. } => {
                Kind::Precondition
            }
            Self::Space { .. } => Kind::Exhausted,
        }
    }

    pub fn reason(&self) -> &'static str {
        match self {
            Self::EmptySource { .. } => "empty-source",
            Self::NoImage => "source-missing",
            Self::DeletePercent { .. } | Self::DeleteEntries { .. } => "mass-delete",
            Self::Space { .. } => "no-space",
        }
    }
}

/// What the guards look at besides the plan.
#[derive(Clone, Copy, Debug)]
pub struct Guards<'a> {
    pub options: &'a SyncOptions,
    /// One image or device, which is never meant to be nothing.
    pub is_block: bool,
    pub source: Totals,
    pub replica: Totals,
    pub free_bytes: u64,
}

impl Guards<'_> {
    /// A tree so small that a share of it says nothing.
    const SMALL_ENTRIES: u64 = 20;
    /// Left free for metadata of new entries, the manifest and the records.
    const RESERVE_BYTES: u64 = 1 << 20;
    const ENTRY_BYTES: u64 = 1024;

    /// Every guard that refuses, so that a dry run shows them all.
    pub fn check(&self, changes: &Changes) -> Vec<GuardError> {
        let (deletes, entries) = (changes.deleted, self.replica.entries.saturating_sub(1));
        let options = self.options;
        let mut refused = Vec::new();
        if self.source.entries <= 1 && entries > 0 && self.is_block {
            refused.push(GuardError::NoImage);
        } else if self.source.entries <= 1 && entries > 0 && !options.allow_empty_source {
            refused.push(GuardError::EmptySource { entries });
        }
        let percent = options.delete_percent_max;
        let is_meant = self.source.entries <= 1 && options.allow_empty_source;
        if !is_meant && entries > Self::SMALL_ENTRIES && deletes * 100 > entries * u64::from(percent) {
            refused.push(GuardError::DeletePercent { deletes, entries, percent });
        }
        if let Some(limit) = options.delete_entries_max
            && deletes > limit
        {
            refused.push(GuardError::DeleteEntries { deletes, limit });
        }
        if !changes.is_empty() {
            let needed = changes.bytes_needed + changes.created * Self::ENTRY_BYTES + Self::RESERVE_BYTES;
            if needed > self.free_bytes {
                refused.push(GuardError::Space { needed, free: self.free_bytes });
            }
        }
        refused
    }
}
