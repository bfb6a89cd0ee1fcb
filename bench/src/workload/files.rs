//! W7 and W8: few and big files whose content shifts, grows and is overwritten here and there.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufReader, BufWriter, Read, Write},
    os::unix::fs::FileExt,
    path::Path,
};

use anyhow::{Context, Result};

use super::{SEED, Size};
use crate::random::Random;

const CHUNK: usize = 1 << 20;
const INSERTED_BYTES: usize = 37;
const FILES: u64 = 200;
const FILE_BYTES: u64 = 8 << 20;
const ONE_BYTES: u64 = 1 << 30;

fn write_noise(path: &Path, bytes: u64, part: u64) -> Result<()> {
    let mut random = Random::of(SEED, part);
    let mut file = File::create(path).with_context(|| format!("create {}", path.display()))?;
    let mut left = bytes;
    while left > 0 {
        let chunk = random.noise(CHUNK.min(left as usize));
        file.write_all(&chunk)?;
        left -= chunk.len() as u64;
    }
    Ok(())
}

pub fn create_one(source: &Path, size: Size) -> Result<()> {
    fs::create_dir_all(source)?;
    write_noise(&source.join("disk.img"), size.of(ONE_BYTES), 1 << 32)
}

/// Writes the file again with 37 bytes more, at another place near its start in each round, and puts it in the old
/// one's place, as editors and build tools do.
pub fn insert(source: &Path, round: u64) -> Result<u64> {
    let mut random = Random::of(SEED ^ 0x17, round);
    let (old, new) = (source.join("disk.img"), source.join(".disk.img.new"));
    let mut from = BufReader::with_capacity(CHUNK, File::open(&old).context("open file")?);
    let mut to = BufWriter::with_capacity(CHUNK, File::create(&new).context("create file")?);
    std::io::copy(&mut Read::take(&mut from, 1000 + random.below(3000)), &mut to)?;
    to.write_all(&random.noise(INSERTED_BYTES))?;
    std::io::copy(&mut from, &mut to)?;
    to.flush()?;
    fs::rename(new, old).context("rename file")?;
    Ok(INSERTED_BYTES as u64)
}

pub fn create_many(source: &Path, size: Size) -> Result<()> {
    fs::create_dir_all(source)?;
    (0..size.of(FILES))
        .try_for_each(|n| write_noise(&source.join(format!("disk-{n:03}.img")), FILE_BYTES, (2 << 32) + n))
}

/// Each file grows by 1 % of its first size, and 0.1 % of it is overwritten in blocks of 4 KiB.
pub fn append_and_modify(source: &Path, round: u64, size: Size) -> Result<u64> {
    const BLOCK: u64 = 4096;
    let blocks = FILE_BYTES / 1000 / BLOCK;
    let appended = FILE_BYTES / 100;
    for n in 0..size.of(FILES) {
        let mut random = Random::of(SEED ^ (round << 20), n);
        let path = source.join(format!("disk-{n:03}.img"));
        let file = OpenOptions::new().write(true).open(&path).with_context(|| format!("open {}", path.display()))?;
        let end = file.metadata()?.len();
        for _ in 0..blocks {
            let at = random.below(end / BLOCK) * BLOCK;
            file.write_all_at(&random.noise(BLOCK as usize), at)?;
        }
        file.write_all_at(&random.noise(appended as usize), end)?;
    }
    Ok(size.of(FILES) * (blocks * BLOCK + appended))
}
