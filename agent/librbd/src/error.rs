//! What a call returned, mapped once.

use std::fmt;

/// A call of librbd or librados that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{call}: {errno}")]
pub struct Error {
    /// The C function.
    pub call: &'static str,
    pub errno: Errno,
}

/// An errno of Linux, positive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(i32);

/// What a caller decides by. Which state of which image gives which one is written at each call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// ENOENT: no such pool, image, snapshot, object, key; for `promote`: not mirrored.
    NotFound,
    /// EEXIST.
    Exists,
    /// EBUSY: open or locked elsewhere; for `promote`: the peer is (or was last) primary.
    Busy,
    /// EROFS: a non-primary image, an image opened read-only, or another client's manual lock.
    ReadOnly,
    /// ETIMEDOUT: one of [`crate::Timeouts`] passed. A call that changes something may have done so.
    TimedOut,
    /// ESHUTDOWN: this connection is blocklisted. Everything on it fails from now on; connect again.
    Blocklisted,
    /// EINVAL: mostly a wrong state of mirroring.
    Invalid,
    /// EACCES, EPERM: the cephx user lacks a capability, or its key is wrong.
    Permission,
    /// ERANGE: a reply beyond what this crate takes.
    OutOfRange,
    /// ENOTEMPTY: the image has snapshots.
    NotEmpty,
    Other,
}

impl Error {
    pub(crate) fn new(call: &'static str, errno: i32) -> Self {
        Self { call, errno: Errno(errno) }
    }

    pub fn kind(&self) -> ErrorKind {
        self.errno.kind()
    }
}

impl Errno {
    /// As in `errno.h`.
    pub fn raw(self) -> i32 {
        self.0
    }

    pub fn kind(self) -> ErrorKind {
        match self.0 {
            libc::ENOENT => ErrorKind::NotFound,
            libc::EEXIST => ErrorKind::Exists,
            libc::EBUSY => ErrorKind::Busy,
            libc::EROFS => ErrorKind::ReadOnly,
            libc::ETIMEDOUT => ErrorKind::TimedOut,
            libc::ESHUTDOWN => ErrorKind::Blocklisted,
            libc::EINVAL => ErrorKind::Invalid,
            libc::EACCES | libc::EPERM => ErrorKind::Permission,
            libc::ERANGE => ErrorKind::OutOfRange,
            libc::ENOTEMPTY => ErrorKind::NotEmpty,
            _ => ErrorKind::Other,
        }
    }
}

/// The system's text with its number, e.g. "Device or resource busy (os error 16)".
impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::io::Error::from_raw_os_error(self.0).fmt(f)
    }
}

/// A negative return code is the error; others are counts, lengths or 0.
pub(crate) fn checked(call: &'static str, code: impl Into<i64>) -> Result<u64, Error> {
    let code = code.into();
    u64::try_from(code).map_err(|_| Error::new(call, errno_of(code)))
}

/// For commands: anything but 0 is the error. `rados_mgr_command` returns **+110** when its time is over.
pub(crate) fn checked_zero(call: &'static str, code: i32) -> Result<(), Error> {
    if code == 0 { Ok(()) } else { Err(Error::new(call, errno_of(code.into()))) }
}

fn errno_of(code: i64) -> i32 {
    i32::try_from(code.unsigned_abs()).unwrap_or(libc::EIO)
}

/// Calls a function of the table and checks its code under its own name. Stands in an `unsafe` block with its reason.
macro_rules! call {
    ($functions:expr, $name:ident ( $($argument:expr),* $(,)? )) => {
        $crate::error::checked(stringify!($name), ($functions.$name)($($argument),*))
    };
}
pub(crate) use call;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negative_codes_are_errors_and_name_the_call() {
        assert_eq!(checked("rbd_read", 4096_i32), Ok(4096));
        let error = checked("rbd_open", -2_i32).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(error.to_string(), "rbd_open: No such file or directory (os error 2)");
    }

    #[test]
    fn a_positive_code_of_a_command_is_an_error() {
        let error = checked_zero("rados_mgr_command", 110).unwrap_err();
        assert_eq!((error.kind(), error.errno.raw()), (ErrorKind::TimedOut, 110));
        assert_eq!(checked_zero("rados_mgr_command", -110).unwrap_err(), error);
        assert_eq!(checked_zero("rados_mgr_command", 0), Ok(()));
    }

    #[test]
    fn every_kind_has_its_errno() {
        let kinds = [
            (2, ErrorKind::NotFound),
            (17, ErrorKind::Exists),
            (16, ErrorKind::Busy),
            (30, ErrorKind::ReadOnly),
            (110, ErrorKind::TimedOut),
            (108, ErrorKind::Blocklisted),
            (22, ErrorKind::Invalid),
            (13, ErrorKind::Permission),
            (1, ErrorKind::Permission),
            (34, ErrorKind::OutOfRange),
            (39, ErrorKind::NotEmpty),
            (5, ErrorKind::Other),
        ];
        for (errno, kind) in kinds {
            assert_eq!(Errno(errno).kind(), kind, "errno {errno}");
        }
    }

    #[test]
    fn a_code_that_is_no_errno_is_an_input_output_error() {
        assert_eq!(checked("rbd_read", i64::MIN).unwrap_err().errno.raw(), libc::EIO);
    }
}
