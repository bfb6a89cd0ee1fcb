//! One entry of a tree, and its canonical bytes.
//!
//! ```text
//! entry  = name:bytes kind:u8 mode:uint uid:uint gid:uint secs:int nanos:uint flags:uint
//!          count:uint { xattr-name:bytes xattr-value:bytes }* node
//! node   = 1 directory: digest[32] entries:uint bytes:uint
//!        | 2 file:      size:uint digest[32] holes:uint
//!        | 3 hard link: leader:bytes         (path from the volume's root of the first name of the same inode)
//!        | 4 symlink:   target:bytes
//!        | 5 block device, 6 character device: major:uint minor:uint
//!        | 7 fifo, 8 socket: nothing
//! ```
//! `uint` is LEB128, `int` is zigzag LEB128, `bytes` is a `uint` length and that many bytes. Xattrs are sorted by name.
//! The same bytes are hashed for digests, sent over the wire and kept on disk; there is exactly one encoding of an entry.

use crate::{
    codec::{DecodeError, Reader, Writer},
    digest::Digest,
    path::{Name, RelPath},
};

pub use drover_linux::{DeviceKind, Time};

/// `XATTR_SIZE_MAX` of Linux (limits.h): bytes of one extended attribute's value.
pub const XATTR_BYTES_MAX: usize = 65536;

/// Inode flags of `FS_IOC_GETFLAGS` (`ioctl_iflags(2)`) that Drover carries: those that root may set and that mean
/// the same on every file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(u32);

impl Flags {
    pub const SYNC: u32 = 0x8;
    pub const IMMUTABLE: u32 = 0x10;
    pub const APPEND: u32 = 0x20;
    pub const NODUMP: u32 = 0x40;
    pub const NOATIME: u32 = 0x80;
    pub const DIRSYNC: u32 = 0x0001_0000;
    /// All that are carried.
    pub const CARRIED: u32 = Self::SYNC | Self::IMMUTABLE | Self::APPEND | Self::NODUMP | Self::NOATIME | Self::DIRSYNC;
    /// Those that stop even root from changing the inode.
    pub const LOCKING: u32 = Self::IMMUTABLE | Self::APPEND;

    pub const fn carried(raw: u32) -> Self {
        Self(raw & Self::CARRIED)
    }

    pub const fn bits(self) -> u32 {
        self.0
    }

    pub const fn is_locking(self) -> bool {
        self.0 & Self::LOCKING != 0
    }

    pub const fn without_locking(self) -> Self {
        Self(self.0 & !Self::LOCKING)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Xattr {
    /// Full name with its namespace: `user.x`, `security.capability`, `system.posix_acl_access`, …
    pub name: Box<[u8]>,
    pub value: Box<[u8]>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Meta {
    /// The twelve permission bits of `st_mode`.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    pub flags: Flags,
    /// Sorted by name.
    pub xattrs: Vec<Xattr>,
}

/// Content of a regular file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Body {
    pub size: u64,
    /// BLAKE3 of all bytes, holes read as zeros.
    pub digest: Digest,
    /// Fingerprint of the hole map as `SEEK_HOLE` tells it; 0 for a file without holes.
    pub holes: u64,
}

/// What lies beneath a directory, at any depth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Totals {
    pub entries: u64,
    pub bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Node {
    Directory {
        digest: Digest,
        totals: Totals,
    },
    File(Body),
    /// A further name of an inode; the first name in path order is its leader and carries the node.
    Hardlink {
        leader: RelPath,
    },
    Symlink {
        target: Box<[u8]>,
    },
    Device {
        kind: DeviceKind,
        major: u32,
        minor: u32,
    },
    Fifo,
    Socket,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    pub name: Name,
    pub meta: Meta,
    pub node: Node,
}

impl Node {
    pub fn is_directory(&self) -> bool {
        matches!(self, Self::Directory { .. })
    }

    pub fn body(&self) -> Option<&Body> {
        match self {
            Self::File(body) => Some(body),
            _ => None,
        }
    }

    /// Same node apart from what lies beneath a directory.
    pub fn same_kind_and_content(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Directory { .. }, Self::Directory { .. }) => true,
            _ => self == other,
        }
    }
}

impl Meta {
    pub fn encode(&self, w: &mut Writer) {
        w.uint(self.mode.into()).uint(self.uid.into()).uint(self.gid.into());
        w.int(self.mtime.secs).uint(self.mtime.nanos.into()).uint(self.flags.bits().into());
        w.uint(self.xattrs.len() as u64);
        for xattr in &self.xattrs {
            w.bytes(&xattr.name).bytes(&xattr.value);
        }
    }

    pub fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (mode, uid, gid) = (r.u32()?, r.u32()?, r.u32()?);
        let mtime = Time { secs: r.int()?, nanos: r.u32()? };
        let flags = r.u32()?;
        bound("mode", mode.into(), 0o7777)?;
        bound("nanoseconds", mtime.nanos.into(), 999_999_999)?;
        if Flags::carried(flags).bits() != flags {
            return Err(DecodeError::Unknown { what: "inode flags", value: flags.into() });
        }
        let count = r.count(2)?;
        let mut xattrs: Vec<Xattr> = Vec::with_capacity(count);
        for _ in 0..count {
            let (name, value) = (r.bytes()?, r.bytes()?);
            bound("xattr name length", name.len() as u64, 255)?;
            bound("xattr size", value.len() as u64, XATTR_BYTES_MAX as u64)?;
            if name.is_empty() || name.contains(&0) || xattrs.last().is_some_and(|last| *last.name >= *name) {
                return Err(DecodeError::Unsorted { what: "xattrs" });
            }
            xattrs.push(Xattr { name: name.into(), value: value.into() });
        }
        Ok(Self { mode, uid, gid, mtime, flags: Flags(flags), xattrs })
    }
}

fn bound(what: &'static str, value: u64, limit: u64) -> Result<(), DecodeError> {
    if value > limit { Err(DecodeError::TooLarge { what, value, limit }) } else { Ok(()) }
}

impl Body {
    pub fn encode(&self, w: &mut Writer) {
        w.uint(self.size).digest(&self.digest).uint(self.holes);
    }

    pub fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { size: r.uint()?, digest: r.digest()?, holes: r.uint()? })
    }
}

impl Entry {
    pub fn encode(&self, w: &mut Writer) {
        w.name(&self.name);
        self.encode_unnamed(w);
    }

    /// Everything but the name: a volume's root has none.
    pub(crate) fn encode_unnamed(&self, w: &mut Writer) {
        let kind = match &self.node {
            Node::Directory { .. } => 1,
            Node::File(_) => 2,
            Node::Hardlink { .. } => 3,
            Node::Symlink { .. } => 4,
            Node::Device { kind: DeviceKind::Block, .. } => 5,
            Node::Device { kind: DeviceKind::Char, .. } => 6,
            Node::Fifo => 7,
            Node::Socket => 8,
        };
        w.u8(kind);
        self.meta.encode(w);
        match &self.node {
            Node::Directory { digest, totals } => {
                w.digest(digest).uint(totals.entries).uint(totals.bytes);
            }
            Node::File(body) => body.encode(w),
            Node::Hardlink { leader } => {
                w.path(leader);
            }
            Node::Symlink { target } => {
                w.bytes(target);
            }
            Node::Device { major, minor, .. } => {
                w.uint((*major).into()).uint((*minor).into());
            }
            Node::Fifo | Node::Socket => {}
        }
    }

    pub fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let name = r.name()?;
        Self::decode_unnamed(name, r)
    }

    pub(crate) fn decode_unnamed(name: Name, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let kind = r.u8()?;
        let meta = Meta::decode(r)?;
        let node = match kind {
            1 => Node::Directory { digest: r.digest()?, totals: Totals { entries: r.uint()?, bytes: r.uint()? } },
            2 => Node::File(Body::decode(r)?),
            3 => Node::Hardlink { leader: r.path()? },
            4 => {
                let target = r.bytes()?;
                bound("symlink target length", target.len() as u64, 4095)?;
                Node::Symlink { target: target.into() }
            }
            5 => Node::Device { kind: DeviceKind::Block, major: r.u32()?, minor: r.u32()? },
            6 => Node::Device { kind: DeviceKind::Char, major: r.u32()?, minor: r.u32()? },
            7 => Node::Fifo,
            8 => Node::Socket,
            other => {
                return Err(DecodeError::Unknown { what: "entry kind", value: other.into() });
            }
        };
        Ok(Self { name, meta, node })
    }

    pub fn totals(&self) -> Totals {
        match &self.node {
            Node::Directory { totals, .. } => Totals { entries: totals.entries + 1, bytes: totals.bytes },
            Node::File(body) => Totals { entries: 1, bytes: body.size },
            _ => Totals { entries: 1, bytes: 0 },
        }
    }
}
