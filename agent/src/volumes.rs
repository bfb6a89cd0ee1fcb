//! The engine's volumes as this agent holds them: which roots are open, and which volumes were found beneath them. The
//! truth lies beside the volumes; this is only the list of open handles. All calls block.

mod image_file;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, TryLockError},
    time::{Duration, Instant},
};

use drover_engine::{
    beside::{BesideError, Open, Root, RootKind},
    error::Kind,
    id::VolumeId,
    point::{VolumeKind, VolumeState},
    session::Failure,
    trash::RestoreError,
    volume::{Disposal, Freezer, NewVolume, Recovery, Shutter, Volume, VolumeError},
};

use tokio_util::sync::CancellationToken;

pub use drover_engine::trash::Trashed;
pub use image_file::{ImageFile, NewImageFile};

use crate::{
    config::{Config, RootConfig},
    rpc::status::chain,
    snapshot::CommandFreezer,
    work::{Lane, Lanes},
};

/// How soon a file system that was mounted, or a directory that was put back, is noticed.
const LOOK: Duration = Duration::from_secs(10);
/// How long a call waits for others that open or disable volumes.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum VolumesError {
    #[error("no volume {0} at this agent")]
    NoSuchVolume(VolumeId),
    #[error(
        "no volume {0} is open at this agent, and not all of its roots are: one may be on a file system that is not mounted"
    )]
    NotOpen(VolumeId),
    #[error("volume {volume} can't be opened")]
    Unopened {
        volume: VolumeId,
        #[source]
        source: Arc<VolumeError>,
    },
    #[error("no root {name:?} in the configuration; there are: {known}")]
    NoSuchRoot { name: String, known: String },
    #[error("volume {volume} is on root {root} already")]
    OtherRoot { volume: VolumeId, root: String },
    #[error("root {root}")]
    Root {
        root: String,
        #[source]
        source: BesideError,
    },
    #[error("volumes are being opened or disabled; try again")]
    Opening,
    #[error(transparent)]
    Volume(#[from] VolumeError),
    #[error(transparent)]
    Image(#[from] Failure),
    #[error(transparent)]
    Beside(#[from] BesideError),
    #[error(transparent)]
    Restore(#[from] RestoreError),
}

impl VolumesError {
    pub fn kind(&self) -> Kind {
        match self {
            Self::NoSuchVolume(_) | Self::NotOpen(_) => Kind::NotFound,
            Self::Unopened { source, .. } => source.kind(),
            Self::NoSuchRoot { .. } => Kind::Invalid,
            Self::OtherRoot { .. } => Kind::Exists,
            Self::Root { source, .. } => source.kind(),
            Self::Opening => Kind::Unavailable,
            Self::Volume(error) => error.kind(),
            Self::Image(failure) => failure.kind,
            Self::Beside(error) => error.kind(),
            Self::Restore(error) => error.kind(),
        }
    }

    pub fn reason(&self) -> &str {
        match self {
            Self::NoSuchVolume(_) => "no-such-volume",
            Self::NotOpen(_) => "volume-not-open",
            Self::Unopened { source, .. } => source.reason(),
            Self::NoSuchRoot { .. } => "no-such-root",
            Self::OtherRoot { .. } => "volume-on-other-root",
            Self::Root { source, .. } => source.reason(),
            Self::Opening => "volume-busy",
            Self::Volume(error) => error.reason(),
            Self::Image(failure) => &failure.reason,
            Self::Beside(error) => error.reason(),
            Self::Restore(error) => error.reason(),
        }
    }
}

/// A volume and the name of its root.
#[derive(Debug)]
pub struct Held {
    pub root: String,
    pub volume: Volume,
}

/// A volume that was found and can't be opened.
#[derive(Clone, Debug)]
struct Unopened {
    root: String,
    error: Arc<VolumeError>,
}

#[derive(Debug, Default)]
struct Table {
    roots: BTreeMap<String, Arc<Root>>,
    volumes: BTreeMap<VolumeId, Arc<Held>>,
    unopened: BTreeMap<VolumeId, Unopened>,
    /// Why roots can't be opened, by their name.
    problems: BTreeMap<String, String>,
    /// Copies of images in files.
    images: image_file::Images,
}

/// A root as Node.GetInfo shows it.
#[derive(Clone, Debug)]
pub struct RootView {
    pub name: String,
    pub path: PathBuf,
    /// None when it is not open: nothing was enabled on it yet, or `problems` says why.
    pub beside: Option<PathBuf>,
    pub volumes: Vec<VolumeId>,
    pub problems: Vec<String>,
}

#[derive(Debug)]
pub struct Volumes {
    configured: Vec<RootConfig>,
    shutter: Option<Arc<dyn Shutter>>,
    table: RwLock<Table>,
    /// Held by who opens roots or volumes: recovery is the work of one, and of minutes perhaps, so never under the lock
    /// of the table.
    opening: Mutex<()>,
}

impl Volumes {
    /// Opens every root and recovers every volume on it. One that fails keeps no other from working.
    pub fn open(config: &Config, shutter: Option<Arc<dyn Shutter>>) -> Self {
        let (configured, table) = (config.roots.clone(), RwLock::default());
        let volumes = Self { configured, shutter, table, opening: Mutex::default() };
        volumes.look_again();
        volumes
    }

    /// Opens what is not open: a file system may have been mounted since, or a directory put back.
    pub fn look_again(&self) {
        let _opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        for configured in &self.configured {
            let name = &configured.name;
            let open = self.read().roots.get(name).cloned();
            match open {
                Some(root) if self.read().problems.contains_key(name) => self.open_volumes(name, &root),
                Some(root) => {
                    self.unopened(name).into_iter().for_each(|id| self.open_volume(name, &root, id));
                    self.open_images(name, &root);
                }
                None => {
                    self.open_root(configured).into_iter().for_each(|root| self.open_volumes(name, &root));
                }
            }
        }
    }

    fn unopened(&self, root: &str) -> Vec<VolumeId> {
        self.read().unopened.iter().filter(|(_, it)| it.root == root).map(|(id, _)| *id).collect()
    }

    fn open_root(&self, configured: &RootConfig) -> Option<Arc<Root>> {
        let (name, path) = (&configured.name, configured.path.display());
        let problem = match Root::open(&configured.path, configured.kind, configured.beside.as_deref(), Open::Existing)
        {
            Ok(root) => {
                let root = Arc::new(root);
                let mut table = self.write();
                table.problems.remove(name);
                table.roots.insert(name.clone(), root.clone());
                return Some(root);
            }
            // No volume was enabled on it yet.
            Err(BesideError::NoBeside { .. }) => return None,
            Err(error) => chain(&error),
        };
        if self.write().problems.insert(name.clone(), problem.clone()).as_ref() != Some(&problem) {
            tracing::error!(root = name, %path, "root can't be opened: {problem}");
        }
        None
    }

    fn open_volumes(&self, name: &str, root: &Arc<Root>) {
        let ids = match root.volumes() {
            Ok(ids) => ids,
            Err(error) => {
                tracing::error!(root = name, "volumes can't be listed: {}", chain(&error));
                self.write().problems.insert(name.to_owned(), chain(&error));
                return;
            }
        };
        self.write().problems.remove(name);
        self.open_images(name, root);
        for id in ids {
            let held_on = self.read().volumes.get(&id).map(|held| held.root.clone());
            match held_on {
                None => self.open_volume(name, root, id),
                Some(other) if other != name => {
                    let problem = format!("volume {id} is here as well as on root {other}; this one is not used");
                    tracing::error!(root = name, "{problem}");
                    self.write().problems.insert(name.to_owned(), problem);
                }
                Some(_) => {}
            }
        }
    }

    /// What the configuration of its root says of a volume.
    fn configure(&self, root: &str, volume: &Volume) {
        let configured = self.configured.iter().find(|configured| configured.name == root);
        let snapshot = configured.and_then(|configured| configured.snapshot.clone());
        volume.set_shutter(self.shutter.clone());
        volume.set_freezer(snapshot.map(|snapshot| Arc::new(CommandFreezer(snapshot)) as Arc<dyn Freezer>));
    }

    fn open_volume(&self, name: &str, root: &Arc<Root>, id: VolumeId) {
        if self.read().images.knows(id) {
            let problem = format!("volume {id} is the copy of an image in a file as well; this one is not used");
            if self.write().problems.insert(name.to_owned(), problem.clone()).as_ref() != Some(&problem) {
                tracing::error!(root = name, "{problem}");
            }
            return;
        }
        match Volume::open(root, id) {
            Ok(volume) => {
                self.configure(name, &volume);
                tell(name, &volume);
                self.write().hold(name, volume);
            }
            // It has gone by another hand.
            Err(VolumeError::NotFound(_)) => drop(self.write().unopened.remove(&id)),
            Err(error) => {
                let text = chain(&error);
                let unopened = Unopened { root: name.to_owned(), error: Arc::new(error) };
                let before = self.write().unopened.insert(id, unopened);
                if before.is_none_or(|before| chain(&*before.error) != text) {
                    tracing::error!(root = name, volume = %id, "volume can't be opened: {text}");
                }
            }
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Open or not.
    pub fn knows(&self, id: VolumeId) -> bool {
        let table = self.read();
        table.volumes.contains_key(&id) || table.unopened.contains_key(&id) || table.images.knows(id)
    }

    pub fn get(&self, id: VolumeId) -> Result<Arc<Held>, VolumesError> {
        let table = self.read();
        if let Some(held) = table.volumes.get(&id) {
            return Ok(held.clone());
        }
        Err(match table.unopened.get(&id) {
            Some(unopened) => VolumesError::Unopened { volume: id, source: unopened.error.clone() },
            None => VolumesError::NoSuchVolume(id),
        })
    }

    /// As [`Volumes::get`], and says whether the volume may be on a root that is not open.
    pub fn get_surely(&self, id: VolumeId) -> Result<Arc<Held>, VolumesError> {
        match self.get(id) {
            Err(VolumesError::NoSuchVolume(_)) if !self.is_complete() => Err(VolumesError::NotOpen(id)),
            got => got,
        }
    }

    /// On every root; one that fails keeps no other from being purged.
    pub fn purge_trash(&self, keep_secs: i64) {
        let roots: Vec<_> = self.read().roots.iter().map(|(name, root)| (name.clone(), root.clone())).collect();
        for (name, root) in roots {
            // Nothing is put back while it is taken; what is taken already is nobody's.
            let taken = self.opening().map(|_opening| root.expire_trash(keep_secs));
            if let Ok(Err(error)) = taken {
                tracing::warn!(root = name, error = &error as &dyn std::error::Error, "trash can't be purged");
                continue;
            }
            match root.purge_trash() {
                Ok(purged) => {
                    purged.iter().for_each(|trash| tracing::info!(root = name, trash, "purged from the trash"))
                }
                Err(error) => {
                    tracing::warn!(root = name, error = &error as &dyn std::error::Error, "trash can't be purged");
                }
            }
        }
    }

    /// What waits in the trash of each root, or of one.
    pub fn trashed(&self, root: Option<&str>) -> Result<Vec<(String, Trashed)>, VolumesError> {
        root.map_or(Ok(()), |root| self.configured(root).map(drop))?;
        let roots: Vec<_> = self.read().roots.iter().map(|(name, root)| (name.clone(), root.clone())).collect();
        let mut found = Vec::new();
        for (name, hall) in roots.into_iter().filter(|(name, _)| root.is_none_or(|root| root == name)) {
            let trashed = hall.trashed().map_err(|source| VolumesError::Root { root: name.clone(), source })?;
            found.extend(trashed.into_iter().map(|trashed| (name.clone(), trashed)));
        }
        Ok(found)
    }

    /// A volume comes back as it was, with its points.
    pub fn restore_trashed(&self, name: &str) -> Result<VolumeId, VolumesError> {
        let _opening = self.opening()?;
        let known = self.trashed(None)?.into_iter().find(|(_, trashed)| trashed.name == name);
        if let Some((_, trashed)) = known.filter(|(_, trashed)| self.knows(trashed.volume)) {
            return Err(RestoreError::Exists(trashed.volume).into());
        }
        let roots: Vec<_> = self.read().roots.iter().map(|(name, root)| (name.clone(), root.clone())).collect();
        let mut failed = RestoreError::NoSuch(name.to_owned());
        for (root, hall) in roots {
            match hall.restore_trashed(name) {
                Ok(id) => {
                    self.open_volumes(&root, &hall);
                    return Ok(id);
                }
                Err(RestoreError::NoSuch(_)) => {}
                Err(error) => failed = error,
            }
        }
        Err(failed.into())
    }

    pub fn all(&self) -> Vec<Arc<Held>> {
        self.read().volumes.values().cloned().collect()
    }

    /// Idempotent: the same volume again is the volume as it is.
    pub fn enable(&self, root: &str, mut new: NewVolume) -> Result<Arc<Held>, VolumesError> {
        let _opening = self.opening()?;
        let hall = self.root(root)?;
        // Callers name a block volume; its root says what it is.
        if new.kind == VolumeKind::BlockFile && hall.kind() == RootKind::Devices {
            new.kind = VolumeKind::BlockDevice;
        }
        let (id, state) = (new.id, |held: &Held| held.volume.state());
        {
            let table = self.read();
            let other = table.volumes.get(&id).map(|held| &held.root);
            if table.images.knows(id) {
                let message = format!("volume {id} is the copy of an image in a file: disable it first");
                return Err(Failure { kind: Kind::Exists, reason: "volume-on-other-root".to_owned(), message }.into());
            }
            let other = other.or_else(|| table.unopened.get(&id).map(|unopened| &unopened.root));
            if let Some(other) = other.filter(|other| *other != root) {
                return Err(VolumesError::OtherRoot { volume: id, root: other.clone() });
            }
            // A held volume is never opened again: something may work on it.
            if let Some(held) = table.volumes.get(&id) {
                let (path, VolumeState { role, kind, .. }) = (held.volume.path().clone(), state(held));
                if path == new.path && role == new.role && kind == new.kind {
                    return Ok(held.clone());
                }
                return Err(VolumeError::Different { volume: id, path, role }.into());
            }
        }
        let volume = Volume::create(&hall, new)?;
        self.configure(root, &volume);
        Ok(self.write().hold(root, volume))
    }

    pub fn disable(&self, id: VolumeId, disposal: Disposal) -> Result<(), VolumesError> {
        let _opening = self.opening()?;
        let held = match self.get(id) {
            Ok(held) => held,
            // Done before, unless it is on a root that is not there.
            Err(VolumesError::NoSuchVolume(_)) if self.is_complete() => return Ok(()),
            Err(VolumesError::Unopened { .. }) if disposal == Disposal::Keep => match self.abandon(id)? {
                Some(held) => held,
                None => return Ok(()),
            },
            Err(error) => return Err(error),
        };
        let disabled = held.volume.disable(disposal);
        if held.volume.has_ended() {
            self.write().volumes.remove(&id);
        }
        Ok(disabled?)
    }

    fn is_complete(&self) -> bool {
        let table = self.read();
        self.configured.iter().all(|root| table.roots.contains_key(&root.name))
    }

    /// What lies beside a volume that can't be opened goes to the trash; one that can be after all is returned.
    fn abandon(&self, id: VolumeId) -> Result<Option<Arc<Held>>, VolumesError> {
        let unopened = self.read().unopened.get(&id).map(|unopened| unopened.root.clone());
        let name = unopened.ok_or(VolumesError::NoSuchVolume(id))?;
        let root = self.read().roots.get(&name).cloned().ok_or(VolumesError::NoSuchVolume(id))?;
        match Volume::abandon(&root, id)? {
            Some(volume) => Ok(Some(self.write().hold(&name, volume))),
            None => {
                self.write().unopened.remove(&id);
                Ok(None)
            }
        }
    }

    /// The right to open, create and disable. A caller is not kept waiting for a recovery of minutes on another root.
    fn opening(&self) -> Result<MutexGuard<'_, ()>, VolumesError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.opening.try_lock() {
                Ok(guard) => return Ok(guard),
                Err(TryLockError::Poisoned(poisoned)) => return Ok(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) if Instant::now() > deadline => return Err(VolumesError::Opening),
                Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    pub fn roots(&self) -> Vec<RootView> {
        let table = self.read();
        let view = |root: &RootConfig| RootView {
            name: root.name.clone(),
            path: root.path.clone(),
            beside: table.roots.get(&root.name).map(|open| open.beside_path().to_owned()),
            volumes: table
                .volumes
                .values()
                .filter(|held| held.root == root.name)
                .map(|held| held.volume.id())
                .chain(table.images.on(&root.name))
                .collect(),
            problems: table.problems_of(&root.name),
        };
        self.configured.iter().map(view).collect()
    }

    fn configured(&self, name: &str) -> Result<&RootConfig, VolumesError> {
        self.configured.iter().find(|root| root.name == name).ok_or_else(|| {
            let known = self.configured.iter().map(|root| root.name.as_str()).collect::<Vec<_>>().join(", ");
            VolumesError::NoSuchRoot { name: name.to_owned(), known }
        })
    }

    /// The open root. The directory beside it is only made here, for the first volume: at start a root without one may
    /// be a mount point whose file system is missing.
    fn root(&self, name: &str) -> Result<Arc<Root>, VolumesError> {
        if let Some(root) = self.read().roots.get(name) {
            return Ok(root.clone());
        }
        let configured = self.configured(name)?;
        let root = Root::open(&configured.path, configured.kind, configured.beside.as_deref(), Open::Create)
            .map_err(|source| VolumesError::Root { root: name.to_owned(), source })?;
        let root = Arc::new(root);
        self.write().roots.insert(name.to_owned(), root.clone());
        // The file system may have been mounted since the start, with volumes on it.
        self.open_volumes(name, &root);
        Ok(root)
    }
}

impl Table {
    fn hold(&mut self, root: &str, volume: Volume) -> Arc<Held> {
        let held = Arc::new(Held { root: root.to_owned(), volume });
        self.unopened.remove(&held.volume.id());
        self.volumes.insert(held.volume.id(), held.clone());
        held
    }

    fn problems_of(&self, root: &str) -> Vec<String> {
        let of_volume = |(id, it): (&VolumeId, &Unopened)| {
            (it.root == root).then(|| format!("volume {id} can't be opened: {}", chain(&*it.error)))
        };
        let of_volumes = self.unopened.iter().filter_map(of_volume).chain(self.images.problems_of(root));
        self.problems.get(root).cloned().into_iter().chain(of_volumes).collect()
    }
}

/// Looks again for what is not open, for as long as the agent runs.
pub async fn look_again_often(volumes: Arc<Volumes>, lanes: Arc<Lanes>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        let looking = volumes.clone();
        if let Err(panicked) = lanes.run(Lane::Opening, move || looking.look_again()).await {
            tracing::error!("roots were not looked at: {panicked}");
        }
    }
}

fn tell(root: &str, volume: &Volume) {
    let (id, path, role) = (volume.id(), volume.path(), volume.state().role);
    match volume.recovery() {
        Recovery::Clean => tracing::info!(volume = %id, root, %path, %role, "volume is open"),
        recovery @ Recovery::RolledForward { .. } => {
            tracing::warn!(volume = %id, root, %path, %role, "volume is open; an interrupted commit was {recovery}");
        }
        recovery @ Recovery::Undone { .. } => {
            tracing::error!(volume = %id, root, %path, %role, "volume is open; an interrupted commit was {recovery}");
        }
    }
}
