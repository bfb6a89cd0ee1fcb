//! Times of C.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// One before 1970 is taken for 1970; so is "never", which is 0.
pub(crate) fn since_1970(seconds: libc::time_t, nanoseconds: i64) -> SystemTime {
    let nanoseconds = u32::try_from(nanoseconds).unwrap_or_default();
    UNIX_EPOCH + Duration::new(u64::try_from(seconds).unwrap_or_default(), nanoseconds)
}

#[test]
fn times() {
    assert_eq!(since_1970(-5, 0), UNIX_EPOCH);
    assert_eq!(since_1970(2, 500_000_000), UNIX_EPOCH + Duration::from_millis(2500));
}
