//! Plan: what a sync would move at most, and what would refuse it. Nothing is changed.

use super::{ImageFrom, ImageMessage, ImageOffer, finished, held, receive, send};
use crate::{
    control::Phase,
    error::Kind,
    image::{ImageCopy, Range, SnapshotName, verbs::no_image},
    point::{Acceptance, accept},
    report::{Changes, PlanReport, Report},
    session::{Failure, SessionError, Wire, sink::finish},
};

pub(super) fn source(wire: &Wire<'_>, image: &dyn ImageCopy) -> Result<Report, SessionError> {
    wire.control().progress.enter(Phase::Planning, 0, 0);
    let state = image.state()?;
    let look = image.look()?.ok_or_else(|| SessionError::Image(no_image()))?;
    let points = held(&state, &look.snapshots);
    let offer = ImageOffer { state, size_bytes: look.size_bytes, order: look.order, points: points.clone() };
    send(wire, ImageMessage::Offer(offer))?;
    let ImageMessage::From(from) = receive(wire, "from")? else {
        return Err(SessionError::Protocol("asked for what no plan needs"));
    };
    let since = match from.base {
        None => None,
        Some(id) => {
            let named = points.iter().find(|point| point.id == id);
            Some(SnapshotName::from(named.ok_or(SessionError::Protocol("named an unknown point"))?))
        }
    };
    send(wire, ImageMessage::Changed(bytes(&image.head_changes(since)?)))?;
    match finished(wire)? {
        report @ Report::Plan(_) => Ok(report),
        _ => Err(SessionError::Protocol("sent a report of another kind")),
    }
}

pub(super) fn sink(wire: &Wire<'_>, image: &dyn ImageCopy) -> Result<Report, SessionError> {
    wire.control().progress.enter(Phase::Planning, 0, 0);
    let state = image.state()?;
    let look = image.look()?;
    let ImageMessage::Offer(offer) = receive(wire, "image offer")? else {
        return Err(SessionError::Protocol("offered nothing"));
    };
    let acceptance = accept(&offer.state, &state)?;
    if look.is_none() && acceptance != Acceptance::Initial {
        return Err(SessionError::Image(no_image()));
    }
    let ours = look.as_ref().map(|look| held(&state, &look.snapshots)).unwrap_or_default();
    let base = ours.into_iter().rev().find(|point| offer.points.iter().any(|theirs| theirs.is(point)));
    let own = match &look {
        Some(_) => bytes(&image.head_changes(base.as_ref().map(Into::into))?),
        None => 0,
    };
    let refused_by = match image.check_unused() {
        Err(Failure { kind: Kind::Precondition, reason, message }) => vec![(reason, message)],
        unused => unused.map(|()| Vec::new())?,
    };
    send(
        wire,
        ImageMessage::From(ImageFrom {
            base: base.as_ref().map(|base| base.id),
            current: state.current_point().cloned(),
        }),
    )?;
    let ImageMessage::Changed(theirs) = receive(wire, "changed")? else {
        return Err(SessionError::Protocol("sent another thing than what was asked for"));
    };
    let changed = own.saturating_add(theirs);
    let updated = u64::from(changed > 0 || base.is_none());
    let report = Report::Plan(PlanReport {
        changes: Changes { updated, bytes_changed: changed, bytes_needed: changed, ..Changes::default() },
        items: Vec::new(),
        items_left_out: 0,
        refused_by,
        repaired: Vec::new(),
        found_by: Default::default(),
    });
    finish(wire, &report)?;
    Ok(report)
}

fn bytes(ranges: &[Range]) -> u64 {
    ranges.iter().map(|range| range.length).sum()
}
