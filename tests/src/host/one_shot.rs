//! `drover-agent copy SRC DST`: the shortest way through the whole engine, in one process.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use super::{Faults, agent_binary, pair::DEVICES_BESIDE};
use crate::{
    judge,
    process::{self, Done},
    scratch::Scratch,
};

const COPY: Duration = Duration::from_secs(300);

/// A source and a copy of it, both beneath one temporary directory.
#[derive(Debug)]
pub struct OneShot {
    scratch: Scratch,
}

impl OneShot {
    pub fn new() -> Self {
        Self::beneath(Scratch::new("copy"))
    }

    pub fn beneath(scratch: Scratch) -> Self {
        fs::create_dir_all(scratch.join("from/v")).expect("source");
        fs::create_dir_all(scratch.join("to")).expect("target's parent");
        Self { scratch }
    }

    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    pub fn source(&self) -> PathBuf {
        self.scratch.join("from/v")
    }

    pub fn replica(&self) -> PathBuf {
        self.scratch.join("to/v")
    }

    /// With more arguments, and without a look at its end.
    #[track_caller]
    pub fn run(&self, faults: &Faults, arguments: &[&str]) -> Done {
        let mut command = Command::new(agent_binary());
        command.arg("copy").args(arguments).arg(self.source()).arg(self.replica());
        faults.apply(&mut command);
        process::run(command, COPY)
    }

    #[track_caller]
    pub fn sync(&self) -> Done {
        self.run(&Faults::none(), &["--max-delete", "100%"]).expect("drover-agent copy")
    }

    #[track_caller]
    pub fn assert_same(&self, why: &str) {
        judge::assert_same(&self.source(), &self.replica(), why);
    }
}

impl Default for OneShot {
    fn default() -> Self {
        Self::new()
    }
}

/// `drover-agent recover ROOT`, which needs nothing but the files beside the volumes.
#[track_caller]
pub fn recover(root: &Path, faults: &Faults) -> Done {
    let mut command = Command::new(agent_binary());
    // A pair that has devices keeps what is beside them here.
    let devices = root.join(DEVICES_BESIDE);
    if devices.exists() {
        command.args(["recover", "/dev", "--devices", "--beside"]).arg(devices);
    } else {
        command.arg("recover").arg(root);
    }
    faults.apply(&mut command);
    process::run(command, COPY)
}
