//! Drover's agent: one process on each storage host that replicates, proves and rolls back its volumes.
//!
//! `app` puts the rooms together: `config` and `tls` say who may do what, `rpc` converts, `job` decides and journals,
//! `transfer` carries the engine's frames, `volumes` holds the engine's volumes, `work` is the only bridge from async
//! to blocking code.

pub mod app;
pub mod catalogue;
pub mod certs;
pub mod check;
pub mod cli;
pub mod config;
pub mod copy;
pub mod exports;
pub mod exports_cli;
pub mod group_cli;
pub mod job;
pub mod log;
pub mod metrics;
pub mod mirror;
pub mod peers;
pub mod points_cli;
pub mod pool_cli;
pub mod pv;
pub mod recover;
pub mod rpc;
pub mod scrub;
pub mod snapshot;
pub mod snapshots_cli;
pub mod superseded;
pub mod target;
pub mod throttle;
pub mod tls;
pub mod transfer;
pub mod trash;
pub mod trash_cli;
pub mod volume_cli;
pub mod volumes;
pub mod work;
