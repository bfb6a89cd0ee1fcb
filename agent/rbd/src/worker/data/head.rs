//! What the head holds that a snapshot does not.

use std::collections::VecDeque;

use drover_engine::{
    content::part::is_zero,
    image::{
        Range,
        narrow::{Coarse, PAGE},
    },
};
use drover_librbd::{Cluster, Completion, Image};

use super::{
    super::{cut, image::pool},
    Agent, BYTES_MAX, CHUNK, changed, chunks, full, lost, open, windows,
};
use crate::{request::Failure, view::ImagePlace};

pub(super) fn head(
    cluster: &Cluster,
    place: &ImagePlace,
    since: Option<&str>,
    agent: &mut dyn Agent,
) -> Result<Vec<Range>, Failure> {
    let pool = pool(cluster, &place.pool, &place.namespace)?;
    let head = open(&pool, place, None)?;
    let size = head.size_bytes()?;
    let before = since.map(|since| open(&pool, place, Some(since))).transpose()?;
    let begin = since.map(|since| cut::begin_of(&head, since)).transpose()?;
    let mut differing = Differing { ranges: Coarse::default(), agent, queue: VecDeque::new() };
    for window in windows(size) {
        for extent in changed(&head, begin.as_deref(), window)? {
            let range = Range { offset: extent.offset, length: extent.length };
            match &before {
                // It changed since, or already before: that is told from another snapshot.
                Some(before) if begin.as_deref() != since => differing.compare(&head, before, range)?,
                _ => differing.ranges.push(range),
            }
        }
        differing.agent.send(Vec::new()).map_err(lost)?;
    }
    let mut ranges = differing.finish()?;
    if let Some(before) = before.as_ref().map(Image::size_bytes).transpose()?
        && before > size
    {
        // What somebody has cut off is zeros once the image is as large as before.
        ranges.push(Range { offset: size, length: before - size });
    }
    Ok(ranges.into_ranges())
}

/// Pages that are not the same in both.
struct Differing<'a> {
    ranges: Coarse,
    agent: &'a mut dyn Agent,
    queue: VecDeque<(Range, Completion, Option<Completion>)>,
}

impl Differing<'_> {
    fn compare(&mut self, head: &Image, before: &Image, range: Range) -> Result<(), Failure> {
        let end = before.size_bytes()?;
        // Beyond its end it is zeros.
        let within = Range { offset: range.offset, length: range.end().min(end).saturating_sub(range.offset) };
        let beyond = Range { offset: within.end(), length: range.end() - within.end() };
        for (part, is_within) in [(within, true), (beyond, false)] {
            for chunk in chunks(part) {
                if self.queue.len() as u64 * 2 * CHUNK >= BYTES_MAX as u64 {
                    self.take()?;
                }
                let read = |image: &Image| {
                    image.aio_read(chunk.offset, vec![0; usize::try_from(chunk.length).expect("a chunk fits")])
                };
                let old = is_within.then(|| read(before)).transpose()?;
                self.queue.push_back((chunk, read(head)?, old));
            }
        }
        Ok(())
    }

    fn take(&mut self) -> Result<(), Failure> {
        let Some((range, new, old)) = self.queue.pop_front() else { return Ok(()) };
        let new = full(new.wait()?, range)?;
        let old = old.map(|old| full(old.wait()?, range)).transpose()?;
        let page_bytes = PAGE as u64;
        for page in range.parts(page_bytes) {
            let begin = usize::try_from(page.offset - range.offset).expect("a chunk fits");
            let within = begin..begin + usize::try_from(page.length).expect("a page fits");
            let is_same = match &old {
                Some(old) => old[within.clone()] == new[within],
                None => is_zero(&new[within]),
            };
            if !is_same {
                self.ranges.push(page);
            }
        }
        self.agent.send(Vec::new()).map_err(lost)
    }

    fn finish(mut self) -> Result<Coarse, Failure> {
        while !self.queue.is_empty() {
            self.take()?;
        }
        Ok(self.ranges)
    }
}
