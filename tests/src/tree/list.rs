//! What is in a tree now, sorted, so that a seed picks the same entries again.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use super::DEEP;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Directory,
    File,
    Symlink,
    /// Fifo, socket or device.
    Special,
}

#[derive(Clone, Debug)]
pub struct Item {
    pub path: PathBuf,
    pub kind: Kind,
    pub size: u64,
}

/// Everything beneath `root` but the deep directory, parents before their children. `root` itself is not an item.
pub fn list(root: &Path) -> Vec<Item> {
    let mut items = Vec::new();
    descend(root, root, &mut items);
    items
}

fn descend(root: &Path, dir: &Path, items: &mut Vec<Item>) {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("list {}: {error}", dir.display()));
    let mut names: Vec<Vec<u8>> = entries.map(|entry| entry.expect("directory entry").file_name().into_vec()).collect();
    names.sort();
    for name in names {
        let path = dir.join(OsStr::from_bytes(&name));
        if dir == root && name == DEEP.as_bytes() {
            continue;
        }
        let meta = fs::symlink_metadata(&path).unwrap_or_else(|error| panic!("stat {}: {error}", path.display()));
        let kind = kind_of(meta.file_type());
        items.push(Item { path: path.clone(), kind, size: meta.size() });
        if kind == Kind::Directory {
            descend(root, &path, items);
        }
    }
}

fn kind_of(of: fs::FileType) -> Kind {
    if of.is_dir() {
        Kind::Directory
    } else if of.is_file() {
        Kind::File
    } else if of.is_symlink() {
        Kind::Symlink
    } else {
        debug_assert!(of.is_fifo() || of.is_socket() || of.is_block_device() || of.is_char_device());
        Kind::Special
    }
}
