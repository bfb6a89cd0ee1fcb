//! What carries frames: a channel in this process, or an adapter of the agent over gRPC.

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded};

use super::{FrameError, Message, frame};
use crate::{
    control::{Cancelled, Control},
    fault,
};

#[derive(Debug, thiserror::Error)]
#[error("link is closed")]
pub struct LinkClosed {
    /// Why, when the transport knows.
    #[source]
    pub cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Ordered, reliable frames in both directions. Blocking, and bounded by the implementation: `send` waits when the
/// other side is slow. Many threads may send; one receives.
pub trait Link: Send + Sync {
    fn send(&self, frame: Bytes) -> Result<(), LinkClosed>;
    fn receive(&self) -> Result<Bytes, LinkClosed>;
}

/// Both ends in one process.
#[derive(Debug)]
pub struct LocalLink {
    outgoing: Sender<Bytes>,
    incoming: Receiver<Bytes>,
}

impl LocalLink {
    /// Frames that may wait in each direction: small enough to bound memory, large enough to keep both ends busy.
    const FRAMES: usize = 16;

    pub fn pair() -> (Self, Self) {
        let (a_out, b_in) = bounded(Self::FRAMES);
        let (b_out, a_in) = bounded(Self::FRAMES);
        (Self { outgoing: a_out, incoming: a_in }, Self { outgoing: b_out, incoming: b_in })
    }
}

impl Link for LocalLink {
    fn send(&self, frame: Bytes) -> Result<(), LinkClosed> {
        self.outgoing.send(frame).map_err(|_| LinkClosed { cause: None })
    }

    fn receive(&self) -> Result<Bytes, LinkClosed> {
        self.incoming.recv().map_err(|_| LinkClosed { cause: None })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error(transparent)]
    Closed(#[from] LinkClosed),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// A link that speaks messages: counts bytes, keeps to the bandwidth, stops when the job is cancelled.
pub struct Wire<'a> {
    link: &'a dyn Link,
    control: &'a Control,
}

impl<'a> Wire<'a> {
    pub fn new(link: &'a dyn Link, control: &'a Control) -> Self {
        Self { link, control }
    }

    pub fn control(&self) -> &'a Control {
        self.control
    }

    pub fn send(&self, message: &Message) -> Result<(), WireError> {
        let mut message = message.encode();
        fault::forge("wire.send", &mut message);
        let frame = frame::seal(message)?;
        let bytes = frame.len() as u64;
        self.control.pace(bytes)?;
        self.control.progress.wire_sent.add(bytes);
        Ok(self.link.send(frame)?)
    }

    /// Of a job that is ending: cancelled or not, at once.
    pub(super) fn send_always(&self, message: &Message) -> Result<(), WireError> {
        Ok(self.link.send(frame::seal(message.encode())?)?)
    }

    pub fn receive(&self) -> Result<Message, WireError> {
        self.control.check()?;
        let sealed = self.link.receive()?;
        self.control.progress.wire_received.add(sealed.len() as u64);
        let (kind, payload) = frame::open(&sealed)?;
        Ok(Message::decode(kind, payload).map_err(FrameError::Malformed)?)
    }
}
