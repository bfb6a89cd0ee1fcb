//! Reading and writing without waiting: many operations on their way at once. How many is the caller's business.

use std::{ffi::c_int, fmt, mem, sync::Arc};

use super::{Image, ImageHandle, content::length_of};
use crate::{
    Error,
    error::{call, checked},
    ffi::{Plain, rbd_completion_t, rbd_image_t},
};

/// An operation on its way. It owns its buffer, and keeps its image open, until the operation is done: dropped early, it waits.
#[must_use = "dropping it waits for the operation and loses its error"]
pub struct Completion {
    image: Arc<ImageHandle>,
    raw: rbd_completion_t,
    kind: Kind,
    /// Written or read by librbd until the operation is done, so not touched before.
    buffer: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Read,
    Other(&'static str),
}

// SAFETY: a completion of librbd may be waited for and released by any thread; the buffer is plain memory.
unsafe impl Send for Completion {}

impl Image {
    /// Reads as much as `buffer` is long. [`Completion::wait`] gives it back, shorter at the end of the image.
    pub fn aio_read(&self, offset: u64, buffer: Vec<u8>) -> Result<Completion, Error> {
        let mut completion = Completion::new(self, Kind::Read, buffer)?;
        let (buffer, length) = (completion.buffer.as_mut_ptr(), completion.buffer.len());
        completion.started("rbd_aio_read", |image, raw| {
            // SAFETY: an open image; a buffer of that length, which the completion keeps until the operation is done.
            unsafe { (self.functions().rbd_aio_read)(image, offset, length, buffer.cast(), raw) }
        })
    }

    /// Writes `data`. [`Completion::wait`] gives it back. Errors as [`Image::write`], then; but across the end of the image, what
    /// fits is written and nothing says so.
    pub fn aio_write(&self, offset: u64, data: Vec<u8>) -> Result<Completion, Error> {
        let completion = Completion::new(self, Kind::Other("rbd_aio_write"), data)?;
        let (data, length) = (completion.buffer.as_ptr(), completion.buffer.len());
        completion.started("rbd_aio_write", |image, raw| {
            // SAFETY: an open image; a buffer of that length, which the completion keeps until the operation is done.
            unsafe { (self.functions().rbd_aio_write)(image, offset, length, data.cast(), raw) }
        })
    }

    /// As [`Image::write_zeroes`]; the buffer that comes back is empty.
    pub fn aio_write_zeroes(&self, offset: u64, length: usize) -> Result<Completion, Error> {
        Completion::new(self, Kind::Other("rbd_aio_write_zeroes"), Vec::new())?.started(
            "rbd_aio_write_zeroes",
            |image, raw| {
                // SAFETY: an open image.
                unsafe { (self.functions().rbd_aio_write_zeroes)(image, offset, length, raw, 0, 0) }
            },
        )
    }

    /// What was written by operations that are done is on the disks of the cluster. The buffer that comes back is empty.
    pub fn aio_flush(&self) -> Result<Completion, Error> {
        Completion::new(self, Kind::Other("rbd_aio_flush"), Vec::new())?.started("rbd_aio_flush", |image, raw| {
            // SAFETY: an open image.
            unsafe { (self.functions().rbd_aio_flush)(image, raw) }
        })
    }
}

impl Completion {
    /// Of an operation that is not yet started.
    fn new(image: &Image, kind: Kind, buffer: Vec<u8>) -> Result<Self, Error> {
        let mut raw = rbd_completion_t::zeroed();
        // SAFETY: no callback; a place for the completion.
        unsafe { call!(image.functions(), rbd_aio_create_completion(std::ptr::null_mut(), None, &raw mut raw)) }?;
        Ok(Self { image: Arc::clone(&image.0), raw, kind, buffer })
    }

    /// Starts the operation. Where that fails there is nothing to wait for.
    fn started(
        mut self,
        name: &'static str,
        start: impl FnOnce(rbd_image_t, rbd_completion_t) -> c_int,
    ) -> Result<Self, Error> {
        let started = checked(name, start(self.image.raw, self.raw));
        if started.is_err() {
            self.release();
        }
        started.map(|_| self)
    }

    pub fn is_complete(&self) -> bool {
        // SAFETY: a completion that is not released.
        unsafe { (self.image.pool.functions().rbd_aio_is_complete)(self.raw) != 0 }
    }

    /// Waits until the operation is done, and gives its buffer back: what was read, or the data that was written.
    pub fn wait(mut self) -> Result<Vec<u8>, Error> {
        let code = self.waited();
        let mut buffer = mem::take(&mut self.buffer);
        self.release();
        match self.kind {
            Kind::Read => buffer.truncate(length_of("rbd_aio_read", code)?),
            Kind::Other(name) => drop(length_of(name, code)?),
        }
        Ok(buffer)
    }

    fn waited(&self) -> isize {
        let functions = self.image.pool.functions();
        // SAFETY: a completion of an operation that was started, not released. Its own code says nothing more than that.
        unsafe { (functions.rbd_aio_wait_for_complete)(self.raw) };
        // SAFETY: a completion that is done, not released.
        unsafe { (functions.rbd_aio_get_return_value)(self.raw) }
    }

    fn release(&mut self) {
        let raw = mem::replace(&mut self.raw, rbd_completion_t::zeroed());
        // SAFETY: of an operation that is done or was never started; released once, for `raw` is NULL from now on.
        unsafe { (self.image.pool.functions().rbd_aio_release)(raw) };
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        if !self.raw.0.is_null() {
            self.waited();
            self.release();
        }
    }
}

impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Completion({} bytes)", self.buffer.len())
    }
}
