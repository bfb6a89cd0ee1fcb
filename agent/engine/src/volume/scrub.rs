//! Scrub: the content of a block volume is read again, a slice at a time, and compared with the digests of its leaves. What
//! differs although nobody should have written there is rot or a foreign write, and is told by its offset.
//!
//! A slice works beside whatever else goes on: it changes nothing of the volume, and what it read counts only when the volume
//! is at the same point afterwards and its content has the same times.

use std::{
    io,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use drover_linux::{WINDOW_NAME, file};
use serde::{Deserialize, Serialize};

use super::{Volume, VolumeError, lock, unix_now};
use crate::{
    content::{LEAF_BYTES, merged},
    control::Control,
    digest::Digest,
    hash::read_padded,
    index::{Index, Local},
    leaves::{LeafFile, NODE_BYTES},
    path::RelPath,
    point::Role,
    record::{self, RecordKind},
    transaction::load_manifest,
    tree::Body,
};

const NAME: &[u8] = b"scrub";
const RECORD: RecordKind = RecordKind { magic: *b"DRVB", version: 1 };
/// Ranges that are remembered.
const DAMAGED_MAX: usize = 256;

/// How far the scrub of a volume is; kept beside it, as a cache.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubState {
    /// Where the next slice begins.
    pub offset: u64,
    /// When the pass began, and when the last whole one ended; seconds since 1970.
    pub begun_at: i64,
    pub passed_at: Option<i64>,
    /// What differs from the point, in order, in steps of a leaf: as the last whole pass found it, and this one so far.
    pub damaged: Vec<Range<u64>>,
    /// By this pass alone.
    found: Vec<Range<u64>>,
}

impl ScrubState {
    pub fn damaged_bytes(&self) -> u64 {
        self.damaged.iter().map(|range| range.end - range.start).sum()
    }
}

/// What one slice did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scrubbed {
    /// So many bytes were read; `is_news`: something is damaged that was not known to be.
    Read { bytes: u64, is_news: bool },
    /// There is nothing to compare with, the content is being written, or the pass is not due to go on yet.
    Nothing,
}

/// The leaves are proved once and not for each slice.
#[derive(Debug, Default)]
pub(super) struct Scrubber(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    state: Option<ScrubState>,
    leaves: Option<(Digest, Arc<LeafFile>)>,
}

/// What the content should be, and how the index knows it.
struct Told {
    body: Body,
    local: Local,
    transaction: u64,
}

impl Volume {
    /// Block volumes only.
    pub fn scrub_state(&self) -> Option<ScrubState> {
        if !self.state().kind.is_block() {
            return None;
        }
        let mut known = self.scrubber.0.lock().unwrap_or_else(PoisonError::into_inner);
        let state = known.state.get_or_insert_with(|| self.stored_scrub()).clone();
        Some(state)
    }

    fn stored_scrub(&self) -> ScrubState {
        let stored = record::load(&self.beside, NAME, RECORD).ok().flatten();
        stored.and_then(|(_, payload)| serde_json::from_slice(&payload).ok()).unwrap_or_default()
    }

    /// Reads up to `bytes` where the last slice ended, if a pass that takes `pass_secs` is not ahead of its time.
    pub fn scrub(&self, bytes: u64, pass_secs: u64, control: &Control) -> Result<Scrubbed, VolumeError> {
        let storage = |source| VolumeError::Storage { volume: self.id, source };
        let (Some(mut state), Some(told)) = (self.scrub_state(), self.told()) else { return Ok(Scrubbed::Nothing) };
        let now = unix_now();
        if !is_due(&mut state, told.body.size, pass_secs, now) {
            return Ok(Scrubbed::Nothing);
        }
        let Some(leaves) = self.proved_leaves(&told.body).map_err(storage)? else { return Ok(Scrubbed::Nothing) };
        let end = (state.offset + bytes.max(NODE_BYTES)).min(told.body.size);
        let range = state.offset..end / LEAF_BYTES as u64 * LEAF_BYTES as u64;
        let range = if end == told.body.size { range.start..end } else { range };
        let Some(damaged) = self.differing(&told, &leaves, range.clone(), control).map_err(storage)? else {
            return Ok(Scrubbed::Nothing);
        };
        let is_news = damaged.iter().any(|range| !state.damaged.iter().any(|known| known.contains(&range.start)));
        state.found = joined(state.found, &damaged);
        state.offset = range.end;
        if range.end == told.body.size {
            state.passed_at = Some(now);
            state.damaged = std::mem::take(&mut state.found);
        } else {
            state.damaged = joined(state.damaged, &state.found);
        }
        self.keep_scrub(state).map_err(storage)?;
        Ok(Scrubbed::Read { bytes: range.end - range.start, is_news })
    }

    /// Whether a scan of this copy is to read all of it, so that a sync repairs what a scrub found. A primary's is not: what
    /// rots there must not become a point.
    pub(super) fn is_to_be_read(&self) -> bool {
        self.state().role == Role::Secondary && self.scrub_state().is_some_and(|state| !state.damaged.is_empty())
    }

    fn keep_scrub(&self, state: ScrubState) -> io::Result<()> {
        let mut known = self.scrubber.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Nothing is written into a directory that is about to go.
        if !self.has_ended() {
            record::replace_cache(&self.beside, NAME, RECORD, &serde_json::to_vec(&state)?)?;
        }
        known.state = Some(state);
        Ok(())
    }

    /// All of the content was read since: whatever differs from the point is known to the index.
    pub(super) fn forget_damage(&self) {
        let Some(state) = self.scrub_state().filter(|state| !state.damaged.is_empty()) else { return };
        let state = ScrubState { damaged: Vec::new(), found: Vec::new(), ..state };
        if let Err(error) = self.keep_scrub(state) {
            tracing::warn!(volume = %self.id, %error, "what a scrub found is read again by the next sync as well");
        }
    }

    /// Waits for a record that is being written; after `ended` is set there will be none.
    pub(super) fn end_scrub(&self) {
        drop(self.scrubber.0.lock());
    }

    fn told(&self) -> Option<Told> {
        let (path, state) = (RelPath::new(WINDOW_NAME).ok()?, self.state());
        let index = Index::load(&self.beside, b"index")?;
        let manifest = match state.role {
            Role::Primary => index.manifest.clone(),
            Role::Secondary => load_manifest(self, state.current_point()?).ok()?,
        };
        let (body, local) = (*manifest.find(&path)?.node.body()?, *index.local(&path)?);
        Some(Told { body, local, transaction: state.transaction })
    }

    fn proved_leaves(&self, body: &Body) -> io::Result<Option<Arc<LeafFile>>> {
        let known = |leaves: &Option<(Digest, Arc<LeafFile>)>| {
            leaves.as_ref().filter(|(digest, _)| *digest == body.digest).map(|(_, leaves)| Arc::clone(leaves))
        };
        if let Some(leaves) = known(&self.scrubber.0.lock().unwrap_or_else(PoisonError::into_inner).leaves) {
            return Ok(Some(leaves));
        }
        let leaves = self.bases.leaves_of(&body.digest, body.size)?.map(Arc::new);
        let kept = leaves.clone().map(|leaves| (body.digest, leaves));
        self.scrubber.0.lock().unwrap_or_else(PoisonError::into_inner).leaves = kept;
        Ok(leaves)
    }

    /// Leaves of a range that are not what they should be; `None` when that can't be told, because the content moved.
    fn differing(
        &self,
        told: &Told,
        leaves: &LeafFile,
        range: Range<u64>,
        control: &Control,
    ) -> io::Result<Option<Vec<Range<u64>>>> {
        if !self.is_at_rest(told) {
            // To open it would take a commit's lease away.
            return Ok(None);
        }
        let live = self.live.open_file(WINDOW_NAME)?;
        // A primary is written to by its users: only while the index vouches for it there is something to compare.
        let is_replica = self.state().role == Role::Secondary;
        let holds = || -> io::Result<bool> {
            let stat = self.live.stat(WINDOW_NAME)?;
            let is_told = (stat.id, stat.ctime, stat.size) == (told.local.id, told.local.ctime, told.body.size);
            Ok(stat.size == told.body.size && (is_replica || is_told) && self.is_at_rest(told))
        };
        if !holds()? {
            return Ok(None);
        }
        // From the disk, not from memory.
        file::drop_cache_of(&live, range.start, range.end - range.start)?;
        let mut damaged = Vec::new();
        let mut buffer = vec![0; LEAF_BYTES];
        let mut at = range.start;
        while at < range.end {
            control.check().map_err(io::Error::other)?;
            let node_end = ((at / NODE_BYTES + 1) * NODE_BYTES).min(range.end);
            for digest in leaves.range(at, (node_end - at) as usize)? {
                let end = (at + LEAF_BYTES as u64).min(told.body.size);
                let leaf = &mut buffer[..(end - at) as usize];
                read_padded(&live, leaf, at)?;
                if Digest::of(leaf) != digest {
                    damaged.push(at..end);
                }
                at = end;
            }
        }
        Ok(holds()?.then_some(damaged))
    }

    /// The content that the index told of is still the one that the volume has, and nothing is about to change it.
    fn is_at_rest(&self, told: &Told) -> bool {
        lock(&self.busy).is_none() && self.state().transaction == told.transaction
    }
}

/// No more than are remembered.
fn joined(some: Vec<Range<u64>>, more: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut joined = merged([&some[..], more].concat());
    joined.truncate(DAMAGED_MAX);
    joined
}

/// A pass is spread evenly over its time, and the next one begins when that is over.
fn is_due(state: &mut ScrubState, size: u64, pass_secs: u64, now: i64) -> bool {
    let elapsed = u64::try_from(now.saturating_sub(state.begun_at)).unwrap_or(0);
    if state.begun_at == 0 || (state.offset >= size && elapsed >= pass_secs) {
        (state.begun_at, state.offset) = (now, 0);
        state.found = Vec::new();
        return true;
    }
    let is_behind = u128::from(state.offset) * u128::from(pass_secs) <= u128::from(size) * u128::from(elapsed);
    state.offset < size && is_behind
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_takes_its_time_and_the_next_one_waits_for_it() {
        const SIZE: u64 = 1000;
        let mut state = ScrubState::default();
        let mut read = Vec::new();
        for now in 1..=250 {
            if is_due(&mut state, SIZE, 100, now) {
                read.push((now, state.offset));
                state.offset += 100;
            }
        }
        let begins: Vec<i64> = read.iter().filter(|(_, offset)| *offset == 0).map(|(now, _)| *now).collect();
        assert_eq!(begins, [1, 101, 201]);
        assert_eq!(read[..3], [(1, 0), (11, 100), (21, 200)]);
    }
}
