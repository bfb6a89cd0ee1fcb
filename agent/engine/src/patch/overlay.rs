//! A content that is put together: a base that nobody writes to, and what replaces it.

use std::{
    fs::File,
    io,
    ops::Range,
    os::unix::fs::FileExt,
    sync::{
        PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use drover_linux::file::{self, data_ranges, punch_hole};

use super::covered::{Cover, Covered};
use crate::{
    content::Allocation,
    hash::{ReadContent, allocated, read_padded},
};

/// Behaves as a clone of `base` that is written to, and writes to `data` alone, at the same offsets.
#[derive(Debug)]
pub(crate) struct Overlay {
    data: File,
    base: File,
    base_len: u64,
    base_data: Vec<(u64, u64)>,
    covered: RwLock<Covered>,
    /// Shared while data is written that `covered` does not tell yet.
    writing: RwLock<()>,
    /// More ranges than this are made fewer.
    ranges_max: AtomicUsize,
    size: AtomicU64,
}

/// Ranges that are worth their memory, about 50 bytes each: 4 GiB of scattered pages.
const RANGES_MAX: usize = 1 << 20;
/// Gaps that are filled when there are more: at first of less than a leaf.
const GAP_BYTES: [u64; 2] = [64 << 10, 512 << 10];

impl Overlay {
    /// What `covered` says is in `data` already.
    pub(crate) fn new(data: File, base: File, base_len: u64, covered: Covered) -> io::Result<Self> {
        let base_data = allocated(&base, base_len)?;
        let size = AtomicU64::new(base_len);
        let (covered, writing, ranges_max) = (RwLock::new(covered), RwLock::default(), RANGES_MAX.into());
        Ok(Self { data, base, base_len, base_data, covered, writing, ranges_max, size })
    }

    /// What an interrupted run wrote to its data file. Holes that it had made are not known any more.
    pub(crate) fn left_in(data: &File) -> io::Result<Covered> {
        let mut covered = Covered::default();
        for (start, len) in data_ranges(data, drover_linux::file::stat(data)?.size)? {
            covered.put(start..start + len, Cover::Data);
        }
        Ok(covered)
    }

    fn covered(&self) -> RwLockReadGuard<'_, Covered> {
        self.covered.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn covered_mut(&self) -> RwLockWriteGuard<'_, Covered> {
        self.covered.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn to_covered(&self) -> Covered {
        self.covered().clone()
    }

    pub(crate) fn size(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }

    pub(crate) fn set_len(&self, size: u64) -> io::Result<()> {
        self.size.store(size, Ordering::Relaxed);
        self.covered_mut().take(size..u64::MAX);
        self.data.set_len(size)
    }

    pub(crate) fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let written = self.begin_write();
        self.data.write_all_at(bytes, offset)?;
        self.covered_mut().put(offset..offset + bytes.len() as u64, Cover::Data);
        drop(written);
        self.coarsen()
    }

    fn begin_write(&self) -> RwLockReadGuard<'_, ()> {
        self.writing.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bounds memory: where there are too many ranges, those that lie close together become one, with the base's content
    /// between them. Holes stay holes.
    fn coarsen(&self) -> io::Result<()> {
        let ranges_max = self.ranges_max.load(Ordering::Relaxed);
        if self.covered().len() <= ranges_max {
            return Ok(());
        }
        let _alone = self.writing.write().unwrap_or_else(PoisonError::into_inner);
        let mut covered = self.covered_mut();
        for gap_bytes in GAP_BYTES {
            if covered.len() <= ranges_max / 2 {
                break;
            }
            for gap in covered.gaps(gap_bytes) {
                if self.is_data_of_base(&gap) {
                    let mut pieces = super::pieces(gap.clone());
                    pieces.try_for_each(|piece| {
                        self.data.write_all_at(&super::read_whole(&self.base, &piece)?, piece.start)
                    })?;
                    covered.put(gap, Cover::Data);
                }
            }
        }
        // What is left (holes lie between them) takes the memory that it takes; the next look is at twice as many.
        self.ranges_max.store(ranges_max.max(covered.len() * 2), Ordering::Relaxed);
        Ok(())
    }

    fn is_data_of_base(&self, range: &Range<u64>) -> bool {
        let at = self.base_data.partition_point(|(start, len)| start + len <= range.start);
        let whole = self.base_data.get(at).filter(|(start, len)| *start <= range.start && range.end <= start + len);
        whole.is_some() && range.end <= self.size()
    }

    /// What was written there goes to the disk while more arrives.
    pub(crate) fn begin_writeback(&self, offset: u64, len: u64) -> io::Result<()> {
        file::begin_writeback(&self.data, offset, len)
    }

    pub(crate) fn write_zeros(&self, offset: u64, len: u64) -> io::Result<()> {
        let written = self.begin_write();
        file::write_zeros(&self.data, offset, len)?;
        self.covered_mut().put(offset..offset + len, Cover::Data);
        drop(written);
        self.coarsen()
    }

    pub(crate) fn make_hole(&self, offset: u64, len: u64) -> io::Result<()> {
        let _written = self.begin_write();
        let pieces = self.covered().pieces(offset..offset + len);
        for (range, cover) in pieces {
            match cover {
                Some(Cover::Hole) => {}
                Some(Cover::Data) => {
                    // Only to give space back: what counts is the cover.
                    match punch_hole(&self.data, range.start, range.end - range.start) {
                        Err(error) if error.kind() != io::ErrorKind::Unsupported => return Err(error),
                        _ => {}
                    }
                    self.covered_mut().put(range, Cover::Hole);
                }
                None => self.covered_mut().put(range, Cover::Hole),
            }
        }
        Ok(())
    }

    /// Of the content as it is now.
    pub(crate) fn allocation(&self) -> Allocation {
        Allocation::Data(self.data_of(self.size()))
    }

    fn data_of(&self, size: u64) -> Vec<(u64, u64)> {
        self.covered().over(&self.base_data, size)
    }
}

impl ReadContent for Overlay {
    fn read_padded(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let pieces = self.covered().pieces(offset..offset + buffer.len() as u64);
        for (range, cover) in pieces {
            let part = &mut buffer[(range.start - offset) as usize..(range.end - offset) as usize];
            match cover {
                Some(Cover::Data) => read_padded(&self.data, part, range.start)?,
                Some(Cover::Hole) => part.fill(0),
                None if range.start >= self.base_len => part.fill(0),
                None => {
                    let held = part.len().min((self.base_len - range.start) as usize);
                    part[held..].fill(0);
                    read_padded(&self.base, &mut part[..held], range.start)?;
                }
            }
        }
        Ok(())
    }

    fn allocated(&self, size: u64) -> io::Result<Vec<(u64, u64)>> {
        Ok(self.data_of(size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_with(content: &[u8]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(content, 0).unwrap();
        file
    }

    /// More scattered pages than there may be ranges, written by several threads at the same time.
    #[test]
    fn many_ranges_become_fewer_and_the_content_stays() {
        const PAGE: usize = 4096;
        const PAGES: usize = 4096;
        let mut content: Vec<u8> = (0..PAGES * PAGE).map(|n| (n / 9) as u8 | 1).collect();
        let (base, data) = (file_with(&content), tempfile::tempfile().unwrap());
        // A hole of the base, which stays one.
        let hole = 100 * PAGE..164 * PAGE;
        drover_linux::file::punch_hole(&base, hole.start as u64, hole.len() as u64).unwrap();
        content[hole.clone()].fill(0);
        let mut overlay = Overlay::new(data, base, content.len() as u64, Covered::default()).unwrap();
        overlay.ranges_max = 64.into();
        let page = |n: usize| (n % 251) as u8;
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let overlay = &overlay;
                scope.spawn(move || {
                    for n in (thread * 3..PAGES).step_by(12).filter(|n| !(100..164).contains(n)) {
                        overlay.write_all_at(&[page(n); PAGE], (n * PAGE) as u64).unwrap();
                    }
                });
            }
        });
        for n in (0..PAGES).step_by(3).filter(|n| !(100..164).contains(n)) {
            content[n * PAGE..(n + 1) * PAGE].fill(page(n));
        }
        assert!(overlay.covered().len() <= 65, "{} ranges", overlay.covered().len());
        let mut read = vec![0; content.len()];
        overlay.read_padded(&mut read, 0).unwrap();
        assert!(read == content, "the content is another one");
        let data = overlay.allocated(content.len() as u64).unwrap();
        assert!(data.iter().all(|(start, len)| start + len <= hole.start as u64 || *start >= hole.end as u64));
    }
}
