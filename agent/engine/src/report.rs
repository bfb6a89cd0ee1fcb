//! What a finished job says. The same structures are the journal's, the wire's and `--output json`'s.

use serde::{Deserialize, Serialize};

use crate::{
    bases::FoundByCounts,
    image::Range,
    path::RelPath,
    point::{Point, PointId},
};

/// How many paths a list in a report names; the count beside it is always whole.
pub const PATHS_SHOWN: usize = 100;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
#[expect(clippy::large_enum_variant, reason = "one report a job; boxing would only move it")]
pub enum Report {
    Sync(SyncReport),
    Plan(PlanReport),
    Verify(VerifyReport),
    Rollback(RollbackReport),
}

/// What a plan would do, or what was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    pub created: u64,
    pub updated: u64,
    pub deleted: u64,
    /// Found elsewhere in the replica and moved.
    pub renamed: u64,
    /// Only owner, mode, times, xattrs or flags.
    pub metadata: u64,
    /// Size of all content that is new or changed.
    pub bytes_changed: u64,
    /// Of those, bytes that the replica already had somewhere (renamed, copied, in history).
    pub bytes_local: u64,
    /// New blocks that the worst case needs on the replica's file system.
    pub bytes_needed: u64,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.created + self.updated + self.deleted + self.renamed + self.metadata == 0
    }
}

/// Milliseconds of each part of a sync.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Durations {
    pub scan: u64,
    pub compare: u64,
    pub transfer: u64,
    pub commit: u64,
    /// Readers of the live path may see a mix of two points for so long (R2).
    pub apply: u64,
    pub retain: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncReport {
    /// The point that the replica is at now.
    pub point: Option<Point>,
    /// Nothing differed, so no new point was made; the old one was confirmed.
    pub unchanged: bool,
    pub changes: Changes,
    /// Bytes of the engine's messages as the sink counts them.
    pub wire_sent: u64,
    pub wire_received: u64,
    pub durations: Durations,
    /// Changed while they were read.
    pub fuzzy: Vec<RelPath>,
    /// Kept on the replica although the scan did not see them: they were there at the second look.
    pub not_deleted: Vec<RelPath>,
    /// Found changed behind our back on the replica, and repaired.
    pub repaired: Vec<RelPath>,
    /// What the replica held and the point that keeps it, when it was not a point of its own.
    pub kept_as: Option<PointId>,
    #[serde(default)]
    pub found_by: FoundOn,
}

/// How the change of big files was found, on each side; a file that its times vouched for is not counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundOn {
    pub source: FoundByCounts,
    pub replica: FoundByCounts,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanReport {
    pub changes: Changes,
    pub items: Vec<PlanItem>,
    /// Items beyond the first hundred.
    pub items_left_out: u64,
    /// Guards that would refuse the sync: reason and text.
    pub refused_by: Vec<(String, String)>,
    pub repaired: Vec<RelPath>,
    #[serde(default)]
    pub found_by: FoundOn,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanItem {
    pub action: Action,
    pub path: RelPath,
    /// Where a renamed entry was before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<RelPath>,
    /// Content to write, bytes.
    pub bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    Create,
    Update,
    Delete,
    Rename,
    Metadata,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// Content was read again on both sides.
    pub deep: bool,
    /// The replica holds what its point says.
    pub replica_is_point: bool,
    /// The source still holds what that point says. False is normal while the source is written.
    pub source_is_point: bool,
    /// Differences between the replica and its point: a discrepancy.
    pub replica_differs: Vec<Difference>,
    pub replica_differs_total: u64,
    /// Of an image: where the two copies of the point differ, the first hundred ranges. The next sync mends them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differs_at: Vec<Range>,
    /// Differences between the source now and the replica now.
    pub source_differs: Vec<Difference>,
    pub source_differs_total: u64,
    /// Source files whose content changed though their times did not.
    pub source_rotten: Vec<RelPath>,
    pub point: Option<PointId>,
    pub replica_root: String,
    pub source_root: String,
    pub entries: u64,
    pub bytes: u64,
}

impl VerifyReport {
    /// Has its own exit code.
    pub fn is_discrepancy(&self) -> bool {
        !self.replica_is_point || !self.source_rotten.is_empty()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    pub path: RelPath,
    pub what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    Missing,
    Extra,
    Content,
    Metadata,
    Kind,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollbackReport {
    pub from: Option<PointId>,
    pub to: PointId,
    pub changes: Changes,
    pub apply_millis: u64,
    /// What the tree held, when it was not a point of its own.
    pub kept_as: Option<PointId>,
}
