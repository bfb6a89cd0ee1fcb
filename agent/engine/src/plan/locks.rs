//! What surrounds the renames: inodes to unlock before and to lock after, directories whose times are put right.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Step,
    diff::{Diff, Old},
    links::Links,
};
use crate::{
    index::Index,
    path::RelPath,
    tree::{Entry, Node},
};

pub(super) struct Locks {
    pub(super) unlock: Vec<Step>,
    pub(super) lock: Vec<Step>,
}

type Steps = BTreeMap<RelPath, Step>;

impl Locks {
    pub(super) fn of(
        actual: &Index,
        diff: &Diff,
        links: &Links<'_>,
        outs: &Steps,
        enters: &Steps,
        metas: &[Step],
    ) -> Self {
        let mut touched: BTreeSet<RelPath> = touched_directories(outs, enters);
        for step in outs.values().chain(enters.values()).chain(metas) {
            touched.insert(step.path().clone());
            if let Step::Link { from, .. } = step {
                touched.insert(from.clone());
            }
        }
        let locked = |path: &RelPath| {
            Some((path.clone(), old_at(actual, links, path).filter(|old| old.entry.meta.flags.is_locking())?))
        };
        let unlocked: Vec<(RelPath, Old)> = touched.iter().filter_map(locked).collect();
        let unlock = unlocked.iter().map(|(path, old)| Step::Unlock {
            path: path.clone(),
            id: old.local.id,
            flags: old.entry.meta.flags,
        });
        let relocked = unlocked.iter().map(|(path, _)| path);
        let paths: BTreeSet<&RelPath> = diff.changes.keys().chain(relocked).collect();
        let lock = paths.into_iter().filter_map(|path| {
            let entry = links.new_entry(path)?;
            let carries_flags = matches!(entry.node, Node::Directory { .. } | Node::File(_));
            let flags = entry.meta.flags;
            (carries_flags && flags.is_locking()).then(|| Step::Lock { path: path.clone(), flags })
        });
        Self { unlock: unlock.collect(), lock: lock.collect() }
    }
}

fn old_at(actual: &Index, links: &Links<'_>, path: &RelPath) -> Option<Old> {
    if path.is_root() {
        return Some(Old { entry: actual.manifest.root().clone(), local: actual.root });
    }
    links.old_at(path)
}

/// Directories in which a name comes or goes.
fn touched_directories(outs: &Steps, enters: &Steps) -> BTreeSet<RelPath> {
    outs.keys().chain(enters.keys()).filter_map(RelPath::parent).collect()
}

/// Times last: every rename and every change of a child sets them.
pub(super) fn times(actual: &Index, links: &Links<'_>, outs: &Steps, enters: &Steps, metas: &[Step]) -> Vec<Step> {
    let mut directories = touched_directories(outs, enters);
    let entered = enters.values().filter(|step| matches!(step, Step::In { .. })).map(Step::path);
    directories.extend(entered.chain(metas.iter().map(Step::path)).cloned());
    // Deepest first, though setting a directory's times changes no other's.
    let steps = directories.into_iter().rev().filter_map(|path| {
        let mtime =
            |entry: Option<Entry>| entry.filter(|entry| entry.node.is_directory()).map(|entry| entry.meta.mtime);
        let new = mtime(links.new_entry(&path));
        let old = mtime(old_at(actual, links, &path).map(|old| old.entry));
        (old.is_some() || new.is_some()).then_some(Step::Times { path, old, new })
    });
    steps.collect()
}
