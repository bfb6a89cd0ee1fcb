//! A mounted image; unmounted and detached when dropped.

use std::{
    io,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use rustix::mount::{UnmountFlags, unmount};

use super::{FileSystem, image::call};
use crate::{process, scratch::Scratch};

const DEADLINE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Mounted {
    at: PathBuf,
    /// The mount point, unless the caller has one of its own.
    _scratch: Option<Scratch>,
    device: PathBuf,
    is_mounted: bool,
}

impl Mounted {
    /// At `at`, or at a mount point of its own.
    pub(super) fn mount(
        image: &Path,
        file_system: FileSystem,
        options: Option<&str>,
        at: Option<&Path>,
    ) -> io::Result<Self> {
        let scratch = at.is_none().then(|| Scratch::new("mount"));
        let at = at.or(scratch.as_ref().map(Scratch::path)).expect("one of the two").to_owned();
        // Direct I/O: what the file system believes to be on the disk is in the image file, not in a cache above it.
        let device = call("losetup", &[&"--find", &"--show", &"--direct-io=on", &image]);
        let mut mounted = Self { at, _scratch: scratch, device: device.trim().into(), is_mounted: false };
        let mut command = Command::new("mount");
        command.args(["-t", file_system.name()]);
        if let Some(options) = options {
            command.args(["-o", options]);
        }
        command.arg(&mounted.device).arg(&mounted.at);
        let done = process::try_run(command, DEADLINE)?;
        if !done.status.success() {
            return Err(io::Error::other(format!("mount: {}", done.stderr.trim())));
        }
        mounted.is_mounted = true;
        Ok(mounted)
    }

    pub fn path(&self) -> &Path {
        &self.at
    }

    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.at.join(name)
    }

    fn end(&mut self) -> io::Result<()> {
        if self.is_mounted {
            self.unmount()?;
            self.is_mounted = false;
        }
        let mut command = Command::new("losetup");
        command.arg("--detach").arg(&self.device).env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin");
        let done = process::try_run(command, DEADLINE)?;
        if done.status.success() { Ok(()) } else { Err(io::Error::other(done.stderr)) }
    }

    /// A process that was just killed may hold it a little longer.
    fn unmount(&self) -> io::Result<()> {
        for _ in 0..500 {
            match unmount(&self.at, UnmountFlags::empty()) {
                Err(rustix::io::Errno::BUSY) => thread::sleep(Duration::from_millis(10)),
                done => return Ok(done?),
            }
        }
        Ok(unmount(&self.at, UnmountFlags::DETACH)?)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("can't unmount {}: {error}", self.at.display());
        }
    }
}
