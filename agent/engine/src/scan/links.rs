//! Makes the names of one inode a leader and its hard links.

use std::collections::HashMap;

use drover_linux::FileId;

use super::{
    listing::{Found, Listings},
    previous::Previous,
};
use crate::{path::RelPath, tree::Node};

/// One name of an inode: its path, its directory, and its place among what was found there.
struct Name {
    path: RelPath,
    directory: RelPath,
    at: usize,
}

/// The first name in path order leads and carries the node, the others name it; a single name is an ordinary entry.
/// All get the metadata that was read last. Entries with several links must have been thawed. Returns names whose node
/// neither the scan nor the index has.
pub(super) fn join(listings: &mut Listings, previous: Option<&Previous<'_>>) -> Vec<RelPath> {
    let mut orphans = Vec::new();
    for mut names in groups(listings).into_values() {
        names.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        match inode(listings, &names, previous) {
            Some(inode) => assign(listings, &names, &inode),
            None => orphans.extend(names.into_iter().map(|name| name.path)),
        }
    }
    orphans
}

fn groups(listings: &Listings) -> HashMap<FileId, Vec<Name>> {
    let mut groups: HashMap<FileId, Vec<Name>> = HashMap::new();
    for (directory, listed) in &listings.0 {
        for (at, found) in listed.found().iter().enumerate() {
            if found.local.nlink > 1 || matches!(found.entry.node, Node::Hardlink { .. }) {
                let path = directory.join(&found.entry.name);
                groups.entry(found.local.id).or_default().push(Name { path, directory: directory.clone(), at });
            }
        }
    }
    groups
}

/// The most recent of what was read under any of the names. When all are as the index has them and their leader went
/// elsewhere with the directory that it was in, the index still knows its node.
fn inode(listings: &Listings, names: &[Name], previous: Option<&Previous<'_>>) -> Option<Found> {
    let found = || names.iter().filter_map(|name| listings.0.get(&name.directory)?.found().get(name.at));
    let is_link = |found: &&Found| matches!(found.entry.node, Node::Hardlink { .. });
    if let Some(newest) = found().filter(|found| !is_link(found)).max_by_key(|found| found.local.ctime) {
        return Some(newest.clone());
    }
    let link = found().next()?;
    let Node::Hardlink { leader } = &link.entry.node else {
        return None;
    };
    let entry = previous?.index.manifest.find(leader)?;
    Some(Found { entry, local: link.local })
}

fn assign(listings: &mut Listings, names: &[Name], inode: &Found) {
    let Some(leader) = names.first() else { return };
    for name in names {
        let Some(listed) = listings.0.get_mut(&name.directory) else {
            continue;
        };
        let found = &mut listed.found_mut()[name.at];
        found.local = inode.local;
        found.entry.meta = inode.entry.meta.clone();
        found.entry.node = if name.path == leader.path {
            inode.entry.node.clone()
        } else {
            Node::Hardlink { leader: leader.path.clone() }
        };
    }
}
