//! Scrubs of block volumes: a share of each is read again every day, within a budget, and rot or foreign writes are told by
//! their offsets.

use std::{sync::Arc, time::Duration};

use drover_engine::{
    control::Control,
    volume::{ScrubState, Scrubbed, VolumeError},
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Scrub,
    metrics::Metrics,
    rpc::status::chain,
    volumes::{Held, Volumes},
    work::{Lane, Lanes},
};

const DAY_SECS: u64 = 24 * 3600;
/// Bytes of a slice: long enough to read at the disk's speed, short enough that a sync hardly waits for its end.
const SLICE_BYTES: u64 = 16 << 20;
/// How long to wait when no volume has anything to do.
const IDLE: Duration = Duration::from_secs(1);

pub async fn scrub_always(
    volumes: Arc<Volumes>,
    lanes: Arc<Lanes>,
    metrics: Arc<Metrics>,
    config: Scrub,
    stop: CancellationToken,
) {
    if config.mib_per_second == 0 {
        return;
    }
    let pass_secs = u64::from(config.days) * DAY_SECS;
    let mut wait = IDLE;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        wait = IDLE;
        for held in volumes.all().into_iter().filter(|held| held.volume.state().kind.is_block()) {
            let slice = held.clone();
            let read =
                lanes.run(Lane::Calls, move || slice.volume.scrub(SLICE_BYTES, pass_secs, &Control::default())).await;
            let Ok(read) = read else { continue };
            let bytes = tell(&held, &metrics, read);
            if bytes > 0 {
                // The budget is for all volumes together.
                wait = Duration::ZERO;
                let pause = Duration::from_secs_f64(bytes as f64 / (config.mib_per_second << 20) as f64);
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                }
            }
        }
    }
}

/// How much was read.
fn tell(held: &Held, metrics: &Metrics, read: Result<Scrubbed, VolumeError>) -> u64 {
    let volume = held.volume.id();
    match read {
        Ok(Scrubbed::Nothing) => 0,
        Ok(Scrubbed::Read { bytes, is_news }) => {
            metrics.scrubbed(bytes);
            if is_news {
                let damage = held.volume.scrub_state().map_or_else(String::new, |state| damage(&state));
                tracing::error!(%volume, "scrub found rot or a foreign write: {damage}; the next sync repairs a replica");
            }
            bytes
        }
        Err(error) => {
            tracing::error!(%volume, "scrub can't read: {}", chain(&error));
            0
        }
    }
}

/// Offsets for a reader; a long list is cut.
pub fn damage(state: &ScrubState) -> String {
    const SHOWN: usize = 8;
    let shown = state.damaged.iter().take(SHOWN).map(|range| format!("{}+{}", range.start, range.end - range.start));
    let more = state.damaged.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(" and {more} more ranges") } else { String::new() };
    format!("{} bytes differ from the point at {}{more}", state.damaged_bytes(), shown.collect::<Vec<_>>().join(", "))
}
