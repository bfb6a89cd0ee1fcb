//! When a lost attempt is followed by another. Only for what the link or the peer's absence did: a guard, a conflict of
//! lineage or a storage error would say the same again.

use std::time::Duration;

use super::Job;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);
/// Attempts in a row that moved nothing. One that moved data starts the count anew: a bad link that gets a little
/// further each time is let finish.
const LOSSES_MAX: u32 = 10;
const LOST_SECS_MAX: i64 = 15 * 60;

/// Is the job, whose losses are counted already, to be tried again?
pub(super) fn may_retry(job: &Job, now: i64) -> bool {
    job.losses < LOSSES_MAX && job.lost_since.is_none_or(|since| now - since < LOST_SECS_MAX)
}

/// Doubles from attempt to attempt; `jitter` in 0..1 spreads the jobs of a cut link by a fifth either way.
pub(super) fn delay(losses: u32, jitter: f64) -> Duration {
    let doubled = FIRST.saturating_mul(1 << losses.saturating_sub(1).min(16));
    doubled.min(LONGEST).mul_f64(0.8 + 0.4 * jitter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_half_a_minute() {
        let secs = |losses| delay(losses, 0.5).as_secs_f64().round() as u64;
        assert_eq!([0, 1, 2, 3, 4, 5, 6, 7, 100].map(secs), [1, 1, 2, 4, 8, 16, 30, 30, 30]);
        assert!(delay(9, 1.0) <= LONGEST.mul_f64(1.2) && delay(1, 0.0) >= FIRST.mul_f64(0.8));
    }
}
