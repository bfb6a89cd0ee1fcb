//! The change from one snapshot to another one.

use std::collections::VecDeque;

use drover_engine::{
    content::part::is_zero,
    digest::Digest,
    image::{
        LEAF_BYTES, Leaf, Range,
        stream::{Encoder, FRAME_BYTES, Totals},
    },
};
use drover_librbd::{Cluster, Completion, Extent, Image};

use super::{super::image::pool, Agent, BYTES_MAX, OPERATIONS_MAX, changed, chunks, full, lost, open, windows};
use crate::{request::Failure, view::ImagePlace};

/// What is compared with what was there before, and left out where it is the same.
const PAGE: usize = 4096;
/// After so much that was compared in vain, only a sample is.
const VAIN: u64 = 4 << 20;
const SAMPLE: u64 = 16;

/// How a range of the new image is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Zeros,
    /// Pages that are as they were may be left out.
    Changed,
    /// The other side has something else there.
    Whole,
}

/// Ranges in order that don't overlap: what changed, and what is asked for besides.
fn pieces(window: Range, extents: &[Extent], also: &[Range]) -> Vec<(Range, How)> {
    let mut pieces = Vec::new();
    let (mut at, mut asked) = (window.offset, also.iter().peekable());
    let mut changed = extents.iter().peekable();
    while at < window.end() {
        while asked.next_if(|range| range.end() <= at).is_some() {}
        while changed.next_if(|extent| extent.offset + extent.length <= at).is_some() {}
        // Up to the next beginning or end of either.
        let is_asked = asked.peek().is_some_and(|range| range.offset <= at);
        let extent = changed.peek().copied().filter(|extent| extent.offset <= at);
        let edges = [
            asked.peek().map(|range| if range.offset > at { range.offset } else { range.end() }),
            changed.peek().map(|extent| if extent.offset > at { extent.offset } else { extent.offset + extent.length }),
            Some(window.end()),
        ];
        let end = edges.into_iter().flatten().min().unwrap_or(window.end());
        let how = match extent {
            Some(extent) if !extent.exists => Some(How::Zeros),
            _ if is_asked => Some(How::Whole),
            Some(_) => Some(How::Changed),
            None => None,
        };
        if let Some(how) = how {
            push_piece(&mut pieces, Range { offset: at, length: end - at }, how);
        }
        at = end;
    }
    pieces
}

fn push_piece(pieces: &mut Vec<(Range, How)>, range: Range, how: How) {
    match pieces.last_mut() {
        Some((last, before)) if *before == how && last.end() == range.offset => last.length += range.length,
        _ => pieces.push((range, how)),
    }
}

/// A chunk that is being read.
struct Reading {
    range: Range,
    new: Option<Completion>,
    old: Option<Completion>,
    /// Of what the other side has there.
    known: Option<Digest>,
}

/// What is asked for.
pub(super) struct Wanted<'a> {
    pub place: &'a ImagePlace,
    pub from: Option<&'a str>,
    pub to: &'a str,
    pub asked: &'a [Range],
    /// That the other side has, where there is no `from`.
    pub leaves: &'a [Leaf],
}

impl Wanted<'_> {
    pub(super) fn read(&self, cluster: &Cluster, agent: &mut dyn Agent) -> Result<Totals, Failure> {
        let pool = pool(cluster, &self.place.pool, &self.place.namespace)?;
        let new = open(&pool, self.place, Some(self.to))?;
        let old = self.from.map(|from| open(&pool, self.place, Some(from))).transpose()?;
        let old_size = old.as_ref().map_or(Ok(0), Image::size_bytes)?;
        let size = new.size_bytes()?;
        let mut out = Out { encoder: Encoder::default(), agent, narrowing: Narrowing::default() };
        let mut queue = Queue::default();
        for window in windows(size) {
            out.agent.send(Vec::new()).map_err(lost)?;
            let pieces = pieces(window, &changed(&new, self.from, window)?, self.asked);
            if !self.leaves.is_empty() {
                for (range, known) in self.leaves_of(&pieces, size) {
                    queue.make_room(&mut out)?;
                    let length = usize::try_from(range.length).expect("a leaf fits");
                    let new = Some(new.aio_read(range.offset, vec![0; length])?);
                    queue.push(Reading { range, new, old: None, known });
                }
                continue;
            }
            for (range, how) in pieces {
                if how == How::Zeros {
                    queue.make_room(&mut out)?;
                    queue.push(Reading { range, new: None, old: None, known: None });
                    continue;
                }
                for range in chunks(range) {
                    queue.make_room(&mut out)?;
                    let length = usize::try_from(range.length).expect("a chunk fits");
                    let is_compared =
                        how == How::Changed && length > PAGE && range.end() <= old_size && out.narrowing.is_worth_it();
                    let old = old.as_ref().filter(|_| is_compared);
                    let new = Some(new.aio_read(range.offset, vec![0; length])?);
                    let old = old.map(|old| old.aio_read(range.offset, vec![0; length])).transpose()?;
                    queue.push(Reading { range, new, old, known: None });
                }
            }
        }
        queue.waiting.into_iter().try_for_each(|reading| out.take(reading))?;
        out.finish()
    }

    /// The leaves that pieces in order lie in, each once, and what the other side has there.
    fn leaves_of(&self, pieces: &[(Range, How)], size: u64) -> Vec<(Range, Option<Digest>)> {
        let (mut found, mut next) = (Vec::new(), 0);
        for (piece, _) in pieces {
            let last = piece.end().div_ceil(LEAF_BYTES);
            for number in next.max(piece.offset / LEAF_BYTES)..last {
                let offset = number * LEAF_BYTES;
                let known = self.leaves.binary_search_by_key(&number, |leaf| leaf.number);
                let known = known.ok().map(|at| self.leaves[at].digest);
                found.push((Range { offset, length: LEAF_BYTES.min(size - offset) }, known));
            }
            next = next.max(last);
        }
        found
    }
}

/// Reads on their way, in the order of what they bring.
#[derive(Default)]
struct Queue {
    waiting: VecDeque<Reading>,
    bytes: usize,
}

impl Queue {
    fn push(&mut self, reading: Reading) {
        self.bytes += reading.buffered();
        self.waiting.push_back(reading);
    }

    /// For one more.
    fn make_room(&mut self, out: &mut Out<'_>) -> Result<(), Failure> {
        while self.waiting.len() >= OPERATIONS_MAX || self.bytes >= BYTES_MAX {
            let Some(first) = self.waiting.pop_front() else { break };
            self.bytes -= first.buffered();
            out.take(first)?;
        }
        Ok(())
    }
}

impl Reading {
    fn buffered(&self) -> usize {
        let chunks = usize::from(self.new.is_some()) + usize::from(self.old.is_some());
        chunks * usize::try_from(self.range.length).unwrap_or(usize::MAX) * usize::from(self.new.is_some())
    }
}

/// Whether it pays to read what was there before.
#[derive(Debug, Default)]
struct Narrowing {
    /// Since something was left out.
    vain_bytes: u64,
    asked: u64,
}

impl Narrowing {
    fn is_worth_it(&mut self) -> bool {
        self.asked += 1;
        self.vain_bytes < VAIN || self.asked.is_multiple_of(SAMPLE)
    }

    fn found(&mut self, length: u64, same: u64) {
        self.vain_bytes = if same * 10 >= length { 0 } else { self.vain_bytes + length };
    }
}

/// Within what begins at `offset`, its own and not the image's: none goes beyond a multiple of [`PAGE`] of the image, as writes don't.
fn pages(offset: u64, length: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let first = PAGE - (offset % PAGE as u64) as usize;
    let ends = std::iter::successors(Some(first), |end| Some(end + PAGE));
    let mut begin = 0;
    ends.map(move |end| std::mem::replace(&mut begin, end)..end.min(length)).take_while(move |page| page.start < length)
}

struct Out<'a> {
    encoder: Encoder,
    agent: &'a mut dyn Agent,
    narrowing: Narrowing,
}

impl Out<'_> {
    fn take(&mut self, reading: Reading) -> Result<(), Failure> {
        let Reading { range, new, old, known } = reading;
        let Some(new) = new else {
            self.encoder.zeros(range);
            return self.send();
        };
        let new = full(new.wait()?, range)?;
        if known.is_some_and(|known| known == Digest::of(&new)) {
            return Ok(());
        }
        let old = old.map(|old| full(old.wait()?, range)).transpose()?;
        let mut same = 0;
        let mut run = 0..0;
        for page in pages(range.offset, new.len()) {
            let is_same = old.as_ref().is_some_and(|old| old[page.clone()] == new[page.clone()]);
            let is_zero = !is_same && is_zero(&new[page.clone()]);
            if is_same || is_zero {
                self.data(range.offset, &new, &run)?;
                run = page.end..page.end;
            }
            match (is_same, is_zero) {
                (true, _) => same += page.len() as u64,
                (false, true) => {
                    self.encoder.zeros(Range { offset: range.offset + page.start as u64, length: page.len() as u64 });
                }
                (false, false) => run.end = page.end,
            }
        }
        self.data(range.offset, &new, &run)?;
        if old.is_some() {
            self.narrowing.found(range.length, same);
        }
        self.send()
    }

    /// No frame gets longer than what one change may add to it.
    fn data(&mut self, offset: u64, content: &[u8], run: &std::ops::Range<usize>) -> Result<(), Failure> {
        let mut at = offset + run.start as u64;
        for part in content[run.clone()].chunks(FRAME_BYTES) {
            self.encoder.data(at, part);
            at += part.len() as u64;
            self.send()?;
        }
        Ok(())
    }

    fn send(&mut self) -> Result<(), Failure> {
        match self.encoder.full_frame() {
            Some(frame) => self.agent.send(frame).map_err(lost),
            None => Ok(()),
        }
    }

    fn finish(self) -> Result<Totals, Failure> {
        let (frame, totals) = self.encoder.finish();
        frame.map_or(Ok(()), |frame| self.agent.send(frame)).map_err(lost)?;
        Ok(totals)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(offset: u64, length: u64, exists: bool) -> Extent {
        Extent { offset, length, exists }
    }

    fn range(offset: u64, length: u64) -> Range {
        Range { offset, length }
    }

    #[test]
    fn what_is_asked_for_is_told_whole_and_once() {
        let extents = [extent(10, 10, true), extent(30, 10, false), extent(50, 5, true)];
        let found = pieces(range(0, 100), &extents, &[range(15, 20), range(52, 20), range(90, 30)]);
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
    fn comparing_in_vain_is_given_up_and_tried_again_at_times() {
        let mut narrowing = Narrowing::default();
        assert!(narrowing.is_worth_it());
        narrowing.found(VAIN, 0);
        let worth = (0..64).filter(|_| narrowing.is_worth_it()).count();
        assert_eq!(worth, 64 / SAMPLE as usize);
        narrowing.found(100, 90);
        assert!(narrowing.is_worth_it());
    }
}
