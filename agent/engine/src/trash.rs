//! What was deleted and waits: for somebody who wants it back, or until it goes for good.
//!
//! ```text
//! trash/<volume id>-<seconds>/
//!   volume    what lay beside the volume: it comes back as it was
//!   tree      its tree or file; not there for a device, nor where it stayed in its place
//!   image     of a copy of an image in a file, whose file stays in its place
//!   foreign   what was never the volume's; it is nobody's to put back
//! trash/gone-*                      on its way out
//! ```

use std::{io, sync::Arc};

use drover_linux::Dir;

use crate::{
    beside::{BesideError, Mark, Root, subdirectory},
    commit,
    error::Kind,
    fault,
    id::VolumeId,
    path::RelPath,
    point::{Role, VolumeKind, VolumeState},
    record::sync_dir,
    stage::{locate, remove_tree},
    volume::{VolumeError, unix_now},
};

const VOLUME: &[u8] = b"volume";
const TREE: &[u8] = b"tree";
const IMAGE: &[u8] = b"image";
const GONE: &str = "gone-";

/// Something in the trash of a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trashed {
    /// By which it is asked for.
    pub name: String,
    pub volume: VolumeId,
    /// Seconds since 1970.
    pub since: i64,
    /// What it was. `None`: it can't be put back, as what was never the volume's.
    pub was: Option<Was>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Was {
    /// Beneath the root.
    pub path: RelPath,
    pub role: Role,
    pub kind: VolumeKind,
    /// Otherwise it stayed in its place.
    pub has_tree: bool,
    /// How many points it has to go back to.
    pub points: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("there is no {0:?} in the trash")]
    NoSuch(String),
    #[error("{0:?} in the trash is no volume: it holds what others had written to one")]
    NoVolume(String),
    #[error("volume {0} is there, and was enabled anew: disable it first")]
    Exists(VolumeId),
    #[error("something is at {0} now: move it away first")]
    Occupied(RelPath),
    #[error("the directory above {0} is not there any more: make it first")]
    NoParent(RelPath),
    #[error("the directory above {0} is another one than before: what is in the trash can only be taken out by hand")]
    OtherParent(RelPath),
    #[error(transparent)]
    Volume(#[from] VolumeError),
    #[error(transparent)]
    Beside(#[from] BesideError),
    #[error("put {name:?} back")]
    Storage {
        name: String,
        #[source]
        source: io::Error,
    },
}

impl RestoreError {
    pub fn kind(&self) -> Kind {
        match self {
            Self::NoSuch(_) => Kind::NotFound,
            Self::NoVolume(_) | Self::Occupied(_) | Self::NoParent(_) | Self::OtherParent(_) => Kind::Precondition,
            Self::Exists(_) => Kind::Exists,
            Self::Volume(error) => error.kind(),
            Self::Beside(error) => error.kind(),
            Self::Storage { .. } => Kind::Storage,
        }
    }

    /// Stable, and documented.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoSuch(_) => "not-in-trash",
            Self::NoVolume(_) => "no-volume-in-trash",
            Self::Exists(_) => "volume-is-there",
            Self::Occupied(_) => "path-occupied",
            Self::NoParent(_) => "no-parent-directory",
            Self::OtherParent(_) => "other-parent-directory",
            Self::Volume(error) => error.reason(),
            Self::Beside(error) => error.reason(),
            Self::Storage { .. } => "io-error",
        }
    }
}

/// The volume, and since when.
fn parse(name: &str) -> Option<(VolumeId, i64)> {
    let (id, since) = name.rsplit_once('-')?;
    Some((id.parse().ok()?, since.parse().ok()?))
}

fn has(dir: &Dir, name: &[u8]) -> io::Result<bool> {
    match dir.stat(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        found => found.map(|_| true),
    }
}

impl Root {
    /// For something that is deleted now.
    pub(crate) fn new_trash(&self, id: VolumeId) -> io::Result<Dir> {
        subdirectory(&self.trash()?, format!("{id}-{}", unix_now()).as_bytes())
    }

    fn trash_error(&self, source: io::Error) -> BesideError {
        BesideError::Beside { path: self.beside_path().join("trash"), source }
    }

    /// Oldest first.
    pub fn trashed(&self) -> Result<Vec<Trashed>, BesideError> {
        let names = self.trash().and_then(|trash| trash.list()).map_err(|source| self.trash_error(source))?;
        let mut found = Vec::new();
        for (name, _) in names {
            let name = String::from_utf8_lossy(&name).into_owned();
            let Some((volume, since)) = parse(&name) else { continue };
            // One that goes in this instant, or whose state is damaged, hides no other.
            let was = self.was(&name, volume).unwrap_or_else(|error| {
                tracing::info!(trash = name, "what it was is not known: {error}");
                None
            });
            found.push(Trashed { name, volume, since, was });
        }
        found.sort_by(|one, other| (one.since, &one.name).cmp(&(other.since, &other.name)));
        Ok(found)
    }

    fn was(&self, name: &str, id: VolumeId) -> Result<Option<Was>, RestoreError> {
        let storage = |source| RestoreError::Storage { name: name.to_owned(), source };
        let trash = self.trash().and_then(|trash| trash.open_beneath(name.as_bytes())).map_err(storage)?;
        let of = |state: VolumeState, path, has_tree| Was {
            path,
            role: state.role,
            kind: state.kind,
            has_tree,
            points: state.restorable.len(),
        };
        if has(&trash, VOLUME).map_err(storage)? {
            let dir = trash.open_beneath(VOLUME).map_err(storage)?;
            let Some(mark) = Mark::load(&dir, id)? else { return Ok(None) };
            let state = commit::load_state(&dir).map_err(|source| VolumeError::State { volume: id, source })?;
            let has_tree = has(&trash, TREE).map_err(storage)?;
            return Ok(state.map(|state| of(state, mark.path, has_tree)));
        }
        if has(&trash, IMAGE).map_err(storage)? {
            let dir = trash.open_beneath(IMAGE).map_err(storage)?;
            let state = crate::image::file::load(&dir).map_err(|error| storage(io::Error::other(error)))?;
            return Ok(state.map(|state| of(state.clone(), state.path, false)));
        }
        Ok(None)
    }

    /// What an interrupted enable has left, and is no volume, goes.
    fn is_taken(&self, id: VolumeId, name: &str) -> Result<bool, RestoreError> {
        let storage = |source| RestoreError::Storage { name: name.to_owned(), source };
        let is_there = |found: io::Result<Dir>| match found {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            found => found.map(Some),
        };
        if let Some(dir) = is_there(self.volume_dir(id)).map_err(storage)? {
            if Mark::load(&dir, id)?.is_some() {
                return Ok(true);
            }
            self.volumes_dir().and_then(|dir| remove_tree(&dir, id.to_string().as_bytes())).map_err(storage)?;
        }
        if let Some(dir) = is_there(self.image_dir(id)).map_err(storage)? {
            if has(&dir, b"state").map_err(storage)? {
                return Ok(true);
            }
            self.images_dir().and_then(|dir| remove_tree(&dir, id.to_string().as_bytes())).map_err(storage)?;
        }
        Ok(false)
    }

    /// Puts a volume back as it was: its tree first, so that the volume never is without it. Interrupted, it is done again. The volume is not opened.
    pub fn restore_trashed(self: &Arc<Self>, name: &str) -> Result<VolumeId, RestoreError> {
        let storage = |source| RestoreError::Storage { name: name.to_owned(), source };
        let no_such = || RestoreError::NoSuch(name.to_owned());
        let (id, _) = parse(name).ok_or_else(no_such)?;
        let all = self.trash().map_err(storage)?;
        let trash = match all.open_beneath(name.as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(no_such()),
            trash => trash.map_err(storage)?,
        };
        let was = self.was(name, id)?.ok_or_else(|| RestoreError::NoVolume(name.to_owned()))?;
        if self.is_taken(id, name)? {
            return Err(RestoreError::Exists(id));
        }
        self.check_free(&was.path)?;
        if was.has_tree {
            let (parent, last) = match locate(self.dir(), &was.path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(RestoreError::NoParent(was.path)),
                located => located.map_err(storage)?,
            };
            // A file is known by the directory that it lies in.
            let is_file = was.kind == VolumeKind::BlockFile;
            let mark = trash.open_beneath(VOLUME).map_err(storage).and_then(|dir| Ok(Mark::load(&dir, id)?))?;
            let above = parent.stat_self().map_err(storage)?.id;
            if is_file && mark.is_some_and(|mark| !mark.is_of(above)) {
                return Err(RestoreError::OtherParent(was.path));
            }
            match trash.rename_noreplace(TREE, &parent, &last) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    return Err(RestoreError::Occupied(was.path));
                }
                renamed => renamed.map_err(storage)?,
            }
            sync_dir(&parent).and_then(|()| sync_dir(&trash)).map_err(storage)?;
            fault::hit("trash.tree").map_err(storage)?;
        }
        let is_volume = has(&trash, VOLUME).map_err(storage)?;
        if is_volume && was.kind == VolumeKind::BlockDevice {
            // Others may have used it since: it is blank for nobody any more.
            let dir = trash.open_beneath(VOLUME).map_err(storage)?;
            let state = commit::load_state(&dir).map_err(|source| VolumeError::State { volume: id, source })?;
            if let Some(state) = state.filter(|state| state.blank || state.first_copy_begun) {
                let state = VolumeState { blank: false, first_copy_begun: false, ..state };
                commit::store_state(&dir, &state).map_err(storage)?;
            }
        }
        let place = if is_volume { self.volumes_dir() } else { self.new_images_dir() };
        let (place, what) = (place.map_err(storage)?, if is_volume { VOLUME } else { IMAGE });
        trash.rename_noreplace(what, &place, id.to_string().as_bytes()).map_err(storage)?;
        sync_dir(&place).and_then(|()| sync_dir(&trash)).map_err(storage)?;
        fault::hit("trash.volume").map_err(storage)?;
        // What was never the volume's stays until it is purged.
        match all.rmdir(name.as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            removed => removed.map_err(storage)?,
        }
        Ok(id)
    }

    /// What has been in the trash for longer than `keep_secs` is on its way out from here on. Not while something is put back.
    pub fn expire_trash(&self, keep_secs: i64) -> Result<(), BesideError> {
        let failed = |source| self.trash_error(source);
        let trash = self.trash().map_err(failed)?;
        let before = unix_now() - keep_secs;
        for (name, _) in trash.list().map_err(failed)? {
            let name = String::from_utf8_lossy(&name).into_owned();
            if parse(&name).is_some_and(|(_, since)| since < before) {
                let gone = format!("{GONE}{name}");
                trash.rename_noreplace(name.as_bytes(), &trash, gone.as_bytes()).map_err(failed)?;
            }
        }
        sync_dir(&trash).map_err(failed)
    }

    /// Deletes what is on its way out; returns the names that went.
    pub fn purge_trash(&self) -> Result<Vec<String>, BesideError> {
        let failed = |source| self.trash_error(source);
        let trash = self.trash().map_err(failed)?;
        let mut purged = Vec::new();
        for (name, _) in trash.list().map_err(failed)? {
            if let Some(gone) = std::str::from_utf8(&name).ok().and_then(|name| name.strip_prefix(GONE)) {
                remove_tree(&trash, &name).map_err(failed)?;
                purged.push(gone.to_owned());
            }
        }
        Ok(purged)
    }
}
