//! The server that a host has, of either kind.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    edit::{self, Change, Format},
    error::NfsError,
    ganesha::{Ganesha, GaneshaConfig},
    kernel::{Entry, Kernel, KernelConfig},
    table::{Shut, Table},
};

#[derive(Clone, Debug)]
pub enum ServerConfig {
    Kernel(KernelConfig),
    Ganesha(GaneshaConfig),
}

/// What a server that is configured so says that it serves.
pub fn read_table(config: &ServerConfig) -> Result<Table, NfsError> {
    Server::new(config).table()
}

/// What the export of a path shall be for its clients; `None`: as it was.
pub(crate) type Wish<'a> = dyn Fn(&Path) -> Option<Shut> + 'a;

/// What the files are to become, and what will have been changed then.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Each with what it holds now.
    pub(crate) files: Vec<(PathBuf, String, String)>,
    pub(crate) changes: Vec<Change>,
    pub(crate) abandoned: Vec<Change>,
    pub(crate) former: Vec<Entry>,
}

impl Plan {
    /// All files, of one kind. A known change whose file is not there is looked for in the others, and kept where it is in none.
    pub(crate) fn of(
        files: impl IntoIterator<Item = (PathBuf, String)>,
        known: &[Change],
        format: &impl Format,
    ) -> Result<Self, NfsError> {
        let files: Vec<_> = files.into_iter().collect();
        let is_visited = |change: &Change| files.iter().any(|(path, _)| *path == change.file);
        let mut moved: Vec<&Change> = known.iter().filter(|change| !is_visited(change)).collect();
        let mut plan = Self::default();
        for (path, text) in &files {
            let here = known.iter().filter(|change| change.file == *path).chain(moved.iter().copied());
            let replanned = edit::replan(path, text, &here.collect::<Vec<_>>(), format)?;
            moved.retain(|change| !replanned.found.contains(change));
            if replanned.text != *text {
                plan.files.push((path.clone(), text.clone(), replanned.text));
            }
            plan.changes.extend(replanned.changes);
            plan.abandoned.extend(replanned.abandoned);
        }
        plan.changes.extend(moved.into_iter().cloned());
        Ok(plan)
    }
}

/// When the running server is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    Always,
    /// When its files change.
    IfPlanned,
}

/// Of a journal: another kind of server knows nothing of what was changed in this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServerKind {
    Kernel,
    Ganesha,
}

#[derive(Debug)]
pub(crate) enum Server {
    Kernel(Kernel),
    Ganesha(Ganesha),
}

impl Server {
    pub(crate) fn new(config: &ServerConfig) -> Self {
        match config {
            ServerConfig::Kernel(config) => Self::Kernel(Kernel(config.clone())),
            ServerConfig::Ganesha(config) => Self::Ganesha(Ganesha(config.clone())),
        }
    }

    pub(crate) fn kind(&self) -> ServerKind {
        match self {
            Self::Kernel(_) => ServerKind::Kernel,
            Self::Ganesha(_) => ServerKind::Ganesha,
        }
    }

    /// Read back from the running server.
    pub(crate) fn table(&self) -> Result<Table, NfsError> {
        match self {
            Self::Kernel(kernel) => kernel.table(),
            Self::Ganesha(ganesha) => ganesha.table(),
        }
    }

    /// Every export that is configured or in force: its path, and whether it serves what is mounted beneath it.
    pub(crate) fn exported(&self) -> Result<Vec<(PathBuf, bool)>, NfsError> {
        match self {
            Self::Kernel(kernel) => kernel.exported(),
            Self::Ganesha(ganesha) => ganesha.exported(),
        }
    }

    pub(crate) fn plan(&self, known: &[Change], former: &[Entry], wish: &Wish<'_>) -> Result<Plan, NfsError> {
        match self {
            Self::Kernel(kernel) => kernel.plan(known, former, wish),
            Self::Ganesha(ganesha) => ganesha.plan(known, wish),
        }
    }

    /// Once the files are as planned. `known` and `former` are what was changed before.
    pub(crate) fn load(
        &self,
        known: &[Change],
        former: &[Entry],
        plan: &mut Plan,
        wish: &Wish<'_>,
        load: Load,
    ) -> Result<(), NfsError> {
        match (self, load) {
            // It looks what is to be done.
            (Self::Kernel(kernel), load) => kernel.load(former, plan, wish, load),
            (Self::Ganesha(ganesha), Load::Always) => ganesha.load(known, plan),
            (Self::Ganesha(_), Load::IfPlanned) if plan.files.is_empty() && plan.changes == known => Ok(()),
            (Self::Ganesha(ganesha), Load::IfPlanned) => ganesha.load(known, plan),
        }
    }
}
