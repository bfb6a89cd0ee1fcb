//! Image files and where they lie.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::ioctl_ficlone;

use super::Mounted;
use crate::{
    process::{self, must},
    scratch::Scratch,
};

const DEADLINE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    Ext4,
    Xfs,
    Btrfs,
}

impl FileSystem {
    pub const ALL: [Self; 3] = [Self::Ext4, Self::Xfs, Self::Btrfs];

    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    /// Smallest size that its mkfs takes without a warning.
    pub fn bytes_min(self) -> u64 {
        match self {
            Self::Ext4 => 16 << 20,
            Self::Xfs => 300 << 20,
            Self::Btrfs => 128 << 20,
        }
    }

    /// Why it can't be used here, if so.
    pub fn missing(self) -> Option<String> {
        let mkfs = format!("mkfs.{}", self.name());
        if !process::has(&mkfs) && !Path::new("/usr/sbin").join(&mkfs).exists() {
            return Some(format!("{mkfs} is not installed"));
        }
        let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
        let is_known = known.split_whitespace().any(|word| word == self.name());
        // The module may load at the mount.
        (!is_known && !process::has("modprobe")).then(|| format!("the kernel has no {}", self.name()))
    }

    fn mkfs_options(self) -> &'static [&'static str] {
        match self {
            // All of the small image for files, nothing done later in the background; blocks that direct I/O can write.
            Self::Ext4 => &["-q", "-F", "-b", "4096", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0"],
            Self::Xfs => &["-q", "-f", "-s", "size=4096", "-m", "reflink=1"],
            Self::Btrfs => &["-q", "-f"],
        }
    }

    /// Makes one in a file that is there.
    pub fn make(self, file: &Path) -> io::Result<()> {
        let mkfs = format!("mkfs.{}", self.name());
        let mut command = std::process::Command::new(&mkfs);
        command.args(self.mkfs_options()).arg(file).env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin");
        process::try_run(command, DEADLINE)?.expect(&mkfs);
        Ok(())
    }

    /// Mounts a file that has one in it.
    pub fn mount(self, file: &Path) -> io::Result<Mounted> {
        Mounted::mount(file, self, None, None)
    }

    /// A clone has the same UUID as its original, which may be mounted.
    pub(super) fn clone_options(self) -> Option<&'static str> {
        match self {
            Self::Xfs => Some("nouuid"),
            Self::Ext4 | Self::Btrfs => None,
        }
    }
}

/// An XFS with reflinks for images to lie on, so that a clone takes no time. The host's own file system may have none.
#[derive(Debug)]
pub struct Store {
    // In this order: unmounted before the image is deleted.
    mounted: Mounted,
    _image: Image,
}

impl Store {
    pub fn new(bytes: u64) -> io::Result<Self> {
        let scratch = Scratch::new("store");
        let image = Image::create(scratch, "store.img", FileSystem::Xfs, bytes)?;
        let mounted = image.mount()?;
        Ok(Self { mounted, _image: image })
    }

    pub fn image(&self, file_system: FileSystem, bytes: u64) -> io::Result<Image> {
        let scratch = Scratch::beneath(self.mounted.path(), "image");
        Image::create(scratch, file_system.name(), file_system, bytes)
    }
}

/// One image file in a directory of its own.
#[derive(Debug)]
pub struct Image {
    file_system: FileSystem,
    path: PathBuf,
    scratch: Scratch,
    is_clone: bool,
}

impl Image {
    /// An image for itself, not on a store.
    pub fn new(file_system: FileSystem, bytes: u64) -> io::Result<Self> {
        Self::create(Scratch::new("image"), file_system.name(), file_system, bytes)
    }

    fn create(scratch: Scratch, name: &str, file_system: FileSystem, bytes: u64) -> io::Result<Self> {
        let path = scratch.join(name);
        File::create(&path)?.set_len(bytes.max(file_system.bytes_min()))?;
        file_system.make(&path)?;
        Ok(Self { file_system, path, scratch, is_clone: false })
    }

    pub fn file_system(&self) -> FileSystem {
        self.file_system
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn mount(&self) -> io::Result<Mounted> {
        let options = if self.is_clone { self.file_system.clone_options() } else { None };
        Mounted::mount(&self.path, self.file_system, options, None)
    }

    /// At a place that stays the same from mount to mount.
    pub fn mount_at(&self, at: &Path) -> io::Result<Mounted> {
        Mounted::mount(&self.path, self.file_system, None, Some(at))
    }

    /// What the loop device has written until now, at one instant: what a power cut would leave. The loop device must
    /// not cache (`Mounted` uses direct I/O), or this would be less than a real disk keeps.
    pub fn cut_power(&self, name: &str) -> io::Result<Self> {
        let scratch = Scratch::beneath(self.scratch.path(), name);
        let path = scratch.join("clone.img");
        ioctl_ficlone(File::create(&path)?, File::open(&self.path)?)?;
        Ok(Self { file_system: self.file_system, path, scratch, is_clone: true })
    }

    /// Flips one bit of the `nth` place where the device holds `needle`: silent rot, beneath the file system. The
    /// file system must not be mounted.
    pub fn rot(&self, needle: &[u8]) -> io::Result<u64> {
        use std::os::unix::fs::FileExt;
        let file = File::options().read(true).write(true).open(&self.path)?;
        let bytes = std::fs::read(&self.path)?;
        let found = bytes.windows(needle.len()).position(|window| window == needle);
        let at = found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the device does not hold it"))?;
        file.write_all_at(&[needle[0] ^ 1], at as u64)?;
        file.sync_all()?;
        Ok(at as u64)
    }
}

/// Programs that mounting needs.
pub(super) fn call(program: &str, arguments: &[&dyn AsRef<std::ffi::OsStr>]) -> String {
    let sbin = Path::new("/usr/sbin").join(program);
    let program = if sbin.exists() { sbin.display().to_string() } else { program.to_owned() };
    must(&program, arguments, DEADLINE)
}
