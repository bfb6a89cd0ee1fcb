//! Images of a pool, by name.

use crate::{
    Error, Image, ImageOptions, Pool, Progress,
    callback::with_progress,
    error::call,
    ffi::{RBD_FEATURE_NON_PRIMARY, rbd_image_spec_t},
    options::RawOptions,
    reply::filled_one,
    text::{from_c, to_c},
};

/// An image in the list of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageEntry {
    /// Stays when the image is renamed; another one after a resync.
    pub id: String,
    pub name: String,
}

/// An image by what is known of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageRef<'a> {
    Name(&'a str),
    Id(&'a str),
}

/// How an image is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// With a watch: others see this connection among the watchers.
    ReadWrite,
    /// Without a watch: what is known of size and snapshots grows stale. Open again for each look.
    ReadOnly,
}

impl Pool {
    /// Opens an image (5 to 10 ms).
    ///
    /// NotFound: no such image. A handle that outlives a resync of its image reads zeros.
    pub fn open(&self, image: ImageRef<'_>, access: Access) -> Result<Image, Error> {
        Image::open(self, image, access, None)
    }

    /// Opens a user snapshot of an image, read-only. NotFound: no such image or snapshot. Snapshots of groups and of mirroring are
    /// chosen by [`Image::set_snapshot_by_id`].
    pub fn open_at(&self, image: ImageRef<'_>, snapshot: &str) -> Result<Image, Error> {
        Image::open(self, image, Access::ReadOnly, Some(snapshot))
    }

    /// All images that are not in the trash (`rbd_list2`).
    pub fn images(&self) -> Result<Vec<ImageEntry>, Error> {
        let mut images = filled_one::<rbd_image_spec_t>("rbd_list2", 256, |images, count| {
            // SAFETY: a pool; an array of that many entries.
            unsafe { (self.functions().rbd_list2)(self.0.raw, images, count) }.into()
        })?;
        let entry = |image: &rbd_image_spec_t| ImageEntry {
            // SAFETY: a C string of librbd.
            id: unsafe { from_c(image.id) },
            // SAFETY: a C string of librbd.
            name: unsafe { from_c(image.name) },
        };
        let entries = images.iter().map(entry).collect();
        // SAFETY: what rbd_list2 filled, freed once.
        unsafe { (self.functions().rbd_image_spec_list_cleanup)(images.as_mut_ptr(), images.len()) };
        Ok(entries)
    }

    /// A new image of `size` bytes, all zero (`rbd_create4`). Exists: the name is taken.
    pub fn create(&self, name: &str, size: u64, options: &ImageOptions) -> Result<(), Error> {
        let name = to_c("rbd_create4", name)?;
        let options = RawOptions::new(self.functions(), options)?;
        // SAFETY: a pool, a C string, options.
        unsafe { call!(self.functions(), rbd_create4(self.0.raw, name.as_ptr(), size, options.raw)) }.map(drop)
    }

    /// A clone named `child` in `target` of a user snapshot of an image here (`rbd_clone3`, 20 to 40 ms); works on a non-primary image
    /// while replication goes on.
    ///
    /// With `clone_format` 2 the snapshot need not be protected. NotFound: no such image or snapshot. Exists: the name is taken.
    /// Invalid: format 1 and not protected.
    pub fn clone_snapshot(
        &self,
        parent: &str,
        snapshot: &str,
        target: &Self,
        child: &str,
        options: &ImageOptions,
    ) -> Result<(), Error> {
        let (parent, snapshot) = (to_c("rbd_clone3", parent)?, to_c("rbd_clone3", snapshot)?);
        let child = to_c("rbd_clone3", child)?;
        let options = RawOptions::new(self.functions(), options)?;
        // SAFETY: two pools of one library, C strings, options.
        unsafe {
            call!(
                self.functions(),
                rbd_clone3(self.0.raw, parent.as_ptr(), snapshot.as_ptr(), target.0.raw, child.as_ptr(), options.raw)
            )
        }
        .map(drop)
    }

    /// Removes an image for good (`rbd_remove_with_progress`).
    ///
    /// NotFound. Busy: open elsewhere, by rbd-mirror, too. NotEmpty: it has snapshots. Invalid: a mirrored secondary.
    pub fn remove(&self, name: &str, progress: &mut Progress<'_>) -> Result<(), Error> {
        let name = to_c("rbd_remove_with_progress", name)?;
        with_progress(progress, |callback, argument| {
            // SAFETY: a pool, a C string; the callback and its argument outlive the call.
            unsafe { call!(self.functions(), rbd_remove_with_progress(self.0.raw, name.as_ptr(), callback, argument)) }
        })
        .map(drop)
    }

    /// Sets or clears the mark of a secondary, which librbd makes an image read-only by, and without which it can be renamed. The method
    /// of the OSDs is the one that librbd itself promotes and demotes by (`set_features` of `cls_rbd`). NotFound: no image with this id.
    pub fn mark_non_primary(&self, image_id: &str, is_non_primary: bool) -> Result<(), Error> {
        let header = to_c("rados_exec", &format!("rbd_header.{image_id}"))?;
        let mask = RBD_FEATURE_NON_PRIMARY;
        let features = if is_non_primary { mask } else { 0 };
        let input = [features.to_le_bytes(), mask.to_le_bytes()].concat();
        let (class, method) = (c"rbd".as_ptr(), c"set_features".as_ptr());
        let (functions, io, object) = (self.functions(), self.0.raw, header.as_ptr());
        let no_output = std::ptr::null_mut();
        // SAFETY: a pool, C strings, a buffer of that length, and none for an answer that there is not.
        unsafe {
            call!(functions, rados_exec(io, object, class, method, input.as_ptr().cast(), input.len(), no_output, 0))
        }
        .map(drop)
    }

    /// Another name in the same pool; whoever has the image open keeps it. NotFound. Exists: the name is taken.
    pub fn rename(&self, from: &str, to: &str) -> Result<(), Error> {
        let (from, to) = (to_c("rbd_rename", from)?, to_c("rbd_rename", to)?);
        // SAFETY: a pool, C strings.
        unsafe { call!(self.functions(), rbd_rename(self.0.raw, from.as_ptr(), to.as_ptr())) }.map(drop)
    }
}

impl Image {
    fn open(pool: &Pool, image: ImageRef<'_>, access: Access, snapshot: Option<&str>) -> Result<Self, Error> {
        let functions = pool.functions();
        let (name, open, text) = match (image, access) {
            (ImageRef::Name(text), Access::ReadWrite) => ("rbd_open", functions.rbd_open, text),
            (ImageRef::Name(text), Access::ReadOnly) => ("rbd_open_read_only", functions.rbd_open_read_only, text),
            (ImageRef::Id(text), Access::ReadWrite) => ("rbd_open_by_id", functions.rbd_open_by_id, text),
            (ImageRef::Id(text), Access::ReadOnly) => {
                ("rbd_open_by_id_read_only", functions.rbd_open_by_id_read_only, text)
            }
        };
        let text = to_c(name, text)?;
        let snapshot = snapshot.map(|snapshot| to_c(name, snapshot)).transpose()?;
        Image::opened(pool, name, |raw| {
            let snapshot = snapshot.as_ref().map_or(std::ptr::null(), |snapshot| snapshot.as_ptr());
            // SAFETY: a pool, a C string, a place for the handle, a C string or NULL.
            unsafe { open(pool.0.raw, text.as_ptr(), raw, snapshot) }
        })
    }
}
