//! Hard-link groups of the replica and of the target: which names belong to which inode.

use std::collections::{BTreeMap, HashMap};

use drover_linux::FileId;

use super::diff::{self, Diff};
use crate::{
    index::Index,
    path::RelPath,
    tree::{Entry, Manifest, Node},
};

#[derive(Debug)]
pub(super) struct Links<'a> {
    actual: &'a Index,
    target: &'a Manifest,
    /// Asked first: a directory block can only be searched from its start.
    diff: &'a Diff,
    /// Names of each inode of the replica that has several, by its identity, in path order.
    old: HashMap<FileId, Vec<RelPath>>,
    /// Followers of each leader of the target, in path order.
    new: BTreeMap<RelPath, Vec<RelPath>>,
}

impl<'a> Links<'a> {
    pub(super) fn of(actual: &'a Index, target: &'a Manifest, diff: &'a Diff) -> Self {
        let mut old: HashMap<FileId, Vec<RelPath>> = HashMap::new();
        for (dir, locals) in &actual.locals {
            if locals.iter().all(|local| local.nlink < 2) {
                continue;
            }
            let Some(block) = actual.manifest.block(dir) else {
                continue;
            };
            for (entry, local) in block.entries().zip(locals.iter()) {
                if local.nlink > 1 && !entry.node.is_directory() {
                    old.entry(local.id).or_default().push(dir.join(&entry.name));
                }
            }
        }
        let mut new: BTreeMap<RelPath, Vec<RelPath>> = BTreeMap::new();
        for (path, entry) in target.entries() {
            if let Node::Hardlink { leader } = entry.node {
                new.entry(leader).or_default().push(path);
            }
        }
        Self { actual, target, diff, old, new }
    }

    /// All names that the inode has in the replica, `path` among them.
    pub(super) fn old_names<'b>(&'b self, id: &FileId, path: &'b RelPath) -> &'b [RelPath] {
        self.old.get(id).map_or(std::slice::from_ref(path), Vec::as_slice)
    }

    /// All names that the inode will have, its leader first.
    pub(super) fn new_names(&self, leader: &RelPath) -> Vec<RelPath> {
        let followers = self.new.get(leader).map_or(&[][..], Vec::as_slice);
        std::iter::once(leader).chain(followers).cloned().collect()
    }

    /// The leader of the inode that will be at `path`; `None` for directories and where nothing will be.
    pub(super) fn new_leader(&self, path: &RelPath) -> Option<RelPath> {
        match self.new_entry(path)?.node {
            Node::Directory { .. } => None,
            Node::Hardlink { leader } => Some(leader),
            Node::File(_) | Node::Symlink { .. } | Node::Device { .. } | Node::Fifo | Node::Socket => {
                Some(path.clone())
            }
        }
    }

    pub(super) fn new_entry(&self, path: &RelPath) -> Option<Entry> {
        match self.diff.changes.get(path) {
            Some(change) => change.wanted().cloned(),
            None => self.target.find(path),
        }
    }

    pub(super) fn old_at(&self, path: &RelPath) -> Option<diff::Old> {
        match self.diff.changes.get(path) {
            Some(change) => change.old().cloned(),
            None => diff::find_old(self.actual, path),
        }
    }

    /// The node of the replica's inode at `path`: a follower's is its leader's.
    pub(super) fn old_node(&self, entry: &Entry) -> Option<Node> {
        match &entry.node {
            Node::Hardlink { leader } => Some(self.old_at(leader)?.entry.node),
            node => Some(node.clone()),
        }
    }
}
