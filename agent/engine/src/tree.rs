//! What a directory tree is to Drover: entries in directory blocks, blocks in a manifest, all under one root digest.

mod block;
mod entry;
mod manifest;
#[cfg(test)]
mod tests;

pub use block::{BlockError, DirBlock};
pub use entry::{Body, DeviceKind, Entry, Flags, Meta, Node, Time, Totals, XATTR_BYTES_MAX, Xattr};
pub use manifest::{Manifest, ManifestBuilder, ManifestError};
