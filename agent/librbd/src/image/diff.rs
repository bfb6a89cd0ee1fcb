//! What changed between two snapshots.

use std::ops::ControlFlow;

use super::Image;
use crate::{
    Error,
    callback::{Collector, with_collector},
    error::{call, checked},
    ffi::{Octet, RBD_DIFF_ITERATE_FLAG_INCLUDE_PARENT, RBD_DIFF_ITERATE_FLAG_WHOLE_OBJECT},
    text::to_c,
};

/// A range that differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    pub offset: u64,
    pub length: u64,
    /// `false`: zeros now. Data that exists may be zeros as well.
    pub exists: bool,
}

/// Where a diff begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiffFrom<'a> {
    /// An image that was all zero: everything that is allocated.
    Nothing,
    /// A user snapshot.
    Name(&'a str),
    /// A snapshot of any namespace. Only where [`crate::Ceph::can_diff_from_id`]; else ENOSYS (38).
    Id(u64),
}

/// How exact a diff is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectDetail {
    /// Ranges inside objects, in blocks of 4 KiB and more: asks the OSDs for each object that changed.
    Ranges,
    /// Whole objects, from the object map (fast-diff): faster; partly zeroed ones count as data.
    Whole,
}

impl Image {
    /// Calls `collect` for each range of `offset..offset + length` that differs between `from` and what the image shows now (itself,
    /// or the snapshot that is set), with what a clone has of its parent. Ranges come in order of their offset; those of the part that a
    /// shrink cut off do not come. `collect` must not call librbd: do I/O afterwards.
    ///
    /// `Break`: `collect` asked for the end. NotFound: no such snapshot. Invalid: it is newer than what the image shows.
    pub fn diff(
        &self,
        from: DiffFrom<'_>,
        (offset, length): (u64, u64),
        detail: ObjectDetail,
        collect: &mut (dyn FnMut(Extent) -> ControlFlow<()> + Send),
    ) -> Result<ControlFlow<()>, Error> {
        let (result, flow) = match from {
            DiffFrom::Nothing => self.diff_from_name(None, (offset, length), detail, collect)?,
            DiffFrom::Name(name) => self.diff_from_name(Some(name), (offset, length), detail, collect)?,
            DiffFrom::Id(id) => self.diff_from_id(id, (offset, length), detail, collect)?,
        };
        match flow {
            ControlFlow::Break(()) => Ok(flow),
            ControlFlow::Continue(()) => result.map(|_| flow),
        }
    }

    fn diff_from_name(
        &self,
        from: Option<&str>,
        (offset, length): (u64, u64),
        detail: ObjectDetail,
        collect: &mut Collector<'_>,
    ) -> Result<(Result<u64, Error>, ControlFlow<()>), Error> {
        let from = from.map(|from| to_c("rbd_diff_iterate2", from)).transpose()?;
        let from = from.as_ref().map_or(std::ptr::null(), |from| from.as_ptr());
        let whole = Octet(u8::from(detail == ObjectDetail::Whole));
        Ok(with_collector(collect, |callback, argument| {
            // SAFETY: an open image, a C string or NULL; the callback and its argument outlive the call.
            unsafe {
                call!(
                    self.functions(),
                    rbd_diff_iterate2(self.raw(), from, offset, length, Octet(1), whole, callback, argument)
                )
            }
        }))
    }

    fn diff_from_id(
        &self,
        from: u64,
        (offset, length): (u64, u64),
        detail: ObjectDetail,
        collect: &mut Collector<'_>,
    ) -> Result<(Result<u64, Error>, ControlFlow<()>), Error> {
        let Some(diff) = self.functions().rbd_diff_iterate3 else {
            return Err(Error::new("rbd_diff_iterate3", libc::ENOSYS));
        };
        let flags = RBD_DIFF_ITERATE_FLAG_INCLUDE_PARENT
            | if detail == ObjectDetail::Whole { RBD_DIFF_ITERATE_FLAG_WHOLE_OBJECT } else { 0 };
        Ok(with_collector(collect, |callback, argument| {
            // SAFETY: an open image; the callback and its argument outlive the call.
            let code = unsafe { diff(self.raw(), from, offset, length, flags, callback, argument) };
            checked("rbd_diff_iterate3", code)
        }))
    }
}
