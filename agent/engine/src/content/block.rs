//! Digests of the blocks of a range: which of them the other side has at the same place.

use super::{Copy, LEAF_BYTES, PAGE_BYTES};
use crate::digest::Digest;

pub type LeafDigest = [u8; 16];
/// Short, because many travel and the body's own digest follows anyway.
pub type PageDigest = [u8; 8];

/// Leaves of a range as a bitmap; a segment has far fewer than 64.
pub type Leaves = u64;

pub fn leaves(data: &[u8]) -> Vec<LeafDigest> {
    data.chunks(LEAF_BYTES).map(shortened).collect()
}

/// Digests of the pages of those leaves that `wanted` names, in order.
pub fn pages(data: &[u8], wanted: Leaves) -> Vec<PageDigest> {
    let leaves = data.chunks(LEAF_BYTES).enumerate().filter(|(n, _)| has(wanted, *n));
    leaves.flat_map(|(_, leaf)| leaf.chunks(PAGE_BYTES)).map(shortened).collect()
}

fn shortened<const N: usize>(block: &[u8]) -> [u8; N] {
    let mut short = [0; N];
    short.copy_from_slice(&blake3::hash(block).as_bytes()[..N]);
    short
}

pub fn has(leaves: Leaves, n: usize) -> bool {
    n < 64 && leaves & (1 << n) != 0
}

/// The leaves of `data` that the base, which holds `base` from its basis on, does not have.
pub fn differing(data: &[u8], base: &[LeafDigest]) -> Leaves {
    unlike(data.chunks(LEAF_BYTES).map(shortened), base)
}

/// The leaves of `new` that `old` does not have at the same place, by whatever they are told.
pub fn unlike<T: PartialEq>(new: impl Iterator<Item = T>, old: &[T]) -> Leaves {
    new.enumerate().filter(|(n, leaf)| old.get(*n) != Some(leaf)).fold(0, |bits, (n, _)| bits | 1 << n)
}

pub fn short(leaf: &Digest) -> LeafDigest {
    *leaf.as_bytes().first_chunk().expect("a digest is longer")
}

/// What the base has of `data`: all leaves but the `differing` ones, and of those the pages whose digests match.
/// `from` is where the base holds what belongs to the start of `data`.
pub fn copies(data: &[u8], from: u64, differing: Leaves, pages: &[PageDigest]) -> Vec<Copy> {
    let mut copies = Vec::new();
    let mut pages = pages.chunks(LEAF_BYTES / PAGE_BYTES);
    for (n, leaf) in data.chunks(LEAF_BYTES).enumerate() {
        let at = n * LEAF_BYTES;
        if !has(differing, n) {
            copies.push(Copy { at, from: from + at as u64, len: leaf.len() });
            continue;
        }
        let known = pages.next().unwrap_or_default();
        for (page, (content, digest)) in leaf.chunks(PAGE_BYTES).zip(known).enumerate() {
            if *digest == shortened::<8>(content) {
                let at = at + page * PAGE_BYTES;
                copies.push(Copy { at, from: from + at as u64, len: content.len() });
            }
        }
    }
    copies
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_changed_byte_costs_one_page() {
        let base: Vec<u8> = (0..4 * LEAF_BYTES + 5000).map(|n| (n / 7) as u8).collect();
        let mut data = base.clone();
        data[LEAF_BYTES + 2 * PAGE_BYTES + 9] ^= 1;
        let leaves = differing(&data, &leaves(&base));
        assert_eq!(leaves, 0b10);
        let copied: usize = copies(&data, 0, leaves, &pages(&base, leaves)).iter().map(|copy| copy.len).sum();
        assert_eq!(copied, data.len() - PAGE_BYTES);
    }

    #[test]
    fn a_base_that_ends_early_gives_what_it_has() {
        let base = vec![3; LEAF_BYTES + 2 * PAGE_BYTES + 100];
        let data = vec![3; 3 * LEAF_BYTES];
        let leaves = differing(&data, &leaves(&base));
        assert_eq!(leaves, 0b110);
        let copies = copies(&data, 700, leaves, &pages(&base, leaves));
        assert_eq!(copies.iter().map(|copy| copy.len).sum::<usize>(), LEAF_BYTES + 2 * PAGE_BYTES);
        assert!(copies.iter().all(|copy| copy.from == copy.at as u64 + 700));
    }
}
