//! Which inode will stand behind each changed name: one that stays, one that moves, or a new one.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use drover_linux::FileId;

use super::{
    diff::{Diff, Old},
    links::Links,
};
use crate::{
    path::RelPath,
    tree::{Body, Entry, Node},
};

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Origin {
    /// The inode at this path of the replica stays there.
    Kept {
        at: RelPath,
        old: Old,
    },
    /// The inode at this path is deleted there and found here again.
    Moved {
        from: RelPath,
        old: Old,
    },
    Staged,
}

/// An inode of the target, of which at least one name changed.
#[derive(Debug)]
pub(super) struct Inode {
    /// Its leader's entry: what it is to be.
    pub(super) entry: Entry,
    /// In path order, the leader first.
    pub(super) names: Vec<RelPath>,
    pub(super) origin: Origin,
}

#[derive(Debug)]
pub(super) struct Inodes {
    /// By leader.
    pub(super) by_leader: BTreeMap<RelPath, Inode>,
    /// Old inodes that go on living.
    pub(super) claimed: HashSet<FileId>,
    /// Old inodes that change their path, with the path that they leave.
    pub(super) moved: HashMap<FileId, RelPath>,
}

pub(super) fn assign(diff: &Diff, links: &Links<'_>) -> Inodes {
    let mut by_leader = BTreeMap::new();
    let mut claimed = HashSet::new();
    for leader in affected(diff, links) {
        let Some(entry) = links.new_entry(&leader) else {
            continue;
        };
        let names = links.new_names(&leader);
        let kept = names.iter().find_map(|name| stays(links, &entry, name, &claimed));
        let origin = match kept {
            Some((at, old)) => {
                claimed.insert(old.local.id);
                Origin::Kept { at, old }
            }
            None => Origin::Staged,
        };
        by_leader.insert(leader, Inode { entry, names, origin });
    }
    let moved = find_moves(diff, links, &mut by_leader, &mut claimed);
    Inodes { by_leader, claimed, moved }
}

/// Leaders of all inodes that a change touches, directly or because they share an inode of the replica with one.
fn affected(diff: &Diff, links: &Links<'_>) -> BTreeSet<RelPath> {
    let mut leaders = BTreeSet::new();
    for (path, change) in &diff.changes {
        if change.wanted().is_some() {
            leaders.extend(links.new_leader(path));
        }
        if let Some(old) = change.old()
            && old.local.nlink > 1
            && !old.entry.node.is_directory()
        {
            let others = links.old_names(&old.local.id, path).iter();
            leaders.extend(others.filter_map(|name| links.new_leader(name)));
        }
    }
    leaders
}

/// The replica's inode at `name`, if it can be the target's as it is but for its metadata.
fn stays(links: &Links<'_>, target: &Entry, name: &RelPath, claimed: &HashSet<FileId>) -> Option<(RelPath, Old)> {
    let old = links.old_at(name)?;
    if claimed.contains(&old.local.id) || links.old_node(&old.entry)? != target.node {
        return None;
    }
    // R4: a name outside the volume shares the inode, so its metadata is not ours to change.
    let is_shared = old.local.nlink as usize > links.old_names(&old.local.id, name).len();
    if is_shared && old.entry.meta != target.meta {
        return None;
    }
    Some((name.clone(), old))
}

/// Files that vanish at one path and appear with the same content at another.
fn find_moves(
    diff: &Diff,
    links: &Links<'_>,
    by_leader: &mut BTreeMap<RelPath, Inode>,
    claimed: &mut HashSet<FileId>,
) -> HashMap<FileId, RelPath> {
    let mut leaving: HashMap<Body, Vec<(RelPath, &Old)>> = HashMap::new();
    for (path, change) in diff.changes.iter().rev() {
        if let Some(old) = change.old()
            && let Node::File(body) = old.entry.node
            && old.local.nlink == 1
            && body.size > 0
            && !claimed.contains(&old.local.id)
        {
            leaving.entry(body).or_default().push((path.clone(), old));
        }
    }
    // A name that another inode of the replica still has, and keeps, is no name that is left.
    debug_assert!(leaving.values().flatten().all(|(path, old)| links.old_names(&old.local.id, path).len() == 1));
    let mut moved = HashMap::new();
    for inode in by_leader.values_mut() {
        if inode.origin != Origin::Staged {
            continue;
        }
        let Node::File(body) = inode.entry.node else {
            continue;
        };
        if let Some((from, old)) = leaving.get_mut(&body).and_then(Vec::pop) {
            claimed.insert(old.local.id);
            moved.insert(old.local.id, from.clone());
            inode.origin = Origin::Moved { from, old: old.clone() };
        }
    }
    moved
}
