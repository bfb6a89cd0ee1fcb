//! Why content could not be moved.

use std::io;

use super::super::{Failure, WireError};
use crate::{codec::DecodeError, control::Cancelled, digest::Digest, error::Kind, path::RelPath};

#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    #[error("read {path} at the source")]
    Read {
        path: RelPath,
        #[source]
        source: io::Error,
    },
    #[error("source can't read {path}: {message}")]
    SourceFailed { path: RelPath, message: String },
    #[error("stage {path}")]
    Stage {
        path: RelPath,
        #[source]
        source: io::Error,
    },
    #[error("content of {path} arrives wrong again and again: expected {expected}, got {actual}")]
    Mismatch { path: RelPath, expected: Digest, actual: Digest },
    #[error("{0}")]
    Peer(Failure),
    #[error("expected a body, got {got}")]
    Unexpected { got: &'static str },
    #[error("answer {got} to no request")]
    Unasked { got: &'static str },
    #[error("answer to {path} is not what was asked for")]
    WrongAnswer { path: RelPath },
    #[error("more requests than a source takes")]
    TooManyRequests,
    #[error("body is malformed")]
    Malformed(#[from] DecodeError),
    #[error("a thread that moves content panicked")]
    Panicked,
}

impl BodyError {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Wire(WireError::Closed(_)) => Kind::Unavailable,
            Self::Wire(WireError::Frame(_)) | Self::Mismatch { .. } => Kind::DataLoss,
            Self::Wire(WireError::Cancelled(_)) | Self::Cancelled(_) => Kind::Cancelled,
            Self::Stage { source, .. } if is_full(source) => Kind::Exhausted,
            Self::Read { .. } | Self::SourceFailed { .. } | Self::Stage { .. } => Kind::Storage,
            Self::Peer(failure) => failure.kind,
            Self::Unexpected { .. } | Self::Unasked { .. } | Self::WrongAnswer { .. } => Kind::Invalid,
            Self::TooManyRequests | Self::Malformed(_) => Kind::Invalid,
            Self::Panicked => Kind::Internal,
        }
    }

    /// The peer's own reason stays in `Failure`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Wire(WireError::Closed(_)) => "link-lost",
            Self::Wire(WireError::Frame(_)) => "frame-damaged",
            Self::Wire(WireError::Cancelled(_)) | Self::Cancelled(_) => "cancelled",
            Self::Read { .. } | Self::SourceFailed { .. } => "source-read-failed",
            Self::Stage { source, .. } if is_full(source) => "no-space",
            Self::Stage { .. } => "staging-failed",
            Self::Mismatch { .. } => "content-mismatch",
            Self::Peer(_) => "peer-failed",
            Self::Unexpected { .. } | Self::Unasked { .. } | Self::WrongAnswer { .. } => "protocol-violated",
            Self::TooManyRequests => "too-many-requests",
            Self::Malformed(_) => "frame-malformed",
            Self::Panicked => "internal",
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

/// `hash_file` and failpoints hand cancelling over inside an I/O error.
pub(super) fn is_cancelled(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Cancelled>())
}

/// Nothing of that name, something that is no regular file (`InvalidInput`), no directory above it, or another mount.
pub(super) fn is_no_file(error: &io::Error) -> bool {
    use io::ErrorKind::{CrossesDevices, InvalidInput, IsADirectory, NotADirectory, NotFound, StaleNetworkFileHandle};
    matches!(
        error.kind(),
        NotFound | NotADirectory | IsADirectory | CrossesDevices | InvalidInput | StaleNetworkFileHandle
    ) || matches!(error.raw_os_error(), Some(NO_SUCH_DEVICE | IS_SYMLINK))
}

/// ENXIO: what `open` says of a socket.
const NO_SUCH_DEVICE: i32 = 6;
/// ELOOP: what `open` with `O_NOFOLLOW` says of a symlink.
const IS_SYMLINK: i32 = 40;
