//! Recovery of every volume of a root from the files beside the volumes alone (R1): no agent, no database.

use std::{path::Path, sync::Arc};

use crate::{
    beside::{BesideError, Open, Root},
    id::VolumeId,
    volume::{Recovery, Volume, VolumeError},
};

/// Each volume of the root with what was done, or why it could not be opened.
pub fn recover_root(
    path: &Path,
    beside: Option<&Path>,
) -> Result<Vec<(VolumeId, Result<Recovery, VolumeError>)>, BesideError> {
    let root = Arc::new(Root::open(path, beside, Open::Existing)?);
    let recover = |id| {
        (
            id,
            Volume::open(&root, id).map(|volume| volume.recovery().clone()),
        )
    };
    Ok(root.volumes()?.into_iter().map(recover).collect())
}
