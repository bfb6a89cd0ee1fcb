//! Inode flags (`ioctl_iflags(2)`, what `lsattr` shows). Only regular files and directories have them; other kinds are
//! `InvalidInput`. The empty name means the directory itself.

use std::{fs::File, io};

use rustix::fs::OFlags;

use super::{Dir, invalid};
use crate::{Kind, file};

impl Dir {
    /// All flags as the file system tells them; 0 where it has none.
    pub fn inode_flags(&self, name: &[u8]) -> io::Result<u32> {
        if self.is_device_window() || (name.is_empty() && self.is_window()) {
            return Ok(0);
        }
        Ok(file::inode_flags(&self.open_for_flags(name)?)?.unwrap_or(0))
    }

    /// Sets those of `flags` that are in `mask` and clears the rest of `mask`. Nothing is written when nothing changes;
    /// where the file system has no flags, wanting none of them succeeds and wanting any is EOPNOTSUPP.
    pub fn set_inode_flags(&self, name: &[u8], flags: u32, mask: u32) -> io::Result<()> {
        if name.is_empty() {
            self.refuse_window()?;
        }
        file::set_inode_flags(&self.open_for_flags(name)?, flags, mask)
    }

    fn open_for_flags(&self, name: &[u8]) -> io::Result<File> {
        if name.is_empty() {
            return Ok(File::from(self.fd.try_clone()?));
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = self.open_unleased(self.real(name)?, flags)?;
        // A driver would take the request for one of its own.
        match file::stat(&file)?.kind {
            Kind::File | Kind::Directory => Ok(file),
            _ => Err(invalid("has no inode flags")),
        }
    }
}
