//! Which entries differ. Equal subtrees cost one comparison of digests.

use std::collections::BTreeMap;

use crate::{
    index::{Index, Local},
    path::RelPath,
    tree::{Entry, Manifest},
};

/// What the replica has at a path.
#[derive(Clone, Debug, PartialEq)]
pub struct Old {
    pub entry: Entry,
    pub local: Local,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    Added(Entry),
    Removed(Old),
    Changed(Old, Entry),
}

impl Change {
    pub fn old(&self) -> Option<&Old> {
        match self {
            Self::Added(_) => None,
            Self::Removed(old) | Self::Changed(old, _) => Some(old),
        }
    }

    pub fn wanted(&self) -> Option<&Entry> {
        match self {
            Self::Removed(_) => None,
            Self::Added(new) | Self::Changed(_, new) => Some(new),
        }
    }
}

/// All entries that differ, in path order. A directory is `Changed` only when its own metadata differs or when it
/// became or was something else; the root stands under the empty path.
#[derive(Debug, Default)]
pub struct Diff {
    pub changes: BTreeMap<RelPath, Change>,
}

pub fn diff(actual: &Index, target: &Manifest) -> Diff {
    let mut diff = Diff::default();
    let root = RelPath::root();
    let (old, new) = (actual.manifest.root(), target.root());
    if old.meta != new.meta {
        let old = Old { entry: old.clone(), local: actual.root };
        diff.changes.insert(root.clone(), Change::Changed(old, new.clone()));
    }
    Walk { actual, target, changes: &mut diff.changes }.directory(&root);
    diff
}

struct Walk<'a> {
    actual: &'a Index,
    target: &'a Manifest,
    changes: &'a mut BTreeMap<RelPath, Change>,
}

impl Walk<'_> {
    /// Both trees have this directory. An explicit stack, since trees may be deeper than a thread's.
    fn directory(&mut self, path: &RelPath) {
        let mut open = vec![path.clone()];
        while let Some(path) = open.pop() {
            let (Some(old), Some(new)) = (self.actual.manifest.block(&path), self.target.block(&path)) else {
                continue;
            };
            if old.digest() != new.digest() {
                self.merge(&path, &mut open);
            }
        }
    }

    fn merge(&mut self, path: &RelPath, open: &mut Vec<RelPath>) {
        let mut old = olds(self.actual, path).into_iter().peekable();
        let mut new =
            self.target.block(path).map(|b| b.entries().collect::<Vec<_>>()).unwrap_or_default().into_iter().peekable();
        loop {
            let order = match (old.peek(), new.peek()) {
                (None, None) => return,
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(old), Some(new)) => old.entry.name.cmp(&new.name),
            };
            let removed = if order.is_le() { old.next() } else { None };
            let added = if order.is_ge() { new.next() } else { None };
            self.pair(path, removed, added, open);
        }
    }

    fn pair(&mut self, parent: &RelPath, old: Option<Old>, new: Option<Entry>, open: &mut Vec<RelPath>) {
        match (old, new) {
            (Some(old), Some(new)) => {
                let path = parent.join(&new.name);
                match (old.entry.node.is_directory(), new.node.is_directory()) {
                    (true, true) => open.push(path.clone()),
                    (true, false) => self.removed_beneath(&path),
                    (false, true) => self.added_beneath(&path),
                    (false, false) => {}
                }
                if old.entry.meta != new.meta || !old.entry.node.same_kind_and_content(&new.node) {
                    self.changes.insert(path, Change::Changed(old, new));
                }
            }
            (Some(old), None) => {
                let path = parent.join(&old.entry.name);
                if old.entry.node.is_directory() {
                    self.removed_beneath(&path);
                }
                self.changes.insert(path, Change::Removed(old));
            }
            (None, Some(new)) => {
                let path = parent.join(&new.name);
                if new.node.is_directory() {
                    self.added_beneath(&path);
                }
                self.changes.insert(path, Change::Added(new));
            }
            (None, None) => {}
        }
    }

    fn removed_beneath(&mut self, path: &RelPath) {
        let directories: Vec<_> = self.actual.manifest.blocks_beneath(path).map(|(dir, _)| dir.clone()).collect();
        for dir in directories {
            for old in olds(self.actual, &dir) {
                self.changes.insert(dir.join(&old.entry.name), Change::Removed(old));
            }
        }
    }

    fn added_beneath(&mut self, path: &RelPath) {
        for (dir, block) in self.target.blocks_beneath(path) {
            for entry in block.entries() {
                self.changes.insert(dir.join(&entry.name), Change::Added(entry));
            }
        }
    }
}

/// A directory's entries with what is known of their inodes.
fn olds(actual: &Index, directory: &RelPath) -> Vec<Old> {
    let (Some(block), Some(locals)) = (actual.manifest.block(directory), actual.locals.get(directory)) else {
        return Vec::new();
    };
    block.entries().zip(locals.iter()).map(|(entry, local)| Old { entry, local: *local }).collect()
}

/// What the replica has at a path, wherever it is.
pub(super) fn find_old(actual: &Index, path: &RelPath) -> Option<Old> {
    let (parent, name) = path.split()?;
    let block = actual.manifest.block(&parent)?;
    let at = block.entries().position(|entry| entry.name == name)?;
    let entry = block.entries().nth(at)?;
    Some(Old { entry, local: *actual.locals.get(&parent)?.get(at)? })
}
