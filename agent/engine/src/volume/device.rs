//! What is different with a block device: it has no metadata, no other one can take its place, and its name may belong to
//! another one after a reboot.

use std::io;

use drover_linux::{Dir, WINDOW_NAME, device};

use super::{Volume, VolumeError, create::NewVolume};
use crate::{
    bases::BASE_BYTES_MIN,
    index::Index,
    path::RelPath,
    plan::{Patched, Plan, Step, Writing},
    point::{Role, VolumeKind, VolumeState},
    transaction::load_manifest,
    tree::{Entry, Manifest, ManifestError, Meta, Node},
};

/// At both ends; what a file system, a partition table or a volume manager is known by lies there.
const BLANK_BYTES: usize = 1 << 20;

/// The identity that a device tells now must be the recorded one.
pub(super) fn check(live: &Dir, path: &RelPath, expected: &str) -> Result<(), VolumeError> {
    let found = identity(live, path)?.unwrap_or_default();
    if found == expected {
        return Ok(());
    }
    Err(VolumeError::OtherDevice { path: path.clone(), expected: expected.to_owned(), found })
}

pub(super) fn identity(live: &Dir, path: &RelPath) -> Result<Option<String>, VolumeError> {
    let identity = live.open_file(WINDOW_NAME).and_then(|file| device::identity(&file));
    identity.map_err(|source| VolumeError::Tree { path: path.clone(), source })
}

/// Whether a device may become a volume. A secondary must be free, and blank unless it is adopted.
pub(super) fn check_new(live: &Dir, new: &NewVolume) -> Result<(), VolumeError> {
    let tree = |source| VolumeError::Tree { path: new.path.clone(), source };
    let unsuitable = |problem| VolumeError::Unsuitable { path: new.path.clone(), problem };
    let size = live.stat(WINDOW_NAME).map_err(tree)?.size;
    if size < BASE_BYTES_MIN {
        return Err(unsuitable("a device must have 4 MiB or more"));
    }
    if new.role == Role::Primary {
        return Ok(());
    }
    let file = match live.open_write(WINDOW_NAME) {
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            return Err(VolumeError::DeviceBusy { path: new.path.clone() });
        }
        opened => opened.map_err(tree)?,
    };
    if new.adopt {
        return Ok(());
    }
    check_blank(&file, size, &new.path)
}

fn check_blank(file: &std::fs::File, size: u64, path: &RelPath) -> Result<(), VolumeError> {
    let tree = |source| VolumeError::Tree { path: path.clone(), source };
    let mut buffer = vec![0; BLANK_BYTES];
    for at in [0, size - BLANK_BYTES as u64] {
        crate::hash::read_padded(file, &mut buffer, at).map_err(tree)?;
        if !crate::content::part::is_zero(&buffer) {
            return Err(VolumeError::NotEmpty { path: path.clone() });
        }
    }
    Ok(())
}

impl Volume {
    /// What is told as the metadata of a device: that of the file that it is a copy of.
    pub(super) fn shown_meta(&self, previous: Option<&Index>) -> Option<Shown> {
        let state = self.state();
        if state.kind != VolumeKind::BlockDevice {
            return None;
        }
        let path = image();
        let of_point = |state: &VolumeState| load_manifest(self, state.current_point()?).ok()?.find(&path);
        let entry = of_point(&state).or_else(|| previous?.manifest.find(&path));
        Some(Shown { entry })
    }

    /// A device is written to and nothing else. What it held before its first sync is nobody's, unless it was adopted.
    pub(super) fn device_plan(&self, plan: Plan, actual: &Index, target: &Manifest) -> Result<Plan, VolumeError> {
        let path = image();
        let size = |manifest: &Manifest| Some(manifest.find(&path)?.node.body()?.size);
        let (have, want) = (size(&actual.manifest).unwrap_or(0), size(target).unwrap_or(0));
        if have != want {
            return Err(VolumeError::DeviceSize { path: self.path().clone(), have, want });
        }
        if plan.staged.is_empty() {
            // Metadata is what the point says.
            return Ok(Plan { steps: Vec::new(), retired: Vec::new(), ..plan });
        }
        let unsuitable = VolumeError::Unsuitable { path: self.path().clone(), problem: "only its content can change" };
        let patching = plan.patching(actual).ok_or(unsuitable)?;
        // It is written to by no one else, or not at all.
        self.live().open_write(WINDOW_NAME).map(drop).map_err(|source| match source.kind() {
            io::ErrorKind::ResourceBusy => VolumeError::DeviceBusy { path: self.path().clone() },
            _ => VolumeError::Tree { path: self.path().clone(), source },
        })?;
        let state = self.state();
        let is_nobodys = state.current.is_none() && state.blank;
        let is_patch = |step: &Step| matches!(step, Step::Patch { .. });
        let (steps, retired, writing) = match is_nobodys {
            true => (Vec::new(), Vec::new(), Writing::AtOnce),
            false => (patching.steps.into_iter().filter(is_patch).collect(), patching.retired, Writing::Patch),
        };
        let patched = patching.patched.map(|patched| Patched { writing, ..patched });
        Ok(Plan { steps, retired, patched, ..plan })
    }
}

impl Volume {
    /// Before the first byte of a first copy: the device is as blank as it was when it was enabled, or has a part of that copy.
    pub(crate) fn begin_first_copy(&self) -> Result<(), VolumeError> {
        if self.state().first_copy_begun {
            return Ok(());
        }
        let tree = |source| VolumeError::Tree { path: self.path().clone(), source };
        let file = self.live().open_write(WINDOW_NAME).map_err(tree)?;
        check_blank(&file, drover_linux::file::stat(&file).map_err(tree)?.size, self.path())?;
        self.update_state(|state| state.first_copy_begun = true)
    }
}

fn image() -> RelPath {
    RelPath::new(WINDOW_NAME).expect("a window's name is a path")
}

/// What a device is shown with.
pub(super) struct Shown {
    entry: Option<Entry>,
}

/// As the device itself is seen, for the scan to compare.
pub(super) fn strip(index: &mut Index) -> Result<(), ManifestError> {
    let bare = Meta { mode: 0o600, ..Meta::default() };
    index.edit(|entry| entry.meta = bare.clone())
}

/// With the metadata that it is shown with, and the same holes in the same content.
pub(super) fn dress(index: &mut Index, shown: &Shown) -> Result<(), ManifestError> {
    let Some(known) = &shown.entry else { return Ok(()) };
    index.edit(|entry| {
        entry.meta = known.meta.clone();
        if let (Node::File(now), Some(then)) = (&mut entry.node, known.node.body())
            && (now.size, now.digest) == (then.size, then.digest)
        {
            now.holes = then.holes;
        }
    })
}
