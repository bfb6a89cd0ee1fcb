//! Snapshots of an image.

use std::time::SystemTime;

use super::Image;
use crate::{
    Error, Progress, SnapshotMirrorState, SnapshotNamespace,
    callback::with_progress,
    error::{call, checked},
    ffi::{
        LIBRADOS_SNAP_HEAD, Plain, RBD_SNAP_CREATE_IGNORE_QUIESCE_ERROR, RBD_SNAP_CREATE_SKIP_QUIESCE,
        rbd_snap_group_namespace_t, rbd_snap_info_t, rbd_snap_mirror_namespace_t, rbd_snap_namespace_type_t,
    },
    reply::filled_one,
    text::{from_c, to_c},
    time::since_1970,
};

/// A snapshot in the list of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Grows with each snapshot of the pool.
    pub id: u64,
    pub name: String,
    /// Of the image at that time.
    pub size_bytes: u64,
    pub namespace: SnapshotNamespace,
    /// When it was made **here**: on a secondary, the time of the sync.
    pub created: SystemTime,
}

/// What a mirror snapshot says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorNamespace {
    pub state: SnapshotMirrorState,
    /// On a secondary: whether all of it has arrived.
    pub is_complete: bool,
    /// On a primary: the peers that still need it.
    pub peer_uuids: Vec<String>,
    /// On a secondary: whose snapshot it is a copy of ([`crate::Pool::mirror_uuid`] there). Empty on a primary.
    pub primary_mirror_uuid: String,
    /// Its id there.
    pub primary_snapshot_id: Option<u64>,
    /// Progress of the sync, in objects.
    pub last_copied_object: u64,
}

/// Which group snapshot a snapshot belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupNamespace {
    pub pool_id: i64,
    pub group: String,
    pub snapshot: String,
}

/// Whether clients that registered for it (rbd-nbd) are asked to quiesce first. Others never are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quiesce {
    /// A client that can't makes the snapshot fail.
    Require,
    Try,
    Skip,
}

impl Quiesce {
    pub(crate) fn flags(self) -> u32 {
        match self {
            Self::Require => 0,
            Self::Try => RBD_SNAP_CREATE_IGNORE_QUIESCE_ERROR,
            Self::Skip => RBD_SNAP_CREATE_SKIP_QUIESCE,
        }
    }
}

impl Image {
    /// All snapshots of all namespaces, sorted by id.
    ///
    /// Answered from memory. A handle opened for writing is told of changes and looks again; a read-only one never does. So on a
    /// cluster that hangs both give an old list at once: **what is decided by it is asked of an image opened for that**, which fails with
    /// TimedOut there.
    pub fn snapshots(&self) -> Result<Vec<Snapshot>, Error> {
        let mut snapshots = filled_one::<rbd_snap_info_t>("rbd_snap_list", 64, |snapshots, length| {
            let mut count = i32::try_from(*length).unwrap_or(i32::MAX);
            // SAFETY: an open image; an array of that many entries.
            let code = unsafe { (self.functions().rbd_snap_list)(self.raw(), snapshots, &raw mut count) };
            // The list ends with an entry of its own, without a name.
            *length = usize::try_from(code).map_or(count.unsigned_abs() as usize, |count| count + 1);
            code.into()
        })?;
        let list: Result<Vec<_>, _> =
            snapshots.iter().take_while(|info| !info.name.is_null()).map(|info| self.snapshot_of(info)).collect();
        if !snapshots.is_empty() {
            // SAFETY: what rbd_snap_list filled, with its last entry, freed once.
            unsafe { (self.functions().rbd_snap_list_end)(snapshots.as_mut_ptr()) };
        }
        let mut list = list?;
        list.sort_by_key(|snapshot| snapshot.id);
        Ok(list)
    }

    fn snapshot_of(&self, info: &rbd_snap_info_t) -> Result<Snapshot, Error> {
        let mut namespace = rbd_snap_namespace_type_t(0);
        // SAFETY: an open image, a number to fill in.
        unsafe { call!(self.functions(), rbd_snap_get_namespace_type(self.raw(), info.id, &raw mut namespace)) }?;
        let mut created = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: an open image, a time to fill in.
        unsafe { call!(self.functions(), rbd_snap_get_timestamp(self.raw(), info.id, &raw mut created)) }?;
        Ok(Snapshot {
            id: info.id,
            // SAFETY: a C string of librbd.
            name: unsafe { from_c(info.name) },
            size_bytes: info.size,
            namespace: namespace.into(),
            created: since_1970(created.tv_sec, created.tv_nsec),
        })
    }

    /// Details of a snapshot of [`SnapshotNamespace::Mirror`]. Invalid: of another one. NotFound: no such snapshot.
    pub fn mirror_namespace(&self, snapshot_id: u64) -> Result<MirrorNamespace, Error> {
        let mut info = rbd_snap_mirror_namespace_t::zeroed();
        let size = size_of::<rbd_snap_mirror_namespace_t>();
        // SAFETY: an open image, a struct of that size.
        unsafe {
            call!(self.functions(), rbd_snap_get_mirror_namespace(self.raw(), snapshot_id, &raw mut info, size))
        }?;
        let details = MirrorNamespace {
            state: info.state.into(),
            is_complete: info.complete,
            // SAFETY: filled by the call, not freed yet.
            peer_uuids: unsafe { peers_of(&info) },
            // SAFETY: a C string of librbd.
            primary_mirror_uuid: unsafe { from_c(info.primary_mirror_uuid) },
            primary_snapshot_id: Some(info.primary_snap_id).filter(|id| *id != LIBRADOS_SNAP_HEAD),
            last_copied_object: info.last_copied_object_number,
        };
        // SAFETY: what the call filled, freed once.
        let freed = unsafe { (self.functions().rbd_snap_mirror_namespace_cleanup)(&raw mut info, size) };
        checked("rbd_snap_mirror_namespace_cleanup", freed)?;
        Ok(details)
    }

    /// Details of a snapshot of [`SnapshotNamespace::Group`]. Invalid: of another one. NotFound: no such snapshot.
    pub fn group_namespace(&self, snapshot_id: u64) -> Result<GroupNamespace, Error> {
        let mut info = rbd_snap_group_namespace_t::zeroed();
        let size = size_of::<rbd_snap_group_namespace_t>();
        // SAFETY: an open image, a struct of that size.
        unsafe { call!(self.functions(), rbd_snap_get_group_namespace(self.raw(), snapshot_id, &raw mut info, size)) }?;
        let details = GroupNamespace {
            pool_id: info.group_pool,
            // SAFETY: a C string of librbd.
            group: unsafe { from_c(info.group_name) },
            // SAFETY: a C string of librbd.
            snapshot: unsafe { from_c(info.group_snap_name) },
        };
        // SAFETY: what the call filled, freed once.
        let freed = unsafe { (self.functions().rbd_snap_group_namespace_cleanup)(&raw mut info, size) };
        checked("rbd_snap_group_namespace_cleanup", freed)?;
        Ok(details)
    }

    /// A user snapshot (`rbd_snap_create2`): 0.8 to 2 s with a default cluster, which gives out ids once a second.
    ///
    /// Done by the owner of the exclusive lock, if there is another one. Waits 30 s for a dead one. The snapshot is of the image
    /// itself also where this handle shows another one.
    ///
    /// Exists. ReadOnly: non-primary, or opened read-only.
    pub fn create_snapshot(&self, name: &str, quiesce: Quiesce) -> Result<(), Error> {
        let name = to_c("rbd_snap_create2", name)?;
        with_progress(&mut |_, _| (), |callback, argument| {
            // SAFETY: an open image, a C string; the callback, never NULL, and its argument outlive the call.
            unsafe {
                call!(
                    self.functions(),
                    rbd_snap_create2(self.raw(), name.as_ptr(), quiesce.flags(), callback, argument)
                )
            }
        })
        .map(drop)
    }

    /// Removes a user snapshot. NotFound. Busy: protected, or clones of format 1 need it; with those of format 2 it moves to
    /// [`SnapshotNamespace::Trash`].
    pub fn remove_snapshot(&self, name: &str) -> Result<(), Error> {
        let name = to_c("rbd_snap_remove2", name)?;
        with_progress(&mut |_, _| (), |callback, argument| {
            // SAFETY: an open image, a C string; the callback, never NULL, and its argument outlive the call.
            unsafe { call!(self.functions(), rbd_snap_remove2(self.raw(), name.as_ptr(), 0, callback, argument)) }
        })
        .map(drop)
    }

    /// Removes a snapshot of any namespace. NotFound.
    pub fn remove_snapshot_by_id(&self, id: u64) -> Result<(), Error> {
        // SAFETY: an open image.
        unsafe { call!(self.functions(), rbd_snap_remove_by_id(self.raw(), id)) }.map(drop)
    }

    /// Makes the image what the user snapshot is; what was written since is lost. NotFound. ReadOnly: non-primary.
    pub fn rollback(&self, name: &str, progress: &mut Progress<'_>) -> Result<(), Error> {
        let name = to_c("rbd_snap_rollback_with_progress", name)?;
        with_progress(progress, |callback, argument| {
            // SAFETY: an open image, a C string; the callback and its argument outlive the call.
            unsafe {
                call!(self.functions(), rbd_snap_rollback_with_progress(self.raw(), name.as_ptr(), callback, argument))
            }
        })
        .map(drop)
    }

    /// What reads see from now on: a user snapshot, or with `None` the image itself. NotFound.
    pub fn set_snapshot(&mut self, name: Option<&str>) -> Result<(), Error> {
        let name = name.map(|name| to_c("rbd_snap_set", name)).transpose()?;
        let name = name.as_ref().map_or(std::ptr::null(), |name| name.as_ptr());
        // SAFETY: an open image, a C string or NULL.
        unsafe { call!(self.functions(), rbd_snap_set(self.raw(), name)) }.map(drop)
    }

    /// As [`Image::set_snapshot`], for a snapshot of any namespace. NotFound.
    pub fn set_snapshot_by_id(&mut self, id: u64) -> Result<(), Error> {
        // SAFETY: an open image.
        unsafe { call!(self.functions(), rbd_snap_set_by_id(self.raw(), id)) }.map(drop)
    }
}

/// # Safety
/// Filled by `rbd_snap_get_mirror_namespace` and not freed.
unsafe fn peers_of(info: &rbd_snap_mirror_namespace_t) -> Vec<String> {
    let mut peers = Vec::new();
    let mut next = info.mirror_peer_uuids.cast_const();
    for _ in 0..info.mirror_peer_uuids_count {
        if next.is_null() {
            break;
        }
        // SAFETY: one of as many C strings that follow each other.
        let peer = unsafe { std::ffi::CStr::from_ptr(next) };
        // SAFETY: the one after it, or the end of the buffer, which is not read.
        next = unsafe { next.add(peer.count_bytes() + 1) };
        peers.push(peer.to_string_lossy().into_owned());
    }
    peers
}
