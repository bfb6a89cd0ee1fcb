//! A directory block: the canonical bytes of one directory's entries, sorted by name.
//!
//! `digest = BLAKE3-derive-key("drover directory block v1", bytes)`. A directory's entry in its parent's block carries
//! that digest, so a block proves itself to whoever knows its parent, and equal subtrees are seen by one comparison.

use std::sync::Arc;

use super::{Entry, Totals};
use crate::{
    codec::{DecodeError, Reader, Writer},
    digest::Digest,
    path::Name,
};

const CONTEXT: &str = "drover directory block v1";

#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    #[error("directory block is malformed")]
    Malformed(#[source] DecodeError),
    #[error("directory block has digest {actual}, expected {expected}")]
    Digest { expected: Digest, actual: Digest },
}

/// Immutable, cheap to clone, always valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirBlock {
    bytes: Arc<[u8]>,
    digest: Digest,
}

impl DirBlock {
    /// Of entries in any order; names must differ.
    pub fn new(mut entries: Vec<Entry>) -> Self {
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        debug_assert!(entries.windows(2).all(|w| w[0].name < w[1].name), "two entries of one name");
        let mut w = Writer::new();
        for entry in &entries {
            entry.encode(&mut w);
        }
        Self::seal(w.into_bytes())
    }

    fn seal(bytes: Vec<u8>) -> Self {
        Self { digest: Digest::of_record(CONTEXT, &bytes), bytes: bytes.into() }
    }

    pub fn empty() -> Self {
        Self::seal(Vec::new())
    }

    /// From the wire or the disk: every entry is checked, and the digest when one is expected.
    pub fn parse(bytes: &[u8], expected: Option<Digest>) -> Result<Self, BlockError> {
        let block = Self::seal(bytes.to_vec());
        if let Some(expected) = expected
            && expected != block.digest
        {
            return Err(BlockError::Digest { expected, actual: block.digest });
        }
        let mut r = Reader::new(&block.bytes);
        let mut last: Option<Name> = None;
        while !r.is_empty() {
            let entry = Entry::decode(&mut r).map_err(BlockError::Malformed)?;
            if last.as_ref().is_some_and(|last| *last >= entry.name) {
                return Err(BlockError::Malformed(DecodeError::Unsorted { what: "names" }));
            }
            last = Some(entry.name);
        }
        Ok(block)
    }

    pub fn digest(&self) -> Digest {
        self.digest
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Entries in name order.
    pub fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        let mut r = Reader::new(&self.bytes);
        std::iter::from_fn(move || {
            (!r.is_empty()).then(|| Entry::decode(&mut r).expect("a block is checked when it is made"))
        })
    }

    pub fn find(&self, name: &Name) -> Option<Entry> {
        self.entries().find(|entry| entry.name == *name)
    }

    /// Of all entries beneath, as a directory's entry carries them.
    pub fn totals(&self) -> Totals {
        self.entries().map(|entry| entry.totals()).fold(Totals::default(), |a, b| Totals {
            entries: a.entries.saturating_add(b.entries),
            bytes: a.bytes.saturating_add(b.bytes),
        })
    }
}
