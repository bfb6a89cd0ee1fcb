//! A file system that fails to read chosen files with EIO: a real directory seen through FUSE, as a disk with bad
//! blocks would show it. It can be written, because an agent keeps its state beside the volume on the same file system.

mod attributes;
mod filesystem;
mod nodes;

use std::{
    collections::HashSet,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use fuser::{BackgroundSession, Config, MountOption, SessionACL};

use filesystem::Passthrough;

/// Paths that can't be read, from the root of the file system.
pub(crate) type Broken = Arc<Mutex<HashSet<PathBuf>>>;

/// Unmounted when dropped.
#[derive(Debug)]
pub struct EioFs {
    /// Ends with the session's thread.
    _session: BackgroundSession,
    at: PathBuf,
    broken: Broken,
}

impl EioFs {
    /// Shows `real` at `at`, an empty directory.
    pub fn mount(real: &Path, at: &Path) -> io::Result<Self> {
        let broken = Broken::default();
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("eiofs".into()), MountOption::DefaultPermissions];
        config.mount_options.extend([MountOption::Suid, MountOption::Dev]);
        config.acl = SessionACL::All;
        let passthrough = Passthrough::new(real.to_owned(), Arc::clone(&broken));
        let session = fuser::spawn_mount(passthrough, at, &config)?;
        Ok(Self { _session: session, at: at.to_owned(), broken })
    }

    pub fn path(&self) -> &Path {
        &self.at
    }

    /// From now on reading this file fails.
    pub fn break_file(&self, path: impl Into<PathBuf>) {
        self.broken.lock().expect("no holder panics").insert(path.into());
    }

    pub fn mend_all(&self) {
        self.broken.lock().expect("no holder panics").clear();
    }
}
