//! A new tree.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::{ffi::OsStrExt, fs::symlink},
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use super::{Kind, attributes, attributes::Mtime, content, is_root, names::random_name};
use crate::seed::Rng;

pub(super) fn create(root: &Path, rng: &mut Rng, entries: usize) {
    fs::create_dir_all(root).expect("tree's root");
    let mut dirs = vec![root.to_owned()];
    let mut made: Vec<(PathBuf, Kind)> = Vec::new();
    while made.len() < entries {
        let parent = &dirs[rng.usize(0..dirs.len())];
        let path = parent.join(OsStr::from_bytes(&random_name(rng)));
        let files: Vec<&PathBuf> = made.iter().filter(|(_, kind)| *kind == Kind::File).map(|(path, _)| path).collect();
        if let Some(kind) = create_one(&path, &files, rng) {
            if kind == Kind::Directory {
                dirs.push(path.clone());
            }
            made.push((path, kind));
        }
    }
    made.push((root.to_owned(), Kind::Directory));
    for (path, kind) in &made {
        decorate(path, *kind, rng).unwrap_or_else(|error| panic!("attributes of {}: {error}", path.display()));
    }
    // What is inside is made by now, and children were made after their parents: times last, locks at the very end.
    for (path, _) in made.iter().rev() {
        if rng.u8(0..3) == 0 {
            attributes::set_mtime(path, Mtime::random(rng)).expect("set times");
        }
    }
    made.pop();
    for (path, kind) in made.iter().rev().filter(|(_, kind)| matches!(kind, Kind::File | Kind::Directory)) {
        if is_root() && rng.u8(0..20) == 0 {
            attributes::random_flags(path, *kind, rng).expect("set flags");
        }
    }
}

/// `None` when the name is taken or can't be.
fn create_one(path: &Path, files: &[&PathBuf], rng: &mut Rng) -> Option<Kind> {
    let (made, kind) = match rng.u8(0..20) {
        0..4 => (fs::create_dir(path), Kind::Directory),
        4 | 5 => (random_symlink(path, rng), Kind::Symlink),
        6 | 7 if !files.is_empty() => (fs::hard_link(files[rng.usize(0..files.len())], path), Kind::File),
        8 => (special(path, rng), Kind::Special),
        _ => (content::create(path, rng), Kind::File),
    };
    match made {
        Ok(()) => Some(kind),
        // The path may be longer than PATH_MAX: long paths are made by `create_deep`.
        Err(error) if is_in_the_way(&error) => None,
        Err(error) => panic!("create {kind:?} {}: {error}", path.display()),
    }
}

fn is_in_the_way(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::InvalidFilename)
}

pub(super) fn random_symlink(path: &Path, rng: &mut Rng) -> io::Result<()> {
    match rng.u8(0..4) {
        0 => symlink("/nowhere/at all", path),
        1 => symlink("..", path),
        2 => symlink(OsStr::from_bytes(&random_name(rng)), path),
        _ => symlink(OsStr::from_bytes(&vec![b't'; rng.usize(1..1000)]), path),
    }
}

/// Device numbers that nothing opens: they are only compared.
pub(super) fn special(path: &Path, rng: &mut Rng) -> io::Result<()> {
    let (kind, device) = match rng.u8(0..4) {
        0 if is_root() => (FileType::CharacterDevice, makedev(rng.u32(240..250), rng.u32(0..100_000))),
        1 if is_root() => (FileType::BlockDevice, makedev(rng.u32(240..250), rng.u32(0..100_000))),
        2 => (FileType::Socket, 0),
        _ => (FileType::Fifo, 0),
    };
    Ok(mknodat(CWD, path, kind, Mode::from_raw_mode(0o640), device)?)
}

/// Some of everything. Owner first: it clears setuid bits and capabilities.
pub(super) fn decorate(path: &Path, kind: Kind, rng: &mut Rng) -> io::Result<()> {
    if is_root() && rng.u8(0..3) == 0 {
        attributes::chown(path, rng)?;
    }
    if kind != Kind::Symlink && rng.u8(0..2) == 0 {
        attributes::chmod(path, rng)?;
    }
    if rng.u8(0..4) == 0 {
        attributes::random_xattr(path, kind, rng)?;
    }
    if matches!(kind, Kind::File | Kind::Directory) && rng.u8(0..8) == 0 {
        attributes::random_acl(path, kind, rng)?;
    }
    Ok(())
}
