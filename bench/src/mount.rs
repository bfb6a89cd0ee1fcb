//! A file system of one's own for a run: an image, loop-mounted.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

const BYTES: u64 = 40 << 30;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
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
}

impl Mounted {
    pub fn create(kind: Kind, dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let (mkfs, options): (_, &[&str]) = match kind {
            Kind::Ext4 => ("mkfs.ext4", &["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"]),
            Kind::Xfs => ("mkfs.xfs", &["-q", "-f"]),
            Kind::Btrfs => ("mkfs.btrfs", &["-q", "-f"]),
        };
        let mounted = Self { at: dir.join("mounted"), image: dir.join("filesystem.img") };
        fs::create_dir_all(&mounted.at)?;
        File::create(&mounted.image)?.set_len(BYTES)?;
        run(Command::new(mkfs).args(options).arg(&mounted.image))?;
        run(Command::new("mount").args(["-o", "loop"]).args([&mounted.image, &mounted.at]))?;
        Ok(mounted)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Whoever still holds it keeps it; the image goes with its last user.
        let _ =
            run(Command::new("umount").arg(&self.at)).or_else(|_| run(Command::new("umount").arg("-l").arg(&self.at)));
        let _ = fs::remove_file(&self.image);
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("start {}", command.get_program().display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{} failed: {said}", command.get_program().display());
    Ok(())
}
