//! What a scan has found so far, directory by directory.

use std::collections::{BTreeMap, HashSet};

use drover_linux::{FileId, Stat, Time};

use super::previous::Previous;
use crate::{
    index::Local,
    path::{Name, RelPath},
    tree::{Entry, Meta},
};

/// Directories by path. What no directory's list leads to any more is pruned before it is used.
#[derive(Default)]
pub(super) struct Listings(pub(super) BTreeMap<RelPath, Listed>);

pub(super) struct Listed {
    /// The directory's own, as it was when it was listed: its times tell whether the list still holds.
    pub(super) meta: Meta,
    pub(super) local: Local,
    pub(super) subdirectories: Vec<(Name, FileId)>,
    pub(super) files: Files,
    /// The index has the same directory, with this metadata, at this path.
    pub(super) as_before: bool,
    /// `Time::now` when the list was begun: of two sightings of one inode the later one counts.
    pub(super) listed_at: Time,
    /// Something else is mounted here; it was not listed and counts as empty.
    pub(super) is_mount_point: bool,
}

/// Everything in a directory that is not a directory.
pub(super) enum Files {
    /// All names, also of subdirectories, and all these entries are as the index has them at this path.
    AsBefore,
    /// Of several sources, in no order.
    Found(Vec<Found>),
}

#[derive(Clone)]
pub(super) struct Found {
    pub(super) entry: Entry,
    pub(super) local: Local,
}

/// An entry that has to be read.
pub(super) struct Pending {
    pub(super) directory: RelPath,
    pub(super) name: Name,
    pub(super) stat: Stat,
    /// The index's entry of the same identity and times: reading it again should find the same content.
    pub(super) expected: Option<Entry>,
}

impl Pending {
    pub(super) fn path(&self) -> RelPath {
        self.directory.join(&self.name)
    }
}

impl Listings {
    /// Drops directories that can't be reached from the root any more, or that another directory has replaced.
    pub(super) fn prune(&mut self) {
        let mut reachable = BTreeMap::new();
        let mut reached = vec![RelPath::root()];
        while let Some(path) = reached.pop() {
            let Some(listed) = self.0.remove(&path) else {
                continue;
            };
            let children = listed.subdirectories.iter().map(|(name, id)| (path.join(name), *id));
            reached.extend(children.filter(|(child, id)| self.is_listed(child, *id)).map(|(child, _)| child));
            reachable.insert(path, listed);
        }
        self.0 = reachable;
    }

    /// A subdirectory that vanished before it could be listed is no entry.
    pub(super) fn drop_unlisted_subdirectories(&mut self) {
        let listed: HashSet<RelPath> = self.0.keys().cloned().collect();
        for (path, directory) in &mut self.0 {
            directory.subdirectories.retain(|(name, _)| listed.contains(&path.join(name)));
        }
    }

    pub(super) fn is_listed(&self, path: &RelPath, id: FileId) -> bool {
        self.0.get(path).is_some_and(|listed| listed.local.id == id)
    }

    /// Takes the entries that are as before from the index, where `is_wanted` says so of their locals.
    pub(super) fn thaw(&mut self, previous: &Previous<'_>, is_wanted: impl Fn(&[Local]) -> bool) {
        for (path, listed) in &mut self.0 {
            if matches!(listed.files, Files::AsBefore) && is_wanted(previous.locals(path)) {
                listed.files = Files::Found(previous.files(path).collect());
            }
        }
    }
}

impl Files {
    pub(super) fn take(&mut self) -> Self {
        std::mem::replace(self, Self::AsBefore)
    }
}

impl Listed {
    /// What was read, without what is as before.
    pub(super) fn found(&self) -> &[Found] {
        match &self.files {
            Files::AsBefore => &[],
            Files::Found(found) => found,
        }
    }

    /// As `found`, to change it: entries that are as before must have been thawed.
    pub(super) fn found_mut(&mut self) -> &mut Vec<Found> {
        if matches!(self.files, Files::AsBefore) {
            self.files = Files::Found(Vec::new());
        }
        match &mut self.files {
            Files::Found(found) => found,
            Files::AsBefore => unreachable!("replaced above"),
        }
    }
}
