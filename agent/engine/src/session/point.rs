//! The state that a sync leads to: pure bookkeeping of points.

use super::Offer;
use crate::point::{Label, Origin, Point, PointId, VolumeState};
use crate::tree::Manifest;

/// The new point, which the source journals before the sink commits it.
pub(super) fn propose(offer: &Offer, before: &VolumeState, target: &Manifest, label: Label, bytes_moved: u64) -> Point {
    let number = offer.state.highest_number().max(before.highest_number()) + 1;
    Point {
        id: PointId::sync(number),
        origin: Origin::Sync,
        lineage: offer.state.lineage,
        epoch: offer.state.epoch,
        parent: before.current,
        taken_at: offer.taken_at,
        root: target.root_digest(),
        totals: target.totals().into(),
        label,
        bytes_moved,
        lost: Vec::new(),
        is_cut: false,
    }
}

/// The source's history as it is known to be: a point that was offered and is here was committed.
fn history(offer: &Offer, before: &VolumeState) -> Vec<Point> {
    let mut history = offer.state.history.clone();
    if let Some(offered) = &offer.state.offered
        && before.current_point().is_some_and(|current| current.is(offered))
    {
        history.push(offered.clone());
    }
    history
}

/// The replica's state with the new point, and the restore points that it no longer lists.
pub(super) fn advance(
    offer: &Offer,
    before: &VolumeState,
    point: &Point,
    kept: Option<&Point>,
    lost: Vec<crate::path::RelPath>,
    now: i64,
) -> (VolumeState, Vec<Point>) {
    let mut state = before.clone();
    if let Some(current) = state.current
        && let Some(damaged) = state.restorable.iter_mut().find(|point| point.id == current)
    {
        damaged.lost = lost;
    }
    state.transaction += 1;
    state.epoch = offer.state.epoch;
    state.lineage = offer.state.lineage;
    state.history = history(offer, before);
    state.append(point.clone());
    state.restorable.extend(kept.cloned());
    state.restorable.push(point.clone());
    state.current = Some(point.id);
    state.paused = false;
    state.resync = false;
    state.confirmed_at = Some(offer.taken_at);
    let expired = state.expire(now);
    (state, expired)
}
