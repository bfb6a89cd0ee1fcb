//! Writing to the disk before it is waited for (`sync_file_range(2)`).
#![expect(unsafe_code, reason = "rustix does not wrap the call")]

use std::{fs::File, io, os::fd::AsRawFd};

/// Begins to write what is dirty of the range. That makes nothing durable. An error must not be passed over: a sync that
/// comes later may find nothing left to write (ext4, where blocks can't be allocated).
pub fn begin_writeback(file: &File, offset: u64, len: u64) -> io::Result<()> {
    sync_file_range(file, offset, len, libc::SYNC_FILE_RANGE_WRITE)
}

/// Writes all that is dirty and waits for it. That makes nothing durable: no disk is asked to empty its cache.
pub fn write_back(file: &File) -> io::Result<()> {
    const ALL: u32 = libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    const TO_THE_END: u64 = 0;
    sync_file_range(file, 0, TO_THE_END, ALL)
}

fn sync_file_range(file: &File, offset: u64, len: u64, flags: libc::c_uint) -> io::Result<()> {
    let (offset, len) = (offset.cast_signed(), len.cast_signed());
    // SAFETY: the descriptor is open, and the call takes integers.
    match unsafe { libc::sync_file_range(file.as_raw_fd(), offset, len, flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
