//! All jobs of the agent, who waits and who runs. Pure: it is told what happened and says what to do, in order; the
//! caller writes before it acts. The simulation drives this very code.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Duration,
};

use drover_engine::id::VolumeId;

use super::{
    Job, JobError, JobId, Outcome, Problem, Request, Route, State, retry,
    state::{Effect, Event, step},
};

/// In the order in which they are to be done.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Todo {
    /// Make this durable before anything after it.
    Write(Box<Job>),
    Launch {
        id: JobId,
        attempt: u32,
    },
    Stop(JobId),
    RetryIn {
        id: JobId,
        attempt: u32,
        delay: Duration,
    },
    Ended(JobId),
    /// Old jobs that the journal may forget.
    Forget(Vec<JobId>),
}

#[derive(Debug)]
pub(super) struct Book {
    jobs: HashMap<JobId, Job>,
    queue: VecDeque<JobId>,
    /// Volumes that a job works on: one job each.
    busy: HashSet<VolumeId>,
    active_max: usize,
    /// Of the next job.
    number: u64,
}

impl Book {
    pub(super) const QUEUED_MAX: usize = 1000;
    const ENDED_KEPT: usize = 1000;
    /// Ended jobs are forgotten so many at a time.
    const ENDED_SLACK: usize = 50;

    /// What the journal holds, as the agent starts.
    pub(super) fn restart(jobs: Vec<Job>, active_max: usize, now: i64) -> (Self, Vec<Todo>) {
        let mut open: Vec<_> = jobs.iter().filter(|job| !job.state.has_ended()).collect();
        open.sort_by_key(|job| job.created_at);
        let open: Vec<JobId> = open.into_iter().map(|job| job.id.clone()).collect();
        let number = jobs.iter().map(|job| job.number).max().unwrap_or(0) + 1;
        let jobs = jobs.into_iter().map(|job| (job.id.clone(), job)).collect();
        let mut book = Self { jobs, queue: VecDeque::new(), busy: HashSet::new(), active_max, number };
        let mut todo = Vec::new();
        for id in open {
            book.happen(&id, Event::Restarted, now, &mut todo);
        }
        book.admit(now, &mut todo);
        (book, todo)
    }

    pub(super) fn submit(
        &mut self,
        id: JobId,
        request: Request,
        route: Option<Route>,
        now: i64,
    ) -> Result<(Job, Vec<Todo>), JobError> {
        if let Some(job) = self.known(&id, &request)? {
            return Ok((job, Vec::new()));
        }
        if self.queue.len() >= Self::QUEUED_MAX {
            return Err(JobError::QueueFull { queued: self.queue.len(), limit: Self::QUEUED_MAX });
        }
        let job = Job { number: self.number, ..Job::new(id.clone(), request, route, now) };
        self.number += 1;
        let mut todo = vec![Todo::Write(Box::new(job.clone()))];
        self.jobs.insert(id.clone(), job.clone());
        self.queue.push_back(id);
        self.admit(now, &mut todo);
        Ok((job, todo))
    }

    /// The job of this id, if it was asked for in the same words.
    pub(super) fn known(&self, id: &JobId, request: &Request) -> Result<Option<Job>, JobError> {
        match self.jobs.get(id) {
            Some(job) if job.request == *request => Ok(Some(job.clone())),
            Some(_) => Err(JobError::IdInUse { id: id.clone() }),
            None => Ok(None),
        }
    }

    pub(super) fn cancel(&mut self, id: &JobId, now: i64) -> Result<Vec<Todo>, JobError> {
        if !self.jobs.contains_key(id) {
            return Err(JobError::NoSuchJob { id: id.clone() });
        }
        let mut todo = Vec::new();
        self.happen(id, Event::Cancel, now, &mut todo);
        self.admit(now, &mut todo);
        Ok(todo)
    }

    /// An attempt ended. One that is not the job's newest is late and says nothing.
    pub(super) fn attempt_ended(&mut self, id: &JobId, attempt: u32, outcome: Outcome, now: i64) -> Vec<Todo> {
        let mut todo = Vec::new();
        let Some(job) = self.jobs.get_mut(id).filter(|job| job.attempts == attempt && job.state.is_active()) else {
            return todo;
        };
        let event = note(job, outcome, now);
        self.happen(id, event, now, &mut todo);
        self.admit(now, &mut todo);
        todo
    }

    pub(super) fn retry_due(&mut self, id: &JobId, attempt: u32, now: i64) -> Vec<Todo> {
        let mut todo = Vec::new();
        if self.jobs.get(id).is_some_and(|job| job.attempts == attempt) {
            self.happen(id, Event::RetryDue, now, &mut todo);
            self.admit(now, &mut todo);
        }
        todo
    }

    pub(super) fn get(&self, id: &JobId) -> Option<&Job> {
        self.jobs.get(id)
    }

    pub(super) fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.jobs.values()
    }

    fn happen(&mut self, id: &JobId, event: Event, now: i64, todo: &mut Vec<Todo>) {
        let Some(job) = self.jobs.get_mut(id) else {
            return;
        };
        let (next, effect) = step(job.state, event);
        let changed = next != job.state;
        job.state = next;
        match effect {
            Effect::Launch => {
                job.attempts += 1;
                job.started_at.get_or_insert(now);
            }
            Effect::Finish => job.finished_at = Some(now),
            Effect::Nothing | Effect::Enqueue | Effect::Stop | Effect::RetryLater => {}
        }
        if next == State::Cancelled {
            job.report = None;
            job.problem = Some(Problem::cancelled());
        }
        if changed {
            todo.push(Todo::Write(Box::new(job.clone())));
        }
        let (attempt, losses, volume) = (job.attempts, job.losses, job.request.volume);
        match effect {
            Effect::Nothing => {}
            Effect::Enqueue => self.queue.push_back(id.clone()),
            Effect::Launch => todo.push(Todo::Launch { id: id.clone(), attempt }),
            Effect::Stop => todo.push(Todo::Stop(id.clone())),
            Effect::RetryLater => {
                self.busy.remove(&volume);
                let delay = retry::delay(losses, fastrand::f64());
                todo.push(Todo::RetryIn { id: id.clone(), attempt, delay });
            }
            Effect::Finish => self.finish(id, volume, event, todo),
        }
    }

    fn finish(&mut self, id: &JobId, volume: VolumeId, event: Event, todo: &mut Vec<Todo>) {
        match event {
            Event::Succeeded | Event::Lost | Event::Failed => {
                self.busy.remove(&volume);
            }
            // It was waiting, or it ran in a process that is gone.
            Event::Admitted | Event::Cancel | Event::RetryDue | Event::Restarted => {
                self.queue.retain(|queued| queued != id);
            }
        }
        todo.push(Todo::Ended(id.clone()));
        self.forget_old(todo);
    }

    /// Lets those run for which there is a place, in the order of the queue; a job whose volume is busy is passed over.
    fn admit(&mut self, now: i64, todo: &mut Vec<Todo>) {
        let mut passed = VecDeque::new();
        while self.busy.len() < self.active_max
            && let Some(id) = self.queue.pop_front()
        {
            let Some(volume) = self.jobs.get(&id).map(|job| job.request.volume) else {
                continue;
            };
            if self.busy.insert(volume) {
                self.happen(&id, Event::Admitted, now, todo);
            } else {
                passed.push_back(id);
            }
        }
        passed.append(&mut self.queue);
        self.queue = passed;
    }

    fn forget_old(&mut self, todo: &mut Vec<Todo>) {
        let mut ended: Vec<_> = self.jobs.values().filter(|job| job.state.has_ended()).collect();
        if ended.len() < Self::ENDED_KEPT + Self::ENDED_SLACK {
            return;
        }
        ended.sort_by_key(|job| std::cmp::Reverse((job.finished_at, job.created_at)));
        let old: Vec<JobId> = ended[Self::ENDED_KEPT..].iter().map(|job| job.id.clone()).collect();
        for id in &old {
            self.jobs.remove(id);
        }
        todo.push(Todo::Forget(old));
    }
}

/// Writes down how an attempt ended and says what that means for the job.
fn note(job: &mut Job, outcome: Outcome, now: i64) -> Event {
    match outcome {
        Outcome::Succeeded(report) => {
            job.report = Some(*report);
            job.problem = None;
            Event::Succeeded
        }
        Outcome::Failed(problem) => {
            job.problem = Some(problem);
            Event::Failed
        }
        Outcome::Lost { problem, moved } => {
            if moved {
                (job.losses, job.lost_since) = (0, None);
            }
            job.losses += 1;
            job.lost_since.get_or_insert(now);
            job.problem = Some(problem);
            if retry::may_retry(job, now) { Event::Lost } else { Event::Failed }
        }
    }
}

impl Problem {
    pub(super) fn cancelled() -> Self {
        let message = "cancelled on request".to_owned();
        Self { kind: drover_engine::error::Kind::Cancelled, reason: "cancelled".to_owned(), message }
    }
}
