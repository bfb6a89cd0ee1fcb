//! The change from one snapshot to another one.

use std::collections::VecDeque;

use drover_engine::{
    digest::Digest,
    image::{
        Leaf, Range,
        narrow::{Changed, How, Out, PAGE, leaves_of, pieces},
        stream::Totals,
    },
};
use drover_librbd::{Cluster, Completion, Extent, Image};

use super::{
    super::{cut, image::pool},
    Agent, BYTES_MAX, OPERATIONS_MAX, changed, chunks, full, lost, open, windows,
};
use crate::{request::Failure, view::ImagePlace};

/// After so much that was compared in vain, only a sample is.
const VAIN: u64 = 4 << 20;
const SAMPLE: u64 = 16;

fn as_changed(extent: Extent) -> Changed {
    Changed { range: Range { offset: extent.offset, length: extent.length }, exists: extent.exists }
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
        let begin = self.from.map(|from| cut::begin_of(&new, from)).transpose()?;
        let old_size = old.as_ref().map_or(Ok(0), Image::size_bytes)?;
        let size = new.size_bytes()?;
        let mut frame = |frame| agent.send(frame).map_err(lost);
        let mut told = Told { out: Out::new(&mut frame), narrowing: Narrowing::default() };
        let mut queue = Queue::default();
        for window in windows(size) {
            told.out.goes_on()?;
            let changed: Vec<_> = changed(&new, begin.as_deref(), window)?.into_iter().map(as_changed).collect();
            let pieces = pieces(window, &changed, self.asked);
            if !self.leaves.is_empty() {
                for (range, known) in leaves_of(&pieces, size, self.leaves) {
                    queue.make_room(&mut told)?;
                    let length = usize::try_from(range.length).expect("a leaf fits");
                    let new = Some(new.aio_read(range.offset, vec![0; length])?);
                    queue.push(Reading { range, new, old: None, known });
                }
                continue;
            }
            for (range, how) in pieces {
                if how == How::Zeros {
                    queue.make_room(&mut told)?;
                    queue.push(Reading { range, new: None, old: None, known: None });
                    continue;
                }
                for range in chunks(range) {
                    queue.make_room(&mut told)?;
                    let length = usize::try_from(range.length).expect("a chunk fits");
                    let is_compared =
                        how == How::Changed && length > PAGE && range.end() <= old_size && told.narrowing.is_worth_it();
                    let old = old.as_ref().filter(|_| is_compared);
                    let new = Some(new.aio_read(range.offset, vec![0; length])?);
                    let old = old.map(|old| old.aio_read(range.offset, vec![0; length])).transpose()?;
                    queue.push(Reading { range, new, old, known: None });
                }
            }
        }
        queue.waiting.into_iter().try_for_each(|reading| told.take(reading))?;
        told.out.finish()
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
    fn make_room(&mut self, told: &mut Told<'_>) -> Result<(), Failure> {
        while self.waiting.len() >= OPERATIONS_MAX || self.bytes >= BYTES_MAX {
            let Some(first) = self.waiting.pop_front() else { break };
            self.bytes -= first.buffered();
            told.take(first)?;
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

/// Chunks that were read, and what of them is told.
struct Told<'a> {
    out: Out<'a, Failure>,
    narrowing: Narrowing,
}

impl Told<'_> {
    fn take(&mut self, reading: Reading) -> Result<(), Failure> {
        let Reading { range, new, old, known } = reading;
        let Some(new) = new else { return self.out.zeros(range) };
        let new = full(new.wait()?, range)?;
        if known.is_some_and(|known| known == Digest::of(&new)) {
            return Ok(());
        }
        let old = old.map(|old| full(old.wait()?, range)).transpose()?;
        let same = self.out.content(range.offset, &new, old.as_deref())?;
        if old.is_some() {
            self.narrowing.found(range.length, same);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
