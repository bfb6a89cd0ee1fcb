//! The trash of a pool.

use std::time::{Duration, SystemTime};

use crate::{
    Error, Force, Pool, Progress, TrashSource,
    callback::with_progress,
    error::call,
    ffi::rbd_trash_image_info_t,
    reply::filled_one,
    text::{from_c, to_c},
    time::since_1970,
};

/// An image in the trash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrashEntry {
    pub id: String,
    /// What it was called.
    pub name: String,
    pub source: TrashSource,
    pub deleted: SystemTime,
    /// Until then it is removed by force only.
    pub kept_until: SystemTime,
}

impl Pool {
    /// Moves an image to the trash and keeps it for `delay`. Its snapshots go with it.
    ///
    /// An image that others have open or write to is moved as well, and they go on. NotFound. Busy: another client has taken its lock by
    /// hand ([`crate::Image::acquire_lock`]). Invalid: a
    /// mirrored image that is not primary; of a primary, mirroring ends.
    pub fn trash_move(&self, name: &str, delay: Duration) -> Result<(), Error> {
        let name = to_c("rbd_trash_move", name)?;
        // SAFETY: a pool, a C string.
        unsafe { call!(self.functions(), rbd_trash_move(self.0.raw, name.as_ptr(), delay.as_secs())) }.map(drop)
    }

    pub fn trash(&self) -> Result<Vec<TrashEntry>, Error> {
        let mut entries = filled_one::<rbd_trash_image_info_t>("rbd_trash_list", 256, |entries, count| {
            // SAFETY: a pool; an array of that many entries.
            unsafe { (self.functions().rbd_trash_list)(self.0.raw, entries, count) }.into()
        })?;
        let entry = |info: &rbd_trash_image_info_t| TrashEntry {
            // SAFETY: a C string of librbd.
            id: unsafe { from_c(info.id) },
            // SAFETY: a C string of librbd.
            name: unsafe { from_c(info.name) },
            source: info.source.into(),
            deleted: since_1970(info.deletion_time, 0),
            kept_until: since_1970(info.deferment_end_time, 0),
        };
        let list = entries.iter().map(entry).collect();
        // SAFETY: what rbd_trash_list filled, freed once.
        unsafe { (self.functions().rbd_trash_list_cleanup)(entries.as_mut_ptr(), entries.len()) };
        Ok(list)
    }

    /// Removes an image from the trash for good.
    ///
    /// NotFound. Permission: kept until later, and not forced. NotEmpty: it has snapshots. Busy: open elsewhere.
    pub fn trash_remove(&self, id: &str, force: Force, progress: &mut Progress<'_>) -> Result<(), Error> {
        let id = to_c("rbd_trash_remove_with_progress", id)?;
        let force = force == Force::Yes;
        with_progress(progress, |callback, argument| {
            // SAFETY: a pool, a C string; the callback and its argument outlive the call.
            unsafe {
                call!(
                    self.functions(),
                    rbd_trash_remove_with_progress(self.0.raw, id.as_ptr(), force, callback, argument)
                )
            }
        })
        .map(drop)
    }

    /// Takes an image out of the trash under `name`. NotFound. Exists: the name is taken.
    pub fn trash_restore(&self, id: &str, name: &str) -> Result<(), Error> {
        let (id, name) = (to_c("rbd_trash_restore", id)?, to_c("rbd_trash_restore", name)?);
        // SAFETY: a pool, C strings.
        unsafe { call!(self.functions(), rbd_trash_restore(self.0.raw, id.as_ptr(), name.as_ptr())) }.map(drop)
    }
}
