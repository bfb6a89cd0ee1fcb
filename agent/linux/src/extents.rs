//! Extent maps (`FS_IOC_FIEMAP`, Documentation/filesystems/fiemap.rst of the kernel): which blocks a file occupies.
#![expect(unsafe_code, reason = "neither rustix nor libc wraps the FIEMAP ioctl")]

use std::{fs::File, io, mem, ops::Range, os::fd::AsRawFd};

/// linux/fiemap.h.
const FLAG_SYNC: u32 = 0x1;
const EXTENT_LAST: u32 = 0x1;
const EXTENT_DELALLOC: u32 = 0x4;
const EXTENT_UNWRITTEN: u32 = 0x800;
const EXTENT_SHARED: u32 = 0x2000;
/// `_IOWR('f', 11, struct fiemap)` of linux/fs.h.
const FS_IOC_FIEMAP: libc::c_ulong = 0xC020_660B;
/// Extents that one call tells of: 28 KiB.
const EXTENTS_OF_A_CALL: usize = 512;

/// Bytes of the file, and where on the device they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Offset in the file; may begin before the range that was asked for.
    pub logical: u64,
    /// Offset on the device. Means nothing when [`Self::is_plain`] is false.
    pub physical: u64,
    pub length: u64,
    /// `FIEMAP_EXTENT_*`.
    pub flags: u32,
}

impl Extent {
    /// Neither encoded, inline, delayed nor otherwise special: these bytes are at `physical` as they are.
    pub fn is_plain(&self) -> bool {
        self.flags & !(EXTENT_LAST | EXTENT_SHARED) == 0
    }

    /// Reserved, but reads as zeros (`FIEMAP_EXTENT_UNWRITTEN`), or not given blocks yet (`FIEMAP_EXTENT_DELALLOC`).
    pub fn is_reserved_only(&self) -> bool {
        self.flags & (EXTENT_UNWRITTEN | EXTENT_DELALLOC) != 0
    }

    pub fn end(&self) -> u64 {
        self.logical.saturating_add(self.length)
    }
}

/// The extents of `range`, in order, read in batches. EOPNOTSUPP where the file system has no extent maps.
#[derive(Debug)]
pub struct Extents<'a> {
    file: &'a File,
    flags: u32,
    range: Range<u64>,
    batch: std::vec::IntoIter<Extent>,
}

impl<'a> Extents<'a> {
    /// Writes the file's dirty pages first (`FIEMAP_FLAG_SYNC`), so that what was written has its blocks.
    pub fn synced(file: &'a File, range: Range<u64>) -> Self {
        Self { file, flags: FLAG_SYNC, range, batch: Vec::new().into_iter() }
    }

    /// Of a file that is known to be on the disk.
    pub fn of(file: &'a File, range: Range<u64>) -> Self {
        Self { flags: 0, ..Self::synced(file, range) }
    }

    /// How many extents the file has, without looking at them.
    pub fn count(file: &File) -> io::Result<u32> {
        Ok(call(file, 0, &(0..u64::MAX), 0)?.mapped_extents)
    }

    fn fill(&mut self) -> io::Result<()> {
        let map = call(self.file, self.flags, &self.range, EXTENTS_OF_A_CALL as u32)?;
        let told = map.extents.iter().take(map.mapped_extents as usize);
        let batch: Vec<Extent> = told.map(RawExtent::told).collect();
        // Once is enough, and the last extent ends the map.
        self.flags = 0;
        self.range.start = match batch.last() {
            Some(last) if last.flags & EXTENT_LAST == 0 && last.end() > self.range.start => last.end(),
            _ => self.range.end,
        };
        self.batch = batch.into_iter();
        Ok(())
    }
}

impl Iterator for Extents<'_> {
    type Item = io::Result<Extent>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(extent) = self.batch.next() {
                return Some(Ok(extent));
            }
            if self.range.is_empty() {
                return None;
            }
            if let Err(error) = self.fill() {
                self.range.start = self.range.end;
                return Some(Err(error));
            }
        }
    }
}

/// `struct fiemap_extent`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct RawExtent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved64: [u64; 2],
    flags: u32,
    reserved: [u32; 3],
}

impl RawExtent {
    fn told(&self) -> Extent {
        Extent { logical: self.logical, physical: self.physical, length: self.length, flags: self.flags }
    }
}

/// `struct fiemap` with room for its extents.
#[repr(C)]
struct RawMap {
    start: u64,
    length: u64,
    flags: u32,
    mapped_extents: u32,
    extent_count: u32,
    reserved: u32,
    extents: [RawExtent; EXTENTS_OF_A_CALL],
}

const _: () = assert!(mem::size_of::<RawExtent>() == 56 && mem::offset_of!(RawMap, extents) == 32);

fn call(file: &File, flags: u32, range: &Range<u64>, extent_count: u32) -> io::Result<Box<RawMap>> {
    let mut map = Box::new(RawMap {
        start: range.start,
        length: range.end - range.start,
        flags,
        mapped_extents: 0,
        extent_count,
        reserved: 0,
        extents: [RawExtent::default(); _],
    });
    loop {
        // SAFETY: `map` has room for the `extent_count` extents it tells of and outlives the call, which keeps no
        // pointer to it.
        let rc = unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FIEMAP, &raw mut *map) };
        if rc == 0 {
            return Ok(map);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn all(file: &File, range: Range<u64>) -> Vec<Extent> {
        Extents::synced(file, range).collect::<io::Result<_>>().unwrap()
    }

    #[test]
    fn a_map_covers_what_was_written_and_no_hole() {
        let file = tempfile::tempfile_in("/var/tmp").unwrap();
        file.set_len(8 * MIB).unwrap();
        assert_eq!(all(&file, 0..8 * MIB), []);
        file.write_all_at(&vec![1; MIB as usize], 2 * MIB).unwrap();
        let extents = all(&file, 0..8 * MIB);
        assert!(extents.iter().all(|extent| extent.logical >= 2 * MIB && extent.end() <= 3 * MIB), "{extents:?}");
        assert_eq!(extents.iter().map(|extent| extent.length).sum::<u64>(), MIB);
        assert_eq!(all(&file, 4 * MIB..8 * MIB), []);
    }

    #[test]
    fn more_extents_than_a_call_tells_of_come_in_order() {
        let file = tempfile::tempfile_in("/var/tmp").unwrap();
        let count = 2 * EXTENTS_OF_A_CALL as u64 + 7;
        for n in 0..count {
            file.write_all_at(&[1; 4096], n * 16384).unwrap();
        }
        let extents = all(&file, 0..count * 16384);
        assert_eq!(extents.len() as u64, count);
        assert_eq!(u64::from(Extents::count(&file).unwrap()), count);
        assert!(extents.windows(2).all(|pair| pair[0].end() <= pair[1].logical));
    }

    #[test]
    fn reserved_blocks_are_not_data() {
        let file = tempfile::tempfile_in("/var/tmp").unwrap();
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, MIB).unwrap();
        assert!(all(&file, 0..MIB).iter().all(|extent| extent.is_reserved_only() && !extent.is_plain()));
    }
}
