//! Mirrored RBD images: what is known of one, what follows from it, and the processes that ask librbd.
//!
//! - [`view`]: an image as a cluster shows it, its snapshot list above all. Decisions come from it and never from the text of a status,
//!   which lags by up to 30 s.
//! - [`point`] and [`verdict`]: sync points and what a promotion would do. Pure.
//! - [`crew`]: worker processes of the agent's own binary. librbd can hang or crash its caller, so it is never called from the agent:
//!   each worker does one call at a time under a deadline, and a worker that misses it is killed. What a killed worker was changing is
//!   then *unknown*: its address is blocklisted, so that nothing of it arrives later, and the state is read again.
//! - [`turn`]: one verb at a time changes an image, of all agents of its cluster, and one that was interrupted is taken over.
//! - [`data`]: calls that move content; [`delta`]: an image as the engine syncs it.
//! - [`image`]: the verbs, step by step, on a crew; [`group`]: those of several images as one; [`pool`]: those of a pool, and its peers.

pub mod crew;
pub mod data;
pub mod delta;
pub mod group;
pub mod image;
pub mod point;
pub mod pool;
mod process;
pub mod request;
pub mod turn;
pub mod verdict;
pub mod view;
mod wire;
pub mod worker;
