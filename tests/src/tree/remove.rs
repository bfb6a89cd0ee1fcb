//! Deleting what the tests made, whatever flags and names it has.

use std::{
    ffi::CString,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::fs::{AtFlags, CWD, Dir, FileType, IFlags, Mode, OFlags, ioctl_getflags, ioctl_setflags, openat, unlinkat};

const OPEN: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// Deletes a tree that may hold immutable files and paths longer than `PATH_MAX`. A missing one is fine.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    match openat(CWD, path, OPEN | OFlags::DIRECTORY, Mode::empty()) {
        Ok(dir) => {
            unlock(dir.as_fd());
            descend(&dir, true)?;
            Ok(unlinkat(CWD, path, AtFlags::REMOVEDIR)?)
        }
        Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Takes immutable and append-only flags away.
pub fn unlock_tree(path: &Path) -> io::Result<()> {
    let dir = openat(CWD, path, OPEN | OFlags::DIRECTORY, Mode::empty())?;
    unlock(dir.as_fd());
    descend(&dir, false)
}

fn unlock(entry: BorrowedFd<'_>) {
    let locking = IFlags::IMMUTABLE | IFlags::APPEND;
    // File systems without flags have nothing to unlock.
    if let Ok(flags) = ioctl_getflags(entry)
        && flags.intersects(locking)
    {
        let _ = ioctl_setflags(entry, flags - locking);
    }
}

fn descend(dir: &OwnedFd, delete: bool) -> io::Result<()> {
    for (name, kind) in entries(dir)? {
        match kind {
            FileType::Directory => {
                let child = openat(dir, &*name, OPEN | OFlags::DIRECTORY, Mode::empty())?;
                unlock(child.as_fd());
                descend(&child, delete)?;
            }
            FileType::RegularFile => {
                if let Ok(child) = openat(dir, &*name, OPEN, Mode::empty()) {
                    unlock(child.as_fd());
                }
            }
            _ => {}
        }
        if delete {
            let flags = if kind == FileType::Directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            unlinkat(dir, &*name, flags)?;
        }
    }
    Ok(())
}

fn entries(dir: &OwnedFd) -> io::Result<Vec<(CString, FileType)>> {
    let mut entries = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            entries.push((entry.file_name().to_owned(), entry.file_type()));
        }
    }
    Ok(entries)
}
