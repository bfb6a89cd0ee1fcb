//! The agent's configuration: one TOML file, unknown fields refused, every error with its line.

mod limits;
mod nfs;
mod timetable;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use drover_engine::beside::RootKind;
use serde::Deserialize;

use crate::snapshot::SnapshotConfig;
pub use limits::{Defaults, Limits, Scrub};
pub use nfs::{NfsConfig, OnSuperseded};

pub use timetable::{Clock, Slot, Timetable, TimetableError};

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("read configuration {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The message of the parser names line and column and shows the line.
    #[error("{path}: {source}")]
    Parse {
        path: PathBuf,
        #[source]
        source: Box<toml::de::Error>,
    },
    #[error("{what} {name:?} is configured twice")]
    Twice { what: &'static str, name: String },
    #[error("{what} {path} is not an absolute path")]
    Relative { what: &'static str, path: PathBuf },
    #[error("{what} {value:?} is not a name: 1 to 64 characters of [A-Za-z0-9._-]")]
    Name { what: &'static str, value: String },
    #[error("root {root}: export {export:?} is not SERVER:/PATH or /PATH")]
    Export { root: String, export: String },
    #[error("snapshot of root {root}: {problem}")]
    Snapshot { root: String, problem: &'static str },
    #[error(
        "root {root} is for devices and names no `beside`, a directory of a file system with room for their journal and history"
    )]
    NoBeside { root: String },
    #[error("nfs: {0}")]
    Nfs(String),
    #[error("ceph {ceph}: user {user:?} is not a full name, such as client.drover")]
    CephUser { ceph: String, user: String },
    #[error("peer {peer}: address {address:?} is not https://HOST:PORT")]
    Address { peer: String, address: String },
    #[error("certificate name {san:?} has both the role peer and the role {other}; give each its own certificate")]
    PeerHasOtherRole { san: String, other: &'static str },
    #[error("metrics_listen is the address that listen has")]
    SameAddress,
    #[error("peer {0:?} has this agent's own name")]
    PeerIsSelf(String),
    #[error("{field} is {value}, it must be {range}")]
    OutOfRange { field: &'static str, value: u64, range: &'static str },
    #[error(transparent)]
    Timetable(#[from] TimetableError),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// This agent, as its peers call it.
    pub name: String,
    pub listen: SocketAddr,
    pub metrics_listen: Option<SocketAddr>,
    /// Job journal and Unix socket. A lost state directory loses no volume.
    pub state_dir: PathBuf,
    pub tls: TlsFiles,
    pub roles: Roles,
    #[serde(default, rename = "root")]
    pub roots: Vec<RootConfig>,
    #[serde(default)]
    pub ceph: Vec<CephConfig>,
    #[serde(default, rename = "peer")]
    pub peers: Vec<PeerConfig>,
    #[serde(default)]
    pub limits: Limits,
    #[serde(default)]
    pub defaults: Defaults,
    #[serde(default)]
    pub scrub: Scrub,
    /// The NFS server of this host, whose clients can be shut out.
    pub nfs: Option<NfsConfig>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    pub ca: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Names in client certificates (DNS or URI SANs), by what they may do.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Roles {
    pub controller: BTreeSet<String>,
    pub peer: BTreeSet<String>,
    pub viewer: BTreeSet<String>,
}

/// A directory whose subdirectories may be volumes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootConfig {
    pub name: String,
    pub path: PathBuf,
    #[serde(default)]
    pub kind: RootKind,
    /// Where the state beside the volumes lies, on the same file system; `.drover` in the root by default. A root of
    /// devices must name one, on whatever file system has room for their journal and history.
    pub beside: Option<PathBuf>,
    /// How the root's block volumes are frozen while they are the source of a sync.
    pub snapshot: Option<SnapshotConfig>,
    /// What PersistentVolumes call this root: `SERVER:/PATH`, or `/PATH` on whatever server. At a replica the primary's names belong here, too.
    #[serde(default)]
    pub exports: Vec<String>,
}

/// A Ceph cluster whose mirrored images may be volumes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CephConfig {
    pub name: String,
    #[serde(default = "ceph_conf")]
    pub conf: PathBuf,
    /// `client.NAME`
    pub user: String,
    /// By default where `conf` says that it is.
    pub keyring: Option<PathBuf>,
    /// `client.NAME`, by which the mirroring of pools is set up: mode, site name, peers. By default `user`, which may not do all of it.
    pub setup_user: Option<String>,
    pub setup_keyring: Option<PathBuf>,
    /// `POOL` or `POOL/NAMESPACE`, where images may be volumes.
    pub pools: Vec<String>,
}

fn ceph_conf() -> PathBuf {
    "/etc/ceph/ceph.conf".into()
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerConfig {
    pub name: String,
    /// `https://HOST:PORT`
    pub address: String,
    /// DNS name that the peer's certificate must have; `NAME.drover` by default.
    pub server_name: Option<String>,
}

impl PeerConfig {
    pub fn server_name(&self) -> String {
        self.server_name.clone().unwrap_or_else(|| format!("{}.drover", self.name))
    }
}

impl Config {
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let parsed: Self = toml::from_str(text)
            .map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })?;
        parsed.validate()?;
        Ok(parsed)
    }

    pub fn peer(&self, name: &str) -> Option<&PeerConfig> {
        self.peers.iter().find(|peer| peer.name == name)
    }

    pub fn socket_path(&self) -> PathBuf {
        self.state_dir.join("drover.sock")
    }

    fn validate(&self) -> Result<(), ConfigError> {
        name("name", &self.name)?;
        absolute("state_dir", &self.state_dir)?;
        unique("root", self.roots.iter().map(|root| &root.name))?;
        unique("root path", self.roots.iter().map(|root| root.path.to_string_lossy()))?;
        unique("peer", self.peers.iter().map(|peer| &peer.name))?;
        for root in &self.roots {
            name("root name", &root.name)?;
            absolute("root path", &root.path)?;
            root.beside.as_deref().map_or(Ok(()), |beside| absolute("beside", beside))?;
            root.snapshot.as_ref().map_or(Ok(()), |snapshot| snapshot.validate(&root.name))?;
            if let Some(export) = root.exports.iter().find(|export| crate::pv::export_of(export).is_none()) {
                return Err(ConfigError::Export { root: root.name.clone(), export: export.clone() });
            }
            if root.kind == RootKind::Devices && root.beside.is_none() {
                return Err(ConfigError::NoBeside { root: root.name.clone() });
            }
        }
        if self.metrics_listen == Some(self.listen) && self.listen.port() != 0 {
            return Err(ConfigError::SameAddress);
        }
        unique("ceph", self.ceph.iter().map(|ceph| &ceph.name))?;
        for ceph in &self.ceph {
            name("ceph name", &ceph.name)?;
            absolute("ceph conf", &ceph.conf)?;
            ceph.keyring.as_deref().map_or(Ok(()), |keyring| absolute("ceph keyring", keyring))?;
            ceph.setup_keyring.as_deref().map_or(Ok(()), |keyring| absolute("ceph setup_keyring", keyring))?;
            for user in [Some(&ceph.user), ceph.setup_user.as_ref()].into_iter().flatten() {
                if !user.starts_with("client.") {
                    return Err(ConfigError::CephUser { ceph: ceph.name.clone(), user: user.clone() });
                }
            }
        }
        for peer in &self.peers {
            if peer.name == self.name {
                return Err(ConfigError::PeerIsSelf(peer.name.clone()));
            }
            name("peer name", &peer.name)?;
            address(peer)?;
        }
        self.nfs.as_ref().map_or(Ok(()), NfsConfig::validate)?;
        self.validate_roles()?;
        self.defaults.validate()?;
        self.limits.validate()
    }

    /// A peer may overwrite secondaries and read primaries, a controller may promote: one stolen key should not do both.
    fn validate_roles(&self) -> Result<(), ConfigError> {
        for (other, names) in [("controller", &self.roles.controller), ("viewer", &self.roles.viewer)] {
            if let Some(san) = self.roles.peer.intersection(names).next() {
                return Err(ConfigError::PeerHasOtherRole { san: san.clone(), other });
            }
        }
        Ok(())
    }
}

fn name(what: &'static str, value: &str) -> Result<(), ConfigError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if (1..=64).contains(&value.len()) && value.chars().all(fits) {
        return Ok(());
    }
    Err(ConfigError::Name { what, value: value.to_owned() })
}

fn absolute(what: &'static str, path: &Path) -> Result<(), ConfigError> {
    if path.is_absolute() { Ok(()) } else { Err(ConfigError::Relative { what, path: path.to_owned() }) }
}

fn address(peer: &PeerConfig) -> Result<(), ConfigError> {
    let authority = peer
        .address
        .strip_prefix("https://")
        .and_then(|rest| rest.parse::<tonic::codegen::http::uri::Authority>().ok());
    match authority {
        Some(authority) if authority.port().is_some() => Ok(()),
        _ => Err(ConfigError::Address { peer: peer.name.clone(), address: peer.address.clone() }),
    }
}

fn unique<T: Ord + ToString>(what: &'static str, names: impl Iterator<Item = T>) -> Result<(), ConfigError> {
    let mut seen = BTreeMap::new();
    for name in names {
        let text = name.to_string();
        if seen.insert(name, ()).is_some() {
            return Err(ConfigError::Twice { what, name: text });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = include_str!("../../deploy/samples/agent.toml");

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(Path::new("agent.toml"), text)
    }

    #[test]
    fn the_sample_is_understood() {
        let config = parse(SAMPLE).unwrap();
        assert_eq!(config.name, "site-a");
        assert_eq!(config.peer("site-b").unwrap().server_name(), "site-b.drover");
        assert_eq!(config.limits.timetable.len(), 1);
        assert_eq!(config.defaults.retain, 2);
    }

    #[test]
    fn an_unknown_field_is_refused_with_its_line() {
        let error = parse(&SAMPLE.replace("state_dir =", "state_dri =")).unwrap_err().to_string();
        assert!(error.contains("state_dri") && error.contains("line "), "{error}");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (from, to, says) in [
            ("name = \"site-a\"", "name = \"site a\"", "is not a name"),
            ("state_dir = \"/", "state_dir = \"", "absolute"),
            ("https://", "http://", "is not https://HOST:PORT"),
            ("peer = [\"site-b.drover\"]", "peer = [\"viewer.drover\"]", "both the role peer"),
            ("from = \"08:00\"", "from = \"8 o'clock\"", "HH:MM"),
            ("beside = \"/var/lib/drover/disks\"", "# beside", "names no `beside`"),
            ("jobs = 4", "jobs = 0", "limits.jobs"),
        ] {
            assert!(SAMPLE.contains(from), "{from}");
            let error = parse(&SAMPLE.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
