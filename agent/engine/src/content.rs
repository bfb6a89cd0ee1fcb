//! Ranges of one byte sequence (a file's body, later an image or a device): what of a range the other side has already,
//! and the parts that say so. Pure: nothing here opens, reads or sends.
//!
//! A body moves in segments. For a segment the sink tells what its base holds, coarsest first: digests of 64 KiB leaves,
//! then of the 4 KiB pages of those leaves that differ, or an rsync signature where content has moved. None of these
//! short digests proves anything: they choose what to send, and the whole body is proved by its full digest at the end.
//! Of a block volume the source may know the pages of what the base holds by their chaining values (`pages`): then nothing is
//! asked, and the new leaves are proved without reading the base.

use std::ops::Range;

pub mod allocation;
pub mod block;
pub mod extents;
pub mod pages;
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

/// The same ranges, in order and not touching each other.
pub(crate) fn merged(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}
