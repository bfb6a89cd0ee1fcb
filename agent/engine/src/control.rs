//! How a running job is watched, throttled and stopped. Shared by every thread of the job; says nothing about who asks.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::bases::BaseLimits;

#[derive(Debug, thiserror::Error)]
#[error("cancelled")]
pub struct Cancelled;

/// What a job is doing. The order is the order in which a sync passes through them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Phase {
    Waiting,
    Connecting,
    Scanning,
    Comparing,
    Planning,
    Transferring,
    Committing,
    Applying,
    Retaining,
    Verifying,
    Done,
}

impl Phase {
    const ALL: [Self; 11] = [
        Self::Waiting,
        Self::Connecting,
        Self::Scanning,
        Self::Comparing,
        Self::Planning,
        Self::Transferring,
        Self::Committing,
        Self::Applying,
        Self::Retaining,
        Self::Verifying,
        Self::Done,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Connecting => "connecting",
            Self::Scanning => "scanning",
            Self::Comparing => "comparing",
            Self::Planning => "planning",
            Self::Transferring => "transferring",
            Self::Committing => "committing",
            Self::Applying => "applying",
            Self::Retaining => "retaining",
            Self::Verifying => "verifying",
            Self::Done => "done",
        }
    }
}

/// A number that many threads add to and anyone may read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Progress as data. Totals are 0 until they are known; done and total are of the current phase.
#[derive(Debug, Default)]
pub struct Progress {
    phase: AtomicU8,
    pub entries_done: Counter,
    pub entries_total: Counter,
    pub bytes_done: Counter,
    pub bytes_total: Counter,
    /// Bytes of the engine's own messages, both directions.
    pub wire_sent: Counter,
    pub wire_received: Counter,
}

impl Progress {
    pub fn phase(&self) -> Phase {
        Phase::ALL[usize::from(self.phase.load(Ordering::Relaxed))]
    }

    /// Enters a phase: what was counted belonged to the one before.
    pub fn enter(&self, phase: Phase, entries_total: u64, bytes_total: u64) {
        self.phase.store(phase as u8, Ordering::Relaxed);
        self.entries_done.set(0);
        self.bytes_done.set(0);
        self.entries_total.set(entries_total);
        self.bytes_total.set(bytes_total);
    }
}

/// Bytes a second that a job may send. The agent changes the rate as its timetable says; 0 is no limit.
#[derive(Debug)]
pub struct Throttle {
    bytes_per_second: AtomicU64,
    free_at: Mutex<Instant>,
}

impl Throttle {
    /// Longest debt that is slept off in one go, so that a new rate or a cancel is soon noticed.
    const NAP: Duration = Duration::from_millis(50);

    pub fn unlimited() -> Self {
        Self::new(0)
    }

    pub fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: AtomicU64::new(bytes_per_second), free_at: Mutex::new(Instant::now()) }
    }

    pub fn set(&self, bytes_per_second: u64) {
        self.bytes_per_second.store(bytes_per_second, Ordering::Relaxed);
    }

    fn reserve(&self, bytes: u64) -> Instant {
        let rate = self.bytes_per_second.load(Ordering::Relaxed);
        let now = Instant::now();
        let mut free_at = self.free_at.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if rate == 0 {
            *free_at = now;
            return now;
        }
        let start = (*free_at).max(now);
        *free_at = start + Duration::from_secs_f64(bytes as f64 / rate as f64);
        start
    }
}

/// Enough for 25 ms at 10 Gbit/s, and a bound on memory and on what a kill loses.
pub const IN_FLIGHT_BYTES: u64 = 32 << 20;

/// The handle that travels with a job.
#[derive(Clone, Debug)]
pub struct Control {
    pub progress: Arc<Progress>,
    pub throttle: Arc<Throttle>,
    /// Content that this job may have asked for and not yet written.
    pub in_flight_bytes: u64,
    pub bases: BaseLimits,
    cancelled: Arc<AtomicBool>,
}

impl Default for Control {
    fn default() -> Self {
        Self::new(Arc::new(Throttle::unlimited()))
    }
}

impl Control {
    pub fn new(throttle: Arc<Throttle>) -> Self {
        Self {
            progress: Arc::default(),
            throttle,
            in_flight_bytes: IN_FLIGHT_BYTES,
            bases: BaseLimits::default(),
            cancelled: Arc::default(),
        }
    }

    #[must_use]
    pub fn with_in_flight(self, in_flight_bytes: u64) -> Self {
        Self { in_flight_bytes, ..self }
    }

    #[must_use]
    pub fn with_bases(self, bases: BaseLimits) -> Self {
        Self { bases, ..self }
    }

    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
    }

    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    pub fn check(&self) -> Result<(), Cancelled> {
        if self.is_cancelled() { Err(Cancelled) } else { Ok(()) }
    }

    /// Waits until `bytes` may be sent. Blocks the thread; never called from async code.
    pub fn pace(&self, bytes: u64) -> Result<(), Cancelled> {
        let start = self.throttle.reserve(bytes);
        loop {
            self.check()?;
            let left = start.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::park_timeout(left.min(Throttle::NAP));
        }
    }
}
