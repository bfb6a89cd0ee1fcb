//! Who uses an image: its lock and its watchers.

use std::ffi::c_int;

use super::Image;
use crate::{
    Error, ErrorKind,
    error::call,
    ffi::{LockMode, rbd_image_watcher_t, rbd_lock_mode_t},
    reply::filled_one,
    text::{from_c, to_c},
};

/// Who has the exclusive lock, and so writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockOwner {
    /// As [`crate::Cluster::address`]; what [`Image::break_lock`] and the blocklist take.
    pub address: String,
}

/// A connection that has the image open for writing; rbd-mirror is one, too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watcher {
    pub address: String,
    /// [`crate::Cluster::instance_id`] of the connection.
    pub id: i64,
    pub cookie: u64,
}

impl Image {
    /// Who has the exclusive lock, if anybody. Invalid: a non-primary image, or one without the feature.
    pub fn lock_owners(&self) -> Result<Vec<LockOwner>, Error> {
        let mut mode = rbd_lock_mode_t(0);
        let owners = filled_one::<*mut std::ffi::c_char>("rbd_lock_get_owners", 8, |owners, count| {
            // SAFETY: an open image; an array of that many pointers.
            unsafe { (self.functions().rbd_lock_get_owners)(self.raw(), &raw mut mode, owners, count) }.into()
        });
        let mut owners = match owners {
            Ok(owners) => owners,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        // SAFETY: C strings of librbd.
        let list = owners.iter().map(|owner| LockOwner { address: unsafe { from_c(*owner) } }).collect();
        // SAFETY: what rbd_lock_get_owners filled, freed once.
        unsafe { (self.functions().rbd_lock_get_owners_cleanup)(owners.as_mut_ptr(), owners.len()) };
        Ok(list)
    }

    pub fn is_lock_owner(&self) -> Result<bool, Error> {
        let mut is_owner: c_int = 0;
        // SAFETY: an open image, a number to fill in.
        unsafe { call!(self.functions(), rbd_is_exclusive_lock_owner(self.raw(), &raw mut is_owner)) }?;
        Ok(is_owner != 0)
    }

    /// Takes the exclusive lock and keeps it: writes of others fail with ReadOnly and do not wait, so it is no barrier. Closing
    /// or [`Image::release_lock`] gives it back. From this call on, in vain or not, the handle never takes the lock by itself: its
    /// writes without it fail with ReadOnly.
    ///
    /// Busy, ReadOnly: another holds it in this way.
    pub fn acquire_lock(&self) -> Result<(), Error> {
        // SAFETY: an open image.
        unsafe { call!(self.functions(), rbd_lock_acquire(self.raw(), LockMode::Exclusive.into())) }.map(drop)
    }

    pub fn release_lock(&self) -> Result<(), Error> {
        // SAFETY: an open image.
        unsafe { call!(self.functions(), rbd_lock_release(self.raw())) }.map(drop)
    }

    /// Takes the exclusive lock from its owner and blocklists that client for all its images (`rbd_blocklist_on_break_lock`), about
    /// 100 ms. NotFound: nobody holds it. Busy: another one holds it.
    pub fn break_lock(&self, owner: &LockOwner) -> Result<(), Error> {
        let owner = to_c("rbd_lock_break", &owner.address)?;
        // SAFETY: an open image, a C string.
        unsafe { call!(self.functions(), rbd_lock_break(self.raw(), LockMode::Exclusive.into(), owner.as_ptr())) }
            .map(drop)
    }

    /// Who has the image open for writing, this handle among them.
    pub fn watchers(&self) -> Result<Vec<Watcher>, Error> {
        let mut watchers = filled_one::<rbd_image_watcher_t>("rbd_watchers_list", 16, |watchers, count| {
            // SAFETY: an open image; an array of that many entries.
            unsafe { (self.functions().rbd_watchers_list)(self.raw(), watchers, count) }.into()
        })?;
        let watcher = |watcher: &rbd_image_watcher_t| Watcher {
            // SAFETY: a C string of librbd.
            address: unsafe { from_c(watcher.addr) },
            id: watcher.id,
            cookie: watcher.cookie,
        };
        let list = watchers.iter().map(watcher).collect();
        // SAFETY: what rbd_watchers_list filled, freed once.
        unsafe { (self.functions().rbd_watchers_list_cleanup)(watchers.as_mut_ptr(), watchers.len()) };
        Ok(list)
    }
}
