//! Chaining values of the pages of a block volume's content (`content::pages`), kept at the source: they tell which pages of a
//! changed leaf have changed, and prove the new leaf to a sink that has the old one, so that the sink reads nothing of it.
//!
//! ```text
//! pages   512 bytes for each leaf, in order: 16 values of 32 bytes; 512 zeros where nothing is known
//! ```
//! 8 GiB for a TiB of data. It belongs to no content: an entry is believed when its values make the digest of the leaf that it is
//! asked about, so it needs no sync, and what an interrupted sync left only costs the leaves that it left. A scan
//! makes the entries that nothing is known of; a sync replaces those of the leaves that it sends.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::{Arc, LazyLock},
};

use crate::{
    bases::is_without_room,
    content::{
        LEAF_BYTES,
        pages::{self, LeafValues, PageValue},
    },
    digest::Digest,
    hash::read_padded,
    leaves::{LeafFile, Node, is_zero_leaf},
};

const NONE: LeafValues = [[0; 32]; pages::LEAF_PAGES];
const ENTRY_BYTES: u64 = size_of::<LeafValues>() as u64;

#[derive(Debug)]
pub(crate) struct PageFile(File);

impl PageFile {
    pub(crate) fn new(file: File) -> Self {
        Self(file)
    }

    /// Of the leaf that begins at `offset`, if they make its digest. Zeros need no entry.
    pub(crate) fn of(&self, offset: u64, digest: &Digest) -> io::Result<Option<LeafValues>> {
        if is_zero_leaf(digest) {
            return Ok(Some(zero_leaf()));
        }
        let mut values = NONE;
        read_padded(&self.0, values.as_flattened_mut(), Self::place(offset))?;
        Ok((values != NONE && pages::leaf(&values) == *digest).then_some(values))
    }

    /// Without room nothing is kept: it saves work, and content can be told without it.
    pub(crate) fn put(&self, offset: u64, values: &LeafValues) -> io::Result<()> {
        match self.0.write_all_at(values.as_flattened(), Self::place(offset)) {
            Err(error) if is_without_room(&error) => Ok(()),
            put => put,
        }
    }

    /// Nothing is known any more, and no space is taken.
    pub(crate) fn clear(&self) -> io::Result<()> {
        self.0.set_len(0)
    }

    fn place(offset: u64) -> u64 {
        offset / LEAF_BYTES as u64 * ENTRY_BYTES
    }
}

fn zero_leaf() -> LeafValues {
    static VALUES: LazyLock<LeafValues> = LazyLock::new(|| pages::values(&[0; LEAF_BYTES]));
    *VALUES
}

/// Brings the entries of leaves up to date while they are read.
pub(crate) struct Filling {
    pub(crate) pages: Arc<PageFile>,
    /// Of the content at the last look, of the same size.
    pub(crate) before: LeafFile,
}

impl Filling {
    /// The leaves of a node at the last look.
    pub(crate) fn before(&self, n: u64) -> io::Result<Node> {
        self.before.read(n)
    }

    /// What is known of a leaf before it changed is kept for the sync that tells the change.
    pub(crate) fn look(&self, offset: u64, leaf: &[u8], before: &Digest) -> io::Result<()> {
        if leaf.len() != LEAF_BYTES || self.pages.of(offset, before)?.is_some() {
            return Ok(());
        }
        self.pages.put(offset, &pages::values(leaf))
    }
}

/// What a source knows of the pages that a sink's base has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownPages {
    /// Of a segment.
    pub leaves: crate::content::block::Leaves,
    /// Of these leaves as the base has them, in order.
    pub values: Vec<PageValue>,
}

impl KnownPages {
    /// Of the `n`th leaf of the segment.
    pub(crate) fn of(&self, n: usize) -> Option<&LeafValues> {
        use crate::content::block::has;
        if !has(self.leaves, n) {
            return None;
        }
        let before = (0..n).filter(|n| has(self.leaves, *n)).count() * pages::LEAF_PAGES;
        self.values.get(before..before + pages::LEAF_PAGES)?.try_into().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_believed_that_make_the_digest_and_zeros_are_always_known() {
        let pages = PageFile::new(tempfile::tempfile().unwrap());
        let leaf: Vec<u8> = (0..LEAF_BYTES).map(|n| (n / 3) as u8).collect();
        let (digest, at) = (Digest::of(&leaf), 3 * LEAF_BYTES as u64);
        assert_eq!(pages.of(at, &digest).unwrap(), None);
        pages.put(at, &pages::values(&leaf)).unwrap();
        assert_eq!(pages.of(at, &digest).unwrap(), Some(pages::values(&leaf)));
        assert_eq!(pages.of(0, &digest).unwrap(), None);
        assert_eq!(pages.of(at, &Digest::of(b"other")).unwrap(), None);
        let zeros = [0; LEAF_BYTES];
        assert_eq!(pages.of(at, &Digest::of(&zeros)).unwrap(), Some(pages::values(&zeros)));
    }
}
