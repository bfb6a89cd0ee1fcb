//! A local side: a directory as a volume of its parent.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{DirBuilderExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use drover_engine::{
    beside::{BESIDE_NAME, Open, Root, RootKind},
    id::VolumeId,
    path::RelPath,
    point::{Role, VolumeKind},
    volume::{Disposal, NewVolume, Volume, VolumeError, Waiver},
};

use super::{CopyArgs, CopyError, place};

/// The index of a source lies here, one directory for each pair of source and destination, so that neither an agent of
/// the same root nor another copy is in the way.
const INDEX_NAME: &str = ".drover-copy";

/// A local directory, as a volume.
#[derive(Debug)]
pub(super) struct End {
    pub(super) volume: Volume,
    traces: Option<Traces>,
    /// DST holds something that Drover did not make, and a dry run looks at it.
    pub(super) needs_adoption: bool,
    pub(super) notes: Vec<String>,
}

/// What a dry run made and takes away again.
#[derive(Debug)]
struct Traces {
    /// Made for this volume; nothing else is in it.
    beside: Option<PathBuf>,
    tree: Option<PathBuf>,
}

/// Where a directory is, once all links in its path are followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    side: &'static str,
    pub(super) path: PathBuf,
    parent: PathBuf,
    name: RelPath,
    exists: bool,
}

impl Spot {
    pub(super) fn source(path: &Path) -> Result<Self, CopyError> {
        let resolved = fs::canonicalize(path).map_err(at("SRC", path))?;
        Self::new("SRC", resolved, true)
    }

    pub(super) fn destination(path: &Path) -> Result<Self, CopyError> {
        match fs::canonicalize(path) {
            Ok(resolved) => Self::new("DST", resolved, true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let Some(name) = path.file_name() else {
                    return Err(at("DST", path)(error));
                };
                let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
                let parent = fs::canonicalize(parent).map_err(at("parent directory of DST", parent))?;
                Self::new("DST", parent.join(name), false)
            }
            Err(error) => Err(at("DST", path)(error)),
        }
    }

    fn new(side: &'static str, path: PathBuf, exists: bool) -> Result<Self, CopyError> {
        let no_beside = || CopyError::NoBeside { side, path: path.clone() };
        let (parent, name) = path.parent().zip(path.file_name()).ok_or_else(no_beside)?;
        if exists {
            let metadata = fs::metadata(&path).map_err(at(side, &path))?;
            if !metadata.is_dir() {
                return Err(CopyError::NotADirectory { side, path });
            }
            if metadata.dev() != fs::metadata(parent).map_err(at(side, parent))?.dev() {
                return Err(no_beside());
            }
        }
        let invalid = |error| at(side, &path)(io::Error::new(io::ErrorKind::InvalidInput, error));
        let name = RelPath::new(name.as_bytes()).map_err(invalid)?;
        Ok(Self { side, parent: parent.to_owned(), name, exists, path })
    }

    pub(super) fn check_apart(&self, other: &Self) -> Result<(), CopyError> {
        if self.path.starts_with(&other.path) || other.path.starts_with(&self.path) {
            return Err(CopyError::Nested { src: self.path.clone(), dst: other.path.clone() });
        }
        Ok(())
    }

    fn volume_error(&self, source: VolumeError) -> CopyError {
        CopyError::Volume { side: self.side, path: self.path.clone(), source }
    }

    fn root(&self, beside: Option<&Path>) -> Result<Arc<Root>, CopyError> {
        let opened = Root::open(&self.parent, RootKind::Files, beside, Open::Create);
        opened.map(Arc::new).map_err(|source| CopyError::Beside { root: self.parent.clone(), source })
    }
}

fn at(side: &'static str, path: &Path) -> impl Fn(io::Error) -> CopyError {
    let path = path.to_owned();
    move |source| CopyError::Place { side, path: path.clone(), source }
}

fn new_volume(spot: &Spot, id: VolumeId, role: Role, args: &CopyArgs) -> NewVolume {
    let waive = if args.waive.is_empty() { Vec::new() } else { vec![Waiver::Capabilities] };
    NewVolume {
        id,
        kind: VolumeKind::Directory,
        path: spot.name.clone(),
        role,
        retain: args.retain,
        retain_secs: 0,
        peer: None,
        adopt: false,
        waive,
    }
}

impl End {
    pub(super) fn source(spot: &Spot, id: VolumeId, args: &CopyArgs) -> Result<Self, CopyError> {
        let home = spot.parent.join(INDEX_NAME);
        let beside = home.join(place::pair_name(&spot.path, id));
        let is_new = !beside.exists();
        make_private(&home).and_then(|()| make_private(&beside)).map_err(at("index of SRC in", &home))?;
        let root = spot.root(Some(&beside))?;
        let volume = Volume::create(&root, new_volume(spot, id, Role::Primary, args)).map_err(|error| match error {
            VolumeError::NotTheMarkedTree { .. } => {
                CopyError::SourceReplaced { path: spot.path.clone(), index: beside.clone() }
            }
            error => spot.volume_error(error),
        })?;
        let traces = (args.dry_run && is_new).then_some(Traces { beside: Some(beside), tree: None });
        Ok(Self { volume, traces, needs_adoption: false, notes: Vec::new() })
    }

    pub(super) fn destination(spot: &Spot, id: VolumeId, args: &CopyArgs) -> Result<Self, CopyError> {
        let beside = spot.parent.join(BESIDE_NAME);
        let beside_is_new = !beside.exists();
        let root = spot.root(None)?;
        let known = root.volumes().map_err(|source| CopyError::Beside { root: spot.parent.clone(), source })?;
        let mut notes = Vec::new();
        let is_new = !known.contains(&id);
        let needs_adoption = is_new && spot.exists && !args.adopt && !is_empty(&spot.path)?;
        if !is_new && !spot.exists && !args.dry_run {
            notes.push(set_aside(&beside, id).map_err(at("DST's state in", &beside))?);
        }
        let adopt = args.adopt || args.dry_run;
        let new = NewVolume { adopt, ..new_volume(spot, id, Role::Secondary, args) };
        let volume = match Volume::create(&root, new.clone()) {
            Err(VolumeError::NotTheMarkedTree { .. }) if args.adopt && !args.dry_run => {
                notes.push(set_aside(&beside, id).map_err(at("DST's state in", &beside))?);
                Volume::create(&root, new).map_err(|error| spot.volume_error(error))?
            }
            Err(VolumeError::NotTheMarkedTree { .. }) => {
                return Err(CopyError::DestinationReplaced { path: spot.path.clone() });
            }
            Err(VolumeError::NotEmpty { .. }) => {
                return Err(CopyError::NotAdopted { path: spot.path.clone() });
            }
            created => created.map_err(|error| spot.volume_error(error))?,
        };
        if !args.dry_run {
            prepare(&volume, args.retain).map_err(|error| spot.volume_error(error))?;
        }
        let traces = (args.dry_run && is_new).then(|| Traces {
            beside: beside_is_new.then_some(beside),
            tree: (!spot.exists).then(|| spot.path.clone()),
        });
        Ok(Self { volume, traces, needs_adoption, notes })
    }

    /// A dry run leaves nothing behind. What can't be removed is only litter.
    pub(super) fn close(self) {
        let Some(traces) = self.traces else { return };
        if let Err(error) = self.volume.disable(Disposal::Keep) {
            tracing::debug!(error = &error as &dyn std::error::Error, "a dry run's volume stays");
            return;
        }
        drop(self.volume);
        if let Some(tree) = traces.tree {
            let _ = fs::remove_dir(tree);
        }
        if let Some(beside) = traces.beside {
            remove_empty_beside(&beside);
        }
    }
}

/// SRC always wins: what does not descend from it is kept as a restore point and given up.
fn prepare(volume: &Volume, retain: u32) -> Result<(), VolumeError> {
    if volume.state().retain != retain {
        volume.configure(Some(retain), None, None)?;
    }
    if volume.state().current.is_some() { volume.request_resync() } else { Ok(()) }
}

fn is_empty(path: &Path) -> Result<bool, CopyError> {
    Ok(fs::read_dir(path).map_err(at("DST", path))?.next().is_none())
}

fn make_private(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// DST was removed or replaced by someone: the history that belonged to it waits in the trash.
fn set_aside(beside: &Path, id: VolumeId) -> io::Result<String> {
    let to = beside.join("trash").join(format!("{id}-{}", drover_linux::Time::now().secs));
    fs::rename(beside.join("volumes").join(id.to_string()), &to)?;
    Ok(format!("DST is not the directory that was copied before; its history waits in {}", to.display()))
}

/// Only what `Root::open` makes, and only while nothing else is in it.
fn remove_empty_beside(beside: &Path) {
    for name in ["volumes", "trash"] {
        let _ = fs::remove_dir(beside.join(name));
    }
    let left = fs::read_dir(beside).map(|left| left.flatten().any(|entry| entry.path().is_dir()));
    if matches!(left, Ok(false)) {
        for name in ["lock", "clock"] {
            let _ = fs::remove_file(beside.join(name));
        }
        let _ = fs::remove_dir(beside);
        // The home of sources' indexes, when this was its last.
        if let Some(home) = beside.parent().filter(|home| home.ends_with(INDEX_NAME)) {
            let _ = fs::remove_dir(home);
        }
    }
}
