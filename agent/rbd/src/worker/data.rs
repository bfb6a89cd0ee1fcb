//! Reading and writing content, many operations at a time.

use std::{collections::VecDeque, io, mem, ops::ControlFlow};

use drover_engine::image::{
    Range,
    stream::{Change, Decoder, Encoder, Totals},
};
use drover_librbd::{
    Access, Cluster, Completion, DiffFrom, Error, Extent, Image, ImageRef, ObjectDetail, Pool, Shrink,
};

use super::image::pool;
use crate::{
    data::{DataRequest, RANGES_MAX, encode_ranges},
    request::{Failure, FailureKind},
    view::ImagePlace,
};

/// A range of one read or write at most.
const CHUNK: u64 = 1 << 20;
/// What is compared with what was there before, and left out where it is the same.
const PAGE: usize = 4096;
/// So much of an image is looked through at a time, which bounds what is known of it.
const WINDOW: u64 = 1 << 30;
/// On their way at the same time: more makes neither side faster.
const OPERATIONS_MAX: usize = 32;
const BYTES_MAX: usize = 24 << 20;
/// Ranges of zeros that wait for what comes before them.
const ZEROS_WAITING: usize = 1024;
/// Ranges of a head are joined to multiples of this, and to coarser ones where they are too many.
const GRAIN: u64 = 64 << 10;
const GRAINS_MAX: usize = 1 << 18;
/// After so much that was compared in vain, only a sample is.
const VAIN: u64 = 32 << 20;
const SAMPLE: u64 = 16;

/// The agent's frames, and where the worker's go.
pub(super) trait Agent {
    /// `None`: there are no more.
    fn frame(&mut self) -> io::Result<Option<Vec<u8>>>;
    fn send(&mut self, frame: &[u8]) -> io::Result<()>;
}

pub(super) fn carry_out(cluster: &Cluster, request: DataRequest, agent: &mut dyn Agent) -> Result<Totals, Failure> {
    match request {
        DataRequest::Head { place, since } => {
            let _ = agent.frame().map_err(lost)?;
            let ranges = head(cluster, &place, since.as_deref(), agent)?;
            for ranges in ranges.chunks(RANGES_MAX) {
                agent.send(&encode_ranges(ranges)).map_err(lost)?;
            }
            Ok(Totals::default())
        }
        DataRequest::Read { place, from, to } => {
            let mut also = Vec::new();
            while let Some(frame) = agent.frame().map_err(lost)? {
                also.extend(crate::data::decode_ranges(&frame));
            }
            read(cluster, &place, from.as_deref(), &to, &also, agent)
        }
        DataRequest::Write { place, size_bytes } => write(cluster, &place, size_bytes, agent),
        DataRequest::Restore { place, to } => {
            let _ = agent.frame().map_err(lost)?;
            restore(cluster, &place, &to, agent)
        }
    }
}

fn lost(error: io::Error) -> Failure {
    failure("socket", format!("the agent is gone: {error}"))
}

fn failure(call: &str, message: String) -> Failure {
    Failure { call: call.to_owned(), kind: FailureKind::Other, message }
}

fn open(pool: &Pool, place: &ImagePlace, snapshot: Option<&str>) -> Result<Image, Error> {
    let image = ImageRef::Name(&place.image);
    match snapshot {
        Some(snapshot) => pool.open_at(image, snapshot),
        None => pool.open(image, Access::ReadOnly),
    }
}

/// Of the window, in order.
fn changed(image: &Image, from: Option<&str>, window: Range) -> Result<Vec<Extent>, Error> {
    let mut extents = Vec::new();
    let from = from.map_or(DiffFrom::Nothing, DiffFrom::Name);
    let window = (window.offset, window.length);
    let _ = image.diff(from, window, ObjectDetail::Ranges, &mut |extent| {
        extents.push(extent);
        ControlFlow::Continue(())
    })?;
    extents.sort_by_key(|extent| extent.offset);
    Ok(extents)
}

fn windows(size_bytes: u64) -> impl Iterator<Item = Range> {
    let starts = (0..size_bytes).step_by(WINDOW as usize);
    starts.map(move |offset| Range { offset, length: WINDOW.min(size_bytes - offset) })
}

fn head(
    cluster: &Cluster,
    place: &ImagePlace,
    since: Option<&str>,
    agent: &mut dyn Agent,
) -> Result<Vec<Range>, Failure> {
    let pool = pool(cluster, &place.pool, &place.namespace)?;
    let head = open(&pool, place, None)?;
    let size = head.size_bytes()?;
    let mut ranges = Coarse::default();
    for window in windows(size) {
        for extent in changed(&head, since, window)? {
            ranges.push(Range { offset: extent.offset, length: extent.length });
        }
        agent.send(&[]).map_err(lost)?;
    }
    if let Some(since) = since {
        // What somebody has cut off is zeros once the image is as large as before.
        let before = open(&pool, place, Some(since))?.size_bytes()?;
        if before > size {
            ranges.push(Range { offset: size, length: before - size });
        }
    }
    Ok(ranges.ranges)
}

/// Neighbours are joined; of too many the grain is made coarser.
#[derive(Debug)]
struct Coarse {
    grain: u64,
    ranges: Vec<Range>,
}

impl Default for Coarse {
    fn default() -> Self {
        Self { grain: GRAIN, ranges: Vec::new() }
    }
}

impl Coarse {
    fn push(&mut self, range: Range) {
        join(&mut self.ranges, range, self.grain);
        while self.ranges.len() > GRAINS_MAX {
            self.grain *= 4;
            let fine = mem::take(&mut self.ranges);
            fine.into_iter().for_each(|range| join(&mut self.ranges, range, self.grain));
        }
    }
}

fn join(ranges: &mut Vec<Range>, range: Range, grain: u64) {
    let (begin, end) = (range.offset / grain * grain, range.end().div_ceil(grain).saturating_mul(grain));
    match ranges.last_mut() {
        Some(last) if begin <= last.end() => last.length = last.length.max(end - last.offset),
        _ => ranges.push(Range { offset: begin, length: end - begin }),
    }
}

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

/// At multiples of the length of one operation.
fn chunks(range: Range) -> impl Iterator<Item = Range> {
    let mut at = range.offset;
    std::iter::from_fn(move || {
        let end = ((at / CHUNK + 1) * CHUNK).min(range.end());
        let chunk = (at < end).then_some(Range { offset: at, length: end.saturating_sub(at) });
        at = end;
        chunk
    })
}

/// A chunk that is being read.
struct Reading {
    range: Range,
    new: Option<Completion>,
    old: Option<Completion>,
}

fn read(
    cluster: &Cluster,
    place: &ImagePlace,
    from: Option<&str>,
    to: &str,
    also: &[Range],
    agent: &mut dyn Agent,
) -> Result<Totals, Failure> {
    let pool = pool(cluster, &place.pool, &place.namespace)?;
    let new = open(&pool, place, Some(to))?;
    let old = from.map(|from| open(&pool, place, Some(from))).transpose()?;
    let old_size = old.as_ref().map_or(Ok(0), Image::size_bytes)?;
    let size = new.size_bytes()?;
    let mut out = Out { encoder: Encoder::default(), agent, narrowing: Narrowing::default() };
    let mut queue: VecDeque<Reading> = VecDeque::new();
    let mut bytes = 0;
    for window in windows(size) {
        out.agent.send(&[]).map_err(lost)?;
        for (range, how) in pieces(window, &changed(&new, from, window)?, also) {
            if how == How::Zeros {
                queue.push_back(Reading { range, new: None, old: None });
                while queue.len() > ZEROS_WAITING {
                    let Some(reading) = queue.pop_front() else { break };
                    bytes -= reading.buffered();
                    out.take(reading)?;
                }
                continue;
            }
            for range in chunks(range) {
                while queue.len() >= OPERATIONS_MAX || bytes >= BYTES_MAX {
                    let Some(reading) = queue.pop_front() else { break };
                    bytes -= reading.buffered();
                    out.take(reading)?;
                }
                let length = usize::try_from(range.length).expect("a chunk fits");
                let is_compared =
                    how == How::Changed && length > PAGE && range.end() <= old_size && out.narrowing.is_worth_it();
                let old = old.as_ref().filter(|_| is_compared);
                let reading = Reading {
                    range,
                    new: Some(new.aio_read(range.offset, vec![0; length])?),
                    old: old.map(|old| old.aio_read(range.offset, vec![0; length])).transpose()?,
                };
                bytes += reading.buffered();
                queue.push_back(reading);
            }
        }
    }
    queue.into_iter().try_for_each(|reading| out.take(reading))?;
    out.finish()
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

struct Out<'a> {
    encoder: Encoder,
    agent: &'a mut dyn Agent,
    narrowing: Narrowing,
}

impl Out<'_> {
    fn take(&mut self, reading: Reading) -> Result<(), Failure> {
        let Reading { range, new, old } = reading;
        let Some(new) = new else {
            self.encoder.zeros(range);
            return self.send();
        };
        let new = full(new.wait()?, range)?;
        let old = old.map(|old| full(old.wait()?, range)).transpose()?;
        let mut same = 0;
        let mut run = 0..0;
        for at in (0..new.len()).step_by(PAGE) {
            let page = at..(at + PAGE).min(new.len());
            let is_same = old.as_ref().is_some_and(|old| old[page.clone()] == new[page.clone()]);
            let is_zero = !is_same && drover_engine::content::part::is_zero(&new[page.clone()]);
            if is_same || is_zero {
                self.data(range.offset, &new, &run);
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
        self.data(range.offset, &new, &run);
        if old.is_some() {
            self.narrowing.found(range.length, same);
        }
        self.send()
    }

    fn data(&mut self, offset: u64, content: &[u8], run: &std::ops::Range<usize>) {
        if !run.is_empty() {
            self.encoder.data(offset + run.start as u64, &content[run.clone()]);
        }
    }

    fn send(&mut self) -> Result<(), Failure> {
        match self.encoder.full_frame() {
            Some(frame) => self.agent.send(&frame).map_err(lost),
            None => Ok(()),
        }
    }

    fn finish(self) -> Result<Totals, Failure> {
        let (frame, totals) = self.encoder.finish();
        frame.map_or(Ok(()), |frame| self.agent.send(&frame)).map_err(lost)?;
        Ok(totals)
    }
}

/// A read of a snapshot that ends early would be told as content.
fn full(content: Vec<u8>, range: Range) -> Result<Vec<u8>, Failure> {
    if content.len() as u64 == range.length {
        return Ok(content);
    }
    let message = format!("{} bytes of {} at {}", content.len(), range.length, range.offset);
    Err(failure("rbd_aio_read", message))
}

/// Writes on their way.
struct Writing<'a> {
    image: &'a Image,
    queue: VecDeque<(Completion, usize)>,
    bytes: usize,
}

impl<'a> Writing<'a> {
    fn to(image: &'a Image) -> Self {
        Self { image, queue: VecDeque::new(), bytes: 0 }
    }

    fn change(&mut self, change: Change<'_>) -> Result<(), Error> {
        match change {
            Change::Data { offset, data } => self.push(self.image.aio_write(offset, data.to_vec())?, data.len()),
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
        while !self.queue.is_empty() {
            self.pop()?;
        }
        self.image.flush()
    }
}

fn resize(image: &Image, size_bytes: u64) -> Result<(), Error> {
    if image.size_bytes()? == size_bytes {
        return Ok(());
    }
    image.resize(size_bytes, Shrink::Allowed, &mut |_, _| {})
}

fn write(cluster: &Cluster, place: &ImagePlace, size_bytes: u64, agent: &mut dyn Agent) -> Result<Totals, Failure> {
    let image = pool(cluster, &place.pool, &place.namespace)?.open(ImageRef::Name(&place.image), Access::ReadWrite)?;
    resize(&image, size_bytes)?;
    let (mut decoder, mut writing) = (Decoder::new(size_bytes), Writing::to(&image));
    while let Some(frame) = agent.frame().map_err(lost)? {
        let changes =
            decoder.changes(&frame).map_err(|error| failure("decode", format!("a frame is malformed: {error}")))?;
        changes.into_iter().try_for_each(|change| writing.change(change))?;
    }
    writing.finish()?;
    image.close()?;
    Ok(decoder.totals())
}

fn restore(cluster: &Cluster, place: &ImagePlace, to: &str, agent: &mut dyn Agent) -> Result<Totals, Failure> {
    let ranges = head(cluster, place, Some(to), agent)?;
    let pool = pool(cluster, &place.pool, &place.namespace)?;
    let snapshot = open(&pool, place, Some(to))?;
    let size = snapshot.size_bytes()?;
    let image = pool.open(ImageRef::Name(&place.image), Access::ReadWrite)?;
    resize(&image, size)?;
    let mut writing = Writing::to(&image);
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
            agent.send(&[]).map_err(lost)?;
        }
        Ok(())
    };
    for range in ranges.iter().map(within).flat_map(chunks) {
        if reading.len() >= OPERATIONS_MAX / 2
            && let Some(read) = reading.pop_front()
        {
            put(read)?;
        }
        let length = usize::try_from(range.length).expect("a chunk fits");
        reading.push_back((range, snapshot.aio_read(range.offset, vec![0; length])?));
    }
    reading.into_iter().try_for_each(&mut put)?;
    writing.finish()?;
    image.close()?;
    Ok(Totals { data_bytes: restored, ..Totals::default() })
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
    fn chunks_end_where_objects_may() {
        let found: Vec<_> = chunks(range(CHUNK - 5, CHUNK + 10)).collect();
        assert_eq!(found, [range(CHUNK - 5, 5), range(CHUNK, CHUNK), range(2 * CHUNK, 5)]);
        assert_eq!(chunks(range(7, 0)).count(), 0);
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
