//! Objects of RADOS: an omap that is compared and set, and a lock.

mod lock;
mod omap;

use std::{ffi::CString, fmt};

use crate::{Error, Pool, error::call, ffi::Functions, text::to_c};

pub use lock::{Lock, Locker, Lockers, Renewal};
pub use omap::{Condition, OmapChange, Written};

/// An object of a pool, by name; it need not exist.
pub struct Object {
    pool: Pool,
    name: CString,
}

impl Object {
    pub(crate) fn new(pool: &Pool, name: &str) -> Result<Self, Error> {
        Ok(Self { pool: pool.clone(), name: to_c("rados_read_op_operate", name)? })
    }

    fn functions(&self) -> &Functions {
        self.pool.functions()
    }

    /// Removes the object with its omap and its locks. NotFound where there is none.
    pub fn remove(&self) -> Result<(), Error> {
        // SAFETY: a pool, a C string.
        unsafe { call!(self.functions(), rados_remove(self.pool.0.raw, self.name.as_ptr())) }.map(drop)
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Object({:?}, {:?})", self.pool, self.name)
    }
}
