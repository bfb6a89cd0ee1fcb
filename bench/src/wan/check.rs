//! What the link really does, measured before the contestants use it.

use std::{
    fmt,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde::Serialize;

use super::{SINK_ADDRESS, Wan};

const CONNECTS: usize = 5;
/// Slow start, and then what is measured: whole transfers would mostly tell of slow start.
const WARM_UP: Duration = Duration::from_secs(1);
const MEASURED: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, Serialize)]
pub struct Measured {
    pub round_trip_ms: f64,
    /// What the kernel's limit of send buffers leaves of the line.
    pub one_connection_mbit: f64,
    pub four_connections_mbit: f64,
}

pub(super) fn measure(wan: &Wan) -> Result<Measured> {
    Ok(Measured {
        round_trip_ms: round_trip(wan)?.as_secs_f64() * 1e3,
        one_connection_mbit: throughput(wan, 1)?,
        four_connections_mbit: throughput(wan, 4)?,
    })
}

fn listen(wan: &Wan) -> Result<TcpListener> {
    wan.at_sink(|| TcpListener::bind((SINK_ADDRESS, 0)).context("listen at the sink"))
}

/// The fastest of some connects: a connection is there when its second packet has come back.
fn round_trip(wan: &Wan) -> Result<Duration> {
    let listener = listen(wan)?;
    let mut fastest = Duration::MAX;
    for _ in 0..CONNECTS {
        let start = Instant::now();
        TcpStream::connect(listener.local_addr()?).context("connect to the sink")?;
        fastest = fastest.min(start.elapsed());
    }
    Ok(fastest)
}

/// Mbit/s of content from the source to the sink, over so many connections at once.
fn throughput(wan: &Wan, connections: usize) -> Result<f64> {
    let listener = listen(wan)?;
    let connect = |_| {
        let near = TcpStream::connect(listener.local_addr()?).context("connect to the sink")?;
        Ok((near, listener.accept().context("accept at the sink")?.0))
    };
    let pairs = (0..connections).map(connect).collect::<Result<Vec<_>>>()?;
    let (arrived, stop) = (&AtomicU64::new(0), &AtomicBool::new(false));
    thread::scope(|scope| {
        for (near, far) in pairs {
            scope.spawn(|| send(near, stop));
            scope.spawn(|| receive(far, arrived));
        }
        thread::sleep(WARM_UP);
        let (start, before) = (Instant::now(), arrived.load(Ordering::Relaxed));
        thread::sleep(MEASURED);
        let bytes = arrived.load(Ordering::Relaxed) - before;
        let seconds = start.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        Ok(bytes as f64 * 8.0 / 1e6 / seconds)
    })
}

/// An error ends the stream early, and the rate tells of it.
fn send(mut stream: TcpStream, stop: &AtomicBool) {
    let block = vec![0; 256 << 10];
    while !stop.load(Ordering::Relaxed) && stream.write_all(&block).is_ok() {}
}

fn receive(mut stream: TcpStream, arrived: &AtomicU64) {
    let mut block = vec![0; 256 << 10];
    while let Ok(length @ 1..) = stream.read(&mut block) {
        arrived.fetch_add(length as u64, Ordering::Relaxed);
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { round_trip_ms, one_connection_mbit: one, four_connections_mbit: four } = self;
        write!(f, "{round_trip_ms:.1} ms, {one:.0} Mbit/s on one connection, {four:.0} on four")
    }
}
