//! Promotion, demotion and their like of an image: as those of a volume beneath a root (`crate::volume`), and what is different with an image:
//! its head.

use super::{Head, ImageCopy, SnapshotName, is_at, keep};
use crate::{
    error::Kind,
    fault,
    point::{self, Force, PeerCopy, PointId, Role, Unsafe, VolumeState},
    report::{Changes, RollbackReport},
    session::Failure,
};

fn refused(reason: &str, message: String) -> Failure {
    Failure { kind: Kind::Precondition, reason: reason.to_owned(), message }
}

pub fn no_image() -> Failure {
    Failure {
        kind: Kind::NotFound,
        reason: "image-gone".to_owned(),
        message: "the image is not there: no sync has ever come here, or it was removed".to_owned(),
    }
}

/// R11: the head becomes what the newest point is, and what it held besides that is nobody's staging is kept first (R7). Returns how that is
/// named.
pub fn settle(image: &dyn ImageCopy, state: &mut VolumeState) -> Result<Option<PointId>, Failure> {
    image.keep_others_out()?;
    let Some(current) = state.current_point().map(SnapshotName::from) else { return Ok(None) };
    let look = image.look()?.ok_or_else(no_image)?;
    if is_at(image, &look, current)? {
        state.staging = false;
        return Ok(None);
    }
    let Head { kept, .. } = keep(image, &look, state)?;
    // What is half restored is nobody's content.
    state.staging = true;
    image.set_state(state)?;
    image.restore(current)?;
    state.staging = false;
    image.set_state(state)?;
    Ok(kept)
}

/// `ask`: what the peer says of its copy. The promotion is on record before that is asked, so that of two sites that promote at once at least one sees
/// the other. By force what the peer has is given up, but never beside a primary that answers. Returns what was kept of the head.
pub fn promote(
    image: &dyn ImageCopy,
    force: Force,
    ask: impl FnOnce() -> Result<PeerCopy, String>,
) -> Result<Option<PointId>, Failure> {
    let mut state = image.state()?;
    if state.role == Role::Primary {
        return Ok(None);
    }
    let look = image.look()?.ok_or_else(no_image)?;
    // A snapshot that is of no point, and of what the copy held before, is not what the next point is made of.
    let used = look.snapshots.keys().map(|name| name.id.number).max().unwrap_or(0);
    state.passed = state.passed.max(used);
    let never = |error: point::StateError| refused("never-synced", error.to_string());
    state.clone().promote(force).map_err(never)?;
    state.promoting = true;
    image.set_state(&state)?;
    let told = ask();
    let planned = point::planned(&state, told.as_ref().map_err(Clone::clone));
    if let Err(why) = planned {
        if force == Force::No || why.is_final() {
            state.promoting = false;
            image.set_state(&state)?;
            let (kind, reason) = (why.kind(), why.reason().to_owned());
            return Err(Failure { kind, reason, message: format!("a promotion is not safe: {why}") });
        }
        tracing::warn!(volume = %state.volume, "promoted by force: {why}");
    }
    if let Some(damaged) = state.current.filter(|at| force == Force::Yes && state.damaged.contains(at)) {
        tracing::warn!(volume = %state.volume, "promoted by force: {}", Unsafe::Damaged(damaged));
    }
    let settled = settle(image, &mut state);
    if settled.is_err() {
        state.promoting = false;
        // What went wrong says more.
        let _ = image.set_state(&state);
    }
    let kept = settled?;
    state.promote(force).map_err(never)?;
    image.set_state(&state)?;
    Ok(kept)
}

/// Whether a primary's users have written nothing since the point that it is at.
pub fn is_unwritten(image: &dyn ImageCopy, state: &VolumeState) -> Result<bool, Failure> {
    let Some(current) = state.current_point().map(SnapshotName::from) else { return Ok(false) };
    image.look()?.map_or(Ok(false), |look| is_at(image, &look, current))
}

/// By force, and to the point that all images of its group end on, be it older than what the copy is at.
pub fn promote_at(
    image: &dyn ImageCopy,
    point: PointId,
    ask: impl FnOnce() -> Result<PeerCopy, String>,
) -> Result<Option<PointId>, Failure> {
    let state = image.state()?;
    if state.role == Role::Secondary && state.current != Some(point) {
        rollback(image, point)?;
    }
    promote(image, Force::Yes, ask)
}

/// Without force only a copy that is what its newest point says: what was written since would not be where its users go on.
pub fn demote(image: &dyn ImageCopy, force: Force) -> Result<(), Failure> {
    may_demote(image, force)?.map_or(Ok(()), |state| demote_now(image, state))
}

/// Nobody writes to the copy from here on, as long as it is held. `None`: it is a secondary already.
pub fn may_demote(image: &dyn ImageCopy, force: Force) -> Result<Option<VolumeState>, Failure> {
    let state = image.state()?;
    if state.role == Role::Secondary {
        return Ok(None);
    }
    if image.open()? {
        image.keep_others_out()?;
    }
    if force == Force::No {
        check_synced(image, &state)?;
    }
    Ok(Some(state))
}

pub fn demote_now(image: &dyn ImageCopy, mut state: VolumeState) -> Result<(), Failure> {
    state.demote();
    image.set_state(&state)
}

fn check_synced(image: &dyn ImageCopy, state: &VolumeState) -> Result<(), Failure> {
    if let Some(offered) = &state.offered {
        let message = format!("whether the other side has point {} is not known: sync once more", offered.id);
        return Err(refused("not-synced", message));
    }
    // One that was never synced has nobody who could go on elsewhere.
    let Some(newest) = state.newest() else { return Ok(()) };
    let look = image.look()?.ok_or_else(no_image)?;
    if state.current == Some(newest.id) && is_at(image, &look, newest.into())? {
        return Ok(());
    }
    let message = format!(
        "what the image holds is not its newest point {}: it was written to since, and a demotion would leave that behind",
        newest.id
    );
    Err(refused("not-synced", message))
}

/// The next sync gives this copy's line up, after keeping what it holds.
pub fn request_resync(image: &dyn ImageCopy) -> Result<(), Failure> {
    let mut state = image.state()?;
    if state.role == Role::Primary {
        return Err(refused(
            "is-primary",
            "the image is primary here: demote it before it can be synced again".to_owned(),
        ));
    }
    state.resync = true;
    image.set_state(&state)
}

/// A secondary's head becomes one of its points, older or newer than what it is at. Syncs pause until the volume is released. What the head held and
/// no point has is kept first (R7).
pub fn rollback(image: &dyn ImageCopy, to: PointId) -> Result<RollbackReport, Failure> {
    let mut state = image.state()?;
    if state.role == Role::Primary {
        return Err(refused("is-primary", "the image is primary here: demote it before it is rolled back".to_owned()));
    }
    let point = state.restorable(to).cloned().map_err(|error| Failure {
        kind: Kind::NotFound,
        reason: "no-such-point".to_owned(),
        message: error.to_string(),
    })?;
    if state.damaged.contains(&to) {
        let message =
            format!("a verification found that point {to} here is not what the source had: take another point");
        return Err(Failure { kind: Kind::DataLoss, reason: "point-damaged".to_owned(), message });
    }
    let name = SnapshotName::from(&point);
    if image.look()?.is_none() {
        return Err(no_image());
    }
    image.keep_others_out()?;
    let look = image.look()?.ok_or_else(no_image)?;
    if !look.snapshots.contains_key(&name) {
        return Err(Failure {
            kind: Kind::DataLoss,
            reason: "snapshot-gone".to_owned(),
            message: format!("the snapshot of point {to} was removed by another hand"),
        });
    }
    let from = state.current;
    let Head { kept, at } = keep(image, &look, &mut state)?;
    if at != Some(name) {
        // What is half restored is nobody's content.
        state.staging = true;
        image.set_state(&state)?;
        fault::hit("image.restoring").map_err(|error| Failure {
            kind: Kind::Storage,
            reason: "io-error".to_owned(),
            message: error.to_string(),
        })?;
        image.restore(name)?;
    }
    state.staging = false;
    state.current = Some(to);
    state.paused = state.newest().is_some_and(|newest| newest.id != to);
    image.set_state(&state)?;
    Ok(RollbackReport {
        from,
        to,
        changes: Changes { updated: 1, ..Changes::default() },
        apply_millis: 0,
        kept_as: kept,
    })
}

/// Ends the pause that a rollback began.
pub fn release(image: &dyn ImageCopy) -> Result<(), Failure> {
    let mut state = image.state()?;
    state.paused = false;
    image.set_state(&state)
}

/// No volume any more. A secondary's head becomes its newest point, and its points stay; those of a primary go, since nobody would ever remove them.
pub fn retire(image: &dyn ImageCopy) -> Result<(), Failure> {
    let mut state = image.state()?;
    let Some(look) = image.look()? else { return Ok(()) };
    match state.role {
        Role::Primary => {
            let own = look.snapshots.into_keys().filter(|snapshot| snapshot.id.number > state.floor);
            own.into_iter().try_for_each(|snapshot| image.remove(snapshot))
        }
        Role::Secondary => settle(image, &mut state).map(drop),
    }
}
