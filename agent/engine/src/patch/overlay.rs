//! A content that is put together: a base that nobody writes to, and what replaces it.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::{
        PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
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
    size: AtomicU64,
}

impl Overlay {
    /// What `covered` says is in `data` already.
    pub(crate) fn new(data: File, base: File, base_len: u64, covered: Covered) -> io::Result<Self> {
        let base_data = allocated(&base, base_len)?;
        let size = AtomicU64::new(base_len);
        Ok(Self { data, base, base_len, base_data, covered: RwLock::new(covered), size })
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
        self.data.write_all_at(bytes, offset)?;
        self.covered_mut().put(offset..offset + bytes.len() as u64, Cover::Data);
        Ok(())
    }

    pub(crate) fn write_zeros(&self, offset: u64, len: u64) -> io::Result<()> {
        file::write_zeros(&self.data, offset, len)?;
        self.covered_mut().put(offset..offset + len, Cover::Data);
        Ok(())
    }

    pub(crate) fn make_hole(&self, offset: u64, len: u64) -> io::Result<()> {
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
