//! A file system of one's own for a run: an image, loop-mounted.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

const BYTES: u64 = 40 << 30;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Ext4,
    Xfs,
    Btrfs,
}

/// Unmounted and gone with the run.
#[derive(Debug)]
pub struct Mounted {
    pub at: PathBuf,
    image: PathBuf,
    device: String,
}

impl Mounted {
    pub fn create(kind: Kind, dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let (mkfs, options): (_, &[&str]) = match kind {
            Kind::Ext4 => ("mkfs.ext4", &["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"]),
            Kind::Xfs => ("mkfs.xfs", &["-q", "-f", "-s", "size=4096"]),
            Kind::Btrfs => ("mkfs.btrfs", &["-q", "-f"]),
        };
        let mut mounted = Self { at: dir.join("mounted"), image: dir.join("filesystem.img"), device: String::new() };
        fs::create_dir_all(&mounted.at)?;
        File::create(&mounted.image)?.set_len(BYTES)?;
        run(Command::new(mkfs).args(options).arg(&mounted.image))?;
        // Direct I/O: the data would else be twice in the page cache.
        let mut losetup = Command::new("losetup");
        let device = run(losetup.args(["--find", "--show", "--direct-io=on"]).arg(&mounted.image))?;
        device.trim().clone_into(&mut mounted.device);
        run(Command::new("mount").args(["-o", "discard", &mounted.device]).arg(&mounted.at))?;
        Ok(mounted)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Whoever still holds it keeps it; the image goes with its last user.
        let _ =
            run(Command::new("umount").arg(&self.at)).or_else(|_| run(Command::new("umount").arg("-l").arg(&self.at)));
        let _ = run(Command::new("losetup").args(["--detach", &self.device]));
        let _ = fs::remove_file(&self.image);
    }
}

pub fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("start {}", command.get_program().display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{} failed: {said}", command.get_program().display());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
