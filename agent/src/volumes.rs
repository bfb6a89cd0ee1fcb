//! The engine's volumes as this agent holds them: which roots are open, and which volumes were found beneath them. The
//! truth lies beside the volumes; this is only the list of open handles. All calls block.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
};

use drover_engine::{
    beside::{BesideError, Open, Root},
    error::Kind,
    id::VolumeId,
    volume::{Disposal, NewVolume, Recovery, Volume, VolumeError},
};

use crate::config::{Config, RootConfig};

#[derive(Debug, thiserror::Error)]
pub enum VolumesError {
    #[error("no volume {0} at this agent")]
    NoSuchVolume(VolumeId),
    #[error("volume {volume} can't be opened: {problem}")]
    Unopened { volume: VolumeId, problem: String },
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
    #[error(transparent)]
    Volume(#[from] VolumeError),
}

impl VolumesError {
    pub fn kind(&self) -> Kind {
        match self {
            Self::NoSuchVolume(_) => Kind::NotFound,
            Self::Unopened { .. } => Kind::Storage,
            Self::NoSuchRoot { .. } => Kind::Invalid,
            Self::OtherRoot { .. } => Kind::Exists,
            Self::Root { source, .. } => source.kind(),
            Self::Volume(error) => error.kind(),
        }
    }

    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoSuchVolume(_) => "no-such-volume",
            Self::Unopened { .. } => "volume-unusable",
            Self::NoSuchRoot { .. } => "no-such-root",
            Self::OtherRoot { .. } => "volume-on-other-root",
            Self::Root { source, .. } => source.reason(),
            Self::Volume(error) => error.reason(),
        }
    }
}

/// A volume and the name of its root.
#[derive(Debug)]
pub struct Held {
    pub root: String,
    pub volume: Volume,
}

/// What is wrong with a root, or with a volume that was found on it.
#[derive(Clone, Debug)]
struct Problem {
    root: String,
    volume: Option<VolumeId>,
    text: String,
}

#[derive(Debug, Default)]
struct Table {
    roots: BTreeMap<String, Arc<Root>>,
    volumes: BTreeMap<VolumeId, Arc<Held>>,
    problems: Vec<Problem>,
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
    table: RwLock<Table>,
}

impl Volumes {
    /// Opens every root and recovers every volume on it. One that fails keeps no other from working.
    pub fn open(config: &Config) -> Self {
        let mut table = Table::default();
        for root in &config.roots {
            table.open_root(root);
        }
        Self { configured: config.roots.clone(), table: RwLock::new(table) }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn get(&self, id: VolumeId) -> Result<Arc<Held>, VolumesError> {
        let table = self.read();
        if let Some(held) = table.volumes.get(&id) {
            return Ok(held.clone());
        }
        match table.problems.iter().find(|problem| problem.volume == Some(id)) {
            Some(problem) => Err(VolumesError::Unopened { volume: id, problem: problem.text.clone() }),
            None => Err(VolumesError::NoSuchVolume(id)),
        }
    }

    /// On every root; one that fails keeps no other from being purged.
    pub fn purge_trash(&self, keep_secs: i64) {
        let roots: Vec<_> = self.read().roots.iter().map(|(name, root)| (name.clone(), root.clone())).collect();
        for (name, root) in roots {
            match root.purge_trash(keep_secs) {
                Ok(purged) => {
                    purged.iter().for_each(|trash| tracing::info!(root = name, trash, "purged from the trash"))
                }
                Err(error) => {
                    tracing::warn!(root = name, error = &error as &dyn std::error::Error, "trash can't be purged");
                }
            }
        }
    }

    pub fn all(&self) -> Vec<Arc<Held>> {
        self.read().volumes.values().cloned().collect()
    }

    /// Idempotent: the same volume again is the volume as it is.
    pub fn enable(&self, root: &str, new: NewVolume) -> Result<Arc<Held>, VolumesError> {
        let mut table = self.write();
        if let Some(held) = table.volumes.get(&new.id)
            && held.root != root
        {
            return Err(VolumesError::OtherRoot { volume: new.id, root: held.root.clone() });
        }
        let hall = self.root(&mut table, root)?;
        let id = new.id;
        if let Some(held) = table.volumes.get(&id)
            && *held.volume.path() == new.path
            && held.volume.state().role == new.role
        {
            return Ok(held.clone());
        }
        let held = Arc::new(Held { root: root.to_owned(), volume: Volume::create(&hall, new)? });
        table.problems.retain(|problem| problem.volume != Some(id));
        table.volumes.insert(id, held.clone());
        Ok(held)
    }

    pub fn disable(&self, id: VolumeId, disposal: Disposal) -> Result<(), VolumesError> {
        let held = match self.get(id) {
            Ok(held) => held,
            // Done before.
            Err(VolumesError::NoSuchVolume(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        held.volume.disable(disposal)?;
        self.write().volumes.remove(&id);
        Ok(())
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
                .collect(),
            problems: table.problems.iter().filter(|p| p.root == root.name).map(|p| p.text.clone()).collect(),
        };
        self.configured.iter().map(view).collect()
    }

    /// The open root. The directory beside it is only made here, for the first volume: at start a root without one may
    /// be a mount point whose file system is missing.
    fn root(&self, table: &mut Table, name: &str) -> Result<Arc<Root>, VolumesError> {
        if let Some(root) = table.roots.get(name) {
            return Ok(root.clone());
        }
        let configured = self.configured.iter().find(|root| root.name == name).ok_or_else(|| {
            let known = self.configured.iter().map(|root| root.name.as_str()).collect::<Vec<_>>().join(", ");
            VolumesError::NoSuchRoot { name: name.to_owned(), known }
        })?;
        let root = Root::open(&configured.path, configured.beside.as_deref(), Open::Create)
            .map_err(|source| VolumesError::Root { root: name.to_owned(), source })?;
        let root = Arc::new(root);
        table.roots.insert(name.to_owned(), root.clone());
        table.problems.retain(|problem| problem.root != name);
        // The file system may have been mounted since the start, with volumes on it.
        table.open_volumes(name, &root);
        Ok(root)
    }
}

impl Table {
    fn open_root(&mut self, configured: &RootConfig) {
        match Root::open(&configured.path, configured.beside.as_deref(), Open::Existing) {
            Ok(root) => {
                let root = Arc::new(root);
                self.roots.insert(configured.name.clone(), root.clone());
                self.open_volumes(&configured.name, &root);
            }
            Err(BesideError::NoBeside { .. }) => {
                tracing::info!(root = configured.name, path = %configured.path.display(), "no volume on this root yet");
            }
            Err(error) => self.problem(&configured.name, None, &error),
        }
    }

    fn open_volumes(&mut self, name: &str, root: &Arc<Root>) {
        let ids = match root.volumes() {
            Ok(ids) => ids,
            Err(error) => return self.problem(name, None, &error),
        };
        for id in ids {
            match Volume::open(root, id) {
                Ok(volume) => {
                    tell(name, &volume);
                    self.volumes.insert(id, Arc::new(Held { root: name.to_owned(), volume }));
                }
                Err(error) => self.problem(name, Some(id), &error),
            }
        }
    }

    fn problem(&mut self, root: &str, volume: Option<VolumeId>, error: &(dyn std::error::Error + 'static)) {
        let text = crate::rpc::status::chain(error);
        match volume {
            Some(volume) => tracing::error!(root, %volume, "volume can't be opened: {text}"),
            None => tracing::error!(root, "root can't be opened: {text}"),
        }
        self.problems.push(Problem { root: root.to_owned(), volume, text });
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
