//! Sessions that peers dial: the engine's answer on a blocking thread, its frames over the stream.

use std::{pin::Pin, sync::Arc, time::Duration};

use drover_engine::{
    error::Kind,
    id::VolumeId,
    session::{self, Failure, Hello, Wire},
};
use drover_proto::v1::{
    CompareCopiesRequest, CompareCopiesResponse, SessionRequest, SessionResponse,
    transfer_server::{Transfer, TransferServer},
};
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};
use tracing::Instrument as _;

use super::status::{ToStatus as _, chain, status};
use crate::{
    job::{SessionGuard, Sessions},
    metrics::Metrics,
    mirror::SharedMirrors,
    peers::Peers,
    superseded::{COPIES_MAX, Superseding},
    target::Target,
    tls::Caller,
    transfer::{GrpcLink, MESSAGE_BYTES_MAX, Outgoing},
    volumes::Volumes,
    work::{Lane, Lanes},
};

/// A peer that opens a session and says nothing gives its place up after this.
const GREETING_TIMEOUT: Duration = Duration::from_secs(30);

pub struct TransferService {
    pub volumes: Arc<Volumes>,
    pub mirrors: SharedMirrors,
    pub peers: Arc<Peers>,
    pub sessions: Arc<Sessions>,
    pub lanes: Arc<Lanes>,
    pub metrics: Arc<Metrics>,
    pub superseding: Arc<Superseding>,
    pub tasks: TaskTracker,
    pub in_flight_bytes: usize,
}

impl TransferService {
    pub fn into_server(self) -> TransferServer<Self> {
        TransferServer::new(self)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }
}

#[tonic::async_trait]
impl Transfer for TransferService {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<SessionResponse, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        let caller = caller.ok_or_else(|| Status::unauthenticated("the caller is unknown"))?;
        let guard = self.sessions.admit(caller.name()).map_err(|error| error.to_status())?;
        let (outgoing, stream) = Outgoing::new::<SessionResponse>(self.in_flight_bytes / 2);
        let link = Arc::new(outgoing.link(request.into_inner(), guard.running.stop.clone()));
        let host = Host {
            volumes: self.volumes.clone(),
            mirrors: self.mirrors.clone(),
            peers: self.peers.clone(),
            caller,
            runtime: tokio::runtime::Handle::current(),
        };
        let (lanes, metrics) = (self.lanes.clone(), self.metrics.clone());
        let span = tracing::info_span!("session", volume = tracing::field::Empty, job = tracing::field::Empty);
        let run = async move {
            let (progress, engine_link) = (guard.running.control.progress.clone(), link.clone());
            let ran = lanes.run(Lane::Sessions, move || host.receive(&engine_link, &guard)).await;
            if let Err(panicked) = ran {
                tracing::error!("session ended: {panicked}");
            }
            metrics.moved(progress.wire_sent.get(), progress.wire_received.get());
            if let Some(link) = Arc::into_inner(link) {
                link.finish().await;
            }
        };
        self.tasks.spawn(run.instrument(span));
        Ok(Response::new(Box::pin(stream.map(Ok))))
    }

    async fn compare_copies(
        &self,
        request: Request<CompareCopiesRequest>,
    ) -> Result<Response<CompareCopiesResponse>, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        let caller = caller.ok_or_else(|| Status::unauthenticated("the caller is unknown"))?;
        let copies = request.into_inner().copies;
        if copies.len() > COPIES_MAX {
            let message = format!("{} copies, and a request may tell {COPIES_MAX}", copies.len());
            return Err(status(Kind::Invalid, "too-many", message));
        }
        let superseding = self.superseding.clone();
        let told = self.lanes.run(Lane::Calls, move || superseding.answer(&caller, &copies)).await;
        Ok(Response::new(CompareCopiesResponse { copies: told.map_err(|error| error.to_status())? }))
    }
}

/// What a session needs on its blocking thread.
struct Host {
    volumes: Arc<Volumes>,
    mirrors: SharedMirrors,
    peers: Arc<Peers>,
    caller: Caller,
    runtime: tokio::runtime::Handle,
}

impl Host {
    fn receive(&self, link: &GrpcLink<SessionRequest>, guard: &SessionGuard) {
        let wire = Wire::new(link, &guard.running.control);
        let silent = guard.running.stop.clone();
        let timer = self.runtime.spawn(async move {
            tokio::time::sleep(GREETING_TIMEOUT).await;
            silent.cancel();
        });
        let greeted = session::greet(&wire);
        timer.abort();
        let hello = match greeted {
            Ok(hello) => hello,
            Err(error) => {
                return tracing::warn!(peer = self.caller.name(), "session without a greeting: {}", chain(&error));
            }
        };
        tracing::Span::current().record("volume", tracing::field::display(hello.volume));
        tracing::Span::current().record("job", &hello.request);
        guard.greeted(&hello);
        match target_for(&self.volumes, &self.mirrors, &self.peers, &self.caller, hello.volume) {
            Ok(target) => self.answer(&wire, &hello, &target),
            Err(failure) => {
                tracing::warn!(peer = self.caller.name(), reason = failure.reason, "session refused: {failure}");
                session::refuse(&wire, failure);
            }
        }
    }

    fn answer(&self, wire: &Wire<'_>, hello: &Hello, target: &Target) {
        tracing::info!(peer = self.caller.name(), "session began");
        match target.answer(wire, hello) {
            Ok(_) => tracing::info!("session ended"),
            // The dialer's job says how it went and what is to be done; here it is one line.
            Err(error) => tracing::warn!(reason = error.reason(), "session ended early: {}", chain(&error)),
        }
        drover_linux::allocator::give_back();
    }
}

/// A volume that names its peer is only open to that one: another site's agent has no business with it. Blocks where a cluster has to be asked.
pub(super) fn target_for(
    volumes: &Volumes,
    mirrors: &SharedMirrors,
    peers: &Peers,
    caller: &Caller,
    id: VolumeId,
) -> Result<Target, Failure> {
    let failed = |kind, reason: &str, message| Failure { kind, reason: reason.to_owned(), message };
    let target = Target::find(volumes, mirrors, id).map_err(|error| Failure::from(&error))?;
    let Some(peer) = target.state().map_err(|error| Failure::from(&error))?.peer else {
        return Ok(target);
    };
    match peers.get(&peer) {
        Ok(known) if !caller.names.contains(&known.server_name()) => Err(failed(
            Kind::Denied,
            "not-the-volumes-peer",
            format!("volume {id} is synced with {peer}, not with {}", caller.name()),
        )),
        Ok(_) => Ok(target),
        Err(error) => Err(failed(Kind::Precondition, error.reason(), chain(&error))),
    }
}
