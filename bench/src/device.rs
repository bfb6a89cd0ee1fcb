//! Bare block devices of one's own for a run: loop devices over files in its directory.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::mount::run;

/// A loop device under a second name, `node`, so that rsync finds it in a directory.
#[derive(Debug)]
pub struct Device {
    pub node: PathBuf,
    /// Beneath `/dev`.
    pub name: String,
    backing: PathBuf,
    /// Keeps it attached: see [`Self::attach`].
    _opened: File,
}

impl Device {
    /// A blank one: its backing file is new and all hole.
    pub fn attach(node: &Path, backing: &Path, bytes: u64) -> Result<Self> {
        File::create(backing)
            .and_then(|file| file.set_len(bytes))
            .with_context(|| format!("create {}", backing.display()))?;
        // Direct I/O: the data would else be twice in the page cache.
        let mut losetup = Command::new("losetup");
        let path = run(losetup.args(["--find", "--show", "--direct-io=on"]).arg(backing))?;
        let path = Path::new(path.trim());
        let opened = File::open(path).with_context(|| format!("open {}", path.display()));
        // A device that is detached while it is open goes with its last user (loop_clr_fd of the kernel): even when
        // this process is killed, and at once when it could not be opened.
        run(Command::new("losetup").arg("--detach").arg(path))?;
        let opened = opened?;
        let name = path.file_name().context("losetup told no device")?.to_string_lossy().into_owned();
        let number = opened.metadata()?.rdev();
        mknodat(CWD, node, FileType::BlockDevice, Mode::RUSR | Mode::WUSR, number)
            .with_context(|| format!("make a node of {name} at {}", node.display()))?;
        Ok(Self { node: node.to_owned(), name, backing: backing.to_owned(), _opened: opened })
    }

    /// Detaches it and gives back its space.
    pub fn forget(self) -> Result<()> {
        fs::remove_file(&self.backing).with_context(|| format!("remove {}", self.backing.display()))
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // The number may soon be another one's device. Where the node is gone already there is nothing to do.
        let _ = fs::remove_file(&self.node);
    }
}
