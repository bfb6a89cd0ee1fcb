//! What a new image is made with.

use std::{
    fmt,
    ops::{BitAnd, BitOr},
};

use crate::{
    Error,
    error::call,
    ffi::{
        Functions, Plain, RBD_FEATURE_DATA_POOL, RBD_FEATURE_DEEP_FLATTEN, RBD_FEATURE_EXCLUSIVE_LOCK,
        RBD_FEATURE_FAST_DIFF, RBD_FEATURE_JOURNALING, RBD_FEATURE_LAYERING, RBD_FEATURE_MIGRATING,
        RBD_FEATURE_NON_PRIMARY, RBD_FEATURE_OBJECT_MAP, RBD_FEATURE_OPERATIONS, RBD_FEATURE_STRIPINGV2,
        RBD_IMAGE_OPTION_CLONE_FORMAT, RBD_IMAGE_OPTION_DATA_POOL, RBD_IMAGE_OPTION_FEATURES, RBD_IMAGE_OPTION_ORDER,
        rbd_image_options_t,
    },
    text::to_c,
};

/// Features of an image, a set of bits.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Features(pub u64);

impl Features {
    pub const LAYERING: Self = Self(RBD_FEATURE_LAYERING);
    pub const STRIPING: Self = Self(RBD_FEATURE_STRIPINGV2);
    pub const EXCLUSIVE_LOCK: Self = Self(RBD_FEATURE_EXCLUSIVE_LOCK);
    pub const OBJECT_MAP: Self = Self(RBD_FEATURE_OBJECT_MAP);
    pub const FAST_DIFF: Self = Self(RBD_FEATURE_FAST_DIFF);
    pub const DEEP_FLATTEN: Self = Self(RBD_FEATURE_DEEP_FLATTEN);
    pub const JOURNALING: Self = Self(RBD_FEATURE_JOURNALING);
    pub const DATA_POOL: Self = Self(RBD_FEATURE_DATA_POOL);
    pub const OPERATIONS: Self = Self(RBD_FEATURE_OPERATIONS);
    pub const MIGRATING: Self = Self(RBD_FEATURE_MIGRATING);
    /// Set by mirroring on a secondary.
    pub const NON_PRIMARY: Self = Self(RBD_FEATURE_NON_PRIMARY);

    pub fn contains(self, other: Self) -> bool {
        self & other == other
    }
}

impl BitOr for Features {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitAnd for Features {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl fmt::Debug for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Features({:#x})", self.0)
    }
}

/// What a new image is made with; what is `None` is the cluster's default (for a clone or copy: that of its parent where Ceph
/// has it so).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageOptions {
    pub features: Option<Features>,
    /// Objects of 2^order bytes.
    pub order: Option<u8>,
    /// Where the data goes, when not to the image's own pool.
    pub data_pool: Option<String>,
    /// 2 for a clone of a snapshot that is not protected.
    pub clone_format: Option<u64>,
}

/// The options in C.
pub(crate) struct RawOptions<'a> {
    functions: &'a Functions,
    pub(crate) raw: rbd_image_options_t,
}

impl<'a> RawOptions<'a> {
    pub(crate) fn new(functions: &'a Functions, options: &ImageOptions) -> Result<Self, Error> {
        let mut raw = rbd_image_options_t::zeroed();
        // SAFETY: a place for the handle.
        unsafe { (functions.rbd_image_options_create)(&raw mut raw) };
        let this = Self { functions, raw };
        let numbers = [
            (RBD_IMAGE_OPTION_FEATURES, options.features.map(|features| features.0)),
            (RBD_IMAGE_OPTION_ORDER, options.order.map(u64::from)),
            (RBD_IMAGE_OPTION_CLONE_FORMAT, options.clone_format),
        ];
        for (option, value) in numbers {
            let Some(value) = value else { continue };
            // SAFETY: the options were made above.
            unsafe { call!(functions, rbd_image_options_set_uint64(raw, option, value)) }?;
        }
        if let Some(pool) = &options.data_pool {
            let pool = to_c("rbd_image_options_set_string", pool)?;
            // SAFETY: the options were made above; a C string.
            unsafe { call!(functions, rbd_image_options_set_string(raw, RBD_IMAGE_OPTION_DATA_POOL, pool.as_ptr())) }?;
        }
        Ok(this)
    }
}

impl Drop for RawOptions<'_> {
    fn drop(&mut self) {
        // SAFETY: made by rbd_image_options_create, destroyed once.
        unsafe { (self.functions.rbd_image_options_destroy)(self.raw) };
    }
}

#[test]
fn sets_of_features() {
    // What `rbd create` makes by default.
    let default = Features(61);
    assert!(default.contains(Features::LAYERING | Features::EXCLUSIVE_LOCK | Features::FAST_DIFF));
    assert!(!default.contains(Features::JOURNALING) && !default.contains(Features::LAYERING | Features::NON_PRIMARY));
    assert_eq!(format!("{default:?}"), "Features(0x3d)");
}
