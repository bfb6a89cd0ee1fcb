//! File content: random, repeating, zero and missing bytes.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

use rustix::fs::{FallocateFlags, OFlags, fallocate};

use crate::seed::Rng;

/// Above the judges' tolerance for allocated blocks, so that a filled hole is noticed.
pub(super) const HOLE: u64 = 256 << 10;

/// Bytes of a kind that compresses, repeats or does neither.
pub(super) fn bytes(rng: &mut Rng, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    match rng.u8(0..4) {
        0 => bytes.fill(rng.u8(..)),
        1 => {
            let period = rng.usize(1..5000);
            let pattern: Vec<u8> = (0..period).map(|_| rng.u8(..)).collect();
            bytes.iter_mut().zip(pattern.iter().cycle()).for_each(|(byte, of)| *byte = *of);
        }
        _ => rng.fill(&mut bytes),
    }
    bytes
}

/// Mostly small, now and then empty, one block, around a power of two, or more than a mebibyte.
pub(super) fn size(rng: &mut Rng) -> usize {
    match rng.u8(0..40) {
        0..5 => 0,
        5..8 => 4096 << rng.u32(0..6),
        8..11 => (65536 + rng.usize(0..3)).saturating_sub(1),
        11 => rng.usize((1 << 20)..(2 << 20)),
        12..16 => rng.usize(0..400 << 10),
        _ => 1 << rng.u32(0..14) | rng.usize(0..4096),
    }
}

/// Creates a file; one in eight has holes at its start, in its middle or at its end.
pub(super) fn create(path: &Path, rng: &mut Rng) -> io::Result<()> {
    let file = File::create_new(path)?;
    if rng.u8(0..8) > 0 {
        let size = size(rng);
        return file.write_all_at(&bytes(rng, size), 0);
    }
    let block = bytes(rng, 8192);
    match rng.u8(0..4) {
        0 => file.write_all_at(&block, HOLE)?,
        1 => {
            file.write_all_at(&block, 0)?;
            file.write_all_at(&block, HOLE + 8192)?;
        }
        2 => {
            file.write_all_at(&block, 0)?;
            file.set_len(HOLE * 3)?;
        }
        _ => file.set_len(HOLE * 2 + rng.u64(0..5000))?,
    }
    Ok(())
}

/// Never through a symlink, whatever an edit before put in the way.
pub(super) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(OFlags::NOFOLLOW.bits() as i32).open(path)
}

pub fn write_at(path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
    open(path)?.write_all_at(bytes, offset)
}

pub fn punch(path: &Path, offset: u64, length: u64) -> io::Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    Ok(fallocate(open(path)?, flags, offset, length)?)
}
