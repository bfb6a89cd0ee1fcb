//! A bare block device: a loop device without a file system.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use super::image::call;
use crate::process;

const DEADLINE: Duration = Duration::from_secs(60);

/// Detached when it goes; the file behind it stays.
#[derive(Debug)]
pub struct Device {
    path: PathBuf,
}

impl Device {
    /// Behind a new file without content.
    pub fn new(backing: &Path, bytes: u64) -> io::Result<Self> {
        File::create_new(backing)?.set_len(bytes)?;
        Ok(Self::of(backing))
    }

    /// What the device's page cache has written is in the file, and not in a cache above it.
    pub fn of(backing: &Path) -> Self {
        let path = call("losetup", &[&"--find", &"--show", &"--direct-io=on", &backing]);
        Self { path: path.trim().into() }
    }

    /// Under a name that is free.
    pub fn named(path: &Path, backing: &Path) -> Self {
        call("losetup", &[&"--direct-io=on", &path, &backing]);
        Self { path: path.into() }
    }

    /// Beneath `/dev`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn name(&self) -> &str {
        self.path.file_name().and_then(|name| name.to_str()).expect("the name of a loop device")
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let mut command = Command::new("losetup");
        command.arg("--detach").arg(&self.path).env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin");
        match process::try_run(command, DEADLINE) {
            Ok(done) if done.status.success() => {}
            Ok(done) => eprintln!("can't detach {}: {}", self.path.display(), done.stderr.trim()),
            Err(error) => eprintln!("can't detach {}: {error}", self.path.display()),
        }
    }
}
