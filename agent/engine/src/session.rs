//! Two agents, or two ends in one process, meeting over a link to sync or verify one volume.
//!
//! The side that dials may be the source (push) or the sink (pull): after the greeting there is no difference.
//!
//! ```text
//! dialer                               listener
//!   Hello(version, volume, side, intent) ->
//!                                      <- Welcome(version)         or Failure
//! source                               sink
//!   Offer(state, root entry, label) ->                              both scan their copy meanwhile
//!                                      <- List(directories)         where digests differ, from the root down
//!   Listing(blocks) ->
//!                                      <- LookAgain(paths)          before anything is deleted (R5)
//!   StillThere(paths) ->
//!                                      <- Body(…)                   wants; see `session::body`
//!   Body(…) ->
//!                                      <- Propose(point)            everything is staged and durable
//!   Proceed ->                                                      the source has journalled the point
//!                                      <- Finished(report)          committed, applied, durable
//! ```
//! Either side may send `Failure` at any time and close. Every frame carries a checksum that is verified before the
//! frame is acted on. A frame is at most `FRAME_BYTES_MAX`.

pub mod body;
mod compare;
mod descend;
mod error;
mod frame;
pub mod image;
mod link;
mod message;
mod point;
mod sink;
mod source;
mod target;
#[cfg(test)]
mod tests;
mod verify;

pub use error::SessionError;
pub use frame::{FRAME_BYTES_MAX, FrameError};
pub use link::{Link, LinkClosed, LocalLink, Wire, WireError};
pub use message::{Failure, Hello, Intent, Message, Offer, Piece, Side, SyncOptions, Welcome};

use crate::{
    control::Phase,
    id::VolumeId,
    report::Report,
    volume::{Occupied, Volume},
};

/// Version of the messages; agents of neighbouring releases work together, others refuse each other by name.
pub const VERSION: u16 = 2;

const RELEASE: &str = env!("CARGO_PKG_VERSION");

/// The dialer's part, to the end. `request` names the job on both sides.
pub fn dial(
    wire: &Wire<'_>,
    volume: &Volume,
    side: Side,
    intent: Intent,
    request: &str,
) -> Result<Report, SessionError> {
    let occupied = volume.occupy("a sync or verify")?;
    introduce(wire, volume.id(), side, &intent, request)?;
    carry_out(wire, volume, side, &intent, occupied)
}

/// Until the listener has said that it goes on.
fn introduce(
    wire: &Wire<'_>,
    volume: VolumeId,
    side: Side,
    intent: &Intent,
    request: &str,
) -> Result<(), SessionError> {
    wire.control().progress.enter(Phase::Connecting, 0, 0);
    wire.send(&Message::Hello(Hello {
        version_min: VERSION,
        version_max: VERSION,
        release: RELEASE.to_owned(),
        volume,
        side,
        intent: intent.clone(),
        request: request.to_owned(),
    }))?;
    match wire.receive()? {
        Message::Welcome(welcome) if welcome.version == VERSION => Ok(()),
        Message::Welcome(welcome) => Err(SessionError::version(welcome.release)),
        Message::Failure(failure) => Err(SessionError::Peer(failure)),
        other => Err(SessionError::Unexpected { expected: "welcome", got: other.name() }),
    }
}

/// The listener reads what the dialer wants; it then finds the volume and answers, or refuses.
pub fn greet(wire: &Wire<'_>) -> Result<Hello, SessionError> {
    match wire.receive()? {
        Message::Hello(hello) => Ok(hello),
        other => Err(SessionError::Unexpected { expected: "hello", got: other.name() }),
    }
}

/// The listener's part, to the end.
pub fn answer(wire: &Wire<'_>, hello: &Hello, volume: &Volume) -> Result<Report, SessionError> {
    let occupied = volume
        .occupy("a sync or verify")
        .map_err(SessionError::from)
        .inspect_err(|error| refuse(wire, error.to_failure()))?;
    welcome(wire, hello)?;
    carry_out(wire, volume, hello.side.other(), &hello.intent, occupied)
}

fn welcome(wire: &Wire<'_>, hello: &Hello) -> Result<(), SessionError> {
    if !(hello.version_min..=hello.version_max).contains(&VERSION) {
        let error = SessionError::version(hello.release.clone());
        refuse(wire, error.to_failure());
        return Err(error);
    }
    Ok(wire.send(&Message::Welcome(Welcome { version: VERSION, release: RELEASE.to_owned() }))?)
}

/// Tells the other side why not. It may be gone already; then there is nobody to tell.
pub fn refuse(wire: &Wire<'_>, failure: Failure) {
    let _ = wire.send_always(&Message::Failure(failure));
}

fn carry_out(
    wire: &Wire<'_>,
    volume: &Volume,
    side: Side,
    intent: &Intent,
    _occupied: Occupied<'_>,
) -> Result<Report, SessionError> {
    let result = volume.check_tree().map_err(SessionError::from).and_then(|()| match side {
        Side::Source => source::run(wire, volume, intent),
        Side::Sink => sink::run(wire, volume, intent),
    });
    match &result {
        Ok(_) => wire.control().progress.enter(Phase::Done, 0, 0),
        Err(error) if error.is_ours() => refuse(wire, error.to_failure()),
        Err(_) => {}
    }
    result
}
