//! What the head holds that a snapshot does not.

use std::mem;

use drover_engine::image::Range;
use drover_librbd::Cluster;

use super::{super::image::pool, Agent, changed, lost, open, windows};
use crate::{request::Failure, view::ImagePlace};

/// Ranges are joined to multiples of this, and to coarser ones where they are too many.
const GRAIN: u64 = 64 << 10;
const GRAINS_MAX: usize = 1 << 18;

pub(super) fn head(
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
        agent.send(Vec::new()).map_err(lost)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_joined_and_made_coarser_when_they_are_many() {
        let range = |offset, length| Range { offset, length };
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
