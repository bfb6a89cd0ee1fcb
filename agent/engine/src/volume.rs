//! One copy of a volume: its tree, what lies beside it, and the verbs that change its role or its point.

mod content;
mod create;
mod device;
mod error;
mod freeze;
mod rollback;
mod scrub;
mod shut;

use std::{
    fmt, io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use drover_linux::{Dir, FileId, WINDOW_NAME};

pub use content::{Located, Standing};
pub(crate) use create::check_place;
pub use create::{Disposal, NewVolume, Waiver};
pub use error::VolumeError;
pub(crate) use error::{scan_kind, scan_reason};
pub use freeze::{Freezer, Frozen};
pub use scrub::{ScrubState, Scrubbed};
pub use shut::Shutter;

use crate::{
    bases::{BASE_BYTES_MIN, BaseLimits, Bases},
    beside::{Claim, Mark, Root},
    commit::{self, Applied, CommitRecord, Site},
    control::Control,
    fault,
    id::VolumeId,
    index::Index,
    path::RelPath,
    plan::{Patched, Plan},
    point::{self, Force, PeerCopy, PointId, Role, VolumeKind, VolumeState},
    pool::Pool,
    scan::{Scan, ScanError, ScanOptions, scan},
    stage::{self, Staging},
    tree::Manifest,
};

/// What opening found and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recovery {
    Clean,
    /// A commit that was interrupted was carried through.
    RolledForward {
        point: Option<PointId>,
    },
    /// It could not be; the old point stands.
    Undone {
        reason: String,
    },
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clean => f.write_str("clean"),
            Self::RolledForward { point: Some(point) } => {
                write!(f, "rolled forward to point {point}")
            }
            Self::RolledForward { point: None } => f.write_str("rolled forward"),
            Self::Undone { reason } => write!(f, "undone: {reason}"),
        }
    }
}

#[derive(Debug)]
pub struct Volume {
    root: Arc<Root>,
    id: VolumeId,
    /// `volumes/<id>` beside the root.
    beside: Dir,
    live: Dir,
    path: RelPath,
    /// Inode of the mark: an index made beside another one is not trusted.
    mark: FileId,
    pool: Pool,
    bases: Bases,
    state: Mutex<VolumeState>,
    busy: Mutex<Option<&'static str>>,
    scrubber: scrub::Scrubber,
    freezer: RwLock<Option<Arc<dyn Freezer>>>,
    shutter: RwLock<Option<Arc<dyn Shutter>>>,
    /// Disabled, or half disabled: nothing works on it any more, whoever still holds it.
    ended: AtomicBool,
    recovery: Recovery,
    _claim: Claim,
}

/// Held by the one operation that works on a volume.
#[derive(Debug)]
pub(crate) struct Occupied<'a>(&'a Volume);

impl Drop for Occupied<'_> {
    fn drop(&mut self) {
        *lock(&self.0.busy) = None;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The tree of a volume: its directory, or a window on the directory that its one file is in. That directory, which
/// stays while files in it are replaced, is what the mark knows.
fn open_live(root: &Dir, kind: VolumeKind, path: &RelPath) -> Result<Dir, VolumeError> {
    let opened = match kind {
        VolumeKind::BlockDevice => root.try_clone().and_then(|root| root.device_window(path.as_bytes())),
        VolumeKind::Directory => root.open_beneath(path.as_bytes()),
        VolumeKind::BlockFile => stage::locate(root, path).and_then(|(parent, name)| parent.window(&name)),
    };
    opened.map_err(|source| VolumeError::Tree { path: path.clone(), source })
}

impl Volume {
    /// Opens a volume by its mark, and finishes or undoes what a crash interrupted.
    pub fn open(root: &Arc<Root>, id: VolumeId) -> Result<Self, VolumeError> {
        let storage = |source| VolumeError::Storage { volume: id, source };
        let claim = root.claim(id).ok_or(VolumeError::Busy { volume: id, with: "what another handle of it does" })?;
        let beside = root.volume_dir(id).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => VolumeError::NotFound(id),
            _ => storage(source),
        })?;
        let mark = Mark::load(&beside, id)?.ok_or(VolumeError::NotFound(id))?;
        let path = mark.path.clone();
        let state = commit::load_state(&beside).map_err(|source| VolumeError::State { volume: id, source })?;
        let state = state.ok_or(VolumeError::NotFound(id))?;
        let live = open_live(root.dir(), state.kind, &path)?;
        if let Some(expected) = &state.device {
            device::check(&live, &path, expected)?;
        }
        if !mark.is_of(live.stat_self().map_err(storage)?.id) {
            return Err(VolumeError::NotTheMarkedTree { volume: id, path });
        }
        let mark = beside.stat(b"mark").map_err(storage)?.id;
        let pool = Pool::open(&beside).map_err(storage)?;
        let bases = Bases::open(&beside, state.kind == VolumeKind::BlockDevice).map_err(storage)?;
        let (root, state, busy) = (Arc::clone(root), Mutex::new(state), Mutex::new(None));
        let (ended, recovery) = (AtomicBool::new(false), Recovery::Clean);
        let scrubber = scrub::Scrubber::default();
        let mut volume = Self {
            scrubber,
            freezer: RwLock::default(),
            shutter: RwLock::default(),
            root,
            id,
            beside,
            live,
            path,
            mark,
            pool,
            bases,
            state,
            busy,
            ended,
            recovery,
            _claim: claim,
        };
        volume.recovery = volume.recover()?;
        // One that was interrupted has ended.
        if volume.state().promoting {
            volume.update_state(|state| state.promoting = false)?;
        }
        volume.forget_strays();
        Ok(volume)
    }

    /// The path must still lead to the directory that was enabled: it may have been replaced, removed or mounted over
    /// since this process opened it.
    pub fn check_tree(&self) -> Result<(), VolumeError> {
        let storage = |source| VolumeError::Storage { volume: self.id, source };
        let root = Dir::open(self.root.path());
        let root = root.map_err(|source| VolumeError::Tree { path: self.path.clone(), source })?;
        let at_path = open_live(&root, self.state().kind, &self.path)?;
        let (now, then) = (at_path.stat_self().map_err(storage)?, self.live.stat_self().map_err(storage)?);
        if (now.id, now.dev) != (then.id, then.dev) {
            if let Some(expected) = &self.state().device {
                device::check(&at_path, &self.path, expected)?;
            }
            return Err(VolumeError::NotTheMarkedTree { volume: self.id, path: self.path.clone() });
        }
        Ok(())
    }

    /// Nobody else has a block volume open for writing: what they write goes into a copy that is overwritten by the next sync, or into one
    /// that history has already. A directory's users can't be told.
    pub(crate) fn check_unused(&self) -> Result<(), VolumeError> {
        let path = || self.path.clone();
        match self.state().kind {
            VolumeKind::Directory => Ok(()),
            VolumeKind::BlockDevice => match self.live.open_write(WINDOW_NAME) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    Err(VolumeError::DeviceBusy { path: path() })
                }
                // What else is wrong with it is told by what looks at it.
                _ => Ok(()),
            },
            VolumeKind::BlockFile => {
                let Ok(file) = self.live.open_file(WINDOW_NAME) else { return Ok(()) };
                let is_open = drover_linux::file::is_open_for_writing(&file);
                match is_open.map_err(|source| VolumeError::Storage { volume: self.id, source })? {
                    Some(true) => Err(VolumeError::ImageBusy { path: path() }),
                    Some(false) | None => Ok(()),
                }
            }
        }
    }

    /// A commit whose last part failed is finished before anything else begins.
    pub(crate) fn finish_interrupted(&self) -> Result<(), VolumeError> {
        self.recover().map(drop)
    }

    /// R1: after the record there is only forward, or all the way back.
    fn recover(&self) -> Result<Recovery, VolumeError> {
        let storage = |source| VolumeError::Storage { volume: self.id, source };
        let record = CommitRecord::load(&self.beside);
        let record = record.map_err(|source| VolumeError::State { volume: self.id, source })?;
        let Some(mut record) = record else {
            return Ok(Recovery::Clean);
        };
        fault::hit("recover.begin").map_err(storage)?;
        let staging = self.staging().map_err(storage)?;
        if fault::is_off("recovery") {
            CommitRecord::remove(&self.beside).map_err(storage)?;
            return Ok(Recovery::Clean);
        }
        let point = record.state.current;
        if self.state().transaction != record.state.transaction {
            // R6: a copy that was promoted meanwhile takes no point from its old primary.
            if !self.may_commit(&record.state) {
                record.direction = commit::Direction::Undo;
            }
            if let Applied::Undone { why, left } = self.site(&staging).carry_out(&record).map_err(storage)? {
                if !left.is_empty() {
                    self.set_staging_aside().map_err(storage)?;
                }
                CommitRecord::remove(&self.beside).map_err(storage)?;
                for path in &left {
                    tracing::error!(volume = %self.id, %path, "could not be put back; the next sync repairs it");
                }
                return Ok(Recovery::Undone { reason: crate::error::chain(&why) });
            }
            self.set_state_in_memory(record.state.clone());
        }
        fault::hit("recover.applied").map_err(storage)?;
        self.finish_retiring(&staging, &record).map_err(storage)?;
        Ok(Recovery::RolledForward { point })
    }

    /// Manifests of points that were never committed or have expired.
    fn forget_strays(&self) {
        let Ok(points) = crate::beside::subdirectory(&self.beside, b"points") else {
            return;
        };
        let state = self.state();
        let is_listed = |name: &[u8]| state.restorable.iter().any(|point| point.id.to_string().as_bytes() == name);
        for (name, _) in points.list().unwrap_or_default() {
            if !is_listed(&name) {
                // Best effort: a stray manifest takes space and nothing else.
                let _ = points.unlink(&name);
            }
        }
    }

    pub(crate) fn finish_retiring(&self, staging: &Staging, record: &CommitRecord) -> io::Result<()> {
        commit::retire(&self.site(staging), &self.pool, record)?;
        fault::hit("retain.done")?;
        CommitRecord::remove(&self.beside)?;
        Staging::discard(&self.beside)
    }

    /// What could not be put back lies in staging. It is the last copy of something, so it is kept, and never built on.
    pub(crate) fn set_staging_aside(&self) -> io::Result<()> {
        let label = format!("staging-{}", self.state().transaction + 1);
        crate::beside::keep_foreign(&self.beside, &self.beside, b"staging", &label).map(drop)
    }

    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    pub fn id(&self) -> VolumeId {
        self.id
    }

    pub fn path(&self) -> &RelPath {
        &self.path
    }

    pub fn state(&self) -> VolumeState {
        lock(&self.state).clone()
    }

    pub fn root(&self) -> &Root {
        &self.root
    }

    pub(crate) fn live(&self) -> &Dir {
        &self.live
    }

    /// Of the file system that staging is on.
    pub(crate) fn staging_space(&self) -> io::Result<drover_linux::Space> {
        self.beside.space()
    }

    pub(crate) fn beside(&self) -> &Dir {
        &self.beside
    }

    pub(crate) fn bases(&self) -> &Bases {
        &self.bases
    }

    /// Only what these trees hold needs a base.
    pub(crate) fn keep_bases(&self, trees: &[&Manifest]) {
        let keep = || {
            if self.bases.is_empty()? {
                return Ok(());
            }
            let entries = trees.iter().flat_map(|tree| tree.entries());
            let bodies = entries.filter_map(|(_, entry)| entry.node.body().copied());
            let wanted = bodies.filter(|body| body.size >= BASE_BYTES_MIN).map(|body| body.digest).collect();
            self.bases.keep_only(&wanted)
        };
        if let Err(error) = keep() {
            tracing::warn!(volume = %self.id, error = &error as &dyn std::error::Error, "old bases were not removed");
        }
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    pub(crate) fn staging(&self) -> io::Result<Staging> {
        Staging::open(&self.beside)
    }

    pub(crate) fn site<'a>(&'a self, staging: &'a Staging) -> Site<'a> {
        Site { live: &self.live, staging, beside: &self.beside, leased: None }
    }

    /// One operation at a time.
    pub(crate) fn occupy(&self, what: &'static str) -> Result<Occupied<'_>, VolumeError> {
        let mut busy = lock(&self.busy);
        if self.has_ended() {
            return Err(VolumeError::NotFound(self.id));
        }
        if let Some(with) = *busy {
            return Err(VolumeError::Busy { volume: self.id, with });
        }
        *busy = Some(what);
        Ok(Occupied(self))
    }

    /// Whether it was disabled, be it only in part.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// R6: whether the state that a commit leads to still follows from the one that stands.
    pub(crate) fn may_commit(&self, next: &VolumeState) -> bool {
        let now = lock(&self.state);
        now.role == Role::Secondary
            && next.transaction == now.transaction + 1
            && (next.epoch >= now.epoch || now.resync)
    }

    pub(crate) fn set_state_in_memory(&self, state: VolumeState) {
        *lock(&self.state) = state;
    }

    /// Durable when it returns.
    pub(crate) fn update_state(&self, change: impl FnOnce(&mut VolumeState)) -> Result<(), VolumeError> {
        let mut state = lock(&self.state);
        let mut next = state.clone();
        change(&mut next);
        if next != *state {
            commit::store_state(&self.beside, &next)
                .map_err(|source| VolumeError::Storage { volume: self.id, source })?;
            *state = next;
        }
        Ok(())
    }

    /// How the tree becomes the target's: by renames, or where whole copies would have to be made for them, by a patch.
    pub(crate) fn plan(&self, actual: &Index, target: &Manifest, limits: &BaseLimits) -> Result<Plan, VolumeError> {
        let plan = Plan::new(actual, target);
        match self.state().kind {
            VolumeKind::Directory => Ok(plan),
            VolumeKind::BlockDevice => self.device_plan(plan, actual, target),
            VolumeKind::BlockFile => {
                let storage = |source| VolumeError::Storage { volume: self.id, source };
                match plan.patching(actual) {
                    Some(patching) if self.is_to_be_patched(&patching, limits).map_err(storage)? => Ok(patching),
                    _ => Ok(plan),
                }
            }
        }
    }

    fn is_to_be_patched(&self, plan: &Plan, limits: &BaseLimits) -> io::Result<bool> {
        let Some(Patched { path, from, to, .. }) = &plan.patched else { return Ok(false) };
        // History has it whole, or as patches of something else than what the tree holds.
        if self.pool.find(&to.digest)?.is_some()
            || self.pool.chain(&to.digest)?.is_some_and(|chain| chain.base != from.into())
        {
            return Ok(false);
        }
        let (dir, name) = stage::locate(&self.live, path)?;
        self.bases.is_cheaply_cloned(&dir.open_file(&name)?, limits).map(|is_cloned| !is_cloned)
    }

    pub(crate) fn scan(&self, deep: bool, control: &Control) -> Result<Scan, ScanError> {
        self.scan_of(&self.live, deep, control)
    }

    /// `tree` is the volume's own, or a snapshot's of it.
    pub(crate) fn scan_of(&self, tree: &Dir, deep: bool, control: &Control) -> Result<Scan, ScanError> {
        let state = self.state();
        self.bases.set_patched(state.kind == VolumeKind::BlockFile && state.role == Role::Secondary);
        if let Err(error) = self.bases.set_pages(state.kind.is_block() && state.role == Role::Primary) {
            tracing::warn!(volume = %self.id, %error, "what is known of pages is not kept: the replica is asked for it");
        }
        let mut previous = Index::load(&self.beside, b"index");
        let shown = self.shown_meta(previous.as_ref());
        if let (Some(_), Some(previous)) = (&shown, &mut previous) {
            device::strip(previous)?;
        }
        let clock = || self.root.clock();
        let deep = deep || self.is_to_be_read();
        let options = ScanOptions {
            mark: self.mark,
            clock: &clock,
            deep,
            reread_before: Some(unix_now() - REREAD_SECS),
            waive_mount_points: false,
            bases: Some(&self.bases),
        };
        let mut scan = scan(tree, previous.as_ref(), &options, control)?;
        // However often the other side does not get what was found, no more than two clones of a file are kept.
        if !scan.found_by.is_empty() {
            let before = previous.as_ref().map(|index| &index.manifest);
            self.keep_bases(&before.into_iter().chain([&scan.index.manifest]).collect::<Vec<_>>());
        }
        if let Some(shown) = shown {
            device::dress(&mut scan.index, &shown)?;
        }
        if deep && scan.unreadable.is_empty() && state.kind.is_block() && state.role == Role::Secondary {
            self.keep_index(&scan.index);
            self.forget_damage();
        }
        Ok(scan)
    }

    /// The index is a cache: without it the next scan only reads more.
    pub(crate) fn keep_index(&self, index: &Index) {
        if let Err(error) = index.store(&self.beside, b"index") {
            tracing::warn!(volume = %self.id, error = &error as &dyn std::error::Error, "index was not stored");
        }
    }

    /// `ask`: what the peer says of its copy. It is on record before that is asked, so that of two sites that promote at once at least one sees
    /// the other. By force what the peer has is given up, but never beside a primary that answers.
    pub fn promote(&self, force: Force, ask: impl FnOnce() -> Result<PeerCopy, String>) -> Result<(), VolumeError> {
        let _occupied = self.occupy("promote")?;
        self.check_tree()?;
        self.finish_interrupted()?;
        let state = self.state();
        // One that is superseded is primary again only once the other is not.
        if state.role == Role::Primary && state.superseded.is_none() {
            return Ok(());
        }
        if state.kind == VolumeKind::BlockFile && state.current.is_some() {
            // Its directory is there, and a guest needs the image.
            self.live.stat(WINDOW_NAME).map_err(|source| VolumeError::Tree { path: self.path.clone(), source })?;
        }
        let refused = |source| VolumeError::Refused { volume: self.id, source };
        let mut next = state.clone();
        next.promote(force).map_err(refused)?;
        self.update_state(|state| state.promoting = true)?;
        let told = ask();
        let planned = point::planned(&state, told.as_ref().map_err(Clone::clone));
        if let Err(why) = planned {
            if force == Force::No || why.is_final() {
                self.update_state(|state| state.promoting = false)?;
                return Err(VolumeError::PromoteUnsafe { volume: self.id, why });
            }
            tracing::warn!(volume = %self.id, "promoted by force: {why}");
        }
        let mut failed = None;
        self.update_state(|state| failed = state.promote(force).err())?;
        failed.map_or(Ok(()), |source| Err(refused(source)))
    }

    /// Without force only a copy that is what its newest point says: what was written since would not be where its users go on.
    /// Looking for that takes as long as the scan of a sync.
    pub fn demote(&self, force: Force, control: &Control) -> Result<(), VolumeError> {
        let _occupied = self.occupy("demote")?;
        self.finish_interrupted()?;
        if self.state().role == Role::Primary {
            self.check_unused()?;
            if force == Force::No {
                self.check_synced(control)?;
            }
        }
        self.update_state(VolumeState::demote)
    }

    /// The tree is at the newest point. One that was never synced has nobody who could go on elsewhere.
    fn check_synced(&self, control: &Control) -> Result<(), VolumeError> {
        let state = self.state();
        let Some(newest) = state.newest() else { return Ok(()) };
        self.check_tree()?;
        let before = self.times_of_block()?;
        let frozen = self.freeze()?;
        let scan = self.scan_of(frozen.as_ref().map_or(&self.live, |frozen| &frozen.dir), false, control)?;
        let unreadable = scan.unreadable.len();
        if let Some((path, source)) = scan.unreadable.into_iter().next() {
            return Err(VolumeError::Unreadable { path, unreadable, source });
        }
        // Who has begun to write meanwhile may have written behind the reading.
        self.check_unused()?;
        if scan.index.manifest.root_digest() != newest.root || self.times_of_block()? != before {
            return Err(VolumeError::NotSynced { volume: self.id, newest: newest.id });
        }
        Ok(())
    }

    /// Change times of a block volume's content, or what a device's counters show; a directory has none of its own.
    fn times_of_block(&self) -> Result<Option<[drover_linux::Time; 2]>, VolumeError> {
        if !self.state().kind.is_block() {
            return Ok(None);
        }
        let stat = self.live.stat(WINDOW_NAME);
        let stat = stat.map_err(|source| VolumeError::Tree { path: self.path.clone(), source })?;
        Ok(Some([stat.mtime, stat.ctime]))
    }

    /// This copy's line may be given up at the next sync; its data is kept as a restore point first.
    pub fn request_resync(&self) -> Result<(), VolumeError> {
        let _occupied = self.occupy("resync")?;
        self.finish_interrupted()?;
        if self.state().role == Role::Primary {
            return Err(VolumeError::PrimaryCantResync(self.id));
        }
        self.update_state(|state| state.resync = true)
    }

    /// Ends the pause that a rollback began.
    pub fn release(&self) -> Result<(), VolumeError> {
        self.update_state(|state| state.paused = false)
    }

    pub fn set_peer(&self, peer: Option<String>) -> Result<(), VolumeError> {
        self.update_state(|state| state.peer = peer)
    }

    /// What is named is set; older points go when the next one is made.
    pub fn configure(
        &self,
        retain: Option<u32>,
        retain_secs: Option<u64>,
        peer: Option<String>,
    ) -> Result<(), VolumeError> {
        self.update_state(|state| {
            state.retain = retain.unwrap_or(state.retain);
            state.retain_secs = retain_secs.unwrap_or(state.retain_secs);
            state.peer = peer.or(state.peer.take());
        })
    }

    /// Seconds since 1970 of the content that was read longest ago.
    pub fn oldest_read(&self) -> Option<i64> {
        let index = Index::load(&self.beside, b"index")?;
        index.locals.values().flat_map(|locals| locals.iter()).map(|local| local.read_at).min()
    }
}

/// R9: content is read again at least this often, whatever its times say.
const REREAD_SECS: i64 = 30 * 24 * 3600;

/// Seconds since 1970.
pub fn unix_now() -> i64 {
    drover_linux::Time::now().secs
}
