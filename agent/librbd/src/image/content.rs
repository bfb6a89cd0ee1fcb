//! Reading and writing, one call at a time.

use super::Image;
use crate::{
    Error,
    error::{call, checked},
};

impl Image {
    /// Reads from `offset`; returns how many bytes, fewer at the end of the image.
    ///
    /// TimedOut. Blocklisted. A handle that outlives a resync of its image reads zeros.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, Error> {
        // SAFETY: an open image; a buffer of that length.
        let code = unsafe { (self.functions().rbd_read)(self.raw(), offset, buffer.len(), buffer.as_mut_ptr().cast()) };
        length_of("rbd_read", code)
    }

    /// Writes all of `data`.
    ///
    /// Invalid: behind the end of the image. EIO (5): across it; what fits is written. ReadOnly: non-primary, opened read-only, or
    /// another client's manual lock. Blocklisted.
    pub fn write(&self, offset: u64, data: &[u8]) -> Result<(), Error> {
        // SAFETY: an open image; a buffer of that length.
        let code = unsafe { (self.functions().rbd_write)(self.raw(), offset, data.len(), data.as_ptr().cast()) };
        whole("rbd_write", code, data.len())
    }

    /// Makes a range zeros, whatever its alignment (`rbd_discard` would leave small ones without a word). Errors as
    /// [`Image::write`].
    pub fn write_zeroes(&self, offset: u64, length: usize) -> Result<(), Error> {
        // SAFETY: an open image.
        let code = unsafe { (self.functions().rbd_write_zeroes)(self.raw(), offset, length, 0, 0) };
        whole("rbd_write_zeroes", code, length)
    }

    /// What was written is on the disks of the cluster.
    pub fn flush(&self) -> Result<(), Error> {
        // SAFETY: an open image.
        unsafe { call!(self.functions(), rbd_flush(self.raw())) }.map(drop)
    }
}

pub(super) fn length_of(call: &'static str, code: isize) -> Result<usize, Error> {
    let length = checked(call, i64::try_from(code).unwrap_or(i64::MIN))?;
    usize::try_from(length).map_err(|_| Error::new(call, libc::EIO))
}

/// A write that was cut short is an error.
fn whole(call: &'static str, code: isize, expected: usize) -> Result<(), Error> {
    if length_of(call, code)? == expected { Ok(()) } else { Err(Error::new(call, libc::EIO)) }
}
