use rustix::time::{ClockId, clock_gettime};

/// A point in time as file systems keep it: seconds since 1970 (negative before it) and nanoseconds below 10^9.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    pub secs: i64,
    pub nanos: u32,
}

impl Time {
    /// `CLOCK_REALTIME_COARSE` (`clock_gettime(2)`): the clock that local file systems stamp inodes with.
    pub fn now() -> Self {
        let now = clock_gettime(ClockId::RealtimeCoarse);
        Self { secs: now.tv_sec, nanos: now.tv_nsec.try_into().unwrap_or(0) }
    }
}
