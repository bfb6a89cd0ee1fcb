//! A window: a directory that shows one of its entries, under a name that is the same everywhere. A volume that is one
//! file is the tree of a window on the file's directory, so that everything that holds for trees holds for it.

use std::io;

use super::{Dir, invalid, one_name};
use crate::{Stat, Time};

/// The name that a window shows its entry under.
pub const WINDOW_NAME: &[u8] = b"image";

impl Dir {
    /// Shows the entry `name` as `WINDOW_NAME`, and nothing else, whether it is there or not. The directory's own owner,
    /// mode, times, flags and xattrs are not shown: they read as those of any window, and can't be set.
    pub fn window(self, name: &[u8]) -> io::Result<Self> {
        Ok(Self { window: Some(one_name(name)?.into()), ..self })
    }

    pub(super) fn is_window(&self) -> bool {
        self.window.is_some()
    }

    /// What the kernel knows an entry by.
    pub(super) fn real<'a>(&'a self, name: &'a [u8]) -> io::Result<&'a [u8]> {
        match &self.window {
            None => one_name(name),
            Some(real) if name == WINDOW_NAME => Ok(real),
            Some(_) => Err(invalid("a window shows one name only")),
        }
    }

    /// The name that an entry of the directory is shown under, when it is.
    pub fn shown<'a>(&self, real: &'a [u8]) -> Option<&'a [u8]> {
        match &self.window {
            None => Some(real),
            Some(of) => (**of == *real).then_some(WINDOW_NAME),
        }
    }

    /// For calls that would change the directory itself.
    pub(super) fn refuse_window(&self) -> io::Result<()> {
        if self.is_window() { Err(invalid("the directory behind a window is not of the volume")) } else { Ok(()) }
    }

    pub(super) fn list_window(&self) -> io::Result<Vec<(Vec<u8>, u64)>> {
        match self.stat(WINDOW_NAME) {
            Ok(stat) => Ok(vec![(WINDOW_NAME.to_vec(), stat.id.ino)]),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

/// The directory behind a window, without what is its own affair.
pub(super) fn anonymous(stat: Stat) -> Stat {
    let never = Time { secs: 0, nanos: 0 };
    Stat { mode: 0o700, uid: 0, gid: 0, size: 0, mtime: never, ctime: never, ..stat }
}
