//! The target tree while it is still being settled: what the source had when it was scanned, less what turned out to be
//! gone, plus what turned out to be there still.

use std::collections::BTreeSet;

use super::SessionError;
use crate::{
    path::RelPath,
    tree::{Body, Entry, Manifest, ManifestBuilder, Meta, Node},
};

pub(super) struct Target {
    manifest: Manifest,
}

impl Target {
    pub(super) fn new(manifest: Manifest) -> Self {
        Self { manifest }
    }

    pub(super) fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    fn amend(&mut self, change: impl FnOnce(&mut ManifestBuilder)) -> Result<(), SessionError> {
        let mut builder = ManifestBuilder::new();
        for (path, block) in self.manifest.blocks() {
            builder.block(path.clone(), block.clone());
        }
        change(&mut builder);
        self.manifest = builder.finish(self.manifest.root().meta.clone())?;
        Ok(())
    }

    /// Entries of the replica that the source's scan missed stay as they are (R5).
    pub(super) fn keep(&mut self, replica: &Manifest, paths: &[RelPath]) -> Result<(), SessionError> {
        let target = self.manifest.clone();
        self.amend(|builder| {
            // In path order a directory is there before what is in it.
            for path in paths.iter().collect::<BTreeSet<_>>() {
                let (Some(entry), Some((parent, name))) = (replica.find(path), path.split()) else {
                    continue;
                };
                let entry = Entry { node: standalone(replica, &target, entry.node), ..entry };
                let Some(siblings) = builder.entries_mut(&parent) else {
                    continue;
                };
                if siblings.iter().any(|sibling| sibling.name == name) {
                    continue;
                }
                let is_directory = entry.node.is_directory();
                siblings.push(entry);
                if is_directory {
                    builder.directory(path.clone(), Vec::new());
                }
            }
        })
    }

    /// A file turned out to be another one when it was read: all its names carry that.
    pub(super) fn replace(&mut self, changed: &[(RelPath, Meta, Body)]) -> Result<(), SessionError> {
        let names: Vec<Vec<RelPath>> = changed.iter().map(|(path, ..)| self.names(path)).collect();
        self.amend(|builder| {
            for ((leader, meta, body), names) in changed.iter().zip(names) {
                for path in names {
                    edit(builder, &path, |entry| {
                        entry.meta = meta.clone();
                        if path == *leader {
                            entry.node = Node::File(*body);
                        }
                    });
                }
            }
        })
    }

    /// Names that were gone when they were to be read: where the replica has a file there it stays. A further name of
    /// the same inode, which may well be there, leads from now on.
    pub(super) fn drop_gone(&mut self, replica: &Manifest, gone: &[RelPath]) -> Result<(), SessionError> {
        let all: Vec<Vec<RelPath>> = gone.iter().map(|path| self.names(path)).collect();
        self.amend(|builder| {
            for names in &all {
                let mut node = None;
                if let Some((parent, name)) = names[0].split()
                    && let Some(siblings) = builder.entries_mut(&parent)
                    && let Some(at) = siblings.iter().position(|sibling| sibling.name == name)
                {
                    node = Some(siblings.swap_remove(at).node);
                }
                for (at, path) in names.iter().enumerate().skip(1) {
                    edit(builder, path, |entry| match (at, &node) {
                        (1, Some(node)) => entry.node = node.clone(),
                        _ => entry.node = Node::Hardlink { leader: names[1].clone() },
                    });
                }
            }
        })?;
        let there: Vec<RelPath> = gone.iter().filter(|path| is_file(replica, path)).cloned().collect();
        self.keep(replica, &there)
    }

    fn names(&self, leader: &RelPath) -> Vec<RelPath> {
        let is_follower = |entry: &Entry| matches!(&entry.node, Node::Hardlink { leader: of } if of == leader);
        let followers = self.manifest.entries().filter(|(_, entry)| is_follower(entry)).map(|(path, _)| path);
        std::iter::once(leader.clone()).chain(followers).collect()
    }
}

fn is_file(replica: &Manifest, path: &RelPath) -> bool {
    replica.find(path).is_some_and(|entry| !entry.node.is_directory())
}

/// A further name whose leader will not be there, or be another file, stands for itself.
fn standalone(replica: &Manifest, target: &Manifest, node: Node) -> Node {
    let Node::Hardlink { leader } = &node else {
        return node;
    };
    let was = replica.find(leader).map(|entry| entry.node);
    if target.find(leader).map(|entry| entry.node) == was { node } else { was.unwrap_or(node) }
}

fn edit(builder: &mut ManifestBuilder, path: &RelPath, change: impl FnOnce(&mut Entry)) {
    let Some((parent, name)) = path.split() else {
        return;
    };
    if let Some(entry) = builder.entries_mut(&parent).and_then(|all| all.iter_mut().find(|entry| entry.name == name)) {
        change(entry);
    }
}
