//! Why a call about exports fails.

use std::{io, path::PathBuf};

use drover_engine::{error::Kind, record::RecordError};

use crate::server::ServerKind;

#[derive(Debug, thiserror::Error)]
pub enum NfsError {
    #[error(
        "this agent knows of no NFS server: say in its configuration which one serves this host, as [nfs] server = \"kernel\" or \"ganesha\""
    )]
    NotConfigured,
    #[error("no export of this host's NFS server reaches {}: there are no clients to shut out, or the configuration names another server than the one that serves it", path.display())]
    NotExported { path: PathBuf },
    #[error(
        "{} is exported with all of {} (export {}): --whole-export shuts the clients of all that out{}",
        path.display(), export.display(), export.display(), others_text(others)
    )]
    Shared { path: PathBuf, export: PathBuf, others: Vec<String> },
    #[error(
        "fences stand that were made with another kind of NFS server ({0:?}) in the configuration: lift them with that one, and then change it"
    )]
    OtherServer(ServerKind),
    #[error("exports are being looked at or changed, and the NFS server is slow to answer; try again")]
    Busy,
    #[error("nothing is fenced by the name {0}")]
    NotFenced(String),
    #[error("{what} {}", path.display())]
    File {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} can't be understood at line {line}: {problem}", path.display())]
    Syntax { path: PathBuf, line: usize, problem: &'static str },
    #[error("{what}: {problem}")]
    Server { what: String, problem: String },
    #[error("the journal of fences can't be {what}")]
    Book {
        what: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("the journal of fences can't be read: nothing is fenced or let in until it is put right")]
    Damaged(#[source] RecordError),
    #[error("the journal of fences can't be read: it was written by another release")]
    Newer,
    #[error("{} can't be found", path.display())]
    Place {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the clients of {name} are not all let in again: {problem}")]
    NotLifted { name: String, problem: String },
}

fn others_text(others: &[String]) -> String {
    match others {
        [] => String::new(),
        others => format!(", those of the volumes {} as well", others.join(", ")),
    }
}

impl NfsError {
    pub fn kind(&self) -> Kind {
        match self {
            Self::OtherServer(_) => Kind::Precondition,
            Self::NotConfigured
            | Self::NotExported { .. }
            | Self::Shared { .. }
            | Self::Syntax { .. }
            | Self::Newer => Kind::Precondition,
            Self::NotFenced(_) | Self::Place { .. } => Kind::NotFound,
            Self::File { .. } | Self::Book { .. } => Kind::Storage,
            Self::Damaged(_) => Kind::DataLoss,
            Self::Server { .. } | Self::NotLifted { .. } | Self::Busy => Kind::Unavailable,
        }
    }

    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotConfigured => "no-nfs-server",
            Self::OtherServer(_) => "other-nfs-server",
            Self::Busy => "exports-busy",
            Self::NotExported { .. } => "not-exported",
            Self::Shared { .. } => "export-shared",
            Self::NotFenced(_) => "not-fenced",
            Self::Place { .. } => "no-such-directory",
            Self::File { .. } => "exports-unwritable",
            Self::Syntax { .. } => "exports-syntax",
            Self::Server { .. } => "nfs-server",
            Self::NotLifted { .. } => "not-unfenced",
            Self::Book { .. } | Self::Damaged(_) | Self::Newer => "fence-journal",
        }
    }
}
