//! What a caller may do about an error. Every error of the engine has a kind and a stable, documented reason; the
//! agent turns the kind into a gRPC status in one place.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Fix the call.
    Invalid,
    /// No such volume, point or job.
    NotFound,
    /// Done already under another identity.
    Exists,
    /// The state of a volume forbids it: look, then decide.
    Precondition,
    /// Lost a race; try again with fresh state.
    Conflict,
    /// Out of space, jobs or another bounded thing.
    Exhausted,
    /// The other side or the storage does not answer; try again later.
    Unavailable,
    /// It did not end in its time; the error says whether it may have been carried out.
    TimedOut,
    /// Content is not what its digest says.
    DataLoss,
    /// The caller may not do this.
    Denied,
    /// Someone cancelled it.
    Cancelled,
    /// An I/O error of the storage.
    Storage,
    /// A bug.
    Internal,
}

/// An error with all its causes, for someone who only gets text.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
