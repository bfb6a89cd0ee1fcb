//! librbd and librados behind safe types, loaded at run time.
//!
//! The same binary serves directories on a host without Ceph, so nothing is linked: [`Ceph::load`] opens `librbd.so.1`, through
//! which the symbols of librados resolve as well, and says what to install where it is not there. `docs/decisions/0011` says
//! why no published crate does this.
//!
//! - **Declarations** are one table (`ffi`), from which come the Rust types, the loading, and a test that has the C compiler compare
//!   each with the installed headers. What only newer releases have is looked for by symbol, never by version.
//! - **Close order** is ownership: an [`Image`] holds its [`Pool`], a pool its [`Cluster`], an aio [`Completion`] its image and its buffer.
//! - **Errors** are made in one place ([`Error`]): the call and its errno. [`Error::kind`] names those that a caller decides by.
//! - **Callbacks** never unwind into C: a panic is kept, and goes on when the call is over.
//! - **Blocking**: every call but `aio_*` blocks on the cluster, for ever without [`Timeouts`], and `rbd_close` with them for up to
//!   three of them. librbd 16 can crash in `promote` and `disable` by force. So calls are made from worker processes, never
//!   from threads of a runtime; nothing here starts one.
//!
//! Names that C returns are shown with U+FFFD in the place of bytes that are not UTF-8; such an image can still be opened by its id.
#![expect(unsafe_code, reason = "this crate is the one place that calls librbd")]

mod callback;
mod cluster;
mod command;
mod error;
mod ffi;
mod image;
mod load;
mod object;
mod options;
mod pool;
mod reply;
mod secret;
mod text;
mod time;

pub use callback::Progress;
pub use cluster::{Cluster, Configuration, PoolEntry, Timeouts};
pub use command::{CommandError, CommandReply};
pub use error::{Errno, Error, ErrorKind};
pub use ffi::{
    GroupSnapshotState, ImageMode, ImageState, MirrorMode, PeerDirection, SnapshotMirrorState, SnapshotNamespace,
    StatusState, TrashSource,
};
pub use image::{
    Completion, DiffFrom, Extent, Force, GlobalStatus, GroupNamespace, Image, ImageInfo, LockOwner, MirrorInfo,
    MirrorNamespace, ObjectDetail, Parent, Quiesce, Shrink, SiteStatus, Snapshot, Watcher,
};
pub use load::{Ceph, LoadError, Version};
pub use object::{Condition, Lock, Locker, Lockers, Object, OmapChange, Renewal, Written};
pub use options::{Features, ImageOptions};
pub use pool::{
    Access, GroupImage, GroupSnapshot, ImageEntry, ImageRef, MirroredImage, Peer, PeerAttributes, Pool, TrashEntry,
};
pub use secret::Secret;
