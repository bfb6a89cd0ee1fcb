//! Reading and setting an entry's metadata. What `read` tells after `apply` is what was applied.
//!
//! Which extended attributes are carried:
//! * `user.*`, `trusted.*`, and `security.*` (file capabilities among them),
//! * `system.posix_acl_access`, `system.posix_acl_default` and the `system.nfs4_*` ACLs, as the bytes they are.
//!
//! What a host's kernel sets by itself is neither read nor touched, because two hosts could never agree on it: labels of
//! security modules (`security.selinux`, `security.SMACK64*`, `security.apparmor`) and the integrity records
//! `security.ima` and `security.evm`, which are signed with a host's key. The same goes for file systems' own properties
//! (`btrfs.*`, `ceph.*`, `lustre.*`, …), and for `trusted.SGI_*`, under which XFS shows its ACLs a second time.

use std::{fs::File, io};

use drover_linux::{Dir, Kind, Stat};

use crate::tree::{Flags, Meta, Node, Xattr};

const HOST_BOUND: [&[u8]; 6] =
    [b"security.selinux", b"security.SMACK64", b"security.apparmor", b"security.ima", b"security.evm", b"trusted.SGI_"];
const CARRIED: [&[u8]; 5] = [b"user.", b"trusted.", b"security.", b"system.posix_acl_", b"system.nfs4_"];

fn is_carried(xattr: &[u8]) -> bool {
    let begins = |prefix: &&[u8]| xattr.starts_with(prefix);
    CARRIED.iter().any(begins) && !HOST_BOUND.iter().any(begins)
}

/// Metadata of the entry that `stat` is of; of `dir` itself when `name` is empty. A symlink's mode can't be set, so it
/// always reads as 0777.
pub fn read(dir: &Dir, name: &[u8], stat: &Stat) -> io::Result<Meta> {
    read_open(dir, name, None, stat)
}

/// As `read`, of a file that must not be opened again because it is leased.
pub(crate) fn read_open(dir: &Dir, name: &[u8], open: Option<&File>, stat: &Stat) -> io::Result<Meta> {
    let flags = match open {
        Some(file) => drover_linux::file::inode_flags(file)?.unwrap_or(0),
        None if has_flags(stat.kind) => dir.inode_flags(name)?,
        None => 0,
    };
    Ok(Meta {
        mode: if stat.kind == Kind::Symlink { 0o777 } else { stat.mode },
        uid: stat.uid,
        gid: stat.gid,
        mtime: stat.mtime,
        flags: Flags::carried(flags),
        xattrs: carried_xattrs(dir, name)?,
    })
}

fn has_flags(kind: Kind) -> bool {
    matches!(kind, Kind::File | Kind::Directory)
}

fn carried_xattrs(dir: &Dir, name: &[u8]) -> io::Result<Vec<Xattr>> {
    let xattrs = dir.xattrs(name)?.into_iter().filter(|(xattr, _)| is_carried(xattr));
    Ok(xattrs.map(|(xattr, value)| Xattr { name: xattr.into(), value: value.into() }).collect())
}

/// Sets everything but the locking flags; `node` says what the entry is. A hard link has its leader's metadata, so
/// nothing is done for it.
///
/// The order matters: `chown` clears setuid bits and capabilities, `chmod` rewrites an old ACL's mask, and an ACL rewrites
/// the group's mode bits to those that the source had with it. The modification time comes last.
pub fn apply(dir: &Dir, name: &[u8], node: &Node, meta: &Meta) -> io::Result<()> {
    apply_open(dir, name, None, node, meta)
}

/// As `apply`, of a file that must not be opened again because it is leased.
pub(crate) fn apply_open(dir: &Dir, name: &[u8], open: Option<&File>, node: &Node, meta: &Meta) -> io::Result<()> {
    let is_symlink = match node {
        Node::Hardlink { .. } => return Ok(()),
        Node::Symlink { .. } => true,
        Node::Directory { .. } | Node::File(_) | Node::Device { .. } | Node::Fifo | Node::Socket => false,
    };
    dir.chown(name, meta.uid, meta.gid)?;
    if !is_symlink {
        dir.chmod(name, meta.mode)?;
    }
    apply_xattrs(dir, name, &meta.xattrs)?;
    if matches!(node, Node::Directory { .. } | Node::File(_)) {
        let (flags, mask) = (meta.flags.bits(), Flags::CARRIED & !Flags::LOCKING);
        match open {
            Some(file) => drover_linux::file::set_inode_flags(file, flags, mask)?,
            None => dir.set_inode_flags(name, flags, mask)?,
        }
    }
    dir.set_mtime(name, meta.mtime)
}

fn apply_xattrs(dir: &Dir, name: &[u8], wanted: &[Xattr]) -> io::Result<()> {
    let present = carried_xattrs(dir, name)?;
    for old in present.iter().filter(|old| wanted.iter().all(|new| new.name != old.name)) {
        dir.remove_xattr(name, &old.name)?;
    }
    for new in wanted.iter().filter(|new| !present.contains(new)) {
        dir.set_xattr(name, &new.name, &new.value)?;
    }
    Ok(())
}

/// Makes the entry immutable or append-only where `meta` says so. The last thing done to it: from then on nothing can
/// be changed. Only for regular files and directories.
pub fn apply_locking_flags(dir: &Dir, name: &[u8], meta: &Meta) -> io::Result<()> {
    dir.set_inode_flags(name, meta.flags.bits(), Flags::LOCKING)
}

/// Unlocks an entry that is to be changed, renamed or deleted. Only for regular files and directories.
pub fn clear_locking_flags(dir: &Dir, name: &[u8]) -> io::Result<()> {
    dir.set_inode_flags(name, 0, Flags::LOCKING)
}

#[cfg(test)]
mod tests {
    use drover_linux::{Time, privileges};

    use super::*;
    use crate::tree::Body;

    /// `user::rw- user:1000:rwx group::r-- mask::rwx other::---`, in the layout of linux/posix_acl_xattr.h.
    const ACL: &[u8] = &[
        2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 7, 0, 232, 3, 0, 0, 4, 0, 4, 0, 255, 255, 255, 255, 16, 0, 7,
        0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255,
    ];
    /// `cap_net_raw=ep`: `struct vfs_cap_data`, revision 2, of linux/capability.h.
    const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

    fn xattr(name: &[u8], value: &[u8]) -> Xattr {
        Xattr { name: name.into(), value: value.into() }
    }

    fn round_trip(dir: &Dir, name: &[u8], node: &Node, meta: &Meta) {
        apply(dir, name, node, meta).unwrap();
        assert_eq!(read(dir, name, &dir.stat(name).unwrap()).unwrap(), *meta, "{node:?}");
    }

    fn full() -> Meta {
        let xattrs = vec![
            xattr(b"security.capability", CAPABILITY),
            xattr(b"system.posix_acl_access", ACL),
            xattr(b"trusted.t", b"\0\xff"),
            xattr(b"user.empty", b""),
            xattr(b"user.u", &[7; 3000]),
        ];
        let mtime = Time { secs: -1, nanos: 999_999_999 };
        Meta { mode: 0o6670, uid: 12, gid: 34, mtime, flags: Flags::carried(Flags::NODUMP | Flags::NOATIME), xattrs }
    }

    #[test]
    fn what_is_applied_is_read() {
        if !privileges::missing().unwrap().is_empty() {
            return eprintln!("SKIPPED what_is_applied_is_read: needs root");
        }
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        dir.create_file(b"file", 0o600).unwrap();
        dir.symlink(b"x", b"link").unwrap();
        dir.mkdir(b"dir", 0o700).unwrap();
        let file = Node::File(Body::default());
        let plain = Meta { mode: 0o640, ..Meta::default() };
        for meta in [&full(), &plain, &full(), &Meta { mode: 0o4755, xattrs: Vec::new(), ..full() }, &plain] {
            round_trip(&dir, b"file", &file, meta);
        }
        let owned = Meta { mode: 0o777, flags: Flags::default(), xattrs: vec![xattr(b"trusted.t", b"v")], ..full() };
        round_trip(&dir, b"link", &Node::Symlink { target: b"x"[..].into() }, &owned);
        let node = Node::Directory { digest: crate::digest::Digest::default(), totals: crate::tree::Totals::default() };
        let acls = vec![xattr(b"system.posix_acl_access", ACL), xattr(b"system.posix_acl_default", ACL)];
        round_trip(&dir, b"dir", &node, &Meta { mode: 0o3670, xattrs: acls, ..full() });
        round_trip(&dir.open_beneath(b"dir").unwrap(), b"", &node, &plain);
    }

    #[test]
    fn locking_flags_come_last_and_go_first() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        dir.create_file(b"file", 0o600).unwrap();
        let locked = Meta { flags: Flags::carried(Flags::IMMUTABLE), ..Meta::default() };
        if let Err(error) = apply_locking_flags(&dir, b"file", &locked) {
            return eprintln!("SKIPPED locking_flags_come_last_and_go_first: {error}");
        }
        assert!(read(&dir, b"file", &dir.stat(b"file").unwrap()).unwrap().flags.is_locking());
        assert!(dir.unlink(b"file").is_err());
        clear_locking_flags(&dir, b"file").unwrap();
        dir.unlink(b"file").unwrap();
    }

    #[test]
    fn host_bound_and_file_system_properties_are_left_alone() {
        for name in [&b"security.selinux"[..], b"security.evm", b"btrfs.compression", b"ceph.quota", b"system.data"] {
            assert!(!is_carried(name), "{}", name.escape_ascii());
        }
        for name in [&b"user.a"[..], b"trusted.x", b"security.capability", b"system.posix_acl_default"] {
            assert!(is_carried(name), "{}", name.escape_ascii());
        }
    }
}
