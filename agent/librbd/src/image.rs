//! An open image.

mod completion;
mod content;
mod diff;
mod metadata;
mod mirroring;
mod snapshots;
mod users;

use std::{ffi::c_int, fmt, sync::Arc};

use crate::{
    Error, ErrorKind, Features, ImageOptions, Pool, Progress, SnapshotNamespace,
    callback::with_progress,
    error::{call, checked},
    ffi::{Functions, Plain, rbd_image_info_t, rbd_image_t, rbd_linked_image_spec_t, rbd_snap_spec_t},
    options::RawOptions,
    reply::filled_one,
    text::{first_of, from_c, to_c},
};

pub use completion::Completion;
pub use diff::{DiffFrom, Extent, ObjectDetail};
pub use mirroring::{GlobalStatus, MirrorInfo, SiteStatus};
pub use snapshots::{GroupNamespace, MirrorNamespace, Quiesce, Snapshot};
pub use users::{LockOwner, Watcher};

/// An open image; keeps its pool and the connection. Made by [`Pool::open`].
///
/// librbd locks what belongs to a handle, so it may be used from several threads; only [`Image::set_snapshot`] and its like, which
/// change what all the others see, ask for it alone.
pub struct Image(pub(crate) Arc<ImageHandle>);

pub(crate) struct ImageHandle {
    pub(crate) pool: Pool,
    pub(crate) raw: rbd_image_t,
    is_open: bool,
}

// SAFETY: the functions of librbd lock the image's state themselves and may be called from any thread.
unsafe impl Send for ImageHandle {}
// SAFETY: as above.
unsafe impl Sync for ImageHandle {}

impl ImageHandle {
    fn close(&mut self) -> Result<(), Error> {
        self.is_open = false;
        // SAFETY: open until now; nothing else uses it. The handle is gone whatever the code is.
        unsafe { call!(self.pool.functions(), rbd_close(self.raw)) }.map(drop)
    }
}

impl Drop for ImageHandle {
    fn drop(&mut self) {
        if self.is_open {
            // Whoever wants the error calls `Image::close`.
            let _ = self.close();
        }
    }
}

/// Whether a verb is forced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    No,
    Yes,
}

/// Whether a resize may cut off data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shrink {
    /// Invalid for a smaller size.
    Refused,
    Allowed,
}

/// Size and layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageInfo {
    pub size_bytes: u64,
    pub object_bytes: u64,
    pub objects: u64,
    /// Objects are 2^order bytes.
    pub order: u8,
}

/// What a clone was made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    pub pool_id: i64,
    pub pool: String,
    pub namespace: String,
    pub image_id: String,
    pub image: String,
    pub is_in_trash: bool,
    pub snapshot_id: u64,
    pub snapshot: String,
    pub snapshot_namespace: SnapshotNamespace,
}

impl Image {
    /// Opens with one of the functions of that family.
    pub(crate) fn opened(
        pool: &Pool,
        call: &'static str,
        open: impl FnOnce(*mut rbd_image_t) -> c_int,
    ) -> Result<Self, Error> {
        let mut raw = rbd_image_t::zeroed();
        checked(call, open(&raw mut raw))?;
        Ok(Self(Arc::new(ImageHandle { pool: pool.clone(), raw, is_open: true })))
    }

    fn functions(&self) -> &Functions {
        self.0.pool.functions()
    }

    fn raw(&self) -> rbd_image_t {
        self.0.raw
    }

    pub fn pool(&self) -> &Pool {
        &self.0.pool
    }

    /// Closes the image and says whether that worked; dropping closes as well. Takes up to three timeouts on a hung cluster.
    ///
    /// Busy: completions are outstanding; the last of them closes the image.
    pub fn close(self) -> Result<(), Error> {
        match Arc::try_unwrap(self.0) {
            Ok(mut handle) => handle.close(),
            Err(_) => Err(Error::new("rbd_close", libc::EBUSY)),
        }
    }

    /// Size and layout, of the snapshot where one is set.
    pub fn stat(&self) -> Result<ImageInfo, Error> {
        let mut info = rbd_image_info_t::zeroed();
        // SAFETY: an open image, a struct of that size.
        unsafe { call!(self.functions(), rbd_stat(self.raw(), &raw mut info, size_of::<rbd_image_info_t>())) }?;
        Ok(ImageInfo {
            size_bytes: info.size,
            object_bytes: info.obj_size,
            objects: info.num_objs,
            order: u8::try_from(info.order).map_err(|_| Error::new("rbd_stat", libc::EINVAL))?,
        })
    }

    pub fn size_bytes(&self) -> Result<u64, Error> {
        let mut size = 0;
        // SAFETY: an open image, a number to fill in.
        unsafe { call!(self.functions(), rbd_get_size(self.raw(), &raw mut size)) }?;
        Ok(size)
    }

    pub fn features(&self) -> Result<Features, Error> {
        let mut features = 0;
        // SAFETY: an open image, a number to fill in.
        unsafe { call!(self.functions(), rbd_get_features(self.raw(), &raw mut features)) }?;
        Ok(Features(features))
    }

    /// The name of the image's objects; another one after a resync.
    pub fn id(&self) -> Result<String, Error> {
        let buffer = filled_one::<u8>("rbd_get_id", 64, |buffer, length| {
            // SAFETY: an open image; a buffer of that length.
            unsafe { (self.functions().rbd_get_id)(self.raw(), buffer.cast(), *length) }.into()
        })?;
        Ok(first_of(&buffer))
    }

    pub fn name(&self) -> Result<String, Error> {
        let buffer = filled_one::<u8>("rbd_get_name", 128, |buffer, length| {
            // SAFETY: an open image; a buffer of that length.
            unsafe { (self.functions().rbd_get_name)(self.raw(), buffer.cast(), length) }.into()
        })?;
        Ok(first_of(&buffer))
    }

    /// What the image is a clone of, if it is one.
    pub fn parent(&self) -> Result<Option<Parent>, Error> {
        let mut image = rbd_linked_image_spec_t::zeroed();
        let mut snapshot = rbd_snap_spec_t::zeroed();
        // SAFETY: an open image, two structs to fill in.
        let found = unsafe { call!(self.functions(), rbd_get_parent(self.raw(), &raw mut image, &raw mut snapshot)) };
        match found {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
            Ok(_) => (),
        }
        // SAFETY: filled by rbd_get_parent, not freed yet.
        let parent = unsafe { parent_of(&image, &snapshot) };
        // SAFETY: what rbd_get_parent filled, freed once.
        unsafe { (self.functions().rbd_linked_image_spec_cleanup)(&raw mut image) };
        // SAFETY: what rbd_get_parent filled, freed once.
        unsafe { (self.functions().rbd_snap_spec_cleanup)(&raw mut snapshot) };
        Ok(Some(parent))
    }

    /// Copies what the image has of its parent, after which it stands alone. Invalid: it is no clone. ReadOnly: non-primary.
    pub fn flatten(&self, progress: &mut Progress<'_>) -> Result<(), Error> {
        with_progress(progress, |callback, argument| {
            // SAFETY: an open image; the callback and its argument outlive the call.
            unsafe { call!(self.functions(), rbd_flatten_with_progress(self.raw(), callback, argument)) }
        })
        .map(drop)
    }

    /// ReadOnly: non-primary, or opened read-only. Invalid: smaller, and [`Shrink::Refused`].
    pub fn resize(&self, size_bytes: u64, shrink: Shrink, progress: &mut Progress<'_>) -> Result<(), Error> {
        let shrink = shrink == Shrink::Allowed;
        with_progress(progress, |callback, argument| {
            // SAFETY: an open image; the callback and its argument outlive the call.
            unsafe { call!(self.functions(), rbd_resize2(self.raw(), size_bytes, shrink, callback, argument)) }
        })
        .map(drop)
    }

    /// Copies the image as it is now, or the snapshot that is set, to a new image without snapshots (`rbd_copy_with_progress3`).
    /// Exists: the name is taken.
    pub fn copy_to(
        &self,
        target: &Pool,
        name: &str,
        options: &ImageOptions,
        progress: &mut Progress<'_>,
    ) -> Result<(), Error> {
        let name = to_c("rbd_copy_with_progress3", name)?;
        let options = RawOptions::new(self.functions(), options)?;
        with_progress(progress, |callback, argument| {
            // SAFETY: an open image, a pool of the same library, a C string, options; the callback and its argument outlive the call.
            unsafe {
                call!(
                    self.functions(),
                    rbd_copy_with_progress3(self.raw(), target.0.raw, name.as_ptr(), options.raw, callback, argument)
                )
            }
        })
        .map(drop)
    }
}

/// # Safety
/// Both were filled by `rbd_get_parent` and not freed.
unsafe fn parent_of(image: &rbd_linked_image_spec_t, snapshot: &rbd_snap_spec_t) -> Parent {
    Parent {
        pool_id: image.pool_id,
        // SAFETY: a C string of librbd.
        pool: unsafe { from_c(image.pool_name) },
        // SAFETY: a C string of librbd.
        namespace: unsafe { from_c(image.pool_namespace) },
        // SAFETY: a C string of librbd.
        image_id: unsafe { from_c(image.image_id) },
        // SAFETY: a C string of librbd.
        image: unsafe { from_c(image.image_name) },
        is_in_trash: image.trash,
        snapshot_id: snapshot.id,
        // SAFETY: a C string of librbd.
        snapshot: unsafe { from_c(snapshot.name) },
        snapshot_namespace: snapshot.namespace_type.into(),
    }
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Image({:?}, {:?})", self.pool(), self.name())
    }
}
