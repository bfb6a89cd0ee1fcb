//! Sessions that peers dialled: they are the peers' jobs, bounded and listed here while they run.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use drover_engine::{
    bases::BaseLimits,
    control::{Control, Throttle},
    error::Kind,
    session::Hello,
};
use tokio_util::sync::CancellationToken;

use super::{Running, unix_now};

#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    #[error("{running} sessions run already, the limit is {limit}; try again later")]
    Full { running: usize, limit: usize },
    #[error("agent is shutting down")]
    ShuttingDown,
}

impl AdmitError {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Full { .. } => Kind::Exhausted,
            Self::ShuttingDown => Kind::Unavailable,
        }
    }

    pub fn reason(&self) -> &'static str {
        match self {
            Self::Full { .. } => "sessions-full",
            Self::ShuttingDown => "shutting-down",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Session {
    /// As the configuration calls it, or the names in its certificate.
    pub peer: String,
    /// None until the peer has greeted.
    pub hello: Option<Hello>,
    pub running: Running,
    pub started_at: i64,
}

#[derive(Debug)]
pub struct Sessions {
    open: Mutex<BTreeMap<u64, Session>>,
    limit: usize,
    /// What each session begins with.
    control: SessionControl,
    stop: CancellationToken,
}

/// What sessions share, and what each may use.
#[derive(Clone, Debug)]
pub struct SessionControl {
    pub throttle: Arc<Throttle>,
    pub in_flight_bytes: u64,
    pub bases: BaseLimits,
}

impl SessionControl {
    pub fn begin(&self) -> Control {
        Control::new(self.throttle.clone()).with_in_flight(self.in_flight_bytes).with_bases(self.bases)
    }
}

impl Sessions {
    pub fn new(limit: usize, control: SessionControl, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self { open: Mutex::default(), limit, control, stop })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Session>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn admit(self: &Arc<Self>, peer: String) -> Result<SessionGuard, AdmitError> {
        if self.stop.is_cancelled() {
            return Err(AdmitError::ShuttingDown);
        }
        let mut open = self.lock();
        if open.len() >= self.limit {
            return Err(AdmitError::Full { running: open.len(), limit: self.limit });
        }
        let number = open.last_key_value().map_or(0, |(last, _)| last + 1);
        let running = Running { control: self.control.begin(), stop: self.stop.child_token() };
        open.insert(number, Session { peer, hello: None, running: running.clone(), started_at: unix_now() });
        Ok(SessionGuard { sessions: self.clone(), number, running })
    }

    pub fn list(&self) -> Vec<Session> {
        self.lock().values().cloned().collect()
    }

    pub fn len(&self) -> usize {
        self.lock().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The session of a peer's request.
    pub fn find(&self, request: &str) -> Option<Session> {
        let asked = |session: &&Session| session.hello.as_ref().is_some_and(|hello| hello.request == request);
        self.lock().values().rfind(asked).cloned()
    }
}

/// A place among the sessions, given back when dropped.
#[derive(Debug)]
pub struct SessionGuard {
    sessions: Arc<Sessions>,
    number: u64,
    pub running: Running,
}

impl SessionGuard {
    pub fn greeted(&self, hello: &Hello) {
        if let Some(session) = self.sessions.lock().get_mut(&self.number) {
            session.hello = Some(hello.clone());
        }
    }
}

impl Drop for SessionGuard {
    fn drop(&mut self) {
        self.sessions.lock().remove(&self.number);
    }
}
