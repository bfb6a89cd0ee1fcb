//! What is kept of a big file's last content, so that the next sync's work follows the change and not the size.
//!
//! ```text
//! bases/<digest>.leaves   digests of the content's leaves (`leaves`)
//! bases/<digest>.clone    the content itself on XFS and btrfs: it shares its blocks with the file that it was cloned
//!                         from, and nobody writes to it
//! bases/pages             of a block volume that is read as a whole: chaining values of its pages (`pages`)
//! bases/new-<number>      being made
//! ```
//! All of it is a cache: whatever is missing or does not fit is read anew. A clone pins its blocks, so that overwriting
//! a full image needs new ones and scatters it: beyond limits there is none, and content is found by its digests.
//!
//! A clone is also an instant: what is told of a file that is written to all the time is what a clone of it holds, and
//! never mixes two states.

use std::{
    collections::{BTreeMap, HashSet},
    fs::File,
    io,
    ops::Range,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use drover_linux::{Dir, Extents, FilesystemType, Time, file};
use serde::{Deserialize, Serialize};

use crate::{
    beside::subdirectory,
    content::{self, LEAF_BYTES, extents},
    control::Control,
    digest::Digest,
    hash::{PLAIN_BYTES_MAX, allocated, hash_changed, hash_file, hash_filling, hash_keeping, hole_fingerprint},
    leaves::{LeafFile, NODE_BYTES},
    pages::{Filling, PageFile},
    scan::CLOCK_STEP,
    tree::Body,
};

/// Smaller files are read faster than their bases are managed.
pub(crate) const BASE_BYTES_MIN: u64 = 4 << 20;
/// Of a file that is worth cloning, on average, where it could be patched; and a number of extents that cost nothing.
const EXTENT_BYTES_MIN: u64 = 512 << 10;
const EXTENTS_FEW: u32 = 500;
const PAGES: &[u8] = b"pages";
/// Deltas that are remembered: those of the last few big files of a scan are asked for soon.
const DELTAS_MAX: usize = 256;

/// When a clone costs more than it saves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BaseLimits {
    /// Cloning and comparing take about 25 microseconds an extent.
    pub extents_max: u32,
    /// Of the file system, that stays free of what clones pin.
    pub free_percent_min: u8,
}

impl Default for BaseLimits {
    fn default() -> Self {
        Self { extents_max: 50_000, free_percent_min: 5 }
    }
}

/// How the change of a file was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FoundBy {
    /// Extent maps of two frozen clones: only what changed was read.
    ExtentMap,
    /// All of it was read, as a frozen clone has it.
    ReadFrozen,
    /// All of the live file was read.
    ReadLive,
    /// What had to be read was read from a snapshot that a command made.
    Snapshot,
}

/// Number of files.
pub type FoundByCounts = BTreeMap<FoundBy, u64>;

impl FoundBy {
    /// Whatever happens to the file meanwhile, what was read is one instant of it.
    pub fn is_frozen(self) -> bool {
        self != Self::ReadLive
    }
}

#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) body: Body,
    pub(crate) found_by: FoundBy,
}

/// What of one content differs from another one.
#[derive(Debug)]
pub(crate) enum Delta {
    /// All that may differ, byte by byte.
    Ranges(Vec<Range<u64>>),
    /// By the digests of leaves.
    Leaves { old: LeafFile, new: LeafFile },
}

impl Delta {
    /// That differ at most.
    pub(crate) fn bytes(&self) -> io::Result<u64> {
        match self {
            Self::Ranges(ranges) => Ok(ranges.iter().map(|range| range.end - range.start).sum()),
            Self::Leaves { old, new } => {
                let mut bytes = 0;
                for at in (0..new.size()).step_by(NODE_BYTES as usize) {
                    let of = |leaves: &LeafFile| leaves.range(at, NODE_BYTES as usize);
                    let (old, new) = (of(old)?, of(new)?);
                    bytes += (0..new.len()).filter(|n| old.get(*n) != new.get(*n)).count() as u64 * LEAF_BYTES as u64;
                }
                Ok(bytes)
            }
        }
    }
}

type KnownDelta = ((Digest, Digest), Arc<Delta>);

#[derive(Debug)]
pub struct Bases {
    dir: Dir,
    /// R10: by type, since others have reflinks whose extent maps mean something else.
    has_maps: bool,
    can_clone: OnceLock<bool>,
    /// Of a replica's block volume, which can be patched where clones cost more.
    is_patched: AtomicBool,
    pages: Mutex<Option<Arc<PageFile>>>,
    next: AtomicU64,
    deltas: Mutex<Vec<KnownDelta>>,
}

impl Bases {
    /// `is_device`: what they are of is no file, of which there could be clones.
    pub(crate) fn open(volume: &Dir, is_device: bool) -> io::Result<Self> {
        let dir = subdirectory(volume, b"bases")?;
        let has_maps = !is_device && matches!(dir.filesystem()?, FilesystemType::Xfs | FilesystemType::Btrfs);
        for (name, _) in dir.list()? {
            if name.starts_with(b"new-") {
                dir.unlink(&name)?;
            }
        }
        let can_clone = if is_device { OnceLock::from(false) } else { OnceLock::new() };
        Ok(Self {
            dir,
            has_maps,
            can_clone,
            is_patched: AtomicBool::new(false),
            pages: Mutex::default(),
            next: AtomicU64::new(0),
            deltas: Mutex::default(),
        })
    }

    /// Digest of a big file, frozen first where that can be; `before` is what it held at the last look.
    pub(crate) fn read(&self, live: &File, size: u64, before: Option<Digest>, control: &Control) -> io::Result<Read> {
        match self.read_keeping(live, size, before, control) {
            // Bases save work; a file can be read without them.
            Err(error) if is_without_room(&error) => {
                tracing::warn!(%error, "no base of a big file can be kept: it is read as a whole");
                Ok(Read { body: hash_file(live, size, control)?, found_by: FoundBy::ReadLive })
            }
            read => read,
        }
    }

    fn read_keeping(&self, live: &File, size: u64, before: Option<Digest>, control: &Control) -> io::Result<Read> {
        let Some(frozen) = self.freeze(live, &control.bases)? else {
            if let Some(before) = before {
                unlink(&self.dir, &clone_name(&before))?;
            }
            let (leaves, keeping) = self.make_leaves(size)?;
            let filling = self.filling(before, size, &control.bases)?;
            let body = hash_filling(live, size, &keeping, filling.as_ref(), control)?;
            leaves.keep(&leaves_name(&body.digest))?;
            return Ok(Read { body, found_by: FoundBy::ReadLive });
        };
        if let Some(pages) = self.pages() {
            pages.clear()?;
        }
        let size = file::stat(&frozen.file)?.size;
        if size <= PLAIN_BYTES_MAX {
            return Ok(Read { body: hash_file(&frozen.file, size, control)?, found_by: FoundBy::ReadFrozen });
        }
        let frozen = match before {
            Some(before) => match self.read_changed(live, frozen, before, control)? {
                Ok(body) => return Ok(Read { body, found_by: FoundBy::ExtentMap }),
                Err(frozen) => frozen,
            },
            None => frozen,
        };
        let (leaves, keeping) = self.make_leaves(size)?;
        let map = frozen.file.try_clone()?;
        let read = |file: &File| hash_keeping(file, &map, size, &keeping, control);
        let (frozen, body, _) = self.read_warm(live, frozen, &keeping, control, read)?;
        self.keep(&body, leaves, frozen)?;
        Ok(Read { body, found_by: FoundBy::ReadFrozen })
    }

    /// Whether what is known of pages is kept: of the one big file of a block volume that is the source. Where maps tell what changed
    /// nothing is filled in; it is when they end (`BaseLimits`).
    pub(crate) fn set_pages(&self, are_kept: bool) -> io::Result<()> {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        if !are_kept {
            *pages = None;
            unlink(&self.dir, PAGES)?;
        } else if pages.is_none() {
            let file = match self.dir.open_write(PAGES) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.dir.create_file(PAGES, 0o600)?,
                opened => opened?,
            };
            *pages = Some(Arc::new(PageFile::new(file)));
        }
        Ok(())
    }

    pub(crate) fn pages(&self) -> Option<Arc<PageFile>> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Not in the room that clones were dropped to keep free.
    fn filling(&self, before: Option<Digest>, size: u64, limits: &BaseLimits) -> io::Result<Option<Filling>> {
        let Some((pages, before)) = self.pages().zip(before) else { return Ok(None) };
        if !self.has_reserve(limits)? {
            pages.clear()?;
            return Ok(None);
        }
        Ok(self.leaves_of(&before, size)?.map(|before| Filling { pages, before }))
    }

    fn has_reserve(&self, limits: &BaseLimits) -> io::Result<bool> {
        let space = self.dir.space()?;
        Ok(space.free_bytes >= space.total_bytes / 100 * u64::from(limits.free_percent_min))
    }

    /// Gives the clone back when there is no base that could tell.
    fn read_changed(
        &self,
        live: &File,
        frozen: New,
        before: Digest,
        control: &Control,
    ) -> io::Result<Result<Body, New>> {
        let Some(base) = self.clone_of(&before)? else { return Ok(Err(frozen)) };
        let (old_size, size) = (file::stat(&base)?.size, file::stat(&frozen.file)?.size);
        let Some(old_leaves) = self.leaves_of(&before, old_size)? else { return Ok(Err(frozen)) };
        let Some(changed) = changed(&base, &frozen.file, old_size, size, control)? else { return Ok(Err(frozen)) };
        if changed.is_empty() && size == old_size {
            return Ok(Ok(Body { size, digest: before, holes: holes_of(&frozen.file, size)? }));
        }
        let (leaves, keeping) = self.copy_leaves(&old_leaves)?;
        let map = frozen.file.try_clone()?;
        let read = |file: &File| hash_changed(file, &map, size, &changed, &keeping, control);
        let (frozen, body, moved) = self.read_warm(live, frozen, &keeping, control, read)?;
        if body.digest != before {
            self.keep(&body, leaves, frozen)?;
            self.remember((before, body.digest), Delta::Ranges(content::merged([changed, moved].concat())));
        }
        Ok(Ok(body))
    }

    /// Reads a file and not its clone, because the file is often in the page cache and its clone never is. What was
    /// written meanwhile differs between that clone and another one, and is read again, from the latter (R10). No other one is
    /// needed when nothing was written (`New::is_of`). Returns the clone that the body is of, and what was read again.
    fn read_warm(
        &self,
        live: &File,
        first: New,
        leaves: &LeafFile,
        control: &Control,
        read: impl Fn(&File) -> io::Result<Body>,
    ) -> io::Result<(New, Body, Vec<Range<u64>>)> {
        let early = read(live)?;
        if first.is_of(live)? {
            return Ok((first, early, Vec::new()));
        }
        if let Some(second) = self.clone_now(live)? {
            let (old_size, size) = (file::stat(&first.file)?.size, file::stat(&second.file)?.size);
            if let Some(moved) = changed(&first.file, &second.file, old_size, size, control)? {
                let body = match size {
                    ..=PLAIN_BYTES_MAX => hash_file(&second.file, size, control)?,
                    _ if moved.is_empty() && size == old_size => Body { holes: holes_of(&second.file, size)?, ..early },
                    _ => hash_changed(&second.file, &second.file, size, &moved, leaves, control)?,
                };
                return Ok((second, body, moved));
            }
        }
        let body = read(&first.file)?;
        Ok((first, body, Vec::new()))
    }

    /// Content with a plain digest has no base.
    fn keep(&self, body: &Body, leaves: New, frozen: New) -> io::Result<()> {
        if body.size <= PLAIN_BYTES_MAX {
            return Ok(());
        }
        leaves.keep(&leaves_name(&body.digest))?;
        frozen.keep(&clone_name(&body.digest))
    }

    /// A clone of the file as it is now; `None` where there can be none, or where it would cost too much.
    fn freeze(&self, live: &File, limits: &BaseLimits) -> io::Result<Option<New>> {
        if !self.has_maps || !self.may_clone(live, limits)? {
            return Ok(None);
        }
        self.clone_now(live)
    }

    fn clone_now(&self, live: &File) -> io::Result<Option<New>> {
        let mut new = self.make()?;
        new.live_ctime = Some(file::stat(live)?.ctime);
        match file::reflink(live, &new.file) {
            Ok(true) => Ok(Some(new)),
            Ok(false) => Ok(None),
            Err(error) if is_without_room(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether a copy that shares all blocks is to be had, for which `limits` are wide enough.
    pub(crate) fn is_cheaply_cloned(&self, live: &File, limits: &BaseLimits) -> io::Result<bool> {
        if !self.can_clone()? {
            return Ok(false);
        }
        match Extents::count(live) {
            Ok(extents) => Ok(extents <= self.extents_max(live, limits)?),
            Err(_) if !self.has_maps => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// A replica that can be patched is not cloned where reading all of it costs less: each extent costs about 150 microseconds in the
    /// clones of a sync, their deletion and the copies on write that follow, in which 512 KiB are read.
    fn extents_max(&self, live: &File, limits: &BaseLimits) -> io::Result<u32> {
        if !self.is_patched.load(Ordering::Relaxed) {
            return Ok(limits.extents_max);
        }
        let by_size = file::stat(live)?.size / EXTENT_BYTES_MIN;
        Ok(limits.extents_max.min(u32::try_from(by_size).unwrap_or(u32::MAX).max(EXTENTS_FEW)))
    }

    pub(crate) fn set_patched(&self, is_patched: bool) {
        self.is_patched.store(is_patched, Ordering::Relaxed);
    }

    /// Asked by trying: XFS can be made without.
    fn can_clone(&self) -> io::Result<bool> {
        if let Some(known) = self.can_clone.get() {
            return Ok(*known);
        }
        let (from, to) = (self.make()?, self.make()?);
        let can = file::reflink(&from.file, &to.file)?;
        Ok(*self.can_clone.get_or_init(|| can))
    }

    fn may_clone(&self, live: &File, limits: &BaseLimits) -> io::Result<bool> {
        if !self.has_reserve(limits)? {
            tracing::warn!(
                free_percent_min = limits.free_percent_min,
                "little space is free: clones of big files are dropped, and their change is found by their digests"
            );
            // What is pinned is given back; clones come again when there is room.
            self.drop_clones()?;
            return Ok(false);
        }
        let (extents, extents_max) = (Extents::count(live)?, self.extents_max(live, limits)?);
        if extents > extents_max {
            tracing::warn!(
                extents,
                extents_max,
                "a big file is too scattered to be cloned: its digests tell its change"
            );
        }
        Ok(extents <= extents_max)
    }

    fn drop_clones(&self) -> io::Result<()> {
        for (name, _) in self.dir.list()? {
            if name.ends_with(b".clone") {
                unlink(&self.dir, &name)?;
            }
        }
        Ok(())
    }

    /// The content itself, to be read only.
    pub(crate) fn clone_of(&self, digest: &Digest) -> io::Result<Option<File>> {
        if self.has_maps { self.dir.open_file_if_there(&clone_name(digest)) } else { Ok(None) }
    }

    /// Proved: they make the digest that they are asked for by.
    pub(crate) fn leaves_of(&self, digest: &Digest, size: u64) -> io::Result<Option<LeafFile>> {
        let Some(file) = self.dir.open_file_if_there(&leaves_name(digest))? else { return Ok(None) };
        // The size may be the other side's.
        if file::stat(&file)?.size != LeafFile::bytes(size) {
            return Ok(None);
        }
        let leaves = LeafFile::new(file, size);
        Ok((leaves.digest()? == *digest).then_some(leaves))
    }

    /// Of the content `new` against `old`; `None` when one of them is not known any more.
    pub(crate) fn delta(
        &self,
        (old, old_size): (&Digest, u64),
        (new, new_size): (&Digest, u64),
        control: &Control,
    ) -> io::Result<Option<Arc<Delta>>> {
        let key = (*old, *new);
        if let Some((_, delta)) = self.deltas().iter().find(|(known, _)| *known == key) {
            return Ok(Some(Arc::clone(delta)));
        }
        // Sizes come from the other side.
        if let (Some(from), Some(to)) = (self.clone_of(old)?, self.clone_of(new)?)
            && file::stat(&from)?.size == old_size
            && file::stat(&to)?.size == new_size
            && let Some(changed) = changed(&from, &to, old_size, new_size, control)?
        {
            return Ok(Some(self.remember(key, Delta::Ranges(changed))));
        }
        match (self.leaves_of(old, old_size)?, self.leaves_of(new, new_size)?) {
            (Some(old), Some(new)) => Ok(Some(self.remember(key, Delta::Leaves { old, new }))),
            _ => Ok(None),
        }
    }

    fn remember(&self, key: (Digest, Digest), delta: Delta) -> Arc<Delta> {
        let delta = Arc::new(delta);
        let mut deltas = self.deltas();
        deltas.retain(|(known, _)| *known != key);
        if deltas.len() >= DELTAS_MAX {
            deltas.remove(0);
        }
        deltas.push((key, Arc::clone(&delta)));
        delta
    }

    fn deltas(&self) -> std::sync::MutexGuard<'_, Vec<KnownDelta>> {
        self.deltas.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the leaves of content that is read anew.
    pub(crate) fn make_leaves(&self, size: u64) -> io::Result<(New, LeafFile)> {
        let new = self.make()?;
        let file = LeafFile::new(new.file.try_clone()?, size);
        Ok((new, file))
    }

    /// For the leaves of content that is mostly another one's.
    pub(crate) fn copy_leaves(&self, of: &LeafFile) -> io::Result<(New, LeafFile)> {
        let (new, copy) = self.make_leaves(of.size())?;
        file::copy_content(of.file(), &new.file, LeafFile::bytes(of.size()))?;
        Ok((new, copy))
    }

    fn make(&self) -> io::Result<New> {
        let name = format!("new-{}", self.next.fetch_add(1, Ordering::Relaxed)).into_bytes();
        let file = self.dir.create_file(&name, 0o600)?;
        Ok(New { dir: self.dir.try_clone()?, file, name, is_kept: false, live_ctime: None })
    }

    /// Takes in a content that is complete: its leaves, and a clone of it where that can be.
    pub(crate) fn take(
        &self,
        content: Option<&File>,
        leaves: New,
        digest: &Digest,
        limits: &BaseLimits,
    ) -> io::Result<()> {
        leaves.keep(&leaves_name(digest))?;
        match content.map_or(Ok(None), |content| self.freeze(content, limits))? {
            Some(frozen) => frozen.keep(&clone_name(digest)),
            None => Ok(()),
        }
    }

    /// A content that turned out to be something else.
    pub(crate) fn forget(&self, digest: &Digest) -> io::Result<()> {
        self.deltas().clear();
        unlink(&self.dir, &clone_name(digest))?;
        unlink(&self.dir, &leaves_name(digest))
    }

    pub(crate) fn is_empty(&self) -> io::Result<bool> {
        Ok(self.dir.list()?.is_empty())
    }

    /// Everything else is given back.
    pub(crate) fn keep_only(&self, wanted: &HashSet<Digest>) -> io::Result<()> {
        self.deltas().retain(|((old, new), _)| wanted.contains(old) && wanted.contains(new));
        for (name, _) in self.dir.list()? {
            let text = std::str::from_utf8(&name).ok();
            let digest = text.and_then(|text| text.split_once('.')?.0.parse::<Digest>().ok());
            if name != PAGES && !digest.is_some_and(|digest| wanted.contains(&digest)) {
                unlink(&self.dir, &name)?;
            }
        }
        Ok(())
    }
}

/// `None` when there are too many extents.
fn changed(old: &File, new: &File, old_size: u64, size: u64, control: &Control) -> io::Result<Option<Vec<Range<u64>>>> {
    let (of_old, of_new) = (Extents::synced(old, 0..u64::MAX), Extents::synced(new, 0..u64::MAX));
    let limit = control.bases.extents_max as usize;
    let Ok(changed) = extents::differing(of_old, of_new, size, limit)? else { return Ok(None) };
    Ok(Some(with_tail(changed, old_size, size)))
}

/// The ranges that differ once a file has another size: what lies behind the end of a file is in its last block as well,
/// and its last leaf has another length.
fn with_tail(mut changed: Vec<Range<u64>>, old_size: u64, size: u64) -> Vec<Range<u64>> {
    if old_size == size {
        return changed;
    }
    let tail = old_size.min(size) / LEAF_BYTES as u64 * LEAF_BYTES as u64;
    changed.retain(|range| range.start < tail);
    if let Some(last) = changed.last_mut() {
        last.end = last.end.min(tail);
    }
    changed.push(tail..size.max(old_size));
    changed
}

/// No space, nothing may be written, or (an active swap file) nothing may be cloned.
pub(crate) fn is_without_room(error: &io::Error) -> bool {
    use io::ErrorKind::{ExecutableFileBusy, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem | ExecutableFileBusy)
}

pub(crate) fn holes_of(file: &File, size: u64) -> io::Result<u64> {
    Ok(hole_fingerprint(&allocated(file, size)?, size))
}

fn clone_name(digest: &Digest) -> Vec<u8> {
    format!("{digest}.clone").into_bytes()
}

fn leaves_name(digest: &Digest) -> Vec<u8> {
    format!("{digest}.leaves").into_bytes()
}

fn unlink(dir: &Dir, name: &[u8]) -> io::Result<()> {
    match dir.unlink(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A base being made; gone when it is dropped before it is kept.
#[derive(Debug)]
pub(crate) struct New {
    dir: Dir,
    pub(crate) file: File,
    name: Vec<u8>,
    is_kept: bool,
    /// Of the file that it is a clone of, before it was cloned.
    live_ctime: Option<Time>,
}

impl New {
    /// Whether the file that this is a clone of holds what the clone holds, by its change time alone (R9). Cloning makes the kernel write dirty
    /// pages and protect them, so that whatever is stored later moves the time. A store through mmap sets it first and then waits
    /// for the clone to be done, so the time must not have moved since before the cloning, and must be older than the clone's by
    /// more than such a store may have waited for the processor.
    fn is_of(&self, live: &File) -> io::Result<bool> {
        let Some(before) = self.live_ctime else { return Ok(false) };
        let is_older = before.plus(CLOCK_STEP) < file::stat(&self.file)?.ctime;
        Ok(is_older && file::stat(live)?.ctime == before)
    }

    fn keep(mut self, name: &[u8]) -> io::Result<()> {
        self.is_kept = true;
        self.dir.rename_replace(&self.name, &self.dir, name)
    }
}

impl Drop for New {
    fn drop(&mut self) {
        if !self.is_kept {
            // Best effort: the next start removes it.
            let _ = self.dir.unlink(&self.name);
        }
    }
}
