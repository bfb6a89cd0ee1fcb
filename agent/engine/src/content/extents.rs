//! Where two frozen files may differ, told by their extent maps alone (R10).
//!
//! Both files must hold still, and blocks must not be shared by compression: at an offset where both have a plain extent at
//! the same place on the device, or both have none, they hold the same bytes. Everything else may differ.

use std::{io, iter::Peekable, ops::Range};

use drover_linux::Extent;

/// More extents than the caller cares to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

/// Ranges of the first `size` bytes that may differ, in order and not touching each other. `limit` is for the extents
/// of one file.
pub fn differing(
    old: impl Iterator<Item = io::Result<Extent>>,
    new: impl Iterator<Item = io::Result<Extent>>,
    size: u64,
    limit: usize,
) -> io::Result<Result<Vec<Range<u64>>, TooMany>> {
    let (mut old, mut new) = (Map::new(old, limit), Map::new(new, limit));
    let mut ranges: Vec<Range<u64>> = Vec::new();
    let mut at = 0;
    while at < size {
        let (Some(here), Some(there)) = (old.at(at)?, new.at(at)?) else {
            return Ok(Err(TooMany));
        };
        let end = here.until.min(there.until).min(size);
        if here.place != there.place || here.place == Place::Unknown {
            match ranges.last_mut() {
                Some(last) if last.end == at => last.end = end,
                _ => ranges.push(at..end),
            }
        }
        at = end;
    }
    Ok(Ok(ranges))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Hole,
    /// Offset on the device.
    At(u64),
    Unknown,
}

struct Stretch {
    place: Place,
    until: u64,
}

struct Map<I: Iterator> {
    extents: Peekable<I>,
    left: usize,
}

impl<I: Iterator<Item = io::Result<Extent>>> Map<I> {
    fn new(extents: I, limit: usize) -> Self {
        Self { extents: extents.peekable(), left: limit }
    }

    /// What is at an offset, which only grows; `None` when the limit is reached.
    fn at(&mut self, at: u64) -> io::Result<Option<Stretch>> {
        while let Some(next) = self.extents.next_if(|next| next.as_ref().map_or(true, |extent| extent.end() <= at)) {
            next?;
            match self.left.checked_sub(1) {
                Some(left) => self.left = left,
                None => return Ok(None),
            }
        }
        Ok(Some(match self.extents.peek() {
            Some(Ok(extent)) if extent.logical <= at => {
                let place = match extent.is_plain() {
                    true => Place::At(extent.physical.wrapping_add(at - extent.logical)),
                    false => Place::Unknown,
                };
                Stretch { place, until: extent.end() }
            }
            Some(Ok(extent)) => Stretch { place: Place::Hole, until: extent.logical },
            Some(Err(_)) | None => Stretch { place: Place::Hole, until: u64::MAX },
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ENCODED: u32 = 0x8;
    const BLOCK: u64 = 4096;

    fn extent(logical: u64, physical: u64, length: u64) -> Extent {
        Extent { logical, physical, length, flags: 0 }
    }

    fn one(start: u64, end: u64) -> Vec<Range<u64>> {
        std::iter::once(start..end).collect()
    }

    fn compare(old: &[Extent], new: &[Extent], size: u64) -> Vec<Range<u64>> {
        differing(old.iter().copied().map(Ok), new.iter().copied().map(Ok), size, 1000).unwrap().unwrap()
    }

    #[test]
    fn a_split_extent_that_stayed_in_place_is_the_same() {
        let old = [extent(0, 1 << 20, 10 * BLOCK)];
        let new = [
            extent(0, 1 << 20, BLOCK),
            extent(BLOCK, 7 << 20, BLOCK),
            extent(2 * BLOCK, (1 << 20) + 2 * BLOCK, 8 * BLOCK),
        ];
        assert_eq!(compare(&old, &new, 10 * BLOCK), one(BLOCK, 2 * BLOCK));
        assert_eq!(compare(&old, &old, 10 * BLOCK), []);
    }

    #[test]
    fn encoded_extents_are_never_the_same() {
        let encoded = [Extent { flags: ENCODED, ..extent(0, 1 << 20, BLOCK) }];
        assert_eq!(compare(&encoded, &encoded, BLOCK), one(0, BLOCK));
    }

    #[test]
    fn holes_are_compared_too() {
        let old = [extent(BLOCK, 1 << 20, BLOCK)];
        assert_eq!(compare(&old, &[], 4 * BLOCK), one(BLOCK, 2 * BLOCK));
        assert_eq!(compare(&[], &old, 4 * BLOCK), one(BLOCK, 2 * BLOCK));
        assert_eq!(compare(&[], &[], 4 * BLOCK), []);
    }

    #[test]
    fn an_error_and_a_limit_are_told() {
        let many: Vec<Extent> = (0..10).map(|n| extent(2 * n * BLOCK, n << 20, BLOCK)).collect();
        let all = || many.iter().copied().map(Ok);
        assert_eq!(differing(all(), all(), 20 * BLOCK, 9).unwrap(), Err(TooMany));
        let broken = || [Ok(many[0]), Err(io::Error::other("gone"))].into_iter();
        assert!(differing(all(), broken(), 20 * BLOCK, 100).is_err());
    }

    /// A device of blocks, and two files that are maps into it.
    fn map() -> impl Strategy<Value = Vec<Option<u8>>> {
        proptest::collection::vec(proptest::option::weighted(0.8, 0u8..6), 0..24)
    }

    fn extents(map: &[Option<u8>]) -> Vec<Extent> {
        let blocks = map.iter().enumerate().filter_map(|(n, place)| Some((n as u64, u64::from((*place)?))));
        blocks.map(|(n, place)| extent(n * BLOCK, place * BLOCK, BLOCK)).collect()
    }

    proptest! {
        #[test]
        fn what_is_not_told_is_the_same(old in map(), new in map()) {
            let size = new.len() as u64 * BLOCK;
            let ranges = compare(&extents(&old), &extents(&new), size);
            for (n, place) in new.iter().enumerate() {
                let is_told = ranges.iter().any(|range| range.contains(&(n as u64 * BLOCK)));
                prop_assert_eq!(is_told, old.get(n).copied().flatten() != *place);
            }
            prop_assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
        }
    }
}
