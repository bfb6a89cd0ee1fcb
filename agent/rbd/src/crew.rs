//! The worker processes of one cluster. Each kind of work has its own, so that calls that hang in one can't keep another waiting.

mod shared;

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use drover_engine::{error::Kind, image::stream::Totals, session::SessionError};

use shared::Shared;

pub use crate::process::Program;
use crate::{
    data::{Content, DataRequest},
    process::{Process, ProcessError, Stopped},
    request::{Connect, Connected, Failure, FailureKind, Reply, Request},
    view::ImagePlace,
};

/// Which processes a call goes to, and how long it may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Looking: 10 s.
    Status,
    /// What changes an image: 120 s, since a promotion waits 30 s for a dead client's watch, and again for its lock.
    Verbs,
    /// What copies data: an hour.
    Data,
    /// What one sync of an image changes: its worker keeps the image open, and is nobody else's meanwhile.
    Session,
}

impl Lane {
    fn patience(self) -> Duration {
        match self {
            Self::Status => Duration::from_secs(10),
            Self::Verbs | Self::Session => Duration::from_secs(120),
            Self::Data => Duration::from_secs(3600),
        }
    }

    /// Of librados, below the patience: an error that says which call hung is worth more than a killed worker.
    fn timeout(self) -> Duration {
        match self {
            Self::Status => Duration::from_secs(5),
            Self::Verbs | Self::Data | Self::Session => Duration::from_secs(90),
        }
    }

    fn processes_max(self) -> usize {
        match self {
            Self::Status => 4,
            Self::Verbs => 8,
            Self::Data => 16,
            // Those of a group, and of some syncs.
            Self::Session => 48,
        }
    }
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum CallError {
    /// Nothing was changed.
    #[error("cluster {cluster}: {failure}")]
    Failed { cluster: String, failure: Failure },
    #[error("cluster {cluster}: {why}")]
    Unreachable { cluster: String, why: String },
    /// In a look.
    #[error("cluster {cluster}: {why}")]
    Ended { cluster: String, why: String },
    /// A look that did not end in its time, or a connection that was not made.
    #[error("cluster {cluster}: {why}")]
    Late { cluster: String, why: String },
    #[error("cluster {cluster}: every worker was busy for {} s", waited.as_secs())]
    Busy { cluster: String, waited: Duration },
    /// The worker was killed, or crashed, in a call that changes something. If `is_fenced`, nothing of it can arrive any more: look at the
    /// state, then decide.
    #[error("cluster {cluster}: {why}; whether it was carried out is not known{}", if *is_fenced { "" } else { ", and its worker could not be blocklisted" })]
    Unknown { cluster: String, why: String, is_fenced: bool, is_late: bool },
}

impl CallError {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Failed { failure, .. } => failure.engine_kind(),
            Self::Late { .. } | Self::Unknown { is_late: true, .. } => Kind::TimedOut,
            Self::Unreachable { .. } | Self::Ended { .. } | Self::Unknown { is_late: false, .. } => Kind::Unavailable,
            Self::Busy { .. } => Kind::Exhausted,
        }
    }

    /// Stable, and documented.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Failed { failure, .. } => match failure.kind {
                FailureKind::NotFound => "ceph-not-found",
                FailureKind::Exists => "ceph-exists",
                FailureKind::Busy => "ceph-busy",
                FailureKind::ReadOnly => "ceph-read-only",
                FailureKind::TimedOut => "ceph-timed-out",
                FailureKind::Blocklisted => "ceph-blocklisted",
                FailureKind::Invalid => "ceph-invalid",
                FailureKind::Permission => "ceph-not-permitted",
                FailureKind::Other => "ceph-error",
            },
            Self::Late { .. } => "ceph-timed-out",
            Self::Unreachable { .. } | Self::Ended { .. } => "ceph-unreachable",
            Self::Busy { .. } => "ceph-workers-busy",
            Self::Unknown { .. } => "outcome-unknown",
        }
    }

    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Failed { failure, .. } => Some(failure),
            Self::Unreachable { .. }
            | Self::Ended { .. }
            | Self::Late { .. }
            | Self::Busy { .. }
            | Self::Unknown { .. } => None,
        }
    }

    pub fn is(&self, kind: FailureKind) -> bool {
        self.failure().is_some_and(|failure| failure.kind == kind)
    }
}

/// Of one lane.
#[derive(Debug, Default)]
struct Processes {
    idle: Mutex<Idle>,
    given_back: Condvar,
}

#[derive(Debug, Default)]
struct Idle {
    /// Since when. The one that worked last is taken first, so that those that are not needed grow old.
    processes: Vec<(Process, Instant)>,
    /// Started and not ended, idle or not.
    alive: usize,
}

#[derive(Debug)]
pub struct Crew {
    name: String,
    program: Program,
    connect: Connect,
    status: Processes,
    verbs: Processes,
    data: Processes,
    session: Processes,
    shared: Shared,
}

impl Crew {
    /// `name` is the cluster's in messages. Starts nothing.
    pub fn new(name: String, program: Program, connect: Connect) -> Self {
        Self {
            name,
            program,
            connect,
            status: Processes::default(),
            verbs: Processes::default(),
            data: Processes::default(),
            session: Processes::default(),
            shared: Shared::default(),
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    fn lane(&self, lane: Lane) -> &Processes {
        match lane {
            Lane::Status => &self.status,
            Lane::Verbs => &self.verbs,
            Lane::Data => &self.data,
            Lane::Session => &self.session,
        }
    }

    /// One call, on the lane that it belongs to. A look whose worker died is had again: idle ones may have died, all of them at once.
    pub fn call(&self, request: &Request) -> Result<Reply, CallError> {
        match request {
            // Which volumes a pool has is asked by every call of each of them.
            Request::ReadRecord { pool, namespace, object } => {
                let key = format!("{pool}\0{namespace}\0{object}");
                self.shared.call(key, || self.call_alone(request))
            }
            _ => self.call_alone(request),
        }
    }

    fn call_alone(&self, request: &Request) -> Result<Reply, CallError> {
        let lane = match request {
            Request::Flatten(_) => Lane::Data,
            // It opens every image of a pool.
            Request::ImagesOf { .. } => Lane::Verbs,
            request if request.changes() => Lane::Verbs,
            _ => Lane::Status,
        };
        let mut tries = lane.processes_max();
        loop {
            match self.hold(lane)?.call(request) {
                Err(CallError::Ended { .. }) if tries > 0 => tries -= 1,
                // Somebody shut this worker out; the next one has another address.
                Err(error) if error.is(FailureKind::Blocklisted) && !request.changes() && tries > 0 => tries -= 1,
                called => return called,
            }
        }
    }

    /// A worker for several calls on one connection, whose address is known before them.
    pub fn hold(&self, lane: Lane) -> Result<Worker<'_>, CallError> {
        Ok(Worker { crew: self, patience: lane.patience(), place: self.take(lane)? })
    }

    /// Nothing that a worker with this address had under way can arrive at the image any more, once this returns.
    pub fn shut_out(&self, address: &str, place: &ImagePlace) -> Result<(), CallError> {
        let fenced = self.fence(address, Some(place));
        fenced.map_err(|error| CallError::Unreachable { cluster: self.name.clone(), why: error.to_string() })
    }

    /// After the process is gone.
    fn lost(&self, request: &Request, address: &str, error: &ProcessError) -> CallError {
        let (cluster, why) = (self.name.clone(), error.to_string());
        if !request.changes() {
            return match error {
                ProcessError::Ended(_) => CallError::Ended { cluster, why },
                ProcessError::Deadline(_) => CallError::Late { cluster, why },
                _ => CallError::Unreachable { cluster, why },
            };
        }
        tracing::warn!(cluster, address, "a worker was lost in the middle of a change: {why}");
        // Its last operations may be on their way still.
        let is_fenced = self.fence(address, request.place()).inspect_err(|error| {
            tracing::error!(cluster, address, "the lost worker can't be blocklisted: {error}");
        });
        let is_fenced = is_fenced.is_ok();
        CallError::Unknown { cluster, why, is_fenced, is_late: error.is_late() }
    }

    /// By a process of its own: the others may hang in what this one hung in. An OSD may not have heard of the blocklist when the
    /// monitors have it, and hears of it by the next request on a connection that has: a look at the image on the same one.
    fn fence(&self, address: &str, place: Option<&ImagePlace>) -> Result<(), ProcessError> {
        let connect = Connect { timeout: FENCING / 2, ..self.connect.clone() };
        let mut process = Process::start(&self.program, &connect)?;
        let address = address.to_owned();
        let request = match place {
            // It may have been writing anywhere in the pool.
            Some(place) => Request::ShutOut { place: place.clone(), address, time: BLOCKLISTED },
            None => Request::Blocklist { address, time: BLOCKLISTED },
        };
        process.call(&request, FENCING)?;
        match place.map(|place| process.call(&Request::Look(place.clone()), FENCING)) {
            None | Some(Ok(_) | Err(ProcessError::Failed(Failure { kind: FailureKind::NotFound, .. }))) => Ok(()),
            Some(Err(error)) => Err(error),
        }
    }

    /// What the cluster says of itself and of the library; starts a worker where none is idle.
    pub fn connected(&self) -> Result<Connected, CallError> {
        self.call(&Request::Check)?;
        let place = self.take(Lane::Status)?;
        Ok(place.process.as_ref().expect("it was just taken").connected.clone())
    }

    fn take(&self, lane: Lane) -> Result<Place<'_>, CallError> {
        let (processes, patience) = (self.lane(lane), lane.patience());
        let deadline = Instant::now() + patience;
        let mut idle = processes.lock();
        loop {
            while let Some((mut process, _)) = idle.processes.pop() {
                if process.is_alive() {
                    return Ok(Place { processes, process: Some(process), holding: None });
                }
                idle.alive -= 1;
            }
            if idle.alive < lane.processes_max() {
                idle.alive += 1;
                break;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return Err(CallError::Busy { cluster: self.name.clone(), waited: patience });
            }
            idle = processes.given_back.wait_timeout(idle, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(idle);
        let mut place = Place { processes, process: None, holding: None };
        let connect = Connect { timeout: lane.timeout(), ..self.connect.clone() };
        match Process::start(&self.program, &connect) {
            Ok(process) => place.process = Some(process),
            Err(ProcessError::Refused(failure)) => {
                return Err(CallError::Failed { cluster: self.name.clone(), failure });
            }
            Err(error) if error.is_late() => {
                return Err(CallError::Late { cluster: self.name.clone(), why: error.to_string() });
            }
            Err(error) => return Err(CallError::Unreachable { cluster: self.name.clone(), why: error.to_string() }),
        }
        Ok(place)
    }
}

/// Operations of a dead client are not retried for longer.
const BLOCKLISTED: Duration = Duration::from_secs(3600);
/// A worker that nobody needed for so long ends with the next call.
const IDLE_MAX: Duration = Duration::from_secs(60);
const FENCING: Duration = Duration::from_secs(10);

impl Processes {
    fn lock(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Of a crew, for one caller.
#[derive(Debug)]
pub struct Worker<'a> {
    crew: &'a Crew,
    patience: Duration,
    place: Place<'a>,
}

impl Worker<'_> {
    /// By which it would be blocklisted. Empty once it is lost.
    pub fn address(&self) -> &str {
        self.place.process.as_ref().map_or("", |process| &process.connected.address)
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.place.process.is_none()
    }

    /// It keeps an image open, and ends with this caller unless that is closed before.
    pub(crate) fn set_holding(&mut self, image: Option<ImagePlace>) {
        self.place.holding = image;
    }

    pub(crate) fn is_holding(&self) -> bool {
        self.place.holding.is_some()
    }

    /// One that holds an image would keep its lock for as long as a cluster waits for a dead client.
    fn kill(&mut self) {
        let address = self.address().to_owned();
        drop(self.place.process.take());
        if let Some(image) = self.place.holding.take()
            && let Err(error) = self.crew.shut_out(&address, &image)
        {
            tracing::warn!(%image, address, "a worker that is gone keeps the lock for a while: {error}");
        }
    }

    pub fn call(&mut self, request: &Request) -> Result<Reply, CallError> {
        let cluster = || self.crew.name.clone();
        let Some(process) = self.place.process.as_mut() else {
            return Err(CallError::Ended { cluster: cluster(), why: "its worker was lost before".to_owned() });
        };
        let error = match process.call(request, self.patience) {
            Ok(reply) => return Ok(reply),
            Err(error) => error,
        };
        match error {
            // librados no longer waits, but its operation may be carried out later. Who was shut out half way has done half of it.
            ProcessError::Failed(Failure { kind: FailureKind::TimedOut | FailureKind::Blocklisted, .. })
                if request.changes() => {}
            ProcessError::Failed(failure) => {
                // A connection that was blocklisted stays so, and one that has lost a cluster for minutes may never find it again (seen on 16.2).
                if matches!(failure.kind, FailureKind::Blocklisted | FailureKind::TimedOut) {
                    self.kill();
                }
                return Err(CallError::Failed { cluster: cluster(), failure });
            }
            ProcessError::Start(_) | ProcessError::Refused(_) | ProcessError::Deadline(_) | ProcessError::Ended(_) => {}
        }
        let address = self.address().to_owned();
        match request.changes() {
            // Which shuts it out.
            true => drop(self.place.process.take()),
            false => self.kill(),
        }
        Err(self.crew.lost(request, &address, &error))
    }
}

/// Why content was not moved to its end.
pub(crate) enum Unmoved {
    Call(CallError),
    /// Of who gives and takes it. Of a change whose worker `is_shut_out` nothing arrives any more.
    Caller {
        error: SessionError,
        is_shut_out: bool,
    },
}

impl From<CallError> for Unmoved {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

impl Worker<'_> {
    pub(crate) fn move_content(&mut self, request: &DataRequest, content: &mut dyn Content) -> Result<Totals, Unmoved> {
        let cluster = self.crew.name.clone();
        let Some(process) = self.place.process.as_mut() else {
            return Err(CallError::Ended { cluster, why: "its worker was lost before".to_owned() }.into());
        };
        let stopped = match process.move_content(request, content) {
            Ok(totals) => return Ok(totals),
            Err(Stopped::Caller { error, is_settled: true }) => {
                return Err(Unmoved::Caller { error, is_shut_out: true });
            }
            Err(stopped) => stopped,
        };
        let (address, call) = (self.address().to_owned(), Request::Data(request.clone()));
        match stopped {
            Stopped::Caller { error, .. } => {
                drop(self.place.process.take());
                let is_shut_out = !request.changes() || self.crew.shut_out(&address, request.place()).is_ok();
                Err(Unmoved::Caller { error, is_shut_out })
            }
            // What it was given before has been carried out, or failed as well.
            Stopped::Process(ProcessError::Failed(failure))
                if !matches!(failure.kind, FailureKind::TimedOut | FailureKind::Blocklisted) =>
            {
                self.kill();
                Err(CallError::Failed { cluster, failure }.into())
            }
            Stopped::Process(error) => {
                match call.changes() {
                    true => drop(self.place.process.take()),
                    false => self.kill(),
                }
                Err(self.crew.lost(&call, &address, &error).into())
            }
        }
    }
}

/// A process that is in use, or the right to have one.
#[derive(Debug)]
struct Place<'a> {
    processes: &'a Processes,
    process: Option<Process>,
    /// An image that it keeps open.
    holding: Option<ImagePlace>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.holding.is_some() {
            drop(self.process.take());
        }
        let mut idle = self.processes.lock();
        match self.process.take() {
            Some(process) => idle.processes.push((process, Instant::now())),
            None => idle.alive -= 1,
        }
        let is_old = |(_, since): &mut (Process, Instant)| since.elapsed() > IDLE_MAX;
        let old: Vec<_> = idle.processes.extract_if(.., is_old).collect();
        idle.alive -= old.len();
        drop(idle);
        // Ending a process waits for it.
        drop(old);
        self.processes.given_back.notify_one();
    }
}
