//! Staging: what the next point needs is built here, beside the tree, before anything of the tree changes.
//!
//! A staged entry lies under the path that it will have, so that what an interrupted run left is found again, whatever
//! the next plan looks like.

mod build;
mod clean;
mod dirs;

use std::io;

use drover_linux::Dir;

pub use build::{Builder, Missing, StageError};
pub(crate) use build::{staged_stat, storage_kind, storage_reason};
pub(crate) use clean::{discard_others, remove_tree};
pub(crate) use dirs::Dirs;

use crate::{beside::subdirectory, path::RelPath, plan::Place};

/// The staging directories of one volume.
#[derive(Debug)]
pub struct Staging {
    tree: Dir,
    out: Dir,
    patches: Dir,
}

impl Staging {
    pub(crate) fn open(volume: &Dir) -> io::Result<Self> {
        let staging = subdirectory(volume, b"staging")?;
        let [tree, out, patches] = [&b"tree"[..], b"out", b"patch"].map(|name| subdirectory(&staging, name));
        Ok(Self { tree: tree?, out: out?, patches: patches? })
    }

    /// Throws everything away. Only when there is no commit record: what a commit took out lies here too.
    pub(crate) fn discard(volume: &Dir) -> io::Result<()> {
        remove_tree(volume, b"staging")
    }

    /// Whether an interrupted run left something.
    pub(crate) fn is_empty(&self) -> io::Result<bool> {
        Ok(self.tree.list()?.is_empty())
    }

    pub fn tree(&self) -> &Dir {
        &self.tree
    }

    /// Ranges of what is written in place, and what they replace (`patch`).
    pub(crate) fn patches(&self) -> &Dir {
        &self.patches
    }

    /// The directory of a place and the name in it.
    pub(crate) fn locate(&self, place: &Place) -> io::Result<(Dir, Vec<u8>)> {
        match place {
            Place::Out(number) => Ok((self.out.try_clone()?, number.to_string().into_bytes())),
            Place::Tree(path) => locate(&self.tree, path),
        }
    }
}

/// Parent directory and last name of a path beneath `root`; the root itself has an empty name.
pub(crate) fn locate(root: &Dir, path: &RelPath) -> io::Result<(Dir, Vec<u8>)> {
    match path.split() {
        None => Ok((root.try_clone()?, Vec::new())),
        Some((parent, name)) => Ok((root.open_beneath(parent.as_bytes())?, name.as_bytes().to_vec())),
    }
}
