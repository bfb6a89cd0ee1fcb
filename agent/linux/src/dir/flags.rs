//! Inode flags (`ioctl_iflags(2)`, what `lsattr` shows). Only regular files and directories have them; other kinds are
//! `InvalidInput`. The empty name means the directory itself.

use std::{fs::File, io};

use rustix::{
    fs::{IFlags, Mode, OFlags, ioctl_getflags, ioctl_setflags},
    io::Errno,
};

use super::{Dir, invalid};
use crate::{Kind, file};

impl Dir {
    /// All flags as the file system tells them; 0 where it has none.
    pub fn inode_flags(&self, name: &[u8]) -> io::Result<u32> {
        if self.is_device_window() || (name.is_empty() && self.is_window()) {
            return Ok(0);
        }
        Ok(read(&self.open_for_flags(name)?)?.unwrap_or(0))
    }

    /// Sets those of `flags` that are in `mask` and clears the rest of `mask`. Nothing is written when nothing changes;
    /// where the file system has no flags, wanting none of them succeeds and wanting any is EOPNOTSUPP.
    pub fn set_inode_flags(&self, name: &[u8], flags: u32, mask: u32) -> io::Result<()> {
        if name.is_empty() {
            self.refuse_window()?;
        }
        let file = self.open_for_flags(name)?;
        let old = read(&file)?;
        let new = old.unwrap_or(0) & !mask | flags & mask;
        if old.unwrap_or(0) == new {
            return Ok(());
        }
        if old.is_none() {
            return Err(Errno::OPNOTSUPP.into());
        }
        Ok(ioctl_setflags(&file, IFlags::from_bits_retain(new))?)
    }

    fn open_for_flags(&self, name: &[u8]) -> io::Result<File> {
        if name.is_empty() {
            return Ok(File::from(self.fd.try_clone()?));
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(self, self.real(name)?, flags, Mode::empty())?);
        // A driver would take the request for one of its own.
        match file::stat(&file)?.kind {
            Kind::File | Kind::Directory => Ok(file),
            _ => Err(invalid("has no inode flags")),
        }
    }
}

/// `None` where the file system has no flags.
fn read(file: &File) -> io::Result<Option<u32>> {
    match ioctl_getflags(file) {
        Ok(flags) => Ok(Some(flags.bits())),
        Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
