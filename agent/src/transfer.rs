//! The engine's link over one gRPC stream in each direction.
//!
//! The engine's threads block here, the runtime's never do. Out: a frame waits for its share of the session's bytes,
//! which it gives back when tonic takes it. In: frames are taken from the HTTP/2 stream when the engine asks, so that
//! the stream's window is the bound. A cut is noticed by the connection's keepalive, which ends both directions; a
//! cancel ends them at once. Either way both calls return `LinkClosed` with what is known.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use drover_engine::session::{FRAME_BYTES_MAX, Link, LinkClosed};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Duration, timeout},
};
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

/// Longest gRPC message: a frame and its envelope.
pub const MESSAGE_BYTES_MAX: usize = FRAME_BYTES_MAX + 64;
/// HTTP/2 window of a stream: 16 MiB keep a 1 Gbit/s link with 100 ms round trips busy.
pub const STREAM_WINDOW_BYTES: u32 = 16 << 20;
/// Window of a connection, which the sessions of a peer share: those whose disk hangs keep their own windows full, and the others
/// must go on.
pub const CONNECTION_WINDOW_BYTES: u32 = 16 * STREAM_WINDOW_BYTES;
/// HTTP/2 frames that are taken in: with the 16 KiB that are usual a gigabyte is 65,000 of them. One is on its way for less than
/// the keepalive's timeout, since the answer to a ping waits for it: at 100 kbit/s still.
pub const HTTP2_FRAME_BYTES: u32 = 256 << 10;
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the end of a session waits until the other side has seen the last frames.
const GOODBYE: Duration = Duration::from_secs(5);
/// Frames that may wait whatever their size: bookkeeping of each is bounded too.
const FRAMES_WAITING: usize = 1024;

/// A semaphore counts in u32; KiB let it count far enough.
const UNIT: usize = 1024;

#[derive(Debug, thiserror::Error)]
#[error("session was stopped by this agent")]
struct Stopped;

type Waiting = (Bytes, OwnedSemaphorePermit);

#[derive(Debug)]
pub struct GrpcLink<In> {
    outgoing: mpsc::Sender<Waiting>,
    budget: Arc<Semaphore>,
    budget_units: usize,
    incoming: Mutex<Streaming<In>>,
    stop: CancellationToken,
    runtime: Handle,
}

/// The sending half as tonic wants it; it is made before the receiving half, which the dialer only gets from its call.
pub struct Outgoing {
    sender: mpsc::Sender<Waiting>,
    budget: Arc<Semaphore>,
    budget_units: usize,
}

impl Outgoing {
    /// `in_flight_bytes` is what may wait here; two of the longest frames always may.
    pub fn new<Out: From<Bytes> + Send + 'static>(
        in_flight_bytes: usize,
    ) -> (Self, impl Stream<Item = Out> + Send + 'static) {
        let (sender, receiver) = mpsc::channel(FRAMES_WAITING);
        let budget_units = in_flight_bytes.max(2 * FRAME_BYTES_MAX).div_ceil(UNIT);
        let stream = ReceiverStream::new(receiver).map(|(frame, _permit): Waiting| Out::from(frame));
        (Self { sender, budget: Arc::new(Semaphore::new(budget_units)), budget_units }, stream)
    }

    /// To be called inside the runtime.
    pub fn link<In>(self, incoming: Streaming<In>, stop: CancellationToken) -> GrpcLink<In> {
        GrpcLink {
            outgoing: self.sender,
            budget: self.budget,
            budget_units: self.budget_units,
            incoming: Mutex::new(incoming),
            stop,
            runtime: Handle::current(),
        }
    }
}

fn closed(cause: impl std::error::Error + Send + Sync + 'static) -> LinkClosed {
    LinkClosed { cause: Some(Box::new(cause)) }
}

impl<In> GrpcLink<In> {
    async fn enqueue(&self, frame: Bytes) -> Result<(), LinkClosed> {
        let units = frame.len().div_ceil(UNIT).min(self.budget_units);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        let permit = tokio::select! {
            biased;
            () = self.stop.cancelled() => return Err(closed(Stopped)),
            // The stream was dropped: the connection is gone.
            () = self.outgoing.closed() => return Err(LinkClosed { cause: None }),
            permit = self.budget.clone().acquire_many_owned(units) => permit.expect("the budget is never closed"),
        };
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(closed(Stopped)),
            sent = self.outgoing.send((frame, permit)) => sent.map_err(|_| LinkClosed { cause: None }),
        }
    }

    /// Says that nothing more comes and waits until the other side has said so too: dropping the stream at once would
    /// reset it, and frames on their way would be lost.
    pub async fn finish(self) {
        let Self { outgoing, incoming, stop, .. } = self;
        drop(outgoing);
        let mut incoming = incoming.into_inner().unwrap_or_else(PoisonError::into_inner);
        let drained = async { while let Ok(Some(_)) = incoming.message().await {} };
        tokio::select! {
            () = stop.cancelled() => {}
            _ = timeout(GOODBYE, drained) => {}
        }
    }
}

impl<In: Into<Bytes> + Send> Link for GrpcLink<In> {
    fn send(&self, frame: Bytes) -> Result<(), LinkClosed> {
        self.runtime.block_on(self.enqueue(frame))
    }

    fn receive(&self) -> Result<Bytes, LinkClosed> {
        let mut incoming = self.incoming.lock().unwrap_or_else(PoisonError::into_inner);
        let received: Result<Option<In>, Status> = self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => Err(Status::cancelled(Stopped.to_string())),
                message = incoming.message() => message,
            }
        });
        match received {
            Ok(Some(message)) => Ok(message.into()),
            Ok(None) => Err(LinkClosed { cause: None }),
            Err(status) => Err(closed(status)),
        }
    }
}
