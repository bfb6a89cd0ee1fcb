//! Reading and writing past the page cache (`O_DIRECT`, `open(2)`).

use std::{
    cell::RefCell,
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd},
        unix::fs::FileExt,
    },
};

use rustix::fs::{CWD, Mode, OFlags};

use crate::{DeviceKind, FilesystemType, Kind, stat::stat_at};

/// Blocks of every device are a power of two of at most so many bytes.
pub const ALIGNMENT: usize = 4096;
/// Smaller writes wait longer for the disk than the page cache costs.
const WRITE_BYTES_MIN: usize = 256 << 10;

thread_local! {
    static ALIGNED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Gives `work` the thread's buffer, of `len` bytes from an aligned address on.
fn with_aligned<T>(len: usize, work: impl FnOnce(&mut [u8]) -> T) -> T {
    ALIGNED.with_borrow_mut(|room| {
        if room.len() < len + ALIGNMENT {
            room.resize(len + ALIGNMENT, 0);
        }
        let first = room.as_ptr().align_offset(ALIGNMENT);
        work(&mut room[first..first + len])
    })
}

/// Whether the file was opened with `O_DIRECT`: each read waits for the disk, and short ones most of their time.
pub fn is_direct(file: &File) -> io::Result<bool> {
    Ok(rustix::fs::fcntl_getfl(file)?.contains(OFlags::DIRECT))
}

/// `pread(2)`, also of a file that was opened with `O_DIRECT`, whatever the buffer, the offset and the length are.
pub fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    if are_whole_blocks(buffer, offset) || !is_direct(file)? {
        return file.read_at(buffer, offset);
    }
    let skipped = (offset % ALIGNMENT as u64) as usize;
    let span = (skipped + buffer.len()).next_multiple_of(ALIGNMENT);
    with_aligned(span, |aligned| {
        let read = file.read_at(aligned, offset - skipped as u64)?;
        let got = read.saturating_sub(skipped).min(buffer.len());
        buffer[..got].copy_from_slice(&aligned[skipped..skipped + got]);
        Ok(got)
    })
}

/// An aligned address, offset and length.
fn are_whole_blocks(buffer: &[u8], offset: u64) -> bool {
    buffer.as_ptr().addr().is_multiple_of(ALIGNMENT)
        && buffer.len().is_multiple_of(ALIGNMENT)
        && offset.is_multiple_of(ALIGNMENT as u64)
}

/// A file's second descriptor, for long writes of what nobody reads soon: they neither fill the page cache nor wait for it
/// to be written back, and several go on at the same time.
#[derive(Debug)]
pub struct DirectWriter(File);

impl DirectWriter {
    /// `None` where it would serve nothing: on file systems that have no such writes, or (btrfs) neither compress nor check them.
    pub fn of(file: &File) -> io::Result<Option<Self>> {
        if !matches!(FilesystemType::of(file)?, FilesystemType::Ext | FilesystemType::Xfs) {
            return Ok(None);
        }
        // Whatever keeps it from being opened, there is the page cache.
        Ok(Self::reopen(file).ok())
    }

    /// Of a block device; `None` of everything else. Its write counters (`device`) move by what is written, and by nothing
    /// twice or not at all, which the page cache doesn't promise.
    pub fn of_device(file: &File) -> io::Result<Option<Self>> {
        match stat_at(file.as_fd(), b"")?.kind {
            // What goes through the page cache instead moves the counters further, which only costs trust.
            Kind::Device(DeviceKind::Block) => Ok(Self::reopen(file).ok()),
            _ => Ok(None),
        }
    }

    fn reopen(file: &File) -> io::Result<Self> {
        let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
        let flags = OFlags::WRONLY | OFlags::DIRECT | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::openat(CWD, path, flags, Mode::empty())?.into()))
    }

    /// Whole blocks: offset and length are multiples of [`ALIGNMENT`]. `false` where the device's are larger: nothing was written.
    pub fn write_at(&self, data: &[u8], offset: u64) -> io::Result<bool> {
        let written = with_aligned(data.len(), |aligned| {
            aligned.copy_from_slice(data);
            self.0.write_all_at(aligned, offset)
        });
        match written {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(false),
            written => written.map(|()| true),
        }
    }

    /// Writes as many whole blocks from the start of `data` as is worth it and returns how many bytes these were; the rest
    /// is the caller's.
    pub fn write_blocks_at(&self, data: &[u8], offset: u64) -> io::Result<usize> {
        let len = data.len() / ALIGNMENT * ALIGNMENT;
        if len < WRITE_BYTES_MIN || !offset.is_multiple_of(ALIGNMENT as u64) {
            return Ok(0);
        }
        let written = with_aligned(len, |aligned| {
            aligned.copy_from_slice(&data[..len]);
            self.0.write_all_at(aligned, offset)
        });
        match written {
            // Blocks of this file system are larger.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(0),
            written => written.map(|()| len),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_blocks_are_written_and_the_rest_is_left() {
        let file = tempfile::tempfile_in("/var/tmp").unwrap();
        let Some(direct) = DirectWriter::of(&file).unwrap() else {
            panic!("the tests' temporary directory is on no file system with direct writes");
        };
        let data: Vec<u8> = (0..WRITE_BYTES_MIN + 5000).map(|n| (n % 251) as u8).collect();
        assert_eq!(direct.write_blocks_at(&data, 100).unwrap(), 0);
        assert_eq!(direct.write_blocks_at(&data[..4096], 0).unwrap(), 0);
        let written = direct.write_blocks_at(&data[1..], 8192).unwrap();
        assert_eq!(written, WRITE_BYTES_MIN + 4096);
        let mut read = vec![0; written];
        file.read_exact_at(&mut read, 8192).unwrap();
        assert_eq!(read, data[1..=written]);
    }
}
