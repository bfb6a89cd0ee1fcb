//! What is done where directories did not settle, so that a rename during the scan loses nothing (R5). All entries must
//! have been thawed.

use std::collections::{HashMap, HashSet, hash_map::Entry as Slot};

use drover_linux::{FileId, Time};

use super::{
    listing::{Files, Found, Listed, Listings},
    previous::Previous,
};
use crate::{
    index::Local,
    path::{Name, RelPath},
    tree::Entry,
};

/// An inode with one name that was seen under two was moved in between: only what was seen later is true.
pub(super) fn later_sightings(listings: &mut Listings) {
    let mut latest: HashMap<FileId, (Time, RelPath, Name)> = HashMap::new();
    let mut outdated = Vec::new();
    for (directory, listed) in &listings.0 {
        let files = listed.found().iter().filter(|found| found.local.nlink == 1);
        let files = files.map(|found| (found.local.id, &found.entry.name));
        let directories = listed.subdirectories.iter().map(|(name, id)| (*id, name));
        for (id, name) in files.chain(directories) {
            let sighting = (listed.listed_at, directory.clone(), name.clone());
            match latest.entry(id) {
                Slot::Vacant(slot) => {
                    slot.insert(sighting);
                }
                Slot::Occupied(mut slot) if slot.get().0 < sighting.0 => outdated.push(slot.insert(sighting)),
                Slot::Occupied(_) => outdated.push(sighting),
            }
        }
    }
    for (_, directory, name) in outdated {
        if let Some(listed) = listings.0.get_mut(&directory) {
            listed.found_mut().retain(|found| found.entry.name != name);
            listed.subdirectories.retain(|(other, _)| *other != name);
        }
    }
    listings.prune();
}

/// Puts what the index has and the scan did not see anywhere back into its directory, wherever that is now, if its name
/// is free there, and returns where. It may be deleted, or it may have been renamed past us: the next scan tells.
pub(super) fn unseen(listings: &mut Listings, previous: &Previous<'_>) -> Vec<RelPath> {
    listings.drop_unlisted_subdirectories();
    let seen = seen(listings);
    let mut places: HashMap<FileId, RelPath> =
        listings.0.iter().map(|(path, listed)| (listed.local.id, path.clone())).collect();
    let mut kept = Vec::new();
    // A directory comes before what is in it, so one that is put back has its place when its entries' turn comes.
    for (directory, id) in previous.directories_in_order() {
        let Some(place) = places.get(&id).cloned() else {
            continue;
        };
        for (entry, local) in previous.entries(&directory).filter(|(_, local)| !seen.contains(&local.id)) {
            let path = place.join(&entry.name);
            if put_back(listings, &place, entry, local) {
                places.insert(local.id, path.clone());
                kept.push(path);
            }
        }
    }
    kept
}

fn seen(listings: &Listings) -> HashSet<FileId> {
    let own = listings.0.values().map(|listed| listed.local.id);
    let files = listings.0.values().flat_map(|listed| listed.found().iter().map(|found| found.local.id));
    own.chain(files).collect()
}

fn put_back(listings: &mut Listings, place: &RelPath, entry: Entry, local: Local) -> bool {
    let Some(listed) = listings.0.get_mut(place) else {
        return false;
    };
    let is_taken = listed.found().iter().any(|found| found.entry.name == entry.name)
        || listed.subdirectories.iter().any(|(name, _)| *name == entry.name);
    if is_taken || listed.is_mount_point {
        return false;
    }
    if !entry.node.is_directory() {
        listed.found_mut().push(Found { entry, local });
        return true;
    }
    listed.subdirectories.push((entry.name.clone(), local.id));
    let empty = Listed {
        meta: entry.meta,
        local,
        subdirectories: Vec::new(),
        files: Files::Found(Vec::new()),
        as_before: false,
        listed_at: Time::default(),
        is_mount_point: false,
    };
    listings.0.insert(place.join(&entry.name), empty);
    true
}
