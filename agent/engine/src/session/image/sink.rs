//! The side that becomes the same.

use std::time::{Duration, Instant};

use super::{
    ImageEnd, ImageFrom, ImageMessage, ImageOffer, LEAVES_MAX, NUMBER_MAX, RANGES_MAX, TIME_MAX, held, kept_from,
    receive, remove_expired, send, source::failpoint, sweep,
};
use crate::{
    control::Phase,
    error::Kind,
    fault,
    image::{Ground, ImageCopy, Range, SnapshotName, keep, root_digest},
    point::{Acceptance, Origin, Point, PointId, PointTotals, VolumeState, accept},
    report::{Changes, Durations, Report, SyncReport},
    session::{Failure, Offer, SessionError, Wire, point::advance, sink::finish},
    volume::unix_now,
};

pub(super) fn run(wire: &Wire<'_>, image: &dyn ImageCopy) -> Result<Report, SessionError> {
    wire.control().progress.enter(Phase::Comparing, 0, 0);
    let begun = Instant::now();
    // The other side looks at its own meanwhile.
    let mut state = image.state()?;
    // Its turn is held: that one was interrupted.
    state.promoting = false;
    let is_there = image.open()? && image.look()?.is_some();
    let ImageMessage::Offer(offer) = receive(wire, "image offer")? else {
        return Err(SessionError::Protocol("offered nothing"));
    };
    let acceptance = accept(&offer.state, &state)?;
    let can_be = |point: &Point| {
        point.lost.is_empty() && point.id.number <= NUMBER_MAX && (0..TIME_MAX).contains(&point.taken_at)
    };
    if !offer.state.history.iter().chain(&offer.state.offered).all(can_be) {
        return Err(SessionError::Protocol("sent points that no image has"));
    }
    match acceptance {
        _ if is_there => {}
        Acceptance::Initial => {
            image.create(offer.size_bytes, offer.order)?;
            image.open()?;
        }
        _ => return Err(gone()),
    }
    send(wire, ImageMessage::Accepted(state.highest_number()))?;
    // Who writes to it would go on after it was kept.
    image.keep_others_out()?;
    let look = image.look()?.ok_or_else(gone)?;
    sweep(image, &mut state, &look.snapshots, None);
    let ours = held(&state, &look.snapshots);
    let base = ours.into_iter().rev().find(|point| offer.points.iter().any(|theirs| theirs.is(point)));
    let head = keep(image, &look, &mut state)?;
    let since = base.as_ref().map(SnapshotName::from);
    let mut ranges = if since.is_some() && since == head.at { Vec::new() } else { image.head_changes(since)? };
    if let Some(base_bytes) = since.and_then(|since| look.snapshots.get(&since)).filter(|_| ranges.is_empty()) {
        ranges.extend(resized(look.size_bytes, *base_bytes));
    }
    // What a verification found is asked for again, whatever the head says of itself.
    let ranges = union(ranges, &state.differs);
    fault::hit("image.compared").map_err(failpoint)?;
    for ranges in ranges.chunks(RANGES_MAX) {
        send(wire, ImageMessage::Ranges(ranges.to_vec()))?;
    }
    // Of an image that shares no point, what it holds is not sent once more: that of an interrupted first copy, or one that is adopted.
    let mut ground = base.as_ref().map(Ground::of_point).unwrap_or_default();
    if base.is_none() && !ranges.is_empty() {
        let mut told = 0;
        image.digests(None, &mut |leaves| {
            // None says that it goes on.
            let leaves = &leaves[..leaves.len().min(LEAVES_MAX - told)];
            told += leaves.len();
            ground.add(leaves);
            send(wire, ImageMessage::Leaves(leaves.to_vec()))
        })?;
    }
    send(
        wire,
        ImageMessage::From(ImageFrom {
            base: base.as_ref().map(|base| base.id),
            current: state.current_point().cloned(),
        }),
    )?;
    let compared = Instant::now();
    let begin = receive(wire, "begin")?;
    // The source's snapshot, and the first of its changes.
    let durations =
        Durations { compare: millis(compared - begun), scan: millis(compared.elapsed()), ..Durations::default() };
    let sink = Sink { wire, image, offer, kept_as: head.kept, ground, durations };
    match begin {
        ImageMessage::Begin(size_bytes) => sink.take(state, base.as_ref(), size_bytes),
        ImageMessage::Unchanged if ranges.is_empty() && base.is_some() => sink.unchanged(state),
        _ => Err(SessionError::Protocol("sent another thing than what was asked for")),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Of two lists in order, one in order; neighbours are joined.
fn union(mut ranges: Vec<Range>, also: &[Range]) -> Vec<Range> {
    ranges.extend(also);
    ranges.sort_by_key(|range| range.offset);
    let mut joined: Vec<Range> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.offset <= last.end() => last.length = last.end().max(range.end()) - last.offset,
            _ => joined.push(range),
        }
    }
    joined
}

/// Of a head that somebody, or an interrupted sync, has made another size and nothing else: something to ask for, so that a point is made.
fn resized(head_bytes: u64, base_bytes: u64) -> Option<Range> {
    let (offset, end) = (head_bytes.min(base_bytes), head_bytes.max(base_bytes));
    (offset < end).then_some(Range { offset, length: end - offset })
}

fn gone() -> SessionError {
    SessionError::Image(Failure {
        kind: Kind::NotFound,
        reason: "image-gone".to_owned(),
        message: "the replica's image is gone, and its points with it: disable the volume there and enable it again"
            .to_owned(),
    })
}

struct Sink<'a> {
    wire: &'a Wire<'a>,
    image: &'a dyn ImageCopy,
    offer: ImageOffer,
    kept_as: Option<PointId>,
    ground: Ground,
    /// Until the source began.
    durations: Durations,
}

impl Sink<'_> {
    fn take(self, mut state: VolumeState, base: Option<&Point>, size_bytes: u64) -> Result<Report, SessionError> {
        let progress = &self.wire.control().progress;
        // From the first byte on the head is no point's.
        state.staging = true;
        self.image.set_state(&state)?;
        fault::hit("image.staging").map_err(failpoint)?;
        progress.enter(Phase::Transferring, 0, 0);
        let begun = Instant::now();
        let mut end: Option<ImageEnd> = None;
        let written = self.image.write(size_bytes, &mut || {
            fault::hit("image.received").map_err(failpoint)?;
            match receive(self.wire, "delta")? {
                ImageMessage::Delta(frame) => {
                    progress.bytes_done.add(frame.len() as u64);
                    Ok(Some(frame))
                }
                ImageMessage::End(last) => {
                    end = Some(last);
                    Ok(None)
                }
                _ => Err(SessionError::Protocol("sent another thing than a delta")),
            }
        })?;
        let transfer = begun.elapsed();
        let Some(ImageEnd { point, totals }) = end else { return Err(SessionError::Protocol("ended without an end")) };
        if written != totals || point.root != root_digest(self.ground, size_bytes, &totals) {
            return Err(SessionError::Image(Failure {
                kind: Kind::DataLoss,
                reason: "content-mismatch".to_owned(),
                message: "what was written is not what the source has sent: the replica stays at its point".to_owned(),
            }));
        }
        self.check(&state, &point, base, size_bytes)?;
        let commit = Instant::now();
        progress.enter(Phase::Committing, 0, 0);
        fault::hit("image.written").map_err(failpoint)?;
        let taken_bytes = self.image.take((&point).into())?;
        fault::hit("image.snapped").map_err(failpoint)?;
        if taken_bytes != size_bytes {
            return self.resized(&point);
        }
        let offer = Offer {
            state: self.offer.state.clone(),
            root: String::new(),
            label: point.label,
            fuzzy: Vec::new(),
            taken_at: point.taken_at,
            rotten: Vec::new(),
            found_by: Default::default(),
        };
        state.kept_from = kept_from(self.image, &state);
        let (mut state, expired) = advance(&offer, &state, &point, None, Vec::new(), unix_now());
        state.staging = false;
        state.blank = false;
        state.differs.clear();
        self.image.set_state(&state)?;
        fault::hit("image.committed").map_err(failpoint)?;
        let durations = Durations { transfer: millis(transfer), commit: millis(commit.elapsed()), ..self.durations };
        let changed = totals.data_bytes + totals.zero_bytes;
        let changes =
            Changes { updated: 1, bytes_changed: changed, bytes_needed: totals.data_bytes, ..Changes::default() };
        let report = self.finish(SyncReport { point: Some(point), changes, durations, ..self.report() })?;
        // The other side does its own meanwhile.
        remove_expired(self.image, &expired);
        Ok(report)
    }

    /// Somebody may have made the image another size since it was looked at: a write beyond its end says nothing.
    fn resized(&self, point: &Point) -> Result<Report, SessionError> {
        self.image.remove(point.into())?;
        Err(SessionError::Image(Failure {
            kind: Kind::Conflict,
            reason: "foreign-write".to_owned(),
            message:
                "somebody changed the replica's size while it was synced: no point was made. Keep clients away from it"
                    .to_owned(),
        }))
    }

    /// What the source says of its point is what a point can be.
    fn check(
        &self,
        state: &VolumeState,
        point: &Point,
        base: Option<&Point>,
        size_bytes: u64,
    ) -> Result<(), SessionError> {
        let theirs = &self.offer.state;
        let is_next = point.id.kept == 0
            && (state.highest_number() + 1..=NUMBER_MAX + 1).contains(&point.id.number)
            && (0..TIME_MAX).contains(&point.taken_at)
            && point.lost.is_empty()
            && point.origin == Origin::Sync
            && (point.lineage, point.epoch) == (theirs.lineage, theirs.epoch)
            && point.parent == base.map(|base| base.id)
            && point.totals == PointTotals { entries: 1, bytes: size_bytes };
        if is_next { Ok(()) } else { Err(SessionError::Protocol("proposed a point that can't be the next one")) }
    }

    fn unchanged(self, mut state: VolumeState) -> Result<Report, SessionError> {
        let now = unix_now();
        state.confirmed_at = Some(now);
        (state.resync, state.staging) = (false, false);
        // Of a line that was given up, and in which no point was made: it is of the source's again.
        (state.epoch, state.lineage) = (self.offer.state.epoch, self.offer.state.lineage);
        self.image.set_state(&state)?;
        let point = state.current_point().cloned();
        self.finish(SyncReport { point, unchanged: true, ..self.report() })
    }

    fn report(&self) -> SyncReport {
        let progress = &self.wire.control().progress;
        SyncReport {
            point: None,
            unchanged: false,
            changes: Changes::default(),
            wire_sent: progress.wire_sent.get(),
            wire_received: progress.wire_received.get(),
            durations: self.durations,
            fuzzy: Vec::new(),
            not_deleted: Vec::new(),
            repaired: Vec::new(),
            kept_as: self.kept_as,
            found_by: Default::default(),
        }
    }

    fn finish(&self, report: SyncReport) -> Result<Report, SessionError> {
        let report = Report::Sync(report);
        finish(self.wire, &report)?;
        Ok(report)
    }
}
