//! Everything that can be seen of a tree, in memory: the second judge compares two of these, and a portrait taken
//! earlier is a cheap saved copy.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::CString,
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

use drover_linux::Extents;
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, ioctl_getflags, lgetxattr, llistxattr, openat, readlinkat, statat,
};

const OPEN: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC).union(OFlags::NOATIME);
/// sync, immutable, append, nodump, noatime, dirsync: what root may set and what means the same on every file system.
/// The rest of lsattr's letters (extents, inline data, compression, …) is how a file system stores things.
const FLAGS_COMPARED: u32 = 0x8 | 0x10 | 0x20 | 0x40 | 0x80 | 0x1_0000;
/// Set by a host's kernel for itself, so two hosts never agree; and what XFS shows of the ACLs a second time.
const HOST_BOUND: [&str; 6] =
    ["security.selinux", "security.SMACK64", "security.apparmor", "security.ima", "security.evm", "trusted.SGI_ACL_"];
const XATTR_BYTES_MAX: usize = 65536;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    pub kind: u32,
    pub mode: u32,
    pub owner: (u32, u32),
    pub mtime: (i64, u64),
    /// Of devices only.
    pub rdev: u64,
    /// Of regular files only: a directory's size is its file system's business.
    pub size: u64,
    pub content: Option<blake3::Hash>,
    pub allocated: u64,
    /// Bytes that have blocks with content in them, as the extent map tells it.
    pub data: u64,
    pub target: Vec<u8>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub flags: u32,
    /// First path of the same inode, for an inode with several names in the tree.
    pub linked_to: Option<Vec<u8>>,
}

/// By path from the tree's root, whose own path is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Portrait {
    pub entries: BTreeMap<Vec<u8>, Entry>,
}

impl Portrait {
    pub fn of(root: &Path) -> Self {
        Self::try_of(root).unwrap_or_else(|error| panic!("look at {}: {error}", root.display()))
    }

    /// Of one file, under the empty path.
    pub fn try_of_file(file: &Path) -> io::Result<Self> {
        let (parent, name) = (file.parent(), file.file_name());
        let (parent, name) = parent.zip(name).ok_or(io::ErrorKind::InvalidInput)?;
        let dir = openat(CWD, parent, OPEN | OFlags::DIRECTORY, Mode::empty())?;
        let mut painter = Painter::default();
        painter.entry(&dir, &CString::new(name.as_encoded_bytes())?, Vec::new())?;
        Ok(painter.finish())
    }

    /// Of content alone, under the empty path: of a block device, through whatever links.
    pub fn try_of_content(file: &Path) -> io::Result<Self> {
        let content = Some(digest(File::open(file)?)?);
        Ok(Self { entries: BTreeMap::from([(Vec::new(), Entry { content, ..Entry::default() })]) })
    }

    pub fn try_of(root: &Path) -> io::Result<Self> {
        let dir = openat(CWD, root, OPEN | OFlags::DIRECTORY, Mode::empty())?;
        let mut painter = Painter::default();
        painter.entry(&dir, c".", Vec::new())?;
        painter.descend(&dir, &[])?;
        Ok(painter.finish())
    }
}

#[derive(Default)]
struct Painter {
    portrait: Portrait,
    names: HashMap<(u64, u64), Vec<Vec<u8>>>,
}

impl Painter {
    fn descend(&mut self, dir: &OwnedFd, at: &[u8]) -> io::Result<()> {
        for entry in Dir::read_from(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let path = if at.is_empty() { name.to_bytes().to_vec() } else { [at, b"/", name.to_bytes()].concat() };
            let kind = self.entry(dir, name, path.clone())?;
            if kind == FileType::Directory {
                let child = openat(dir, name, OPEN | OFlags::DIRECTORY, Mode::empty())?;
                self.descend(&child, &path)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, dir: &OwnedFd, name: &std::ffi::CStr, path: Vec<u8>) -> io::Result<FileType> {
        let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let mut entry = plain(&stat, kind);
        entry.xattrs = xattrs(dir, name)?;
        match kind {
            FileType::RegularFile => {
                let file = File::from(openat(dir, name, OPEN, Mode::empty())?);
                entry.flags = flags(&file);
                entry.data = data_bytes(&file, stat.st_size as u64)?;
                entry.content = Some(digest(file)?);
                entry.size = stat.st_size as u64;
                entry.allocated = stat.st_blocks as u64 * 512;
            }
            FileType::Directory => entry.flags = flags(openat(dir, name, OPEN, Mode::empty())?),
            FileType::Symlink => entry.target = readlinkat(dir, name, Vec::new())?.into_bytes(),
            _ => {}
        }
        if kind != FileType::Directory && stat.st_nlink > 1 {
            self.names.entry((stat.st_dev, stat.st_ino)).or_default().push(path.clone());
        }
        self.portrait.entries.insert(path, entry);
        Ok(kind)
    }

    fn finish(mut self) -> Portrait {
        for mut names in self.names.into_values().filter(|names| names.len() > 1) {
            names.sort();
            for name in &names {
                let entry = self.portrait.entries.get_mut(name).expect("each name was seen");
                entry.linked_to = Some(names[0].clone());
            }
        }
        self.portrait
    }
}

fn plain(stat: &Stat, kind: FileType) -> Entry {
    let is_device = matches!(kind, FileType::BlockDevice | FileType::CharacterDevice);
    Entry {
        kind: kind.as_raw_mode(),
        mode: stat.st_mode & 0o7777,
        owner: (stat.st_uid, stat.st_gid),
        mtime: (stat.st_mtime, stat.st_mtime_nsec),
        rdev: if is_device { stat.st_rdev } else { 0 },
        size: 0,
        content: None,
        allocated: 0,
        data: 0,
        target: Vec::new(),
        xattrs: BTreeMap::new(),
        flags: 0,
        linked_to: None,
    }
}

fn flags(file: impl AsFd) -> u32 {
    // A file system without flags has none set.
    ioctl_getflags(file).map_or(0, |flags| flags.bits() & FLAGS_COMPARED)
}

/// Reserved and delayed blocks count for nothing: `SEEK_DATA` calls them data as soon as somebody has read them into the
/// page cache. Where the file system has no map, everything is data.
fn data_bytes(file: &File, size: u64) -> io::Result<u64> {
    let mut data = 0;
    for extent in Extents::synced(file, 0..size) {
        match extent {
            Ok(extent) if extent.is_reserved_only() => {}
            Ok(extent) => data += extent.end().min(size).saturating_sub(extent.logical),
            Err(error) if error.kind() == io::ErrorKind::Unsupported => return Ok(size),
            Err(error) => return Err(error),
        }
    }
    Ok(data)
}

fn digest(file: File) -> io::Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file)?;
    Ok(hasher.finalize())
}

/// Of the entry itself, never of what a symlink points to; all namespaces.
fn xattrs(dir: &OwnedFd, name: &std::ffi::CStr) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let path = through_proc(rustix::fd::AsFd::as_fd(dir), name);
    let mut names = vec![0u8; XATTR_BYTES_MAX];
    let length = match llistxattr(&path, &mut names[..]) {
        Err(rustix::io::Errno::NOTSUP) => 0,
        other => other?,
    };
    let mut xattrs = BTreeMap::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if HOST_BOUND.iter().any(|bound| name.starts_with(bound.as_bytes())) {
            continue;
        }
        let mut value = vec![0u8; XATTR_BYTES_MAX];
        let length = lgetxattr(&path, name, &mut value[..])?;
        value.truncate(length);
        xattrs.insert(name.to_vec(), value);
    }
    Ok(xattrs)
}

/// The xattr calls know no directory handle; this path stays short however deep the entry lies.
fn through_proc(dir: BorrowedFd<'_>, name: &std::ffi::CStr) -> CString {
    let prefix = format!("/proc/self/fd/{}/", dir.as_raw_fd());
    CString::new([prefix.as_bytes(), name.to_bytes()].concat()).expect("names hold no NUL byte")
}
