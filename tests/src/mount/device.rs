//! A bare block device: a loop device without a file system.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::process;

const DEADLINE: Duration = Duration::from_secs(60);

/// Numbers of loop devices beyond those that `losetup --find` comes to.
const NAMES_FROM: u32 = 64;
const NAMES: u32 = 128;

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

    /// Under a name that nobody else takes while it is detached for a moment: whoever mounts an image gets the lowest free one.
    pub fn of(backing: &Path) -> Self {
        let first = std::process::id() % NAMES;
        let names = (0..NAMES).map(|n| format!("/dev/loop{}", NAMES_FROM + (first + n) % NAMES));
        let attached = names.map(PathBuf::from).find(|path| Self::attach(path, backing).is_ok());
        Self { path: attached.expect("a free loop device") }
    }

    /// Under a name that is free.
    pub fn named(path: &Path, backing: &Path) -> Self {
        Self::attach(path, backing).expect("a loop device");
        Self { path: path.into() }
    }

    /// What the device's page cache has written is in the file, and not in a cache above it.
    fn attach(path: &Path, backing: &Path) -> io::Result<()> {
        let mut command = Command::new("losetup");
        command.arg("--direct-io=on").args([path, backing]).env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin");
        let done = process::try_run(command, DEADLINE)?;
        if done.status.success() { Ok(()) } else { Err(io::Error::other(done.stderr)) }
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
