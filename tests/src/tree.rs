//! Random directory trees and random edits of them, made straight with system calls: nothing of the product is used,
//! so nothing that it gets wrong can cancel out. The same seed makes the same tree and the same edits.

mod attributes;
mod content;
mod create;
mod deep;
mod edit;
mod list;
mod names;
mod remove;

use std::path::Path;

pub use attributes::{Acl, CAPABILITY, Mtime, read_flags, set_flags, set_mtime, set_xattr};
pub use content::{punch, write_at};
pub use deep::create_deep;
pub use edit::{Edit, edit};
pub use list::{Item, Kind, list};
pub use names::random_name;
pub use remove::{remove_tree, unlock_tree};

use crate::seed::Rng;

/// Beneath this name lie paths longer than `PATH_MAX`, which rsync and cp can't follow.
pub const DEEP: &str = "deep";

/// A tree of at least `entries` entries of every kind beneath `root`, which is created when missing.
pub fn create(root: &Path, rng: &mut Rng, entries: usize) {
    create::create(root, rng, entries);
}

/// Whether this process may create devices, owners and flags as it likes.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
