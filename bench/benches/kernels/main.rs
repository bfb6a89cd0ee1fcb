//! The engine's inner loops, each beside the plain operation that bounds it. Axes are in the names.

mod content;
mod scan;
mod tree;
mod wire;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};

/// Short, because they are run to see changes of a tenth, not of a hundredth.
fn config() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
}

criterion_group! {
    name = kernels;
    config = config();
    targets = tree::blocks, tree::manifest, content::hash, wire::frames, scan::unchanged_and_first
}
criterion_main!(kernels);
