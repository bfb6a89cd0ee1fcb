//! Numbers of the headers.

use std::ffi::c_int;

constants! {
    required {
        // features.h
        const RBD_FEATURE_LAYERING: u64 = 1;
        const RBD_FEATURE_STRIPINGV2: u64 = 1 << 1;
        const RBD_FEATURE_EXCLUSIVE_LOCK: u64 = 1 << 2;
        const RBD_FEATURE_OBJECT_MAP: u64 = 1 << 3;
        const RBD_FEATURE_FAST_DIFF: u64 = 1 << 4;
        const RBD_FEATURE_DEEP_FLATTEN: u64 = 1 << 5;
        const RBD_FEATURE_JOURNALING: u64 = 1 << 6;
        const RBD_FEATURE_DATA_POOL: u64 = 1 << 7;
        const RBD_FEATURE_OPERATIONS: u64 = 1 << 8;
        const RBD_FEATURE_MIGRATING: u64 = 1 << 9;
        const RBD_FEATURE_NON_PRIMARY: u64 = 1 << 10;
        // librbd.h
        const RBD_IMAGE_OPTION_FEATURES: c_int = 1;
        const RBD_IMAGE_OPTION_ORDER: c_int = 2;
        const RBD_IMAGE_OPTION_DATA_POOL: c_int = 10;
        const RBD_IMAGE_OPTION_CLONE_FORMAT: c_int = 12;
        const RBD_SNAP_CREATE_SKIP_QUIESCE: u32 = 1;
        const RBD_SNAP_CREATE_IGNORE_QUIESCE_ERROR: u32 = 1 << 1;
        // librados.h
        const LIBRADOS_SNAP_HEAD: u64 = u64::MAX - 1;
        const LIBRADOS_CMPXATTR_OP_EQ: u8 = 1;
        const LIBRADOS_CREATE_EXCLUSIVE: c_int = 1;
        const LIBRADOS_LOCK_FLAG_MAY_RENEW: u8 = 1;
        const LIBRADOS_LOCK_FLAG_MUST_RENEW: u8 = 1 << 1;
    }
    newer {
        // librbd.h, with rbd_diff_iterate3
        const RBD_DIFF_ITERATE_FLAG_INCLUDE_PARENT: u32 = 1;
        const RBD_DIFF_ITERATE_FLAG_WHOLE_OBJECT: u32 = 1 << 1;
    }
}
