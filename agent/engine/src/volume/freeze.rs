//! A snapshot as the source of a sync: whatever the volume's users write meanwhile, it is one instant.

use std::{
    fmt,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
};

use drover_linux::{Dir, WINDOW_NAME};

use super::{Volume, VolumeError};
use crate::{id::VolumeId, point::VolumeKind};

/// Makes snapshots of block volumes, by whatever there is beneath them.
pub trait Freezer: fmt::Debug + Send + Sync {
    /// `path` is the file or device. The error is for the operator: it says what was tried and what came of it.
    fn freeze(&self, volume: VolumeId, path: &Path) -> Result<Box<dyn Frozen>, String>;
}

/// One snapshot; gone when it is dropped.
pub trait Frozen: Send + Sync {
    /// A regular file, or a device beneath `/dev`.
    fn path(&self) -> &Path;
}

/// The tree of a volume as its snapshot has it.
pub(crate) struct FrozenTree {
    pub(crate) dir: Dir,
    // Closed before the snapshot goes.
    _frozen: Box<dyn Frozen>,
}

impl Volume {
    /// From now on its source is a snapshot.
    pub fn set_freezer(&self, freezer: Option<Arc<dyn Freezer>>) {
        *self.freezer.write().unwrap_or_else(PoisonError::into_inner) = freezer;
    }

    /// `None` when the volume is read as it is.
    pub(crate) fn freeze(&self) -> Result<Option<FrozenTree>, VolumeError> {
        let freezer = self.freezer.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(freezer) = freezer.filter(|_| self.state().kind.is_block()) else { return Ok(None) };
        let failed = |problem| VolumeError::Snapshot { volume: self.id(), problem };
        let path = self.root().path().join(std::ffi::OsStr::from_bytes(self.path().as_bytes()));
        let frozen = freezer.freeze(self.id(), &path).map_err(failed)?;
        let dir = open(frozen.path(), self.state().kind);
        let dir = dir.and_then(|dir| dir.stat(WINDOW_NAME).map(|_| dir));
        let dir = dir.map_err(|error| failed(format!("{} can't be opened: {error}", frozen.path().display())))?;
        Ok(Some(FrozenTree { dir, _frozen: frozen }))
    }
}

fn open(path: &Path, kind: VolumeKind) -> std::io::Result<Dir> {
    let devices = PathBuf::from("/dev");
    match (path.strip_prefix(&devices), path.parent().zip(path.file_name())) {
        (Ok(name), _) => Dir::open(&devices)?.device_window(name.as_os_str().as_bytes()),
        (Err(_), Some((parent, name))) if kind != VolumeKind::Directory => Dir::open(parent)?.window(name.as_bytes()),
        (Err(_), _) => Err(std::io::ErrorKind::InvalidInput.into()),
    }
}
