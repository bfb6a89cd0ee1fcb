//! Owners, modes, times, extended attributes, ACLs and inode flags.

use std::{fs::File, io, os::unix::fs::OpenOptionsExt, path::Path};

use rustix::fs::{
    AtFlags, CWD, Gid, IFlags, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags, chmodat, chownat,
    ioctl_getflags, ioctl_setflags, lremovexattr, lsetxattr, utimensat,
};

use super::{Kind, is_root};
use crate::seed::Rng;

/// `cap_net_raw=ep`: `struct vfs_cap_data`, revision 2, of linux/capability.h.
pub const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Flags of lsattr that root may set and that mean the same on every file system.
const HARMLESS: [IFlags; 4] = [IFlags::NODUMP, IFlags::NOATIME, IFlags::SYNC, IFlags::NODUMP.union(IFlags::NOATIME)];
const LOCKING: IFlags = IFlags::IMMUTABLE.union(IFlags::APPEND);

/// POSIX ACLs as the kernel takes them.
#[derive(Clone, Copy, Debug)]
pub enum Acl {
    Access,
    Default,
}

impl Acl {
    pub fn xattr(self) -> &'static str {
        match self {
            Self::Access => "system.posix_acl_access",
            Self::Default => "system.posix_acl_default",
        }
    }

    /// owner, one named user, group, one named group, mask, other: the layout of linux/posix_acl_xattr.h.
    pub fn bytes(user: u32, group: u32, mode: u16) -> Vec<u8> {
        const NOBODY: u32 = u32::MAX;
        let rows = [
            (0x01, mode >> 6 & 7, NOBODY),
            (0x02, 7, user),
            (0x04, mode >> 3 & 7, NOBODY),
            (0x08, 5, group),
            (0x10, 7, NOBODY),
            (0x20, mode & 7, NOBODY),
        ];
        let mut bytes = 2u32.to_le_bytes().to_vec();
        for (tag, permissions, id) in rows {
            bytes.extend_from_slice(&u16::to_le_bytes(tag));
            bytes.extend_from_slice(&permissions.to_le_bytes());
            bytes.extend_from_slice(&u32::to_le_bytes(id));
        }
        bytes
    }
}

/// Seconds and nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mtime(pub i64, pub u32);

impl Mtime {
    /// Within what ext4 can store (1901 to 2446); before 1970 and far future among them.
    pub(super) fn random(rng: &mut Rng) -> Self {
        let seconds = match rng.u8(0..6) {
            0 => rng.i64(-2_000_000_000..0),
            1 => rng.i64(4_294_967_296..10_000_000_000),
            2 => 0,
            _ => rng.i64(1_000_000_000..1_700_000_000),
        };
        let nanos = match rng.u8(0..4) {
            0 => 0,
            1 => 999_999_999,
            _ => rng.u32(0..1_000_000_000),
        };
        Self(seconds, nanos)
    }
}

pub fn set_mtime(path: &Path, time: Mtime) -> io::Result<()> {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: time.0, tv_nsec: time.1.into() },
    };
    Ok(utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

pub fn set_xattr(path: &Path, name: &str, value: &[u8]) -> io::Result<()> {
    Ok(lsetxattr(path, name, value, XattrFlags::empty())?)
}

pub(super) fn remove_xattr(path: &Path, name: &str) -> io::Result<()> {
    Ok(lremovexattr(path, name)?)
}

/// Only regular files and directories have flags.
fn open_for_flags(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    File::options().read(true).custom_flags(flags.bits() as i32).open(path)
}

pub fn read_flags(path: &Path) -> io::Result<IFlags> {
    Ok(ioctl_getflags(open_for_flags(path)?)?)
}

/// Sets and clears the given flags, leaving the others.
pub fn set_flags(path: &Path, set: IFlags, clear: IFlags) -> io::Result<()> {
    let file = open_for_flags(path)?;
    let old = ioctl_getflags(&file)?;
    let new = (old - clear) | set;
    if new == old {
        return Ok(());
    }
    Ok(ioctl_setflags(&file, new)?)
}

/// Lets the entry be changed again.
pub(super) fn unlock(path: &Path) -> io::Result<()> {
    set_flags(path, IFlags::empty(), LOCKING)
}

pub(super) fn chmod(path: &Path, rng: &mut Rng) -> io::Result<()> {
    let special = if rng.u8(0..4) == 0 { rng.u32(0..8) << 9 } else { 0 };
    let mode = Mode::from_raw_mode(special | rng.u32(0..0o1000));
    Ok(chmodat(CWD, path, mode, AtFlags::empty())?)
}

pub(super) fn chown(path: &Path, rng: &mut Rng) -> io::Result<()> {
    const IDS: [u32; 7] = [0, 1, 12, 1000, 65534, 100_000, 4_000_000_000];
    let mut id = || IDS[rng.usize(0..IDS.len())];
    let (uid, gid) = (Uid::from_raw(id()), Gid::from_raw(id()));
    Ok(chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
}

/// One of a few names, so that a later edit meets it again. Values stay small: ext4 has 4 KiB for all of an inode's.
pub(super) fn random_xattr(path: &Path, kind: Kind, rng: &mut Rng) -> io::Result<()> {
    let number = rng.u8(0..3);
    let mut value = vec![0; [0, 1, 20, 300, 700][rng.usize(0..5)]];
    rng.fill(&mut value);
    match (kind, rng.u8(0..3)) {
        (Kind::File, 0) if is_root() => set_xattr(path, "security.capability", CAPABILITY),
        (Kind::File | Kind::Directory, 1) => set_xattr(path, &format!("user.x{number}"), &value),
        _ if is_root() => set_xattr(path, &format!("trusted.x{number}"), &value),
        _ => Ok(()),
    }
}

pub(super) fn random_acl(path: &Path, kind: Kind, rng: &mut Rng) -> io::Result<()> {
    let bytes = Acl::bytes(rng.u32(1000..1005), rng.u32(2000..2005), rng.u16(0..0o1000));
    let acl = if kind == Kind::Directory && rng.bool() { Acl::Default } else { Acl::Access };
    set_xattr(path, acl.xattr(), &bytes)
}

pub(super) fn random_flags(path: &Path, kind: Kind, rng: &mut Rng) -> io::Result<()> {
    let all = HARMLESS[0] | HARMLESS[1] | HARMLESS[2] | LOCKING;
    let set = match rng.u8(0..6) {
        0 => IFlags::IMMUTABLE,
        1 => IFlags::APPEND,
        2 if kind == Kind::Directory => IFlags::DIRSYNC,
        3 => IFlags::empty(),
        _ => HARMLESS[rng.usize(0..HARMLESS.len())],
    };
    match set_flags(path, set, all - set) {
        // Not every file system has every flag.
        Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
        done => done,
    }
}
