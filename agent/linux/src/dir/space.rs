//! What the file system has left, and which it is.

use std::{io, os::fd::AsFd};

use rustix::fs::{fstatfs, fstatvfs};

use super::Dir;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Available to ordinary users (`f_bavail`): Drover leaves root's reserve alone.
    pub free_bytes: u64,
    pub total_bytes: u64,
    /// 0 on file systems that make inodes as they need them (btrfs).
    pub free_inodes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilesystemType {
    Ext,
    Xfs,
    Btrfs,
    Tmpfs,
    Fuse,
    Overlay,
    /// `f_type` of `statfs(2)`.
    Other(i64),
}

impl Dir {
    pub fn space(&self) -> io::Result<Space> {
        let vfs = fstatvfs(self)?;
        Ok(Space {
            free_bytes: vfs.f_bavail.saturating_mul(vfs.f_frsize),
            total_bytes: vfs.f_blocks.saturating_mul(vfs.f_frsize),
            free_inodes: vfs.f_favail,
        })
    }

    pub fn filesystem(&self) -> io::Result<FilesystemType> {
        FilesystemType::of(self)
    }
}

impl FilesystemType {
    /// That something open lies on (`fstatfs(2)`).
    pub fn of(open: impl AsFd) -> io::Result<Self> {
        Ok(Self::from_magic(fstatfs(open)?.f_type as i64))
    }

    /// Magic numbers of linux/magic.h; XFS's is in `statfs(2)`.
    fn from_magic(magic: i64) -> Self {
        match magic {
            0xEF53 => Self::Ext,
            0x5846_5342 => Self::Xfs,
            0x9123_683E => Self::Btrfs,
            0x0102_1994 => Self::Tmpfs,
            0x6573_5546 => Self::Fuse,
            0x794C_7630 => Self::Overlay,
            other => Self::Other(other),
        }
    }
}
