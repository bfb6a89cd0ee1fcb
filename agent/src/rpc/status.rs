//! Which gRPC code an error gets: here and nowhere else. The code says what the caller may do; `reason` and `kind`
//! travel in the details as `google.rpc.ErrorInfo`.
#![deny(clippy::wildcard_enum_match_arm)]

use std::{collections::HashMap, error::Error};

use drover_engine::error::Kind;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

pub const DOMAIN: &str = "drover";

pub fn code(kind: Kind) -> Code {
    match kind {
        Kind::Invalid => Code::InvalidArgument,
        Kind::NotFound => Code::NotFound,
        Kind::Exists => Code::AlreadyExists,
        Kind::Precondition => Code::FailedPrecondition,
        Kind::Conflict => Code::Aborted,
        Kind::Exhausted => Code::ResourceExhausted,
        Kind::Unavailable => Code::Unavailable,
        Kind::TimedOut => Code::DeadlineExceeded,
        Kind::DataLoss => Code::DataLoss,
        Kind::Denied => Code::PermissionDenied,
        Kind::Cancelled => Code::Cancelled,
        // The storage refuses, not the agent: trying again changes nothing until someone has looked at it.
        Kind::Storage => Code::FailedPrecondition,
        Kind::Internal => Code::Internal,
    }
}

/// As it stands in JSON, so that both wires speak of the same ones.
pub fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Invalid => "invalid",
        Kind::NotFound => "not-found",
        Kind::Exists => "exists",
        Kind::Precondition => "precondition",
        Kind::Conflict => "conflict",
        Kind::Exhausted => "exhausted",
        Kind::Unavailable => "unavailable",
        Kind::TimedOut => "timed-out",
        Kind::DataLoss => "data-loss",
        Kind::Denied => "denied",
        Kind::Cancelled => "cancelled",
        Kind::Storage => "storage",
        Kind::Internal => "internal",
    }
}

pub fn status(kind: Kind, reason: &str, message: String) -> Status {
    if kind == Kind::Internal {
        tracing::error!(reason, "call failed by a bug: {message}");
    }
    let metadata = HashMap::from([("kind".to_owned(), kind_name(kind).to_owned())]);
    let details = ErrorDetails::with_error_info(reason, DOMAIN, metadata);
    Status::with_error_details(code(kind), message, details)
}

/// The kind that the other side told; of errors that don't come from Drover, what their code says.
pub fn kind_of(status: &Status) -> Kind {
    let info = status.get_details_error_info().filter(|info| info.domain == DOMAIN);
    let told = info.and_then(|mut info| info.metadata.remove("kind"));
    let told = told.and_then(|kind| serde_json::from_value(serde_json::Value::String(kind)).ok());
    told.unwrap_or(match status.code() {
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
    })
}

pub fn reason_of(status: &Status) -> Option<String> {
    status.get_details_error_info().filter(|info| info.domain == DOMAIN).map(|info| info.reason)
}

/// An error and its causes in one line, each cause once (some show their source in their own text).
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

/// For every error that has a kind and a reason.
macro_rules! into_status {
    ($($error:ty),+ $(,)?) => {$(
        impl ToStatus for $error {
            fn to_status(&self) -> Status {
                status(self.kind(), self.reason(), chain(self))
            }
        }
    )+};
}

pub trait ToStatus {
    fn to_status(&self) -> Status;
}

into_status!(
    crate::job::JobError,
    crate::mirror::MirrorError,
    crate::target::TargetError,
    crate::job::AdmitError,
    crate::peers::PeerError,
    crate::volumes::VolumesError,
    super::convert::ConvertError,
    drover_engine::volume::VolumeError,
    drover_nfs::NfsError,
);

impl ToStatus for crate::work::Panicked {
    fn to_status(&self) -> Status {
        status(Kind::Internal, "panic", self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_journal() {
        for kind in [Kind::Invalid, Kind::NotFound, Kind::DataLoss, Kind::Precondition, Kind::Storage] {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind_name(kind));
        }
    }

    #[test]
    fn reason_and_kind_travel_in_the_details() {
        let status = status(Kind::Precondition, "split-brain", "both primary".to_owned());
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert_eq!(reason_of(&status).as_deref(), Some("split-brain"));
        assert_eq!(status.get_details_error_info().unwrap().metadata["kind"], "precondition");
    }
}
