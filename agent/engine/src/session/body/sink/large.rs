//! A big file while it is built: in place under its staging name, segment by segment, in any order.

use std::{
    fs::File,
    io,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
};

use drover_linux::{
    Dir,
    file::{self, DirectWriter},
};

use super::{Fetch, Fetched, Leftovers, Sink, Way, dest::Dest, schedule::Slot, whole::create_anew};
use crate::{
    bases::{BASE_BYTES_MIN, New},
    content::{Allocation, SEGMENT_BYTES, block::Leaves},
    hash::hash_content,
    leaves::LeafFile,
    patch::{Overlay, Patch, REDO},
    record,
    session::body::{BodyError, Known, Settled, error::is_no_file},
    tree::{Body, Meta},
};

/// A file that is not read again soon, and would only take the place of others in the page cache.
const DIRECT_BYTES_MIN: u64 = 64 << 20;

/// What is to be built: as the source's scan saw it, or as it was found since.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) body: Body,
    /// With `None` nothing has changed since the scan.
    pub(super) found: Option<(Meta, Settled)>,
}

impl Target {
    pub(super) fn wanted(fetch: &Fetch) -> Self {
        Self { body: fetch.body, found: None }
    }

    pub(super) fn fetched(&self, wanted: &Body) -> Fetched {
        match &self.found {
            Some((meta, settled)) if self.body != *wanted || *settled == Settled::Moving => {
                Fetched::Changed { meta: meta.clone(), body: self.body, settled: *settled }
            }
            _ => Fetched::AsWanted,
        }
    }
}

#[derive(Debug)]
pub(super) struct Large {
    pub(super) id: u32,
    pub(super) dest: Dest,
    pub(super) base: Option<Base>,
    /// The source does not know the base's content, so its digests are told.
    pub(super) is_base_unknown: AtomicBool,
    /// Digests of what is staged, segment by segment; the file's own proof.
    pub(super) leaves: Option<Proof>,
    pass: Mutex<Pass>,
}

#[derive(Debug)]
pub(super) struct Base {
    pub(super) file: File,
    pub(super) len: u64,
    pub(super) allocation: Allocation,
    /// The staged file began as a clone of it.
    pub(super) is_cloned: bool,
    /// The content by its name, when the scan saw it and nothing has happened to it since.
    pub(super) known: Option<Known>,
    pub(super) leaves: Option<LeafFile>,
    /// Nobody can have written to it since it got its name.
    pub(super) is_frozen: bool,
}

/// Leaves of a file that is being built.
#[derive(Debug)]
pub(super) struct Proof {
    pub(super) file: LeafFile,
    /// They begin as those of the base.
    pub(super) is_of_base: bool,
    /// Until the file is proved and its leaves are kept.
    pub(super) new: Mutex<Option<New>>,
}

/// How much the short digests are trusted; less each time that a body came out wrong though the source held still.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trust {
    Pages,
    Leaves,
    Nothing,
}

/// One walk over the file. Further ones, after a recheck, take what is staged as their base.
#[derive(Debug)]
pub(super) struct Pass {
    pub(super) number: u32,
    pub(super) target: Target,
    pub(super) trust: Trust,
    /// What the staged file held when the pass began; `None` when it was made for this pass.
    pub(super) staged: Option<Arc<Allocation>>,
    /// Where an earlier run left something in an overlay, which holds all of its base besides.
    pub(super) fetched: Option<Arc<Allocation>>,
    pub(super) shifts: Shifts,
    pub(super) is_gone: bool,
    next: u64,
    open: usize,
}

/// What is known of content that moved inside the file.
#[derive(Debug, Default)]
pub(super) struct Shifts {
    /// Where the last match was: base offset less file offset.
    pub(super) current: i64,
    /// A signature is on its way: others wait for what it tells.
    pub(super) is_searching: bool,
    pub(super) useless: u32,
    pub(super) parked: Vec<(Ask, Leaves)>,
}

/// A segment on its way from the first question to the disk.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) offset: u64,
    pub(super) length: usize,
    pub(super) slot: Slot,
    pub(super) origin: Origin,
    pub(super) shift: i64,
    /// Leaves that the base had to offer.
    pub(super) offered: usize,
    /// How often it was asked for again with a shift that others had found.
    pub(super) followed: u8,
    /// The shift that the sizes suggest has been tried.
    pub(super) has_guessed: bool,
    pub(super) stage: Stage,
}

/// How closely a segment has been asked for. Only known contents and leaves may be answered by another question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Known,
    Leaves,
    Signature,
    Pages,
}

/// Which file is the base of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    None,
    Staged,
    Live,
}

impl Ask {
    pub(super) fn new(offset: u64, length: usize, slot: Slot) -> Self {
        let (origin, shift, offered) = (Origin::None, 0, 0);
        Self { offset, length, slot, origin, shift, offered, followed: 0, has_guessed: false, stage: Stage::Leaves }
    }
}

impl Pass {
    fn first(target: Target, staged: Option<Arc<Allocation>>, fetched: Option<Arc<Allocation>>) -> Self {
        let (shifts, trust) = (Shifts::default(), Trust::Pages);
        Self { number: 1, target, trust, staged, fetched, shifts, is_gone: false, next: 0, open: 0 }
    }
}

impl Large {
    fn new(id: u32, dest: Dest, base: Option<Base>, leaves: Option<Proof>, pass: Pass) -> Self {
        Self { id, dest, base, is_base_unknown: AtomicBool::new(false), leaves, pass: Mutex::new(pass) }
    }

    pub(super) fn pass(&self) -> MutexGuard<'_, Pass> {
        self.pass.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Offset and length of the next segment to ask for.
    pub(super) fn next_segment(&self) -> Option<(u64, usize)> {
        let mut pass = self.pass();
        let (offset, left) = (pass.next, pass.target.body.size.saturating_sub(pass.next));
        if left == 0 || pass.is_gone {
            return None;
        }
        let length = left.min(SEGMENT_BYTES as u64);
        pass.next += length;
        pass.open += 1;
        Some((offset, length as usize))
    }

    /// Segments up to `to` that nobody has asked for yet need not be asked for; returns what they cover.
    pub(super) fn skip(&self, to: u64) -> Range<u64> {
        let mut pass = self.pass();
        let size = pass.target.body.size;
        let to = if to >= size { size } else { to / SEGMENT_BYTES as u64 * SEGMENT_BYTES as u64 };
        let from = pass.next;
        pass.next = from.max(to);
        from..pass.next
    }

    /// Whether the segment was the last one of the pass.
    pub(super) fn segment_done(&self) -> bool {
        let mut pass = self.pass();
        pass.open -= 1;
        pass.open == 0 && (pass.is_gone || pass.next >= pass.target.body.size)
    }

    /// Begins another pass over what is staged now.
    pub(super) fn again(&self, target: Target, trust: Trust) -> io::Result<()> {
        self.dest.set_len(target.body.size)?;
        if let Some(proof) = &self.leaves {
            proof.file.resize(target.body.size)?;
        }
        let staged = Some(Arc::new(self.dest.allocation()?));
        let mut pass = self.pass();
        let number = pass.number + 1;
        let fetched = None;
        *pass = Pass {
            number,
            target,
            trust,
            staged,
            fetched,
            shifts: Shifts::default(),
            is_gone: false,
            next: 0,
            open: 0,
        };
        Ok(())
    }
}

impl Sink<'_> {
    pub(super) fn open_large(&self, id: u32, target: Target) -> Result<(), BodyError> {
        match self.build(id, target).map_err(self.stage_error(id))? {
            Some(large) => self.schedule.ready(Arc::new(large)),
            None => {
                self.schedule.large_closed();
                self.finish(vec![(id, Fetched::AsWanted)], self.fetch(id).body.size);
            }
        }
        Ok(())
    }

    /// `None` when all of it is there already.
    fn build(&self, id: u32, target: Target) -> io::Result<Option<Large>> {
        match self.fetch(id).way {
            Way::Whole => self.build_whole(id, target),
            Way::Patch => self.build_patch(id, target),
            Way::AtOnce => self.build_at_once(id, target),
        }
    }

    fn build_whole(&self, id: u32, target: Target) -> io::Result<Option<Large>> {
        let fetch = self.fetch(id);
        let dir = self.staging.get(&fetch.dest.dir)?;
        let leftover = self.leftover(&dir, fetch.dest.name.as_bytes())?;
        if target.found.is_none()
            && let Some(file) = &leftover
            && self.holds(file, &target.body)?
        {
            return Ok(None);
        }
        let mut base = self.open_base(fetch)?;
        let (dest, is_leftover) = match leftover {
            Some(file) => (file, true),
            None => {
                let file = create_anew(&dir, fetch.dest.name.as_bytes())?;
                if let Some(base) = &mut base {
                    base.is_cloned = file::reflink(&base.file, &file)?;
                    // Of a clone only what is beside the change is read, and the page cache has none of it.
                    if base.is_cloned {
                        file::expect_random(&file)?;
                    }
                    if base.is_cloned && !base.is_frozen {
                        // The file may have changed since: what counts is what the clone got.
                        base.allocation = Allocation::of(&file)?;
                    }
                }
                (file, false)
            }
        };
        let target_size = target.body.size;
        file::set_len(&dest, target_size)?;
        // Only now: what the leftover did not reach is a hole, too.
        let staged = if is_leftover { Some(Arc::new(Allocation::of(&dest)?)) } else { None };
        let leaves = self.proof(base.as_ref(), target_size, is_leftover)?;
        let is_written_whole = base.is_none() && target_size >= DIRECT_BYTES_MIN;
        let direct = if is_written_whole { DirectWriter::of(&dest)? } else { None };
        Ok(Some(Large::new(id, Dest::File { file: dest, direct }, base, leaves, Pass::first(target, staged, None))))
    }

    /// All of the device is taken for what an interrupted run left: segments are told by their digests, and right ones stay.
    fn build_at_once(&self, id: u32, target: Target) -> io::Result<Option<Large>> {
        let fetch = self.fetch(id);
        let gone = || io::Error::new(io::ErrorKind::NotFound, "the device is not there any more");
        let (parent, name) = fetch.base.as_ref().and_then(crate::path::RelPath::split).ok_or_else(gone)?;
        let dir = self.live.get(&parent)?;
        let dest = Dest::Device { device: dir.open_write(name.as_bytes())?, read: dir.open_file(name.as_bytes())? };
        dest.set_len(target.body.size)?;
        let staged = Some(Arc::new(Allocation::Full));
        let leaves = self.proof(None, target.body.size, true)?;
        Ok(Some(Large::new(id, dest, None, leaves, Pass::first(target, staged, None))))
    }

    /// The replica's file is the base, and stays untouched until the commit: what it holds is looked at again then.
    fn build_patch(&self, id: u32, target: Target) -> io::Result<Option<Large>> {
        let fetch = self.fetch(id);
        let gone = || io::Error::new(io::ErrorKind::NotFound, "the replica's file is not there any more");
        let (live, from) = (self.open_live(fetch).ok_or_else(gone)??, fetch.base_body.as_ref().ok_or_else(gone)?);
        let dir = self.staging.get(&fetch.dest.dir)?;
        let (data, is_leftover) = match self.leftover(&dir, fetch.dest.name.as_bytes())? {
            Some(file) => (file, true),
            None => (create_anew(&dir, fetch.dest.name.as_bytes())?, false),
        };
        let known = if is_leftover { Patch::load(self.patches, REDO).unwrap_or(None) } else { None };
        let known = known.filter(|known| known.from == from.into());
        // Beyond what an earlier target needed there may be anything.
        let covered = match &known {
            Some(known) => known.covered.clone(),
            None => Overlay::left_in(&data)?,
        };
        let fetched: Vec<_> = covered.iter().map(|(range, _)| (range.start, range.end - range.start)).collect();
        let mut base = self.base_of(fetch, live.try_clone()?, None)?.ok_or_else(gone)?;
        (base.is_cloned, base.is_frozen) = (true, true);
        let overlay = Overlay::new(data, live, base.len, covered)?;
        overlay.set_len(target.body.size)?;
        if target.found.is_none()
            && known.is_some_and(|known| known.to == (&target.body).into())
            && hash_content(&overlay, target.body.size, &self.quiet())?.digest == target.body.digest
        {
            return Ok(None);
        }
        record::remove(self.patches, REDO)?;
        let staged = if is_leftover { Some(Arc::new(overlay.allocation())) } else { None };
        let fetched = is_leftover.then(|| Arc::new(Allocation::Data(fetched)));
        let leaves = self.proof(Some(&base), target.body.size, is_leftover)?;
        let pass = Pass::first(target, staged, fetched);
        Ok(Some(Large::new(id, Dest::Overlay(overlay), Some(base), leaves, pass)))
    }

    /// What an interrupted run left, unless something else shares its inode.
    fn leftover(&self, dir: &Dir, name: &[u8]) -> io::Result<Option<File>> {
        if self.leftovers == Leftovers::None {
            return Ok(None);
        }
        match dir.open_write(name) {
            Ok(file) => Ok((file::stat(&file)?.nlink == 1).then_some(file)),
            // Nothing, or no regular file: it is replaced.
            Err(error) if is_no_file(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn proof(&self, base: Option<&Base>, size: u64, is_leftover: bool) -> io::Result<Option<Proof>> {
        let Some(bases) = self.bases.filter(|_| size >= BASE_BYTES_MIN) else { return Ok(None) };
        let of_base = base.filter(|base| !is_leftover && base.is_cloned && base.is_frozen);
        let of_base = of_base.and_then(|base| base.leaves.as_ref());
        let (new, file) = of_base.map_or_else(|| bases.make_leaves(size), |leaves| bases.copy_leaves(leaves))?;
        file.resize(size)?;
        Ok(Some(Proof { file, is_of_base: of_base.is_some(), new: Mutex::new(Some(new)) }))
    }

    /// The base only saves work: without it all is fetched.
    fn open_base(&self, fetch: &Fetch) -> io::Result<Option<Base>> {
        let body = fetch.base_body.filter(|body| body.size >= BASE_BYTES_MIN);
        let frozen = self.bases.zip(body).map_or(Ok(None), |(bases, body)| bases.clone_of(&body.digest))?;
        match (frozen, self.open_live(fetch)) {
            (Some(frozen), Some(_)) => self.base_of(fetch, frozen.try_clone()?, Some(frozen)),
            (None, Some(Ok(live))) => self.base_of(fetch, live, None),
            (_, None | Some(Err(_))) => Ok(None),
        }
    }

    fn open_live(&self, fetch: &Fetch) -> Option<io::Result<File>> {
        let (parent, name) = fetch.base.as_ref()?.split()?;
        Some(self.live.get(&parent).and_then(|dir| dir.open_file(name.as_bytes())))
    }

    fn base_of(&self, fetch: &Fetch, file: File, frozen: Option<File>) -> io::Result<Option<Base>> {
        let len = file::stat(&file)?.size;
        let known = self.bases.zip(fetch.base_body).filter(|(_, body)| body.size >= BASE_BYTES_MIN && body.size == len);
        let leaves = known.map_or(Ok(None), |(bases, body)| bases.leaves_of(&body.digest, len))?;
        let known = known.map(|(_, body)| Known { digest: body.digest, size: len });
        let (allocation, is_frozen) = (Allocation::of(&file)?, frozen.is_some());
        if is_frozen {
            file::expect_random(&file)?;
        }
        Ok((len > 0).then_some(Base { file, len, allocation, is_cloned: false, known, leaves, is_frozen }))
    }
}
