//! What is done with an open file's content: cloning, copying, holes, the page cache.

mod direct;
mod lease;
mod writeback;

use std::{
    fs::File,
    io,
    num::NonZeroU64,
    os::{fd::AsFd, unix::fs::FileExt},
};

use rustix::{
    fs::{Advice, FallocateFlags, IFlags, SeekFrom, Timespec, Timestamps, UTIME_NOW},
    io::Errno,
};

use crate::{DeviceKind, Extents, Kind, Stat, device, stat::stat_at};

pub use direct::{ALIGNMENT, DirectWriter, is_direct, read_at};
pub use lease::{WriteLease, is_open_for_writing};
pub use writeback::{begin_writeback, write_back};

/// Bytes that the fallback of [`copy_range`] holds in memory.
const COPY_BUFFER_BYTES: usize = 256 * 1024;

/// `statx(2)` of the open file; of a block device, what there is to tell of it as content (`device`).
pub fn stat(file: &File) -> io::Result<Stat> {
    let stat = stat_at(file.as_fd(), b"")?;
    if stat.kind == Kind::Device(DeviceKind::Block) { device::as_content(file, stat) } else { Ok(stat) }
}

/// Sets both times to the kernel's now, as a write would (`futimens(3)` with `UTIME_NOW`); needs no space.
pub fn touch(file: &File) -> io::Result<()> {
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    Ok(rustix::fs::futimens(file, &Timestamps { last_access: now, last_modification: now })?)
}

/// As `Dir::set_inode_flags`, of a file that is open already.
pub fn set_inode_flags(file: &File, flags: u32, mask: u32) -> io::Result<()> {
    let old = inode_flags(file)?;
    let new = old.unwrap_or(0) & !mask | flags & mask;
    if old.unwrap_or(0) == new {
        return Ok(());
    }
    if old.is_none() {
        return Err(Errno::OPNOTSUPP.into());
    }
    Ok(rustix::fs::ioctl_setflags(file, IFlags::from_bits_retain(new))?)
}

/// `None` where the file system has no flags.
pub fn inode_flags(file: &File) -> io::Result<Option<u32>> {
    match rustix::fs::ioctl_getflags(file) {
        Ok(flags) => Ok(Some(flags.bits())),
        Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Makes `dst` share all blocks of `src` (`FICLONE`, `ioctl_ficlone(2)`). `false` where the file system can't.
pub fn reflink(src: &File, dst: &File) -> io::Result<bool> {
    match rustix::fs::ioctl_ficlone(dst, src) {
        Ok(()) => Ok(true),
        Err(Errno::XDEV | Errno::INVAL | Errno::NOTTY | Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Copies `len` bytes at `offset` of `src` to the same place in `dst` and returns how many there were before the end
/// of `src`. Inside the kernel (`copy_file_range(2)`) where it can; holes may become zeros.
pub fn copy_range(src: &File, dst: &File, offset: u64, len: u64) -> io::Result<u64> {
    let mut copied = 0;
    while copied < len {
        let (mut from, mut to) = (offset + copied, offset + copied);
        let ask = usize::try_from(len - copied).unwrap_or(usize::MAX);
        match rustix::fs::copy_file_range(src, Some(&mut from), dst, Some(&mut to), ask) {
            Ok(0) => break,
            Ok(n) => copied += n as u64,
            Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => {
                return Ok(copied + copy_through_memory(src, dst, offset + copied, len - copied)?);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(copied)
}

/// Makes the first `size` bytes of `dst`, an empty file, those of `src`: its blocks where both can share them, else its
/// data, and holes where it has holes.
pub fn copy_content(src: &File, dst: &File, size: u64) -> io::Result<()> {
    dst.set_len(size)?;
    if !reflink(src, dst)? {
        for (offset, len) in data_ranges(src, size)? {
            copy_range(src, dst, offset, len)?;
        }
    }
    Ok(())
}

fn copy_through_memory(src: &File, dst: &File, offset: u64, len: u64) -> io::Result<u64> {
    let mut buffer = vec![0; COPY_BUFFER_BYTES.min(usize::try_from(len).unwrap_or(usize::MAX))];
    let mut copied = 0;
    while copied < len {
        let want = buffer.len().min(usize::try_from(len - copied).unwrap_or(usize::MAX));
        let n = match read_at(src, &mut buffer[..want], offset + copied) {
            Ok(0) => break,
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        dst.write_all_at(&buffer[..n], offset + copied)?;
        copied += n as u64;
    }
    Ok(copied)
}

/// Gives the range's blocks back; it reads as zeros afterwards and the size stays (`fallocate(2)`).
pub fn punch_hole(file: &File, offset: u64, len: u64) -> io::Result<()> {
    Ok(rustix::fs::fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, len)?)
}

/// `ftruncate(2)`, which adds nothing but holes: btrfs writes the last block of a file that grows, even where that was a hole.
/// Moves the file's position.
pub fn set_len(file: &File, size: u64) -> io::Result<()> {
    const BLOCK: u64 = ALIGNMENT as u64;
    let old = stat(file)?.size;
    let last = old / BLOCK * BLOCK;
    // To the file's end, that is.
    let is_hole = last < old && old < size && rustix::fs::seek(file, SeekFrom::Data(last)) == Err(Errno::NXIO);
    file.set_len(size)?;
    match if is_hole { punch_hole(file, last, BLOCK) } else { Ok(()) } {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(()),
        punched => punched,
    }
}

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

pub fn write_zeros(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let mut done = 0;
    while done < len {
        let now = (len - done).min(ZEROS.len() as u64);
        file.write_all_at(&ZEROS[..now as usize], offset + done)?;
        done += now;
    }
    Ok(())
}

/// A hole, or zeros where the file system has no holes. Of a block device the kernel only gives blocks back that read as
/// zeros afterwards (`blkdev_fallocate`), and can't where the range does not fit its blocks.
pub fn make_hole(file: &File, offset: u64, len: u64) -> io::Result<()> {
    match punch_hole(file, offset, len) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ENODEV)) => {
            write_zeros(file, offset, len)
        }
        punched => punched,
    }
}

/// The ranges (offset, length) of the first `size` bytes that are not holes, in order, as `SEEK_DATA` and `SEEK_HOLE`
/// (`lseek(2)`) tell them; one full range where the file system knows no holes. Moves the file's position.
pub fn data_ranges(file: &File, size: u64) -> io::Result<Vec<(u64, u64)>> {
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL | Errno::OPNOTSUPP) if at == 0 => return Ok(vec![(0, size)]),
            Err(error) => return Err(error.into()),
        };
        if start >= size {
            break;
        }
        // A file that shrinks meanwhile has no data left at `start`.
        let end = match rustix::fs::seek(file, SeekFrom::Hole(start)) {
            Ok(end) => end.min(size),
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        ranges.push((start, end - start));
        at = end;
    }
    Ok(ranges)
}

/// As [`data_ranges`], told by the extent map where there is one: blocks that are only reserved are holes, which
/// `SEEK_DATA` calls data as soon as somebody has read them into the page cache. Writes the file's dirty pages first.
pub fn written_ranges(file: &File, size: u64) -> io::Result<Vec<(u64, u64)>> {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for extent in Extents::synced(file, 0..size) {
        let extent = match extent {
            Ok(extent) => extent,
            Err(error) if is_without_map(&error) => return data_ranges(file, size),
            Err(error) => return Err(error),
        };
        let (start, end) = (extent.logical.min(size), extent.end().min(size));
        match ranges.last_mut() {
            _ if extent.is_reserved_only() || start == end => {}
            Some((at, len)) if *at + *len >= start => *len = (*len).max(end - *at),
            _ => ranges.push((start, end - start)),
        }
    }
    Ok(ranges)
}

fn is_without_map(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOTTY | libc::EINVAL))
}

/// As [`drop_cache`], of a range.
pub fn drop_cache_of(file: &File, offset: u64, len: u64) -> io::Result<()> {
    match NonZeroU64::new(len) {
        None => Ok(()),
        len => Ok(rustix::fs::fadvise(file, offset, len, Advice::DontNeed)?),
    }
}

/// What is read of this open file lies here and there: nothing is read ahead (`posix_fadvise(2)`, `POSIX_FADV_RANDOM`).
pub fn expect_random(file: &File) -> io::Result<()> {
    let to_the_end: Option<NonZeroU64> = None;
    Ok(rustix::fs::fadvise(file, 0, to_the_end, Advice::Random)?)
}

/// Lets the kernel forget the clean cached pages of the file (`posix_fadvise(2)`, `POSIX_FADV_DONTNEED`).
pub fn drop_cache(file: &File) -> io::Result<()> {
    let to_the_end: Option<NonZeroU64> = None;
    Ok(rustix::fs::fadvise(file, 0, to_the_end, Advice::DontNeed)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn holes_are_told_and_made() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4 * MIB).unwrap();
        assert_eq!(data_ranges(&file, 4 * MIB).unwrap(), []);
        file.write_all_at(&[1; 4096], MIB).unwrap();
        file.write_all_at(&vec![2; MIB as usize], 3 * MIB).unwrap();
        assert_eq!(data_ranges(&file, 4 * MIB).unwrap(), [(MIB, 4096), (3 * MIB, MIB)]);
        assert_eq!(data_ranges(&file, MIB + 100).unwrap(), [(MIB, 100)]);
        punch_hole(&file, MIB, 4096).unwrap();
        assert_eq!(data_ranges(&file, 4 * MIB).unwrap(), [(3 * MIB, MIB)]);
        assert_eq!(stat(&file).unwrap().size, 4 * MIB);
    }

    #[test]
    fn reserved_blocks_are_holes_even_when_they_were_read() {
        let file = tempfile::tempfile_in("/var/tmp").unwrap();
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 4 * MIB).unwrap();
        file.write_all_at(&vec![1; MIB as usize], MIB).unwrap();
        let mut read = vec![1; 4 * MIB as usize];
        file.read_exact_at(&mut read, 0).unwrap();
        assert_eq!(written_ranges(&file, 4 * MIB).unwrap(), [(MIB, MIB)]);
        assert_eq!(written_ranges(&file, MIB + 100).unwrap(), [(MIB, 100)]);
    }

    #[test]
    fn ranges_are_copied_both_ways_and_end_with_the_source() {
        let (src, dst) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        src.write_all_at(b"0123456789", 0).unwrap();
        assert_eq!(copy_range(&src, &dst, 2, 3).unwrap(), 3);
        assert_eq!(copy_through_memory(&src, &dst, 7, 100).unwrap(), 3);
        let mut read = [0; 10];
        dst.read_exact_at(&mut read, 0).unwrap();
        assert_eq!(&read, b"\0\x00234\0\x00789");
    }

    #[test]
    fn a_clone_is_whole_or_refused() {
        let (src, dst) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        src.write_all_at(b"x", 0).unwrap();
        let cloned = reflink(&src, &dst).unwrap();
        assert_eq!(stat(&dst).unwrap().size, u64::from(cloned));
    }
}
