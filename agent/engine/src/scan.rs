//! Finds what a volume holds now, reading only what its index can't vouch for (R5, R9).
//!
//! ```text
//! walk    every directory is opened by its whole path beneath the root, listed, and each entry statted, in parallel
//! read    entries whose identity and times the index does not know: metadata, link target, content; stat, read, stat
//! settle  every directory is statted again; those that changed since they were listed are walked and read again
//! links   names of one inode become a leader and its hard links
//! ```
//! A rename across a running scan changes the times of both directories, so once all directories are settled, nothing
//! was missed and nothing was seen twice. If they don't settle, nothing that the index knew is believed to be deleted.
//!
//! The scan writes nothing. It follows no symlink, crosses no mount and opens nothing but directories and regular files.

mod assemble;
mod keep;
mod links;
mod listing;
mod previous;
mod read;
mod settle;
pub(crate) use settle::CLOCK_STEP;
mod sorting;
#[cfg(test)]
mod tests;
mod walk;

use std::{
    collections::BTreeSet,
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use drover_linux::{Dir, FileId, Stat, Time};

use crate::{
    bases::{Bases, FoundByCounts},
    control::{Cancelled, Control},
    fault,
    index::{Index, Local},
    path::RelPath,
    tree::ManifestError,
};
use listing::Listings;
use previous::Previous;

#[derive(Clone, Copy)]
pub struct ScanOptions<'a> {
    /// Of the volume's mark. An index with another one is not used.
    pub mark: FileId,
    /// The clock that stamps the volume's inodes: the time that a file touched just now has.
    pub clock: &'a (dyn Fn() -> io::Result<Time> + Sync),
    /// Read everything, whatever the index says.
    pub deep: bool,
    /// Read again what was last read before this time, in seconds since 1970.
    pub reread_before: Option<i64>,
    /// Carry a mount point as an empty directory instead of failing; one that covers a file is left out.
    pub waive_mount_points: bool,
    /// What is known of big files, and where that is kept.
    pub bases: Option<&'a Bases>,
}

#[derive(Debug)]
pub struct Scan {
    pub index: Index,
    pub changed: Changed,
    /// What could not be read: the scan is not whole, and no delete may be decided by it.
    pub unreadable: Vec<(RelPath, io::Error)>,
    pub flux: Flux,
    /// Content differs from the index although identity and times do not.
    pub rotten: Vec<RelPath>,
    /// Big files that were read, by how their change was found.
    pub found_by: FoundByCounts,
}

/// What was read because the index could not vouch for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Entries that are not directories; a hard link's content is read once.
    pub entries: u64,
    /// Size of the content among them.
    pub bytes: u64,
}

/// What moved while it was looked at. Empty lists mean that the scan is exact file by file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flux {
    /// Changed during each of several reads; the entry has what the last read saw.
    pub unstable: Vec<RelPath>,
    /// Changed each time they were listed.
    pub unsettled_directories: Vec<RelPath>,
    /// Known to the index and not seen, but not believed to be deleted because directories did not settle.
    pub kept: Vec<RelPath>,
}

impl Flux {
    pub fn is_quiet(&self) -> bool {
        self.unstable.is_empty() && self.unsettled_directories.is_empty() && self.kept.is_empty()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    #[error("volume's root can't be read")]
    Root(#[source] io::Error),
    #[error("volume's file-system clock can't be read")]
    Clock(#[source] io::Error),
    #[error("scan failed")]
    Fault(#[source] io::Error),
    #[error("{path} is a mount point")]
    MountPoint { path: RelPath },
    #[error("directories do not form a tree")]
    Tree(#[from] ManifestError),
}

/// Of the volume at `root`. Fails only where no scan can be had; what single entries refuse is in `Scan::unreadable`.
pub fn scan(
    root: &Dir,
    previous: Option<&Index>,
    options: &ScanOptions<'_>,
    control: &Control,
) -> Result<Scan, ScanError> {
    let previous = previous.filter(|index| index.mark == options.mark).map(Previous::new);
    let root_stat = root.stat_self().map_err(ScanError::Root)?;
    let scanner = Scanner { root, root_stat, previous, options, control, findings: Mutex::default() };
    let mut listings = Listings::default();
    let unsettled_directories = scanner.settle(&mut listings)?;
    let kept = if unsettled_directories.is_empty() { Vec::new() } else { scanner.keep(&mut listings) };
    fault::hit("scan.done").map_err(ScanError::Fault)?;
    let index = scanner.assemble(listings)?;
    let findings = scanner.findings.into_inner().unwrap_or_else(PoisonError::into_inner);
    let is_unstable = |path: &RelPath| index.local(path).is_some_and(Local::is_distrusted);
    let unstable = findings.unstable.into_iter().filter(is_unstable).collect();
    Ok(Scan {
        index: Index { complete: findings.unreadable.is_empty(), ..index },
        changed: findings.changed,
        unreadable: findings.unreadable,
        flux: Flux { unstable, unsettled_directories, kept },
        rotten: findings.rotten,
        found_by: findings.found_by,
    })
}

struct Scanner<'a> {
    root: &'a Dir,
    root_stat: Stat,
    previous: Option<Previous<'a>>,
    options: &'a ScanOptions<'a>,
    control: &'a Control,
    findings: Mutex<Findings>,
}

/// Collected by all threads besides the entries themselves.
#[derive(Debug, Default)]
struct Findings {
    unreadable: Vec<(RelPath, io::Error)>,
    /// At some time; may have been read again since.
    unstable: BTreeSet<RelPath>,
    rotten: Vec<RelPath>,
    changed: Changed,
    found_by: FoundByCounts,
}

impl Scanner<'_> {
    fn findings(&self) -> MutexGuard<'_, Findings> {
        self.findings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unreadable(&self, path: RelPath, error: io::Error) {
        self.findings().unreadable.push((path, error));
    }

    /// Directories did not settle: drops what was seen twice, puts back and returns what was not seen.
    fn keep(&self, listings: &mut Listings) -> Vec<RelPath> {
        if let Some(previous) = &self.previous {
            listings.thaw(previous, |_| true);
        }
        keep::later_sightings(listings);
        self.previous.as_ref().map_or_else(Vec::new, |previous| keep::unseen(listings, previous))
    }
}
