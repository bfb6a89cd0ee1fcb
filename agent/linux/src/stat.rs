//! What `statx(2)` tells of an inode.

use std::{io, os::fd::BorrowedFd};

use rustix::fs::{AtFlags, FileType, Statx, StatxFlags, StatxTimestamp, statx};

use crate::Time;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeviceKind {
    Block,
    Char,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    File,
    Directory,
    Symlink,
    Device(DeviceKind),
    Fifo,
    Socket,
}

/// Identity of an inode for as long as it lives: a number that is used again comes with another birth time.
///
/// A file system that keeps no birth time (NFS before 4.2, some FUSE) has `born` zero, and identity is the number alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId {
    pub ino: u64,
    pub born: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    pub kind: Kind,
    /// The twelve permission bits, `0o7777`.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// Allocated, in units of 512 bytes.
    pub blocks: u64,
    pub nlink: u32,
    pub id: FileId,
    /// `st_dev`; changes when the file system is mounted again.
    pub dev: u64,
    /// Tells a bind mount of the same file system, which `dev` does not.
    pub mount_id: u64,
    /// Major and minor number of a device node.
    pub rdev: (u32, u32),
    pub mtime: Time,
    pub ctime: Time,
    /// `STATX_ATTR_*` bits of `statx(2)`.
    pub attributes: u64,
}

const WANTED: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME).union(StatxFlags::MNT_ID);

/// `name` in `dir`, or `dir` itself when `name` is empty. Neither follows a symlink nor triggers an automount.
pub(crate) fn stat_at(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Stat> {
    let place = if name.is_empty() { AtFlags::EMPTY_PATH } else { AtFlags::SYMLINK_NOFOLLOW };
    Stat::try_from(statx(dir, name, place | AtFlags::NO_AUTOMOUNT, WANTED)?)
}

impl TryFrom<Statx> for Stat {
    type Error = io::Error;

    fn try_from(raw: Statx) -> io::Result<Self> {
        let mask = StatxFlags::from_bits_retain(raw.stx_mask);
        let born = if mask.contains(StatxFlags::BTIME) { time(raw.stx_btime) } else { Time::default() };
        Ok(Self {
            kind: kind(u32::from(raw.stx_mode))?,
            mode: u32::from(raw.stx_mode) & 0o7777,
            uid: raw.stx_uid,
            gid: raw.stx_gid,
            size: raw.stx_size,
            blocks: raw.stx_blocks,
            nlink: raw.stx_nlink,
            id: FileId { ino: raw.stx_ino, born },
            dev: rustix::fs::makedev(raw.stx_dev_major, raw.stx_dev_minor),
            mount_id: raw.stx_mnt_id,
            rdev: (raw.stx_rdev_major, raw.stx_rdev_minor),
            mtime: time(raw.stx_mtime),
            ctime: time(raw.stx_ctime),
            attributes: raw.stx_attributes.bits(),
        })
    }
}

fn time(raw: StatxTimestamp) -> Time {
    Time { secs: raw.tv_sec, nanos: raw.tv_nsec }
}

fn kind(mode: u32) -> io::Result<Kind> {
    match FileType::from_raw_mode(mode) {
        FileType::RegularFile => Ok(Kind::File),
        FileType::Directory => Ok(Kind::Directory),
        FileType::Symlink => Ok(Kind::Symlink),
        FileType::BlockDevice => Ok(Kind::Device(DeviceKind::Block)),
        FileType::CharacterDevice => Ok(Kind::Device(DeviceKind::Char)),
        FileType::Fifo => Ok(Kind::Fifo),
        FileType::Socket => Ok(Kind::Socket),
        FileType::Unknown => Err(io::Error::new(io::ErrorKind::InvalidData, "statx names no known file type")),
    }
}
