//! Paths longer than `PATH_MAX`: made piece by piece, because no system call takes them whole.

use std::{fs, path::Path};

use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};

use super::DEEP;
use crate::seed::Rng;

/// Levels of the longest names: 20 × 200 bytes and more.
const LEVELS: usize = 24;

/// Adds a chain of directories with a file at each level and at its end.
pub fn create_deep(root: &Path, rng: &mut Rng) {
    let top = root.join(DEEP);
    fs::create_dir(&top).expect("deep directory");
    let open = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let mut dir = openat(CWD, &top, open, Mode::empty()).expect("open deep directory");
    for level in 0..LEVELS {
        let name = format!("{level:03}-{}", "d".repeat(rng.usize(190..240)));
        mkdirat(&dir, &name, Mode::from_raw_mode(0o755)).expect("deeper directory");
        let create = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = openat(&dir, "file", create, Mode::from_raw_mode(0o644)).expect("deep file");
        rustix::io::write(&file, &[rng.u8(..); 777]).expect("write deep file");
        dir = openat(&dir, &name, open, Mode::empty()).expect("open deeper directory");
    }
}
