//! The sink: scans its copy, learns the source's tree, plans, guards, stages, commits.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use super::{
    Intent, Message, Offer, SessionError, SyncOptions, Wire,
    body::{Dest, Fetch, Fetched, Known, Leftovers, Limits, Replica, Settled, Way, fetch},
    compare::compare,
    descend::descend,
    point::{advance, propose},
    target::Target,
    verify,
};
use crate::{
    commit::CommitRecord,
    control::Phase,
    digest::Digest,
    error::Kind,
    fault,
    index::Index,
    path::RelPath,
    plan::{Change, GuardError, Guards, Patched, Plan, Provider, Staged, Step, Writing, diff},
    point::{Label, Origin, Point, VolumeKind, VolumeState, accept},
    report::{Action, Changes, Durations, FoundOn, PATHS_SHOWN, PlanItem, PlanReport, Report, SyncReport},
    scan::Scan,
    stage::{Builder, Missing, StageError, Staging},
    transaction::{CommitError, Transaction, load_manifest},
    tree::{Manifest, Node},
    volume::{Volume, VolumeError, unix_now},
};

/// Times that the target may be amended because the source is written while it is read.
const ROUNDS_MAX: usize = 5;

pub(super) fn run(wire: &Wire<'_>, volume: &Volume, intent: &Intent) -> Result<Report, SessionError> {
    let control = wire.control();
    volume.finish_interrupted()?;
    control.progress.enter(Phase::Scanning, 0, 0);
    let begin = Instant::now();
    let Scan { index: actual, found_by, .. } =
        volume.scan_whole(matches!(intent, Intent::Verify { deep: true }), control)?;
    volume.keep_index(&actual);
    fault::hit("sink.scanned").map_err(|source| storage(volume, source))?;
    let offer = match wire.receive()? {
        Message::Offer(offer) => offer,
        Message::Failure(failure) => return Err(SessionError::Peer(failure)),
        other => {
            return Err(SessionError::Unexpected { expected: "offer", got: other.name() });
        }
    };
    let scan = begin.elapsed();
    let found_by = FoundOn { source: offer.found_by.clone(), replica: found_by };
    match intent {
        Intent::Verify { deep } => verify::run(wire, volume, &actual, &offer, *deep),
        Intent::Sync(options) => Sync::new(wire, volume, &actual, &offer, options, found_by)?.sync(scan),
        Intent::Plan(options) => Sync::new(wire, volume, &actual, &offer, options, found_by)?.plan(),
    }
}

fn storage(volume: &Volume, source: std::io::Error) -> SessionError {
    VolumeError::Storage { volume: volume.id(), source }.into()
}

pub(super) fn finish(wire: &Wire<'_>, report: &Report) -> Result<(), SessionError> {
    let json = serde_json::to_string(report).map_err(|_| SessionError::Protocol("a report has no JSON"))?;
    Ok(wire.send(&Message::Finished(json))?)
}

/// What is staged is normally kept for the next try. Where there is no space for the rest it only stands in the way
/// of other volumes; and what could not be written looks whole as long as it is in the page cache (R3).
fn give_space_back(volume: &Volume, error: &SessionError) {
    let is_spoilt = match error {
        // What could not be put back was set aside with it.
        SessionError::Peer(_) | SessionError::Commit(CommitError::PartlyUndone { .. }) => false,
        error => matches!(error.kind(), Kind::Exhausted | Kind::Storage),
    };
    // Under a commit record staging holds what the commit, or its undoing, needs.
    let is_needed = !matches!(CommitRecord::load(volume.beside()), Ok(None));
    if is_spoilt
        && !is_needed
        && let Err(error) = Staging::discard(volume.beside())
    {
        tracing::warn!(volume = %volume.id(), %error, "staging could not be discarded");
    }
}

struct Sync<'a> {
    wire: &'a Wire<'a>,
    volume: &'a Volume,
    actual: &'a Index,
    offer: &'a Offer,
    options: &'a SyncOptions,
    before: VolumeState,
    target: Target,
    plan: Plan,
    not_deleted: Vec<RelPath>,
    fuzzy: Vec<RelPath>,
    found_by: FoundOn,
    compare: Duration,
}

impl<'a> Sync<'a> {
    /// R6 first; then the source's tree, and the second look at everything that would be deleted (R5).
    fn new(
        wire: &'a Wire<'a>,
        volume: &'a Volume,
        actual: &'a Index,
        offer: &'a Offer,
        options: &'a SyncOptions,
        found_by: FoundOn,
    ) -> Result<Self, SessionError> {
        const NUMBER_MAX: u64 = 1 << 62;
        if offer.state.epoch > NUMBER_MAX || offer.state.highest_number() > NUMBER_MAX {
            return Err(SessionError::Protocol("has an epoch or a point number beyond any that can be counted to"));
        }
        let before = volume.state();
        // What a given-up line held is kept as a restore point; the report names it.
        accept(&offer.state, &before)?;
        let begin = Instant::now();
        wire.control().progress.enter(Phase::Comparing, 0, 0);
        let target = Target::new(descend(wire, &actual.manifest, offer)?);
        fault::hit("sink.compared").map_err(|source| storage(volume, source))?;
        wire.control().progress.enter(Phase::Planning, 0, 0);
        let plan = volume.plan(actual, target.manifest(), &wire.control().bases)?;
        let fuzzy = offer.fuzzy.clone();
        let compare = begin.elapsed();
        let not_deleted = Vec::new();
        let mut sync =
            Self { wire, volume, actual, offer, options, before, target, plan, not_deleted, fuzzy, found_by, compare };
        sync.look_again()?;
        Ok(sync)
    }

    fn planned(&self) -> Result<Plan, SessionError> {
        Ok(self.volume.plan(self.actual, self.target.manifest(), &self.wire.control().bases)?)
    }

    fn look_again(&mut self) -> Result<(), SessionError> {
        const ASKED_MAX: usize = 4096;
        let diff = diff(self.actual, self.target.manifest());
        let removed = diff.changes.iter().filter(|(_, change)| matches!(change, Change::Removed(_)));
        let removed: Vec<RelPath> = removed.map(|(path, _)| path.clone()).collect();
        for asked in removed.chunks(ASKED_MAX) {
            self.wire.send(&Message::LookAgain(asked.to_vec()))?;
            match self.wire.receive()? {
                Message::StillThere(there) => self.not_deleted.extend(there),
                Message::Failure(failure) => return Err(SessionError::Peer(failure)),
                other => {
                    return Err(SessionError::Unexpected { expected: "still-there", got: other.name() });
                }
            }
        }
        if !self.not_deleted.is_empty() {
            self.target.keep(&self.actual.manifest, &self.not_deleted)?;
            self.plan = self.planned()?;
        }
        Ok(())
    }

    fn guards(&self) -> Result<Vec<GuardError>, SessionError> {
        let space = self.volume.staging_space().map_err(|source| storage(self.volume, source))?;
        let guards = Guards {
            options: self.options,
            is_block: self.before.kind.is_block(),
            source: self.target.manifest().totals(),
            replica: self.actual.manifest.totals(),
            free_bytes: space.free_bytes,
        };
        let refused = guards.check(&self.plan.changes);
        if !refused.iter().any(|refused| matches!(refused, GuardError::Space { .. })) {
            return Ok(refused);
        }
        if let Some(bytes_needed) = self.change_bytes()? {
            return Ok(guards.check(&Changes { bytes_needed, ..self.plan.changes.clone() }));
        }
        // Holes need no space; how many there are is only asked when it matters.
        let bytes_needed = self.plan.changes.bytes_needed.saturating_sub(self.hole_bytes()?);
        Ok(guards.check(&Changes { bytes_needed, ..self.plan.changes.clone() }))
    }

    /// What the change of a block volume takes: its new content, and where it is written in place what that replaces, too.
    /// `None` for a tree, and when only all of it would do. Of a patch that nobody can tell the size of, staging and the commit
    /// find out, before the replica changes.
    fn change_bytes(&self) -> Result<Option<u64>, SessionError> {
        let (from, to, path) = match (&self.plan.patched, &self.plan.staged[..]) {
            (Some(Patched { writing: Writing::AtOnce, .. }), _) => return Ok(Some(0)),
            (Some(patched), _) => (patched.from, patched.to, &patched.path),
            (None, [Staged { path, entry, .. }]) if self.before.kind.is_block() => {
                let old = self.actual.manifest.find(path);
                match (old.and_then(|old| old.node.body().copied()), entry.node.body()) {
                    (Some(from), Some(to)) => (from, *to, path),
                    _ => return Ok(None),
                }
            }
            (None, _) => return Ok(None),
        };
        let from = Known { digest: from.digest, size: from.size };
        self.wire.send(&Message::Differing { path: path.clone(), from })?;
        let differing = match self.wire.receive()? {
            Message::DifferingIs(differing) => differing.map(|bytes| bytes.min(to.size)),
            Message::Failure(failure) => return Err(SessionError::Peer(failure)),
            other => return Err(SessionError::Unexpected { expected: "differing-is", got: other.name() }),
        };
        Ok(match (&self.plan.patched, differing) {
            (Some(_), differing) => Some(differing.unwrap_or(0) * 2),
            (None, differing) => differing,
        })
    }

    /// Of the sparse files that would be staged.
    fn hole_bytes(&self) -> Result<u64, SessionError> {
        const ASKED_MAX: usize = 4096;
        let bodies = self.plan.staged.iter().filter_map(|staged| match (&staged.provider, &staged.entry.node) {
            (Provider::Body { .. }, Node::File(body)) if body.holes != 0 => Some((staged.path.clone(), body.size)),
            _ => None,
        });
        let (paths, sizes): (Vec<RelPath>, Vec<u64>) = bodies.unzip();
        let mut holes = 0u64;
        for (asked, sizes) in paths.chunks(ASKED_MAX).zip(sizes.chunks(ASKED_MAX)) {
            self.wire.send(&Message::Allocated(asked.to_vec()))?;
            let allocated = match self.wire.receive()? {
                Message::AllocatedAre(allocated) if allocated.len() == asked.len() => allocated,
                Message::Failure(failure) => return Err(SessionError::Peer(failure)),
                other => return Err(SessionError::Unexpected { expected: "allocated-are", got: other.name() }),
            };
            let of_each = sizes.iter().zip(&allocated).map(|(size, allocated)| size.saturating_sub(*allocated));
            holes = of_each.fold(holes, u64::saturating_add);
        }
        Ok(holes)
    }

    fn plan(self) -> Result<Report, SessionError> {
        let refused_by = self.guards()?.iter().map(|error| (error.reason().to_owned(), error.to_string())).collect();
        let (items, items_left_out) = items(&self.plan, self.actual, self.target.manifest());
        let report = Report::Plan(PlanReport {
            changes: self.plan.changes.clone(),
            items,
            items_left_out,
            refused_by,
            repaired: self.repaired()?.0,
            found_by: self.found_by,
        });
        finish(self.wire, &report)?;
        Ok(report)
    }

    /// Paths changed behind our back, and whether contents of the current point were destroyed with that.
    fn repaired(&self) -> Result<(Vec<RelPath>, Vec<RelPath>), SessionError> {
        let Some(point) = self.before.current_point().filter(|p| p.root != self.actual.manifest.root_digest()) else {
            return Ok(Default::default());
        };
        if self.before.restorable(point.id).is_err() {
            // An old primary: it was at that point and has no manifest of it. What it holds is kept as a whole.
            return Ok(Default::default());
        }
        let manifest = match load_manifest(self.volume, point) {
            Ok(manifest) => manifest,
            Err(error) => {
                tracing::warn!(
                    volume = %self.volume.id(), error = &error as &dyn std::error::Error,
                    "what was changed behind our back can't be told"
                );
                return Ok(Default::default());
            }
        };
        let differences = compare(&manifest, &self.actual.manifest);
        let lost = self.lost(&manifest)?;
        Ok((differences.shown.into_iter().map(|difference| difference.path).collect(), lost))
    }

    /// Contents of the point that are neither in the tree now nor in history nor come again with the new point.
    fn lost(&self, point: &Manifest) -> Result<Vec<RelPath>, SessionError> {
        let digests = |manifest: &Manifest| -> std::collections::HashSet<Digest> {
            manifest.entries().filter_map(|(_, entry)| Some(entry.node.body()?.digest)).collect()
        };
        let (here, coming) = (digests(&self.actual.manifest), digests(self.target.manifest()));
        let pool = self.volume.pool().contents().map_err(|source| storage(self.volume, source))?;
        let is_lost = |digest: &Digest| !here.contains(digest) && !coming.contains(digest) && !pool.contains(digest);
        let files = point.entries().filter_map(|(path, entry)| Some((path, *entry.node.body()?)));
        let lost = files.filter(|(_, body)| body.size > 0 && is_lost(&body.digest)).map(|(path, _)| path);
        Ok(lost.take(PATHS_SHOWN).collect())
    }

    fn is_unchanged(&self) -> bool {
        let current = self.before.current_point();
        // What a point is worth is a part of it.
        let is_labelled = |point: &Point| self.offer.label != Label::Fenced || point.label == Label::Fenced;
        let is_newest = |point: &Point| {
            let newest = self.offer.state.offered.iter().chain(self.offer.state.history.last());
            point.root == self.actual.manifest.root_digest() && newest.into_iter().any(|newest| newest.is(point))
        };
        self.plan.is_empty()
            && !self.options.always_point
            && self.before.epoch == self.offer.state.epoch
            && current.is_some_and(|point| is_labelled(point) && is_newest(point))
    }

    fn sync(mut self, scan: Duration) -> Result<Report, SessionError> {
        if let Some(refused) = self.guards()?.into_iter().next() {
            return Err(refused.into());
        }
        if self.is_unchanged() {
            return self.confirm(scan);
        }
        self.volume.check_unused()?;
        if self.plan.patched.as_ref().is_some_and(|patched| patched.writing == Writing::AtOnce) {
            self.volume.begin_first_copy()?;
        }
        let begin = Instant::now();
        let (wire, volume) = (self.wire, self.volume);
        let staging = self.volume.staging().map_err(|source| storage(self.volume, source))?;
        let builder = Builder {
            staging: &staging,
            live: self.volume.live(),
            pool: self.volume.pool(),
            control: self.wire.control(),
        };
        let from_pool = self.stage(&builder).inspect_err(|error| give_space_back(volume, error))?;
        let transfer = begin.elapsed();
        let committed =
            self.commit(&builder, from_pool, scan, transfer).inspect_err(|error| give_space_back(volume, error));
        let report = Report::Sync(committed?);
        fault::hit("sink.finished").map_err(|source| storage(volume, source))?;
        finish(wire, &report)?;
        Ok(report)
    }

    /// Gets every content into staging, amending the target where the source moved on meanwhile.
    fn stage(&mut self, builder: &Builder<'_>) -> Result<Vec<Digest>, SessionError> {
        let is_fresh = builder.staging.is_empty().map_err(|source| storage(self.volume, source))?;
        let mut leftovers = if is_fresh { Leftovers::None } else { Leftovers::Possible };
        if !is_fresh {
            // Through a descriptor that was open before: it tells what could not be written since.
            let synced = crate::record::sync_filesystem(self.volume.beside());
            synced.map_err(|source| CommitError::Stage(StageError::Sync(source)))?;
        }
        for _ in 0..ROUNDS_MAX {
            let (missing, from_pool) = builder.prepare(&self.plan)?;
            fault::hit("stage.prepared").map_err(|source| storage(self.volume, source))?;
            let bytes = missing.iter().map(|missing| missing.body.size).sum();
            self.wire.control().progress.enter(Phase::Transferring, missing.len() as u64, bytes);
            let fetched = fetch(
                self.wire,
                &missing.iter().map(|missing| self.fetch_of(missing)).collect::<Vec<_>>(),
                Replica {
                    live: self.volume.live(),
                    staging: builder.staging.tree(),
                    patches: builder.staging.patches(),
                    bases: Some(self.volume.bases()),
                },
                leftovers,
                &Limits { in_flight_bytes: self.wire.control().in_flight_bytes, ..Limits::default() },
            )?;
            leftovers = Leftovers::Possible;
            fault::hit("stage.fetched").map_err(|source| storage(self.volume, source))?;
            if !self.amend(&missing, fetched)? {
                return Ok(from_pool);
            }
            self.plan = self.planned()?;
            if let Some(refused) = self.guards()?.into_iter().next() {
                return Err(refused.into());
            }
        }
        let path = self.fuzzy.last().cloned().unwrap_or_else(RelPath::root);
        Err(SessionError::Restless { path })
    }

    fn fetch_of(&self, missing: &Missing) -> Fetch {
        let (dir, name) = missing.path.split().expect("the root is no file");
        let base = missing.base.clone();
        let base_entry = base.as_ref().and_then(|base| self.actual.manifest.find(base));
        let base_body = base_entry.and_then(|entry| entry.node.body().copied());
        let way = match self.plan.patched.as_ref().map(|patched| patched.writing) {
            None => Way::Whole,
            Some(Writing::Patch) => Way::Patch,
            Some(Writing::AtOnce) => Way::AtOnce,
        };
        Fetch { path: missing.path.clone(), body: missing.body, base, base_body, dest: Dest { dir, name }, way }
    }

    fn amend(&mut self, missing: &[Missing], fetched: Vec<Fetched>) -> Result<bool, SessionError> {
        let (mut changed, mut gone) = (Vec::new(), Vec::new());
        for (missing, fetched) in missing.iter().zip(fetched) {
            match fetched {
                Fetched::AsWanted => {}
                Fetched::Changed { meta, body, settled } => {
                    if settled == Settled::Moving {
                        self.fuzzy.push(missing.path.clone());
                    }
                    changed.push((missing.path.clone(), meta, body));
                }
                Fetched::Gone => {
                    self.fuzzy.push(missing.path.clone());
                    gone.push(missing.path.clone());
                }
            }
        }
        if changed.is_empty() && gone.is_empty() {
            return Ok(false);
        }
        self.target.replace(&changed)?;
        self.target.drop_gone(&self.actual.manifest, &gone)?;
        Ok(true)
    }

    fn confirm(self, scan: Duration) -> Result<Report, SessionError> {
        self.volume.update_state(|state| {
            state.confirmed_at = Some(self.offer.taken_at);
            state.resync = false;
        })?;
        let durations = Durations { scan: millis(scan), compare: millis(self.compare), ..Durations::default() };
        let report = self.report(self.before.current_point().cloned(), durations, None, Vec::new());
        let report = Report::Sync(SyncReport { unchanged: true, ..report });
        finish(self.wire, &report)?;
        Ok(report)
    }

    fn commit(
        mut self,
        builder: &Builder<'_>,
        from_pool: Vec<Digest>,
        scan: Duration,
        transfer: Duration,
    ) -> Result<SyncReport, SessionError> {
        let control = self.wire.control();
        let moved = control.progress.wire_sent.get() + control.progress.wire_received.get();
        let is_fuzzy = !self.fuzzy.is_empty() || !self.not_deleted.is_empty();
        let label = if is_fuzzy { Label::Fuzzy } else { self.offer.label };
        let point = propose(self.offer, &self.before, self.target.manifest(), label, moved);
        self.wire.send(&Message::Propose(Box::new(point.clone())))?;
        match self.wire.receive()? {
            Message::Proceed => {}
            Message::Failure(failure) => return Err(SessionError::Peer(failure)),
            other => {
                return Err(SessionError::Unexpected { expected: "proceed", got: other.name() });
            }
        }
        fault::hit("sink.proceed").map_err(|source| storage(self.volume, source))?;
        // The transfer may have taken hours. A device is opened exclusively by what writes it.
        if self.before.kind == VolumeKind::BlockFile {
            self.volume.check_unused()?;
        }
        let (repaired, lost) = self.repaired()?;
        let kept = self.volume.kept_point(&self.before, self.actual, &self.plan);
        let (state, expired) = advance(self.offer, &self.before, &point, kept.as_ref(), lost, unix_now());
        let target = self.target.manifest().clone();
        let mut points = vec![(&point, &target)];
        points.extend(kept.as_ref().map(|kept| (kept, &self.actual.manifest)));
        let changes = self.plan.changes.clone();
        let plan = std::mem::take(&mut self.plan);
        let transaction = Transaction { volume: self.volume, actual: self.actual, target: &target, plan, control };
        let took = transaction.commit(builder, from_pool, &points, state, &expired)?;
        let durations = Durations {
            scan: millis(scan),
            compare: millis(self.compare),
            transfer: millis(transfer),
            commit: millis(took.commit),
            apply: millis(took.apply),
            retain: millis(took.retain),
        };
        self.plan.changes = changes;
        let kept_as = kept.filter(|kept| kept.origin == Origin::Kept).map(|kept| kept.id);
        Ok(self.report(Some(point), durations, kept_as, repaired))
    }

    fn report(
        &self,
        point: Option<Point>,
        durations: Durations,
        kept_as: Option<crate::point::PointId>,
        repaired: Vec<RelPath>,
    ) -> SyncReport {
        let progress = &self.wire.control().progress;
        SyncReport {
            point,
            unchanged: false,
            changes: self.plan.changes.clone(),
            wire_sent: progress.wire_sent.get(),
            wire_received: progress.wire_received.get(),
            durations,
            fuzzy: self.fuzzy.iter().take(PATHS_SHOWN).cloned().collect(),
            not_deleted: self.not_deleted.iter().take(PATHS_SHOWN).cloned().collect(),
            repaired,
            kept_as,
            found_by: self.found_by.clone(),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis() as u64
}

/// New paths of inodes that move, with their old ones.
fn renames(plan: &Plan) -> BTreeMap<&RelPath, &RelPath> {
    let mut left = BTreeMap::new();
    let mut renames = BTreeMap::new();
    for step in &plan.steps {
        match step {
            Step::Out { path, place, onward: true, .. } => drop(left.insert(place, path)),
            Step::In { path, place, .. } | Step::Exchange { path, place, .. } => {
                renames.extend(left.get(place).map(|old| (path, *old)));
            }
            _ => {}
        }
    }
    renames
}

/// What a dry run shows.
fn items(plan: &Plan, actual: &Index, target: &Manifest) -> (Vec<PlanItem>, u64) {
    let diff = diff(actual, target);
    let renames = renames(plan);
    let leaving: BTreeSet<&RelPath> = renames.values().copied().collect();
    // What would be lost comes first, since a long list is cut.
    let is_lost = |path: &RelPath, change: &Change| matches!(change, Change::Removed(_)) && !leaving.contains(path);
    let shown =
        diff.changes.iter().filter(|(path, change)| !matches!(change, Change::Removed(_)) || is_lost(path, change));
    let (deletes, rest): (Vec<_>, Vec<_>) = shown.partition(|(path, change)| is_lost(path, change));
    let count = (deletes.len() + rest.len()) as u64;
    let items = deletes.into_iter().chain(rest).map(|(path, change)| {
        let bytes = change.wanted().and_then(|new| new.node.body()).map_or(0, |body| body.size);
        let from = renames.get(path).copied().cloned();
        let action = match change {
            _ if from.is_some() => Action::Rename,
            Change::Added(_) => Action::Create,
            Change::Removed(_) => Action::Delete,
            Change::Changed(old, new) if old.entry.node.same_kind_and_content(&new.node) => Action::Metadata,
            Change::Changed(..) => Action::Update,
        };
        let is_written = matches!(action, Action::Create | Action::Update);
        PlanItem { action, path: path.clone(), from, bytes: if is_written { bytes } else { 0 } }
    });
    let left_out = count.saturating_sub(PATHS_SHOWN as u64);
    debug_assert!(Changes::default() != plan.changes || diff.changes.is_empty());
    (items.take(PATHS_SHOWN).collect(), left_out)
}
