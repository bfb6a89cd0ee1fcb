//! A sync of an image (`crate::image`).
//!
//! ```text
//! source                               sink
//!   Offer(state, size, points) ->
//!                                      <- Accepted                  while it goes on the source takes its snapshot
//!                                      <- Ranges(…)                 what its head has beyond the base
//!                                      <- Leaves(…)                 of the head, where there is no base
//!                                      <- From(base)                the newest point that both have
//!   Begin(size) ->                                                  a snapshot is taken, unless nothing has changed
//!   Delta(…) ->                                                     written to the head
//!   End(point) ->                                                   the source has journalled the point
//!                                      <- Finished(report)          a snapshot is taken, durable
//! ```
//! Where nothing has changed `Unchanged` comes in the place of `Begin`. A verification:
//!
//! ```text
//!   Offer(state, size, points) ->
//!                                      <- From(base)                the point that is verified
//!   Head(is it that point still) ->
//!   Leaves(…)* LeavesEnd ->                                         a deep one: both read their snapshot at the same time
//!                                      <- Finished(report)
//! ```

mod plan;
mod sink;
mod source;
#[cfg(test)]
mod tests;
mod verify;

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Failure, Hello, Intent, Message, SessionError, Side, Wire, refuse, welcome};
use crate::{
    codec::{DecodeError, Reader, Writer},
    control::Phase,
    digest::Digest,
    error::Kind,
    id::VolumeId,
    image::{ImageCopy, Leaf, Range, SnapshotName, stream::Totals},
    point::{Origin, Point, PointId, VolumeState},
    report::Report,
};

/// Points are not counted further, and nobody may say that they were.
const NUMBER_MAX: u64 = 1 << 40;
/// Seconds since 1970 of the last year that a name can say.
const TIME_MAX: i64 = 250_000_000_000;
/// In one message. A sink that has more ranges makes them coarser or sends several.
const RANGES_MAX: usize = 1 << 16;
/// That a sink tells of a head without a base: of the first TiB, 40 MiB of memory. The rest is copied.
const LEAVES_MAX: usize = 1 << 20;

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
    /// The highest number of a point that the sink knows: the new point has a higher one.
    Accepted(u64),
    Ranges(Vec<Range>),
    From(ImageFrom),
    Unchanged,
    /// Size of the image at the new point.
    Begin(u64),
    /// A frame of `image::stream`.
    Delta(Bytes),
    End(ImageEnd),
    /// Whether the source's head is the point.
    Head(bool),
    Leaves(Vec<Leaf>),
    LeavesEnd,
    /// Bytes of the source's head that a sync would look at, at most.
    Changed(u64),
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
            Self::Head(is_at) => {
                w.u8(8).u8((*is_at).into());
            }
            Self::Leaves(leaves) => {
                w.u8(9).uint(leaves.len() as u64);
                for leaf in leaves {
                    w.uint(leaf.number).raw(leaf.digest.as_bytes());
                }
            }
            Self::LeavesEnd => {
                w.u8(10);
            }
            Self::Accepted(number) => {
                w.u8(12).uint(*number);
            }
            Self::Changed(bytes) => {
                w.u8(11).uint(*bytes);
            }
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
            8 => Self::Head(r.u8()? != 0),
            9 => {
                let count = r.count(1 + Digest::BYTES)?;
                let leaves = (0..count).map(|_| Ok(Leaf { number: r.uint()?, digest: digest(&mut r)? }));
                Self::Leaves(leaves.collect::<Result<_, DecodeError>>()?)
            }
            10 => Self::LeavesEnd,
            11 => Self::Changed(r.uint()?),
            12 => Self::Accepted(r.uint()?),
            other => return Err(DecodeError::Unknown { what: "image message", value: other.into() }),
        };
        r.end()?;
        Ok(message)
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Offer(_) => "image offer",
            Self::Accepted(_) => "accepted",
            Self::Ranges(_) => "ranges",
            Self::From(_) => "from",
            Self::Unchanged => "unchanged",
            Self::Begin(_) => "begin",
            Self::Delta(_) => "delta",
            Self::End(_) => "end",
            Self::Head(_) => "head",
            Self::Leaves(_) => "leaves",
            Self::LeavesEnd => "end of the leaves",
            Self::Changed(_) => "changed",
        }
    }

    /// What is long in it.
    pub(super) fn content_bytes(&self) -> usize {
        match self {
            Self::Delta(frame) => frame.len(),
            Self::Ranges(ranges) => ranges.len() * 8,
            Self::Leaves(leaves) => leaves.len() * (4 + Digest::BYTES),
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
    let result = match (intent, side) {
        (Intent::Sync(options), Side::Source) => source::run(wire, image, options),
        (Intent::Sync(_), Side::Sink) => sink::run(wire, image),
        (Intent::Verify { deep }, Side::Source) => verify::source(wire, image, *deep),
        (Intent::Verify { deep }, Side::Sink) => verify::sink(wire, image, *deep),
        (Intent::Plan(_), Side::Source) => plan::source(wire, image),
        (Intent::Plan(_), Side::Sink) => plan::sink(wire, image),
    };
    match &result {
        Ok(_) => wire.control().progress.enter(Phase::Done, 0, 0),
        Err(error) if error.is_ours() => refuse(wire, error.to_failure()),
        Err(_) => {}
    }
    result
}

fn digest(r: &mut Reader<'_>) -> Result<Digest, DecodeError> {
    Ok(Digest::from_bytes(r.raw(Digest::BYTES)?.try_into().expect("so many bytes")))
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

/// The report of the sink, which has ended.
fn finished(wire: &Wire<'_>) -> Result<Report, SessionError> {
    match wire.receive()? {
        Message::Finished(report) => {
            serde_json::from_str(&report).map_err(|_| SessionError::Protocol("sent a report that is none"))
        }
        Message::Failure(failure) => Err(SessionError::Peer(failure)),
        other => Err(SessionError::Unexpected { expected: "finished", got: other.name() }),
    }
}

fn send(wire: &Wire<'_>, message: ImageMessage) -> Result<(), SessionError> {
    Ok(wire.send(&Message::Image(message))?)
}

/// Points whose snapshots are there.
fn held(state: &VolumeState, snapshots: &BTreeMap<SnapshotName, u64>) -> Vec<Point> {
    let known = state.restorable.iter().chain(state.current_point()).chain(&state.offered);
    let mut points: Vec<Point> = Vec::new();
    for point in known.filter(|point| snapshots.contains_key(&SnapshotName::from(*point))) {
        if !points.iter().any(|there| there.id == point.id) {
            points.push(point.clone());
        }
    }
    points.sort_by_key(|point| point.id);
    points
}

/// Snapshots that no point has, of a session that ended before its point was one or of points that expired; and kept points that no snapshot has.
/// What can't be removed now is tried again by the next session. `spared` is of a point that is still to come.
fn sweep(
    image: &dyn ImageCopy,
    state: &mut VolumeState,
    snapshots: &BTreeMap<SnapshotName, u64>,
    spared: Option<SnapshotName>,
) {
    state.restorable.retain(|point| point.origin == Origin::Sync || snapshots.contains_key(&SnapshotName::from(point)));
    let known: Vec<_> = state.restorable.iter().chain(state.current_point()).chain(&state.offered).collect();
    let is_known = |name: &SnapshotName| spared == Some(*name) || known.iter().any(|point| *name == (*point).into());
    for name in snapshots.keys().filter(|name| name.id.number > state.floor && !is_known(name)) {
        if let Err(error) = image.remove(*name) {
            tracing::info!(volume = %state.volume, point = %name.id, "a snapshot of no point stays for now: {error}");
        }
    }
}

/// What can't be asked keeps all points for now, and no point from being made.
fn kept_from(image: &dyn ImageCopy, state: &VolumeState) -> Option<u64> {
    image.kept_from(state).unwrap_or_else(|error| {
        tracing::info!(volume = %state.volume, "what its group needs is not known, and all points stay for now: {error}");
        Some(0)
    })
}

/// They are of no point any more: what can't be removed now is swept by the next session.
fn remove_expired(image: &dyn ImageCopy, expired: &[Point]) {
    for point in expired {
        // Nothing is lost by it.
        let _ = image.remove(point.into());
    }
}
