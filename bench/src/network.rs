//! How the two ends reach each other: over loopback, or over a WAN link into a second network namespace.

use std::{ffi::OsStr, fs, process::Command};

use anyhow::{Context, Result};

use crate::wan::{DEVICE, Link, Losses, SINK_ADDRESS, SOURCE_ADDRESS, Wan};

#[derive(Debug)]
pub enum Network {
    Loopback,
    Wan(Wan),
}

#[derive(Clone, Copy, Debug)]
pub enum Place {
    Source,
    Sink,
}

impl Network {
    pub fn is_wan(&self) -> bool {
        matches!(self, Self::Wan(_))
    }

    pub fn address(&self, place: Place) -> &'static str {
        match (self, place) {
            (Self::Loopback, _) => "127.0.0.1",
            (Self::Wan(_), Place::Source) => SOURCE_ADDRESS,
            (Self::Wan(_), Place::Sink) => SINK_ADDRESS,
        }
    }

    /// Does `job` there: processes that it starts stay there.
    pub fn at<T>(&self, place: Place, job: impl FnOnce() -> Result<T>) -> Result<T> {
        match (self, place) {
            (Self::Wan(wan), Place::Sink) => wan.at_sink(job),
            _ => job(),
        }
    }

    /// On a WAN a process dies with this program, however that ends: it would keep the sink's namespace.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        match self {
            Self::Loopback => Command::new(program),
            Self::Wan(_) => {
                let mut command = Command::new("setpriv");
                command.args(["--pdeathsig", "KILL"]).arg(program);
                command
            }
        }
    }

    /// Headers and acknowledgements of both directions included.
    pub fn carried_bytes(&self) -> Result<u64> {
        match self {
            // What is sent over loopback is received there too.
            Self::Loopback => Ok(counters("lo")?.0),
            Self::Wan(_) => counters(DEVICE).map(|(received, sent)| received + sent),
        }
    }

    pub fn link(&self) -> Result<Option<Link>> {
        match self {
            Self::Loopback => Ok(None),
            Self::Wan(wan) => wan.link().map(Some),
        }
    }

    /// Since the last call.
    pub fn take_losses(&self) -> Option<Losses> {
        match self {
            Self::Loopback => None,
            Self::Wan(wan) => Some(wan.take_losses()),
        }
    }
}

/// Bytes that a device has received and sent, of `/proc/net/dev`.
fn counters(device: &str) -> Result<(u64, u64)> {
    let devices = fs::read_to_string("/proc/thread-self/net/dev").context("read interface counters")?;
    let of = |line: &str| {
        let fields = line.trim().strip_prefix(device)?.strip_prefix(':')?;
        let fields: Vec<u64> = fields.split_whitespace().map_while(|field| field.parse().ok()).collect();
        Some((*fields.first()?, *fields.get(8)?))
    };
    devices.lines().find_map(of).with_context(|| format!("no counters of the interface {device}"))
}
