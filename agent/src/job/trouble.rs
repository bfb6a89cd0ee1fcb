//! What the jobs of a volume say about its health: how its last sync and its last verification ended. Pure.

use drover_engine::{error::Kind, id::VolumeId, report::Report, session::Intent};

use super::{Job, State, Work};

/// One sentence for each thing that somebody should look at. A sync that was cancelled says nothing; one that ended well settles what
/// those before it, and verifications before it, had found.
pub fn trouble<'a>(jobs: impl Iterator<Item = &'a Job>, volume: VolumeId) -> Vec<String> {
    let mut last = Last::default();
    for job in jobs.filter(|job| job.request.volume == volume) {
        last.see(job);
    }
    last.told()
}

#[derive(Default)]
struct Last<'a> {
    sync: Option<&'a Job>,
    verification: Option<&'a Job>,
    retrying: Option<&'a Job>,
}

impl<'a> Last<'a> {
    fn see(&mut self, job: &'a Job) {
        // A slip of who asked for it, which changed nothing.
        let is_slip = |kind| matches!(kind, Kind::NotFound | Kind::Invalid);
        if matches!(job.request.work, Work::Rollback { .. }) && job.problem.as_ref().is_some_and(|it| is_slip(it.kind))
        {
            return;
        }
        let place = match (job.state, &job.request.work) {
            (State::Retrying, _) => &mut self.retrying,
            (State::Done | State::Failed, Work::Session { intent: Intent::Sync(_), .. } | Work::Rollback { .. }) => {
                &mut self.sync
            }
            (State::Done | State::Failed, Work::Session { intent: Intent::Verify { .. }, .. }) => {
                &mut self.verification
            }
            _ => return,
        };
        // Jobs of a volume run one after another, and their times are in seconds.
        let at = |job: &Job| (job.finished_at, job.number);
        if place.is_none_or(|known| at(known) <= at(job)) {
            *place = Some(job);
        }
    }

    fn told(self) -> Vec<String> {
        let why = |job: &Job| job.problem.as_ref().map_or_else(String::new, |problem| problem.message.clone());
        let mut told = Vec::new();
        if let Some(job) = self.retrying {
            told.push(format!("job {} was lost and is tried again: {}", job.id, why(job)));
        }
        if let Some(job) = self.sync.filter(|job| job.state == State::Failed) {
            let what = if matches!(job.request.work, Work::Rollback { .. }) { "rollback" } else { "sync" };
            told.push(format!("the last {what} failed (job {}): {}", job.id, why(job)));
        }
        let is_settled = |job: &Job| {
            self.sync.is_some_and(|sync| {
                sync.state == State::Done
                    && (sync.created_at, sync.number) >= (job.finished_at.unwrap_or(0), job.number)
            })
        };
        if let Some(job) = self.verification.filter(|job| !is_settled(job)) {
            match &job.report {
                _ if job.state == State::Failed => {
                    told.push(format!("the last verification failed (job {}): {}", job.id, why(job)));
                }
                Some(Report::Verify(report)) if report.is_discrepancy() => {
                    told.push(format!("the last verification found a discrepancy (job {})", job.id));
                }
                _ => {}
            }
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Problem, Request};
    use drover_engine::session::SyncOptions;

    fn volume() -> VolumeId {
        VolumeId::from_bytes([7; 16])
    }

    fn job(intent: Intent, state: State, finished_at: i64) -> Job {
        let work = Work::Session { peer: None, side: None, intent };
        let request = Request { volume: volume(), work };
        let message = "the disk is full".to_owned();
        let problem = Problem { kind: Kind::Storage, reason: "no-space".to_owned(), message };
        Job {
            state,
            finished_at: Some(finished_at),
            problem: (state == State::Failed).then_some(problem),
            ..Job::new(format!("job-{finished_at}").parse().unwrap(), request, None, finished_at - 1)
        }
    }

    fn told(jobs: &[Job]) -> Vec<String> {
        trouble(jobs.iter(), volume())
    }

    #[test]
    fn the_last_sync_counts() {
        let sync = |state, at| job(Intent::Sync(SyncOptions::default()), state, at);
        assert_eq!(told(&[]), [""; 0]);
        assert_eq!(told(&[sync(State::Failed, 10), sync(State::Done, 20)]), [""; 0]);
        let failed = [sync(State::Failed, 30), sync(State::Done, 20), sync(State::Cancelled, 40)];
        assert_eq!(told(&failed), ["the last sync failed (job job-30): the disk is full"]);
    }

    #[test]
    fn a_slip_of_who_asks_for_a_rollback_says_nothing_of_the_volume() {
        let mut rollback = job(Intent::Verify { deep: false }, State::Failed, 10);
        rollback.request.work = Work::Rollback { to: drover_engine::point::PointId::sync(9) };
        assert_eq!(told(std::slice::from_ref(&rollback)).len(), 1);
        rollback.problem.as_mut().unwrap().kind = Kind::NotFound;
        assert_eq!(told(&[rollback]), [""; 0]);
    }

    #[test]
    fn a_verification_counts_until_a_sync_that_began_after_it() {
        let verify = job(Intent::Verify { deep: true }, State::Failed, 10);
        let sync = |at| job(Intent::Sync(SyncOptions::default()), State::Done, at);
        assert_eq!(told(&[verify.clone(), sync(9)]).len(), 1);
        assert_eq!(told(&[verify, sync(20)]), [""; 0]);
    }
}
