//! A window: a directory that shows one of its entries, under a name that is the same everywhere. A volume that is one
//! file is the tree of a window on the file's directory, so that everything that holds for trees holds for it. A window
//! on a block device shows it as a regular file (`device`), which can be written to and neither replaced nor renamed.

use std::{fs::File, io, sync::Arc};

use rustix::{
    fs::{Mode, OFlags, ResolveFlags},
    io::Errno,
};

use super::{Dir, invalid, one_name};
use crate::{FileId, Kind, Stat, Time, file, stat::stat_at};

/// The name that a window shows its entry under.
pub const WINDOW_NAME: &[u8] = b"image";

#[derive(Clone, Debug)]
pub(super) enum Window {
    /// By its real name.
    File(Arc<[u8]>),
    /// By its path beneath the directory, and what it was when the window was opened.
    Device { path: Arc<[u8]>, id: FileId },
}

/// Beneath `/dev` names of devices are symlinks more often than not.
const BENEATH_BY_LINKS: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS).union(ResolveFlags::NO_XDEV);

impl Dir {
    /// Shows the entry `name` as `WINDOW_NAME`, and nothing else, whether it is there or not. The directory's own owner,
    /// mode, times, flags and xattrs are not shown: they read as those of any window, and can't be set.
    pub fn window(self, name: &[u8]) -> io::Result<Self> {
        Ok(Self { window: Some(Window::File(one_name(name)?.into())), ..self })
    }

    /// Shows the block device at a path beneath this directory, which may lead through symlinks beneath it, as
    /// `WINDOW_NAME`. Whenever the device is opened through the window, it must be the same one.
    pub fn device_window(self, path: &[u8]) -> io::Result<Self> {
        let device = open_device(&self, path, OFlags::RDONLY)?;
        let id = file::stat(&device)?.id;
        Ok(Self { window: Some(Window::Device { path: path.into(), id }), ..self })
    }

    pub(super) fn is_window(&self) -> bool {
        self.window.is_some()
    }

    /// The device of a window on one; `None` for every other directory.
    /// To be read, it is read from the disk: what a mounted file system or another of its names writes does not go through the
    /// page cache that a buffered read would be answered from.
    pub(super) fn open_window_device(&self, name: &[u8], flags: OFlags) -> io::Result<Option<File>> {
        let Some(Window::Device { path, id }) = &self.window else { return Ok(None) };
        if name != WINDOW_NAME {
            return Err(invalid("a window shows one name only"));
        }
        let is_read = !flags.contains(OFlags::RDWR);
        let device = open_device(self, path, if is_read { flags | OFlags::DIRECT } else { flags })?;
        if !is_read {
            file::drop_cache(&device)?;
        }
        match file::stat(&device)?.id == *id {
            true => Ok(Some(device)),
            false => Err(io::Error::new(io::ErrorKind::NotFound, "another device has taken the name")),
        }
    }

    pub fn is_device_window(&self) -> bool {
        matches!(self.window, Some(Window::Device { .. }))
    }

    /// What the kernel knows an entry by.
    pub(super) fn real<'a>(&'a self, name: &'a [u8]) -> io::Result<&'a [u8]> {
        match &self.window {
            None => one_name(name),
            Some(Window::File(real)) if name == WINDOW_NAME => Ok(real),
            Some(Window::File(_)) => Err(invalid("a window shows one name only")),
            Some(Window::Device { .. }) => Err(invalid("a device is only read and written")),
        }
    }

    /// The name that an entry of the directory is shown under, when it is.
    pub fn shown<'a>(&self, real: &'a [u8]) -> Option<&'a [u8]> {
        match &self.window {
            None => Some(real),
            Some(Window::File(of)) => (**of == *real).then_some(WINDOW_NAME),
            // By whatever name it was opened.
            Some(Window::Device { .. }) => Some(WINDOW_NAME),
        }
    }

    /// For calls that would change the directory itself.
    pub(super) fn refuse_window(&self) -> io::Result<()> {
        if self.is_window() { Err(invalid("the directory behind a window is not of the volume")) } else { Ok(()) }
    }

    pub(super) fn list_window(&self) -> io::Result<Vec<(Vec<u8>, u64)>> {
        match self.stat(WINDOW_NAME) {
            Ok(stat) => Ok(vec![(WINDOW_NAME.to_vec(), stat.id.ino)]),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// The directory behind a window, without what is its own affair; of one on a device, with the device's identity.
    pub(super) fn anonymous(&self, stat: Stat) -> Stat {
        let never = Time { secs: 0, nanos: 0 };
        let anonymous = Stat { mode: 0o700, uid: 0, gid: 0, size: 0, mtime: never, ctime: never, ..stat };
        match &self.window {
            None => stat,
            Some(Window::File(_)) => anonymous,
            Some(Window::Device { id, .. }) => Stat { id: *id, ..anonymous },
        }
    }
}

fn open_device(dir: &Dir, path: &[u8], flags: OFlags) -> io::Result<File> {
    let flags = flags | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = loop {
        match rustix::fs::openat2(dir, path, flags, Mode::empty(), BENEATH_BY_LINKS) {
            Err(Errno::INTR | Errno::AGAIN) => {}
            opened => break opened?,
        }
    };
    let device = File::from(fd);
    match stat_at(std::os::fd::AsFd::as_fd(&device), b"")?.kind {
        Kind::Device(crate::DeviceKind::Block) => Ok(device),
        _ => Err(invalid("not a block device")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device;
    use std::{io::Write as _, path::Path, process::Command};

    /// Detached when it goes.
    struct Loop(String);

    impl Loop {
        fn of(file: &Path) -> Option<Self> {
            let output = Command::new("losetup").args(["--find", "--show"]).arg(file).output().ok()?;
            let name = String::from_utf8(output.stdout).ok()?.trim().strip_prefix("/dev/")?.to_owned();
            output.status.success().then_some(Self(name))
        }
    }

    impl Drop for Loop {
        fn drop(&mut self) {
            let _ = Command::new("losetup").args(["--detach", &format!("/dev/{}", self.0)]).status();
        }
    }

    #[test]
    fn a_device_is_a_file_whose_writes_are_counted() {
        let mut backing = tempfile::NamedTempFile::new().unwrap();
        backing.write_all(&[7; 1 << 20]).unwrap();
        backing.as_file().set_len(8 << 20).unwrap();
        let Some(device) = Loop::of(backing.path()) else {
            return eprintln!("SKIPPED a_device_is_a_file_whose_writes_are_counted: no loop device can be had");
        };
        let window = || Dir::open(Path::new("/dev")).unwrap().device_window(device.0.as_bytes());
        let dir = window().unwrap();
        assert_eq!(dir.list().unwrap().len(), 1);
        let before = dir.stat(WINDOW_NAME).unwrap();
        assert_eq!((before.kind, before.size, before.nlink), (Kind::File, 8 << 20, 1));
        assert_eq!(before, dir.stat(WINDOW_NAME).unwrap());
        assert_eq!(before.id, dir.stat_self().unwrap().id);
        assert!(device::identity(&dir.open_file(WINDOW_NAME).unwrap()).unwrap().is_some());
        let exclusive = dir.open_write(WINDOW_NAME).unwrap();
        assert_eq!(dir.open_write(WINDOW_NAME).unwrap_err().kind(), io::ErrorKind::ResourceBusy);
        std::os::unix::fs::FileExt::write_all_at(&exclusive, &[9; 512], 0).unwrap();
        let after = dir.stat(WINDOW_NAME).unwrap();
        assert_ne!(before.ctime, after.ctime);
        assert_eq!(before.id, after.id);
        assert!(dir.xattrs(WINDOW_NAME).unwrap().is_empty() && dir.inode_flags(WINDOW_NAME).unwrap() == 0);
        for refused in [dir.unlink(WINDOW_NAME), dir.chmod(WINDOW_NAME, 0o777)] {
            assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
        assert!(Dir::open(Path::new("/dev")).unwrap().device_window(b"null").is_err());
    }
}
