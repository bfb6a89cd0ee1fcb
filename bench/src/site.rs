//! Where a run lives: one directory with the sources, every contestant's replicas, and the agents' own files, and what
//! joins the two ends.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::{
    network::Network,
    workload::{Size, Workload},
};

#[derive(Debug)]
pub struct Site {
    pub base: PathBuf,
    pub size: Size,
    pub network: Network,
}

impl Site {
    pub fn create(base: &Path, size: Size, network: Network) -> Result<Self> {
        for name in ["source", "replica", "rsync", "agents"] {
            fs::create_dir_all(base.join(name)).with_context(|| format!("create {}", base.join(name).display()))?;
        }
        Ok(Self { base: base.canonicalize()?, size, network })
    }

    /// Root of one agent: every source is a volume beneath it.
    pub fn sources(&self) -> PathBuf {
        self.base.join("source")
    }

    /// Root of the other agent.
    pub fn replicas(&self) -> PathBuf {
        self.base.join("replica")
    }

    /// The rsync daemon's module.
    pub fn rsync_replicas(&self) -> PathBuf {
        self.base.join("rsync")
    }

    pub fn agents(&self) -> PathBuf {
        self.base.join("agents")
    }

    pub fn source(&self, workload: Workload) -> PathBuf {
        self.sources().join(workload.source())
    }

    /// Makes the workload's source unless an earlier workload of this run did.
    pub fn source_ready(&self, workload: Workload) -> Result<PathBuf> {
        let source = self.source(workload);
        if !source.exists() {
            eprintln!("{}: making the source", workload.name());
            workload.create(&source, self.size)?;
        }
        Ok(source)
    }
}
