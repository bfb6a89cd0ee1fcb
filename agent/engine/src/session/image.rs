//! A sync of an image (`crate::image`).
//!
//! ```text
//! source                               sink
//!   Offer(state, size, points) ->
//!                                      <- Ranges(…)                 what its head has beyond the base
//!                                      <- From(base)                the newest point that both have
//!   Begin(size) ->                                                  a snapshot is taken, unless nothing has changed
//!   Delta(…) ->                                                     written to the head
//!   End(point) ->                                                   the source has journalled the point
//!                                      <- Finished(report)          a snapshot is taken, durable
//! ```
//! Where nothing has changed `Unchanged` comes in the place of `Begin`.

mod sink;
mod source;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Failure, Hello, Intent, Message, SessionError, Side, Wire, refuse, welcome};
use crate::{
    codec::{DecodeError, Reader, Writer},
    control::Phase,
    error::Kind,
    id::VolumeId,
    image::{ImageCopy, Range, SnapshotName, stream::Totals},
    point::{Origin, Point, PointId, VolumeState},
    report::Report,
};

/// Points are not counted further, and nobody may say that they were.
const NUMBER_MAX: u64 = 1 << 40;
/// Seconds since 1970 of the last year that a name can say.
const TIME_MAX: i64 = 250_000_000_000;
/// In one message. A sink that has more ranges makes them coarser or sends several.
const RANGES_MAX: usize = 1 << 16;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageOffer {
    pub state: VolumeState,
    pub size_bytes: u64,
    /// Objects of 2^order bytes, for a sink that has to make the image.
    pub order: u8,
    /// Whose snapshots are there.
    pub points: Vec<Point>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFrom {
    /// `None`: all of the image is wanted.
    pub base: Option<PointId>,
    /// What the sink's copy is at: may be a point whose confirmation was lost.
    pub current: Option<Point>,
    /// The new point has a higher one.
    pub highest_number: u64,
}

/// The source's last word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageEnd {
    pub point: Point,
    pub totals: Totals,
}

#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "an offer comes once a session; messages are encoded, not stored")]
pub enum ImageMessage {
    Offer(ImageOffer),
    Ranges(Vec<Range>),
    From(ImageFrom),
    Unchanged,
    /// Size of the image at the new point.
    Begin(u64),
    /// A frame of `image::stream`.
    Delta(Bytes),
    End(ImageEnd),
}

impl ImageMessage {
    pub(super) fn encode(&self, w: &mut Writer) {
        match self {
            Self::Offer(offer) => super::message::json(w.u8(1), offer),
            Self::Ranges(ranges) => {
                w.u8(2).uint(ranges.len() as u64);
                for range in ranges {
                    w.uint(range.offset).uint(range.length);
                }
            }
            Self::From(from) => super::message::json(w.u8(3), from),
            Self::Unchanged => {
                w.u8(4);
            }
            Self::Begin(size_bytes) => {
                w.u8(5).uint(*size_bytes);
            }
            Self::Delta(frame) => {
                w.u8(6).raw(frame);
            }
            Self::End(end) => super::message::json(w.u8(7), end),
        }
    }

    pub(super) fn decode(payload: &Bytes) -> Result<Self, DecodeError> {
        let mut r = Reader::new(payload);
        let kind = r.u8()?;
        let rest = payload.slice(1..);
        let message = match kind {
            1 => return super::message::parse(&rest).map(Self::Offer),
            2 => {
                let count = r.count(2)?;
                let ranges = (0..count).map(|_| Ok(Range { offset: r.uint()?, length: r.uint()? }));
                Self::Ranges(ranges.collect::<Result<_, DecodeError>>()?)
            }
            3 => return super::message::parse(&rest).map(Self::From),
            4 => Self::Unchanged,
            5 => Self::Begin(r.uint()?),
            6 => return Ok(Self::Delta(rest)),
            7 => return super::message::parse(&rest).map(Self::End),
            other => return Err(DecodeError::Unknown { what: "image message", value: other.into() }),
        };
        r.end()?;
        Ok(message)
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Offer(_) => "image offer",
            Self::Ranges(_) => "ranges",
            Self::From(_) => "from",
            Self::Unchanged => "unchanged",
            Self::Begin(_) => "begin",
            Self::Delta(_) => "delta",
            Self::End(_) => "end",
        }
    }

    /// What is long in it.
    pub(super) fn content_bytes(&self) -> usize {
        match self {
            Self::Delta(frame) => frame.len(),
            Self::Ranges(ranges) => ranges.len() * 8,
            _ => 0,
        }
    }
}

/// The dialer's part, to the end, as [`super::dial`].
pub fn dial_image(
    wire: &Wire<'_>,
    volume: VolumeId,
    image: &dyn ImageCopy,
    side: Side,
    intent: &Intent,
    request: &str,
) -> Result<Report, SessionError> {
    super::introduce(wire, volume, side, intent, request)?;
    carry_out(wire, image, side, intent)
}

/// The listener's part, to the end, as [`super::answer`].
pub fn answer_image(wire: &Wire<'_>, hello: &Hello, image: &dyn ImageCopy) -> Result<Report, SessionError> {
    welcome(wire, hello)?;
    carry_out(wire, image, hello.side.other(), &hello.intent)
}

fn carry_out(wire: &Wire<'_>, image: &dyn ImageCopy, side: Side, intent: &Intent) -> Result<Report, SessionError> {
    let Intent::Sync(options) = intent else {
        let error = SessionError::Image(Failure {
            kind: Kind::Invalid,
            reason: "not-for-images".to_owned(),
            message: "an RBD image can be synced, and neither planned nor verified".to_owned(),
        });
        refuse(wire, error.to_failure());
        return Err(error);
    };
    let result = match side {
        Side::Source => source::run(wire, image, options),
        Side::Sink => sink::run(wire, image),
    };
    match &result {
        Ok(_) => wire.control().progress.enter(Phase::Done, 0, 0),
        Err(error) if error.is_ours() => refuse(wire, error.to_failure()),
        Err(_) => {}
    }
    result
}

fn receive(wire: &Wire<'_>, expected: &'static str) -> Result<ImageMessage, SessionError> {
    match wire.receive()? {
        Message::Image(message) => Ok(message),
        Message::Failure(failure) => Err(SessionError::Peer(failure)),
        Message::Offer(_) | Message::List(_) => Err(SessionError::Image(Failure {
            kind: Kind::Precondition,
            reason: "other-kind".to_owned(),
            message: "the volume is an RBD image here and something else at the other side".to_owned(),
        })),
        other => Err(SessionError::Unexpected { expected, got: other.name() }),
    }
}

fn send(wire: &Wire<'_>, message: ImageMessage) -> Result<(), SessionError> {
    Ok(wire.send(&Message::Image(message))?)
}

/// Points whose snapshots are there.
fn held(state: &VolumeState, snapshots: &[SnapshotName]) -> Vec<Point> {
    let known = state.restorable.iter().chain(state.current_point()).chain(&state.offered);
    let mut points: Vec<Point> = Vec::new();
    for point in known.filter(|point| snapshots.contains(&(*point).into())) {
        if !points.iter().any(|there| there.id == point.id) {
            points.push(point.clone());
        }
    }
    points.sort_by_key(|point| point.id);
    points
}

/// Snapshots that no point has, of a session that ended before its point was one or of points that expired; and kept points that no snapshot has.
/// What can't be removed now is tried again by the next session.
fn sweep(image: &dyn ImageCopy, state: &mut VolumeState, snapshots: &[SnapshotName]) {
    state.restorable.retain(|point| point.origin == Origin::Sync || snapshots.contains(&point.into()));
    let known: Vec<_> = state.restorable.iter().chain(state.current_point()).chain(&state.offered).collect();
    let is_known = |name: &SnapshotName| known.iter().any(|point| *name == (*point).into());
    for name in snapshots.iter().filter(|name| name.id.number > state.floor && !is_known(name)) {
        if let Err(error) = image.remove(*name) {
            tracing::info!(volume = %state.volume, point = %name.id, "a snapshot of no point stays for now: {error}");
        }
    }
}

/// They are of no point any more: what can't be removed now is swept by the next session.
fn remove_expired(image: &dyn ImageCopy, expired: &[Point]) {
    for point in expired {
        // Nothing is lost by it.
        let _ = image.remove(point.into());
    }
}
