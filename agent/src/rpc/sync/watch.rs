//! Progress of one job as a stream: twice a second, at once when its state changes, and once more at its end.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use drover_proto::v1;
use tokio::sync::mpsc;
use tonic::Status;

use super::SyncService;
use crate::job::JobId;

const LOOK: Duration = Duration::from_millis(500);
/// The rate is over so many looks: five seconds are steady enough to read and soon forget a pause.
const LOOKS: usize = 10;

#[derive(Default)]
struct Rate {
    phase: i32,
    /// Bytes done, by time.
    seen: VecDeque<(Instant, u64)>,
}

impl Rate {
    /// Fills in rate and remaining time.
    fn measure(&mut self, status: &mut v1::JobStatus, now: Instant) {
        let went_back = self.seen.back().is_some_and(|(_, bytes)| *bytes > status.bytes_done);
        if self.phase != status.phase || went_back {
            self.seen.clear();
            self.phase = status.phase;
        }
        self.seen.push_back((now, status.bytes_done));
        if self.seen.len() > LOOKS {
            self.seen.pop_front();
        }
        let Some((since, bytes)) = self.seen.front() else {
            return;
        };
        let took = now.saturating_duration_since(*since).as_secs_f64();
        if took <= 0.0 {
            return;
        }
        let per_second = (status.bytes_done - bytes) as f64 / took;
        status.bytes_per_second = per_second as u64;
        let left = status.bytes_total.saturating_sub(status.bytes_done);
        if status.bytes_total > 0 && per_second >= 1.0 {
            status.eta_seconds = Some((left as f64 / per_second).ceil() as u64);
        }
    }
}

fn has_ended(status: &v1::JobStatus) -> bool {
    match status.state() {
        v1::JobState::Done | v1::JobState::Failed | v1::JobState::Cancelled => true,
        v1::JobState::Unspecified | v1::JobState::Queued | v1::JobState::Running | v1::JobState::Retrying => false,
    }
}

pub(super) async fn follow(
    service: SyncService,
    id: JobId,
    first: v1::JobStatus,
    sender: mpsc::Sender<Result<v1::WatchResponse, Status>>,
) {
    let (mut changes, mut rate, mut status) = (service.keeper.changes(), Rate::default(), first);
    loop {
        rate.measure(&mut status, Instant::now());
        let (ended, passive) = (has_ended(&status), status.passive);
        if sender.send(Ok(v1::WatchResponse { job: Some(status) })).await.is_err() || ended {
            return;
        }
        tokio::select! {
            () = service.stop.cancelled() => {
                let stopping = Status::unavailable("agent is shutting down; the job goes on at its next start");
                return drop(sender.send(Err(stopping)).await);
            }
            () = sender.closed() => return,
            _ = changes.changed() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
        status = match service.status_of(&id).await {
            Ok(status) => status,
            // A peer's session has ended: how, its own agent knows.
            Err(_) if passive => return,
            Err(error) => return drop(sender.send(Err(error)).await),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_phase_starts_a_new_rate() {
        let (mut rate, start) = (Rate::default(), Instant::now());
        let look = |rate: &mut Rate, phase, bytes_done, millis| {
            let mut status = v1::JobStatus { phase, bytes_done, bytes_total: 1000, ..Default::default() };
            rate.measure(&mut status, start + Duration::from_millis(millis));
            (status.bytes_per_second, status.eta_seconds)
        };
        assert_eq!(look(&mut rate, 3, 0, 0), (0, None));
        assert_eq!(look(&mut rate, 3, 100, 500), (200, Some(5)));
        assert_eq!(look(&mut rate, 3, 200, 1000), (200, Some(4)));
        assert_eq!(look(&mut rate, 6, 900, 1500), (0, None));
        assert_eq!(look(&mut rate, 6, 950, 2000), (100, Some(1)));
    }
}
