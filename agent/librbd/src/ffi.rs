//! The C declarations, as one table: `functions`, `structs`, `enums` and `constants`. Each macro makes the Rust side, and for the test
//! `headers` the list that a C compiler compares with the installed `<rbd/librbd.h>` and `<rados/librados.h>`.
//!
//! Only what is used is declared. Names are those of C.

#[macro_use]
mod tables;
mod constants;
mod enums;
mod functions;
#[cfg(test)]
mod headers;
#[cfg(test)]
mod spelling;
mod structs;

pub(crate) use constants::*;
pub(crate) use enums::{
    GroupImageState, LockMode, rbd_lock_mode_t, rbd_mirror_image_mode_t, rbd_mirror_image_status_state_t,
    rbd_mirror_mode_t, rbd_snap_namespace_type_t,
};
pub use enums::{
    GroupSnapshotState, ImageMode, ImageState, MirrorMode, PeerDirection, SnapshotMirrorState, SnapshotNamespace,
    StatusState, TrashSource,
};
pub(crate) use functions::Functions;
pub(crate) use structs::*;
