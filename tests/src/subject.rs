//! What the campaigns replicate: a directory tree, or one raw image. Each is made, edited and looked at in its own way;
//! the campaigns are the same.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{FallocateFlags, fallocate};

use crate::{
    judge::{self, Portrait},
    mount::Device,
    rounds::Rounds,
    seed::Rng,
    tree,
};

/// The image lies in a directory of its own, beside a file that is not of the volume.
const IMAGE: &str = "disk.img";
const NEIGHBOUR: &str = "neighbour";
/// Many leaves, several segments, and a moment to copy.
const IMAGE_BYTES: u64 = 6 << 20;
/// Smaller images are replaced as a whole and bigger ones patched where clones are not to be had: a campaign that counts
/// failpoints stays on one side.
const IMAGE_BYTES_MIN: u64 = 4 << 20;
const DEVICE_BYTES: u64 = 8 << 20;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Subject {
    #[default]
    Tree,
    Image,
    /// A bare loop device; in the directory lie the file behind it and a symlink to it.
    Device,
}

impl Subject {
    /// Of the volume beneath a root, when `dir` is its directory there.
    pub fn path(self, dir: &str) -> String {
        match self {
            Self::Tree => dir.to_owned(),
            Self::Image | Self::Device => format!("{dir}/{IMAGE}"),
        }
    }

    /// For what is told of a campaign.
    pub fn of(self) -> &'static str {
        match self {
            Self::Tree => "",
            Self::Image => " of an image",
            Self::Device => " of a device",
        }
    }

    /// A device beneath `dir`, made at the first call and attached again at later ones.
    pub fn attach(dir: &Path) -> io::Result<Device> {
        fs::create_dir_all(dir)?;
        let (backing, link) = (dir.join("backing"), dir.join(IMAGE));
        let device = if backing.exists() { Device::of(&backing) } else { Device::new(&backing, DEVICE_BYTES)? };
        if link.symlink_metadata().is_ok() {
            fs::remove_file(&link)?;
        }
        std::os::unix::fs::symlink(device.path(), link)?;
        Ok(device)
    }

    pub fn image(self, dir: &Path) -> PathBuf {
        dir.join(IMAGE)
    }

    /// What must be there before the volume is enabled.
    pub fn found(self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)?;
        if self == Self::Image {
            File::create_new(self.image(dir))?;
            fs::write(dir.join(NEIGHBOUR), dir.as_os_str().as_encoded_bytes())?;
        }
        Ok(())
    }

    pub fn create(self, dir: &Path, rng: &mut Rng, rounds: &Rounds) {
        match self {
            Self::Tree => tree::create(dir, rng, rounds.entries),
            Self::Image => {
                OpenOptions::new().write(true).open(self.image(dir)).unwrap().set_len(IMAGE_BYTES).unwrap();
                self.edit(dir, rng, rounds);
            }
            Self::Device => self.edit(dir, rng, rounds),
        }
    }

    pub fn edit(self, dir: &Path, rng: &mut Rng, rounds: &Rounds) {
        match self {
            Self::Tree => drop(tree::edit(dir, rng, rounds.edits)),
            Self::Image => edit_image(&self.image(dir), rng, rounds.edits).expect("edit the image"),
            Self::Device => edit_device(&self.image(dir), rng, rounds.edits).expect("edit the device"),
        }
    }

    /// The same content again: nothing changes, but the replica has to be read.
    pub fn rewrite(self, dir: &Path) {
        let file = OpenOptions::new().read(true).write(true).open(self.image(dir)).expect("open");
        let mut block = [0; 4096];
        let rewritten = file.read_exact_at(&mut block, 0).and_then(|()| file.write_all_at(&block, 0));
        rewritten.and_then(|()| file.sync_all()).expect("write the same again");
    }

    pub fn portrait(self, dir: &Path) -> Portrait {
        self.try_portrait(dir).unwrap_or_else(|error| panic!("look at {}: {error}", dir.display()))
    }

    pub fn try_portrait(self, dir: &Path) -> io::Result<Portrait> {
        match self {
            Self::Tree => Portrait::try_of(dir),
            Self::Image => Portrait::try_of_file(&self.image(dir)),
            Self::Device => Portrait::try_of_content(&self.image(dir)),
        }
    }

    #[track_caller]
    pub fn assert_same(self, source: &Path, replica: &Path, why: &str) {
        match self {
            Self::Tree => judge::assert_same(source, replica, why),
            Self::Device => {
                let differences = judge::compare(&self.portrait(source), &self.portrait(replica));
                assert!(differences.is_empty(), "{why}: {differences:?}");
            }
            Self::Image => {
                judge::assert_same_file(&self.image(source), &self.image(replica), why);
                let differences = judge::compare(&self.portrait(source), &self.portrait(replica));
                assert!(differences.is_empty(), "{why}: {differences:?}");
                let neighbour = fs::read(replica.join(NEIGHBOUR)).unwrap_or_default();
                assert!(neighbour.is_empty(), "{why}: what is beside the image came along");
            }
        }
    }
}

/// Writes of any size at any offset, runs of zeros and of text, holes, growth, truncation and metadata.
fn edit_image(path: &Path, rng: &mut Rng, count: usize) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    for _ in 0..count {
        let len = file.metadata()?.len();
        let at = rng.u64(0..=len);
        match rng.u8(0..16) {
            0 => file.set_len(rng.u64(IMAGE_BYTES_MIN..IMAGE_BYTES * 2))?,
            1 => file.set_len(len + rng.u64(0..1 << 20))?,
            2 | 3 => punch(&file, at, rng.u64(1..1 << 20))?,
            4 => file.write_all_at(&vec![0; rng.usize(1..300_000)], at)?,
            5 => file.write_all_at("a line of a log\n".repeat(rng.usize(1..20_000)).as_bytes(), at)?,
            6 => file.set_permissions(fs::Permissions::from_mode(rng.u32(0..0o1000)))?,
            7 => {
                let mut content = vec![0; 64 << 10];
                let read = file.read_at(&mut content, at)?;
                file.write_all_at(&content[..read], rng.u64(0..=len))?;
            }
            8 => file.write_all_at(&random(rng, 1 << 20), at & !0xffff)?,
            9 => file.write_all_at(&random(rng, 4096), at & !4095)?,
            _ => {
                let length = rng.usize(1..20_000);
                file.write_all_at(&random(rng, length), at)?;
            }
        }
    }
    Ok(())
}

/// Writes of any size at any offset, zeros, and blocks given back.
fn edit_device(path: &Path, rng: &mut Rng, count: usize) -> io::Result<()> {
    let device = OpenOptions::new().read(true).write(true).open(path)?;
    for _ in 0..count {
        let at = rng.u64(0..DEVICE_BYTES - (1 << 20));
        match rng.u8(0..8) {
            0 | 1 => punch(&device, at & !4095, rng.u64(1..200) * 4096)?,
            2 => device.write_all_at(&vec![0; rng.usize(1..300_000)], at)?,
            3 => device.write_all_at(&random(rng, 1 << 19), at & !0xffff)?,
            4 => {
                let mut content = vec![0; 64 << 10];
                device.read_exact_at(&mut content, at)?;
                device.write_all_at(&content, rng.u64(0..DEVICE_BYTES - (1 << 20)))?;
            }
            _ => {
                let length = rng.usize(1..20_000);
                device.write_all_at(&random(rng, length), at)?;
            }
        }
    }
    Ok(())
}

fn random(rng: &mut Rng, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    rng.fill(&mut bytes);
    bytes
}

/// Gives blocks back, and keeps the size.
pub fn punch(file: &File, offset: u64, length: u64) -> io::Result<()> {
    Ok(fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, length)?)
}
