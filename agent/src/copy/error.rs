use std::{fmt, io, path::PathBuf};

use drover_engine::{beside::BesideError, error::Kind, session::SessionError, volume::VolumeError};
use drover_report::{Exit, advice};
use tonic::Status;

use super::place::RemotePlace;
use crate::rpc::status::{kind_of, reason_of};

#[derive(Debug, thiserror::Error)]
pub(super) enum CopyError {
    #[error("{side} {}", path.display())]
    Place { side: &'static str, path: PathBuf, source: io::Error },
    #[error("{side} {} is not a directory; Drover copies directory trees", path.display())]
    NotADirectory { side: &'static str, path: PathBuf },
    #[error("{side} {} is a mount point or the root: nothing can lie beside it on its own file system; name a directory in it", path.display())]
    NoBeside { side: &'static str, path: PathBuf },
    #[error("{} and {} lie in each other", src.display(), dst.display())]
    Nested { src: PathBuf, dst: PathBuf },
    #[error("both sides are agents: enable the volume on both with `drover-agent volume enable`, then `drover sync`")]
    BothRemote,
    #[error(
        "SRC {} is not the directory that was copied to DST before (is its file system mounted?); if it is meant, \
         remove {} and copy again", path.display(), index.display()
    )]
    SourceReplaced { path: PathBuf, index: PathBuf },
    #[error("DST {} is not the directory that Drover made; --adopt takes it over and keeps what it holds as a restore point", path.display())]
    DestinationReplaced { path: PathBuf },
    #[error("DST {} is not empty and was not made by Drover; --adopt takes it over and keeps what it holds as a restore point", path.display())]
    NotAdopted { path: PathBuf },
    #[error("{}", root.display())]
    Beside { root: PathBuf, source: BesideError },
    #[error("{side} {}", path.display())]
    Volume { side: &'static str, path: PathBuf, source: VolumeError },
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error("a thread of the copy ended by a bug")]
    Panicked,
    #[error("{flag} is needed for an agent at one side")]
    Credentials { flag: &'static str },
    #[error("file {} of {flag}", path.display())]
    CredentialsFile { flag: &'static str, path: PathBuf, source: io::Error },
    #[error("agent {place} can't be reached")]
    Unreachable { place: RemotePlace, source: tonic::transport::Error },
    #[error("agent {place}: {}", status.message())]
    Agent { place: RemotePlace, status: Box<Status> },
    #[error("agent {place} has no such root; its roots are: {roots}")]
    NoSuchRoot { place: RemotePlace, roots: String },
    #[error(
        "the agent has no volume for {place}: give --controller-cert and --controller-key once, or enable it there with \
         `drover-agent volume enable --root {root} --path {path} --role {role} --id {id}`"
    )]
    NotEnabled { place: RemotePlace, root: String, path: String, role: &'static str, id: String },
    #[error("--bwlimit can't slow an agent down; set limits.bandwidth_mib in its configuration")]
    BandwidthOfAgent,
    #[error("runtime")]
    Runtime(#[source] io::Error),
}

impl CopyError {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Place { .. }
            | Self::NotADirectory { .. }
            | Self::NoBeside { .. }
            | Self::Nested { .. }
            | Self::BothRemote
            | Self::Credentials { .. }
            | Self::CredentialsFile { .. }
            | Self::NoSuchRoot { .. }
            | Self::BandwidthOfAgent => Kind::Invalid,
            Self::SourceReplaced { .. }
            | Self::DestinationReplaced { .. }
            | Self::NotAdopted { .. }
            | Self::NotEnabled { .. } => Kind::Precondition,
            Self::Beside { source, .. } => source.kind(),
            Self::Volume { source, .. } => source.kind(),
            Self::Session(error) => error.kind(),
            Self::Unreachable { .. } => Kind::Unavailable,
            Self::Agent { status, .. } => kind_of(status),
            Self::Panicked | Self::Runtime(_) => Kind::Internal,
        }
    }

    fn reason(&self) -> String {
        match self {
            Self::Beside { source, .. } => source.reason().to_owned(),
            Self::Volume { source, .. } => source.reason().to_owned(),
            Self::Session(error) => error.reason().to_owned(),
            Self::Agent { status, .. } => reason_of(status).unwrap_or_default(),
            _ => String::new(),
        }
    }

    pub(super) fn exit(&self) -> Exit {
        Exit::of(self.kind(), &self.reason())
    }

    /// For stderr: the error with its causes, its reason, and what to do about it.
    pub(super) fn shown(&self) -> impl fmt::Display + '_ {
        if self.kind() == Kind::Cancelled {
            return "cancelled".to_owned();
        }
        let reason = self.reason();
        let name = if reason.is_empty() { String::new() } else { format!(" [{reason}]") };
        let advice = advice(&reason).map_or_else(String::new, |advice| format!("\n  to do: {advice}"));
        format!("error: {}{name}{advice}", drover_report::causes(self))
    }
}
