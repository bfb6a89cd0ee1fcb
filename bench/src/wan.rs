//! A wide-area link on one machine: 40 ms round trip and 1 Gbit/s between the source's network namespace, which is this
//! program's own, and a second one for the sink.
//!
//! Each namespace has a TUN device; `relay` carries the packets from one to the other, because not every kernel has
//! netem. TCP sees an ordinary link: the kernel's buffers and its congestion control are left as they are, so that one
//! connection gets about 560 Mbit/s with the usual 4 MiB of `tcp_wmem`, and all of the line with 32 MiB.
//!
//! Packets are of 9000 bytes: on two busy cores four connections got 994 Mbit/s of content with them, and 933 to 986
//! with packets of 1500 bytes, thousands of which came late: the contestants need the cores.
//!
//! The devices and the second namespace are held by descriptors of this program and by processes in it, and the kernel
//! kills those when this program dies: nothing is left behind.

mod check;
mod kernel;
mod relay;

use std::{fmt, fs, os::fd::OwnedFd, process::Command, sync::Arc, thread};

use anyhow::{Context, Result, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::Serialize;

pub use check::Measured;
pub use relay::Losses;

pub const SOURCE_ADDRESS: &str = "10.77.0.1";
pub const SINK_ADDRESS: &str = "10.77.0.2";
pub const DEVICE: &str = "wan";
const MTU: usize = 9000;

#[derive(Debug)]
pub struct Wan {
    source: OwnedFd,
    sink: OwnedFd,
    counts: Arc<relay::Counts>,
}

/// What the link is and what it turned out to be.
#[derive(Debug, Serialize)]
pub struct Link {
    pub mtu: usize,
    pub measured: Measured,
    /// Of the trial.
    pub losses: Losses,
}

impl Wan {
    /// The relay ends with this program.
    pub fn start() -> Result<Self> {
        ensure!(has_no_routes()?, "a WAN is only made in a network namespace without routes: use bench/run");
        let source = kernel::namespace_of_this_thread()?;
        let sink = thread::spawn(kernel::new_namespace).join().ok().context("make a namespace for the sink")??;
        let wan = Self { source, sink, counts: Arc::default() };
        let near = Arc::new(device(SOURCE_ADDRESS, SINK_ADDRESS)?);
        let far = wan.at_sink(|| {
            ip(&["link", "set", "lo", "up"])?;
            device(SINK_ADDRESS, SOURCE_ADDRESS).map(Arc::new)
        })?;
        for (from, to) in [(&near, &far), (&far, &near)] {
            relay::start(from.clone(), to.clone(), wan.counts.clone())?;
        }
        Ok(wan)
    }

    /// Does `job` with this thread in the sink's namespace: sockets and processes that it makes stay there.
    pub fn at_sink<T>(&self, job: impl FnOnce() -> Result<T>) -> Result<T> {
        enter(&self.sink)?;
        let outcome = job();
        enter(&self.source)?;
        outcome
    }

    /// Tries the link, so that a relay that is too slow for it is seen.
    pub fn link(&self) -> Result<Link> {
        let measured = check::measure(self).context("try the WAN link")?;
        Ok(Link { mtu: MTU, measured, losses: self.take_losses() })
    }

    /// Since the last call.
    pub fn take_losses(&self) -> Losses {
        self.counts.take()
    }
}

/// True of a new namespace and false of a machine's own, which gets no device of ours.
fn has_no_routes() -> Result<bool> {
    let routes = fs::read_to_string("/proc/thread-self/net/route").context("read the routes")?;
    Ok(routes.lines().nth(1).is_none())
}

fn enter(namespace: &OwnedFd) -> Result<()> {
    use std::os::fd::AsFd;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).context("enter a network namespace")
}

/// A TUN device in the namespace of this thread.
fn device(address: &str, peer: &str) -> Result<OwnedFd> {
    let device = kernel::tun(DEVICE).context("make a TUN device")?;
    // The queue between the stack and the relay holds what arrives while the relay waits for a core.
    ip(&["link", "set", DEVICE, "mtu", &MTU.to_string(), "txqueuelen", "4096", "up"])?;
    ip(&["address", "add", address, "peer", peer, "dev", DEVICE])?;
    Ok(device)
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output().context("start ip")?;
    ensure!(output.status.success(), "ip {arguments:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mtu, measured, losses } = self;
        write!(f, "WAN: 40 ms round trip, 1 Gbit/s, MTU {mtu}\nmeasured: {measured}; {losses}")
    }
}
