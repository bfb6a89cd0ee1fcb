//! Copies of images in files: `drover_engine::image::file`.

use std::{
    collections::BTreeMap,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use drover_engine::{
    beside::{Root, RootKind},
    error::Kind,
    id::VolumeId,
    image::{ImageCopy as _, file::FileCopy, verbs},
    path::RelPath,
    point::{Role, VolumeKind, VolumeState},
    session::Failure,
};

use super::{Volumes, VolumesError};
use crate::rpc::status::chain;

/// For another verb or sync of the same volume.
const PATIENCE: Duration = Duration::from_secs(20);

/// One verb, sync or verification at a time.
#[derive(Debug, Default)]
struct Turn {
    is_held: Mutex<bool>,
    freed: Condvar,
}

impl Turn {
    fn lock(&self) -> MutexGuard<'_, bool> {
        self.is_held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Held<'a>(&'a Turn);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        *self.0.lock() = false;
        self.0.freed.notify_one();
    }
}

/// One that is there. No other process works on its root.
#[derive(Clone, Debug)]
pub struct ImageFile {
    pub id: VolumeId,
    /// Name of its root.
    pub root: String,
    open: Arc<Root>,
    turn: Arc<Turn>,
}

/// What was found beneath the roots.
#[derive(Debug, Default)]
pub(super) struct Images {
    usable: BTreeMap<VolumeId, ImageFile>,
    /// With the name of the root, and why not.
    unusable: BTreeMap<VolumeId, (String, Failure)>,
    /// Those that are on another root as well, by the name of the root where they are not used.
    elsewhere: BTreeMap<(String, VolumeId), Failure>,
}

impl Images {
    pub(super) fn knows(&self, id: VolumeId) -> bool {
        self.usable.contains_key(&id) || self.unusable.contains_key(&id)
    }

    pub(super) fn on<'a>(&'a self, root: &'a str) -> impl Iterator<Item = VolumeId> + 'a {
        self.usable.values().filter(move |image| image.root == root).map(|image| image.id)
    }

    pub(super) fn problems_of<'a>(&'a self, root: &'a str) -> impl Iterator<Item = String> + 'a {
        let of_root =
            self.unusable.iter().filter(move |(_, (on, _))| on == root).map(|(id, (_, failure))| (id, failure));
        let twice =
            self.elsewhere.iter().filter(move |((on, _), _)| on == root).map(|((_, id), failure)| (id, failure));
        of_root.chain(twice).map(|(id, failure)| format!("volume {id} can't be used: {}", failure.message))
    }
}

/// What Enable says of one.
#[derive(Clone, Debug)]
pub struct NewImageFile {
    pub id: VolumeId,
    pub root: String,
    pub path: RelPath,
    pub peer: Option<String>,
    pub role: Role,
    /// `None`: as it is, or by default.
    pub retain: Option<u32>,
    pub retain_secs: Option<u64>,
    pub adopt: bool,
}

impl ImageFile {
    /// Nothing else of this agent is done with it meanwhile.
    pub fn with<T, E: From<Failure>>(&self, what: impl FnOnce(&FileCopy) -> Result<T, E>) -> Result<T, E> {
        let _held = self.hold()?;
        what(&self.copy()?)
    }

    fn hold(&self) -> Result<Held<'_>, Failure> {
        let waited = self.turn.freed.wait_timeout_while(self.turn.lock(), PATIENCE, |is_held| *is_held);
        let (mut is_held, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if *is_held {
            return Err(Failure {
                kind: Kind::Conflict,
                reason: "image-in-verb".to_owned(),
                message: format!("this agent is in the middle of a verb, sync or verification of volume {}", self.id),
            });
        }
        *is_held = true;
        drop(is_held);
        Ok(Held(&self.turn))
    }

    fn copy(&self) -> Result<FileCopy, Failure> {
        FileCopy::open(&self.open, self.id)?.ok_or_else(|| Failure {
            kind: Kind::NotFound,
            reason: "no-such-volume".to_owned(),
            message: format!("volume {} was disabled", self.id),
        })
    }

    /// Also while something is done with it.
    pub fn state(&self) -> Result<VolumeState, Failure> {
        // Before the state is read: a promotion that has ended by then has said so there.
        let is_held = *self.turn.lock();
        let mut state = self.copy()?.state()?;
        // One that was interrupted has no turn any more.
        state.promoting &= is_held;
        Ok(state)
    }
}

impl Volumes {
    /// `None`: there is no such volume.
    pub fn image_file(&self, id: VolumeId) -> Result<Option<ImageFile>, VolumesError> {
        let table = self.read();
        match (table.images.usable.get(&id), table.images.unusable.get(&id)) {
            (Some(image), _) => Ok(Some(image.clone())),
            (None, Some((_, failure))) => Err(failure.clone().into()),
            (None, None) => Ok(None),
        }
    }

    pub fn image_files(&self) -> Vec<ImageFile> {
        self.read().images.usable.values().cloned().collect()
    }

    /// Those that are not known yet.
    pub(super) fn open_images(&self, name: &str, root: &Arc<Root>) {
        let ids = match root.images() {
            Ok(ids) => ids,
            Err(error) => return tracing::error!(root = name, "images in files can't be listed: {}", chain(&error)),
        };
        // What was removed by hand is no problem any more.
        self.write().images.unusable.retain(|id, (on, _)| on != name || ids.contains(id));
        for id in ids {
            let (held_on, is_volume) = {
                let table = self.read();
                (table.images.usable.get(&id).map(|image| image.root.clone()), table.volumes.contains_key(&id))
            };
            let twice = |other: &str| Failure {
                kind: Kind::Precondition,
                reason: "volume-on-other-root".to_owned(),
                message: format!("it is {other} as well, and this one is not used"),
            };
            let found = match held_on {
                Some(on) if on == name => continue,
                Some(other) => Err(twice(&format!("on root {other}"))),
                None if is_volume => Err(twice("a directory, file or device")),
                None => match root.image_path(id) {
                    Ok(Some(_)) => Ok(()),
                    // Enabling it was interrupted, or it was disabled in this instant.
                    Ok(None) => continue,
                    Err(failure) => Err(failure),
                },
            };
            match found {
                Ok(()) => drop(self.hold_image(id, name, root)),
                Err(failure) => {
                    let (mut table, message) = (self.write(), failure.message.clone());
                    let is_used = table.images.usable.contains_key(&id);
                    let before = match is_used {
                        // Of the other one its root tells.
                        true => table.images.elsewhere.insert((name.to_owned(), id), failure),
                        false => table.images.unusable.insert(id, (name.to_owned(), failure)).map(|(_, before)| before),
                    };
                    if before.is_none_or(|before| before.message != message) {
                        tracing::error!(root = name, volume = %id, "an image in a file can't be used: {message}");
                    }
                }
            }
        }
    }

    fn hold_image(&self, id: VolumeId, name: &str, root: &Arc<Root>) -> ImageFile {
        let mut table = self.write();
        table.images.unusable.remove(&id);
        let new = || ImageFile { id, root: name.to_owned(), open: root.clone(), turn: Arc::default() };
        table.images.usable.entry(id).or_insert_with(new).clone()
    }

    /// Of one that is there already what the call names is set.
    pub fn enable_image_file(
        &self,
        new: NewImageFile,
        retain: u32,
        retain_secs: u64,
    ) -> Result<ImageFile, VolumesError> {
        let refused = |kind, reason: &str, message: String| {
            VolumesError::from(Failure { kind, reason: reason.to_owned(), message })
        };
        let id = new.id;
        if let Some(image) = self.image_file(id)? {
            if image.root != new.root {
                return Err(VolumesError::OtherRoot { volume: id, root: image.root });
            }
            image.with(|copy| -> Result<(), VolumesError> {
                let mut state = copy.state()?;
                if (&state.path, state.role) != (&new.path, new.role) {
                    let message = format!("volume {id} is here as {} at {}", state.role, state.path);
                    return Err(refused(Kind::Precondition, "volume-differs", message));
                }
                state.retain = new.retain.unwrap_or(state.retain);
                state.retain_secs = new.retain_secs.unwrap_or(state.retain_secs);
                state.peer = new.peer.or(state.peer);
                Ok(copy.set_state(&state)?)
            })?;
            return Ok(image);
        }
        let root = {
            let _opening = self.opening()?;
            self.root(&new.root)?
        };
        if root.kind() == RootKind::Devices {
            let message = "an image in a file lies beneath a root for files".to_owned();
            return Err(refused(Kind::Invalid, "unsuitable-path", message));
        }
        root.check_free(&new.path)?;
        let mut state = VolumeState::new(id, new.path.clone(), new.role, new.retain.unwrap_or(retain));
        state.kind = VolumeKind::BlockFile;
        state.retain_secs = new.retain_secs.unwrap_or(retain_secs);
        (state.peer, state.blank) = (new.peer, new.role == Role::Secondary);
        let copy = FileCopy::create(&root, id, &new.path)?;
        // Which may read the whole file: nobody else is kept from enabling others meanwhile.
        copy.begin(&state, new.adopt)?;
        let _opening = self.opening()?;
        if self.knows(id) {
            return Err(refused(Kind::Exists, "volume-on-other-root", format!("volume {id} is here already")));
        }
        root.check_free(&new.path)?;
        copy.set_state(&state)?;
        Ok(self.hold_image(id, &new.root, &root))
    }

    /// The file stays; what is beside it goes to the trash, with the points.
    pub fn disable_image_file(&self, image: &ImageFile) -> Result<(), VolumesError> {
        image.with(|copy| {
            if copy.state()?.role == Role::Secondary {
                verbs::retire(copy)?;
            }
            let _opening = self.opening()?;
            image.open.retire_image_dir(image.id).map_err(|error| Failure {
                kind: Kind::Storage,
                reason: "io-error".to_owned(),
                message: format!("move what lies beside the volume to the trash: {error}"),
            })?;
            self.write().images.usable.remove(&image.id);
            Ok(())
        })
    }
}
