//! Lists directories in parallel and sorts their entries: known to the index, to be read, or directories to walk next.

use std::{
    collections::HashSet,
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use drover_linux::{Dir, FileId, Time, is_gone};

use super::{
    ScanError, Scanner,
    listing::{Listed, Listings, Pending},
    previous::KnownDirectory,
    sorting::{Sorted, Sorting},
};
use crate::{control::Cancelled, fault, index::Local, meta, path::RelPath};

/// A directory to be listed.
pub(super) struct Task {
    pub(super) path: RelPath,
    /// What the index knows of the directory, if the parent's list already says that it is still the same.
    pub(super) known: Option<KnownDirectory>,
}

#[derive(Default)]
pub(super) struct Walked {
    pub(super) listings: Vec<(RelPath, Listed)>,
    pub(super) pending: Vec<Pending>,
}

/// One pass over the directories that have to be listed, and those that are found beneath them.
pub(super) struct Walk<'a> {
    pub(super) scanner: &'a Scanner<'a>,
    /// Of the passes before: a directory in there is not listed again unless it is a start.
    pub(super) earlier: &'a Listings,
    pub(super) starts: HashSet<RelPath>,
    clock: Time,
    walked: Mutex<Walked>,
    failed: Mutex<Option<ScanError>>,
}

pub(super) enum ListError {
    Io(io::Error),
    Scan(ScanError),
}

impl From<io::Error> for ListError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Cancelled> for ListError {
    fn from(cancelled: Cancelled) -> Self {
        Self::Scan(cancelled.into())
    }
}

impl Scanner<'_> {
    pub(super) fn walk(&self, starts: Vec<Task>, earlier: &Listings, clock: Time) -> Result<Walked, ScanError> {
        let walk = Walk {
            scanner: self,
            earlier,
            starts: starts.iter().map(|task| task.path.clone()).collect(),
            clock,
            walked: Mutex::default(),
            failed: Mutex::default(),
        };
        rayon::scope(|scope| {
            for task in starts {
                scope.spawn(|scope| walk.visit(scope, task));
            }
        });
        match walk.failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(walk.walked.into_inner().unwrap_or_else(PoisonError::into_inner)),
        }
    }
}

impl Walk<'_> {
    fn visit<'s>(&'s self, scope: &rayon::Scope<'s>, task: Task) {
        if self.failed().is_some() {
            return;
        }
        match self.list(&task) {
            Ok(children) => {
                for child in children {
                    scope.spawn(|scope| self.visit(scope, child));
                }
            }
            Err(ListError::Scan(error)) => *self.failed() = Some(error),
            Err(ListError::Io(error)) if task.path.is_root() => *self.failed() = Some(ScanError::Root(error)),
            Err(ListError::Io(error)) if is_gone(&error) => {}
            Err(ListError::Io(error)) => self.scanner.unreadable(task.path, error),
        }
    }

    fn failed(&self) -> MutexGuard<'_, Option<ScanError>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lists one directory, and returns the subdirectories that are still to be listed.
    fn list(&self, task: &Task) -> Result<Vec<Task>, ListError> {
        self.scanner.control.check()?;
        fault::hit("scan.directory")?;
        let listed_at = Time::now();
        let dir = self.open(&task.path)?;
        let stat = dir.stat_self()?;
        let known = self.known(task, stat.id);
        let (meta, local, as_before) = match known {
            Some(known) if self.scanner.vouches(&known.meta, &known.local, &stat) => {
                (known.meta.clone(), known.local, known.path == task.path)
            }
            _ => (meta::read(&dir, b"", &stat)?, Local::new(&stat, self.clock), false),
        };
        let Sorted { subdirectories, files, pending, children, mount_points } =
            Sorting::new(self, &task.path, known).sort(&dir)?;
        let mut walked = self.walked.lock().unwrap_or_else(PoisonError::into_inner);
        let listed = Listed { meta, local, subdirectories, files, as_before, listed_at, is_mount_point: false };
        walked.listings.push((task.path.clone(), listed));
        walked.listings.extend(mount_points);
        walked.pending.extend(pending);
        Ok(children)
    }

    fn open(&self, path: &RelPath) -> Result<Dir, ListError> {
        match self.scanner.root.open_beneath(path.as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                Err(ListError::Scan(ScanError::MountPoint { path: path.clone() }))
            }
            done => Ok(done?),
        }
    }

    fn known<'t>(&'t self, task: &'t Task, id: FileId) -> Option<&'t KnownDirectory> {
        match &task.known {
            Some(known) if known.local.id == id => Some(known),
            _ => self.scanner.previous.as_ref()?.directory(id),
        }
    }
}
