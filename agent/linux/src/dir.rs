//! An open directory, and what can be done beneath it.
//!
//! A *name* is one directory entry: no slash, neither `.` nor `..`. Where it is said, the empty name means the directory
//! itself. No call follows a symlink in the last place, and there is no other place, so none is followed at all.

mod attributes;
mod files;
mod flags;
mod handle;
mod names;
mod open;
mod space;
#[cfg(test)]
mod tests;
mod window;
mod xattr;

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::fs::{OFlags, RawDir};

use crate::{Stat, file, stat::stat_at};

pub use handle::FileHandle;
pub use open::is_gone;
pub use space::{FilesystemType, Space};
pub use window::WINDOW_NAME;
use window::Window;

/// Bytes of one `getdents64(2)` call: a few hundred entries, and well above one entry of the longest name.
const LIST_BUFFER_BYTES: usize = 32 * 1024;

#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    /// The one entry that is shown as `WINDOW_NAME`.
    window: Option<Window>,
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<OwnedFd> for Dir {
    fn from(fd: OwnedFd) -> Self {
        Self { fd, window: None }
    }
}

impl Dir {
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { fd: self.fd.try_clone()?, window: self.window.clone() })
    }

    /// Names and inode numbers without `.` and `..`, in the file system's order. Each call reads from the start, and
    /// several threads may call it at once.
    pub fn list(&self) -> io::Result<Vec<(Vec<u8>, u64)>> {
        if self.window.is_some() {
            return self.list_window();
        }
        let fresh = self.open_beneath(b"")?;
        let mut buffer = [MaybeUninit::uninit(); LIST_BUFFER_BYTES];
        let mut entries = RawDir::new(&fresh.fd, &mut buffer);
        let mut list = Vec::new();
        while let Some(entry) = entries.next() {
            let entry = entry?;
            match entry.file_name().to_bytes() {
                b"." | b".." => {}
                name => list.push((name.to_vec(), entry.ino())),
            }
        }
        Ok(list)
    }

    /// Of the entry `name`; of the directory itself when `name` is empty.
    pub fn stat(&self, name: &[u8]) -> io::Result<Stat> {
        if name.is_empty() {
            return self.stat_self();
        }
        match self.open_window_device(name, OFlags::RDONLY)? {
            Some(device) => file::stat(&device),
            None => stat_at(self.as_fd(), self.real(name)?),
        }
    }

    pub fn stat_self(&self) -> io::Result<Stat> {
        Ok(self.anonymous(stat_at(self.as_fd(), b"")?))
    }

    /// Makes the entries durable (`fsync(2)`).
    pub fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.fd)?)
    }

    /// Makes everything on the directory's file system durable, and reports an earlier failed write-back (`syncfs(2)`).
    pub fn sync_filesystem(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.fd)?)
    }
}

/// Refuses what the kernel would resolve as a path.
fn one_name(name: &[u8]) -> io::Result<&[u8]> {
    match name {
        b"" | b"." | b".." => Err(invalid("not a name of a directory entry")),
        _ if name.contains(&b'/') => Err(invalid("a name holds no slash")),
        _ => Ok(name),
    }
}

fn invalid(problem: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, problem)
}
