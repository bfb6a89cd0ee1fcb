//! The side that has the image's users.

use super::{
    ImageEnd, ImageFrom, ImageMessage, ImageOffer, LEAVES_MAX, NUMBER_MAX, finished, held, kept_from, receive,
    remove_expired, send, sweep,
};
use crate::{
    control::Phase,
    digest::Digest,
    error::Kind,
    fault,
    image::{Basis, Ground, ImageCopy, Leaf, Range, SnapshotName, root_digest},
    point::{Label, Origin, Point, PointId, PointTotals, VolumeState},
    report::Report,
    session::{Failure, SessionError, SyncOptions, Wire},
    volume::unix_now,
};

/// Ranges that a sink may ask for: 64 MiB of memory, and more than an honest one makes.
const RANGES_MAX: usize = 1 << 22;

pub(super) fn run(wire: &Wire<'_>, image: &dyn ImageCopy, options: &SyncOptions) -> Result<Report, SessionError> {
    wire.control().progress.enter(Phase::Comparing, 0, 0);
    let mut state = image.state()?;
    // Its turn is held: that one was interrupted.
    state.promoting = false;
    image.open()?;
    let look = image.look()?.ok_or_else(no_image)?;
    // A cut that a sync of another image of the group has made.
    let pending = look.cuts.last().copied().filter(|cut| cut.id.number > state.highest_number());
    sweep(image, &mut state, &look.snapshots, pending);
    let points = held(&state, &look.snapshots);
    let offer = ImageOffer { state: state.clone(), size_bytes: look.size_bytes, order: look.order, points };
    let known = offer.points.clone();
    send(wire, ImageMessage::Offer(offer))?;
    fault::hit("image.offered").map_err(failpoint)?;
    let ImageMessage::Accepted(highest) = receive(wire, "accepted")? else {
        return Err(SessionError::Protocol("neither accepted nor refused"));
    };
    let number = state.highest_number().max(highest).saturating_add(1);
    if number > NUMBER_MAX {
        return Err(SessionError::Protocol("knows a point that is none"));
    }
    // The sink looks at its copy meanwhile.
    let cut = image.cut(number)?;
    let (name, size_bytes) = match cut {
        Some((name, _)) if !(number..=NUMBER_MAX).contains(&name.id.number) => {
            return Err(SessionError::Protocol("knows a point that is none"));
        }
        Some(cut) => cut,
        None => {
            let name = SnapshotName { id: PointId::sync(number), taken_at: unix_now() };
            (name, image.take(name)?)
        }
    };
    fault::hit("image.taken").map_err(failpoint)?;
    // One that the sink refuses after all leaves no snapshot behind, but for that of a group, which the next session takes; if it can't be removed
    // now, the next session does.
    let give_back = |_: &SessionError| {
        if cut.is_none() {
            drop(image.remove(name))
        }
    };
    let (asked, from) = Asked::receive(wire).inspect_err(give_back)?;
    let base = match from.base {
        None => None,
        Some(id) => {
            let named = known.into_iter().find(|point| point.id == id);
            let named = named.ok_or(SessionError::Protocol("named an unknown point"))?;
            let size_bytes = look.snapshots.get(&SnapshotName::from(&named)).copied();
            Some((named, size_bytes.ok_or(SessionError::Protocol("named a point without a snapshot"))?))
        }
    };
    Source { wire, image, options, is_cut: cut.is_some(), name, size_bytes }.go_on(state, base, &asked, &from)
}

/// What the sink says of its head.
#[derive(Debug, Default)]
struct Asked {
    ranges: Vec<Range>,
    leaves: Vec<Leaf>,
    /// Of the leaves.
    ground: Ground,
}

impl Asked {
    fn receive(wire: &Wire<'_>) -> Result<(Self, ImageFrom), SessionError> {
        let mut asked = Self::default();
        let from = loop {
            match receive(wire, "from")? {
                ImageMessage::Ranges(ranges) if asked.ranges.len() + ranges.len() <= RANGES_MAX => {
                    asked.ranges.extend(ranges);
                }
                ImageMessage::Leaves(leaves) if asked.leaves.len() + leaves.len() <= LEAVES_MAX => {
                    asked.ground.add(&leaves);
                    asked.leaves.extend(leaves);
                }
                ImageMessage::From(from) => break from,
                _ => return Err(SessionError::Protocol("asked for what no sync needs")),
            }
        };
        let is_in_order = asked.ranges.windows(2).all(|pair| pair[0].end() <= pair[1].offset)
            && asked.leaves.windows(2).all(|pair| pair[0].number < pair[1].number);
        if !is_in_order || (from.base.is_some() && !asked.leaves.is_empty()) {
            return Err(SessionError::Protocol("sent ranges that are none"));
        }
        Ok((asked, from))
    }
}

struct Source<'a> {
    wire: &'a Wire<'a>,
    image: &'a dyn ImageCopy,
    options: &'a SyncOptions,
    is_cut: bool,
    /// Of the new point.
    name: SnapshotName,
    size_bytes: u64,
}

impl Source<'_> {
    fn go_on(
        &self,
        mut state: VolumeState,
        base: Option<(Point, u64)>,
        asked: &Asked,
        from: &ImageFrom,
    ) -> Result<Report, SessionError> {
        // Its confirmation was lost.
        let confirmed = state.offered.take_if(|offered| from.current.as_ref().is_some_and(|it| it.is(offered)));
        if let Some(offered) = confirmed {
            confirm(&mut state, offered);
        }
        let (base, base_bytes) = base.unzip();
        let (name, size_bytes) = (self.name, self.size_bytes);
        let is_current = base.as_ref().map(|base| base.id) == from.current.as_ref().map(|current| current.id);
        let progress = &self.wire.control().progress;
        progress.enter(Phase::Transferring, 0, 0);
        let mut has_begun = false;
        let begin = |has_begun: &mut bool| match std::mem::replace(has_begun, true) {
            true => Ok(()),
            false => send(self.wire, ImageMessage::Begin(size_bytes)),
        };
        let begins_from = base.as_ref().map_or(Basis::Leaves(&asked.leaves), |base| Basis::Snapshot(base.into()));
        let totals = self.image.read(&begins_from, name, &asked.ranges, &mut |frame| {
            begin(&mut has_begun)?;
            fault::hit("image.sent").map_err(failpoint)?;
            progress.bytes_done.add(frame.len() as u64);
            send(self.wire, ImageMessage::Delta(frame))
        })?;
        // A new line begins with a point, or the other side never learns of it.
        let is_of_line = base.as_ref().is_some_and(|base| base.lineage == state.lineage);
        let is_same =
            totals.is_empty() && asked.ranges.is_empty() && base_bytes == Some(size_bytes) && is_current && is_of_line;
        // Of a group all images have the point, also those that nobody has written to.
        if is_same && !self.options.always_point && !self.is_cut {
            self.image.remove(name)?;
            // The sink has said that it is at another point.
            state.offered = None;
            self.image.set_state(&state)?;
            send(self.wire, ImageMessage::Unchanged)?;
            return self.finished(state, name.taken_at);
        }
        begin(&mut has_begun)?;
        let sent = progress.wire_sent.get() + progress.wire_received.get();
        let ground = base.as_ref().map_or(asked.ground, Ground::of_point);
        let root = root_digest(ground, size_bytes, &totals);
        let point = point(&state, name, base.as_ref(), size_bytes, root, sent, self.is_cut);
        state.offered = Some(point.clone());
        self.image.set_state(&state)?;
        fault::hit("image.proposed").map_err(failpoint)?;
        progress.enter(Phase::Committing, 0, 0);
        send(self.wire, ImageMessage::End(ImageEnd { point, totals }))?;
        self.finished(state, name.taken_at)
    }

    fn finished(&self, mut state: VolumeState, taken_at: i64) -> Result<Report, SessionError> {
        let report = finished(self.wire)?;
        fault::hit("image.finished").map_err(failpoint)?;
        let Report::Sync(synced) = &report else {
            return Err(SessionError::Protocol("sent a report of another kind"));
        };
        let is_it = |offered: &mut Point| synced.point.as_ref().is_some_and(|point| point.is(offered));
        if let Some(offered) = state.offered.take_if(is_it) {
            confirm(&mut state, offered);
        }
        state.confirmed_at = Some(taken_at);
        state.kept_from = kept_from(self.image, &state);
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
    root: Digest,
    bytes_moved: u64,
    is_cut: bool,
) -> Point {
    Point {
        id: name.id,
        origin: Origin::Sync,
        lineage: state.lineage,
        epoch: state.epoch,
        parent: base.map(|base| base.id),
        taken_at: name.taken_at,
        root,
        totals: PointTotals { entries: 1, bytes: size_bytes },
        label: Label::CrashConsistent,
        bytes_moved,
        lost: Vec::new(),
        is_cut,
    }
}

fn no_image() -> SessionError {
    SessionError::Image(Failure {
        kind: Kind::NotFound,
        reason: "image-gone".to_owned(),
        message: "the source's image is not there".to_owned(),
    })
}

pub(super) fn failpoint(error: std::io::Error) -> SessionError {
    SessionError::Image(Failure { kind: Kind::Storage, reason: "io-error".to_owned(), message: error.to_string() })
}
