//! The side that has the image's users.

use super::{ImageEnd, ImageFrom, ImageMessage, ImageOffer, NUMBER_MAX, held, receive, remove_expired, send, sweep};
use crate::{
    control::Phase,
    error::Kind,
    fault,
    image::{ImageCopy, Range, SnapshotName, root_digest, stream::Totals},
    point::{Label, Origin, Point, PointId, PointTotals, VolumeState},
    report::Report,
    session::{Failure, Message, SessionError, SyncOptions, Wire},
    volume::unix_now,
};

/// Ranges that a sink may ask for: 64 MiB of memory, and more than an honest one makes.
const RANGES_MAX: usize = 1 << 22;

pub(super) fn run(wire: &Wire<'_>, image: &dyn ImageCopy, options: &SyncOptions) -> Result<Report, SessionError> {
    wire.control().progress.enter(Phase::Comparing, 0, 0);
    let mut state = image.state()?;
    // Its turn is held: that one was interrupted.
    state.promoting = false;
    let look = image.look()?.ok_or_else(no_image)?;
    sweep(image, &mut state, &look.snapshots);
    let points = held(&state, &look.snapshots);
    let offer = ImageOffer { state: state.clone(), size_bytes: look.size_bytes, order: look.order, points };
    let known = offer.points.clone();
    send(wire, ImageMessage::Offer(offer))?;
    fault::hit("image.offered").map_err(failpoint)?;
    let mut also = Vec::new();
    let from = loop {
        match receive(wire, "from")? {
            ImageMessage::Ranges(ranges) if also.len() + ranges.len() <= RANGES_MAX => also.extend(ranges),
            ImageMessage::From(from) => break from,
            _ => return Err(SessionError::Protocol("asked for what no sync needs")),
        }
    };
    let is_in_order = also.windows(2).all(|pair| pair[0].end() <= pair[1].offset);
    if !is_in_order || from.highest_number > NUMBER_MAX {
        return Err(SessionError::Protocol("sent ranges that are none"));
    }
    let base = match from.base {
        None => None,
        Some(id) => Some(
            known.into_iter().find(|point| point.id == id).ok_or(SessionError::Protocol("named an unknown point"))?,
        ),
    };
    Source { wire, image, options }.go_on(state, base, &also, &from)
}

struct Source<'a> {
    wire: &'a Wire<'a>,
    image: &'a dyn ImageCopy,
    options: &'a SyncOptions,
}

impl Source<'_> {
    fn go_on(
        &self,
        mut state: VolumeState,
        base: Option<Point>,
        also: &[Range],
        from: &ImageFrom,
    ) -> Result<Report, SessionError> {
        // Its confirmation was lost.
        let confirmed = state.offered.take_if(|offered| from.current.as_ref().is_some_and(|it| it.is(offered)));
        if let Some(offered) = confirmed {
            confirm(&mut state, offered);
        }
        let number = state.highest_number().max(from.highest_number) + 1;
        let name = SnapshotName { id: PointId::sync(number), taken_at: unix_now() };
        self.image.take(name)?;
        fault::hit("image.taken").map_err(failpoint)?;
        let is_current = base.as_ref().map(|base| base.id) == from.current.as_ref().map(|current| current.id);
        let (size_bytes, base_bytes) =
            (self.image.size_at(name)?, base.as_ref().map(|base| self.image.size_at(base.into())).transpose()?);
        let progress = &self.wire.control().progress;
        progress.enter(Phase::Transferring, 0, 0);
        let mut has_begun = false;
        let begin = |has_begun: &mut bool| match std::mem::replace(has_begun, true) {
            true => Ok(()),
            false => send(self.wire, ImageMessage::Begin(size_bytes)),
        };
        let totals = self.image.read(base.as_ref().map(Into::into), name, also, &mut |frame| {
            begin(&mut has_begun)?;
            fault::hit("image.sent").map_err(failpoint)?;
            progress.bytes_done.add(frame.len() as u64);
            send(self.wire, ImageMessage::Delta(frame))
        })?;
        // A new line begins with a point, or the other side never learns of it.
        let is_of_line = base.as_ref().is_some_and(|base| base.lineage == state.lineage);
        let is_same =
            totals.is_empty() && also.is_empty() && base_bytes == Some(size_bytes) && is_current && is_of_line;
        if is_same && !self.options.always_point {
            self.image.remove(name)?;
            // The sink has said that it is at another point.
            state.offered = None;
            self.image.set_state(&state)?;
            send(self.wire, ImageMessage::Unchanged)?;
            return self.finished(state, name.taken_at);
        }
        begin(&mut has_begun)?;
        let sent = progress.wire_sent.get() + progress.wire_received.get();
        let point = point(&state, name, base.as_ref(), size_bytes, &totals, sent);
        state.offered = Some(point.clone());
        self.image.set_state(&state)?;
        fault::hit("image.proposed").map_err(failpoint)?;
        progress.enter(Phase::Committing, 0, 0);
        send(self.wire, ImageMessage::End(ImageEnd { point, totals }))?;
        self.finished(state, name.taken_at)
    }

    fn finished(&self, mut state: VolumeState, taken_at: i64) -> Result<Report, SessionError> {
        let report = match self.wire.receive()? {
            Message::Finished(report) => report,
            Message::Failure(failure) => return Err(SessionError::Peer(failure)),
            other => return Err(SessionError::Unexpected { expected: "finished", got: other.name() }),
        };
        fault::hit("image.finished").map_err(failpoint)?;
        let report: Report =
            serde_json::from_str(&report).map_err(|_| SessionError::Protocol("sent a report that is none"))?;
        let Report::Sync(synced) = &report else {
            return Err(SessionError::Protocol("sent a report of another kind"));
        };
        let is_it = |offered: &mut Point| synced.point.as_ref().is_some_and(|point| point.is(offered));
        if let Some(offered) = state.offered.take_if(is_it) {
            confirm(&mut state, offered);
        }
        state.confirmed_at = Some(taken_at);
        let expired = state.expire(unix_now());
        self.image.set_state(&state)?;
        remove_expired(self.image, &expired);
        Ok(report)
    }
}

fn confirm(state: &mut VolumeState, point: Point) {
    state.current = Some(point.id);
    state.restorable.push(point.clone());
    state.append(point);
}

fn point(
    state: &VolumeState,
    name: SnapshotName,
    base: Option<&Point>,
    size_bytes: u64,
    totals: &Totals,
    bytes_moved: u64,
) -> Point {
    Point {
        id: name.id,
        origin: Origin::Sync,
        lineage: state.lineage,
        epoch: state.epoch,
        parent: base.map(|base| base.id),
        taken_at: name.taken_at,
        root: root_digest(base, size_bytes, totals),
        totals: PointTotals { entries: 1, bytes: size_bytes },
        label: Label::CrashConsistent,
        bytes_moved,
        lost: Vec::new(),
    }
}

fn no_image() -> SessionError {
    SessionError::Image(Failure {
        kind: Kind::NotFound,
        reason: "no-such-image".to_owned(),
        message: "the source's image is not there".to_owned(),
    })
}

pub(super) fn failpoint(error: std::io::Error) -> SessionError {
    SessionError::Image(Failure { kind: Kind::Storage, reason: "storage".to_owned(), message: error.to_string() })
}
