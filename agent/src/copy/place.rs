//! One side of a copy, as it is written on the command line.

use std::{
    ffi::OsString,
    fmt,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    str::FromStr,
};

use drover_engine::{digest::Digest, id::VolumeId};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Local(PathBuf),
    Remote(RemotePlace),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RemotePlace {
    pub(super) host: String,
    pub(super) port: u16,
    /// `ROOT/PATH`, or absolute beneath one of the agent's roots.
    pub(super) path: String,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum PlaceError {
    #[error("it is empty")]
    Empty,
    #[error(
        "HOST:PATH is rsync's; an agent is named with its port, like {host}:7171:{path}. For a local path write ./{host}:{path}"
    )]
    NoPort { host: String, path: String },
    #[error("rsync:// is answered by a rsync daemon; an agent is named like HOST:7171:ROOT/PATH")]
    RsyncUrl,
    #[error("{0} has no PATH after its port: HOST:PORT:ROOT/PATH")]
    NoPath(String),
}

impl FromStr for Place {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Self, PlaceError> {
        if text.is_empty() {
            return Err(PlaceError::Empty);
        }
        if text.starts_with("rsync://") {
            return Err(PlaceError::RsyncUrl);
        }
        // What has a slash before its first colon is a path, as rsync and scp read it.
        let (host, rest) = match text.strip_prefix('[').and_then(|text| text.split_once("]:")) {
            Some((host, rest)) => (format!("[{host}]"), rest),
            None => match text.split_once(':') {
                Some((host, rest)) if !host.contains('/') => (host.to_owned(), rest),
                _ => return Ok(Self::Local(OsString::from(text).into())),
            },
        };
        let (port, path) = rest.split_once(':').unwrap_or((rest, ""));
        match port.parse() {
            Ok(_) if path.is_empty() => Err(PlaceError::NoPath(text.to_owned())),
            Ok(port) => Ok(Self::Remote(RemotePlace { host, port, path: path.trim_end_matches('/').to_owned() })),
            Err(_) => Err(PlaceError::NoPort { host, path: rest.to_owned() }),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(path) => write!(f, "{}", path.display()),
            Self::Remote(remote) => write!(f, "{remote}"),
        }
    }
}

impl fmt::Display for RemotePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.host, self.port, self.path)
    }
}

/// The id of the volume that a copy to this place is: the same each time, so that a second copy is a delta.
pub(super) fn volume_id(destination: &[&[u8]]) -> VolumeId {
    let lengths_and_parts = destination.iter().flat_map(|part| [&(part.len() as u64).to_le_bytes()[..], part].concat());
    let record: Vec<u8> = lengths_and_parts.collect();
    let digest = Digest::of_record("drover-agent copy: volume id of a destination, version 1", &record);
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.as_bytes()[..16]);
    // Version 8 (vendor specific) and the RFC's variant.
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    VolumeId::from_bytes(bytes)
}

pub(super) fn local_volume_id(destination: &Path) -> VolumeId {
    volume_id(&[b"local", destination.as_os_str().as_bytes()])
}

/// Name of the index that a source keeps for one destination.
pub(super) fn pair_name(source: &Path, destination: VolumeId) -> String {
    volume_id(&[b"source", source.as_os_str().as_bytes(), destination.as_bytes()]).to_string()
}
