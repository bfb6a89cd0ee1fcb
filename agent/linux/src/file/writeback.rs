//! Writing to the disk before it is waited for (`sync_file_range(2)`).
#![expect(unsafe_code, reason = "rustix does not wrap the call")]

use std::{fs::File, os::fd::AsRawFd};

/// Begins to write what is dirty of the range. That makes nothing durable, and tells no error: a sync will do both.
pub fn begin_writeback(file: &File, offset: u64, len: u64) {
    let (offset, len) = (offset.cast_signed(), len.cast_signed());
    // SAFETY: the descriptor is open, and the call takes integers.
    let _ = unsafe { libc::sync_file_range(file.as_raw_fd(), offset, len, libc::SYNC_FILE_RANGE_WRITE) };
}
