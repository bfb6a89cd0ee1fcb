//! A client of an NFS server in user space: libnfs behind safe types, loaded at run time.
//!
//! Nothing is linked, so that the same binary starts on a host without libnfs. Only what a probe needs is here: mount, create, write, sync,
//! close, remove. Calls block until the server answers or `patience` is over; a server that hangs may take longer, so they are made from a
//! process that can be killed.
//!
//! Source: `<nfsc/libnfs.h>` of libnfs 4.0, 5.0 and 6.0. The order of the arguments of `nfs_pwrite` changed with 6.0, whose library has
//! another name; a name that is not known is not loaded.
#![expect(unsafe_code, reason = "this crate is the one place that calls libnfs")]

mod ffi;
mod mount;

use std::{fmt, sync::Arc};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use rustix::io::Errno;

pub use mount::{File, Mount, Protocol, Server};

use ffi::{Functions, WriteOrder};

/// Names of the library, newest first.
const SONAMES: [(&str, WriteOrder); 3] = [
    ("libnfs.so.16", WriteOrder::BufferFirst),
    ("libnfs.so.14", WriteOrder::OffsetFirst),
    ("libnfs.so.13", WriteOrder::OffsetFirst),
];

/// A loaded libnfs. Cheap to clone.
#[derive(Clone)]
pub struct Libnfs(pub(crate) Arc<Functions>);

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("libnfs can't be loaded: install it (Debian: libnfs13 or libnfs14, others: libnfs)")]
    Library(#[source] libloading::Error),
    #[error("{library} lacks the function {symbol}")]
    Symbol { library: &'static str, symbol: &'static str },
}

/// A call that the server, or the way to it, refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Error {
    /// Of libnfs, such as `nfs_pwrite`.
    pub call: &'static str,
    pub errno: Errno,
    /// What libnfs says of it; may be empty.
    pub message: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.call, self.errno)?;
        if self.message.is_empty() { Ok(()) } else { write!(f, " ({})", self.message) }
    }
}

impl Libnfs {
    /// Loads the library from where the system's loader looks. Never unloaded.
    pub fn load() -> Result<Self, LoadError> {
        let mut missing = None;
        for (library, order) in SONAMES {
            match Self::open(library, order) {
                // The first that is missing is the newest: the last says what to install here as well.
                Err(LoadError::Library(error)) => missing = Some(error),
                opened => return opened,
            }
        }
        Err(LoadError::Library(missing.expect("there are names")))
    }

    fn open(name: &'static str, order: WriteOrder) -> Result<Self, LoadError> {
        // SAFETY: initialisers run; those of libnfs set up nothing but its own statics.
        let library = unsafe { Library::open(Some(name), RTLD_NOW | RTLD_LOCAL) }.map_err(LoadError::Library)?;
        // SAFETY: libnfs by a name whose declarations are known.
        let functions = unsafe { Functions::find(&library, order) };
        let functions = functions.map_err(|symbol| LoadError::Symbol { library: name, symbol })?;
        std::mem::forget(library);
        Ok(Self(Arc::new(functions)))
    }
}

impl fmt::Debug for Libnfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("libnfs")
    }
}
