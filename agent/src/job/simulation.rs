//! Random lives of the job book: attempts are cut, the agent restarts (also between a write and the act that follows
//! it), requests and results come twice, late or out of order, callers cancel. At every moment the journal must hold
//! enough to go on, and in the end, when nothing disturbs any more, every job has ended.
//!
//! `DROVER_SIM_SCHEDULES` says how many lives (1,000 by default), `DROVER_SIM_SEED` replays one.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
};

use drover_engine::{
    error::Kind,
    id::VolumeId,
    report::{Changes, Report, RollbackReport},
    session::{Intent, Side, SyncOptions},
};

use super::{
    Job, JobError, JobId, Outcome, Problem, Request, Route, State, Work,
    book::{Book, Todo},
};

const ACTIVE_MAX: usize = 3;
const VOLUMES: u8 = 4;

/// What is on its way to the book and may be lost, doubled or overtaken.
#[derive(Clone, Debug)]
enum Message {
    Ended(JobId, u32, Outcome),
    RetryDue(JobId, u32),
}

struct World {
    random: fastrand::Rng,
    book: Book,
    /// What survives a restart.
    journal: BTreeMap<JobId, Job>,
    /// Attempts whose workers live in this process, and whether they were told to stop.
    workers: BTreeMap<(JobId, u32), bool>,
    mail: Vec<Message>,
    asked: BTreeMap<JobId, Request>,
    /// Cancels that the book acknowledged.
    cancelled: BTreeSet<JobId>,
    now: i64,
    seed: u64,
}

fn request(volume: u8, always_point: bool) -> Request {
    let options = SyncOptions { always_point, ..SyncOptions::default() };
    let work = Work::Session { peer: None, side: None, intent: Intent::Sync(options) };
    Request { volume: VolumeId::from_bytes([volume; 16]), work }
}

fn route() -> Option<Route> {
    Some(Route { peer: "site-b".to_owned(), side: Side::Source })
}

fn report() -> Report {
    let to = drover_engine::point::PointId::sync(1);
    Report::Rollback(RollbackReport { from: None, to, changes: Changes::default(), apply_millis: 0, kept_as: None })
}

fn problem() -> Problem {
    Problem { kind: Kind::Unavailable, reason: "link-closed".to_owned(), message: "cut".to_owned() }
}

impl World {
    fn new(seed: u64) -> Self {
        let (book, _) = Book::restart(Vec::new(), ACTIVE_MAX, 0);
        Self {
            random: fastrand::Rng::with_seed(seed),
            book,
            journal: BTreeMap::new(),
            workers: BTreeMap::new(),
            mail: Vec::new(),
            asked: BTreeMap::new(),
            cancelled: BTreeSet::new(),
            now: 0,
            seed,
        }
    }

    /// Writes and acts in order; false when the process died on the way.
    fn act(&mut self, todo: Vec<Todo>, may_die: bool) -> bool {
        for item in todo {
            if may_die && self.random.u8(..) < 4 {
                self.restart();
                return false;
            }
            match item {
                Todo::Write(job) => drop(self.journal.insert(job.id.clone(), *job)),
                Todo::Launch { id, attempt } => self.launch(id, attempt),
                Todo::Stop(id) => {
                    self.workers.iter_mut().filter(|((of, _), _)| *of == id).for_each(|(_, it)| *it = true)
                }
                Todo::RetryIn { id, attempt, .. } => self.mail.push(Message::RetryDue(id, attempt)),
                Todo::Ended(id) => {
                    assert!(self.journal[&id].state.has_ended(), "seed {}", self.seed)
                }
                Todo::Forget(ids) => ids.iter().for_each(|id| drop(self.journal.remove(id))),
            }
        }
        true
    }

    fn launch(&mut self, id: JobId, attempt: u32) {
        let (seed, job) = (self.seed, &self.journal[&id]);
        assert_eq!((job.state, job.attempts), (State::Running, attempt), "seed {seed}: acted before it was written");
        let volume = job.request.volume;
        let of_volume = |(other, _): &&(JobId, u32)| self.journal[other].request.volume == volume;
        let rival = self.workers.keys().find(of_volume);
        assert!(rival.is_none(), "seed {seed}: {id} and {rival:?} work on one volume");
        self.workers.insert((id, attempt), false);
        assert!(self.workers.len() <= ACTIVE_MAX, "seed {seed}: too many at once");
    }

    /// Everything that is not in the journal is gone; timers and results of the old process with it.
    fn restart(&mut self) {
        self.workers.clear();
        self.mail.clear();
        let (book, todo) = Book::restart(self.journal.values().cloned().collect(), ACTIVE_MAX, self.now);
        self.book = book;
        self.act(todo, false);
        for job in self.book.jobs() {
            assert!(job.state != State::Retrying && job.state != State::Stopping, "seed {}", self.seed);
        }
    }

    fn submit(&mut self) {
        let id: JobId = format!("job-{}", self.random.u8(..12)).parse().expect("an id");
        let request = request(self.random.u8(..VOLUMES), self.random.u8(..8) == 0);
        let answer = self.book.submit(id.clone(), request.clone(), route(), self.now);
        match (self.asked.get(&id), answer) {
            (None, Ok((_, todo))) => {
                if self.act(todo, true) || self.journal.contains_key(&id) {
                    self.asked.insert(id, request);
                }
            }
            (Some(before), Ok((job, todo))) => {
                assert_eq!((before, &job.request), (&request, &request), "seed {}", self.seed);
                assert!(todo.is_empty(), "seed {}: the same request started something", self.seed);
            }
            (Some(before), Err(JobError::IdInUse { .. })) => {
                assert_ne!(*before, request, "seed {}", self.seed)
            }
            (_, Err(error)) => panic!("seed {}: {error}", self.seed),
        }
    }

    fn cancel(&mut self) {
        let id: JobId = format!("job-{}", self.random.u8(..12)).parse().expect("an id");
        match self.book.cancel(&id, self.now) {
            Ok(todo) => {
                if self.act(todo, true) {
                    self.cancelled.insert(id);
                }
            }
            Err(error) => assert!(matches!(error, JobError::NoSuchJob { .. }) && !self.asked.contains_key(&id)),
        }
    }

    /// One attempt ends, one way or another; its result may come twice.
    fn end_one(&mut self, kindly: bool) {
        let Some((id, attempt)) = self.random.choice(self.workers.keys()).cloned() else {
            return;
        };
        let told_to_stop = self.workers.remove(&(id.clone(), attempt)).expect("it was there");
        let outcome = match self.random.u8(..10) {
            _ if kindly && !told_to_stop => Outcome::Succeeded(Box::new(report())),
            _ if kindly => Outcome::Failed(Problem::cancelled()),
            0..5 => Outcome::Lost { problem: problem(), moved: self.random.bool() },
            5 => Outcome::Failed(Problem { kind: Kind::Precondition, ..problem() }),
            _ if told_to_stop => Outcome::Failed(Problem::cancelled()),
            _ => Outcome::Succeeded(Box::new(report())),
        };
        let copies = if self.random.u8(..6) == 0 { 2 } else { 1 };
        self.mail.extend((0..copies).map(|_| Message::Ended(id.clone(), attempt, outcome.clone())));
    }

    /// Any letter, not the oldest; sometimes a copy stays behind.
    fn deliver(&mut self, may_die: bool) {
        if self.mail.is_empty() {
            return;
        }
        let at = self.random.usize(..self.mail.len());
        let message = self.mail.swap_remove(at);
        if may_die && self.random.u8(..10) == 0 {
            self.mail.push(message.clone());
        }
        let todo = match message {
            Message::Ended(id, attempt, outcome) => self.book.attempt_ended(&id, attempt, outcome, self.now),
            Message::RetryDue(id, attempt) => self.book.retry_due(&id, attempt, self.now),
        };
        self.act(todo, may_die);
    }

    fn live(&mut self) {
        for _ in 0..self.random.usize(20..200) {
            self.now += self.random.i64(0..20);
            match self.random.u8(..20) {
                0..5 => self.submit(),
                5..10 => self.end_one(false),
                10..16 => self.deliver(true),
                16..18 => self.cancel(),
                18 => self.restart(),
                _ => {}
            }
            self.check();
        }
    }

    fn check(&self) {
        for (id, job) in &self.journal {
            let seen = self.book.get(id).map(|job| job.state);
            assert_eq!(seen, Some(job.state), "seed {}: the journal and the book differ on {id}", self.seed);
        }
        for id in self.asked.keys() {
            assert!(self.journal.contains_key(id), "seed {}: {id} was accepted and is lost", self.seed);
        }
    }

    /// Nothing disturbs any more: whatever is open must come to its end by itself.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            if self.journal.values().all(|job| job.state.has_ended()) {
                break;
            }
            self.now += 1;
            self.end_one(true);
            self.deliver(false);
        }
        for (id, job) in &self.journal {
            let seed = self.seed;
            assert!(job.state.has_ended(), "seed {seed}: {id} is {:?} and nothing will move it", job.state);
            assert_eq!(job.state == State::Done, job.report.is_some(), "seed {seed}: {job:?}");
            assert_eq!(job.state == State::Done, job.problem.is_none(), "seed {seed}: {job:?}");
            let ran_on = job.state == State::Failed && self.cancelled.contains(id) && job.finished_at > Some(self.now);
            assert!(!ran_on, "seed {seed}: {id} was cancelled and failed later");
        }
    }
}

#[test]
fn no_life_ends_with_a_job_that_is_neither_ended_nor_resumable() {
    let number = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seeds: Vec<u64> = match number("DROVER_SIM_SEED") {
        Some(seed) => vec![seed],
        None => {
            let first = fastrand::u64(..);
            println!("seeds {first} and the following; DROVER_SIM_SEED=N replays one");
            (0..number("DROVER_SIM_SCHEDULES").unwrap_or(1000)).map(|n| first.wrapping_add(n)).collect()
        }
    };
    let mut ends = BTreeMap::new();
    for seed in &seeds {
        let mut world = World::new(*seed);
        world.live();
        world.settle();
        for job in world.journal.values() {
            *ends.entry(job.state.as_str()).or_insert(0) += 1;
        }
    }
    println!("{} schedules, jobs ended: {ends:?}", seeds.len());
    assert!(seeds.len() < 100 || ends.len() == 3, "every end was reached: {ends:?}");
}
