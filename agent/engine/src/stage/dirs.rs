//! A few directories kept open, because plans come in path order and most entries share their parent with the last.

use std::{collections::VecDeque, io, sync::Arc};

use drover_linux::Dir;

use crate::path::RelPath;

/// Opens directories beneath one root, each with `RESOLVE_BENEATH` and no links followed.
#[derive(Debug)]
pub(crate) struct Dirs<'a> {
    root: &'a Dir,
    open: VecDeque<(RelPath, Arc<Dir>)>,
}

impl<'a> Dirs<'a> {
    /// Kept open at a time.
    const OPEN_MAX: usize = 16;

    pub(crate) fn new(root: &'a Dir) -> Self {
        Self { root, open: VecDeque::new() }
    }

    pub(crate) fn open(&mut self, path: &RelPath) -> io::Result<Arc<Dir>> {
        if let Some((_, dir)) = self.open.iter().find(|(known, _)| known == path) {
            return Ok(Arc::clone(dir));
        }
        let dir = Arc::new(self.root.open_beneath(path.as_bytes())?);
        if self.open.len() == Self::OPEN_MAX {
            self.open.pop_back();
        }
        self.open.push_front((path.clone(), Arc::clone(&dir)));
        Ok(dir)
    }

    /// Parent directory and last name; the root itself has an empty name.
    pub(crate) fn locate(&mut self, path: &RelPath) -> io::Result<(Arc<Dir>, Vec<u8>)> {
        match path.split() {
            None => Ok((self.open(path)?, Vec::new())),
            Some((parent, name)) => Ok((self.open(&parent)?, name.as_bytes().to_vec())),
        }
    }

    /// A directory went away or became another one.
    pub(crate) fn forget(&mut self) {
        self.open.clear();
    }
}
