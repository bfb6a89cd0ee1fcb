//! What lies beside the volumes of one root: `<root>/.drover/` (mode 0700), or a configured directory of the same file
//! system.
//!
//! ```text
//! lock                      held by the one process that works on this root
//! clock                     touched to read the file system's own clock
//! volumes/<volume id>/
//!   mark                    names the volume, and the inodes of its root and of this file
//!   state                   role, epoch, lineage, points
//!   index                   what the last scan knew; a cache
//!   scrub                   how far the content was read again; a cache
//!   bases/<digest>.*        what is known of big files (`bases`); a cache
//!   points/<point>          manifests of restore points
//!   pool/<xx>/<digest>      contents that older points need and the tree no longer has; as .delta and .data those that
//!                           are a newer content with a patch over it
//!   staging/tree, /out      what is received and not committed; what a commit took out
//!   staging/patch           what of a content is written in place, and what it replaces (`patch`)
//!   commit                  the commit record, while it is being applied
//! images/<volume id>/        of a copy of an image in a file (`image::file`): state, points/
//! trash/<volume id>-<time>  deleted replicas (`trash`)
//! ```
//! An unmounted mount point has no such directory, so it can't be taken for an empty source.

use std::{
    collections::BTreeSet,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use drover_linux::{Dir, FileId, Time};
use serde::{Deserialize, Serialize};

use crate::{
    error::Kind,
    id::VolumeId,
    path::RelPath,
    record::{self, RecordError, RecordKind},
};

pub const BESIDE_NAME: &str = ".drover";
const MARK: RecordKind = RecordKind { magic: *b"DRVM", version: 1 };

#[derive(Debug, thiserror::Error)]
pub enum BesideError {
    #[error("root {path} can't be opened")]
    Root {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("root {path} has no {BESIDE_NAME} directory: is its file system mounted?")]
    NoBeside { path: PathBuf },
    #[error("{path} can't be used")]
    Beside {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{beside} is on another file system than root {root}; choose a directory on the same one")]
    OtherFilesystem { root: PathBuf, beside: PathBuf },
    #[error("root {path} is for devices: name a directory for what lies beside them")]
    DevicesWithoutBeside { path: PathBuf },
    #[error("root {path} is in use by another drover process")]
    Locked { path: PathBuf },
    #[error("mark of volume {volume}")]
    Mark {
        volume: VolumeId,
        #[source]
        source: RecordError,
    },
    #[error("mark of volume {volume} can't be understood")]
    MarkFormat {
        volume: VolumeId,
        #[source]
        source: serde_json::Error,
    },
}

impl BesideError {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Root { source, .. } if source.kind() == io::ErrorKind::NotFound => Kind::NotFound,
            Self::Root { .. } | Self::Beside { .. } => Kind::Storage,
            Self::NoBeside { .. } | Self::OtherFilesystem { .. } | Self::DevicesWithoutBeside { .. } => {
                Kind::Precondition
            }
            Self::Locked { .. } => Kind::Unavailable,
            Self::Mark { source, .. } => source.kind(),
            Self::MarkFormat { .. } => Kind::DataLoss,
        }
    }

    pub fn reason(&self) -> &'static str {
        match self {
            Self::Root { .. } => "root-unusable",
            Self::NoBeside { .. } => "root-not-marked",
            Self::Beside { .. } => "beside-unusable",
            Self::OtherFilesystem { .. } => "beside-on-other-filesystem",
            Self::DevicesWithoutBeside { .. } => "beside-missing",
            Self::Locked { .. } => "root-locked",
            Self::Mark { .. } | Self::MarkFormat { .. } => "mark-damaged",
        }
    }
}

/// May the directory beside the volumes be made?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    Existing,
    Create,
}

/// What a root's volumes are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RootKind {
    /// Directories and files of the root's file system, on which Drover's own directory lies, too.
    #[default]
    Files,
    /// Block devices by their names beneath `/dev`; what lies beside them is on some other file system.
    Devices,
}

/// One root, locked for this process.
#[derive(Debug)]
pub struct Root {
    path: PathBuf,
    kind: RootKind,
    root: Dir,
    beside: Dir,
    beside_path: PathBuf,
    claimed: Mutex<BTreeSet<VolumeId>>,
    _lock: File,
}

/// The right to be the one handle of a volume.
#[derive(Debug)]
pub(crate) struct Claim {
    root: Arc<Root>,
    id: VolumeId,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.root.claimed().remove(&self.id);
    }
}

/// The file beside a volume that names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    pub(crate) volume: VolumeId,
    pub(crate) path: RelPath,
    /// Inode of the volume's root: number, birth seconds, birth nanoseconds.
    pub(crate) root: (u64, i64, u32),
}

impl Mark {
    pub(crate) fn new(volume: VolumeId, path: RelPath, root: FileId) -> Self {
        Self { volume, path, root: (root.ino, root.born.secs, root.born.nanos) }
    }

    pub(crate) fn is_of(&self, root: FileId) -> bool {
        self.root == (root.ino, root.born.secs, root.born.nanos)
    }

    pub(crate) fn store(&self, dir: &Dir) -> io::Result<()> {
        record::replace(dir, b"mark", MARK, &serde_json::to_vec(self)?)
    }

    pub(crate) fn load(dir: &Dir, volume: VolumeId) -> Result<Option<Self>, BesideError> {
        let payload = record::load(dir, b"mark", MARK).map_err(|source| BesideError::Mark { volume, source })?;
        let Some((_, payload)) = payload else {
            return Ok(None);
        };
        serde_json::from_slice(&payload).map(Some).map_err(|source| BesideError::MarkFormat { volume, source })
    }
}

/// Makes a directory that may be there already, and opens it.
pub(crate) fn subdirectory(dir: &Dir, name: &[u8]) -> io::Result<Dir> {
    match dir.mkdir(name, 0o700) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    dir.open_beneath(name)
}

/// Moves what belongs to others, or could not be put back, to `foreign/` under a name that is free; returns the name.
pub(crate) fn keep_foreign(beside: &Dir, from: &Dir, name: &[u8], label: &str) -> io::Result<String> {
    const TRIES_MAX: u32 = 10_000;
    let foreign = subdirectory(beside, b"foreign")?;
    for attempt in 0..TRIES_MAX {
        let kept = if attempt == 0 { label.to_owned() } else { format!("{label}.{attempt}") };
        match from.rename_noreplace(name, &foreign, kept.as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => {
                result?;
                record::sync_dir(&foreign)?;
                return Ok(kept);
            }
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

impl Root {
    pub fn open(path: &Path, kind: RootKind, beside: Option<&Path>, how: Open) -> Result<Self, BesideError> {
        if kind == RootKind::Devices && beside.is_none() {
            return Err(BesideError::DevicesWithoutBeside { path: path.into() });
        }
        let root = Dir::open(path).map_err(|source| BesideError::Root { path: path.into(), source })?;
        let beside_path = beside.map_or_else(|| path.join(BESIDE_NAME), Path::to_path_buf);
        let io = |source| BesideError::Beside { path: beside_path.clone(), source };
        if how == Open::Create && !std::fs::exists(&beside_path).map_err(io)? {
            std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700)
                .create(&beside_path)
                .map_err(io)?;
            record::sync_dir(&root).map_err(io)?;
        }
        let beside = Dir::open(&beside_path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => BesideError::NoBeside { path: path.into() },
            _ => io(source),
        })?;
        if kind == RootKind::Files && root.stat_self().map_err(io)?.dev != beside.stat_self().map_err(io)?.dev {
            return Err(BesideError::OtherFilesystem { root: path.into(), beside: beside_path });
        }
        beside.chmod(b"", 0o700).map_err(io)?;
        let lock = open_or_create(&beside, b"lock").map_err(io)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                return Err(BesideError::Locked { path: path.into() });
            }
            Err(std::fs::TryLockError::Error(source)) => return Err(io(source)),
        }
        for name in ["volumes", "trash"] {
            subdirectory(&beside, name.as_bytes()).map_err(io)?;
        }
        // Made while there is space, for when there is none.
        open_or_create(&beside, b"clock").map_err(io)?;
        Ok(Self { path: path.into(), kind, root, beside, beside_path, claimed: Mutex::default(), _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn kind(&self) -> RootKind {
        self.kind
    }

    pub fn beside_path(&self) -> &Path {
        &self.beside_path
    }

    pub fn dir(&self) -> &Dir {
        &self.root
    }

    /// Volumes that have a mark here.
    pub fn volumes(&self) -> Result<Vec<VolumeId>, BesideError> {
        let io = |source| BesideError::Beside { path: self.beside_path.clone(), source };
        let names = self.volumes_dir().and_then(|dir| dir.list()).map_err(io)?;
        let ids = names.iter().filter_map(|(name, _)| std::str::from_utf8(name).ok()?.parse().ok());
        let mut volumes = Vec::new();
        for id in ids {
            match self.volume_dir(id).and_then(|dir| dir.stat(b"mark")) {
                Ok(_) => volumes.push(id),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(io(error)),
            }
        }
        volumes.sort_unstable();
        Ok(volumes)
    }

    pub(crate) fn images_dir(&self) -> io::Result<Dir> {
        self.beside.open_beneath(b"images")
    }

    pub(crate) fn image_dir(&self, id: VolumeId) -> io::Result<Dir> {
        self.images_dir()?.open_beneath(id.to_string().as_bytes())
    }

    /// The first one makes it.
    pub(crate) fn new_images_dir(&self) -> io::Result<Dir> {
        subdirectory(&self.beside, b"images")
    }

    pub(crate) fn create_image_dir(&self, id: VolumeId) -> io::Result<Dir> {
        let images = self.new_images_dir()?;
        let dir = subdirectory(&images, id.to_string().as_bytes())?;
        record::sync_dir(&images)?;
        record::sync_dir(&self.beside)?;
        Ok(dir)
    }

    /// To the trash, with its points; from then on the volume does not exist.
    pub fn retire_image_dir(&self, id: VolumeId) -> io::Result<()> {
        let trash = self.new_trash(id)?;
        let images = self.images_dir()?;
        images.rename_noreplace(id.to_string().as_bytes(), &trash, b"image")?;
        record::sync_dir(&trash)?;
        record::sync_dir(&self.trash()?)?;
        record::sync_dir(&images)
    }

    /// Copies of images in files that there may be.
    pub fn images(&self) -> Result<Vec<VolumeId>, BesideError> {
        let io = |source| BesideError::Beside { path: self.beside_path.join("images"), source };
        let names = match self.images_dir().and_then(|dir| dir.list()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            names => names.map_err(io)?,
        };
        let mut ids: Vec<_> =
            names.iter().filter_map(|(name, _)| std::str::from_utf8(name).ok()?.parse().ok()).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// Where one is beneath the root. `None`: it has no state, as when enabling it was interrupted.
    pub fn image_path(&self, id: VolumeId) -> Result<Option<RelPath>, crate::session::Failure> {
        crate::image::file::path_of(self, id)
    }

    /// No volume has the path, or lies above or beneath it, nor does Drover's own directory.
    pub fn check_free(&self, path: &RelPath) -> Result<(), crate::volume::VolumeError> {
        crate::volume::check_place(self, path)?;
        let storage = |volume| move |source| crate::volume::VolumeError::Storage { volume, source };
        // Of one that can't be understood nobody knows where it is; its root tells that.
        let images = self.images()?.into_iter().filter_map(|id| Some((id, self.image_path(id).ok()??)));
        let mut taken: Vec<_> = images.collect();
        for id in self.volumes()? {
            let dir = self.volume_dir(id).map_err(storage(id))?;
            taken.extend(Mark::load(&dir, id)?.map(|mark| (id, mark.path)));
        }
        let overlaps = |other: &RelPath| other.strip(path).is_some() || path.strip(other).is_some();
        match taken.into_iter().find(|(_, other)| overlaps(other)) {
            Some((other, _)) => Err(crate::volume::VolumeError::Taken { path: path.clone(), other }),
            None => Ok(()),
        }
    }

    pub(crate) fn volumes_dir(&self) -> io::Result<Dir> {
        self.beside.open_beneath(b"volumes")
    }

    /// A volume is held by one `Volume` at a time: a second one would carry out the same commit record beside the first.
    pub(crate) fn claim(self: &Arc<Self>, id: VolumeId) -> Option<Claim> {
        self.claimed().insert(id).then(|| Claim { root: Arc::clone(self), id })
    }

    fn claimed(&self) -> MutexGuard<'_, BTreeSet<VolumeId>> {
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn volume_dir(&self, id: VolumeId) -> io::Result<Dir> {
        self.volumes_dir()?.open_beneath(id.to_string().as_bytes())
    }

    pub(crate) fn create_volume_dir(&self, id: VolumeId) -> io::Result<Dir> {
        let volumes = self.volumes_dir()?;
        let dir = subdirectory(&volumes, id.to_string().as_bytes())?;
        record::sync_dir(&volumes)?;
        Ok(dir)
    }

    /// The name leads to the directory that is meant, and not to one that was made since.
    fn check_volume_dir(&self, id: VolumeId, meant: &Dir) -> io::Result<()> {
        if self.volume_dir(id)?.stat_self()?.id == meant.stat_self()?.id {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::NotFound, "the volume was disabled before"))
    }

    pub(crate) fn forget_volume_dir(&self, id: VolumeId, meant: &Dir) -> io::Result<()> {
        self.check_volume_dir(id, meant)?;
        let volumes = self.volumes_dir()?;
        // Without its mark the volume does not exist, however far removing the rest comes.
        record::remove(&self.volume_dir(id)?, b"mark")?;
        crate::stage::remove_tree(&volumes, id.to_string().as_bytes())?;
        record::sync_dir(&volumes)
    }

    /// Everything beside a volume goes to a directory of the trash; from then on the volume does not exist.
    pub(crate) fn retire_volume_dir(&self, id: VolumeId, meant: &Dir, trash: &Dir) -> io::Result<()> {
        self.check_volume_dir(id, meant)?;
        let volumes = self.volumes_dir()?;
        volumes.rename_noreplace(id.to_string().as_bytes(), trash, b"volume")?;
        record::sync_dir(trash)?;
        record::sync_dir(&volumes)
    }

    pub(crate) fn trash(&self) -> io::Result<Dir> {
        self.beside.open_beneath(b"trash")
    }

    /// The file system's own clock: what it stamps a file with that is written now.
    pub(crate) fn clock(&self) -> io::Result<Time> {
        let file = open_or_create(&self.beside, b"clock")?;
        drover_linux::file::touch(&file)?;
        Ok(drover_linux::file::stat(&file)?.mtime)
    }
}

fn open_or_create(dir: &Dir, name: &[u8]) -> io::Result<File> {
    match dir.open_write(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => dir.create_file(name, 0o600),
        result => result,
    }
}
