//! Groups of images, and their snapshots at one moment.

use crate::{
    Error, GroupSnapshotState, Pool, Quiesce,
    error::call,
    ffi::{GroupImageState, rbd_group_image_info_t, rbd_group_snap_info_t},
    reply::filled_one,
    text::{from_c, names_of, to_c},
};

/// An image of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupImage {
    pub name: String,
    pub pool: i64,
    /// `false` while it is being added or removed.
    pub is_attached: bool,
}

/// A snapshot of all images of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSnapshot {
    pub name: String,
    pub state: GroupSnapshotState,
}

impl Pool {
    /// Exists: there is such a group.
    pub fn group_create(&self, name: &str) -> Result<(), Error> {
        let name = to_c("rbd_group_create", name)?;
        // SAFETY: a pool, a C string.
        unsafe { call!(self.functions(), rbd_group_create(self.0.raw, name.as_ptr())) }.map(drop)
    }

    /// Removes the group with its snapshots; its images stay.
    pub fn group_remove(&self, name: &str) -> Result<(), Error> {
        let name = to_c("rbd_group_remove", name)?;
        // SAFETY: a pool, a C string.
        unsafe { call!(self.functions(), rbd_group_remove(self.0.raw, name.as_ptr())) }.map(drop)
    }

    pub fn groups(&self) -> Result<Vec<String>, Error> {
        let names = filled_one::<u8>("rbd_group_list", 4096, |names, length| {
            // SAFETY: a pool; a buffer of that length.
            unsafe { (self.functions().rbd_group_list)(self.0.raw, names.cast(), length) }.into()
        })?;
        Ok(names_of(&names))
    }

    /// Adds an image of `pool` to a group here. Repeating it is no error. Exists: in another group. NotFound: no such group or image.
    pub fn group_image_add(&self, group: &str, pool: &Self, image: &str) -> Result<(), Error> {
        let (group, image) = (to_c("rbd_group_image_add", group)?, to_c("rbd_group_image_add", image)?);
        // SAFETY: two pools of one library, C strings.
        unsafe { call!(self.functions(), rbd_group_image_add(self.0.raw, group.as_ptr(), pool.0.raw, image.as_ptr())) }
            .map(drop)
    }

    /// Takes an image out of a group; it keeps the group's snapshots, so that it can't be removed (NotEmpty).
    pub fn group_image_remove(&self, group: &str, pool: &Self, image: &str) -> Result<(), Error> {
        let (group, image) = (to_c("rbd_group_image_remove", group)?, to_c("rbd_group_image_remove", image)?);
        // SAFETY: two pools of one library, C strings.
        unsafe {
            call!(self.functions(), rbd_group_image_remove(self.0.raw, group.as_ptr(), pool.0.raw, image.as_ptr()))
        }
        .map(drop)
    }

    /// Ceph 16 says of a missing group that it has none.
    pub fn group_images(&self, group: &str) -> Result<Vec<GroupImage>, Error> {
        let group = to_c("rbd_group_image_list", group)?;
        let size = size_of::<rbd_group_image_info_t>();
        let mut images = filled_one::<rbd_group_image_info_t>("rbd_group_image_list", 64, |images, count| {
            // SAFETY: a pool, a C string; an array of that many entries of that size.
            unsafe { (self.functions().rbd_group_image_list)(self.0.raw, group.as_ptr(), images, size, count) }.into()
        })?;
        let entry = |info: &rbd_group_image_info_t| GroupImage {
            // SAFETY: a C string of librbd.
            name: unsafe { from_c(info.name) },
            pool: info.pool,
            is_attached: GroupImageState::from(info.state) == GroupImageState::Attached,
        };
        let list = images.iter().map(entry).collect();
        // SAFETY: what rbd_group_image_list filled, freed once.
        unsafe { (self.functions().rbd_group_image_list_cleanup)(images.as_mut_ptr(), size, images.len()) };
        Ok(list)
    }

    /// One snapshot of all images at one moment: writers wait, none fails (about 100 ms for two images).
    ///
    /// Exists. ReadOnly: another client holds the manual lock of an image. TimedOut.
    pub fn group_snapshot_create(&self, group: &str, snapshot: &str, quiesce: Quiesce) -> Result<(), Error> {
        let (group, snapshot) = (to_c("rbd_group_snap_create2", group)?, to_c("rbd_group_snap_create2", snapshot)?);
        // SAFETY: a pool, C strings.
        unsafe {
            call!(
                self.functions(),
                rbd_group_snap_create2(self.0.raw, group.as_ptr(), snapshot.as_ptr(), quiesce.flags())
            )
        }
        .map(drop)
    }

    /// NotFound: no such group or snapshot.
    pub fn group_snapshot_remove(&self, group: &str, snapshot: &str) -> Result<(), Error> {
        let (group, snapshot) = (to_c("rbd_group_snap_remove", group)?, to_c("rbd_group_snap_remove", snapshot)?);
        // SAFETY: a pool, C strings.
        unsafe { call!(self.functions(), rbd_group_snap_remove(self.0.raw, group.as_ptr(), snapshot.as_ptr())) }
            .map(drop)
    }

    /// NotFound: no such group.
    pub fn group_snapshots(&self, group: &str) -> Result<Vec<GroupSnapshot>, Error> {
        let group = to_c("rbd_group_snap_list", group)?;
        let size = size_of::<rbd_group_snap_info_t>();
        let mut snapshots = filled_one::<rbd_group_snap_info_t>("rbd_group_snap_list", 64, |snapshots, count| {
            // SAFETY: a pool, a C string; an array of that many entries of that size.
            unsafe { (self.functions().rbd_group_snap_list)(self.0.raw, group.as_ptr(), snapshots, size, count) }.into()
        })?;
        let entry = |info: &rbd_group_snap_info_t| GroupSnapshot {
            // SAFETY: a C string of librbd.
            name: unsafe { from_c(info.name) },
            state: info.state.into(),
        };
        let list = snapshots.iter().map(entry).collect();
        // SAFETY: what rbd_group_snap_list filled, freed once.
        unsafe { (self.functions().rbd_group_snap_list_cleanup)(snapshots.as_mut_ptr(), size, snapshots.len()) };
        Ok(list)
    }
}
