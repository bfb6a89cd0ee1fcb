//! Ranges of one byte sequence (a file's body, later an image or a device): what of a range the other side has already,
//! and the parts that say so. Pure: nothing here opens, reads or sends.
//!
//! A body moves in segments. For a segment the sink tells what its base holds, coarsest first: digests of 64 KiB leaves,
//! then of the 4 KiB pages of those leaves that differ, or an rsync signature where content has moved. None of these
//! short digests proves anything: they choose what to send, and the whole body is proved by its full digest at the end.

pub mod allocation;
pub mod block;
pub mod extents;
pub mod part;
pub mod shift;

pub use allocation::Allocation;
pub use part::{Copy, Part};

/// What one request for a part of a big body covers. With its parts' heads it fits into a frame.
pub const SEGMENT_BYTES: usize = 1 << 20;
/// First grain of comparison: 16 bytes of digest for each, 1/4096 of the content.
pub const LEAF_BYTES: usize = 64 << 10;
/// Second grain: a page of memory and a block of most file systems and databases.
pub const PAGE_BYTES: usize = 4 << 10;
