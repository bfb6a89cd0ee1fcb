//! Hashing of files in the page cache, beside BLAKE3 of the same bytes in memory.

use std::{fs, hint::black_box};

use criterion::{BenchmarkId, Criterion, Throughput};
use drover_bench::random::Random;
use drover_engine::{control::Control, digest::Digest, hash::hash_file};

pub(crate) fn hash(c: &mut Criterion) {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let mut group = c.benchmark_group("hash");
    for (label, bytes) in [("12KiB", 12 << 10), ("1MiB", 1 << 20), ("64MiB", 64 << 20)] {
        let content = Random::new(1).noise(bytes);
        let path = temp.path().join(label);
        fs::write(&path, &content).expect("write file");
        let file = fs::File::open(&path).expect("open file");
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::new("file/size", label), |b| {
            let control = Control::default();
            b.iter(|| hash_file(&file, bytes as u64, &control));
        });
        group.bench_with_input(BenchmarkId::new("baseline-memory/size", label), &content, |b, content| {
            b.iter(|| Digest::of(black_box(content)));
        });
    }
    group.finish();
}
