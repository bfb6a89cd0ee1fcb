//! Sync points, and the rules of lineage that decide whether a copy may be synced (R6).

mod lineage;
mod state;
mod takeover;

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

pub use lineage::{Acceptance, Histories, LineageConflict, accept};
pub use state::{Force, Role, StateError, Superseded, VolumeKind, VolumeState};
pub use takeover::{PeerCopy, Unsafe, planned};

use crate::{digest::Digest, id::LineageId, tree::Totals};

/// Number of a sync point, and for what was kept of a diverged copy the how-manieth after that point. Shown as `12`
/// or `12+1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct PointId {
    pub number: u64,
    pub kept: u32,
}

impl PointId {
    pub const fn sync(number: u64) -> Self {
        Self { number, kept: 0 }
    }
}

impl fmt::Display for PointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kept {
            0 => write!(f, "{}", self.number),
            kept => write!(f, "{}+{kept}", self.number),
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no point: points are named like 12 or 12+1")]
pub struct PointIdParseError(String);

impl FromStr for PointId {
    type Err = PointIdParseError;

    fn from_str(text: &str) -> Result<Self, PointIdParseError> {
        let (number, kept) = text.split_once('+').unwrap_or((text, "0"));
        match (number.parse(), kept.parse()) {
            (Ok(number), Ok(kept)) => Ok(Self { number, kept }),
            _ => Err(PointIdParseError(text.to_owned())),
        }
    }
}

impl From<PointId> for String {
    fn from(id: PointId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for PointId {
    type Error = PointIdParseError;

    fn try_from(text: String) -> Result<Self, PointIdParseError> {
        text.parse()
    }
}

/// How consistent a sync point is; never flattered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Label {
    /// Something changed while it was read; the report names it.
    Fuzzy,
    /// A live directory: each file whole, not one instant.
    PerFile,
    /// One instant: a snapshot or a reflink.
    CrashConsistent,
    /// Writers were provably shut out.
    Fenced,
    /// An application's freeze hook ran.
    Quiesced,
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fuzzy => "fuzzy",
            Self::PerFile => "per-file",
            Self::CrashConsistent => "crash-consistent",
            Self::Fenced => "fenced",
            Self::Quiesced => "quiesced",
        })
    }
}

/// Why a point exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// A sync from the primary.
    Sync,
    /// What a copy held that was about to be overwritten: a diverged primary, or a change behind our back.
    Kept,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    pub id: PointId,
    pub origin: Origin,
    pub lineage: LineageId,
    pub epoch: u64,
    pub parent: Option<PointId>,
    /// Seconds since 1970, by the clock of the source when its scan ended.
    pub taken_at: i64,
    pub root: Digest,
    pub totals: PointTotals,
    pub label: Label,
    /// Bytes that the engine's messages took, both directions.
    pub bytes_moved: u64,
    /// Bodies that a foreign write destroyed before they could be kept: paths, shortened to the first hundred.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<crate::path::RelPath>,
    /// Of an image: all that it belongs with have this point, of the same moment.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_cut: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PointTotals {
    pub entries: u64,
    pub bytes: u64,
}

impl From<Totals> for PointTotals {
    fn from(totals: Totals) -> Self {
        Self { entries: totals.entries, bytes: totals.bytes }
    }
}

impl Point {
    /// Same point on both sites?
    pub fn is(&self, other: &Self) -> bool {
        self.id == other.id && self.lineage == other.lineage && self.root == other.root
    }
}
