//! The functions of `<rados/librados.h>` and `<rbd/librbd.h>` that are used.

use std::ffi::{c_char, c_int, c_uint, c_void};

use super::{enums::*, structs::*};
use crate::callback::DiffCallback;

functions! {
    required {
        // The cluster.
        fn rados_version(major: *mut c_int, minor: *mut c_int, extra: *mut c_int);
        fn rados_create2(cluster: *mut rados_t, cluster_name: *const c_char, name: *const c_char, flags: u64) -> c_int;
        fn rados_conf_read_file(cluster: rados_t, path: *const c_char) -> c_int;
        fn rados_conf_set(cluster: rados_t, option: *const c_char, value: *const c_char) -> c_int;
        fn rados_connect(cluster: rados_t) -> c_int;
        fn rados_shutdown(cluster: rados_t);
        fn rados_cluster_fsid(cluster: rados_t, buffer: *mut c_char, length: usize) -> c_int;
        fn rados_get_instance_id(cluster: rados_t) -> u64;
        fn rados_getaddrs(cluster: rados_t, addresses: *mut *mut c_char) -> c_int;
        fn rados_mon_command(cluster: rados_t, command: *mut *const c_char, commands: usize, input: *const c_char, input_length: usize,
            output: *mut *mut c_char, output_length: *mut usize, status: *mut *mut c_char, status_length: *mut usize) -> c_int;
        fn rados_mgr_command(cluster: rados_t, command: *mut *const c_char, commands: usize, input: *const c_char, input_length: usize,
            output: *mut *mut c_char, output_length: *mut usize, status: *mut *mut c_char, status_length: *mut usize) -> c_int;
        fn rados_buffer_free(buffer: *mut c_char);
        fn rados_blocklist_add(cluster: rados_t, address: *mut c_char, expire_seconds: c_uint) -> c_int;
        fn rados_pool_list(cluster: rados_t, buffer: *mut c_char, length: usize) -> c_int;
        fn rados_pool_lookup(cluster: rados_t, name: *const c_char) -> i64;
        fn rados_pool_reverse_lookup(cluster: rados_t, id: i64, buffer: *mut c_char, length: usize) -> c_int;

        // Pools and objects.
        fn rados_ioctx_create2(cluster: rados_t, pool: i64, io: *mut rados_ioctx_t) -> c_int;
        fn rados_ioctx_destroy(io: rados_ioctx_t);
        fn rados_ioctx_set_namespace(io: rados_ioctx_t, namespace: *const c_char);
        fn rados_remove(io: rados_ioctx_t, object: *const c_char) -> c_int;
        fn rados_exec(io: rados_ioctx_t, object: *const c_char, class: *const c_char, method: *const c_char,
            input: *const c_char, input_length: usize, output: *mut c_char, output_length: usize) -> c_int;
        fn rados_create_write_op() -> rados_write_op_t;
        fn rados_release_write_op(operation: rados_write_op_t);
        fn rados_write_op_assert_exists(operation: rados_write_op_t);
        fn rados_write_op_create(operation: rados_write_op_t, exclusive: c_int, category: *const c_char);
        fn rados_write_op_omap_cmp2(operation: rados_write_op_t, key: *const c_char, comparison: Octet, value: *const c_char,
            key_length: usize, value_length: usize, result: *mut c_int);
        fn rados_write_op_omap_set2(operation: rados_write_op_t, keys: *const *const c_char, values: *const *const c_char,
            key_lengths: *const usize, value_lengths: *const usize, count: usize);
        fn rados_write_op_omap_rm_keys2(operation: rados_write_op_t, keys: *const *const c_char, key_lengths: *const usize, count: usize);
        fn rados_write_op_operate2(operation: rados_write_op_t, io: rados_ioctx_t, object: *const c_char,
            modified: *mut libc::timespec, flags: c_int) -> c_int;
        fn rados_create_read_op() -> rados_read_op_t;
        fn rados_release_read_op(operation: rados_read_op_t);
        fn rados_read_op_omap_get_vals2(operation: rados_read_op_t, start_after: *const c_char, prefix: *const c_char, max: u64,
            iterator: *mut rados_omap_iter_t, more: *mut Octet, result: *mut c_int);
        fn rados_read_op_omap_get_vals_by_keys2(operation: rados_read_op_t, keys: *const *const c_char, count: usize,
            key_lengths: *const usize, iterator: *mut rados_omap_iter_t, result: *mut c_int);
        fn rados_read_op_operate(operation: rados_read_op_t, io: rados_ioctx_t, object: *const c_char, flags: c_int) -> c_int;
        fn rados_omap_get_next2(iterator: rados_omap_iter_t, key: *mut *mut c_char, value: *mut *mut c_char, key_length: *mut usize,
            value_length: *mut usize) -> c_int;
        fn rados_omap_get_end(iterator: rados_omap_iter_t);
        fn rados_lock_exclusive(io: rados_ioctx_t, object: *const c_char, name: *const c_char, cookie: *const c_char,
            description: *const c_char, duration: *mut libc::timeval, flags: Octet) -> c_int;
        fn rados_unlock(io: rados_ioctx_t, object: *const c_char, name: *const c_char, cookie: *const c_char) -> c_int;
        fn rados_break_lock(io: rados_ioctx_t, object: *const c_char, name: *const c_char, client: *const c_char,
            cookie: *const c_char) -> c_int;
        fn rados_list_lockers(io: rados_ioctx_t, object: *const c_char, name: *const c_char, exclusive: *mut c_int, tag: *mut c_char,
            tag_length: *mut usize, clients: *mut c_char, clients_length: *mut usize, cookies: *mut c_char, cookies_length: *mut usize,
            addresses: *mut c_char, addresses_length: *mut usize) -> isize;

        // Images of a pool.
        fn rbd_version(major: *mut c_int, minor: *mut c_int, extra: *mut c_int);
        fn rbd_list2(io: rados_ioctx_t, images: *mut rbd_image_spec_t, count: *mut usize) -> c_int;
        fn rbd_image_spec_list_cleanup(images: *mut rbd_image_spec_t, count: usize);
        fn rbd_image_options_create(options: *mut rbd_image_options_t);
        fn rbd_image_options_destroy(options: rbd_image_options_t);
        fn rbd_image_options_set_string(options: rbd_image_options_t, option: c_int, value: *const c_char) -> c_int;
        fn rbd_image_options_set_uint64(options: rbd_image_options_t, option: c_int, value: u64) -> c_int;
        fn rbd_create4(io: rados_ioctx_t, name: *const c_char, size: u64, options: rbd_image_options_t) -> c_int;
        fn rbd_clone3(parent_io: rados_ioctx_t, parent: *const c_char, snapshot: *const c_char, child_io: rados_ioctx_t,
            child: *const c_char, options: rbd_image_options_t) -> c_int;
        fn rbd_remove_with_progress(io: rados_ioctx_t, name: *const c_char, progress: librbd_progress_fn_t,
            argument: *mut c_void) -> c_int;
        fn rbd_rename(io: rados_ioctx_t, from: *const c_char, to: *const c_char) -> c_int;
        fn rbd_trash_move(io: rados_ioctx_t, name: *const c_char, delay: u64) -> c_int;
        fn rbd_trash_list(io: rados_ioctx_t, entries: *mut rbd_trash_image_info_t, count: *mut usize) -> c_int;
        fn rbd_trash_list_cleanup(entries: *mut rbd_trash_image_info_t, count: usize);
        fn rbd_trash_remove_with_progress(io: rados_ioctx_t, id: *const c_char, force: bool, progress: librbd_progress_fn_t,
            argument: *mut c_void) -> c_int;
        fn rbd_trash_restore(io: rados_ioctx_t, id: *const c_char, name: *const c_char) -> c_int;

        // Mirroring of a pool.
        fn rbd_mirror_site_name_get(cluster: rados_t, name: *mut c_char, length: *mut usize) -> c_int;
        fn rbd_mirror_site_name_set(cluster: rados_t, name: *const c_char) -> c_int;
        fn rbd_mirror_mode_get(io: rados_ioctx_t, mode: *mut rbd_mirror_mode_t) -> c_int;
        fn rbd_namespace_list(io: rados_ioctx_t, names: *mut c_char, size: *mut usize) -> c_int;
        fn rbd_mirror_mode_set(io: rados_ioctx_t, mode: rbd_mirror_mode_t) -> c_int;
        fn rbd_mirror_uuid_get(io: rados_ioctx_t, uuid: *mut c_char, length: *mut usize) -> c_int;
        fn rbd_mirror_peer_bootstrap_create(io: rados_ioctx_t, token: *mut c_char, length: *mut usize) -> c_int;
        fn rbd_mirror_peer_bootstrap_import(io: rados_ioctx_t, direction: rbd_mirror_peer_direction_t, token: *const c_char) -> c_int;
        fn rbd_mirror_peer_site_remove(io: rados_ioctx_t, uuid: *const c_char) -> c_int;
        fn rbd_mirror_peer_site_list(io: rados_ioctx_t, peers: *mut rbd_mirror_peer_site_t, count: *mut c_int) -> c_int;
        fn rbd_mirror_peer_site_list_cleanup(peers: *mut rbd_mirror_peer_site_t, count: c_int);
        fn rbd_mirror_peer_site_get_attributes(io: rados_ioctx_t, uuid: *const c_char, keys: *mut c_char, keys_length: *mut usize,
            values: *mut c_char, values_length: *mut usize, count: *mut usize) -> c_int;
        fn rbd_mirror_image_status_summary(io: rados_ioctx_t, states: *mut rbd_mirror_image_status_state_t, counts: *mut c_int,
            length: *mut usize) -> c_int;
        fn rbd_mirror_image_info_list(io: rados_ioctx_t, mode: *mut rbd_mirror_image_mode_t, start: *const c_char, max: usize,
            ids: *mut *mut c_char, modes: *mut rbd_mirror_image_mode_t, infos: *mut rbd_mirror_image_info_t, count: *mut usize) -> c_int;
        fn rbd_mirror_image_info_list_cleanup(ids: *mut *mut c_char, infos: *mut rbd_mirror_image_info_t, count: usize);

        // Groups.
        fn rbd_group_create(io: rados_ioctx_t, name: *const c_char) -> c_int;
        fn rbd_group_remove(io: rados_ioctx_t, name: *const c_char) -> c_int;
        fn rbd_group_list(io: rados_ioctx_t, names: *mut c_char, length: *mut usize) -> c_int;
        fn rbd_group_image_add(group_io: rados_ioctx_t, group: *const c_char, image_io: rados_ioctx_t, image: *const c_char) -> c_int;
        fn rbd_group_image_remove(group_io: rados_ioctx_t, group: *const c_char, image_io: rados_ioctx_t, image: *const c_char) -> c_int;
        fn rbd_group_image_list(io: rados_ioctx_t, group: *const c_char, images: *mut rbd_group_image_info_t, size: usize,
            count: *mut usize) -> c_int;
        fn rbd_group_image_list_cleanup(images: *mut rbd_group_image_info_t, size: usize, count: usize) -> c_int;
        fn rbd_group_snap_create2(io: rados_ioctx_t, group: *const c_char, snapshot: *const c_char, flags: c_uint) -> c_int;
        fn rbd_group_snap_remove(io: rados_ioctx_t, group: *const c_char, snapshot: *const c_char) -> c_int;
        fn rbd_group_snap_list(io: rados_ioctx_t, group: *const c_char, snapshots: *mut rbd_group_snap_info_t, size: usize,
            count: *mut usize) -> c_int;
        fn rbd_group_snap_list_cleanup(snapshots: *mut rbd_group_snap_info_t, size: usize, count: usize) -> c_int;

        // An image.
        fn rbd_open(io: rados_ioctx_t, name: *const c_char, image: *mut rbd_image_t, snapshot: *const c_char) -> c_int;
        fn rbd_open_by_id(io: rados_ioctx_t, id: *const c_char, image: *mut rbd_image_t, snapshot: *const c_char) -> c_int;
        fn rbd_open_read_only(io: rados_ioctx_t, name: *const c_char, image: *mut rbd_image_t, snapshot: *const c_char) -> c_int;
        fn rbd_open_by_id_read_only(io: rados_ioctx_t, id: *const c_char, image: *mut rbd_image_t, snapshot: *const c_char) -> c_int;
        fn rbd_close(image: rbd_image_t) -> c_int;
        fn rbd_stat(image: rbd_image_t, info: *mut rbd_image_info_t, size: usize) -> c_int;
        fn rbd_get_id(image: rbd_image_t, id: *mut c_char, length: usize) -> c_int;
        fn rbd_get_name(image: rbd_image_t, name: *mut c_char, length: *mut usize) -> c_int;
        fn rbd_get_size(image: rbd_image_t, size: *mut u64) -> c_int;
        fn rbd_get_features(image: rbd_image_t, features: *mut u64) -> c_int;
        fn rbd_get_parent(image: rbd_image_t, parent: *mut rbd_linked_image_spec_t, snapshot: *mut rbd_snap_spec_t) -> c_int;
        fn rbd_linked_image_spec_cleanup(image: *mut rbd_linked_image_spec_t);
        fn rbd_snap_spec_cleanup(snapshot: *mut rbd_snap_spec_t);
        fn rbd_flatten_with_progress(image: rbd_image_t, progress: librbd_progress_fn_t, argument: *mut c_void) -> c_int;
        fn rbd_resize2(image: rbd_image_t, size: u64, allow_shrink: bool, progress: librbd_progress_fn_t, argument: *mut c_void) -> c_int;
        fn rbd_copy_with_progress3(image: rbd_image_t, io: rados_ioctx_t, name: *const c_char, options: rbd_image_options_t,
            progress: librbd_progress_fn_t, argument: *mut c_void) -> c_int;
        fn rbd_metadata_get(image: rbd_image_t, key: *const c_char, value: *mut c_char, length: *mut usize) -> c_int;
        fn rbd_metadata_set(image: rbd_image_t, key: *const c_char, value: *const c_char) -> c_int;
        fn rbd_metadata_remove(image: rbd_image_t, key: *const c_char) -> c_int;
        fn rbd_metadata_list(image: rbd_image_t, start: *const c_char, max: u64, keys: *mut c_char, keys_length: *mut usize,
            values: *mut c_char, values_length: *mut usize) -> c_int;

        // Its snapshots.
        fn rbd_snap_list(image: rbd_image_t, snapshots: *mut rbd_snap_info_t, count: *mut c_int) -> c_int;
        fn rbd_snap_list_end(snapshots: *mut rbd_snap_info_t);
        fn rbd_snap_get_timestamp(image: rbd_image_t, id: u64, timestamp: *mut libc::timespec) -> c_int;
        fn rbd_snap_get_namespace_type(image: rbd_image_t, id: u64, namespace: *mut rbd_snap_namespace_type_t) -> c_int;
        fn rbd_snap_get_group_namespace(image: rbd_image_t, id: u64, group: *mut rbd_snap_group_namespace_t, size: usize) -> c_int;
        fn rbd_snap_group_namespace_cleanup(group: *mut rbd_snap_group_namespace_t, size: usize) -> c_int;
        fn rbd_snap_get_mirror_namespace(image: rbd_image_t, id: u64, mirror: *mut rbd_snap_mirror_namespace_t, size: usize) -> c_int;
        fn rbd_snap_mirror_namespace_cleanup(mirror: *mut rbd_snap_mirror_namespace_t, size: usize) -> c_int;
        fn rbd_snap_create2(image: rbd_image_t, name: *const c_char, flags: c_uint, progress: librbd_progress_fn_t,
            argument: *mut c_void) -> c_int;
        fn rbd_snap_remove2(image: rbd_image_t, name: *const c_char, flags: c_uint, progress: librbd_progress_fn_t,
            argument: *mut c_void) -> c_int;
        fn rbd_snap_remove_by_id(image: rbd_image_t, id: u64) -> c_int;
        fn rbd_snap_rollback_with_progress(image: rbd_image_t, name: *const c_char, progress: librbd_progress_fn_t,
            argument: *mut c_void) -> c_int;
        fn rbd_snap_set(image: rbd_image_t, name: *const c_char) -> c_int;
        fn rbd_snap_set_by_id(image: rbd_image_t, id: u64) -> c_int;

        // Who uses it.
        fn rbd_is_exclusive_lock_owner(image: rbd_image_t, is_owner: *mut c_int) -> c_int;
        fn rbd_lock_acquire(image: rbd_image_t, mode: rbd_lock_mode_t) -> c_int;
        fn rbd_lock_release(image: rbd_image_t) -> c_int;
        fn rbd_lock_get_owners(image: rbd_image_t, mode: *mut rbd_lock_mode_t, owners: *mut *mut c_char, count: *mut usize) -> c_int;
        fn rbd_lock_get_owners_cleanup(owners: *mut *mut c_char, count: usize);
        fn rbd_lock_break(image: rbd_image_t, mode: rbd_lock_mode_t, owner: *const c_char) -> c_int;
        fn rbd_watchers_list(image: rbd_image_t, watchers: *mut rbd_image_watcher_t, count: *mut usize) -> c_int;
        fn rbd_watchers_list_cleanup(watchers: *mut rbd_image_watcher_t, count: usize);

        // Its mirroring.
        fn rbd_mirror_image_enable2(image: rbd_image_t, mode: rbd_mirror_image_mode_t) -> c_int;
        fn rbd_mirror_image_disable(image: rbd_image_t, force: bool) -> c_int;
        fn rbd_mirror_image_promote(image: rbd_image_t, force: bool) -> c_int;
        fn rbd_mirror_image_demote(image: rbd_image_t) -> c_int;
        fn rbd_mirror_image_resync(image: rbd_image_t) -> c_int;
        fn rbd_mirror_image_create_snapshot2(image: rbd_image_t, flags: c_uint, id: *mut u64) -> c_int;
        fn rbd_mirror_image_get_info(image: rbd_image_t, info: *mut rbd_mirror_image_info_t, size: usize) -> c_int;
        fn rbd_mirror_image_get_info_cleanup(info: *mut rbd_mirror_image_info_t);
        fn rbd_mirror_image_get_mode(image: rbd_image_t, mode: *mut rbd_mirror_image_mode_t) -> c_int;
        fn rbd_mirror_image_get_global_status(image: rbd_image_t, status: *mut rbd_mirror_image_global_status_t, size: usize) -> c_int;
        fn rbd_mirror_image_global_status_cleanup(status: *mut rbd_mirror_image_global_status_t);
        fn rbd_mirror_image_get_instance_id(image: rbd_image_t, id: *mut c_char, length: *mut usize) -> c_int;

        // Its bytes.
        fn rbd_diff_iterate2(image: rbd_image_t, from: *const c_char, offset: u64, length: u64, include_parent: Octet,
            whole_object: Octet, callback: DiffCallback, argument: *mut c_void) -> c_int;
        fn rbd_read(image: rbd_image_t, offset: u64, length: usize, buffer: *mut c_char) -> isize;
        fn rbd_write(image: rbd_image_t, offset: u64, length: usize, buffer: *const c_char) -> isize;
        fn rbd_write_zeroes(image: rbd_image_t, offset: u64, length: usize, zero_flags: c_int, op_flags: c_int) -> isize;
        fn rbd_flush(image: rbd_image_t) -> c_int;
        fn rbd_aio_read(image: rbd_image_t, offset: u64, length: usize, buffer: *mut c_char, completion: rbd_completion_t) -> c_int;
        fn rbd_aio_write(image: rbd_image_t, offset: u64, length: usize, buffer: *const c_char, completion: rbd_completion_t) -> c_int;
        fn rbd_aio_write_zeroes(image: rbd_image_t, offset: u64, length: usize, completion: rbd_completion_t, zero_flags: c_int,
            op_flags: c_int) -> c_int;
        fn rbd_aio_flush(image: rbd_image_t, completion: rbd_completion_t) -> c_int;
        fn rbd_aio_create_completion(argument: *mut c_void, callback: Option<rbd_callback_t>, completion: *mut rbd_completion_t) -> c_int;
        fn rbd_aio_is_complete(completion: rbd_completion_t) -> c_int;
        fn rbd_aio_wait_for_complete(completion: rbd_completion_t) -> c_int;
        fn rbd_aio_get_return_value(completion: rbd_completion_t) -> isize;
        fn rbd_aio_release(completion: rbd_completion_t);
    }
    optional {
        // Since 18.2.7 and 19.2.3: from the id of a snapshot, so from those of groups and mirroring, too.
        fn rbd_diff_iterate3(image: rbd_image_t, from: u64, offset: u64, length: u64, flags: c_uint, callback: DiffCallback,
            argument: *mut c_void) -> c_int;
    }
}
