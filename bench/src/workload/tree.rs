//! W1 to W3: many small files, with everything that makes a faithful copy work: hard links, symlinks, xattrs, holes,
//! owners, modes and times.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{Seek, SeekFrom, Write},
    os::unix::fs::{FileExt, symlink},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use rustix::fs::{AtFlags, CWD, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags, chmod, chown, setxattr, utimensat};

use super::{SEED, Size};
use crate::random::Random;

const FILES: u64 = 50_000;
const FILES_PER_DIRECTORY: u64 = 100;
/// Files have 1 to 64 KiB; with this median and width the tree has about 684 MB.
const SIZE_MEDIAN: f64 = 10_240.0;
const SIZE_SIGMA: f64 = 0.85;
const SIZE_MIN: u64 = 1024;
const SIZE_MAX: u64 = 65_536;
/// September 2020: times lie in the past, whatever the clock of the machine says.
const EPOCH_SECS: i64 = 1_600_000_000;

/// What the file of a number is. Drawn by number, so that the mix is the same at every size.
enum Shape {
    Plain,
    Hardlink,
    Symlink,
    Sparse,
}

fn shape(number: u64) -> Shape {
    match number % 500 {
        7 => Shape::Sparse,
        n if n % 100 == 33 => Shape::Hardlink,
        n if n % 100 == 66 => Shape::Symlink,
        _ => Shape::Plain,
    }
}

fn name(number: u64) -> String {
    format!("dir-{:03}/file-{number:05}.dat", number / FILES_PER_DIRECTORY)
}

pub fn create(source: &Path, size: Size) -> Result<()> {
    let files = size.of(FILES);
    for directory in 0..files.div_ceil(FILES_PER_DIRECTORY) {
        fs::create_dir_all(source.join(format!("dir-{directory:03}"))).context("create directory")?;
    }
    for number in 0..files {
        create_entry(source, number).with_context(|| format!("create {}", name(number)))?;
    }
    for directory in 0..files.div_ceil(FILES_PER_DIRECTORY) {
        set_mtime(&source.join(format!("dir-{directory:03}")), EPOCH_SECS + directory as i64)?;
    }
    Ok(())
}

fn create_entry(source: &Path, number: u64) -> Result<()> {
    let path = source.join(name(number));
    let mut random = Random::of(SEED, number);
    match shape(number) {
        // Always of the file before it, which is plain.
        Shape::Hardlink => return Ok(fs::hard_link(source.join(name(number - 1)), &path)?),
        Shape::Symlink => {
            symlink(format!("file-{:05}.dat", number - 1), &path)?;
        }
        Shape::Sparse => create_sparse(&path, &mut random)?,
        Shape::Plain => {
            let bytes = random.lognormal(SIZE_MEDIAN, SIZE_SIGMA, SIZE_MIN, SIZE_MAX) as usize;
            fs::write(&path, content(&mut random, number, bytes))?;
        }
    }
    if !matches!(shape(number), Shape::Symlink) {
        set_metadata(&path, number)?;
    }
    set_mtime(&path, EPOCH_SECS + random.below(100_000_000) as i64)
}

/// Half of the files compress.
fn content(random: &mut Random, number: u64, bytes: usize) -> Vec<u8> {
    if number.is_multiple_of(2) { random.text(bytes) } else { random.noise(bytes) }
}

/// 64 KiB with 4 KiB of data at both ends.
fn create_sparse(path: &Path, random: &mut Random) -> Result<()> {
    let file = File::create(path)?;
    file.set_len(SIZE_MAX)?;
    file.write_all_at(&random.noise(4096), 0)?;
    file.write_all_at(&random.noise(4096), SIZE_MAX - 4096)?;
    Ok(())
}

fn set_metadata(path: &Path, number: u64) -> Result<()> {
    let id = 1000 + (number % 7) as u32;
    chown(path, Some(Uid::from_raw(id)), Some(Gid::from_raw(id))).context("change owner")?;
    chmod(path, Mode::from_raw_mode([0o644, 0o600, 0o755, 0o640][(number % 4) as usize])).context("change mode")?;
    if number % 50 == 21 {
        setxattr(path, "user.origin", format!("scanner-{number}").as_bytes(), XattrFlags::empty())
            .context("set extended attribute")?;
    }
    Ok(())
}

fn set_mtime(path: &Path, secs: i64) -> Result<()> {
    let time = Timespec { tv_sec: secs, tv_nsec: secs % 1_000_000_000 };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Touches 1 % of the files: a fifth each is rewritten, grows by a tenth, goes, is renamed into another directory, and
/// is added. Names are drawn from what is there, so rounds can follow one another for ever.
pub fn change(source: &Path, round: u64) -> Result<u64> {
    let mut random = Random::of(SEED ^ 0xC4A6, round);
    let mut files = plain_files(source)?;
    let each = files.len() / 500;
    ensure!(each > 0, "a tree of {} files is too small for a change of 1 %", files.len());
    let mut draw = |random: &mut Random| files.swap_remove(random.below(files.len() as u64) as usize);
    let mut bytes = 0;
    for n in 0..each as u64 {
        let (path, size) = draw(&mut random);
        fs::write(&path, random.noise(size as usize)).context("rewrite file")?;
        bytes += size;

        let (path, size) = draw(&mut random);
        let mut file = OpenOptions::new().write(true).open(&path).context("open file to append")?;
        file.seek(SeekFrom::End(0))?;
        file.write_all(&random.noise(size as usize / 10 + 1)).context("append to file")?;
        bytes += size / 10 + 1;

        fs::remove_file(draw(&mut random).0).context("delete file")?;

        let (path, _) = draw(&mut random);
        let (neighbour, _) = draw(&mut random);
        let directory = neighbour.parent().context("a file lies in a directory")?;
        fs::rename(&path, directory.join(format!("moved-{round}-{n}.dat"))).context("rename file")?;

        let size = random.lognormal(SIZE_MEDIAN, SIZE_SIGMA, SIZE_MIN, SIZE_MAX);
        let added = directory.join(format!("added-{round}-{n}.dat"));
        fs::write(added, random.noise(size as usize)).context("add file")?;
        bytes += size;
    }
    Ok(bytes)
}

/// Regular files of one name, with their sizes, in the order of their names.
fn plain_files(source: &Path) -> Result<Vec<(PathBuf, u64)>> {
    use std::os::unix::fs::MetadataExt;
    let mut files = BTreeMap::new();
    for directory in fs::read_dir(source).context("list the tree")? {
        for entry in fs::read_dir(directory?.path())? {
            let entry = entry?;
            let stat = entry.metadata()?;
            if stat.is_file() && stat.nlink() == 1 {
                files.insert(entry.path(), stat.len());
            }
        }
    }
    Ok(files.into_iter().collect())
}
