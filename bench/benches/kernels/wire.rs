//! Frames sealed, passed through an in-process link and opened, beside the checksum that they are made of.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput};
use drover_bench::random::Random;
use drover_engine::{
    control::Control,
    digest::Digest,
    path::{Name, RelPath},
    session::{LocalLink, Message, Piece, Wire},
};

pub(crate) fn frames(c: &mut Criterion) {
    let mut group = c.benchmark_group("frame");
    let path = RelPath::root().join(&Name::new(b"dir-001").expect("a plain name"));
    for (label, bytes) in [("4KiB", 4 << 10), ("256KiB", 256 << 10), ("1MiB", 1 << 20)] {
        let payload = Bytes::from(Random::new(1).noise(bytes));
        let message = Message::Listing(vec![Piece { path: path.clone(), is_last: true, bytes: payload.clone() }]);
        let (here, there) = LocalLink::pair();
        let control = Control::default();
        let (sender, receiver) = (Wire::new(&here, &control), Wire::new(&there, &control));
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::new("seal-and-open/size", label), |b| {
            b.iter(|| {
                sender.send(&message).expect("the link has room");
                receiver.receive()
            });
        });
        group.bench_function(BenchmarkId::new("baseline-digest/size", label), |b| {
            b.iter(|| Digest::of(black_box(&payload)));
        });
    }
    group.finish();
}
