//! Extended attributes (`xattr(7)`) of an entry itself, whatever its kind.
//!
//! The `f*xattr` calls need a readable file, which a symlink, fifo or device can't be opened as. The `l*xattr` calls
//! take a path; through `/proc/self/fd` it starts at the open directory, so no component of it can be swapped.

use std::{
    io,
    os::fd::AsFd,
    os::fd::{AsRawFd, BorrowedFd},
};

use rustix::{
    buffer::spare_capacity,
    fs::{self, XattrFlags},
    io::Errno,
};

use super::Dir;

/// First guess for a list of names, or for one value; most are far smaller.
const GUESS_BYTES: usize = 1024;

enum Subject<'a> {
    Directory(BorrowedFd<'a>),
    Entry(Vec<u8>),
}

impl Dir {
    /// Names with values of all namespaces that this process may see, sorted by name; nothing where the file system
    /// has no xattrs. What vanishes between the two calls is left out.
    pub fn xattrs(&self, name: &[u8]) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        if self.is_device_window() || (name.is_empty() && self.is_window()) {
            return Ok(Vec::new());
        }
        let subject = self.subject(name)?;
        let list = match subject.list() {
            Ok(list) => list,
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let mut xattrs = Vec::new();
        for xattr in list.split(|b| *b == 0).filter(|xattr| !xattr.is_empty()) {
            match subject.value(xattr) {
                Ok(value) => xattrs.push((xattr.to_vec(), value)),
                Err(Errno::NODATA) => {}
                Err(error) => return Err(error.into()),
            }
        }
        xattrs.sort_unstable();
        Ok(xattrs)
    }

    /// Creates or replaces.
    pub fn set_xattr(&self, name: &[u8], xattr: &[u8], value: &[u8]) -> io::Result<()> {
        Ok(match self.subject(name)? {
            Subject::Directory(fd) => fs::fsetxattr(fd, xattr, value, XattrFlags::empty()),
            Subject::Entry(path) => fs::lsetxattr(path, xattr, value, XattrFlags::empty()),
        }?)
    }

    /// ENODATA when there is no such attribute.
    pub fn remove_xattr(&self, name: &[u8], xattr: &[u8]) -> io::Result<()> {
        Ok(match self.subject(name)? {
            Subject::Directory(fd) => fs::fremovexattr(fd, xattr),
            Subject::Entry(path) => fs::lremovexattr(path, xattr),
        }?)
    }

    fn subject(&self, name: &[u8]) -> io::Result<Subject<'_>> {
        if name.is_empty() {
            self.refuse_window()?;
            return Ok(Subject::Directory(self.as_fd()));
        }
        let mut path = format!("/proc/self/fd/{}/", self.fd.as_raw_fd()).into_bytes();
        path.extend_from_slice(self.real(name)?);
        Ok(Subject::Entry(path))
    }
}

impl Subject<'_> {
    /// Names, each ended by a NUL.
    fn list(&self) -> Result<Vec<u8>, Errno> {
        grow(|buffer| match self {
            Self::Directory(fd) => fs::flistxattr(fd, spare_capacity(buffer)),
            Self::Entry(path) => fs::llistxattr(&path[..], spare_capacity(buffer)),
        })
    }

    fn value(&self, xattr: &[u8]) -> Result<Vec<u8>, Errno> {
        grow(|buffer| match self {
            Self::Directory(fd) => fs::fgetxattr(fd, xattr, spare_capacity(buffer)),
            Self::Entry(path) => fs::lgetxattr(&path[..], xattr, spare_capacity(buffer)),
        })
    }
}

/// Repeats `read` with a larger buffer until what it reads fits: it may grow from one call to the next.
fn grow(mut read: impl FnMut(&mut Vec<u8>) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut buffer = Vec::with_capacity(GUESS_BYTES);
    loop {
        match read(&mut buffer) {
            Ok(_) => return Ok(buffer),
            Err(Errno::RANGE) => buffer = Vec::with_capacity(buffer.capacity() * 4),
            Err(error) => return Err(error),
        }
    }
}
