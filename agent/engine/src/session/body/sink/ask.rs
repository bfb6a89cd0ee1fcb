//! What to ask for a segment, and how to ask again when leaves differ.

use std::{
    cmp::Ordering,
    fs::File,
    io,
    sync::{Arc, atomic},
};

use super::{
    Sink,
    large::{Ask, Large, Origin, Pass, Stage, Trust},
    schedule::{Asked, Key, Task},
};
use crate::{
    content::{
        LEAF_BYTES,
        block::{self, Leaves},
        shift,
    },
    hash::read_padded,
    session::body::{Basis, Blocks, BodyError, BodyMessage, Known, WantRange},
};

/// After so many signatures that found nothing a file counts as rewritten.
const USELESS_MAX: u32 = 2;

/// Shifts of other segments that one segment is tried with.
const FOLLOWED_MAX: u8 = 3;

/// How a segment whose leaves differ is asked for again.
enum Closer {
    Leaves {
        shift: i64,
    },
    Signature,
    Pages {
        leaves: Leaves,
    },
    /// Someone else's signature is on its way.
    Wait,
}

impl Sink<'_> {
    pub(super) fn ask_range(&self, large: Arc<Large>, mut ask: Ask) -> Result<(), BodyError> {
        let trust = {
            let pass = large.pass();
            ask.origin = origin(&large, &pass, &ask);
            ask.shift = if ask.origin == Origin::Live { pass.shifts.current } else { 0 };
            pass.trust
        };
        let basis = match trust {
            Trust::Nothing => None,
            Trust::Pages if let Some(known) = known(&large, &ask) => {
                ask.stage = Stage::Known;
                let held = large.base.as_ref().map_or(0, |base| base.len - ask.offset);
                ask.offered = held.min(ask.length as u64).div_ceil(LEAF_BYTES as u64) as usize;
                Some(Basis { offset: ask.offset, blocks: Blocks::Known(known) })
            }
            Trust::Pages | Trust::Leaves => self.leaves(&large, &mut ask)?,
        };
        self.send_want(large, ask, basis)
    }

    /// The source does not know the base that it was named.
    pub(super) fn tell_range(&self, large: Arc<Large>, mut ask: Ask) -> Result<(), BodyError> {
        if ask.stage != Stage::Known {
            return Err(BodyError::WrongAnswer { path: self.fetch(large.id).path.clone() });
        }
        large.is_base_unknown.store(true, atomic::Ordering::Relaxed);
        ask.stage = Stage::Leaves;
        let basis = self.leaves(&large, &mut ask)?;
        self.send_want(large, ask, basis)
    }

    /// Leaves of the base where the segment is expected; `None` when the base has nothing there.
    fn leaves(&self, large: &Large, ask: &mut Ask) -> Result<Option<Basis>, BodyError> {
        let expected = ask.offset.checked_add_signed(ask.shift);
        let offset = expected.unwrap_or_else(|| {
            ask.shift = 0;
            ask.offset
        });
        let known = large.base.as_ref().and_then(|base| base.leaves.as_ref());
        let digests = match known.filter(|_| ask.origin == Origin::Live && offset == ask.offset) {
            Some(leaves) => {
                let digests = leaves.range(offset, ask.length).map_err(self.stage_error(large.id))?;
                digests.iter().map(block::short).collect()
            }
            None => block::leaves(&self.read_base(large, ask, offset, ask.length)?),
        };
        ask.offered = digests.len();
        Ok((!digests.is_empty()).then_some(Basis { offset, blocks: Blocks::Leaves(digests) }))
    }

    pub(super) fn refine(&self, large: Arc<Large>, mut ask: Ask, leaves: Leaves) -> Result<(), BodyError> {
        if !matches!(ask.stage, Stage::Known | Stage::Leaves) || ask.offered == 0 {
            return Err(BodyError::WrongAnswer { path: self.fetch(large.id).path.clone() });
        }
        ask.stage = Stage::Leaves;
        let basis = match closer(&large, &mut ask, leaves) {
            Closer::Leaves { shift } => {
                ask.shift = shift;
                self.leaves(&large, &mut ask)?
            }
            Closer::Signature => {
                let base_len = large.base.as_ref().map_or(0, |base| base.len);
                let window = shift::window(ask.offset, ask.length, ask.shift, base_len);
                let content = self.read_base(&large, &ask, window.start, (window.end - window.start) as usize)?;
                ask.stage = Stage::Signature;
                Some(Basis { offset: window.start, blocks: Blocks::Signature(shift::signature(&content).into()) })
            }
            Closer::Pages { leaves } => {
                ask.stage = Stage::Pages;
                let offset = ask.offset.saturating_add_signed(ask.shift);
                let trust = large.pass().trust;
                let digests = match trust {
                    Trust::Pages => block::pages(&self.read_leaves(&large, &ask, offset, leaves)?, leaves),
                    Trust::Leaves | Trust::Nothing => Vec::new(),
                };
                Some(Basis { offset, blocks: Blocks::Pages { leaves, digests } })
            }
            Closer::Wait => {
                park(&large, ask, leaves, &self.schedule);
                return Ok(());
            }
        };
        self.send_want(large, ask, basis)
    }

    fn send_want(&self, large: Arc<Large>, ask: Ask, basis: Option<Basis>) -> Result<(), BodyError> {
        let want = self.want(large.id, large.pass().target.body);
        let range = WantRange { want, offset: ask.offset, length: ask.length, basis };
        self.request(Key::Range(large.id, ask.offset), Asked::Range(large, ask), BodyMessage::WantRange(range))
    }

    /// As `read_base` of the whole segment, but of leaves that are not wanted there is nothing in it.
    fn read_leaves(&self, large: &Large, ask: &Ask, offset: u64, wanted: Leaves) -> Result<Vec<u8>, BodyError> {
        let Some(base) = large.base.as_ref().filter(|_| ask.origin == Origin::Live && wanted != Leaves::MAX) else {
            return self.read_base(large, ask, offset, ask.length);
        };
        let held = base.len.saturating_sub(offset).min(ask.length as u64) as usize;
        let mut content = vec![0; held];
        for (n, leaf) in content.chunks_mut(LEAF_BYTES).enumerate().filter(|(n, _)| block::has(wanted, *n)) {
            let read = read_padded(&base.file, leaf, offset + (n * LEAF_BYTES) as u64);
            read.map_err(self.stage_error(large.id))?;
        }
        Ok(content)
    }

    /// What the base holds there, less when it ends.
    fn read_base(&self, large: &Large, ask: &Ask, offset: u64, len: usize) -> Result<Vec<u8>, BodyError> {
        let read = match (ask.origin, &large.base) {
            (Origin::Staged, _) => large.dest.read_up_to(offset, len),
            (Origin::Live, Some(base)) => read_up_to(&base.file, offset, len),
            (Origin::None, _) | (Origin::Live, None) => return Ok(Vec::new()),
        };
        read.map_err(self.stage_error(large.id))
    }
}

/// The base's content by its name, where that may say all.
fn known(large: &Large, ask: &Ask) -> Option<Known> {
    let is_unknown = large.is_base_unknown.load(atomic::Ordering::Relaxed);
    let base = large.base.as_ref().filter(|base| ask.origin == Origin::Live && ask.offset < base.len)?;
    base.known.filter(|_| !is_unknown && ask.shift == 0)
}

/// Staged content wins: it is what an interrupted run, or the pass before, got. Where that has nothing the live file
/// may have something.
fn origin(large: &Large, pass: &Pass, ask: &Ask) -> Origin {
    let live = if large.base.is_some() { Origin::Live } else { Origin::None };
    match pass.fetched.as_ref().or(pass.staged.as_ref()) {
        Some(staged) if !staged.is_hole(ask.offset, ask.length) => Origin::Staged,
        Some(_) if pass.number > 1 => Origin::None,
        Some(_) | None => live,
    }
}

fn closer(large: &Large, ask: &mut Ask, leaves: Leaves) -> Closer {
    let mut pass = large.pass();
    let (trust, size) = (pass.trust, pass.target.body.size);
    let Some(base) = large.base.as_ref().filter(|_| ask.origin == Origin::Live) else {
        return Closer::Pages { leaves };
    };
    let missing = (0..ask.offered).filter(|n| block::has(leaves, *n)).count();
    if missing * 2 <= ask.offered {
        pass.shifts.current = ask.shift;
        return Closer::Pages { leaves };
    }
    // Having been asked for with all of them, a segment is not asked for with leaves again.
    if ask.has_guessed || trust > Trust::Pages || pass.shifts.useless >= USELESS_MAX {
        return search(&mut pass, ask, leaves);
    }
    // Others find shifts meanwhile: each is tried, but not for ever, and not where it leads before the base's start.
    let is_possible = ask.offset.checked_add_signed(pass.shifts.current).is_some();
    if ask.shift != pass.shifts.current && is_possible && ask.followed < FOLLOWED_MAX {
        ask.followed += 1;
        return Closer::Leaves { shift: pass.shifts.current };
    }
    ask.has_guessed = true;
    let suggested = base.len as i64 - size as i64;
    match suggested.cmp(&ask.shift) {
        Ordering::Equal => search(&mut pass, ask, leaves),
        Ordering::Less | Ordering::Greater => Closer::Leaves { shift: suggested },
    }
}

fn search(pass: &mut Pass, ask: &mut Ask, leaves: Leaves) -> Closer {
    let shifts = &mut pass.shifts;
    if pass.trust == Trust::Pages && shifts.useless < USELESS_MAX {
        if shifts.is_searching {
            return Closer::Wait;
        }
        shifts.is_searching = true;
        // The window lies around the last match, not around a guess that failed.
        ask.shift = shifts.current;
        return Closer::Signature;
    }
    if ask.shift == shifts.current {
        return Closer::Pages { leaves };
    }
    ask.shift = shifts.current;
    Closer::Pages { leaves: Leaves::MAX }
}

fn park(large: &Arc<Large>, mut ask: Ask, leaves: Leaves, schedule: &super::Schedule<'_>) {
    let mut pass = large.pass();
    if pass.shifts.is_searching {
        ask.has_guessed = false;
        pass.shifts.parked.push((ask, leaves));
        return;
    }
    drop(pass);
    schedule.push(Task::Refine { large: Arc::clone(large), ask, leaves });
}

pub(super) fn read_up_to(file: &File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut content = vec![0; len];
    let mut done = 0;
    while done < len {
        match drover_linux::file::read_at(file, &mut content[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    content.truncate(done);
    Ok(content)
}
