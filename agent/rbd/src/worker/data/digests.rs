//! Digests of leaves, by which two sites compare their copies.

use std::{collections::VecDeque, mem};

use drover_engine::{
    content::part::is_zero,
    digest::Digest,
    image::{LEAF_BYTES, Leaf, Range, stream::Totals},
};
use drover_librbd::{Cluster, Completion};

use super::{super::image::pool, Agent, BYTES_MAX, changed, full, lost, open, windows};
use crate::{data::encode_leaves, request::Failure, view::ImagePlace};

/// In one frame.
const LEAVES_MAX: usize = 256;

pub(super) fn digests(
    cluster: &Cluster,
    place: &ImagePlace,
    of: Option<&str>,
    agent: &mut dyn Agent,
) -> Result<Totals, Failure> {
    let pool = pool(cluster, &place.pool, &place.namespace)?;
    let image = open(&pool, place, of)?;
    let size = image.size_bytes()?;
    let mut reading: VecDeque<(Range, Completion)> = VecDeque::new();
    let mut out = Out { agent, leaves: Vec::new() };
    for window in windows(size) {
        out.agent.send(Vec::new()).map_err(lost)?;
        let extents = changed(&image, None, window)?;
        let there = extents.iter().filter(|extent| extent.exists);
        let mut next = window.offset / LEAF_BYTES;
        for extent in there {
            let last = (extent.offset + extent.length).div_ceil(LEAF_BYTES);
            for number in next.max(extent.offset / LEAF_BYTES)..last {
                if reading.len() as u64 * LEAF_BYTES >= BYTES_MAX as u64
                    && let Some(first) = reading.pop_front()
                {
                    out.take(first)?;
                }
                let offset = number * LEAF_BYTES;
                let range = Range { offset, length: LEAF_BYTES.min(size - offset) };
                let length = usize::try_from(range.length).expect("a leaf fits");
                reading.push_back((range, image.aio_read(range.offset, vec![0; length])?));
            }
            next = next.max(last);
        }
    }
    reading.into_iter().try_for_each(|first| out.take(first))?;
    out.send()?;
    Ok(Totals::default())
}

struct Out<'a> {
    agent: &'a mut dyn Agent,
    leaves: Vec<Leaf>,
}

impl Out<'_> {
    fn take(&mut self, (range, read): (Range, Completion)) -> Result<(), Failure> {
        let content = full(read.wait()?, range)?;
        if !is_zero(&content) {
            self.leaves.push(Leaf { number: range.offset / LEAF_BYTES, digest: Digest::of(&content) });
        }
        if self.leaves.len() >= LEAVES_MAX { self.send() } else { Ok(()) }
    }

    fn send(&mut self) -> Result<(), Failure> {
        self.agent.send(encode_leaves(&mem::take(&mut self.leaves))).map_err(lost)
    }
}
