use std::io;

use super::{Failure, FrameError, WireError, body::BodyError};
use crate::{
    commit::ApplyError,
    error::Kind,
    path::RelPath,
    plan::GuardError,
    point::LineageConflict,
    scan::ScanError,
    stage::StageError,
    transaction::CommitError,
    tree::{BlockError, ManifestError},
    volume::{VolumeError, scan_kind, scan_reason},
};

#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("the other side: {0}")]
    Peer(Failure),
    #[error("expected {expected}, got {got}")]
    Unexpected { expected: &'static str, got: &'static str },
    #[error("this is release {ours}, the other side is release {theirs}: they have no message version in common")]
    Version { ours: &'static str, theirs: String },
    #[error("the other side broke the protocol: {0}")]
    Protocol(&'static str),
    #[error("the other side's directory {path}")]
    Block {
        path: RelPath,
        #[source]
        source: BlockError,
    },
    #[error("the other side's tree")]
    Manifest(#[from] ManifestError),
    #[error("{unreadable} entries of the source can't be read, the first is {path}: nothing was synced")]
    SourceUnreadable {
        path: RelPath,
        unreadable: usize,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Lineage(#[from] LineageConflict),
    #[error(transparent)]
    Guard(#[from] GuardError),
    #[error("content keeps changing faster than it can be read, the last was {path}; sync from a snapshot")]
    Restless { path: RelPath },
    #[error(transparent)]
    Volume(#[from] VolumeError),
    #[error(transparent)]
    Scan(#[from] ScanError),
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error(transparent)]
    Stage(#[from] StageError),
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// Of what keeps an image.
    #[error(transparent)]
    Image(Failure),
}

impl SessionError {
    pub(super) fn version(theirs: String) -> Self {
        Self::Version { ours: super::RELEASE, theirs }
    }

    /// Worth telling the other side.
    pub(super) fn is_ours(&self) -> bool {
        !matches!(self, Self::Peer(_) | Self::Wire(WireError::Closed(_)))
    }

    pub fn kind(&self) -> Kind {
        match self {
            Self::Wire(WireError::Closed(_)) => Kind::Unavailable,
            Self::Wire(WireError::Cancelled(_)) => Kind::Cancelled,
            Self::Wire(WireError::Frame(FrameError::Checksum)) => Kind::DataLoss,
            Self::Wire(WireError::Frame(_)) | Self::Unexpected { .. } | Self::Protocol(_) | Self::Manifest(_) => {
                Kind::Internal
            }
            Self::Peer(failure) => failure.kind,
            Self::Version { .. } | Self::Lineage(_) => Kind::Precondition,
            Self::Block { .. } => Kind::DataLoss,
            Self::SourceUnreadable { .. } => Kind::Storage,
            Self::Guard(error) => error.kind(),
            Self::Restless { .. } => Kind::Conflict,
            Self::Volume(error) => error.kind(),
            Self::Scan(error) => scan_kind(error),
            Self::Body(error) => error.kind(),
            Self::Stage(error) => error.kind(),
            Self::Commit(error) => error.kind(),
            Self::Image(failure) => failure.kind,
        }
    }

    pub fn reason(&self) -> &str {
        match self {
            Self::Wire(WireError::Closed(_)) => "link-closed",
            Self::Wire(WireError::Cancelled(_)) => "cancelled",
            Self::Wire(WireError::Frame(FrameError::Checksum)) => "frame-damaged",
            Self::Wire(WireError::Frame(_)) | Self::Unexpected { .. } | Self::Protocol(_) | Self::Manifest(_) => {
                "protocol"
            }
            Self::Peer(failure) => &failure.reason,
            Self::Version { .. } => "version-mismatch",
            Self::Block { .. } => "block-damaged",
            Self::SourceUnreadable { .. } => "source-unreadable",
            Self::Lineage(conflict) => lineage_reason(conflict),
            Self::Guard(error) => error.reason(),
            Self::Restless { .. } => "source-restless",
            Self::Volume(error) => error.reason(),
            Self::Scan(error) => scan_reason(error),
            Self::Body(error) => error.reason(),
            Self::Stage(error) => error.reason(),
            Self::Commit(error) => error.reason(),
            Self::Image(failure) => &failure.reason,
        }
    }

    pub fn to_failure(&self) -> Failure {
        Failure { kind: self.kind(), reason: self.reason().to_owned(), message: crate::error::chain(self) }
    }
}

impl From<Failure> for SessionError {
    fn from(failure: Failure) -> Self {
        Self::Image(failure)
    }
}

impl From<ApplyError> for SessionError {
    fn from(error: ApplyError) -> Self {
        CommitError::Undone(error).into()
    }
}

fn lineage_reason(conflict: &LineageConflict) -> &'static str {
    match conflict {
        LineageConflict::Volume { .. } => "other-volume",
        LineageConflict::Kind { .. } => "other-kind",
        LineageConflict::SourceNotPrimary => "source-not-primary",
        LineageConflict::BothPrimary { .. } => "both-primary",
        LineageConflict::Superseded { .. } => "superseded",
        LineageConflict::SplitBrain { .. } => "split-brain",
        LineageConflict::Paused { .. } => "rolled-back",
    }
}
