//! Writing a segment, and what its answer tells about content that moved.

use std::{fs::File, io, ops::Range, sync::Arc};

use super::{
    Fetched, Sink,
    ask::read_up_to,
    dest::Dest,
    large::{Ask, Large, Origin, Stage},
    schedule::Task,
};
use crate::{
    content::{
        Allocation, LEAF_BYTES, PAGE_BYTES, Part, SEGMENT_BYTES,
        pages::{self, LeafValues},
        part::is_zero,
    },
    fault,
    hash::ReadContent as _,
    leaves::is_zero_leaf,
    pages::KnownPages,
    session::body::{BodyError, Run},
};

/// Of a run that has to be copied, so that a cancel is soon noticed and all threads have something to do.
const RUN_BYTES_MAX: u64 = 64 << 20;

impl Sink<'_> {
    pub(super) fn store_range(
        &self,
        large: &Arc<Large>,
        ask: Ask,
        parts: &[Part],
        pages: Option<&KnownPages>,
    ) -> Result<(), BodyError> {
        if parts.iter().map(Part::len).sum::<u64>() != ask.length as u64 {
            return Err(BodyError::WrongAnswer { path: self.fetch(large.id).path.clone() });
        }
        let is_first_pass = large.pass().number == 1;
        if !large.pass().is_gone {
            self.write(large, &ask, parts, pages).map_err(self.stage_error(large.id))?;
        }
        if is_first_pass {
            self.control().progress.bytes_done.add(ask.length as u64);
        }
        self.learn(large, &ask, parts);
        self.segment_done(large, ask)
    }

    pub(super) fn store_run(&self, large: &Arc<Large>, ask: Ask, length: u64, what: Run) -> Result<(), BodyError> {
        let wrong = || BodyError::WrongAnswer { path: self.fetch(large.id).path.clone() };
        let end = ask.offset.checked_add(length).ok_or_else(wrong)?;
        let (size, is_first_pass) = {
            let pass = large.pass();
            (pass.target.body.size, pass.number == 1)
        };
        if length < ask.length as u64 || end > size || (what == Run::Same && ask.stage != Stage::Known) {
            return Err(wrong());
        }
        let target = Place::of(large, &ask);
        // A hole is made in one go, and what a clone of a known base has needs nothing.
        let is_known = target.is_base && large.leaves.as_ref().is_none_or(|proof| proof.is_of_base);
        let is_copied = what == Run::Same && !is_known;
        let far = if is_copied { end.min(ask.offset + RUN_BYTES_MAX) } else { end };
        let asked = ask.offset..ask.offset + ask.length as u64;
        for range in [asked, large.skip(far)].into_iter().filter(|range| !range.is_empty()) {
            if !large.pass().is_gone {
                write_run(large, &target, &range, what).map_err(self.stage_error(large.id))?;
            }
            if is_first_pass {
                self.control().progress.bytes_done.add(range.end - range.start);
            }
        }
        fault::hit("stage.range").map_err(self.stage_error(large.id))?;
        self.learn(large, &ask, &[]);
        self.segment_done(large, ask)
    }

    fn write(&self, large: &Large, ask: &Ask, parts: &[Part], pages: Option<&KnownPages>) -> io::Result<()> {
        let target = Place::of(large, ask);
        let mut at = ask.offset;
        for part in parts {
            write_part(large, &target, part, at)?;
            at += part.len();
        }
        large.dest.begin_writeback(ask.offset, at - ask.offset)?;
        prove(large, &target, parts, pages, ask.offset)?;
        fault::hit("stage.range")
    }

    /// Remembers where content was found, and lets those go on who waited for it.
    fn learn(&self, large: &Arc<Large>, ask: &Ask, parts: &[Part]) {
        if ask.origin != Origin::Live {
            return;
        }
        let mut at = ask.offset;
        let (mut longest, mut shift) = (0, ask.shift);
        for part in parts {
            if let Part::Copy { from, len } = part
                && *len > longest
            {
                (longest, shift) = (*len, (*from).cast_signed().wrapping_sub(at.cast_signed()));
            }
            at += part.len();
        }
        let mut pass = large.pass();
        match ask.stage {
            Stage::Leaves if longest > 0 => pass.shifts.current = ask.shift,
            Stage::Signature => {
                pass.shifts.is_searching = false;
                if longest > 0 {
                    (pass.shifts.current, pass.shifts.useless) = (shift, 0);
                } else {
                    pass.shifts.useless += 1;
                }
            }
            Stage::Known | Stage::Leaves | Stage::Pages => {}
        }
        if !pass.shifts.is_searching {
            let parked = std::mem::take(&mut pass.shifts.parked);
            drop(pass);
            parked.into_iter().for_each(|(ask, leaves)| {
                self.schedule.push(Task::Refine { large: Arc::clone(large), ask, leaves });
            });
        }
    }

    pub(super) fn gone_range(&self, large: &Arc<Large>, ask: Ask) -> Result<(), BodyError> {
        let parked = {
            let mut pass = large.pass();
            pass.is_gone = true;
            pass.shifts.is_searching = false;
            std::mem::take(&mut pass.shifts.parked)
        };
        for ask in parked.into_iter().map(|(ask, _)| ask).chain([ask]) {
            self.segment_done(large, ask)?;
        }
        Ok(())
    }

    fn segment_done(&self, large: &Arc<Large>, ask: Ask) -> Result<(), BodyError> {
        self.schedule.release(ask.slot);
        if !large.segment_done() {
            return Ok(());
        }
        if large.pass().is_gone { self.discard(large) } else { self.prove(large) }
    }

    /// Nothing stays of a file that the source has no more.
    pub(super) fn discard(&self, large: &Large) -> Result<(), BodyError> {
        let dest = &self.fetch(large.id).dest;
        let unlinked = self.staging.get(&dest.dir).and_then(|dir| dir.unlink(dest.name.as_bytes()));
        unlinked.map_err(self.stage_error(large.id))?;
        self.schedule.large_closed();
        self.finish(vec![(large.id, Fetched::Gone)], 0);
        Ok(())
    }
}

fn write_run(large: &Large, target: &Place<'_>, range: &Range<u64>, what: Run) -> io::Result<()> {
    let len = range.end - range.start;
    match what {
        Run::Hole => {
            write_part(large, target, &Part::Hole(len), range.start)?;
            large.leaves.as_ref().map_or(Ok(()), |proof| proof.file.write_zeros(range.start, len))
        }
        Run::Same => {
            if !target.is_base {
                target.same(range.start, len)?;
            }
            let mut at = range.start;
            while at < range.end {
                let len = (range.end - at).min(SEGMENT_BYTES as u64);
                prove(large, target, &[Part::Copy { from: at, len }], None, at)?;
                at += len;
            }
            Ok(())
        }
    }
}

fn write_part(large: &Large, target: &Place<'_>, part: &Part, at: u64) -> io::Result<()> {
    match part {
        Part::Data(data) => large.dest.write_all_at(data, at),
        Part::Zeros(len) => large.dest.write_zeros(at, *len),
        Part::Hole(len) if target.is_hole(at, *len) => Ok(()),
        Part::Hole(len) => large.dest.make_hole(at, *len),
        Part::Copy { from, len } => target.copy(*from, at, *len),
    }
}

/// Hashes the leaves of a segment as they are staged now, but for those that a clone of a known base has.
fn prove(large: &Large, target: &Place<'_>, parts: &[Part], pages: Option<&KnownPages>, offset: u64) -> io::Result<()> {
    let Some(proof) = &large.leaves else { return Ok(()) };
    let mut placed = Vec::with_capacity(parts.len());
    let mut end = offset;
    for part in parts {
        placed.push((end, part));
        end += part.len();
    }
    let mut buffer = Vec::new();
    // Neighbours that are written in one go.
    let (mut at, mut leaves) = (offset, Vec::new());
    for start in (offset..end).step_by(LEAF_BYTES) {
        let leaf = start..(start + LEAF_BYTES as u64).min(end);
        let first = placed.partition_point(|(at, part)| at + part.len() <= start);
        let within = &placed[first..placed.partition_point(|(at, _)| *at < leaf.end)];
        let is_of_base = proof.is_of_base && target.is_base;
        let known =
            pages.filter(|_| is_of_base).and_then(|pages| pages.of(((start - offset) / LEAF_BYTES as u64) as usize));
        if is_of_base && is_untouched(large, within, &leaf, proof.file.size()) {
            proof.file.write_leaves(at, &leaves)?;
            leaves.clear();
            at = leaf.end;
        } else if let Some(digest) = known.map_or(Ok(None), |known| follow(large, within, &leaf, known))? {
            leaves.push(digest);
        } else {
            leaves.push(hash_leaf(large, within, leaf, &mut buffer)?);
        }
    }
    proof.file.write_leaves(at, &leaves)
}

/// The base's own leaf. Its last one is another one when the sizes differ.
fn is_untouched(large: &Large, parts: &[(u64, &Part)], leaf: &Range<u64>, size: u64) -> bool {
    let is_whole = leaf.end - leaf.start == LEAF_BYTES as u64;
    let is_of_base = |len: u64| leaf.end <= len && (is_whole || (leaf.end == size && len == size));
    large.base.as_ref().is_some_and(|base| is_of_base(base.len))
        && parts.iter().all(|(at, part)| matches!(part, Part::Copy { from, .. } if from == at))
}

/// The digest of a whole leaf that has some pages of the base, whose values are `known`, and others that came. `None` where it does not follow.
fn follow(
    large: &Large,
    parts: &[(u64, &Part)],
    leaf: &Range<u64>,
    known: &LeafValues,
) -> io::Result<Option<Option<blake3::Hash>>> {
    let Some((base, leaves)) = large.base.as_ref().and_then(|base| Some((base, base.leaves.as_ref()?))) else {
        return Ok(None);
    };
    let is_whole = leaf.end - leaf.start == LEAF_BYTES as u64 && leaf.end <= base.len;
    if !is_whole || leaves.range(leaf.start, LEAF_BYTES)?.first() != Some(&pages::leaf(known)) {
        return Ok(None);
    }
    let mut values = *known;
    for (n, value) in values.iter_mut().enumerate() {
        let at = leaf.start + (n * PAGE_BYTES) as u64;
        let holds = |(start, part): &&(u64, &Part)| *start <= at && at + PAGE_BYTES as u64 <= start + part.len();
        match parts.iter().find(holds) {
            Some((start, Part::Copy { from, .. })) if from == start => {}
            Some((start, Part::Data(data))) => {
                let from = (at - start) as usize;
                *value = pages::value(&data[from..from + PAGE_BYTES], n);
            }
            Some((_, Part::Zeros(_) | Part::Hole(_))) => *value = pages::value(&[0; PAGE_BYTES], n),
            Some((_, Part::Copy { .. })) | None => return Ok(None),
        }
    }
    let digest = pages::leaf(&values);
    Ok(Some((!is_zero_leaf(&digest)).then(|| blake3::Hash::from_bytes(*digest.as_bytes()))))
}

/// `None` for zeros. What did not come as data is read where it is staged: a base may have changed under our hands.
fn hash_leaf(
    large: &Large,
    parts: &[(u64, &Part)],
    leaf: Range<u64>,
    buffer: &mut Vec<u8>,
) -> io::Result<Option<blake3::Hash>> {
    let len = (leaf.end - leaf.start) as usize;
    if let [(at, Part::Data(data))] = parts {
        let from = (leaf.start - at) as usize;
        return Ok(hash_unless_zero(&data[from..from + len]));
    }
    buffer.resize(len, 0);
    large.dest.read_padded(buffer, leaf.start)?;
    Ok(hash_unless_zero(buffer))
}

fn hash_unless_zero(leaf: &[u8]) -> Option<blake3::Hash> {
    (!is_zero(leaf)).then(|| blake3::hash(leaf))
}

/// What the staged file holds already where a segment goes.
struct Place<'a> {
    dest: &'a Dest,
    /// What copies are taken from, and how it is allocated.
    base: Option<(Held<'a>, &'a Allocation)>,
    /// The staged file has all of the base already.
    is_base: bool,
    /// Nothing has been written there.
    is_empty: bool,
    staged: Option<Arc<Allocation>>,
}

#[derive(Clone, Copy)]
enum Held<'a> {
    Staged(&'a Dest),
    Live(&'a File),
}

static FULL: Allocation = Allocation::Full;

impl<'a> Place<'a> {
    fn of(large: &'a Large, ask: &Ask) -> Self {
        let staged = large.pass().staged.clone();
        let begins_as_base = match &large.dest {
            Dest::File { .. } | Dest::Device { .. } => {
                staged.is_none() && large.base.as_ref().is_some_and(|base| base.is_cloned)
            }
            Dest::Overlay(_) => true,
        };
        let base = match (ask.origin, &large.base) {
            (Origin::Staged, _) => Some((Held::Staged(&large.dest), &FULL)),
            (Origin::Live, Some(base)) => Some((Held::Live(&base.file), &base.allocation)),
            (Origin::None, _) | (Origin::Live, None) => None,
        };
        let is_base = ask.origin == Origin::Staged || begins_as_base;
        Self { dest: &large.dest, base, is_base, is_empty: staged.is_none() && !begins_as_base, staged }
    }

    fn is_hole(&self, at: u64, len: u64) -> bool {
        let base = self.base.filter(|_| self.is_base).map(|(_, allocation)| allocation);
        let held = self.staged.as_deref().or(base);
        self.is_empty || held.is_some_and(|held| held.is_hole(at, len as usize))
    }

    /// All of the base's content and holes, where the staged file does not begin with them.
    fn same(&self, at: u64, len: u64) -> io::Result<()> {
        let Some((Held::Live(base), allocation)) = self.base else { return Err(io::ErrorKind::InvalidData.into()) };
        let mut done = at;
        for hole in allocation.holes_within(at, len as usize) {
            let (start, end) = (at + hole.start as u64, at + hole.end as u64);
            self.dest.copy_from(base, done, start - done)?;
            if !self.is_empty {
                self.dest.make_hole(start, end - start)?;
            }
            done = end;
        }
        self.dest.copy_from(base, done, at + len - done)
    }

    fn copy(&self, from: u64, at: u64, len: u64) -> io::Result<()> {
        let (base, allocation) = self.base.ok_or(io::ErrorKind::InvalidData)?;
        if from != at {
            return self.copy_shifted(base, from, at, len);
        }
        if let Held::Live(base) = base
            && !self.is_base
        {
            self.dest.copy_from(base, at, len)?;
        }
        // The source has data here: zeros where the base, or a clone of it, has a hole.
        let allocation = self.staged.as_deref().filter(|_| self.is_base).unwrap_or(allocation);
        for hole in allocation.holes_within(at, len as usize) {
            self.dest.write_zeros(at + hole.start as u64, hole.len() as u64)?;
        }
        Ok(())
    }

    fn copy_shifted(&self, base: Held<'_>, from: u64, at: u64, len: u64) -> io::Result<()> {
        let mut done = 0;
        while done < len {
            let piece = (len - done).min(SEGMENT_BYTES as u64) as usize;
            let content = match base {
                Held::Staged(staged) => staged.read_up_to(from + done, piece)?,
                Held::Live(live) => read_up_to(live, from + done, piece)?,
            };
            if content.is_empty() {
                // The base became shorter: the body's digest will tell.
                break;
            }
            self.dest.write_all_at(&content, at + done)?;
            done += content.len() as u64;
        }
        Ok(())
    }
}
