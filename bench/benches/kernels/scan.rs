//! A scan of the W1 tree's small sister: with an index that knows it all, and without one; beside a plain walk.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path, thread, time::Duration};

use criterion::{Criterion, Throughput};
use drover_bench::workload::{Size, tree};
use drover_engine::{
    control::Control,
    scan::{ScanOptions, scan},
};
use drover_linux::{Dir, Time};

/// Longer than files count as too young to be trusted by their times.
const AGE: Duration = Duration::from_secs(6);

pub(crate) fn unchanged_and_first(c: &mut Criterion) {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let volume = temp.path().join("volume");
    if tree::create(&volume, Size::Small).is_err() {
        return eprintln!("SKIPPED scan: making the tree needs root");
    }
    thread::sleep(AGE);
    let probe = temp.path().join("clock");
    let clock = || touched(&probe);
    let root = Dir::open(&volume).expect("open volume");
    let mark = root.stat_self().expect("stat volume").id;
    let options =
        ScanOptions { mark, clock: &clock, deep: false, reread_before: None, waive_mount_points: false, bases: None };
    let control = Control::default();
    let first = scan(&root, None, &options, &control).expect("a first scan").index;

    let mut group = c.benchmark_group("scan");
    group.throughput(Throughput::Elements(first.manifest.totals().entries));
    group.bench_function("entries=1010/index=all", |b| b.iter(|| scan(&root, Some(&first), &options, &control)));
    group.bench_function("entries=1010/index=none", |b| b.iter(|| scan(&root, None, &options, &control)));
    group.bench_function("entries=1010/baseline-walk", |b| b.iter(|| walk(&volume)));
    group.finish();
}

/// The file system's own clock: the time that a file touched just now has.
fn touched(probe: &Path) -> io::Result<Time> {
    fs::write(probe, "")?;
    let stat = fs::metadata(probe)?;
    Ok(Time { secs: stat.mtime(), nanos: stat.mtime_nsec() as u32 })
}

/// Entries beneath, each statted once.
fn walk(directory: &Path) -> io::Result<u64> {
    fs::read_dir(directory)?.try_fold(0, |entries, entry| {
        let entry = entry?;
        let beneath = if entry.metadata()?.is_dir() { walk(&entry.path())? } else { 0 };
        Ok(entries + 1 + beneath)
    })
}
