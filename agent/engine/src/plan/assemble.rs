//! From inodes to staged entries and steps.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{
    Place, Plan, Provider, Retire, Retired, Staged, Step,
    diff::{Change, Diff, Old},
    inodes::{Inode, Inodes, Origin},
    links::Links,
    locks,
};
use crate::{
    index::Index,
    path::RelPath,
    report::Changes,
    tree::{Body, Entry, Node},
};

pub(super) fn assemble(actual: &Index, diff: &Diff, links: &Links<'_>, inodes: &Inodes) -> Plan {
    let mut builder = Builder {
        diff,
        links,
        inodes,
        staged_directories: BTreeSet::new(),
        copies: copies(actual, inodes),
        outs: BTreeMap::new(),
        enters: BTreeMap::new(),
        metas: Vec::new(),
        staged: BTreeMap::new(),
        retired: Vec::new(),
        places: 0,
    };
    for (path, change) in &diff.changes {
        builder.directory(path, change);
    }
    for (path, change) in &diff.changes {
        builder.displace(path, change);
    }
    for (leader, inode) in &inodes.by_leader {
        builder.inode(leader, inode);
    }
    builder.finish(actual)
}

struct Builder<'a> {
    diff: &'a Diff,
    links: &'a Links<'a>,
    inodes: &'a Inodes,
    staged_directories: BTreeSet<RelPath>,
    /// Where the replica has the very content of a file that is to be staged.
    copies: HashMap<Body, RelPath>,
    outs: BTreeMap<RelPath, Step>,
    enters: BTreeMap<RelPath, Step>,
    metas: Vec<Step>,
    staged: BTreeMap<RelPath, (Entry, Provider)>,
    retired: Vec<Retired>,
    places: u32,
}

impl Builder<'_> {
    fn place(&mut self) -> Place {
        self.places += 1;
        Place::Out(self.places - 1)
    }

    fn retire(&mut self, place: Place, what: Retire) {
        self.retired.push(Retired { place, what });
    }

    fn in_staged_directory(&self, path: &RelPath) -> bool {
        path.parent().is_some_and(|parent| self.staged_directories.contains(&parent))
    }

    /// Directories that come, go, or change their own metadata.
    fn directory(&mut self, path: &RelPath, change: &Change) {
        let was = change.old().filter(|old| old.entry.node.is_directory());
        let will_be = change.wanted().filter(|new| new.node.is_directory());
        match (was, will_be) {
            (Some(old), Some(new)) => self.metas.push(meta(path, old, new)),
            (None, Some(new)) => {
                if !self.in_staged_directory(path) {
                    let enter = Step::In { path: path.clone(), place: Place::Tree(path.clone()), id: None };
                    self.enters.insert(path.clone(), enter);
                }
                self.staged_directories.insert(path.clone());
                self.staged.insert(path.clone(), (new.clone(), Provider::Made));
            }
            (Some(old), None) => {
                let place = self.place();
                self.retire(place.clone(), Retire::Directory);
                let out = Step::Out { path: path.clone(), id: old.local.id, place, onward: false };
                self.outs.insert(path.clone(), out);
            }
            (None, None) => {}
        }
    }

    /// A name whose inode goes away, unless an exchange takes care of it.
    fn displace(&mut self, path: &RelPath, change: &Change) {
        let Some(old) = change.old().filter(|old| !old.entry.node.is_directory()) else {
            return;
        };
        let is_moved = self.inodes.moved.get(&old.local.id) == Some(path);
        if is_moved || (!self.is_kept(path, old) && self.enters_by_rename(change)) {
            let place = self.place();
            if !is_moved {
                self.retire(place.clone(), self.fate(old));
            }
            let out = Step::Out { path: path.clone(), id: old.local.id, place, onward: is_moved };
            self.outs.insert(path.clone(), out);
        }
    }

    fn is_kept(&self, path: &RelPath, old: &Old) -> bool {
        let Some(inode) = self.inode_at(path) else {
            return false;
        };
        matches!(&inode.origin, Origin::Kept { old: kept, .. } if kept.local.id == old.local.id)
    }

    fn inode_at(&self, path: &RelPath) -> Option<&Inode> {
        self.inodes.by_leader.get(&self.links.new_leader(path)?)
    }

    /// Nothing or a directory will be there: what is there can't be exchanged with it.
    fn enters_by_rename(&self, change: &Change) -> bool {
        change.wanted().is_none_or(|new| new.node.is_directory())
    }

    fn fate(&self, old: &Old) -> Retire {
        if self.inodes.claimed.contains(&old.local.id) {
            return Retire::Name;
        }
        match self.links.old_node(&old.entry) {
            Some(Node::File(body)) => Retire::Body(body.digest),
            _ => Retire::Name,
        }
    }

    /// What has to leave `path` by exchange when a non-directory enters it.
    fn displaced_at(&self, path: &RelPath) -> Option<&Old> {
        let old = self.diff.changes.get(path)?.old()?;
        let is_there = !old.entry.node.is_directory() && !self.outs.contains_key(path) && !self.is_kept(path, old);
        is_there.then_some(old)
    }

    fn inode(&mut self, leader: &RelPath, inode: &Inode) {
        match &inode.origin {
            Origin::Kept { at, old } => {
                if old.entry.meta != inode.entry.meta {
                    self.metas.push(meta(at, old, &inode.entry));
                }
                for name in inode.names.iter().filter(|name| *name != at) {
                    self.link(name, at, Some(old));
                }
            }
            Origin::Moved { from, old } => {
                let Some(Step::Out { place, .. }) = self.outs.get(from) else {
                    return;
                };
                self.enter(leader, place.clone(), Some(old));
                if old.entry.meta != inode.entry.meta {
                    self.metas.push(meta(leader, old, &inode.entry));
                }
                for name in &inode.names[1..] {
                    self.link(name, leader, Some(old));
                }
            }
            Origin::Staged => self.stage(leader, inode),
        }
    }

    fn stage(&mut self, leader: &RelPath, inode: &Inode) {
        let provider = match inode.entry.node.body() {
            Some(body) if body.size > 0 => {
                let base = self.links.old_at(leader).filter(|old| is_file(self.links, old)).map(|_| leader.clone());
                Provider::Body { copy_of: self.copies.get(body).cloned(), base }
            }
            _ => Provider::Made,
        };
        self.staged.insert(leader.clone(), (inode.entry.clone(), provider));
        let is_inside = self.in_staged_directory(leader);
        if !is_inside {
            self.enter(leader, Place::Tree(leader.clone()), None);
        }
        for name in &inode.names[1..] {
            if is_inside && self.in_staged_directory(name) {
                let Some(entry) = self.links.new_entry(name) else {
                    continue;
                };
                self.staged.insert(name.clone(), (entry, Provider::LinkTo(leader.clone())));
            } else {
                self.link(name, leader, None);
            }
        }
    }

    fn enter(&mut self, path: &RelPath, place: Place, moved: Option<&Old>) {
        let id = moved.map(|old| old.local.id);
        let displaced = self.displaced_at(path).cloned();
        let step = match displaced {
            Some(old) => {
                self.retire(place.clone(), self.fate(&old));
                Step::Exchange { path: path.clone(), place, id, old: old.local.id }
            }
            None => Step::In { path: path.clone(), place, id },
        };
        self.enters.insert(path.clone(), step);
    }

    /// A further name, where the replica does not have it yet.
    fn link(&mut self, name: &RelPath, from: &RelPath, inode: Option<&Old>) {
        let id = inode.map(|old| old.local.id);
        let present = self.links.old_at(name);
        if id.is_some() && present.as_ref().map(|old| old.local.id) == id && !self.outs.contains_key(name) {
            return;
        }
        let replaced = present.filter(|old| !old.entry.node.is_directory() && !self.outs.contains_key(name));
        let place = self.place();
        if let Some(old) = &replaced {
            self.retire(place.clone(), self.fate(old));
        }
        let replaced = replaced.map(|old| old.local.id);
        let step = Step::Link { path: name.clone(), from: from.clone(), place, id, replaced };
        self.enters.insert(name.clone(), step);
    }

    fn finish(self, actual: &Index) -> Plan {
        let changes = self.count();
        let locks = locks::Locks::of(actual, self.diff, self.links, &self.outs, &self.enters, &self.metas);
        let times = locks::times(actual, self.links, &self.outs, &self.enters, &self.metas);
        let mut steps = locks.unlock;
        steps.extend(self.outs.into_values().rev());
        steps.extend(self.enters.into_values());
        steps.extend(self.metas);
        steps.extend(times);
        steps.extend(locks.lock);
        let staged = self.staged.into_iter();
        let staged = staged.map(|(path, (entry, provider))| Staged { path, entry, provider }).collect();
        Plan { staged, steps, retired: self.retired, changes, patched: None }
    }

    fn count(&self) -> Changes {
        let mut changes = Changes { renamed: self.inodes.moved.len() as u64, ..Changes::default() };
        for (path, change) in &self.diff.changes {
            let is_moved_here =
                self.inodes.by_leader.get(path).is_some_and(|i| matches!(i.origin, Origin::Moved { .. }));
            let is_moved_away = change.old().is_some_and(|old| self.inodes.moved.get(&old.local.id) == Some(path));
            match change {
                Change::Added(_) if !is_moved_here => changes.created += 1,
                Change::Removed(_) if !is_moved_away => changes.deleted += 1,
                Change::Changed(old, new) if old.entry.node.same_kind_and_content(&new.node) => changes.metadata += 1,
                Change::Changed(..) if !is_moved_here => changes.updated += 1,
                Change::Added(_) | Change::Removed(_) | Change::Changed(..) => {}
            }
        }
        for inode in self.inodes.by_leader.values() {
            let size = inode.entry.node.body().map_or(0, |body| body.size);
            match &inode.origin {
                Origin::Kept { .. } => {}
                Origin::Moved { .. } => {
                    changes.bytes_changed += size;
                    changes.bytes_local += size;
                }
                Origin::Staged => {
                    changes.bytes_changed += size;
                    changes.bytes_needed += size;
                    let is_here = inode.entry.node.body().is_some_and(|body| self.copies.contains_key(body));
                    changes.bytes_local += if is_here { size } else { 0 };
                }
            }
        }
        changes
    }
}

/// `new` carries the inode's node: the old entry may only be a further name of it.
fn meta(path: &RelPath, old: &Old, new: &Entry) -> Step {
    let was = Entry { node: new.node.clone(), ..old.entry.clone() };
    Step::Meta { path: path.clone(), id: old.local.id, old: Box::new(was), new: Box::new(new.meta.clone()) }
}

fn is_file(links: &Links<'_>, old: &Old) -> bool {
    matches!(links.old_node(&old.entry), Some(Node::File(_)))
}

/// One pass over the replica for all contents that are wanted.
fn copies(actual: &Index, inodes: &Inodes) -> HashMap<Body, RelPath> {
    let staged = inodes.by_leader.values().filter(|inode| inode.origin == Origin::Staged);
    let wanted: std::collections::HashSet<Body> =
        staged.filter_map(|inode| inode.entry.node.body().copied()).filter(|body| body.size > 0).collect();
    if wanted.is_empty() {
        return HashMap::new();
    }
    let files = actual.manifest.entries().filter_map(|(path, entry)| Some((*entry.node.body()?, path)));
    files.filter(|(body, _)| wanted.contains(body)).collect()
}
