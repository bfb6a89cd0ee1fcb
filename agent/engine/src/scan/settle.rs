//! Repeats walk and read until no directory has changed since it was listed (R5).

use std::{collections::HashMap, thread, time::Duration};

use drover_linux::{FileId, Kind, Time};
use rayon::prelude::*;

use super::{
    ScanError, Scanner,
    listing::{Listed, Listings, Pending},
    previous::Previous,
    read::Lot,
    walk::Task,
};
use crate::{fault, path::RelPath};

/// After the first pass. A volume that still moves then is reported as it is.
const ROUNDS_MAX: u32 = 8;

/// Longest step of the clock that file systems stamp inodes with: a jiffy is 10 ms at CONFIG_HZ=100, the coarsest. Two
/// changes within one step leave the same time, so a list made within it proves nothing.
pub(crate) const CLOCK_STEP: Duration = Duration::from_millis(20);

/// Entries of one directory that a thread reads before another may take some: the directory is opened for each lot.
const LOT_ENTRIES_MAX: usize = 64;

impl Scanner<'_> {
    /// Fills `listings`, and returns the directories that did not settle.
    pub(super) fn settle(&self, listings: &mut Listings) -> Result<Vec<RelPath>, ScanError> {
        let known = self.previous.as_ref().map(Previous::root);
        self.pass(vec![Task { path: RelPath::root(), known }], listings)?;
        for _ in 0..ROUNDS_MAX {
            let moved = self.moved(listings)?;
            if moved.is_empty() {
                return Ok(moved);
            }
            self.pass(moved.into_iter().map(|path| Task { path, known: None }).collect(), listings)?;
        }
        self.moved(listings)
    }

    fn pass(&self, starts: Vec<Task>, listings: &mut Listings) -> Result<(), ScanError> {
        let clock = (self.options.clock)().map_err(ScanError::Clock)?;
        let walked = self.walk(starts, listings, clock)?;
        listings.0.extend(walked.listings);
        listings.prune();
        let files = walked.pending.iter().filter(|pending| pending.stat.kind == Kind::File);
        self.control.progress.bytes_total.add(files.map(|pending| pending.stat.size).sum());
        self.read(lots(walked.pending), clock, listings)
    }

    /// Directories that are not as they were listed, or may not be.
    fn moved(&self, listings: &Listings) -> Result<Vec<RelPath>, ScanError> {
        self.control.check()?;
        fault::hit("scan.settle").map_err(ScanError::Fault)?;
        let moved: Vec<_> = listings
            .0
            .par_iter()
            .filter(|(path, listed)| self.has_moved(path, listed))
            .map(|(p, _)| p.clone())
            .collect();
        if moved.iter().any(|path| listings.0.get(path).is_some_and(is_within_clock_step)) {
            // What is listed from now on is not within the same step. A spurious wake-up costs another round.
            thread::park_timeout(CLOCK_STEP);
        }
        Ok(moved)
    }

    fn has_moved(&self, path: &RelPath, listed: &Listed) -> bool {
        if listed.is_mount_point {
            return false;
        }
        let now = self.root.open_beneath(path.as_bytes()).and_then(|dir| dir.stat_self());
        let is_same = now.is_ok_and(|stat| (stat.id, stat.ctime) == (listed.local.id, listed.local.ctime));
        !is_same || is_within_clock_step(listed)
    }
}

/// Another change right after the list could have left the directory's time as it was.
fn is_within_clock_step(listed: &Listed) -> bool {
    nanos(listed.listed_at).abs_diff(nanos(listed.local.ctime)) < CLOCK_STEP.as_nanos()
}

fn nanos(time: Time) -> i128 {
    i128::from(time.secs) * 1_000_000_000 + i128::from(time.nanos)
}

fn lots(pending: Vec<Pending>) -> Vec<Lot> {
    let mut links: HashMap<FileId, Vec<Pending>> = HashMap::new();
    let mut entries: Vec<Vec<Pending>> = Vec::new();
    for pending in pending {
        match entries.last_mut() {
            _ if pending.stat.nlink > 1 => links.entry(pending.stat.id).or_default().push(pending),
            Some(lot) if lot.len() < LOT_ENTRIES_MAX && lot[0].directory == pending.directory => lot.push(pending),
            _ => entries.push(vec![pending]),
        }
    }
    entries.into_iter().map(Lot::Entries).chain(links.into_values().map(Lot::Links)).collect()
}
