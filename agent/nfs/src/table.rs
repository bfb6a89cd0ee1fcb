//! What an NFS server serves, whatever server it is.

use std::{fmt, path::PathBuf};

use serde::{Deserialize, Serialize};

/// What a client may do with an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    None,
    /// Metadata at most, and no change.
    ReadOnly,
    /// Content, or metadata alone.
    ReadWrite,
    /// The server does not tell.
    Unknown,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::ReadOnly => "read-only",
            Self::ReadWrite => "read-write",
            Self::Unknown => "unknown",
        })
    }
}

/// How far clients are shut out; the later one is the stricter one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shut {
    ReadOnly,
    Refuse,
}

impl Shut {
    pub fn allows(self, access: Access) -> bool {
        match self {
            Self::ReadOnly => matches!(access, Access::None | Access::ReadOnly),
            Self::Refuse => access == Access::None,
        }
    }
}

impl fmt::Display for Shut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReadOnly => "read-only",
            Self::Refuse => "refused",
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    pub path: PathBuf,
    /// As clients of NFSv4 call it.
    pub pseudo: PathBuf,
    /// `Export_Id` of NFS-Ganesha, `fsid` of the kernel's server where one is given.
    pub id: Option<String>,
    /// Whether file systems that are mounted beneath it are served with it.
    pub crosses: bool,
    /// In the order in which the server tries them.
    pub clients: Vec<Client>,
    /// The server itself says that nobody else may do anything.
    pub is_complete: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// As the server shows it: an address, a network, a pattern, `@NETGROUP`, `*`.
    pub who: String,
    pub access: Access,
}

/// Read back from the running server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    pub exports: Vec<Export>,
    /// Where it was read, for people.
    pub source: String,
    /// What could not be read, so that no proof can be had.
    pub gaps: Vec<String>,
}
