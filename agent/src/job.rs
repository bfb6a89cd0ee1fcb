//! Jobs: what was asked for, how far it is, and how it ended. Named by the request id that the caller chose.
//!
//! `state` is the machine as one table, `book` the pure keeper of all jobs, `journal` their durable copy, `keeper` the
//! thread that owns both, `runner` does the work of one attempt, `sessions` lists what peers run with this agent, `trouble` what
//! jobs say about a volume's health.

mod book;
mod journal;
mod keeper;
mod retry;
mod runner;
mod sessions;
#[cfg(test)]
mod simulation;
mod state;
mod trouble;

use std::{fmt, str::FromStr};

use drover_engine::{
    error::Kind,
    id::VolumeId,
    point::PointId,
    report::Report,
    session::{Intent, Side},
};
use serde::{Deserialize, Serialize};

pub use journal::{Journal, JournalError};
pub use keeper::{Keeper, Running, Snapshot, StartError};
pub use runner::Runner;
pub use sessions::{AdmitError, Session, SessionControl, SessionGuard, Sessions};
pub use state::State;
pub use trouble::trouble;

/// 1 to 128 characters of `[A-Za-z0-9._:-]`, chosen by the caller.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct JobId(String);

impl JobId {
    const LEN_MAX: usize = 128;

    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().to_string())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for JobId {
    type Err = JobError;

    fn from_str(text: &str) -> Result<Self, JobError> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ':' | '-');
        if (1..=Self::LEN_MAX).contains(&text.len()) && text.chars().all(fits) {
            return Ok(Self(text.to_owned()));
        }
        Err(JobError::BadId { text: text.chars().take(Self::LEN_MAX).collect() })
    }
}

impl TryFrom<String> for JobId {
    type Error = JobError;

    fn try_from(text: String) -> Result<Self, JobError> {
        text.parse()
    }
}

impl From<JobId> for String {
    fn from(id: JobId) -> Self {
        id.0
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the caller said, word for word: the same id with another request is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    pub volume: VolumeId,
    pub work: Work,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    Session {
        /// None: the one that the volume names.
        peer: Option<String>,
        /// None: by the role of the copy.
        side: Option<Side>,
        intent: Intent,
    },
    Rollback {
        to: PointId,
    },
}

/// What the request came to mean when it was accepted; a later change of role does not turn a running job round.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    pub peer: String,
    pub side: Side,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    pub kind: Kind,
    pub reason: String,
    pub message: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    pub id: JobId,
    pub request: Request,
    /// None for a rollback.
    pub route: Option<Route>,
    pub state: State,
    /// Of two jobs the later one has the higher number, within a second, too. 0: of an earlier release.
    #[serde(default)]
    pub number: u64,
    /// Attempts begun.
    pub attempts: u32,
    /// Attempts in a row that were lost without having moved anything.
    pub losses: u32,
    /// When the first of those was lost.
    pub lost_since: Option<i64>,
    /// Seconds since 1970.
    pub created_at: i64,
    pub started_at: Option<i64>,
    pub finished_at: Option<i64>,
    pub report: Option<Report>,
    pub problem: Option<Problem>,
}

impl Job {
    pub fn new(id: JobId, request: Request, route: Option<Route>, now: i64) -> Self {
        Self {
            id,
            request,
            route,
            state: State::Queued,
            number: 0,
            attempts: 0,
            losses: 0,
            lost_since: None,
            created_at: now,
            started_at: None,
            finished_at: None,
            report: None,
            problem: None,
        }
    }
}

/// How one attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Succeeded(Box<Report>),
    /// The peer could not be reached, was busy, or the link was cut: nothing that this side or the data decided.
    Lost {
        problem: Problem,
        /// The attempt moved data before it was lost, so the next one starts further on.
        moved: bool,
    },
    Failed(Problem),
}

#[derive(Debug, thiserror::Error)]
pub enum JobError {
    #[error("{text:?} is not a request id: 1 to 128 characters of [A-Za-z0-9._:-]")]
    BadId { text: String },
    #[error("request id {id} is in use for another request")]
    IdInUse { id: JobId },
    #[error("no job {id}")]
    NoSuchJob { id: JobId },
    #[error("{queued} jobs wait already, the limit is {limit}")]
    QueueFull { queued: usize, limit: usize },
    #[error("agent is shutting down")]
    ShuttingDown,
    #[error("write the job journal")]
    Journal(#[from] JournalError),
}

impl JobError {
    pub fn kind(&self) -> Kind {
        match self {
            Self::BadId { .. } => Kind::Invalid,
            Self::IdInUse { .. } => Kind::Exists,
            Self::NoSuchJob { .. } => Kind::NotFound,
            Self::QueueFull { .. } => Kind::Exhausted,
            Self::ShuttingDown => Kind::Unavailable,
            Self::Journal(_) => Kind::Storage,
        }
    }

    pub fn reason(&self) -> &'static str {
        match self {
            Self::BadId { .. } => "bad-request-id",
            Self::IdInUse { .. } => "request-id-in-use",
            Self::NoSuchJob { .. } => "no-such-job",
            Self::QueueFull { .. } => "job-queue-full",
            Self::ShuttingDown => "shutting-down",
            Self::Journal(_) => "job-journal",
        }
    }
}

/// Seconds since 1970, for what is shown and kept.
pub fn unix_now() -> i64 {
    drover_linux::Time::now().secs
}
