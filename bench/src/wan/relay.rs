//! Carries packets between two TUN devices as a long line would: each leaves when those before it have left at
//! 1 Gbit/s, and arrives 20 ms later. What doesn't fit into the router's buffer before the line is dropped.

use std::{
    collections::VecDeque,
    fmt,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use serde::Serialize;

const ONE_WAY: Duration = Duration::from_millis(20);
/// Of 1 Gbit/s.
const NANOS_PER_BYTE: u64 = 8;
const BUFFER_BYTES: u64 = 8 << 20;
/// A packet that arrives later than this after its time tells of a relay without a core.
const LATE: Duration = Duration::from_millis(2);
/// Packets taken in before those that are due go out: a stream must not hold them up.
const BATCH: usize = 32;
/// The line doesn't get slower because the contestants use every core.
const NICE: i32 = -15;

#[derive(Debug, Default)]
pub(super) struct Counts {
    dropped: AtomicU64,
    late: AtomicU64,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub struct Losses {
    pub dropped_packets: u64,
    pub late_packets: u64,
}

impl Counts {
    pub(super) fn take(&self) -> Losses {
        let take = |count: &AtomicU64| count.swap(0, Ordering::Relaxed);
        Losses { dropped_packets: take(&self.dropped), late_packets: take(&self.late) }
    }
}

impl fmt::Display for Losses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { dropped_packets, late_packets } = self;
        write!(f, "{dropped_packets} packets dropped, {late_packets} more than {LATE:?} late")
    }
}

/// When the line is free again.
struct Line(Instant);

impl Line {
    /// When a packet that comes now has left; none if the buffer before the line is full.
    fn departure(&mut self, now: Instant, bytes: usize) -> Option<Instant> {
        if self.0.saturating_duration_since(now) > Duration::from_nanos(BUFFER_BYTES * NANOS_PER_BYTE) {
            return None;
        }
        self.0 = self.0.max(now) + Duration::from_nanos(bytes as u64 * NANOS_PER_BYTE);
        Some(self.0)
    }
}

struct Direction {
    from: Arc<OwnedFd>,
    to: Arc<OwnedFd>,
    line: Line,
    /// With the time of arrival.
    under_way: VecDeque<(Instant, Box<[u8]>)>,
    counts: Arc<Counts>,
}

/// One direction, in a thread of its own that ends with the program.
pub(super) fn start(from: Arc<OwnedFd>, to: Arc<OwnedFd>, counts: Arc<Counts>) -> Result<()> {
    let direction = Direction { from, to, line: Line(Instant::now()), under_way: VecDeque::new(), counts };
    let thread = thread::Builder::new().name("wan".to_owned());
    thread.spawn(move || direction.run()).context("start the relay of the WAN link")?;
    Ok(())
}

impl Direction {
    fn run(mut self) {
        // None: this thread. A relay that may not raise its priority still works, and late packets are counted.
        let _ = rustix::process::setpriority_process(None, NICE);
        let mut packet = vec![0; super::MTU];
        loop {
            if let Err(error) = self.wait().and_then(|()| self.take_in(&mut packet)) {
                eprintln!("the relay of the WAN link ends: {error}");
                return;
            }
            self.deliver();
        }
    }

    /// Until a packet comes or one is due.
    fn wait(&self) -> rustix::io::Result<()> {
        let due = self.under_way.front().map(|(due, _)| due.saturating_duration_since(Instant::now()));
        // Less than a second: the buffer and the way together.
        let timeout = due.map(|due| Timespec { tv_sec: 0, tv_nsec: due.subsec_nanos().into() });
        match poll(&mut [PollFd::new(&self.from, PollFlags::IN)], timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn take_in(&mut self, packet: &mut [u8]) -> rustix::io::Result<()> {
        for _ in 0..BATCH {
            let length = match rustix::io::read(&self.from, &mut *packet) {
                Ok(length) => length,
                Err(Errno::AGAIN | Errno::INTR) => break,
                Err(error) => return Err(error),
            };
            match self.line.departure(Instant::now(), length) {
                Some(departure) => self.under_way.push_back((departure + ONE_WAY, packet[..length].into())),
                None => drop(self.counts.dropped.fetch_add(1, Ordering::Relaxed)),
            }
        }
        Ok(())
    }

    fn deliver(&mut self) {
        let now = Instant::now();
        while let Some((due, packet)) = self.under_way.pop_front_if(|(due, _)| *due <= now) {
            if now - due > LATE {
                self.counts.late.fetch_add(1, Ordering::Relaxed);
            }
            if rustix::io::write(&self.to, &packet).is_err() {
                self.counts.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_leave_one_after_the_other() {
        let now = Instant::now();
        let mut line = Line(now);
        assert_eq!(line.departure(now, 9000), Some(now + Duration::from_micros(72)));
        assert_eq!(line.departure(now, 9000), Some(now + Duration::from_micros(144)));
        let later = now + Duration::from_secs(1);
        assert_eq!(line.departure(later, 125), Some(later + Duration::from_micros(1)));
    }

    #[test]
    fn a_full_buffer_drops() {
        let now = Instant::now();
        let mut line = Line(now);
        let kept = (0..2000).filter(|_| line.departure(now, 9000).is_some()).count() as u64;
        assert_eq!(kept, BUFFER_BYTES / 9000 + 1);
    }
}
