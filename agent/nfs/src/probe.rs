//! A write through the NFS server: what a client would see, tried by a process of its own, since a server that hangs hangs its clients.

pub mod worker;

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// As whom and how probes reach the server of this host.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProbeConfig {
    /// Address of this host that its exports let in.
    pub server: String,
    pub port: u16,
    /// Of the mount protocol, with version 3; 0: as rpcbind says.
    pub mount_port: u16,
    /// 3 or 4.
    pub version: u8,
    /// By default the owner of the directory that is probed.
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub timeout_secs: u64,
}

impl Default for ProbeConfig {
    fn default() -> Self {
        let server = "127.0.0.1".to_owned();
        Self { server, port: 2049, mount_port: 0, version: 4, uid: None, gid: None, timeout_secs: 10 }
    }
}

/// What a probe is started as: the agent's own binary, and the argument that makes it one.
#[derive(Clone, Debug)]
pub struct Program {
    pub path: PathBuf,
    pub arguments: Vec<String>,
}

/// Where to write, as a client calls it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) mount_port: u16,
    pub(crate) version: u8,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) patience_millis: u64,
    /// What is mounted.
    pub(crate) export: String,
    /// Beneath it, with a slash at its beginning and none at its end.
    pub(crate) directory: String,
}

impl Target {
    pub(crate) fn url(&self) -> String {
        format!("nfs://{}:{}{}{} (NFSv{})", self.host, self.port, self.export, self.directory, self.version)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Make a file of that name, write to it, sync; it stays open.
    Begin { target: Target, name: String },
    /// Write to the open file, and make another one.
    Again { name: String },
    /// Remove the file that was made.
    Remove,
}

/// One step and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attempt {
    /// For people, such as "write to the open file".
    pub(crate) step: String,
    /// 0: it succeeded.
    pub(crate) errno: i32,
    pub(crate) said: String,
}

impl Attempt {
    pub(crate) fn is_done(&self) -> bool {
        self.errno == 0
    }

    /// What a server says of a write to an export that is read-only (NFS3ERR_ROFS, NFS4ERR_ROFS).
    pub(crate) fn is_read_only(&self) -> bool {
        self.errno == Errno::ROFS.raw_os_error()
    }

    /// By a server that is there and knows who asks: EPERM, ENOENT, EACCES, EROFS, ESTALE.
    pub(crate) fn is_refused(&self) -> bool {
        let refusals = [Errno::PERM, Errno::NOENT, Errno::ACCESS, Errno::ROFS, Errno::STALE];
        refusals.iter().any(|errno| errno.raw_os_error() == self.errno)
    }

    pub(crate) fn shown(&self) -> String {
        if self.is_done() { format!("{}: done", self.step) } else { format!("{}: {}", self.step, self.said) }
    }
}

/// A probe whose file is open. The process is killed when it goes.
#[derive(Debug)]
pub(crate) struct Session {
    child: Child,
    socket: BufReader<UnixStream>,
    pub(crate) target: Target,
    pub(crate) name: String,
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProbeError {
    #[error("the probe can't be started")]
    Start(#[source] io::Error),
    #[error("the probe did not answer: {0}")]
    Silent(String),
    #[error("{}", shown(.0))]
    Refused(Vec<Attempt>),
}

fn shown(attempts: &[Attempt]) -> String {
    attempts.iter().map(Attempt::shown).collect::<Vec<_>>().join("; ")
}

impl Session {
    /// All steps succeeded; or what they came to.
    pub(crate) fn begin(program: &Program, target: Target, name: &str) -> Result<Self, ProbeError> {
        let (socket, theirs) = UnixStream::pair().map_err(ProbeError::Start)?;
        let mut command = Command::new(&program.path);
        command.args(&program.arguments).stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null());
        let child = command.spawn().map_err(ProbeError::Start)?;
        // The command holds the other end, which must go for the process's death to be seen.
        drop(command);
        let mut session = Self { child, socket: BufReader::new(socket), target, name: name.to_owned() };
        let order = Order::Begin { target: session.target.clone(), name: name.to_owned() };
        let attempts = session.order(&order)?;
        match attempts.iter().all(Attempt::is_done) {
            true => Ok(session),
            false => Err(ProbeError::Refused(attempts)),
        }
    }

    pub(crate) fn again(&mut self, name: &str) -> Result<Vec<Attempt>, ProbeError> {
        self.order(&Order::Again { name: name.to_owned() })
    }

    pub(crate) fn remove(&mut self) -> Result<Vec<Attempt>, ProbeError> {
        self.order(&Order::Remove)
    }

    fn order(&mut self, order: &Order) -> Result<Vec<Attempt>, ProbeError> {
        /// Calls that an order may make, each of which may wait as long as the configuration says.
        const CALLS: u32 = 4;
        let silent = |error: io::Error| ProbeError::Silent(error.to_string());
        let patience = Duration::from_millis(self.target.patience_millis) * CALLS;
        self.socket.get_ref().set_read_timeout(Some(patience)).map_err(silent)?;
        let mut line = serde_json::to_string(order).map_err(|error| silent(error.into()))?;
        line.push('\n');
        self.socket.get_mut().write_all(line.as_bytes()).map_err(silent)?;
        let mut answer = String::new();
        match self.socket.read_line(&mut answer) {
            Ok(0) => Err(ProbeError::Silent("its process ended".to_owned())),
            Ok(_) => serde_json::from_str(&answer).map_err(|error| silent(error.into())),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(ProbeError::Silent(format!("nothing came for {} s", patience.as_secs())))
            }
            Err(error) => Err(silent(error)),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
