//! Opening directories: the volume's root by its configured path, everything else beneath it.

use std::{io, os::fd::AsFd, os::fd::OwnedFd, path::Path};

use rustix::{
    fs::{Mode, OFlags, ResolveFlags},
    io::Errno,
};

use super::Dir;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// `openat2(2)`: not above the start, through no symlink, through no `/proc` link, into no other mount.
const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// Below `PATH_MAX` (4096 with the NUL, limits.h), which bounds one system call but not a tree.
const PIECE_BYTES_MAX: usize = 4000;

/// `openat2` answers EAGAIN when a rename elsewhere could have let the path escape; the race does not last.
const RACED_TRIES_MAX: u32 = 1000;

/// No entry of the expected kind is there any more: ENOENT, ENOTDIR, ELOOP (a symlink took the place) or ESTALE.
pub fn is_gone(error: &io::Error) -> bool {
    let gone = [Errno::NOTDIR, Errno::LOOP, Errno::STALE];
    error.kind() == io::ErrorKind::NotFound || Errno::from_io_error(error).is_some_and(|errno| gone.contains(&errno))
}

impl Dir {
    /// By a path from the configuration. Its last component must not be a symlink (ENOTDIR); those before it may be.
    pub fn open(path: &Path) -> io::Result<Self> {
        // Components drop a trailing slash, which would make the kernel follow the link.
        let path = path.components().as_path();
        Ok(rustix::fs::open(path, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?.into())
    }

    /// The directory at `rel`, names joined by `/`; an independent handle of this one when `rel` is empty. A symlink on
    /// the way is ELOOP or ENOTDIR, another mount EXDEV. `rel` may be longer than `PATH_MAX`.
    pub fn open_beneath(&self, rel: &[u8]) -> io::Result<Self> {
        if self.is_window() && !rel.is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let (mut piece, mut rest) = split_piece(rel);
        let mut dir = open_piece(self, piece)?;
        while let Some(more) = rest {
            (piece, rest) = split_piece(more);
            dir = open_piece(&dir, piece)?;
        }
        Ok(Self { fd: dir, window: self.window.clone() })
    }
}

/// The longest prefix of whole names that one call takes, and what is left after its slash.
fn split_piece(path: &[u8]) -> (&[u8], Option<&[u8]>) {
    if path.len() < PIECE_BYTES_MAX {
        return (path, None);
    }
    match path[..PIECE_BYTES_MAX].iter().rposition(|b| *b == b'/') {
        Some(slash) => (&path[..slash], Some(&path[slash + 1..])),
        // One name of 4000 bytes: the kernel refuses it with ENAMETOOLONG.
        None => (path, None),
    }
}

fn open_piece(dir: impl AsFd, piece: &[u8]) -> io::Result<OwnedFd> {
    let piece = if piece.is_empty() { b"." } else { piece };
    for _ in 0..RACED_TRIES_MAX {
        match rustix::fs::openat2(&dir, piece, DIRECTORY | OFlags::NOFOLLOW, Mode::empty(), BENEATH) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            done => return Ok(done?),
        }
    }
    Err(Errno::AGAIN.into())
}
