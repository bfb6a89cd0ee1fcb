//! What the agent may use at most. Each limit has a default that fits a storage host with other work to do.

use drover_engine::bases::BaseLimits;
use serde::Deserialize;

use super::{ConfigError, Timetable};

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Jobs that run at once; others wait.
    pub jobs: usize,
    /// Sessions that peers may run with this agent at once; more are refused and retried by the peer.
    pub sessions: usize,
    /// Content that one session may have asked for and not yet written, and frames that wait in its memory.
    pub in_flight_mib: usize,
    /// Extents up to which a big file is cloned, so that its next change is found by its extent map.
    pub base_extents: u32,
    /// Percent of a file system that must be free for such clones; they pin what is overwritten.
    pub base_free_percent: u8,
    /// RLIMIT_NOFILE that the agent sets for itself at start, as far as the hard limit lets it.
    pub open_files: u64,
    /// MiB a second that all sessions together may send; 0 is no limit.
    pub bandwidth_mib: u64,
    /// Other bandwidths at certain times of the day, in the host's local time.
    pub timetable: Timetable,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            jobs: 4,
            sessions: 8,
            in_flight_mib: 32,
            base_extents: BaseLimits::default().extents_max,
            base_free_percent: BaseLimits::default().free_percent_min,
            open_files: 16_384,
            bandwidth_mib: 0,
            timetable: Timetable::default(),
        }
    }
}

impl Limits {
    pub fn in_flight_bytes(&self) -> usize {
        self.in_flight_mib << 20
    }

    pub fn bases(&self) -> BaseLimits {
        BaseLimits { extents_max: self.base_extents, free_percent_min: self.base_free_percent }
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let checks = [
            ("limits.jobs", self.jobs as u64, 1..=64, "1 to 64"),
            ("limits.sessions", self.sessions as u64, 1..=256, "1 to 256"),
            // Room for two of the longest frames in each direction.
            ("limits.in_flight_mib", self.in_flight_mib as u64, 16..=1024, "16 to 1024"),
            ("limits.base_free_percent", self.base_free_percent.into(), 0..=100, "0 to 100"),
            ("limits.open_files", self.open_files, 256..=1_048_576, "256 to 1048576"),
            ("limits.bandwidth_mib", self.bandwidth_mib, 0..=1_000_000, "0 to 1000000"),
        ];
        for (field, value, allowed, range) in checks {
            if !allowed.contains(&value) {
                return Err(ConfigError::OutOfRange { field, value, range });
            }
        }
        Ok(self.timetable.validate()?)
    }
}

/// How block volumes are read again in the background.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scrub {
    /// MiB a second for all volumes together; 0 switches scrubs off.
    pub mib_per_second: u64,
    /// Each block volume is read once in so many days, if the budget allows it; 0 is one pass after the other.
    pub days: u32,
}

impl Default for Scrub {
    fn default() -> Self {
        Self { mib_per_second: 16, days: 30 }
    }
}

/// What Enable and Start take when the caller says nothing.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Defaults {
    /// Restore points that a volume keeps besides the current one.
    pub retain: u32,
    /// Restore points that are younger are kept besides, however many.
    pub retain_hours: u32,
    /// A sync that would delete a larger share of the replica is refused.
    pub delete_percent_max: u8,
    /// Days that a deleted replica waits in the trash before it is gone for good.
    pub trash_days: u32,
}

impl Defaults {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let (field, value) = ("defaults.delete_percent_max", self.delete_percent_max.into());
        if self.delete_percent_max > 100 {
            return Err(ConfigError::OutOfRange { field, value, range: "0 to 100" });
        }
        Ok(())
    }
}

impl Default for Defaults {
    fn default() -> Self {
        Self { retain: 2, retain_hours: 0, delete_percent_max: 50, trash_days: 30 }
    }
}
