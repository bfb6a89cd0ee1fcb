//! Directories kept open, because most files share one with the file before.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use drover_linux::Dir;

use crate::path::RelPath;

/// Each one holds a file descriptor.
const OPEN_MAX: usize = 128;

#[derive(Debug)]
pub(super) struct Dirs<'a> {
    root: &'a Dir,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    dirs: HashMap<RelPath, (Arc<Dir>, u64)>,
    uses: u64,
}

impl<'a> Dirs<'a> {
    pub(super) fn new(root: &'a Dir) -> Self {
        Self { root, open: Mutex::default() }
    }

    pub(super) fn root(&self) -> &'a Dir {
        self.root
    }

    pub(super) fn get(&self, path: &RelPath) -> io::Result<Arc<Dir>> {
        if let Some(dir) = self.lock().used(path) {
            return Ok(dir);
        }
        let dir = Arc::new(self.root.open_beneath(path.as_bytes())?);
        self.lock().keep(path, &dir);
        Ok(dir)
    }

    /// For a directory that was replaced under its path.
    pub(super) fn forget(&self, path: &RelPath) {
        self.lock().dirs.remove(path);
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Open {
    fn used(&mut self, path: &RelPath) -> Option<Arc<Dir>> {
        self.uses += 1;
        let (dir, last_use) = self.dirs.get_mut(path)?;
        *last_use = self.uses;
        Some(Arc::clone(dir))
    }

    fn keep(&mut self, path: &RelPath, dir: &Arc<Dir>) {
        if self.dirs.len() >= OPEN_MAX {
            let oldest = self.dirs.iter().min_by_key(|(_, (_, last_use))| *last_use);
            if let Some(oldest) = oldest.map(|(path, _)| path.clone()) {
                self.dirs.remove(&oldest);
            }
        }
        self.dirs.insert(path.clone(), (Arc::clone(dir), self.uses));
    }
}
