//! Deleted replicas that have waited long enough go for good: looked at when the agent starts and once a day.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    volumes::Volumes,
    work::{Lane, Lanes},
};

const LOOK: Duration = Duration::from_secs(24 * 3600);
const DAY_SECS: i64 = 24 * 3600;

pub async fn purge_daily(volumes: Arc<Volumes>, lanes: Arc<Lanes>, keep_days: u32, stop: CancellationToken) {
    loop {
        let roots = volumes.clone();
        if lanes.run(Lane::Calls, move || roots.purge_trash(i64::from(keep_days) * DAY_SECS)).await.is_err() {
            return;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}
