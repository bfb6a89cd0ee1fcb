//! Drover beside its rivals: the same workload, the same machine, the same run.
//!
//! `workload` makes the trees, `network` joins both ends, `agents`, `rsync` and `blocksync` are the contestants, `meter`
//! measures them from outside, `round` lets them run in turn, `goal` and `table` say what came out. `ageing` is a run of
//! Drover alone, `images` and `delta` run on Ceph clusters. Ratios within one run are what counts; times are not comparable between machines.

pub mod ageing;
pub mod agents;
pub mod blocksync;
pub mod cli;
pub mod delta;
pub mod device;
pub mod goal;
pub mod images;
pub mod machine;
pub mod meter;
pub mod mount;
pub mod network;
pub mod random;
pub mod round;
pub mod rsync;
pub mod site;
pub mod table;
pub mod wan;
pub mod workload;
