//! Directory blocks and manifests: what every sync does once for each directory.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use drover_engine::{
    digest::Digest,
    path::{Name, RelPath},
    tree::{Body, DirBlock, Entry, ManifestBuilder, Meta, Node, Time, Totals},
};

fn file(number: u64) -> Entry {
    let digest = Digest::of(&number.to_le_bytes());
    Entry {
        name: name(&format!("file-{number:05}.dat")),
        meta: meta(number),
        node: Node::File(Body { size: 10_000 + number, digest, holes: 0 }),
    }
}

fn directory(number: u64) -> Entry {
    let node = Node::Directory { digest: Digest::default(), totals: Totals::default() };
    Entry { name: name(&format!("dir-{number:03}")), meta: meta(number), node }
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).expect("a plain name")
}

fn meta(number: u64) -> Meta {
    let mtime = Time { secs: 1_600_000_000 + number as i64, nanos: 123_456_789 };
    Meta { mode: 0o644, uid: 1000, gid: 1000, mtime, ..Meta::default() }
}

pub(crate) fn blocks(c: &mut Criterion) {
    let mut group = c.benchmark_group("block");
    for entries in [10, 100, 10_000] {
        let files: Vec<Entry> = (0..entries).map(file).collect();
        let block = DirBlock::new(files.clone());
        let bytes = block.as_bytes().to_vec();
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_with_input(BenchmarkId::new("build/entries", entries), &files, |b, files| {
            b.iter_batched(|| files.clone(), DirBlock::new, criterion::BatchSize::SmallInput);
        });
        group.bench_with_input(BenchmarkId::new("parse/entries", entries), &bytes, |b, bytes| {
            b.iter(|| DirBlock::parse(bytes, Some(block.digest())));
        });
        group.bench_with_input(BenchmarkId::new("baseline-digest/entries", entries), &bytes, |b, bytes| {
            b.iter(|| Digest::of_record("baseline", black_box(bytes)));
        });
    }
    group.finish();
}

/// The tree of W1: 500 directories of 100 files.
pub(crate) fn manifest(c: &mut Criterion) {
    let mut group = c.benchmark_group("manifest");
    let directories: Vec<RelPath> = (0..500).map(|n| RelPath::root().join(&directory(n).name)).collect();
    let contents: Vec<Vec<Entry>> = (0..500).map(|n| (n * 100..n * 100 + 100).map(file).collect()).collect();
    group.throughput(Throughput::Elements(50_500));
    group.bench_function("finish/entries=50500/all-open", |b| {
        let setup = || {
            let mut builder = ManifestBuilder::new();
            builder.directory(RelPath::root(), (0..500).map(directory).collect());
            for (path, entries) in directories.iter().zip(&contents) {
                builder.directory(path.clone(), entries.clone());
            }
            builder
        };
        b.iter_batched(
            setup,
            |builder| builder.finish(meta(0)).expect("a whole tree"),
            criterion::BatchSize::LargeInput,
        );
    });
    let blocks: Vec<DirBlock> = contents.iter().cloned().map(DirBlock::new).collect();
    group.bench_function("finish/entries=50500/all-sealed", |b| {
        let setup = || {
            let mut builder = ManifestBuilder::new();
            builder.directory(RelPath::root(), (0..500).map(directory).collect());
            for (path, block) in directories.iter().zip(&blocks) {
                builder.block(path.clone(), block.clone());
            }
            builder
        };
        b.iter_batched(
            setup,
            |builder| builder.finish(meta(0)).expect("a whole tree"),
            criterion::BatchSize::LargeInput,
        );
    });
    group.finish();
}
