//! One attempt of a job: find the volume, reach the peer, let the engine's threads talk, say how it ended.

use std::{
    error::Error,
    sync::Arc,
    time::{Duration, Instant},
};

use drover_engine::{
    control::Phase,
    error::Kind,
    report::Report,
    session::{Intent, SessionError, Side, Wire},
};
use drover_proto::v1::{SessionRequest, SessionResponse, transfer_client::TransferClient};
use tonic::Code;
use tracing::Instrument as _;

use super::{Job, Outcome, Problem, Route, Running, Work};
use crate::{
    catalogue::{Catalogue, Exchange},
    metrics::Metrics,
    mirror::SharedMirrors,
    peers::{PeerError, Peers},
    rpc::status::{chain, reason_of},
    target::Target,
    transfer::{GrpcLink, MESSAGE_BYTES_MAX, Outgoing},
    volumes::Volumes,
    work::{Lane, Lanes, Panicked},
};

/// Less than this is only greetings: an attempt that got no further does not count as progress.
const MOVED_BYTES_MIN: u64 = 1 << 20;
/// For records of snapshots, after a sync: a peer that hangs does not keep the job from its end for longer.
const EXCHANGE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Runner {
    pub volumes: Arc<Volumes>,
    pub mirrors: SharedMirrors,
    pub peers: Arc<Peers>,
    pub lanes: Arc<Lanes>,
    pub metrics: Arc<Metrics>,
    pub catalogue: Arc<Catalogue>,
    pub in_flight_bytes: usize,
}

impl Runner {
    pub async fn run(&self, job: &Job, running: Running) -> Outcome {
        let span = tracing::info_span!("job", job = %job.id, volume = %job.request.volume);
        let started = Instant::now();
        let outcome = self.attempt(job, &running).instrument(span.clone()).await;
        let progress = &running.control.progress;
        self.metrics.moved(progress.wire_sent.get(), progress.wire_received.get());
        match &outcome {
            Outcome::Succeeded(report) => self.metrics.finished(report, started.elapsed()),
            Outcome::Lost { problem, .. } => span.in_scope(|| {
                tracing::warn!(
                    attempt = job.attempts,
                    reason = problem.reason,
                    "attempt was lost: {}",
                    problem.message
                );
            }),
            Outcome::Failed(_) => {}
        }
        outcome
    }

    async fn attempt(&self, job: &Job, running: &Running) -> Outcome {
        let (volumes, mirrors, id) = (self.volumes.clone(), self.mirrors.clone(), job.request.volume);
        let target = match self.lanes.run(Lane::Jobs, move || Target::find(&volumes, &mirrors, id)).await {
            Ok(Ok(target)) => target,
            Ok(Err(error)) => return classify(Problem::of(&error, error.kind(), error.reason()), running),
            Err(panicked) => return panicked.into(),
        };
        match (&job.request.work, &job.route) {
            (Work::Rollback { to }, _) => {
                let (to, control) = (*to, running.control.clone());
                let rolled = self.lanes.run(Lane::Jobs, move || target.rollback(to, &control)).await;
                rolled.map_or_else(Outcome::from, |rolled| match rolled {
                    Ok(report) => Outcome::Succeeded(Box::new(Report::Rollback(report))),
                    Err(error) => classify(Problem::of(&error, error.kind(), error.reason()), running),
                })
            }
            (Work::Session { intent, .. }, Some(route)) => self.session(job, target, intent, route, running).await,
            (Work::Session { .. }, None) => Outcome::Failed(Problem {
                kind: Kind::Internal,
                reason: "job-without-route".to_owned(),
                message: "the journal holds a session job without a peer".to_owned(),
            }),
        }
    }

    async fn session(&self, job: &Job, target: Target, intent: &Intent, route: &Route, running: &Running) -> Outcome {
        running.control.progress.enter(Phase::Connecting, 0, 0);
        let dialled = tokio::select! {
            () = running.stop.cancelled() => return Outcome::Failed(Problem::cancelled()),
            dialled = self.dial(&route.peer, running) => dialled,
        };
        let link = match dialled {
            Ok(link) => Arc::new(link),
            Err(outcome) => return outcome,
        };
        let is_sync = matches!(intent, Intent::Sync(_));
        let (side, intent, request, control) = (route.side, intent.clone(), job.id.clone(), running.control.clone());
        let engine_link = link.clone();
        let talk = move || talk(&engine_link, &control, &target, side, intent, request.as_str());
        let outcome = match self.lanes.run(Lane::Jobs, talk).await {
            Ok(Ok(report)) => Outcome::Succeeded(Box::new(report)),
            Ok(Err(error)) => {
                let mut problem = Problem::of(&error, error.kind(), error.reason());
                // Whoever reads it may be on a third host.
                if let SessionError::Peer(failure) = &error {
                    problem.message = format!("{}: {failure}", route.peer);
                }
                classify(problem, running)
            }
            Err(panicked) => Outcome::from(panicked),
        };
        if let Some(link) = Arc::into_inner(link) {
            link.finish().await;
        }
        if is_sync && matches!(outcome, Outcome::Succeeded(_)) {
            self.exchange_snapshots(job, &route.peer).await;
        }
        outcome
    }

    /// What is known of the volume's snapshots follows its data. Where that fails the data are in sync all the same, and the next sync tries again.
    async fn exchange_snapshots(&self, job: &Job, peer: &str) {
        let exchange = Exchange { catalogue: &self.catalogue, lanes: &self.lanes, peer, volume: job.request.volume };
        let exchanged = match self.peers.connect(peer).await {
            Ok(channel) => tokio::time::timeout(EXCHANGE, exchange.run(channel)).await,
            Err(error) => return tracing::warn!("records of snapshots are not exchanged: {}", chain(&error)),
        };
        match exchanged {
            Ok(Ok((0, 0))) => {}
            Ok(Ok((here, there))) => tracing::info!(here, there, "records of snapshots are exchanged"),
            Ok(Err(error)) => tracing::warn!("records of snapshots are not exchanged: {}", chain(&error)),
            Err(_) => tracing::warn!("records of snapshots are not exchanged within {} s", EXCHANGE.as_secs()),
        }
    }

    async fn dial(&self, peer: &str, running: &Running) -> Result<GrpcLink<SessionResponse>, Outcome> {
        let channel = self.peers.connect(peer).await.map_err(|error| match &error {
            PeerError::Unreachable { .. } => lost(Problem::of(&error, error.kind(), error.reason())),
            PeerError::Unknown { .. } => Outcome::Failed(Problem::of(&error, error.kind(), error.reason())),
        })?;
        let (outgoing, stream) = Outgoing::new::<SessionRequest>(self.in_flight_bytes / 2);
        let mut client = TransferClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let incoming = client.session(stream).await.map_err(|status| refused(peer, &status))?.into_inner();
        Ok(outgoing.link(incoming, running.stop.clone()))
    }
}

fn talk(
    link: &GrpcLink<SessionResponse>,
    control: &drover_engine::control::Control,
    target: &Target,
    side: Side,
    intent: Intent,
    request: &str,
) -> Result<Report, SessionError> {
    let report = target.dial(&Wire::new(link, control), side, intent, request);
    drover_linux::allocator::give_back();
    report
}

fn lost(problem: Problem) -> Outcome {
    Outcome::Lost { problem, moved: false }
}

/// The peer's agent would not open a session.
fn refused(peer: &str, status: &tonic::Status) -> Outcome {
    let message = format!("peer {peer} refused the session: {}", status.message());
    let problem =
        |kind, reason: &str| Problem { kind, reason: reason_of(status).unwrap_or_else(|| reason.to_owned()), message };
    match status.code() {
        Code::Unavailable
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::DeadlineExceeded
        | Code::Cancelled
        | Code::Unknown => lost(problem(Kind::Unavailable, "peer-unavailable")),
        Code::PermissionDenied | Code::Unauthenticated => Outcome::Failed(problem(Kind::Denied, "peer-denied")),
        Code::Ok
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::DataLoss => Outcome::Failed(problem(Kind::Precondition, "peer-refused")),
    }
}

/// Tries again what the link did, and what another session of the volume did: after a cut the peer may hold the volume
/// until its own keepalive notices.
fn classify(problem: Problem, running: &Running) -> Outcome {
    match problem.kind {
        Kind::Unavailable | Kind::TimedOut | Kind::Conflict => {
            let progress = &running.control.progress;
            let moved = progress.wire_sent.get() + progress.wire_received.get() >= MOVED_BYTES_MIN;
            Outcome::Lost { problem, moved }
        }
        Kind::Invalid
        | Kind::NotFound
        | Kind::Exists
        | Kind::Precondition
        | Kind::Exhausted
        | Kind::DataLoss
        | Kind::Denied
        | Kind::Cancelled
        | Kind::Storage
        | Kind::Internal => Outcome::Failed(problem),
    }
}

impl From<Panicked> for Outcome {
    fn from(panicked: Panicked) -> Self {
        Self::Failed(Problem::of(&panicked, Kind::Internal, "panic"))
    }
}

impl Problem {
    pub(crate) fn of(error: &(dyn Error + 'static), kind: Kind, reason: &str) -> Self {
        Self { kind, reason: reason.to_owned(), message: chain(error) }
    }
}
