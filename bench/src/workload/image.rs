//! W4 to W6: one image of a disk, in a file or on a device that is attached already.

use std::{
    fs::{self, File, OpenOptions},
    io::{Seek, SeekFrom},
    os::unix::fs::FileExt,
    path::Path,
    time::SystemTime,
};

use anyhow::{Context, Result};

use super::{SEED, Size};
use crate::random::Random;

pub const NAME: &str = "disk.img";
const BYTES: u64 = 4 << 30;
const BLOCK: u64 = 4096;
const CHUNK: usize = 1 << 20;

/// Of the image that W4 to W6 share.
pub fn bytes(size: Size) -> u64 {
    size.of(BYTES) / CHUNK as u64 * CHUNK as u64
}

fn open(source: &Path) -> Result<File> {
    let path = source.join(NAME);
    OpenOptions::new().read(true).write(true).open(&path).with_context(|| format!("open {}", path.display()))
}

/// By chunks of 1 MiB: 30 % holes, 10 % written zeros, 30 % noise, 30 % text. A device must be blank: its holes are
/// what nobody wrote.
pub fn create(source: &Path, bytes: u64) -> Result<()> {
    fs::create_dir_all(source)?;
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).open(source.join(NAME)).context("create the image")?;
    if file.metadata()?.is_file() {
        file.set_len(bytes)?;
    }
    for n in 0..bytes / CHUNK as u64 {
        let mut random = Random::of(SEED ^ 0x44, n);
        let content = match random.below(10) {
            0..=2 => continue,
            3 => vec![0; CHUNK],
            4..=6 => random.noise(CHUNK),
            _ => random.text(CHUNK),
        };
        file.write_all_at(&content, n * CHUNK as u64)?;
    }
    Ok(file.sync_all()?)
}

/// 1 % of the blocks at random, and 1 % in runs of 64 KiB to 1 MiB; returns the bytes written.
pub fn overwrite(source: &Path, round: u64) -> Result<u64> {
    let mut file = open(source)?;
    // The metadata of a device tell no size.
    let bytes = file.seek(SeekFrom::End(0)).context("look for the image's end")?;
    let mut random = Random::of(SEED ^ 0x45, round);
    let mut written = 0;
    while written < bytes / 100 {
        file.write_all_at(&random.noise(BLOCK as usize), random.below(bytes / BLOCK) * BLOCK)?;
        written += BLOCK;
    }
    while written < bytes / 50 {
        let run = (16 + random.below(241)) * BLOCK;
        let at = random.below((bytes - run) / BLOCK) * BLOCK;
        file.write_all_at(&random.noise(run as usize), at)?;
        written += run;
    }
    Ok(written)
}

/// So that its times vouch for nothing; a device has counters instead, which only a write moves.
pub fn touch(source: &Path) -> Result<u64> {
    let file = open(source)?;
    if file.metadata()?.is_file() {
        file.set_modified(SystemTime::now()).context("set the image's time")?;
    } else {
        let mut block = [0; BLOCK as usize];
        file.read_exact_at(&mut block, 0)?;
        file.write_all_at(&block, 0).and_then(|()| file.sync_all()).context("write a block as it was")?;
    }
    Ok(0)
}
