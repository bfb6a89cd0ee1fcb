//! Why a verb ends without a result: what is shown on stderr, with what to do about it, and the exit code.

use std::fmt;

use drover_engine::error::Kind;
use drover_proto::v1;
use drover_report::{Exit, advice};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::{agents::AgentError, config::ConfigError, fleet::LookupError};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Agent(#[from] AgentError),
    #[error(transparent)]
    Lookup(#[from] LookupError),
    #[error("agent {agent}: {told}")]
    Told { agent: String, told: Told },
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Usage(String),
    #[error("agent {agent} sent a report that this release can't read: {source}")]
    Report { agent: String, source: serde_json::Error },
    #[error("can't write the result")]
    Output(#[from] std::io::Error),
}

impl Failure {
    pub(crate) fn told(agent: &str, status: &Status) -> Self {
        Self::Told { agent: agent.to_owned(), told: Told::of_status(status) }
    }

    /// For stderr: the error, and what to do about it.
    pub(crate) fn shown(&self) -> impl fmt::Display + '_ {
        Shown(self)
    }

    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Config(_) | Self::Usage(_) => Exit::Usage,
            Self::Agent(error) => error.exit(),
            Self::Lookup(LookupError::NotFound { unreachable, .. }) if !unreachable.is_empty() => Exit::Unreachable,
            Self::Lookup(_) | Self::Output(_) | Self::Report { .. } => Exit::Failure,
            Self::Refused(_) => Exit::Refused,
            Self::Told { told, .. } => told.exit(),
        }
    }
}

/// Shown as `error: … [reason]` and a second line that says what to do, where that is known.
struct Shown<'a>(&'a Failure);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.0)?;
        match self.0 {
            Failure::Told { told, .. } => told.advice().map_or(Ok(()), |advice| write!(f, "\n  to do: {advice}")),
            _ => Ok(()),
        }
    }
}

/// An error as an agent tells it, of a call or of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub kind: Kind,
    /// Empty when the agent gave none.
    pub reason: String,
    pub message: String,
}

impl Told {
    pub(crate) fn of_job(error: &v1::JobError) -> Self {
        let kind = parse_kind(&error.kind).unwrap_or(Kind::Internal);
        Self { kind, reason: error.reason.clone(), message: error.message.clone() }
    }

    pub(crate) fn of_status(status: &Status) -> Self {
        let info = status.get_details_error_info();
        let kind = info.as_ref().and_then(|info| info.metadata.get("kind")).and_then(|kind| parse_kind(kind));
        Self {
            kind: kind.unwrap_or_else(|| kind_of_code(status.code())),
            reason: info.map(|info| info.reason).unwrap_or_default(),
            message: if status.message().is_empty() { status.code().to_string() } else { status.message().to_owned() },
        }
    }

    /// A job that failed and does not say why.
    pub(crate) fn unexplained() -> Self {
        Self {
            kind: Kind::Internal,
            reason: String::new(),
            message: "the job failed; the agent's log says why".to_owned(),
        }
    }

    pub(crate) fn exit(&self) -> Exit {
        Exit::of(self.kind, &self.reason)
    }

    pub(crate) fn advice(&self) -> Option<&'static str> {
        advice(&self.reason)
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if self.reason.is_empty() { Ok(()) } else { write!(f, " [{}]", self.reason) }
    }
}

fn parse_kind(text: &str) -> Option<Kind> {
    serde_json::from_value(serde_json::Value::String(text.to_owned())).ok()
}

/// For errors that don't come from Drover's own code: the transport, TLS, a proxy.
fn kind_of_code(code: Code) -> Kind {
    match code {
        Code::InvalidArgument | Code::OutOfRange => Kind::Invalid,
        Code::NotFound => Kind::NotFound,
        Code::AlreadyExists => Kind::Exists,
        Code::FailedPrecondition => Kind::Precondition,
        Code::Aborted => Kind::Conflict,
        Code::ResourceExhausted => Kind::Exhausted,
        Code::Unavailable => Kind::Unavailable,
        Code::DeadlineExceeded => Kind::TimedOut,
        Code::DataLoss => Kind::DataLoss,
        Code::PermissionDenied | Code::Unauthenticated => Kind::Denied,
        Code::Cancelled => Kind::Cancelled,
        Code::Ok | Code::Unknown | Code::Internal | Code::Unimplemented => Kind::Internal,
    }
}
