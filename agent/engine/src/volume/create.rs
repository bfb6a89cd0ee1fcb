//! Enabling and disabling.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
};

use drover_linux::{Dir, Kind, WINDOW_NAME, privileges};
use serde::{Deserialize, Serialize};

use super::{Volume, VolumeError, device};
use crate::{
    beside::{Mark, Root, RootKind},
    commit,
    error::Kind as ErrorKind,
    id::VolumeId,
    path::RelPath,
    point::{Role, VolumeKind, VolumeState},
    stage::locate,
};

/// What a user declares not to need, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Waiver {
    /// The device has nothing that tells it from others: its name is certain to lead to it.
    DeviceIdentity,
    /// This process may lack capabilities; what it can't set fails the sync that needs it.
    Capabilities,
}

#[derive(Clone, Debug)]
pub struct NewVolume {
    pub id: VolumeId,
    pub kind: VolumeKind,
    /// Of the directory or of the file.
    pub path: RelPath,
    pub role: Role,
    pub retain: u32,
    /// Younger restore points are kept besides.
    pub retain_secs: u64,
    pub peer: Option<String>,
    /// A secondary may hold something already: it is compared by digests and kept as a restore point.
    pub adopt: bool,
    pub waive: Vec<Waiver>,
}

/// What becomes of a volume that is disabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposal {
    /// The tree stays as it is; history and state go.
    Keep,
    /// Tree, history and state wait in the trash; a device itself stays.
    Trash,
}

impl Volume {
    /// Enables a volume. The same id with the same path and role again is the same volume.
    pub fn create(root: &Arc<Root>, new: NewVolume) -> Result<Self, VolumeError> {
        let storage = |source| VolumeError::Storage { volume: new.id, source };
        for other in root.volumes()? {
            let dir = root.volume_dir(other).map_err(storage)?;
            let Some(mark) = Mark::load(&dir, other)? else {
                continue;
            };
            if other == new.id {
                return Self::same(root, new, mark);
            }
        }
        root.check_free(&new.path)?;
        check_suitable(root, &new)?;
        let beneath = open_tree(root, &new)?;
        let live = super::open_live(root.dir(), new.kind, &new.path)?;
        let mut state = VolumeState::new(new.id, new.path.clone(), new.role, new.retain);
        match new.kind {
            VolumeKind::Directory => {}
            VolumeKind::BlockFile => check_image(&live, &new)?,
            VolumeKind::BlockDevice => {
                state.device = device::identity(&live, &new.path)?;
                if state.device.is_none() && !new.waive.contains(&Waiver::DeviceIdentity) {
                    return Err(VolumeError::NoIdentity { path: new.path });
                }
                device::check_new(&live, &new)?;
            }
        }
        let is_device = new.kind == VolumeKind::BlockDevice;
        if !is_device && new.role == Role::Secondary && !new.adopt && !is_empty(&live).map_err(storage)? {
            return Err(VolumeError::NotEmpty { path: new.path });
        }
        if let (Some(device), Some(other)) = (&state.device, of_device(root, state.device.as_deref())?) {
            tracing::warn!(%device, %other, "a device is a volume already, under another name");
            return Err(VolumeError::Taken { path: new.path, other });
        }
        let beside = root.create_volume_dir(new.id).map_err(storage)?;
        if !is_device {
            let proved = prove_renames(&beside, &beneath);
            proved.map_err(|source| VolumeError::NoRename { path: new.path.clone(), source })?;
        }
        state.kind = new.kind;
        state.retain_secs = new.retain_secs;
        state.peer = new.peer;
        state.blank = is_device && new.role == Role::Secondary && !new.adopt;
        commit::store_state(&beside, &state).map_err(storage)?;
        // The mark comes last: a volume without one does not exist.
        Mark::new(new.id, new.path, live.stat_self().map_err(storage)?.id).store(&beside).map_err(storage)?;
        Self::open(root, new.id)
    }

    /// Compared before it is opened, which would recover it.
    fn same(root: &Arc<Root>, new: NewVolume, mark: Mark) -> Result<Self, VolumeError> {
        let storage = |source| VolumeError::Storage { volume: new.id, source };
        let dir = root.volume_dir(new.id).map_err(storage)?;
        let state = commit::load_state(&dir).map_err(|source| VolumeError::State { volume: new.id, source })?;
        if let Some(VolumeState { role, kind, .. }) = state
            && (mark.path != new.path || role != new.role || kind != new.kind)
        {
            return Err(VolumeError::Different { volume: new.id, path: mark.path, role });
        }
        Self::open(root, new.id)
    }

    /// Ends the protection of this copy.
    pub fn disable(&self, disposal: Disposal) -> Result<(), VolumeError> {
        let _occupied = self.occupy("disable")?;
        self.finish_interrupted()?;
        let storage = |source| VolumeError::Storage { volume: self.id(), source };
        match disposal {
            Disposal::Trash if self.state().role == Role::Primary => Err(VolumeError::PrimaryCantBeTrashed(self.id())),
            Disposal::Trash => {
                // By its path, which may lead elsewhere by now.
                self.check_tree()?;
                self.move_to_trash().map_err(storage)
            }
            Disposal::Keep => self.forget().map_err(storage),
        }
    }

    /// Ends the protection of a copy that can't be opened because its tree is not there any more or its state is damaged:
    /// all that lies beside it goes to the trash, and whatever is at its path stays as it is. Any other failure is told:
    /// the tree may be whole. Returns the volume when it can be opened after all.
    pub fn abandon(root: &Arc<Root>, id: VolumeId) -> Result<Option<Self>, VolumeError> {
        let why = match Self::open(root, id) {
            Ok(volume) => return Ok(Some(volume)),
            Err(why) => why,
        };
        let is_lost = match &why {
            VolumeError::NotTheMarkedTree { .. } | VolumeError::OtherDevice { .. } => true,
            VolumeError::Tree { source, .. } => source.kind() == io::ErrorKind::NotFound,
            other => other.kind() == ErrorKind::DataLoss,
        };
        if !is_lost {
            return Err(why);
        }
        let storage = |source| VolumeError::Storage { volume: id, source };
        let beside = root.volume_dir(id).map_err(storage)?;
        match beside.stat(b"commit") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(storage(error)),
            Ok(_) => {
                let beside = root.beside_path().join("volumes").join(id.to_string());
                return Err(VolumeError::CommitOpen { volume: id, beside: beside.display().to_string() });
            }
        }
        root.new_trash(id).and_then(|trash| root.retire_volume_dir(id, &beside, &trash)).map_err(storage)?;
        Ok(None)
    }

    /// The volume first: should the tree stay behind in a crash, it is an ordinary directory.
    fn move_to_trash(&self) -> io::Result<()> {
        let trash = self.root().new_trash(self.id())?;
        let parent_of = || locate(self.root().dir(), self.path());
        let is_device = self.state().kind == VolumeKind::BlockDevice;
        let tree = if is_device { None } else { Some(parent_of()?) };
        self.ended.store(true, Ordering::SeqCst);
        self.end_scrub();
        self.root().retire_volume_dir(self.id(), self.beside(), &trash)?;
        // A device stays where it is.
        let Some((parent, tree)) = tree else { return crate::record::sync_dir(&trash) };
        match parent.rename_noreplace(&tree, &trash, b"tree") {
            // A block file that was never synced, or was deleted.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            renamed => renamed?,
        }
        crate::record::sync_dir(&trash)?;
        crate::record::sync_dir(&parent)
    }

    fn forget(&self) -> io::Result<()> {
        // It may hold the last copy of something that is not ours.
        if self.beside().stat(b"foreign").is_ok() {
            let trash = self.root().new_trash(self.id())?;
            self.beside().rename_noreplace(b"foreign", &trash, b"foreign")?;
            crate::record::sync_dir(&trash)?;
        }
        self.ended.store(true, Ordering::SeqCst);
        self.end_scrub();
        self.root().forget_volume_dir(self.id(), self.beside())
    }
}

fn check_suitable(root: &Root, new: &NewVolume) -> Result<(), VolumeError> {
    let path = || new.path.clone();
    if (new.kind == VolumeKind::BlockDevice) != (root.kind() == RootKind::Devices) {
        let problem = match root.kind() {
            RootKind::Devices => "its root is for block devices: enable it with --kind block-file",
            RootKind::Files => {
                "its root is for directories and files; block devices need a root with kind = \"devices\""
            }
        };
        return Err(VolumeError::Unsuitable { path: path(), problem });
    }
    let waived = new.waive.contains(&Waiver::Capabilities);
    let missing = privileges::missing().map_err(|source| VolumeError::Storage { volume: new.id, source })?;
    if new.role == Role::Secondary && !waived && !missing.is_empty() {
        return Err(VolumeError::MissingCapabilities { missing: missing.join(", ") });
    }
    Ok(())
}

fn os(path: &RelPath) -> &std::ffi::OsStr {
    std::os::unix::ffi::OsStrExt::from_bytes(path.as_bytes())
}

/// A primary's image must be there; a secondary's may be.
fn check_image(live: &Dir, new: &NewVolume) -> Result<(), VolumeError> {
    match live.stat(WINDOW_NAME) {
        Ok(stat) if stat.kind == Kind::File && stat.nlink == 1 => Ok(()),
        Ok(stat) if stat.kind == Kind::File => Err(VolumeError::Unsuitable {
            path: new.path.clone(),
            problem: "the file has further names (hard links), which would part from it when it is replaced",
        }),
        Ok(_) => Err(VolumeError::Unsuitable { path: new.path.clone(), problem: "it is not a regular file" }),
        Err(error) if error.kind() == io::ErrorKind::NotFound && new.role == Role::Secondary => Ok(()),
        Err(source) => Err(VolumeError::Tree { path: new.path.clone(), source }),
    }
}

/// The volume of the root that is this device under whatever name, the disk that it is a partition of, or a partition of it.
fn of_device(root: &Root, identity: Option<&str>) -> Result<Option<VolumeId>, VolumeError> {
    let Some(identity) = identity else { return Ok(None) };
    let overlaps = |one: &str, other: &str| one == other || one.starts_with(&format!("{other} partition "));
    for id in root.volumes()? {
        let dir = root.volume_dir(id).map_err(|source| VolumeError::Storage { volume: id, source })?;
        let state = commit::load_state(&dir).map_err(|source| VolumeError::State { volume: id, source })?;
        if let Some(known) = state.and_then(|state| state.device)
            && (overlaps(identity, &known) || overlaps(&known, identity))
        {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

/// The volume's directory, or the one that its file is in; a secondary's is made when it is missing.
fn open_tree(root: &Root, new: &NewVolume) -> Result<Dir, VolumeError> {
    let tree = |source| VolumeError::Tree { path: new.path.clone(), source };
    let path = match (new.kind, new.path.split()) {
        // Names in /dev may lead through symlinks; the device is opened by its window.
        (VolumeKind::BlockDevice, _) => return root.dir().try_clone().map_err(tree),
        (VolumeKind::BlockFile, Some((parent, _))) => parent,
        _ => new.path.clone(),
    };
    match root.dir().open_beneath(path.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && new.role == Role::Secondary => {}
        result => return result.map_err(tree),
    }
    let mut dir = root.dir().try_clone().map_err(tree)?;
    for name in path.as_bytes().split(|b| *b == b'/') {
        match dir.mkdir(name, 0o755) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(tree(error)),
            _ => {}
        }
        crate::record::sync_dir(&dir).map_err(tree)?;
        dir = dir.open_beneath(name).map_err(tree)?;
    }
    Ok(dir)
}

fn is_empty(dir: &Dir) -> io::Result<bool> {
    Ok(dir.list()?.is_empty())
}

/// R4: staging and history must reach the tree by rename; project quotas, subvolumes and mounts give EXDEV. Proved on
/// the tree's own directory with a file that is there for a moment.
fn prove_renames(beside: &Dir, live: &Dir) -> io::Result<()> {
    const PROBE: &[u8] = b".drover-probe";
    let before = live.stat_self()?.mtime;
    crate::stage::remove_tree(beside, PROBE)?;
    beside.create_file(PROBE, 0o600)?;
    let there = beside.rename_noreplace(PROBE, live, PROBE);
    if let Err(error) = there {
        beside.unlink(PROBE)?;
        return Err(error);
    }
    live.rename_noreplace(PROBE, beside, PROBE)?;
    beside.unlink(PROBE)?;
    live.set_mtime(b"", before)
}

/// Neither the volume nor Drover's own directory lies within the other one.
pub(crate) fn check_place(root: &Root, path: &RelPath) -> Result<(), VolumeError> {
    let unsuitable = |problem| VolumeError::Unsuitable { path: path.clone(), problem };
    let tree = root.path().join(os(path));
    if tree.starts_with(root.beside_path()) {
        return Err(unsuitable("it lies inside Drover's own directory"));
    }
    if root.beside_path().starts_with(tree) {
        return Err(unsuitable("Drover's own directory would lie inside it; configure `beside` for this root"));
    }
    Ok(())
}
