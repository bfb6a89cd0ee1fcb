//! Takes the sync points that are due.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::Semaphore,
    task::{self, JoinSet},
};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::ReplicationService;
use crate::{
    job::unix_now,
    mirror::schedule::{Scheduled, Subject},
    work::Lane,
};

const TICK: Duration = Duration::from_secs(2);
/// At the same time.
const POINTS_MAX: usize = 8;
/// After a point that could not be taken, and until what is secondary here is looked at again; never longer than the interval.
const PAUSE_SECS: i64 = 30;

/// What a point is taken of, and how often: another interval begins anew.
type Key = (Subject, u64);

impl ReplicationService {
    pub async fn take_points_always(self, stop: CancellationToken) {
        // When to look next, and what is being taken by which task.
        let (mut next, mut busy) = (BTreeMap::<Key, i64>::new(), HashMap::<task::Id, Key>::new());
        let mut failed = BTreeSet::new();
        let (places, mut taking) = (Arc::new(Semaphore::new(POINTS_MAX)), JoinSet::new());
        loop {
            tokio::select! {
                // What is under way is finished: each step is safe to be cut, and the next verb goes on.
                () = stop.cancelled() => return,
                () = tokio::time::sleep(TICK) => {}
            }
            while let Some(done) = taking.try_join_next_with_id() {
                let (id, again) = match done {
                    Ok((id, again)) => (id, again),
                    Err(error) => {
                        tracing::error!("a task that takes sync points ended: {error}");
                        (error.id(), unix_now() + PAUSE_SECS)
                    }
                };
                next.extend(busy.remove(&id).map(|key| (key, again)));
            }
            let mirrors = self.mirrors.clone();
            let looked = tokio::select! {
                () = stop.cancelled() => return,
                looked = self.lanes.run(Lane::Ceph, move || mirrors.scheduled()) => looked,
            };
            let Ok((scheduled, failures)) = looked else { continue };
            failed = tell(failed, failures.iter().map(ToString::to_string).collect());
            let keys: BTreeSet<_> = scheduled.iter().map(key).collect();
            // What could not be seen just now is not forgotten.
            if failures.is_empty() {
                next.retain(|key, _| keys.contains(key));
            }
            for scheduled in scheduled {
                let key = key(&scheduled);
                if busy.values().any(|busy| *busy == key) || next.get(&key).is_some_and(|next| *next > unix_now()) {
                    continue;
                }
                let (service, places) = (self.clone(), places.clone());
                let task = taking.spawn(async move {
                    let _place = places.acquire_owned().await;
                    service.take_if_due(&scheduled).await
                });
                busy.insert(task.id(), key);
            }
        }
    }

    /// Returns when to look again.
    async fn take_if_due(&self, scheduled: &Scheduled) -> i64 {
        let every = i64::try_from(scheduled.every_secs.get()).unwrap_or(i64::MAX);
        let pause = every.min(PAUSE_SECS);
        let (mirrors, looked_at) = (self.mirrors.clone(), scheduled.clone());
        let looked = self.lanes.run(Lane::Ceph, move || mirrors.due_in_secs(&looked_at, unix_now())).await;
        match looked {
            Ok(Ok(None)) => return unix_now() + pause,
            Ok(Ok(Some(wait))) if wait > 0 => return unix_now().saturating_add(wait.min(every)),
            Ok(Ok(Some(_))) => {}
            Ok(Err(error)) => {
                tracing::warn!(subject = %scheduled.subject, "a sync point may be due, and the image can't be seen: {error}");
                return unix_now() + pause;
            }
            Err(_) => return unix_now() + pause,
        }
        match self.take_scheduled(scheduled).await {
            Ok(()) => unix_now().saturating_add(every),
            Err(status) => {
                tracing::warn!(subject = %scheduled.subject, "a sync point that is due could not be taken: {}", status.message());
                unix_now() + pause
            }
        }
    }

    async fn take_scheduled(&self, scheduled: &Scheduled) -> Result<(), Status> {
        match (&scheduled.subject, scheduled.members.first()) {
            (Subject::Group(name), _) => self.group_points(name.clone()).await.map(drop),
            (Subject::Image(_), Some(mirrored)) => self.point_of(mirrored.clone()).await.map(drop),
            (Subject::Image(_), None) => Ok(()),
        }
    }
}

fn key(scheduled: &Scheduled) -> Key {
    (scheduled.subject.clone(), scheduled.every_secs.get())
}

/// Each failure once, until it is over.
fn tell(before: BTreeSet<String>, now: BTreeSet<String>) -> BTreeSet<String> {
    for failure in now.difference(&before) {
        tracing::warn!("scheduled sync points may be late: {failure}");
    }
    now
}
