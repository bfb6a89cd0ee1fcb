//! Rollback: the tree becomes one of its restore points, by the same way as in a sync, with contents from history.

use std::{collections::HashMap, io};

use super::{Volume, VolumeError};
use crate::{
    control::{Control, Phase},
    index::Index,
    plan::{Plan, Writing},
    point::{Label, Origin, Point, PointId, Role, VolumeState},
    report::RollbackReport,
    scan::Scan,
    stage::{Builder, Missing},
    transaction::{CommitError, Transaction, load_manifest},
    tree::{ManifestError, Node},
};

impl Volume {
    /// To an older point or forward again. Syncs pause until the volume is released.
    pub fn rollback(&self, to: PointId, control: &Control) -> Result<RollbackReport, VolumeError> {
        let _occupied = self.occupy("rollback")?;
        self.check_tree()?;
        self.finish_interrupted()?;
        self.check_unused()?;
        let storage = |source| VolumeError::Storage { volume: self.id(), source };
        let before = self.state();
        if before.role == Role::Primary {
            return Err(VolumeError::PrimaryCantRollBack(self.id()));
        }
        let refused = |source| VolumeError::Refused { volume: self.id(), source };
        let point = before.restorable(to).map_err(refused)?.clone();
        let target = load_manifest(self, &point)?;
        control.progress.enter(Phase::Scanning, 0, 0);
        let mut actual = self.scan_whole(false, control)?.index;
        control.progress.enter(Phase::Planning, 0, 0);
        let mut plan = self.plan(&actual, &target, &control.bases)?;
        let staging = self.staging().map_err(storage)?;
        let builder = Builder { staging: &staging, live: self.live(), pool: self.pool(), control };
        let (mut missing, mut from_pool) = builder.prepare(&plan).map_err(CommitError::from)?;
        if !missing.is_empty()
            && take_for_equal(&mut actual, &missing).map_err(|error| storage(io::Error::other(error)))?
        {
            plan = self.plan(&actual, &target, &control.bases)?;
            (missing, from_pool) = builder.prepare(&plan).map_err(CommitError::from)?;
        }
        if let Some(first) = missing.first() {
            let (path, others) = (first.path.clone(), missing.len() - 1);
            return Err(VolumeError::Incomplete { point: to, path, others });
        }
        let mut state = before.clone();
        let kept = self.kept_point(&before, &actual, &plan);
        state.restorable.extend(kept.clone());
        state.transaction += 1;
        state.current = Some(to);
        state.paused = state.history.last().is_some_and(|newest| newest.id != to);
        let expired = state.expire(super::unix_now());
        let changes = plan.changes.clone();
        let points: Vec<_> = kept.iter().map(|point| (point, &actual.manifest)).collect();
        let transaction = Transaction { volume: self, actual: &actual, target: &target, plan, control };
        let took = transaction.commit(&builder, from_pool, &points, state, &expired)?;
        control.progress.enter(Phase::Done, 0, 0);
        Ok(RollbackReport {
            from: before.current,
            to,
            changes,
            apply_millis: took.apply.as_millis() as u64,
            kept_as: kept.filter(|point| point.origin == Origin::Kept).map(|point| point.id),
        })
    }

    /// The replica's own tree; an entry that can't be read stops everything.
    pub(crate) fn scan_whole(&self, deep: bool, control: &Control) -> Result<Scan, VolumeError> {
        let mut scan = self.scan(deep, control)?;
        let unreadable = scan.unreadable.len();
        if let Some((path, source)) = scan.unreadable.drain(..).next() {
            return Err(VolumeError::Unreadable { path, unreadable, source });
        }
        Ok(scan)
    }

    /// R7: what the tree holds, when nothing has it for a restore point and it would be overwritten. That is a point of its own, or the one that
    /// this copy is at and was never kept here, since it was the primary.
    pub(crate) fn kept_point(&self, state: &VolumeState, actual: &Index, plan: &Plan) -> Option<Point> {
        let root = actual.manifest.root_digest();
        let at = state.current_point().filter(|point| point.root == root);
        let is_new_and_empty = state.current.is_none() && actual.manifest.totals().entries <= 1;
        // What a device holds before its first sync is nobody's.
        let is_nobodys = plan.patched.as_ref().is_some_and(|patched| patched.writing == Writing::AtOnce);
        if is_new_and_empty || is_nobodys || plan.is_empty() {
            return None;
        }
        if let Some(at) = at {
            return state.restorable(at.id).is_err().then(|| at.clone());
        }
        let number = state.current.map_or(0, |current| current.number);
        let used = state.restorable.iter().filter(|point| point.id.number == number).map(|point| point.id.kept);
        Some(Point {
            id: PointId { number, kept: used.max().unwrap_or(0) + 1 },
            origin: Origin::Kept,
            lineage: state.lineage,
            epoch: state.epoch,
            parent: state.current,
            taken_at: super::unix_now(),
            root,
            totals: actual.manifest.totals().into(),
            label: Label::PerFile,
            bytes_moved: 0,
            lost: Vec::new(),
            is_cut: false,
        })
    }
}

/// What a point needs and only the tree has, with other holes: those depend on the file system as well, and the content is what counts.
/// Returns whether there was such a file; all of them have the point's holes then.
fn take_for_equal(actual: &mut Index, missing: &[Missing]) -> Result<bool, ManifestError> {
    let wanted: HashMap<_, _> = missing.iter().map(|missing| (missing.body.digest, missing.body)).collect();
    let mut was_taken = false;
    actual.edit(|entry| {
        if let Node::File(body) = &mut entry.node
            && let Some(wanted) = wanted.get(&body.digest).filter(|wanted| wanted.size == body.size)
        {
            was_taken |= body != wanted;
            *body = *wanted;
        }
    })?;
    Ok(was_taken)
}
