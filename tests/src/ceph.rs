//! Two real Ceph clusters on loopback, `site-a` and `site-b`, with an rbd-mirror daemon on each side.
//!
//! Each has a monitor, a manager and one BlueStore OSD with data that survives SIGKILL. The command line tools `rbd` and
//! `ceph` are the tests' own: they make images, and judge what the agent did through librbd. Settings are Ceph's defaults
//! but for size (one OSD, one replica) and waiting times (`config`).
//!
//! Every process is killed when the test process ends, however it ends.

mod caps;
mod cluster;
mod clusters;
mod config;
mod content;
mod daemon;
mod image;
mod ports;
mod release;
mod site;
mod slow;
mod snapshot;

pub use caps::Recipe;
pub use cluster::Cluster;
pub use clusters::Clusters;
pub use content::Content;
pub use daemon::Kind;
pub use image::{Image, Writer};
pub use release::Release;
pub use slow::Slowed;
pub use snapshot::{Mirror, Namespace, Snapshot};
