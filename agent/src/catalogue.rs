//! The catalogue of snapshots: what the other site has to know of the VolumeSnapshots of a protected volume
//! (<https://kubernetes.io/docs/concepts/storage/volume-snapshots/>). Tooling puts records, agents bring them to each other with the
//! volume's syncs, and whoever restores reads them at either site.
//!
//! Of two records under one name the one that was written later stands, also if that says that it was deleted.

mod exchange;
mod key;
mod record;
mod store;
#[cfg(test)]
mod tests;

pub use exchange::{Exchange, ExchangeError, unix_millis};
pub use record::{Entry, MANIFEST_BYTES_MAX, NAME_BYTES_MAX, Record, RecordError};
pub use store::{Catalogue, CatalogueError, Changes, Page, Query, Watermark};
