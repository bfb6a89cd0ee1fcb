//! A leaf's digest by its pages, so that one changed page is hashed and not the leaf around it.
//!
//! BLAKE3 is a tree over chunks of 1 KiB, so a page of 4 KiB at its place within a leaf of 64 KiB is a whole subtree, and the
//! digest of the leaf follows from the chaining values of its 16 pages (the BLAKE3 paper, 2.4; `blake3::hazmat`). These are 32 bytes
//! each and as good as a digest for a page at that place, and for nothing else.

use blake3::{
    Hasher,
    hazmat::{HasherExt as _, Mode, merge_subtrees_non_root, merge_subtrees_root},
};

use super::{LEAF_BYTES, PAGE_BYTES};
use crate::digest::Digest;

pub const LEAF_PAGES: usize = LEAF_BYTES / PAGE_BYTES;
const _: () = assert!(LEAF_PAGES == 16);

/// Chaining value of one page.
pub type PageValue = [u8; 32];
/// Of the pages of a whole leaf.
pub type LeafValues = [PageValue; LEAF_PAGES];

/// `n` is the page's place in its leaf.
pub fn value(page: &[u8], n: usize) -> PageValue {
    debug_assert!(page.len() == PAGE_BYTES && n < LEAF_PAGES);
    Hasher::new().set_input_offset((n * PAGE_BYTES) as u64).update(page).finalize_non_root()
}

pub fn values(leaf: &[u8]) -> LeafValues {
    let mut values = [[0; 32]; LEAF_PAGES];
    for (n, (page, value)) in leaf.chunks_exact(PAGE_BYTES).zip(&mut values).enumerate() {
        *value = self::value(page, n);
    }
    values
}

/// What BLAKE3 of the whole leaf is.
pub fn leaf(values: &LeafValues) -> Digest {
    let merged = |a: &PageValue, b: &PageValue| merge_subtrees_non_root(a, b, Mode::Hash);
    let mut level = *values;
    let mut len = LEAF_PAGES;
    while len > 2 {
        for n in 0..len / 2 {
            level[n] = merged(&level[2 * n], &level[2 * n + 1]);
        }
        len /= 2;
    }
    merge_subtrees_root(&level[0], &level[1], Mode::Hash).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_make_the_digest_of_their_leaf() {
        let mut content: Vec<u8> = (0..LEAF_BYTES).map(|n| (n / 5) as u8).collect();
        let mut known = values(&content);
        assert_eq!(leaf(&known), Digest::of(&content));
        content[9 * PAGE_BYTES + 1] ^= 1;
        assert_ne!(leaf(&known), Digest::of(&content));
        known[9] = value(&content[9 * PAGE_BYTES..10 * PAGE_BYTES], 9);
        assert_eq!(leaf(&known), Digest::of(&content));
    }

    #[test]
    fn a_page_is_another_one_elsewhere() {
        let page = [7; PAGE_BYTES];
        assert_ne!(value(&page, 0), value(&page, 1));
    }
}
