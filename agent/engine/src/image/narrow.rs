//! What of a change is told: the pages that are another thing than before, and no more.

use std::mem;

use crate::{
    content::part::is_zero,
    digest::Digest,
    image::{
        LEAF_BYTES, Leaf, Range,
        stream::{Encoder, FRAME_BYTES, Totals},
    },
};

/// What is compared with what was there before, and left out where it is the same.
pub const PAGE: usize = 4096;

/// Ranges are joined to multiples of this, and to coarser ones where they are too many.
pub(super) const GRAIN: u64 = 64 << 10;
const GRAINS_MAX: usize = 1 << 18;

/// Neighbours are joined; of too many the grain is made coarser.
#[derive(Debug)]
pub struct Coarse {
    grain: u64,
    ranges: Vec<Range>,
}

impl Default for Coarse {
    fn default() -> Self {
        Self { grain: GRAIN, ranges: Vec::new() }
    }
}

impl Coarse {
    /// In order of their offset.
    pub fn push(&mut self, range: Range) {
        join(&mut self.ranges, range, self.grain);
        while self.ranges.len() > GRAINS_MAX {
            self.grain *= 4;
            let fine = mem::take(&mut self.ranges);
            fine.into_iter().for_each(|range| join(&mut self.ranges, range, self.grain));
        }
    }

    pub fn into_ranges(self) -> Vec<Range> {
        self.ranges
    }
}

fn join(ranges: &mut Vec<Range>, range: Range, grain: u64) {
    let (begin, end) = (range.offset / grain * grain, range.end().div_ceil(grain).saturating_mul(grain));
    match ranges.last_mut() {
        Some(last) if begin <= last.end() => last.length = last.length.max(end - last.offset),
        _ => ranges.push(Range { offset: begin, length: end - begin }),
    }
}

/// A range that may have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    pub range: Range,
    /// Otherwise it is zeros now.
    pub exists: bool,
}

/// How a range of the new image is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Zeros,
    /// Pages that are as they were may be left out.
    Changed,
    /// The other side has something else there.
    Whole,
}

/// Of a window, in order and without overlaps: what changed, and what is asked for besides. Both are in order, and `also` does not overlap.
pub fn pieces(window: Range, changed: &[Changed], also: &[Range]) -> Vec<(Range, How)> {
    let mut pieces = Vec::new();
    let (mut at, mut asked) = (window.offset, also.iter().peekable());
    let mut changed = changed.iter().peekable();
    while at < window.end() {
        while asked.next_if(|range| range.end() <= at).is_some() {}
        while changed.next_if(|changed| changed.range.end() <= at).is_some() {}
        // Up to the next beginning or end of either.
        let is_asked = asked.peek().is_some_and(|range| range.offset <= at);
        let here = changed.peek().copied().filter(|changed| changed.range.offset <= at);
        let edge = |range: Range| if range.offset > at { range.offset } else { range.end() };
        let edges = [
            asked.peek().map(|range| edge(**range)),
            changed.peek().map(|changed| edge(changed.range)),
            Some(window.end()),
        ];
        let end = edges.into_iter().flatten().min().unwrap_or(window.end());
        let how = match here {
            Some(changed) if !changed.exists => Some(How::Zeros),
            _ if is_asked => Some(How::Whole),
            Some(_) => Some(How::Changed),
            None => None,
        };
        if let Some(how) = how {
            push(&mut pieces, Range { offset: at, length: end - at }, how);
        }
        at = end;
    }
    pieces
}

fn push(pieces: &mut Vec<(Range, How)>, range: Range, how: How) {
    match pieces.last_mut() {
        Some((last, before)) if *before == how && last.end() == range.offset => last.length += range.length,
        _ => pieces.push((range, how)),
    }
}

/// The leaves of an image of `size` bytes that pieces in order lie in, each once, and what the other side has there, by leaves in order.
pub fn leaves_of(pieces: &[(Range, How)], size: u64, known: &[Leaf]) -> Vec<(Range, Option<Digest>)> {
    let (mut found, mut next) = (Vec::new(), 0);
    for (piece, _) in pieces {
        let last = piece.end().div_ceil(LEAF_BYTES);
        for number in next.max(piece.offset / LEAF_BYTES)..last {
            let offset = number * LEAF_BYTES;
            let digest = known.binary_search_by_key(&number, |leaf| leaf.number).ok().map(|at| known[at].digest);
            found.push((Range { offset, length: LEAF_BYTES.min(size - offset) }, digest));
        }
        next = next.max(last);
    }
    found
}

/// Within what begins at `offset`, its own and not the image's: none goes beyond a multiple of [`PAGE`] of the image, as writes don't.
fn pages(offset: u64, length: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let first = PAGE - (offset % PAGE as u64) as usize;
    let ends = std::iter::successors(Some(first), |end| Some(end + PAGE));
    let mut begin = 0;
    ends.map(move |end| std::mem::replace(&mut begin, end)..end.min(length)).take_while(move |page| page.start < length)
}

/// Frames of [`super::stream`] go where they belong as they get full.
pub struct Out<'a, E> {
    encoder: Encoder,
    frame: &'a mut dyn FnMut(Vec<u8>) -> Result<(), E>,
}

impl<'a, E> Out<'a, E> {
    pub fn new(frame: &'a mut dyn FnMut(Vec<u8>) -> Result<(), E>) -> Self {
        Self { encoder: Encoder::default(), frame }
    }

    /// An empty frame, which says so.
    pub fn goes_on(&mut self) -> Result<(), E> {
        (self.frame)(Vec::new())
    }

    pub fn zeros(&mut self, range: Range) -> Result<(), E> {
        self.encoder.zeros(range);
        self.send()
    }

    /// What is there now, but for the pages that were the same before, where that is known. Returns how many bytes those are.
    ///
    /// # Panics
    /// When `old` has another length.
    pub fn content(&mut self, offset: u64, new: &[u8], old: Option<&[u8]>) -> Result<u64, E> {
        let mut same = 0;
        let mut run = 0..0;
        for page in pages(offset, new.len()) {
            let is_same = old.is_some_and(|old| old[page.clone()] == new[page.clone()]);
            let is_zero = !is_same && is_zero(&new[page.clone()]);
            if is_same || is_zero {
                self.data(offset, new, &run)?;
                run = page.end..page.end;
            }
            match (is_same, is_zero) {
                (true, _) => same += page.len() as u64,
                (false, true) => {
                    self.encoder.zeros(Range { offset: offset + page.start as u64, length: page.len() as u64 });
                }
                (false, false) => run.end = page.end,
            }
        }
        self.data(offset, new, &run)?;
        self.send()?;
        Ok(same)
    }

    /// No frame gets longer than what one change may add to it.
    fn data(&mut self, offset: u64, content: &[u8], run: &std::ops::Range<usize>) -> Result<(), E> {
        let mut at = offset + run.start as u64;
        for part in content[run.clone()].chunks(FRAME_BYTES) {
            self.encoder.data(at, part);
            at += part.len() as u64;
            self.send()?;
        }
        Ok(())
    }

    fn send(&mut self) -> Result<(), E> {
        self.encoder.full_frame().map_or(Ok(()), &mut self.frame)
    }

    /// # Errors
    /// Of who takes the frames.
    pub fn finish(self) -> Result<Totals, E> {
        let (frame, totals) = self.encoder.finish();
        frame.map_or(Ok(()), self.frame)?;
        Ok(totals)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(offset: u64, length: u64) -> Range {
        Range { offset, length }
    }

    #[test]
    fn what_is_asked_for_is_told_whole_and_once() {
        let changed = |offset, length, exists| Changed { range: range(offset, length), exists };
        let all = [changed(10, 10, true), changed(30, 10, false), changed(50, 5, true)];
        let found = pieces(range(0, 100), &all, &[range(15, 20), range(52, 20), range(90, 30)]);
        let expected = [
            (range(10, 5), How::Changed),
            (range(15, 15), How::Whole),
            (range(30, 10), How::Zeros),
            (range(50, 2), How::Changed),
            (range(52, 20), How::Whole),
            (range(90, 10), How::Whole),
        ];
        assert_eq!(found, expected);
        assert!(pieces(range(100, 50), &[], &[range(0, 100), range(150, 9)]).is_empty());
    }

    #[test]
    fn pages_are_those_of_the_image() {
        let page = PAGE as u64;
        assert_eq!(pages(3 * page - 1, PAGE + 2).collect::<Vec<_>>(), [0..1, 1..PAGE + 1, PAGE + 1..PAGE + 2]);
        assert_eq!(pages(page, 2 * PAGE).collect::<Vec<_>>(), [0..PAGE, PAGE..2 * PAGE]);
        assert_eq!(pages(5, 0).count(), 0);
    }

    #[test]
    fn ranges_are_joined_and_made_coarser_when_they_are_many() {
        let mut coarse = Coarse::default();
        coarse.push(range(GRAIN + 5, 10));
        coarse.push(range(2 * GRAIN, 1));
        assert_eq!(coarse.ranges, [range(GRAIN, 2 * GRAIN)]);
        for n in 0..=2 * GRAINS_MAX as u64 {
            coarse.push(range((4 + 2 * n) * GRAIN, 1));
        }
        assert!(coarse.ranges.len() <= GRAINS_MAX && coarse.grain > GRAIN);
        assert!(coarse.ranges.windows(2).all(|pair| pair[0].end() < pair[1].offset));
    }
}
