//! The kernel's requests, each answered by the same call on the real file.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::{self, File},
    io,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    OpenAccMode, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry,
    ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::{
    AtFlags, CWD, FallocateFlags, Gid, Mode, OFlags, Timestamps, Uid, XattrFlags, chmodat, chownat, fallocate,
    lgetxattr, llistxattr, lremovexattr, lsetxattr, mkdirat, mknodat, renameat_with, statvfs, utimensat,
};

use super::{Broken, attributes::attributes, attributes::timespec, nodes::Nodes};

/// Nothing is remembered by the kernel, so that a file breaks the moment the test says so.
const TTL: Duration = Duration::ZERO;
const XATTR_BYTES_MAX: usize = 65536;

#[derive(Debug)]
pub(super) struct Passthrough {
    real: PathBuf,
    broken: Broken,
    nodes: Mutex<Nodes>,
    files: Mutex<Files>,
}

#[derive(Debug, Default)]
struct Files {
    open: HashMap<u64, Arc<File>>,
    next: u64,
}

impl Passthrough {
    pub(super) fn new(real: PathBuf, broken: Broken) -> Self {
        Self { real, broken, nodes: Mutex::default(), files: Mutex::default() }
    }

    fn nodes(&self) -> std::sync::MutexGuard<'_, Nodes> {
        self.nodes.lock().expect("no holder panics")
    }

    fn files(&self) -> std::sync::MutexGuard<'_, Files> {
        self.files.lock().expect("no holder panics")
    }

    fn real(&self, path: &Path) -> PathBuf {
        // Joining an empty path would add a slash, and a slash follows symlinks.
        if path.as_os_str().is_empty() { self.real.clone() } else { self.real.join(path) }
    }

    fn at(&self, node: INodeNo) -> PathBuf {
        self.real(&self.nodes().path(node))
    }

    fn child(&self, parent: INodeNo, name: &OsStr) -> PathBuf {
        self.nodes().child(parent, name)
    }

    fn attributes_of(&self, path: &Path) -> io::Result<FileAttr> {
        let meta = fs::symlink_metadata(self.real(path))?;
        Ok(attributes(self.nodes().number(path), &meta))
    }

    fn keep(&self, file: File) -> FileHandle {
        let mut files = self.files();
        files.next += 1;
        let handle = files.next;
        files.open.insert(handle, Arc::new(file));
        FileHandle(handle)
    }

    fn file(&self, handle: FileHandle) -> io::Result<Arc<File>> {
        let no_such = || io::Error::from(rustix::io::Errno::BADF);
        self.files().open.get(&handle.0).cloned().ok_or_else(no_such)
    }

    fn open_real(&self, node: INodeNo, flags: OpenFlags) -> io::Result<File> {
        let mut options = File::options();
        options.read(true).write(flags.acc_mode() != OpenAccMode::O_RDONLY);
        let through = OFlags::from_bits_retain(flags.0 as u32) & (OFlags::TRUNC | OFlags::APPEND);
        options.custom_flags((through | OFlags::NOFOLLOW).bits() as i32).open(self.at(node))
    }

    fn read_real(&self, node: INodeNo, handle: FileHandle, offset: u64, size: u32) -> io::Result<Vec<u8>> {
        let path = self.nodes().path(node);
        if self.broken.lock().expect("no holder panics").contains(&path) {
            return Err(rustix::io::Errno::IO.into());
        }
        let file = self.file(handle)?;
        let mut bytes = vec![0; size as usize];
        let mut got = 0;
        while got < bytes.len() {
            match file.read_at(&mut bytes[got..], offset + got as u64)? {
                0 => break,
                more => got += more,
            }
        }
        bytes.truncate(got);
        Ok(bytes)
    }

    /// Directory entries with their numbers; `.` and `..` are the kernel's business.
    fn entries(&self, node: INodeNo) -> io::Result<Vec<(INodeNo, FileType, std::ffi::OsString)>> {
        let path = self.nodes().path(node);
        let mut entries = Vec::new();
        for entry in fs::read_dir(self.real(&path))? {
            let entry = entry?;
            let kind = FileType::from_std(entry.file_type()?).expect("a kind that Linux has");
            entries.push((self.nodes().number(&path.join(entry.file_name())), kind, entry.file_name()));
        }
        entries.sort_by(|a, b| a.2.cmp(&b.2));
        Ok(entries)
    }

    fn set_attributes(&self, node: INodeNo, new: &NewAttributes) -> io::Result<FileAttr> {
        let path = self.at(node);
        if let Some(size) = new.size {
            File::options().write(true).open(&path)?.set_len(size)?;
        }
        if new.uid.is_some() || new.gid.is_some() {
            let (uid, gid) = (new.uid.map(Uid::from_raw), new.gid.map(Gid::from_raw));
            chownat(CWD, &path, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        if let Some(mode) = new.mode {
            chmodat(CWD, &path, Mode::from_raw_mode(mode & 0o7777), AtFlags::empty())?;
        }
        if new.atime.is_some() || new.mtime.is_some() {
            let times = Timestamps { last_access: timespec(new.atime), last_modification: timespec(new.mtime) };
            utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(attributes(node, &fs::symlink_metadata(path)?))
    }
}

struct NewAttributes {
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    size: Option<u64>,
    atime: Option<TimeOrNow>,
    mtime: Option<TimeOrNow>,
}

/// One answer or the other.
macro_rules! answer {
    ($reply:ident, $result:expr, |$value:pat_param| $ok:expr) => {
        match $result {
            Ok($value) => $ok,
            Err(error) => $reply.error(errno(error)),
        }
    };
}

fn errno(error: impl Into<io::Error>) -> Errno {
    let error: io::Error = error.into();
    Errno::from_i32(error.raw_os_error().unwrap_or(rustix::io::Errno::IO.raw_os_error()))
}

fn reply_entry(reply: ReplyEntry, attributes: io::Result<FileAttr>) {
    answer!(reply, attributes, |attributes| reply.entry(&TTL, &attributes, Generation(0)));
}

fn reply_empty(reply: ReplyEmpty, done: io::Result<()>) {
    answer!(reply, done, |()| reply.ok());
}

fn reply_xattr(reply: ReplyXattr, size: u32, value: rustix::io::Result<Vec<u8>>) {
    answer!(reply, value, |value| match size as usize {
        0 => reply.size(value.len() as u32),
        room if room < value.len() => reply.error(Errno::ERANGE),
        _ => reply.data(&value),
    });
}

impl Filesystem for Passthrough {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        reply_entry(reply, self.attributes_of(&self.child(parent, name)));
    }

    fn getattr(&self, _: &Request, node: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let meta = fs::symlink_metadata(self.at(node));
        answer!(reply, meta, |meta| reply.attr(&TTL, &attributes(node, &meta)));
    }

    fn setattr(
        &self,
        _: &Request,
        node: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let set = self.set_attributes(node, &NewAttributes { mode, uid, gid, size, atime, mtime });
        answer!(reply, set, |attributes| reply.attr(&TTL, &attributes));
    }

    fn readlink(&self, _: &Request, node: INodeNo, reply: ReplyData) {
        answer!(reply, fs::read_link(self.at(node)), |target| reply.data(target.as_os_str().as_bytes()));
    }

    fn mknod(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, rdev: u32, reply: ReplyEntry) {
        let path = self.child(parent, name);
        let kind = rustix::fs::FileType::from_raw_mode(mode);
        let made = mknodat(CWD, self.real(&path), kind, Mode::from_raw_mode(mode & 0o7777), rdev.into());
        reply_entry(reply, made.map_err(io::Error::from).and_then(|()| self.attributes_of(&path)));
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, reply: ReplyEntry) {
        let path = self.child(parent, name);
        let made = mkdirat(CWD, self.real(&path), Mode::from_raw_mode(mode & 0o7777));
        reply_entry(reply, made.map_err(io::Error::from).and_then(|()| self.attributes_of(&path)));
    }

    fn symlink(&self, _: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let path = self.child(parent, name);
        let made = std::os::unix::fs::symlink(target, self.real(&path));
        reply_entry(reply, made.and_then(|()| self.attributes_of(&path)));
    }

    fn link(&self, _: &Request, node: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let path = self.child(parent, name);
        let made = fs::hard_link(self.at(node), self.real(&path));
        reply_entry(reply, made.and_then(|()| self.attributes_of(&path)));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let path = self.child(parent, name);
        let done = fs::remove_file(self.real(&path));
        self.nodes().forget(&path);
        reply_empty(reply, done);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let path = self.child(parent, name);
        let done = fs::remove_dir(self.real(&path));
        if done.is_ok() {
            self.nodes().forget(&path);
        }
        reply_empty(reply, done);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (from, to) = (self.child(parent, name), self.child(new_parent, new_name));
        let flags = rustix::fs::RenameFlags::from_bits_retain(flags.bits());
        let done = renameat_with(CWD, self.real(&from), CWD, self.real(&to), flags);
        if done.is_ok() && flags.contains(rustix::fs::RenameFlags::EXCHANGE) {
            self.nodes().exchange(&from, &to);
        } else if done.is_ok() {
            self.nodes().rename(&from, &to);
        }
        reply_empty(reply, done.map_err(io::Error::from));
    }

    fn open(&self, _: &Request, node: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let file = self.open_real(node, flags);
        answer!(reply, file, |file| reply.opened(self.keep(file), FopenFlags::empty()));
    }

    fn create(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, flags: i32, reply: ReplyCreate) {
        let path = self.child(parent, name);
        let exclusive = OFlags::from_bits_retain(flags as u32).contains(OFlags::EXCL);
        let mut options = File::options();
        options.read(true).write(true).create(!exclusive).create_new(exclusive).mode(mode & 0o7777);
        let made = options.open(self.real(&path)).and_then(|file| Ok((file, self.attributes_of(&path)?)));
        answer!(reply, made, |(file, attributes)| {
            reply.created(&TTL, &attributes, Generation(0), self.keep(file), FopenFlags::empty());
        });
    }

    fn read(
        &self,
        _: &Request,
        node: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        answer!(reply, self.read_real(node, handle, offset, size), |bytes| { reply.data(&bytes) });
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let done = self.file(handle).and_then(|file| file.write_all_at(data, offset));
        answer!(reply, done, |()| reply.written(data.len() as u32));
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.files().open.remove(&handle.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        reply_empty(reply, self.file(handle).and_then(|file| file.sync_all()));
    }

    fn fsyncdir(&self, _: &Request, node: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply_empty(reply, File::open(self.at(node)).and_then(|dir| dir.sync_all()));
    }

    fn readdir(&self, _: &Request, node: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        answer!(reply, self.entries(node), |entries| {
            for (index, (number, kind, name)) in entries.into_iter().enumerate().skip(offset as usize) {
                if reply.add(number, index as u64 + 1, kind, name) {
                    break;
                }
            }
            reply.ok();
        });
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        answer!(reply, statvfs(&self.real), |real| {
            let (size, fragment) = (real.f_bsize as u32, real.f_frsize as u32);
            reply.statfs(real.f_blocks, real.f_bfree, real.f_bavail, real.f_files, real.f_ffree, size, 255, fragment);
        });
    }

    fn setxattr(&self, _: &Request, node: INodeNo, name: &OsStr, value: &[u8], flags: i32, _: u32, reply: ReplyEmpty) {
        let flags = XattrFlags::from_bits_retain(flags as u32);
        reply_empty(reply, lsetxattr(self.at(node), name, value, flags).map_err(io::Error::from));
    }

    fn getxattr(&self, _: &Request, node: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let mut value = vec![0; XATTR_BYTES_MAX];
        let got = lgetxattr(self.at(node), name, &mut value[..]);
        reply_xattr(reply, size, got.map(|length| value[..length].to_vec()));
    }

    fn listxattr(&self, _: &Request, node: INodeNo, size: u32, reply: ReplyXattr) {
        let mut names = vec![0; XATTR_BYTES_MAX];
        let got = llistxattr(self.at(node), &mut names[..]);
        reply_xattr(reply, size, got.map(|length| names[..length].to_vec()));
    }

    fn removexattr(&self, _: &Request, node: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        reply_empty(reply, lremovexattr(self.at(node), name).map_err(io::Error::from));
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let flags = FallocateFlags::from_bits_retain(mode as u32);
        let done = self.file(handle).and_then(|file| Ok(fallocate(&*file, flags, offset, length)?));
        reply_empty(reply, done);
    }
}
