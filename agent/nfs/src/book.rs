//! Which fences there are, and what was changed for them: one record, durable before anything is changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
};

use drover_engine::{
    id::VolumeId,
    record::{self, RecordKind},
};
use drover_linux::Dir;
use serde::{Deserialize, Serialize};

use crate::{edit::Change, error::NfsError, kernel::Entry, server::ServerKind, table::Shut};

const NAME: &[u8] = b"fences";
const KIND: RecordKind = RecordKind { magic: *b"DFNC", version: 1 };

/// For what clients are shut out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Holder {
    Volume(VolumeId),
    /// A directory that is exported, by its path.
    Export(PathBuf),
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Volume(id) => id.fmt(f),
            Self::Export(path) => path.display().fmt(f),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// By a call.
    Asked,
    /// The copy's primary is elsewhere since a promotion there (R8).
    Superseded { by: String, epoch: u64 },
}

/// A write that the server took: whoever did it may write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeOk {
    /// As a client calls the directory.
    pub url: String,
    /// What was mounted, as a client calls it.
    pub export: String,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since 1970.
    pub at: i64,
    /// It was made before the export was shut for another directory in it, in that one.
    pub is_of_other: bool,
}

/// The same write, which the server refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub url: String,
    /// What was tried and what came of it.
    pub said: Vec<String>,
    pub at: i64,
}

/// Why it can be said that nobody writes, or can't.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// Empty: it is proved.
    pub lacking: Vec<String>,
    pub before: Vec<ProbeOk>,
    pub after: Vec<Refusal>,
    /// Entries that were read back, as the server shows them.
    pub entries: Vec<String>,
    /// Where they were read.
    pub source: String,
    pub at: i64,
}

impl Proof {
    pub fn is_proved(&self) -> bool {
        self.lacking.is_empty() && !self.before.is_empty() && !self.after.is_empty()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    pub holder: Holder,
    /// The directory that nobody writes to.
    pub path: PathBuf,
    pub shut: Shut,
    pub cause: Cause,
    /// Exports that hold more than the directory are shut as well.
    pub whole_export: bool,
    /// Those that led there when somebody looked: they stay shut while the directory can't be found, its file system not being mounted, say.
    pub exports: BTreeSet<PathBuf>,
    /// Since when it holds without a gap that was seen.
    pub since: i64,
    /// Another one each time that it was shut, or shut again.
    pub generation: u64,
    /// Of the files that its probes make.
    pub probe_name: String,
    /// Writes that the server took before it was shut.
    pub before: Vec<ProbeOk>,
    /// Why other exports that lead there could not be written through then, or none.
    pub before_lacking: Vec<String>,
    /// Of the last look.
    pub proof: Proof,
    /// Clients are being let in again.
    pub is_lifting: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Book {
    pub(crate) fences: Vec<Fence>,
    /// What stands in files in the place of what.
    pub(crate) changes: Vec<Change>,
    /// Those that somebody edited since, as they were.
    pub(crate) abandoned: Vec<Change>,
    /// What stood in the running server alone.
    pub(crate) former: Vec<Entry>,
    /// The running server may not know of what is in the files.
    pub(crate) is_unloaded: bool,
    /// What kind of server all that is of.
    pub(crate) server: Option<ServerKind>,
    /// Names of files that probes may have left behind, by directory.
    pub(crate) left: BTreeMap<PathBuf, Vec<String>>,
}

impl Book {
    pub(crate) fn load(dir: &Dir) -> Result<Self, NfsError> {
        let Some((_, payload)) = record::load(dir, NAME, KIND).map_err(NfsError::Damaged)? else {
            return Ok(Self::default());
        };
        serde_json::from_slice(&payload).map_err(|_| NfsError::Newer)
    }

    /// Durable when it returns.
    pub(crate) fn store(&self, dir: &Dir) -> Result<(), NfsError> {
        let written = |source| NfsError::Book { what: "written", source };
        let payload = serde_json::to_vec(self).map_err(|error| written(error.into()))?;
        record::replace(dir, NAME, KIND, &payload).map_err(written)
    }

    pub(crate) fn fence(&self, holder: &Holder) -> Option<&Fence> {
        self.fences.iter().find(|fence| fence.holder == *holder)
    }

    pub(crate) fn fence_mut(&mut self, holder: &Holder) -> Option<&mut Fence> {
        self.fences.iter_mut().find(|fence| fence.holder == *holder)
    }

    pub(crate) fn put(&mut self, fence: Fence) {
        self.fences.retain(|it| it.holder != fence.holder);
        self.fences.push(fence);
    }

    pub(crate) fn left_behind(&mut self, directory: &Path, name: &str) {
        let names = self.left.entry(directory.to_owned()).or_default();
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
}
