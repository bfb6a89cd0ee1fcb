//! Handles, and structs that C fills.
#![expect(non_camel_case_types, reason = "the names of C")]

use std::ffi::{c_char, c_int, c_void};

use super::enums::{
    rbd_group_image_state_t, rbd_group_snap_state_t, rbd_mirror_image_state_t, rbd_mirror_image_status_state_t,
    rbd_mirror_peer_direction_t, rbd_snap_mirror_state_t, rbd_snap_namespace_type_t, rbd_trash_image_source_t,
};

/// What C may get as zeroed memory and fill in.
///
/// # Safety
/// All bytes zero is a value of the type.
pub(crate) unsafe trait Plain: Copy {
    fn zeroed() -> Self {
        // SAFETY: what the trait promises.
        unsafe { std::mem::zeroed() }
    }
}

// SAFETY: numbers.
unsafe impl Plain for u8 {}
// SAFETY: numbers.
unsafe impl Plain for c_int {}
// SAFETY: pointers may be NULL.
unsafe impl<T> Plain for *mut T {}

/// `uint8_t`, told from `char`, which is the same type in Rust on ARM.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct Octet(pub(crate) u8);

handles!(
    rados_t,
    rados_ioctx_t,
    rados_read_op_t,
    rados_write_op_t,
    rados_omap_iter_t,
    rbd_image_t,
    rbd_image_options_t,
    rbd_completion_t,
);

pub(crate) type librbd_progress_fn_t = unsafe extern "C" fn(u64, u64, *mut c_void) -> c_int;
pub(crate) type rbd_callback_t = unsafe extern "C" fn(rbd_completion_t, *mut c_void);

structs! {
    struct rbd_image_spec_t {
        id: *mut c_char,
        name: *mut c_char,
    }
    struct rbd_linked_image_spec_t {
        pool_id: i64,
        pool_name: *mut c_char,
        pool_namespace: *mut c_char,
        image_id: *mut c_char,
        image_name: *mut c_char,
        trash: bool,
    }
    struct rbd_snap_spec_t {
        id: u64,
        namespace_type: rbd_snap_namespace_type_t,
        name: *mut c_char,
    }
    struct rbd_snap_info_t {
        id: u64,
        size: u64,
        name: *const c_char,
    }
    struct rbd_image_info_t {
        size: u64,
        obj_size: u64,
        num_objs: u64,
        order: c_int,
        block_name_prefix: [c_char; 24],
        parent_pool: i64,
        parent_name: [c_char; 96],
    }
    struct rbd_mirror_peer_site_t {
        uuid: *mut c_char,
        direction: rbd_mirror_peer_direction_t,
        site_name: *mut c_char,
        mirror_uuid: *mut c_char,
        client_name: *mut c_char,
        last_seen: libc::time_t,
    }
    struct rbd_mirror_image_info_t {
        global_id: *mut c_char,
        state: rbd_mirror_image_state_t,
        primary: bool,
    }
    struct rbd_mirror_image_site_status_t {
        mirror_uuid: *mut c_char,
        state: rbd_mirror_image_status_state_t,
        description: *mut c_char,
        last_update: libc::time_t,
        up: bool,
    }
    struct rbd_mirror_image_global_status_t {
        name: *mut c_char,
        info: rbd_mirror_image_info_t,
        site_statuses_count: u32,
        site_statuses: *mut rbd_mirror_image_site_status_t,
    }
    struct rbd_group_image_info_t {
        name: *mut c_char,
        pool: i64,
        state: rbd_group_image_state_t,
    }
    struct rbd_group_snap_info_t {
        name: *mut c_char,
        state: rbd_group_snap_state_t,
    }
    struct rbd_snap_group_namespace_t {
        group_pool: i64,
        group_name: *mut c_char,
        group_snap_name: *mut c_char,
    }
    struct rbd_snap_mirror_namespace_t {
        state: rbd_snap_mirror_state_t,
        mirror_peer_uuids_count: usize,
        mirror_peer_uuids: *mut c_char,
        complete: bool,
        primary_mirror_uuid: *mut c_char,
        primary_snap_id: u64,
        last_copied_object_number: u64,
    }
    struct rbd_trash_image_info_t {
        id: *mut c_char,
        name: *mut c_char,
        source: rbd_trash_image_source_t,
        deletion_time: libc::time_t,
        deferment_end_time: libc::time_t,
    }
    struct rbd_image_watcher_t {
        addr: *mut c_char,
        id: i64,
        cookie: u64,
    }
}
