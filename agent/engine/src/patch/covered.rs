//! Which ranges of a content are replaced.

use std::{collections::BTreeMap, ops::Range};

/// What a range of a content becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cover {
    /// What the patch's data file has at the same offsets.
    Data,
    Hole,
}

/// Disjoint ranges; neighbours with the same cover are one range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Covered(BTreeMap<u64, (u64, Cover)>);

impl Covered {
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (Range<u64>, Cover)> + Clone + '_ {
        self.0.iter().map(|(start, (end, cover))| (*start..*end, *cover))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// What was there before is replaced.
    pub(crate) fn put(&mut self, range: Range<u64>, cover: Cover) {
        if range.is_empty() {
            return;
        }
        self.take(range.clone());
        let (mut start, mut end) = (range.start, range.end);
        if let Some((&before, &(until, what))) = self.0.range(..start).next_back()
            && (until, what) == (start, cover)
        {
            start = before;
        }
        if let Some(&(until, what)) = self.0.get(&end)
            && what == cover
        {
            self.0.remove(&end);
            end = until;
        }
        self.0.insert(start, (end, cover));
    }

    /// Nothing is replaced in the range any more.
    pub(crate) fn take(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        if let Some((&start, &(end, cover))) = self.0.range(..range.start).next_back()
            && end > range.start
        {
            self.0.insert(start, (range.start, cover));
            if end > range.end {
                self.0.insert(range.end, (end, cover));
            }
        }
        while let Some((&start, &(end, cover))) = self.0.range(range.clone()).next() {
            self.0.remove(&start);
            if end > range.end {
                self.0.insert(range.end, (end, cover));
            }
        }
    }

    /// Between two ranges of data, shorter than `bytes`.
    pub(crate) fn gaps(&self, bytes: u64) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut end_of_data = None;
        for (range, cover) in self.iter() {
            let gap = end_of_data.filter(|end| cover == Cover::Data && range.start - end < bytes);
            gaps.extend(gap.map(|end| end..range.start));
            end_of_data = (cover == Cover::Data).then_some(range.end);
        }
        gaps
    }

    /// The range in pieces, in order; `None` where nothing is replaced.
    pub(crate) fn pieces(&self, range: Range<u64>) -> Vec<(Range<u64>, Option<Cover>)> {
        let mut pieces = Vec::new();
        let mut at = range.start;
        let before = self.0.range(..range.start).next_back().filter(|(_, (end, _))| *end > range.start);
        for (&start, &(end, cover)) in before.into_iter().chain(self.0.range(range.clone())) {
            let (start, end) = (start.max(range.start), end.min(range.end));
            if at < start {
                pieces.push((at..start, None));
            }
            pieces.push((start..end, Some(cover)));
            at = end;
        }
        if at < range.end {
            pieces.push((at..range.end, None));
        }
        pieces
    }

    /// Offset and length of data, where `base` has the base's.
    pub(crate) fn over(&self, base: &[(u64, u64)], size: u64) -> Vec<(u64, u64)> {
        let mut data = Self::default();
        for (start, len) in base.iter().filter(|(start, _)| *start < size) {
            data.put(*start..(start + len).min(size), Cover::Data);
        }
        for (range, cover) in self.iter().filter(|(range, _)| range.start < size) {
            let range = range.start..range.end.min(size);
            match cover {
                Cover::Data => data.put(range, Cover::Data),
                Cover::Hole => data.take(range),
            }
        }
        data.iter().map(|(range, _)| (range.start, range.end - range.start)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIZE: u64 = 64;

    fn flat(covered: &Covered) -> Vec<Option<Cover>> {
        let pieces = covered.pieces(0..SIZE);
        assert_eq!(pieces.iter().map(|(range, _)| range.end - range.start).sum::<u64>(), SIZE);
        pieces.into_iter().flat_map(|(range, cover)| range.map(move |_| cover)).collect()
    }

    proptest! {
        #[test]
        fn the_last_one_to_cover_a_byte_counts(
            ops in proptest::collection::vec((0..SIZE, 0..SIZE, 0..3u8), 0..30),
            look in (0..SIZE, 0..SIZE),
        ) {
            let (mut covered, mut model) = (Covered::default(), vec![None; SIZE as usize]);
            for (one, other, op) in ops {
                let range = one.min(other)..one.max(other);
                let cover = [Some(Cover::Data), Some(Cover::Hole), None][usize::from(op)];
                model[range.start as usize..range.end as usize].fill(cover);
                match cover {
                    Some(cover) => covered.put(range, cover),
                    None => covered.take(range),
                }
            }
            prop_assert_eq!(flat(&covered), model.clone());
            let ends: Vec<_> = covered.iter().collect();
            prop_assert!(ends.windows(2).all(|pair| pair[0].0.end < pair[1].0.start
                || (pair[0].0.end == pair[1].0.start && pair[0].1 != pair[1].1)));
            let look = look.0.min(look.1)..look.0.max(look.1);
            let pieces = covered.pieces(look.clone()).into_iter();
            let seen: Vec<_> = pieces.flat_map(|(range, cover)| range.map(move |_| cover)).collect();
            prop_assert_eq!(&seen[..], &model[look.start as usize..look.end as usize]);
            let base = [(3, 10), (20, 1), (40, 60)];
            let data = covered.over(&base, SIZE);
            let is_data = |at: u64, ranges: &[(u64, u64)]| ranges.iter().any(|(s, l)| (*s..s + l).contains(&at));
            for at in 0..SIZE {
                let expected = model[at as usize].map_or(is_data(at, &base), |cover| cover == Cover::Data);
                prop_assert_eq!(is_data(at, &data), expected, "at {}", at);
            }
        }
    }
}
