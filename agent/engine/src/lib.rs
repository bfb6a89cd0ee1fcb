//! Drover's engine: what a sync is, without a runtime, a wire or a clock of its own.
//!
//! Pure rooms (`tree`, `plan`, `point`) decide; `scan`, `stage`, `commit`, `retain` and `beside` touch one volume's
//! file system through `drover-linux`; `session` lets two of them meet over any `Link`.

pub mod bases;
pub mod beside;
pub mod codec;
pub mod commit;
pub mod content;
pub mod control;
pub mod digest;
mod disk_threads;
pub mod error;
pub mod fault;
pub mod hash;
pub mod id;
pub mod image;
pub mod index;
mod leaves;
pub mod meta;
pub mod pages;
pub mod patch;
pub mod path;
pub mod plan;
pub mod point;
pub mod pool;
pub mod record;
mod reindex;
pub mod report;
pub mod scan;
pub mod session;
pub mod stage;
pub mod transaction;
pub mod trash;
pub mod tree;
pub mod volume;
