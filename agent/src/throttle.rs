//! The bandwidth in force: one throttle that every session shares, set once a minute from the timetable.

use std::{sync::Arc, time::Duration};

use drover_engine::control::Throttle;
use tokio_util::sync::CancellationToken;

use crate::config::{Clock, Limits};

const LOOK: Duration = Duration::from_secs(60);

/// Local time of the host; the file `/etc/localtime` is read again by jiff when it has changed.
fn local_clock() -> Clock {
    let now = jiff::Zoned::now();
    let (hour, minute) = (now.hour().unsigned_abs(), now.minute().unsigned_abs());
    Clock::new(hour.into(), minute.into()).expect("a time of the day")
}

/// Bytes a second that may be sent now; 0 is no limit.
pub fn in_force(limits: &Limits) -> u64 {
    limits.timetable.bandwidth_mib(local_clock()).unwrap_or(limits.bandwidth_mib) << 20
}

pub async fn follow_timetable(limits: Limits, throttle: Arc<Throttle>, stop: CancellationToken) {
    let mut last = None;
    loop {
        let rate = in_force(&limits);
        throttle.set(rate);
        if last.replace(rate).is_some_and(|before| before != rate) {
            tracing::info!(bytes_per_second = rate, "bandwidth limit changed by the timetable");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}
