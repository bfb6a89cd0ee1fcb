//! Proving what was staged, and what to do when it is not what was wanted.

use std::{
    io,
    sync::{Arc, PoisonError},
};

use super::{
    Fetched, Sink,
    dest::Dest,
    large::{Large, Target, Trust},
    schedule::{Asked, Key, Slot},
};
use crate::{
    fault,
    hash::{PLAIN_BYTES_MAX, hash_content, hash_keeping},
    patch::{Patch, REDO},
    record,
    session::body::{BodyError, BodyMessage, Changed, SMALL_BYTES_MAX, Settled},
    tree::Body,
};

/// Walks over one big file: the first, and one after each recheck.
const PASSES_MAX: u32 = 4;
const PASSES_MOVING_MAX: u32 = 2;

impl Sink<'_> {
    /// All of the file is staged: hashes it, because what is recorded must be what is on the disk.
    pub(super) fn prove(&self, large: &Arc<Large>) -> Result<(), BodyError> {
        let (target, passes, trust) = {
            let pass = large.pass();
            (pass.target.clone(), pass.number, pass.trust)
        };
        let proved = fault::hit("stage.file").and_then(|()| self.staged_body(large, &target.body));
        let staged = proved.map_err(self.stage_error(large.id))?;
        let wanted = &self.fetch(large.id).body;
        if staged.digest == target.body.digest {
            self.settle(large, &staged).map_err(self.stage_error(large.id))?;
            self.take_base(large, &staged);
            return self.close(large, target.fetched(wanted));
        }
        // One more look at a file that is written to all the time would find it changed once more.
        let is_moving = matches!(target.found, Some((_, Settled::Moving)));
        if passes < if is_moving { PASSES_MOVING_MAX } else { PASSES_MAX } {
            self.schedule.recheck(large.id, Some(Arc::clone(large)));
            return Ok(());
        }
        match target.found {
            // It was written to all the time: what is staged is what is recorded, and it is named.
            Some((meta, _)) if trust != Trust::Nothing => {
                self.settle(large, &staged).map_err(self.stage_error(large.id))?;
                self.take_base(large, &staged);
                self.close(large, Fetched::Changed { meta, body: staged, settled: Settled::Moving })
            }
            Some(_) | None => {
                let path = self.fetch(large.id).path.clone();
                Err(BodyError::Mismatch { path, expected: target.body.digest, actual: staged.digest })
            }
        }
    }

    /// What is staged saves the next sync work.
    fn take_base(&self, large: &Large, staged: &Body) {
        let new =
            large.leaves.as_ref().and_then(|proof| proof.new.lock().unwrap_or_else(PoisonError::into_inner).take());
        let Some((bases, new)) = self.bases.zip(new).filter(|_| staged.size > PLAIN_BYTES_MAX) else { return };
        let content = match &large.dest {
            Dest::File { file, .. } => Some(file),
            Dest::Overlay(_) | Dest::Device { .. } => None,
        };
        if let Err(error) = bases.take(content, new, &staged.digest, &self.control().bases) {
            tracing::warn!(%error, "no base of a big file is kept: its next change is found by reading it");
        }
    }

    /// Leaves were hashed as they came. Where they don't make what is wanted, and of smaller files, all is read: a part
    /// may have been taken from a file that another process changed.
    fn staged_body(&self, large: &Large, wanted: &Body) -> io::Result<Body> {
        let (size, control) = (wanted.size, self.quiet());
        match &large.leaves {
            Some(proof) if size > PLAIN_BYTES_MAX => match proof.file.digest()? == wanted.digest {
                true => Ok(*wanted),
                false => hash_keeping(&large.dest, &large.dest, size, &proof.file, &control),
            },
            _ => hash_content(&large.dest, size, &control),
        }
    }

    /// What the commit needs besides the staged file, which it syncs with all others.
    fn settle(&self, large: &Large, body: &Body) -> io::Result<()> {
        match &large.dest {
            Dest::File { .. } => Ok(()),
            Dest::Device { device, .. } => record::sync_file(device),
            Dest::Overlay(overlay) => {
                let from = self.fetch(large.id).base_body.as_ref().ok_or(io::ErrorKind::InvalidData)?;
                let patch = Patch { from: from.into(), to: body.into(), covered: overlay.to_covered() };
                patch.store(self.patches, REDO)
            }
        }
    }

    fn close(&self, large: &Large, fetched: Fetched) -> Result<(), BodyError> {
        self.schedule.large_closed();
        self.finish(vec![(large.id, fetched)], 0);
        Ok(())
    }

    pub(super) fn ask_recheck(&self, id: u32, large: Option<Arc<Large>>, slot: Slot) -> Result<(), BodyError> {
        let body = large.as_ref().map_or(self.fetch(id).body, |large| large.pass().target.body);
        let want = self.want(id, body);
        self.request(Key::Recheck(id), Asked::Recheck { large, slot }, BodyMessage::Recheck(want))
    }

    pub(super) fn changed(&self, large: Option<Arc<Large>>, slot: Slot, changed: Changed) -> Result<(), BodyError> {
        let Changed { id, meta, body, settled, content } = changed;
        let mut target = Target { body, found: Some((meta, settled)) };
        match (content, large) {
            (Some(parts), large) => {
                let path = &self.fetch(id).path;
                let length: u64 = parts.iter().map(crate::content::Part::len).sum();
                if length != body.size || !self.store_whole(id, &body, &parts)? {
                    return Err(BodyError::WrongAnswer { path: path.clone() });
                }
                let is_counted = large.is_some();
                if is_counted {
                    self.schedule.large_closed();
                }
                let bytes = if is_counted { 0 } else { self.fetch(id).body.size };
                self.finish(vec![(id, target.fetched(&self.fetch(id).body))], bytes);
            }
            (None, None) if body.size > SMALL_BYTES_MAX => self.schedule.grown(id, target),
            (None, None) => {
                return Err(BodyError::WrongAnswer { path: self.fetch(id).path.clone() });
            }
            (None, Some(large)) => {
                let (trust, last) = {
                    let pass = large.pass();
                    (pass.trust, pass.target.clone())
                };
                let is_same = is_same(&last.body, &body) && settled == Settled::Still;
                if is_same {
                    target = last;
                }
                let trust = if is_same { less(trust) } else { trust };
                large.again(target, trust).map_err(self.stage_error(id))?;
                self.schedule.ready(large);
            }
        }
        self.schedule.release(slot);
        Ok(())
    }

    pub(super) fn gone(&self, id: u32, large: Option<&Large>, slot: Slot) -> Result<(), BodyError> {
        match large {
            Some(large) => self.discard(large)?,
            None => self.finish_whole(vec![(id, Fetched::Gone)]),
        }
        self.schedule.release(slot);
        Ok(())
    }
}

fn is_same(one: &Body, other: &Body) -> bool {
    (one.size, one.digest) == (other.size, other.digest)
}

/// The source held still and yet the content came out wrong: two short digests may have met, or the base has changed.
fn less(trust: Trust) -> Trust {
    match trust {
        Trust::Pages => Trust::Leaves,
        Trust::Leaves | Trust::Nothing => Trust::Nothing,
    }
}
