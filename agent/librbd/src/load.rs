//! The library, found at run time.

use std::{
    ffi::{OsStr, c_int},
    fmt,
    path::PathBuf,
    sync::Arc,
};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use crate::{Configuration, Error, ffi::Functions};

/// The name without a minor version, which has not changed since 2010.
const SONAME: &str = "librbd.so.1";

/// A loaded librbd. Cheap to clone.
#[derive(Clone)]
pub struct Ceph(pub(crate) Arc<Functions>);

/// Why there is no librbd to use.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("librbd can't be loaded from {}: install the package librbd1 (or ceph-common) to work with RBD images", .path.display())]
    Library { path: PathBuf, source: libloading::Error },
    #[error("{} lacks the function {symbol}: Ceph 16 or later is needed", .path.display())]
    Symbol { path: PathBuf, symbol: &'static str },
}

/// Of the library's interface, e.g. 1.16.0 for Ceph 16. To be shown, not to be decided by: releases patch functions in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    pub major: i32,
    pub minor: i32,
    pub extra: i32,
}

impl Ceph {
    /// Loads `librbd.so.1` from where the system's loader looks; takes 10 to 40 ms. Never unloaded: librados leaves threads and
    /// destructors behind that would run code which is no longer there.
    pub fn load() -> Result<Self, LoadError> {
        Self::load_from(SONAME)
    }

    /// Loads the file at `path`, or the library of that name where `path` has no slash.
    pub fn load_from(path: impl AsRef<OsStr>) -> Result<Self, LoadError> {
        let path = path.as_ref();
        // Resolved at once, so that a library that does not fit fails here.
        // SAFETY: initialisers run; those of librbd and librados set up their own statics.
        let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) };
        let library = library.map_err(|source| LoadError::Library { path: path.into(), source })?;
        // SAFETY: librbd by its name, or the operator said so; the types are compared with the headers by a test.
        let functions = unsafe { Functions::find(&library) };
        let functions = functions.map_err(|symbol| LoadError::Symbol { path: path.into(), symbol })?;
        std::mem::forget(library);
        Ok(Self(Arc::new(functions)))
    }

    pub fn rbd_version(&self) -> Version {
        version_of(self.0.rbd_version)
    }

    pub fn rados_version(&self) -> Version {
        version_of(self.0.rados_version)
    }

    /// Whether [`crate::DiffFrom::Id`] works (`rbd_diff_iterate3`).
    pub fn can_diff_from_id(&self) -> bool {
        self.0.rbd_diff_iterate3.is_some()
    }

    /// A handle to configure before it connects. `user` is the full name, `client.NAME`; Invalid (EINVAL) for a short one.
    pub fn configure(&self, user: &str) -> Result<Configuration, Error> {
        Configuration::new(self, user)
    }
}

fn version_of(function: unsafe extern "C" fn(*mut c_int, *mut c_int, *mut c_int)) -> Version {
    let mut version = Version { major: 0, minor: 0, extra: 0 };
    // SAFETY: three numbers to fill in.
    unsafe { function(&raw mut version.major, &raw mut version.minor, &raw mut version.extra) };
    version
}

impl fmt::Debug for Ceph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "librbd {}", self.rbd_version())
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.extra)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_no_library_is_the_error_says_what_to_install() {
        let error = Ceph::load_from("/nonexistent/librbd.so.1").unwrap_err();
        assert_eq!(
            error.to_string(),
            "librbd can't be loaded from /nonexistent/librbd.so.1: install the package librbd1 (or ceph-common) to work with RBD images"
        );
        let reason = std::iter::successors(std::error::Error::source(&error), |error| error.source()).last().unwrap();
        assert!(reason.to_string().contains("cannot open shared object file"), "{reason}");
    }

    #[test]
    fn another_library_is_refused_by_the_function_it_lacks() {
        let error = Ceph::load_from("libc.so.6").unwrap_err();
        assert_eq!(error.to_string(), "libc.so.6 lacks the function rados_version: Ceph 16 or later is needed");
    }

    #[test]
    fn versions_where_the_library_is_installed() {
        match Ceph::load() {
            Ok(ceph) => {
                assert_eq!(ceph.rbd_version().major, 1);
                assert_eq!(ceph.rados_version().major, 3);
                assert_eq!(format!("{ceph:?}"), format!("librbd {}", ceph.rbd_version()));
            }
            Err(error) => println!("SKIPPED versions of librbd: {error}"),
        }
    }
}
