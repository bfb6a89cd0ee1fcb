//! How long a write to the image has to wait while it is synced.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};

const PAGE: u64 = 4096;
const EVERY: Duration = Duration::from_millis(1);

/// The longest write to one page in the middle, while `job` runs.
pub(super) fn longest_during<T>(image: &Path, job: impl FnOnce() -> Result<T>) -> Result<(Duration, T)> {
    let file = File::options().write(true).open(image).with_context(|| format!("open {}", image.display()))?;
    let at = file.metadata()?.len() / 2 / PAGE * PAGE;
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let writer = scope.spawn(|| write(&file, at, &is_over));
        let outcome = job();
        is_over.store(true, Ordering::Relaxed);
        let longest = writer.join().map_err(|_| anyhow!("the writer of the image panicked"))??;
        Ok((longest, outcome?))
    })
}

fn write(file: &File, at: u64, is_over: &AtomicBool) -> Result<Duration> {
    let mut longest = Duration::ZERO;
    let mut page = [0u8; PAGE as usize];
    while !is_over.load(Ordering::Relaxed) {
        page[0] = page[0].wrapping_add(1);
        let start = Instant::now();
        file.write_all_at(&page, at).context("write to the image while it is synced")?;
        longest = longest.max(start.elapsed());
        thread::sleep(EVERY);
    }
    Ok(longest)
}
