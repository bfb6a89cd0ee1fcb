use rustix::time::{ClockId, clock_gettime};

/// A point in time as file systems keep it: seconds since 1970 (negative before it) and nanoseconds below 10^9.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    pub secs: i64,
    pub nanos: u32,
}

const NANOS_PER_SEC: u32 = 1_000_000_000;

impl Time {
    /// Saturates at the end of time.
    pub fn plus(self, step: std::time::Duration) -> Self {
        let nanos = self.nanos + step.subsec_nanos();
        let secs = i64::try_from(step.as_secs()).unwrap_or(i64::MAX).saturating_add((nanos / NANOS_PER_SEC).into());
        Self { secs: self.secs.saturating_add(secs), nanos: nanos % NANOS_PER_SEC }
    }

    /// `CLOCK_REALTIME_COARSE` (`clock_gettime(2)`): the clock that local file systems stamp inodes with.
    pub fn now() -> Self {
        let now = clock_gettime(ClockId::RealtimeCoarse);
        Self { secs: now.tv_sec, nanos: now.tv_nsec.try_into().unwrap_or(0) }
    }
}
