//! What a change holds is written to the head.

use std::collections::VecDeque;

use drover_engine::image::{
    Range,
    stream::{Change, Decoder, Totals},
};
use drover_librbd::{Cluster, Completion, Error, Image, Shrink};

use super::{
    super::image::pool, Agent, BYTES_MAX, CHUNK, OPERATIONS_MAX, WINDOW, chunks, failure, full, head::head, lost, open,
};
use crate::{request::Failure, view::ImagePlace};

/// Writes on their way.
struct Writing<'a> {
    image: &'a Image,
    queue: VecDeque<(Completion, usize)>,
    bytes: usize,
    next: Joined,
}

impl<'a> Writing<'a> {
    fn to(image: &'a Image) -> Self {
        Self { image, queue: VecDeque::new(), bytes: 0, next: Joined::default() }
    }

    fn change(&mut self, change: Change<'_>) -> Result<(), Error> {
        match change {
            Change::Data { offset, data } => {
                for (at, part) in parts(offset, data) {
                    if let Some((at, whole)) = self.next.add(at, part) {
                        self.write(at, whole)?;
                    }
                }
                Ok(())
            }
            Change::Zeros(range) => {
                // An operation of hours can't be waited for with a deadline.
                let mut at = range.offset;
                while at < range.end() {
                    let end = ((at / WINDOW + 1) * WINDOW).min(range.end());
                    let length = usize::try_from(end - at).expect("a window fits");
                    self.push(self.image.aio_write_zeroes(at, length)?, 0)?;
                    at = end;
                }
                Ok(())
            }
        }
    }

    fn write(&mut self, at: u64, data: Vec<u8>) -> Result<(), Error> {
        let length = data.len();
        self.push(self.image.aio_write(at, data)?, length)
    }

    fn push(&mut self, completion: Completion, bytes: usize) -> Result<(), Error> {
        self.bytes += bytes;
        self.queue.push_back((completion, bytes));
        while self.queue.len() > OPERATIONS_MAX || self.bytes > BYTES_MAX {
            self.pop()?;
        }
        Ok(())
    }

    fn pop(&mut self) -> Result<(), Error> {
        let Some((completion, bytes)) = self.queue.pop_front() else { return Ok(()) };
        self.bytes -= bytes;
        completion.wait().map(drop)
    }

    fn finish(mut self) -> Result<(), Error> {
        if let Some((at, whole)) = self.next.take() {
            self.write(at, whole)?;
        }
        while !self.queue.is_empty() {
            self.pop()?;
        }
        self.image.flush()
    }
}

/// Of data, none beyond a multiple of what one operation writes.
fn parts(mut at: u64, mut data: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    std::iter::from_fn(move || {
        let room = usize::try_from(CHUNK - at % CHUNK).expect("a chunk fits");
        let (part, rest) = data.split_at(room.min(data.len()));
        let begin = at;
        (at, data) = (at + part.len() as u64, rest);
        (!part.is_empty()).then_some((begin, part))
    })
}

/// What is written next: neighbours become one operation, which costs a cluster less than several do.
#[derive(Debug, Default)]
struct Joined {
    at: u64,
    data: Vec<u8>,
}

impl Joined {
    /// A part that ends at a multiple of [`CHUNK`] at the latest. Returns what waited, if nothing that comes now can be joined to it.
    fn add(&mut self, at: u64, part: &[u8]) -> Option<(u64, Vec<u8>)> {
        let is_next = !self.data.is_empty() && self.at + self.data.len() as u64 == at && !at.is_multiple_of(CHUNK);
        if is_next {
            self.data.extend_from_slice(part);
            return None;
        }
        let before = self.take();
        self.at = at;
        self.data.extend_from_slice(part);
        before
    }

    fn take(&mut self) -> Option<(u64, Vec<u8>)> {
        let data = std::mem::take(&mut self.data);
        (!data.is_empty()).then_some((self.at, data))
    }
}

fn resize(image: &Image, size_bytes: u64) -> Result<(), Error> {
    if image.size_bytes()? == size_bytes {
        return Ok(());
    }
    image.resize(size_bytes, Shrink::Allowed, &mut |_, _| {})
}

pub(super) fn write(image: &Image, size_bytes: u64, agent: &mut dyn Agent) -> Result<Totals, Failure> {
    resize(image, size_bytes)?;
    let (mut decoder, mut writing) = (Decoder::new(size_bytes), Writing::to(image));
    while let Some(frame) = agent.frame().map_err(lost)? {
        let changes =
            decoder.changes(&frame).map_err(|error| failure("decode", format!("a frame is malformed: {error}")))?;
        changes.into_iter().try_for_each(|change| writing.change(change))?;
    }
    writing.finish()?;
    Ok(decoder.totals())
}

pub(super) fn restore(
    image: &Image,
    cluster: &Cluster,
    place: &ImagePlace,
    to: &str,
    agent: &mut dyn Agent,
) -> Result<Totals, Failure> {
    let ranges = head(cluster, place, Some(to), agent)?;
    let pool = pool(cluster, &place.pool, &place.namespace)?;
    let snapshot = open(&pool, place, Some(to))?;
    let size = snapshot.size_bytes()?;
    resize(image, size)?;
    let mut writing = Writing::to(image);
    let (mut restored, mut said) = (0, 0);
    let within =
        |range: &Range| Range { offset: range.offset, length: range.end().min(size).saturating_sub(range.offset) };
    let mut reading: VecDeque<(Range, Completion)> = VecDeque::new();
    let mut put = |(range, read): (Range, Completion)| -> Result<(), Failure> {
        let content = full(read.wait()?, range)?;
        let is_zero = drover_engine::content::part::is_zero(&content);
        let change = if is_zero { Change::Zeros(range) } else { Change::Data { offset: range.offset, data: &content } };
        writing.change(change)?;
        restored += range.length;
        said += range.length;
        if said >= WINDOW / 4 {
            said = 0;
            agent.send(Vec::new()).map_err(lost)?;
        }
        Ok(())
    };
    for range in ranges.iter().map(within).flat_map(chunks) {
        if reading.len() as u64 * CHUNK >= BYTES_MAX as u64 / 2
            && let Some(read) = reading.pop_front()
        {
            put(read)?;
        }
        let length = usize::try_from(range.length).expect("a chunk fits");
        reading.push_back((range, snapshot.aio_read(range.offset, vec![0; length])?));
    }
    reading.into_iter().try_for_each(&mut put)?;
    writing.finish()?;
    Ok(Totals { data_bytes: restored, ..Totals::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_one_operation_and_none_goes_beyond_an_object() {
        let mut joined = Joined::default();
        let mut whole = Vec::new();
        let changes = [(CHUNK - 30, 10), (CHUNK - 20, 40), (CHUNK + 20, 5), (CHUNK + 26, 1), (5 * CHUNK, 2)];
        for (offset, length) in changes {
            for (at, part) in parts(offset, &vec![7; length]) {
                whole.extend(joined.add(at, part));
            }
        }
        whole.extend(joined.take());
        let found: Vec<_> = whole.iter().map(|(at, data)| (*at, data.len())).collect();
        assert_eq!(found, [(CHUNK - 30, 30), (CHUNK, 25), (CHUNK + 26, 1), (5 * CHUNK, 2)]);
        assert_eq!(joined.take(), None);
    }
}
