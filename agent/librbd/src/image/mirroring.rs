//! Mirroring of an image. The facts behind each error were run on Ceph 16.2.15 and 18.2.7.

use std::time::SystemTime;

use super::{Force, Image, Quiesce};
use crate::{
    Error, ImageMode, ImageState, StatusState,
    error::call,
    ffi::{
        Plain, rbd_mirror_image_global_status_t, rbd_mirror_image_info_t, rbd_mirror_image_mode_t,
        rbd_mirror_image_site_status_t,
    },
    reply::filled_one,
    text::{first_of, from_c},
    time::since_1970,
};

/// Whether an image mirrors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorInfo {
    /// The same on both sites; empty where it does not mirror.
    pub global_id: String,
    pub state: ImageState,
    pub is_primary: bool,
}

/// What the daemons of all sites say. To be shown, never to be decided by: it lags up to 30 s, that of a dead site for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GlobalStatus {
    pub name: String,
    pub info: MirrorInfo,
    pub sites: Vec<SiteStatus>,
}

/// What the daemon of one site says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteStatus {
    /// Empty for this site.
    pub mirror_uuid: String,
    pub state: StatusState,
    /// As `replaying, {"replay_state":"idle",…}`.
    pub description: String,
    pub last_update: SystemTime,
    /// Of the daemon, not of the cluster.
    pub is_up: bool,
}

impl Image {
    /// Idempotent, also on the secondary. Invalid: the pool's mode is not image; mirrored in the other mode already; the parent is not
    /// mirrored; in a group.
    pub fn mirror_enable(&self, mode: ImageMode) -> Result<(), Error> {
        // SAFETY: an open image.
        unsafe { call!(self.functions(), rbd_mirror_image_enable2(self.raw(), mode.into())) }.map(drop)
    }

    /// Ends mirroring; on the primary, rbd-mirror then deletes the peer's copy. Fine where it is not enabled. Invalid: secondary or
    /// demoted, without force. **librbd 16 can crash** when forced in the middle of a sync.
    pub fn mirror_disable(&self, force: Force) -> Result<(), Error> {
        // SAFETY: an open image.
        unsafe { call!(self.functions(), rbd_mirror_image_disable(self.raw(), force == Force::Yes)) }.map(drop)
    }

    /// Makes this site's copy the primary. Up to 30 s with force while the local rbd-mirror is dead.
    ///
    /// Busy: the peer is primary as far as is known here, and not forced. Invalid: primary already. NotFound: not mirrored.
    /// Fine on any demotion snapshot, however old, so it is **no safety check**; and forced in the middle of a sync it goes back behind
    /// the last complete one without a word, where **librbd 16 can crash**. Compare the snapshots first.
    pub fn mirror_promote(&self, force: Force) -> Result<(), Error> {
        // SAFETY: an open image.
        unsafe { call!(self.functions(), rbd_mirror_image_promote(self.raw(), force == Force::Yes)) }.map(drop)
    }

    /// Gives up being primary. The next write of a client that still has it open, of this handle too, may be acknowledged and is in no
    /// snapshot.
    ///
    /// Invalid: not primary. ReadOnly: another client holds the manual lock. Waits 30 s for a dead lock owner.
    pub fn mirror_demote(&self) -> Result<(), Error> {
        // SAFETY: an open image.
        unsafe { call!(self.functions(), rbd_mirror_image_demote(self.raw())) }.map(drop)
    }

    /// Asks the local rbd-mirror to **delete this image** and copy it anew from the peer; only sets a flag, which stays.
    /// Invalid: primary. NotFound: not mirrored.
    pub fn mirror_resync(&self) -> Result<(), Error> {
        // SAFETY: an open image.
        unsafe { call!(self.functions(), rbd_mirror_image_resync(self.raw())) }.map(drop)
    }

    /// A mirror snapshot, by its id: what the peer copies next. 0.8 to 2 s with a default cluster.
    ///
    /// Invalid: not primary, not enabled, or no peer to send to. A lock taken by hand elsewhere is no obstacle: its owner does it.
    pub fn mirror_snapshot(&self, quiesce: Quiesce) -> Result<u64, Error> {
        let mut id = 0;
        // SAFETY: an open image, a number to fill in.
        unsafe {
            call!(self.functions(), rbd_mirror_image_create_snapshot2(self.raw(), quiesce.flags(), &raw mut id))
        }?;
        Ok(id)
    }

    /// Not mirrored is no error: [`ImageState::Disabled`] and no id.
    pub fn mirror_info(&self) -> Result<MirrorInfo, Error> {
        let mut info = rbd_mirror_image_info_t::zeroed();
        // SAFETY: an open image, a struct of that size.
        unsafe { call!(self.functions(), rbd_mirror_image_get_info(self.raw(), &raw mut info, size_of_val(&info))) }?;
        // SAFETY: filled by the call, not freed yet.
        let result = unsafe { info_of(&info) };
        // SAFETY: what the call filled, freed once.
        unsafe { (self.functions().rbd_mirror_image_get_info_cleanup)(&raw mut info) };
        Ok(result)
    }

    /// Of an image that is mirrored; for another one the answer differs by release (Journal, or Invalid).
    pub fn mirror_mode(&self) -> Result<ImageMode, Error> {
        let mut mode = rbd_mirror_image_mode_t(0);
        // SAFETY: an open image, a number to fill in.
        unsafe { call!(self.functions(), rbd_mirror_image_get_mode(self.raw(), &raw mut mode)) }?;
        Ok(mode.into())
    }

    pub fn mirror_status(&self) -> Result<GlobalStatus, Error> {
        let mut status = rbd_mirror_image_global_status_t::zeroed();
        let size = size_of_val(&status);
        // SAFETY: an open image, a struct of that size.
        unsafe { call!(self.functions(), rbd_mirror_image_get_global_status(self.raw(), &raw mut status, size)) }?;
        // SAFETY: filled by the call, not freed yet.
        let result = unsafe { status_of(&status) };
        // SAFETY: what the call filled, freed once.
        unsafe { (self.functions().rbd_mirror_image_global_status_cleanup)(&raw mut status) };
        Ok(result)
    }

    /// Which rbd-mirror daemon has the image: its instance id. Not mirrored: Invalid; no daemon: NotFound or ESTALE.
    pub fn mirror_instance_id(&self) -> Result<String, Error> {
        let buffer = filled_one::<u8>("rbd_mirror_image_get_instance_id", 64, |buffer, length| {
            // SAFETY: an open image; a buffer of that length.
            unsafe { (self.functions().rbd_mirror_image_get_instance_id)(self.raw(), buffer.cast(), length) }.into()
        })?;
        Ok(first_of(&buffer))
    }
}

/// # Safety
/// Filled by librbd and not freed.
unsafe fn info_of(info: &rbd_mirror_image_info_t) -> MirrorInfo {
    MirrorInfo {
        // SAFETY: a C string of librbd.
        global_id: unsafe { from_c(info.global_id) },
        state: info.state.into(),
        is_primary: info.primary,
    }
}

/// # Safety
/// Filled by librbd and not freed.
unsafe fn status_of(status: &rbd_mirror_image_global_status_t) -> GlobalStatus {
    let sites: &[rbd_mirror_image_site_status_t] = if status.site_statuses.is_null() {
        &[]
    } else {
        // SAFETY: an array of as many entries.
        unsafe { std::slice::from_raw_parts(status.site_statuses, status.site_statuses_count as usize) }
    };
    GlobalStatus {
        // SAFETY: a C string of librbd.
        name: unsafe { from_c(status.name) },
        // SAFETY: a part of what librbd filled.
        info: unsafe { info_of(&status.info) },
        sites: sites
            .iter()
            .map(|site| SiteStatus {
                // SAFETY: a C string of librbd.
                mirror_uuid: unsafe { from_c(site.mirror_uuid) },
                state: site.state.into(),
                // SAFETY: a C string of librbd.
                description: unsafe { from_c(site.description) },
                last_update: since_1970(site.last_update, 0),
                is_up: site.up,
            })
            .collect(),
    }
}
