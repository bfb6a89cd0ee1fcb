//! All end-to-end tests, in one binary: linked once, one module for each part of the acceptance.

mod access;
mod block;
mod catalogue;
mod ceph;
mod crash;
mod cuts;
mod delta;
mod device;
mod failpoints;
mod fencing;
mod fleet;
mod full;
mod groups;
mod hostile;
mod image_file;
mod judges;
mod link;
mod movers;
mod points;
mod pools;
mod power;
mod property;
mod pv;
mod rbd;
mod recovery;
mod resume;
mod rollback;
mod rules;
mod saboteurs;
mod split_brain;
mod trash;
mod verify;

/// Parts of log lines of level WARN that ordinary syncs may cause.
const LISTED: &[&str] = &[];
