//! What the index of the last scan knows.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use drover_linux::FileId;

use super::listing::Found;
use crate::{
    index::{Index, Local},
    path::RelPath,
    tree::{DirBlock, Entry, Meta},
};

pub(super) struct Previous<'a> {
    pub(super) index: &'a Index,
    /// Built when the first directory turns up that the index does not know at its path.
    by_id: OnceLock<HashMap<FileId, KnownDirectory>>,
}

/// A directory of the index, at the path that it had then.
#[derive(Clone)]
pub(super) struct KnownDirectory {
    pub(super) path: RelPath,
    pub(super) meta: Meta,
    pub(super) local: Local,
}

impl<'a> Previous<'a> {
    pub(super) fn new(index: &'a Index) -> Self {
        Self { index, by_id: OnceLock::new() }
    }

    pub(super) fn root(&self) -> KnownDirectory {
        let meta = self.index.manifest.root().meta.clone();
        KnownDirectory { path: RelPath::root(), meta, local: self.index.root }
    }

    pub(super) fn locals(&self, directory: &RelPath) -> &'a [Local] {
        self.index.locals.get(directory).map_or(&[], |locals| locals)
    }

    pub(super) fn block(&self, directory: &RelPath) -> Option<(&'a DirBlock, &'a Arc<[Local]>)> {
        self.index.manifest.block(directory).zip(self.index.locals.get(directory))
    }

    /// Entries of a directory in name order.
    pub(super) fn entries(&self, directory: &RelPath) -> impl Iterator<Item = (Entry, Local)> + use<'a> {
        let entries = self.index.manifest.block(directory).into_iter().flat_map(|block| block.entries());
        entries.zip(self.locals(directory).iter().copied())
    }

    /// Those that are not directories.
    pub(super) fn files(&self, directory: &RelPath) -> impl Iterator<Item = Found> + use<'a> {
        let files = self.entries(directory).filter(|(entry, _)| !entry.node.is_directory());
        files.map(|(entry, local)| Found { entry, local })
    }

    /// The directory wherever it was: after a rename everything in it still has its identity and times.
    pub(super) fn directory(&self, id: FileId) -> Option<&KnownDirectory> {
        self.by_id.get_or_init(|| self.directories()).get(&id)
    }

    /// Paths with identities, each directory before those in it.
    pub(super) fn directories_in_order(&self) -> Vec<(RelPath, FileId)> {
        let known = self.by_id.get_or_init(|| self.directories()).values();
        let mut directories: Vec<_> = known.map(|known| (known.path.clone(), known.local.id)).collect();
        directories.sort_unstable();
        directories
    }

    fn directories(&self) -> HashMap<FileId, KnownDirectory> {
        let mut by_id = HashMap::from([(self.index.root.id, self.root())]);
        for (parent, _) in self.index.manifest.blocks() {
            for (entry, local) in self.entries(parent).filter(|(entry, _)| entry.node.is_directory()) {
                by_id.insert(local.id, KnownDirectory { path: parent.join(&entry.name), meta: entry.meta, local });
            }
        }
        by_id
    }
}
