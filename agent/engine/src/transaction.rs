//! One change of a replica's tree from point to point: what a sync and a rollback have in common once it is known what
//! the tree shall be.

mod unscanned;

use std::{
    io,
    time::{Duration, Instant},
};

use drover_linux::{
    FileId, Time, device,
    file::{self, WriteLease},
};

use crate::{
    bases::holes_of,
    commit::{Applied, ApplyError, CommitRecord, Direction, Leased, Site},
    control::{Cancelled, Control, Phase},
    digest::Digest,
    error::Kind,
    fault,
    index::{Index, manifest_file},
    meta,
    patch::{Patch, REDO, SAVED, UNDO},
    path::RelPath,
    plan::{Patched, Place, Plan, Step, Writing},
    point::{Point, PointId, VolumeKind, VolumeState},
    record::{self, RecordError, RecordKind},
    reindex::{Settled, reindex},
    stage::{self, Builder, StageError, Staging, storage_kind, storage_reason},
    tree::Manifest,
    volume::Volume,
};

pub(crate) const MANIFEST: RecordKind = RecordKind { magic: *b"DRVP", version: 1 };

#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    #[error(transparent)]
    Stage(#[from] StageError),
    #[error("write {what}")]
    Write {
        what: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("the new point could not be applied, the old one stands again")]
    Undone(#[source] ApplyError),
    #[error("the new point could not be applied, and {left} could not be put back; sync again to repair them", left = Paths(.left))]
    PartlyUndone {
        #[source]
        why: ApplyError,
        left: Vec<RelPath>,
    },
    #[error(
        "{path} was changed on the replica by another process since it was scanned; nothing was changed, sync again"
    )]
    ReplicaChanged { path: RelPath },
    #[error("role or epoch changed while the point was on its way; nothing was changed")]
    Superseded,
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

struct Paths<'a>(&'a [RelPath]);

impl std::fmt::Display for Paths<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().take(3).try_for_each(|path| write!(f, "{path}, "))?;
        write!(f, "{} in all,", self.0.len())
    }
}

impl CommitError {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Stage(error) => error.kind(),
            Self::Write { source, .. } => storage_kind(source),
            Self::Undone(why) => why.kind(),
            Self::PartlyUndone { .. } => Kind::Storage,
            Self::ReplicaChanged { .. } => Kind::Conflict,
            Self::Superseded => Kind::Precondition,
            Self::Cancelled(_) => Kind::Cancelled,
        }
    }

    pub fn reason(&self) -> &'static str {
        match self {
            Self::Stage(error) => error.reason(),
            Self::Write { source, .. } => storage_reason(source),
            Self::Undone(why) => why.reason(),
            Self::PartlyUndone { .. } => "partly-undone",
            Self::ReplicaChanged { .. } => "replica-changed",
            Self::Superseded => "role-changed",
            Self::Cancelled(_) => "cancelled",
        }
    }
}

/// A tree that is to become another one.
pub(crate) struct Transaction<'a> {
    pub(crate) volume: &'a Volume,
    /// The tree as the scan found it.
    pub(crate) actual: &'a Index,
    pub(crate) target: &'a Manifest,
    pub(crate) plan: Plan,
    pub(crate) control: &'a Control,
}

/// Nobody else has a file open that a commit puts in its place or changes.
struct Lease {
    path: RelPath,
    held: WriteLease,
    /// As the scan, or the stage, left it.
    ctime: Time,
    /// It comes from the stage.
    is_new: bool,
}

/// How long readers of the live path could see a mix (R2), and the rest.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Took {
    pub(crate) commit: Duration,
    pub(crate) apply: Duration,
    pub(crate) retain: Duration,
}

impl Transaction<'_> {
    /// Needs all contents staged. `points` are new restore points with what they consist of; `state` is the volume's
    /// state as it will be, `expired` what it no longer lists.
    pub(crate) fn commit(
        mut self,
        builder: &Builder<'_>,
        from_pool: Vec<Digest>,
        points: &[(&Point, &Manifest)],
        state: VolumeState,
        expired: &[Point],
    ) -> Result<Took, CommitError> {
        let write = |what| move |source| CommitError::Write { what, source };
        let begin = Instant::now();
        self.control.progress.enter(Phase::Committing, 0, 0);
        for (point, manifest) in points {
            store_manifest(self.volume, point.id, manifest).map_err(write("manifest"))?;
        }
        fault::hit("commit.manifests").map_err(write("manifest"))?;
        let mut counted = None;
        if let Some(patched) = self.plan.patched.as_ref().filter(|patched| patched.writing == Writing::Patch) {
            let redo = self.save_replaced(builder, patched).map_err(|error| {
                // There is no commit record yet: nothing needs it.
                let _ = record::remove(builder.staging.patches(), SAVED);
                write("what is to be replaced")(error)
            })?;
            counted = self.counted(patched, &redo);
        }
        builder.finish(&self.plan)?;
        self.resolve().map_err(write("commit record"))?;
        let record = CommitRecord {
            direction: Direction::Forward,
            state,
            steps: self.plan.steps.clone(),
            retired: self.plan.retired.clone(),
            from_pool,
        };
        self.control.check()?;
        fault::hit("commit.before-record").map_err(write("commit record"))?;
        // Before the last look: from here on nobody else can write to what is patched.
        let lease = self.lease(builder.staging);
        if let Some(path) =
            unscanned::find(self.volume.live(), self.actual, &record.steps).map_err(write("commit record"))?
        {
            return Err(CommitError::ReplicaChanged { path });
        }
        if !self.volume.may_commit(&record.state) {
            return Err(CommitError::Superseded);
        }
        record.store(self.volume.beside()).map_err(write("commit record"))?;
        let commit = begin.elapsed();
        fault::hit("commit.recorded").map_err(write("commit record"))?;
        self.carry_out(builder, &record, (lease, counted), commit, expired)
    }

    /// R9 of a device that nobody else writes to meanwhile: since the scan looked at the kernel's counters of what is written to it,
    /// they have moved by the sectors of the patch, each written once and past the page cache. Whoever else wrote moved
    /// them further.
    fn counted(&self, patched: &Patched, redo: &Patch) -> Option<Settled> {
        if self.volume.state().kind != VolumeKind::BlockDevice {
            return None;
        }
        let local = self.actual.local(&patched.path).filter(|local| !local.racy)?;
        let bytes = redo.covered.iter().map(|(range, _)| range.end - range.start).sum();
        let ctime = device::after_writing(local.ctime, bytes)?;
        Some(Settled { path: patched.path.clone(), id: local.id, ctime })
    }

    /// Of the file of a block volume that the steps bring in, replace or change, if nobody else has it open, and what is
    /// known of it is more than a racy look.
    fn lease(&self, staging: &Staging) -> Option<Lease> {
        // A locked file is not opened for writing, and locking opens it again.
        let is_locked = |step: &Step| matches!(step, Step::Lock { .. } | Step::Unlock { .. });
        if self.volume.state().kind != VolumeKind::BlockFile || self.plan.steps.iter().any(is_locked) {
            return None;
        }
        let (path, place) = self.plan.steps.iter().find_map(|step| match step {
            Step::In { path, place, .. } | Step::Exchange { path, place, .. } => Some((path, Some(place))),
            Step::Patch { path, .. } | Step::Meta { path, .. } => Some((path, None)),
            _ => None,
        })?;
        let (dir, name) = match place {
            Some(place) => staging.locate(place),
            None if self.actual.local(path).is_none_or(|local| local.racy) => return None,
            None => stage::locate(self.volume.live(), path),
        }
        .ok()?;
        let held = dir.open_write(&name).and_then(WriteLease::take).ok().flatten()?;
        let staged = file::stat(held.file()).ok()?;
        let ctime = match place {
            // What comes from history was proved before it was leased, has a name there, and may have been written to meanwhile.
            Some(_) if staged.nlink > 1 => return None,
            Some(_) => staged.ctime,
            None => self.actual.local(path)?.ctime,
        };
        Some(Lease { path: path.clone(), held, ctime, is_new: place.is_some() })
    }

    /// R9: what was written to a file that nobody else had open is known without reading it, once the clock has moved on
    /// from its times: whoever writes later leaves other ones. Metadata is set without opening a file, so it is looked at.
    fn settled(&self, lease: &Lease) -> io::Result<Option<Settled>> {
        const PAUSE: Duration = Duration::from_millis(2);
        const PAUSES_MAX: usize = 50;
        let Some((target, body)) =
            self.target.find(&lease.path).and_then(|entry| Some((entry.meta, entry.node.body().copied()?)))
        else {
            return Ok(None);
        };
        let (dir, name) = stage::locate(self.volume.live(), &lease.path)?;
        let stat = file::stat(lease.held.file())?;
        for _ in 0..PAUSES_MAX {
            if self.volume.root().clock()? > stat.ctime {
                let meta = meta::read_open(&dir, &name, Some(lease.held.file()), &stat)?;
                let is_settled = file::stat(lease.held.file())?.ctime == stat.ctime
                    && lease.held.is_whole()?
                    && stat.size == body.size
                    && meta == target
                    && (!lease.is_new || holes_of(lease.held.file(), body.size)? == body.holes);
                return Ok(is_settled.then(|| Settled { path: lease.path.clone(), id: stat.id, ctime: stat.ctime }));
            }
            std::thread::sleep(PAUSE);
        }
        Ok(None)
    }

    /// From here on nothing cancels: forward, or back.
    fn carry_out(
        &self,
        builder: &Builder<'_>,
        record: &CommitRecord,
        (lease, counted): (Option<Lease>, Option<Settled>),
        commit: Duration,
        expired: &[Point],
    ) -> Result<Took, CommitError> {
        let write = |what| move |source| CommitError::Write { what, source };
        self.control.progress.enter(Phase::Applying, record.steps.len() as u64, 0);
        let begin = Instant::now();
        let leased = lease.as_ref().map(|lease| Leased { lease: &lease.held, ctime: lease.ctime });
        let site = Site { leased, ..self.volume.site(builder.staging) };
        match site.carry_out(record).map_err(write("commit"))? {
            Applied::Forward => {}
            Applied::Undone { why, left } => {
                if !left.is_empty() {
                    self.volume.set_staging_aside().map_err(write("staging"))?;
                }
                CommitRecord::remove(self.volume.beside()).map_err(write("commit record"))?;
                return Err(if left.is_empty() {
                    CommitError::Undone(why)
                } else {
                    CommitError::PartlyUndone { why, left }
                });
            }
        }
        // Without an answer the next scan reads the file. Whoever waits to open it waits no longer.
        let settled = lease.as_ref().and_then(|lease| self.settled(lease).ok().flatten()).or(counted);
        drop(lease);
        let apply = begin.elapsed();
        self.volume.set_state_in_memory(record.state.clone());
        self.control.progress.enter(Phase::Retaining, 0, 0);
        let begin = Instant::now();
        self.volume.finish_retiring(builder.staging, record).map_err(write("history"))?;
        expire(self.volume, expired);
        self.volume.keep_bases(&[self.target]);
        self.store_index(settled);
        Ok(Took { commit, apply, retain: begin.elapsed() })
    }

    /// R3: what a patch will replace, durable before the commit record.
    fn save_replaced(&self, builder: &Builder<'_>, patched: &Patched) -> io::Result<Patch> {
        let patches = builder.staging.patches();
        let redo = Patch::expect(patches, REDO)?;
        if (redo.from, redo.to) != ((&patched.from).into(), (&patched.to).into()) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the staged patch belongs to another content"));
        }
        let (dir, name) = stage::locate(self.volume.live(), &patched.path)?;
        let live = dir.open_file(&name)?;
        if redo.replaced_bytes() > self.volume.staging_space()?.free_bytes {
            return Err(io::ErrorKind::StorageFull.into());
        }
        record::remove(patches, SAVED)?;
        let saved = patches.create_file(SAVED, 0o600)?;
        redo.inverse(&live, &saved, self.control)?.store(patches, UNDO)?;
        fault::hit("commit.saved")?;
        Ok(redo)
    }

    /// The identities of staged inodes, for replay to recognise them.
    fn resolve(&mut self) -> io::Result<()> {
        let staging = self.volume.staging()?;
        let at = |place: &Place| stage::staged_stat(&staging, place).map(|stat| stat.id);
        for step in &mut self.plan.steps {
            let (place, id): (Place, &mut Option<FileId>) = match step {
                Step::In { place, id, .. } | Step::Exchange { place, id, .. } => (place.clone(), id),
                Step::Link { from, id, .. } => (Place::Tree(from.clone()), id),
                _ => continue,
            };
            if id.is_none() {
                *id = Some(at(&place)?);
            }
        }
        Ok(())
    }

    fn store_index(&self, settled: Option<Settled>) {
        let stored = self.volume.root().clock().and_then(|clock| {
            let index = reindex(self.volume.live(), self.actual, self.target, &self.plan, settled, clock)?;
            index.store(self.volume.beside(), b"index")
        });
        if let Err(error) = stored {
            tracing::warn!(
                volume = %self.volume.id(), error = &error as &dyn std::error::Error,
                "index was not stored, the next scan reads more"
            );
        }
    }
}

fn points_dir(volume: &Volume) -> io::Result<drover_linux::Dir> {
    crate::beside::subdirectory(volume.beside(), b"points")
}

pub(crate) fn store_manifest(volume: &Volume, id: PointId, manifest: &Manifest) -> io::Result<()> {
    record::replace(&points_dir(volume)?, id.to_string().as_bytes(), MANIFEST, &manifest_file::encode(manifest)?)
}

#[derive(Debug, thiserror::Error)]
pub enum LoadManifestError {
    #[error("manifest of point {point}")]
    Record {
        point: PointId,
        #[source]
        source: RecordError,
    },
    #[error("directory of manifests can't be opened")]
    Io(#[source] io::Error),
    #[error("manifest of point {0} is missing")]
    Missing(PointId),
    #[error("manifest of point {point}")]
    Format {
        point: PointId,
        #[source]
        source: manifest_file::ManifestFileError,
    },
}

pub(crate) fn load_manifest(volume: &Volume, point: &Point) -> Result<Manifest, LoadManifestError> {
    let dir = points_dir(volume).map_err(LoadManifestError::Io)?;
    let id = point.id;
    let record = record::load(&dir, id.to_string().as_bytes(), MANIFEST);
    let record = record.map_err(|source| LoadManifestError::Record { point: id, source })?;
    let (_, payload) = record.ok_or(LoadManifestError::Missing(id))?;
    manifest_file::decode(&payload, point.root).map_err(|source| LoadManifestError::Format { point: id, source })
}

/// Manifests of expired points go, then contents that no restorable point needs. Any doubt keeps them.
pub(crate) fn expire(volume: &Volume, expired: &[Point]) {
    if expired.is_empty() {
        return;
    }
    let swept = (|| -> Result<(), Box<dyn std::error::Error>> {
        fault::hit("retain.expire")?;
        let state = volume.state();
        let mut unneeded = volume.pool().contents()?;
        for point in state.restorable.iter().filter(|point| Some(point.id) != state.current) {
            if unneeded.is_empty() {
                break;
            }
            for (_, entry) in load_manifest(volume, point)?.entries() {
                let mut needed = entry.node.body().map(|body| body.digest);
                // And what a patch is laid over.
                while let Some(digest) = needed.filter(|digest| unneeded.remove(digest)) {
                    needed = volume.pool().base_of(&digest)?;
                }
            }
        }
        let points = points_dir(volume)?;
        for point in expired {
            match points.unlink(point.id.to_string().as_bytes()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        fault::hit("retain.sweep")?;
        unneeded.iter().try_for_each(|digest| volume.pool().drop_content(digest))?;
        Ok(())
    })();
    if let Err(error) = swept {
        tracing::warn!(volume = %volume.id(), %error, "expired restore points still take space; it is given back when the next point expires");
    }
}
