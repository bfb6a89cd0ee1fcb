//! A segment of a big file: only what the sink's base does not have.

use std::{io, iter, ops::Range};

use bytes::Bytes;

use super::{Source, open::OpenFile};
use crate::{
    bases::{Bases, Delta},
    content::{Copy, LEAF_BYTES, PAGE_BYTES, Part, block, pages, part, shift},
    digest::Digest,
    fault,
    hash::read_padded,
    pages::KnownPages,
    session::body::{Basis, Blocks, BodyError, BodyMessage, Known, Run, WantRange},
};

/// A delta that still sends this share of a segment, in percent, was not worth its copies.
const USELESS_PERCENT: usize = 75;

impl Source<'_> {
    pub(super) fn send_range(&self, range: &WantRange) -> Result<(), BodyError> {
        let answer = fault::hit("send.range").and_then(|()| self.answer_range(range));
        self.send(answer.map_err(|error| self.fail(&range.want, error))?)
    }

    fn answer_range(&self, range: &WantRange) -> io::Result<BodyMessage> {
        let id = range.want.id;
        let offset = range.offset;
        let Some(open) = self.open_large(&range.want)? else {
            return Ok(BodyMessage::GoneRange { id, offset });
        };
        Ok(match self.answer_from(&open, range)? {
            Answer::Parts(parts) => BodyMessage::Range { id, offset, parts },
            Answer::Proved(parts, pages) => BodyMessage::Proved { id, offset, parts, pages },
            Answer::Differs(leaves) => BodyMessage::Differs { id, offset, leaves },
            Answer::Unknown => BodyMessage::Unknown { id, offset },
            Answer::Run(length, what) => BodyMessage::Run { id, offset, length, what },
        })
    }

    fn answer_from(&self, open: &OpenFile, range: &WantRange) -> io::Result<Answer> {
        let segment = Segment { open, offset: range.offset, len: range.length };
        let known = match &range.basis {
            Some(Basis { blocks: Blocks::Known(known), .. }) => Some(self.known(&segment, range, known)?),
            _ => None,
        };
        if let Some(Found::Same(length)) = known {
            return Ok(Answer::Run(length, Run::Same));
        }
        let holes = open.allocation.holes_within(range.offset, range.length);
        if holes.first() == Some(&(0..range.length)) {
            let length = open.allocation.hole_end(range.offset, range.want.body.size) - range.offset;
            return Ok(Answer::Run(length, Run::Hole));
        }
        let Some(basis) = &range.basis else {
            return Ok(Answer::Parts(part::compose(&segment.read()?, &holes, &[])));
        };
        let (data, copies) = match &basis.blocks {
            Blocks::Known(_) => match known.unwrap_or(Found::Nothing) {
                Found::Same(length) => return Ok(Answer::Run(length, Run::Same)),
                Found::Copies(copies) => (segment.read_around(&copies)?, copies),
                Found::Pages(data, copies, pages) => {
                    return Ok(Answer::Proved(part::compose(&data, &holes, &copies), pages));
                }
                Found::Differs(leaves) => return Ok(Answer::Differs(leaves)),
                Found::Nothing => return Ok(Answer::Unknown),
            },
            Blocks::Leaves(base) => match segment.differing(base)? {
                0 => (segment.nothing(), segment.all_from(basis)),
                leaves => return Ok(Answer::Differs(leaves)),
            },
            Blocks::Pages { leaves, digests } => {
                let data = segment.read_leaves(*leaves)?;
                let copies = block::copies(&data, basis.offset, *leaves, digests);
                (data, copies)
            }
            Blocks::Signature(signature) => {
                let data = segment.read()?;
                let copies = moved(&data, signature, basis.offset);
                (data, copies)
            }
        };
        Ok(Answer::Parts(part::compose(&data, &holes, &copies)))
    }

    /// What of a segment a content has that the sink only named.
    fn known(&self, segment: &Segment<'_>, range: &WantRange, known: &Known) -> io::Result<Found> {
        let body = &range.want.body;
        let (old, new) = ((&known.digest, known.size), (&body.digest, body.size));
        let delta = self.bases.map_or(Ok(None), |bases| bases.delta(old, new, self.control()))?;
        let Some(delta) = delta else { return Ok(Found::Nothing) };
        let end = (range.offset + range.length as u64).min(known.size);
        match &*delta {
            Delta::Ranges(changed) => {
                let next = changed.partition_point(|range_of| range_of.end <= range.offset);
                let until = changed.get(next).map_or(u64::MAX, |next| next.start).min(known.size).min(body.size);
                Ok(match until >= range.offset + range.length as u64 {
                    true => Found::Same(until - range.offset),
                    false => Found::Copies(unchanged(changed, range.offset, end)),
                })
            }
            Delta::Leaves { old, new } => {
                let (old, new) = (old.range(range.offset, range.length)?, new.range(range.offset, range.length)?);
                match block::unlike(new.iter(), &old.iter().collect::<Vec<_>>()) {
                    0 => Ok(Found::Copies(unchanged(&[], range.offset, end))),
                    leaves => Ok(self.by_pages(segment, leaves, &old, &new)?.unwrap_or(Found::Differs(leaves))),
                }
            }
        }
    }
}

impl Source<'_> {
    /// What of differing leaves has changed, by the pages that are known of what the base holds; `None` where that is not
    /// known of all of them, and where the file does not hold any more what it held when it was scanned.
    fn by_pages(
        &self,
        segment: &Segment<'_>,
        leaves: block::Leaves,
        old: &[Digest],
        new: &[Digest],
    ) -> io::Result<Option<Found>> {
        let Some(file) = self.bases.and_then(Bases::pages) else { return Ok(None) };
        let (mut before, mut copies) = (Vec::new(), Vec::new());
        for n in (0..new.len()).filter(|n| block::has(leaves, *n)) {
            let at = segment.offset + (n * LEAF_BYTES) as u64;
            let is_whole = (n + 1) * LEAF_BYTES <= segment.len;
            let Some(values) = old.get(n).filter(|_| is_whole).map_or(Ok(None), |old| file.of(at, old))? else {
                return Ok(None);
            };
            before.push((n, at, values));
        }
        let data = segment.read_leaves(leaves)?;
        for (n, leaf) in data.chunks(LEAF_BYTES).enumerate() {
            let at = n * LEAF_BYTES;
            let Some((_, offset, values)) = before.iter().find(|(of, ..)| *of == n) else {
                copies.push(Copy { at, from: segment.offset + at as u64, len: leaf.len() });
                continue;
            };
            let now = pages::values(leaf);
            if pages::leaf(&now) != new[n] {
                return Ok(None);
            }
            file.put(*offset, &now)?;
            for page in (0..pages::LEAF_PAGES).filter(|page| now[*page] == values[*page]) {
                let at = at + page * PAGE_BYTES;
                copies.push(Copy { at, from: segment.offset + at as u64, len: PAGE_BYTES });
            }
        }
        let values = before.into_iter().flat_map(|(_, _, values)| values).collect();
        Ok(Some(Found::Pages(data, copies, KnownPages { leaves, values })))
    }
}

enum Answer {
    Parts(Vec<Part>),
    Proved(Vec<Part>, KnownPages),
    Differs(block::Leaves),
    Unknown,
    Run(u64, Run),
}

enum Found {
    /// Nothing differs for so many bytes.
    Same(u64),
    Copies(Vec<Copy>),
    Pages(Bytes, Vec<Copy>, KnownPages),
    Differs(block::Leaves),
    Nothing,
}

/// The gaps between ranges, from an offset to an end.
fn unchanged(changed: &[Range<u64>], offset: u64, end: u64) -> Vec<Copy> {
    let first = changed.partition_point(|range| range.end <= offset);
    let within = changed[first..].iter().take_while(|range| range.start < end).cloned();
    let mut at = offset;
    let mut copies = Vec::new();
    for range in within.chain(iter::once(end..end)) {
        if at < range.start {
            copies.push(Copy { at: (at - offset) as usize, from: at, len: (range.start - at) as usize });
        }
        at = at.max(range.end);
    }
    copies
}

/// What the base has of `data` somewhere in the window that a signature is of.
fn moved(data: &[u8], signature: &[u8], window: u64) -> Vec<Copy> {
    let copies = shift::copies(signature, window, data).unwrap_or_default();
    let copied: usize = copies.iter().map(|copy| copy.len).sum();
    let is_useful = (data.len() - copied.min(data.len())) * 100 < data.len() * USELESS_PERCENT;
    if is_useful { copies } else { Vec::new() }
}

/// What is asked for, with as little of it read as an answer needs.
struct Segment<'a> {
    open: &'a OpenFile,
    offset: u64,
    len: usize,
}

impl Segment<'_> {
    fn read(&self) -> io::Result<Bytes> {
        self.read_leaves(block::Leaves::MAX)
    }

    /// For an answer of copies alone.
    fn nothing(&self) -> Bytes {
        vec![0; self.len].into()
    }

    fn read_around(&self, copies: &[Copy]) -> io::Result<Bytes> {
        let leaf_of = |at: usize| at / LEAF_BYTES;
        let mut wanted = 0;
        let mut at = 0;
        let end = Copy { at: self.len, from: 0, len: 0 };
        for copy in copies.iter().chain([&end]) {
            if at < copy.at {
                wanted = (leaf_of(at)..=leaf_of(copy.at - 1)).fold(wanted, |bits, leaf| bits | 1 << leaf);
            }
            at = copy.at + copy.len;
        }
        self.read_leaves(wanted)
    }

    /// Of leaves that are not wanted there is nothing in it.
    fn read_leaves(&self, wanted: block::Leaves) -> io::Result<Bytes> {
        let mut data = vec![0; self.len];
        let is_aligned = self.offset.is_multiple_of(LEAF_BYTES as u64);
        let proof = self.open.leaves.as_ref().zip(self.open.warm.as_ref()).filter(|_| is_aligned);
        let digests = proof.map_or(Ok(Vec::new()), |(leaves, _)| leaves.range(self.offset, self.len))?;
        for (n, leaf) in data.chunks_mut(LEAF_BYTES).enumerate().filter(|(n, _)| block::has(wanted, *n)) {
            let at = self.offset + (n * LEAF_BYTES) as u64;
            if let (Some((_, warm)), Some(digest)) = (proof, digests.get(n)) {
                read_padded(warm, leaf, at)?;
                if Digest::of(leaf) == *digest {
                    continue;
                }
            }
            read_padded(&self.open.file, leaf, at)?;
        }
        Ok(data.into())
    }

    /// Leaves that a base does not have; content whose leaves are known is not read for that.
    fn differing(&self, base: &[block::LeafDigest]) -> io::Result<block::Leaves> {
        let is_aligned = self.offset.is_multiple_of(LEAF_BYTES as u64);
        match &self.open.leaves {
            Some(leaves) if is_aligned => {
                let known = leaves.range(self.offset, self.len)?;
                Ok(block::unlike(known.iter().map(block::short), base))
            }
            _ => Ok(block::differing(&self.read()?, base)),
        }
    }

    fn all_from(&self, basis: &Basis) -> Vec<Copy> {
        vec![Copy { at: 0, from: basis.offset, len: self.len }]
    }
}
