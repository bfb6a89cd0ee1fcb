//! The one owner of the job book and its journal: a thread that takes what happens in the order of its queue, writes
//! first and acts then. Everything else holds this handle.
//!
//! When the journal can't be written the agent stops: what it can't promise to remember it must not do.

use std::{collections::HashMap, io, sync::Arc, thread::JoinHandle};

use drover_engine::control::Control;
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot, watch},
};
use tokio_util::sync::CancellationToken;

use super::{
    Job, JobError, JobId, Journal, JournalError, Outcome, Request, Route, Runner, SessionControl, State,
    book::{Book, Todo},
    unix_now,
};
use crate::{metrics::Metrics, work};

/// Commands that may wait. Each is a moment's work and a write of a small record.
const COMMANDS: usize = 256;

/// The handles of an attempt or a session that runs.
#[derive(Clone, Debug)]
pub struct Running {
    pub control: Control,
    /// Closes the link, whatever the engine is waiting for.
    pub stop: CancellationToken,
}

impl Running {
    pub fn stop(&self) {
        self.control.cancel();
        self.stop.cancel();
    }
}

/// A job, and how to look at it while it runs.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub job: Job,
    pub running: Option<Running>,
}

enum Command {
    Known(JobId, Request, oneshot::Sender<Result<Option<Job>, JobError>>),
    Submit(JobId, Request, Option<Route>, oneshot::Sender<Result<Job, JobError>>),
    Cancel(JobId, oneshot::Sender<Result<Snapshot, JobError>>),
    Get(JobId, oneshot::Sender<Result<Snapshot, JobError>>),
    List(oneshot::Sender<Vec<Snapshot>>),
    AttemptEnded(JobId, u32, Outcome),
    RetryDue(JobId, u32),
    /// Answers when no attempt runs any more.
    ShutDown(oneshot::Sender<()>),
}

#[derive(Clone, Debug)]
pub struct Keeper {
    commands: mpsc::Sender<Command>,
    changes: watch::Receiver<u64>,
}

impl Keeper {
    /// Reads the journal and lets go on what was unfinished. `broken` is cancelled when the journal can't be written.
    pub fn start(
        journal: Journal,
        runner: Arc<Runner>,
        limits: (usize, SessionControl),
        metrics: Arc<Metrics>,
        broken: CancellationToken,
    ) -> Result<(Self, JoinHandle<()>), StartError> {
        let (sender, receiver) = mpsc::channel(COMMANDS);
        let (changed, changes) = watch::channel(0);
        let (active_max, control) = limits;
        let (book, todo) = Book::restart(journal.load()?, active_max, unix_now());
        let mut owner = Owner {
            book,
            journal,
            runner,
            control,
            metrics,
            broken,
            changed,
            commands: sender.downgrade(),
            runtime: Handle::current(),
            running: HashMap::new(),
            closing: None,
        };
        let handle = work::owner_thread("jobs", move || {
            owner.act(todo);
            owner.serve(receiver);
        })?;
        Ok((Self { commands: sender, changes }, handle))
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, JobError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| JobError::ShuttingDown)?;
        answer.await.map_err(|_| JobError::ShuttingDown)
    }

    /// The job that this request made before, if it did.
    pub async fn known(&self, id: JobId, request: Request) -> Result<Option<Job>, JobError> {
        self.ask(|reply| Command::Known(id, request, reply)).await?
    }

    /// The job is durable when this returns.
    pub async fn submit(&self, id: JobId, request: Request, route: Option<Route>) -> Result<Job, JobError> {
        self.ask(|reply| Command::Submit(id, request, route, reply)).await?
    }

    pub async fn cancel(&self, id: JobId) -> Result<Snapshot, JobError> {
        self.ask(|reply| Command::Cancel(id, reply)).await?
    }

    pub async fn get(&self, id: JobId) -> Result<Snapshot, JobError> {
        self.ask(|reply| Command::Get(id, reply)).await?
    }

    pub async fn list(&self) -> Result<Vec<Snapshot>, JobError> {
        self.ask(Command::List).await
    }

    /// Counts up whenever the state of a job changes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    /// Stops the running attempts and returns when they have; in the journal they go on.
    pub async fn shut_down(&self) {
        // No answer means that the owner is gone already, and nothing runs.
        let _ = self.ask(Command::ShutDown).await;
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("read the job journal")]
    Journal(#[from] JournalError),
    #[error("start the thread of the jobs")]
    Thread(#[from] io::Error),
}

struct Owner {
    book: Book,
    journal: Journal,
    runner: Arc<Runner>,
    control: SessionControl,
    metrics: Arc<Metrics>,
    broken: CancellationToken,
    changed: watch::Sender<u64>,
    /// Weak, so that the owner ends when the last handle is gone.
    commands: mpsc::WeakSender<Command>,
    runtime: Handle,
    running: HashMap<JobId, Running>,
    /// Someone waits for the end of everything that runs.
    closing: Option<Vec<oneshot::Sender<()>>>,
}

impl Owner {
    fn serve(&mut self, mut commands: mpsc::Receiver<Command>) {
        while let Some(command) = commands.blocking_recv() {
            self.handle(command);
        }
    }

    fn handle(&mut self, command: Command) {
        match command {
            Command::Known(id, request, reply) => drop(reply.send(self.book.known(&id, &request))),
            Command::Submit(id, request, route, reply) => drop(reply.send(self.submit(id, request, route))),
            Command::Cancel(id, reply) => drop(reply.send(self.cancel(&id))),
            Command::Get(id, reply) => drop(reply.send(self.snapshot(&id))),
            Command::List(reply) => drop(reply.send(self.book.jobs().map(|job| self.look_at(job)).collect())),
            Command::AttemptEnded(id, attempt, outcome) => self.attempt_ended(&id, attempt, outcome),
            Command::RetryDue(id, attempt) if self.closing.is_none() => {
                let todo = self.book.retry_due(&id, attempt, unix_now());
                self.act(todo);
            }
            Command::RetryDue(..) => {}
            Command::ShutDown(reply) => self.shut_down(reply),
        }
    }

    fn look_at(&self, job: &Job) -> Snapshot {
        Snapshot { job: job.clone(), running: self.running.get(&job.id).cloned() }
    }

    fn snapshot(&self, id: &JobId) -> Result<Snapshot, JobError> {
        self.book.get(id).map(|job| self.look_at(job)).ok_or_else(|| JobError::NoSuchJob { id: id.clone() })
    }

    fn submit(&mut self, id: JobId, request: Request, route: Option<Route>) -> Result<Job, JobError> {
        if self.closing.is_some() {
            return Err(JobError::ShuttingDown);
        }
        let (job, todo) = self.book.submit(id, request, route, unix_now())?;
        if self.act(todo) { Ok(job) } else { Err(JobError::ShuttingDown) }
    }

    fn cancel(&mut self, id: &JobId) -> Result<Snapshot, JobError> {
        let todo = self.book.cancel(id, unix_now())?;
        self.act(todo);
        self.snapshot(id)
    }

    fn attempt_ended(&mut self, id: &JobId, attempt: u32, outcome: Outcome) {
        self.running.remove(id);
        let stopped_by_us = self.closing.is_some() && !matches!(outcome, Outcome::Succeeded(_));
        let cancelled = self.book.get(id).is_some_and(|job| job.state == State::Stopping);
        // What the shutdown stopped stays "running" in the journal, and goes on at the next start.
        if !stopped_by_us || cancelled {
            let todo = self.book.attempt_ended(id, attempt, outcome, unix_now());
            self.act(todo);
        }
        self.reply_if_idle();
    }

    fn shut_down(&mut self, reply: oneshot::Sender<()>) {
        self.closing.get_or_insert_default().push(reply);
        for (id, running) in &self.running {
            tracing::info!(job = %id, "job is checkpointed; it goes on at the next start");
            running.stop();
        }
        self.reply_if_idle();
    }

    fn reply_if_idle(&mut self) {
        if self.running.is_empty() {
            for waiting in self.closing.iter_mut().flat_map(|waiting| waiting.drain(..)) {
                let _ = waiting.send(());
            }
        }
    }

    /// Writes and does, in order. False when the journal failed: nothing after that was done.
    fn act(&mut self, todo: Vec<Todo>) -> bool {
        for item in todo {
            if let Err(error) = self.carry_out(item) {
                tracing::error!(error = &error as &dyn std::error::Error, "job journal can't be written; stopping");
                self.broken.cancel();
                return false;
            }
        }
        self.metrics.jobs(self.book.jobs().map(|job| job.state));
        self.changed.send_modify(|count| *count += 1);
        true
    }

    fn carry_out(&mut self, item: Todo) -> Result<(), JournalError> {
        match item {
            Todo::Write(job) => self.journal.put(&job)?,
            Todo::Forget(ids) => self.journal.forget(&ids)?,
            // While closing nothing is begun; the journal says that it is to run.
            Todo::Launch { id, attempt } if self.closing.is_none() => self.launch(id, attempt),
            Todo::Launch { .. } => {}
            Todo::Stop(id) => self.running.get(&id).into_iter().for_each(Running::stop),
            Todo::RetryIn { id, attempt, delay } => {
                let commands = self.commands.clone();
                self.runtime.spawn(async move {
                    tokio::time::sleep(delay).await;
                    if let Some(commands) = commands.upgrade() {
                        let _ = commands.send(Command::RetryDue(id, attempt)).await;
                    }
                });
            }
            Todo::Ended(id) => self.book.get(&id).into_iter().for_each(tell),
        }
        Ok(())
    }

    fn launch(&mut self, id: JobId, attempt: u32) {
        let Some(job) = self.book.get(&id).cloned() else {
            return;
        };
        let running = Running { control: self.control.begin(), stop: CancellationToken::new() };
        self.running.insert(id.clone(), running.clone());
        let (runner, commands) = (self.runner.clone(), self.commands.clone());
        self.runtime.spawn(async move {
            let outcome = runner.run(&job, running).await;
            if let Some(commands) = commands.upgrade() {
                let _ = commands.send(Command::AttemptEnded(id, attempt, outcome)).await;
            }
        });
    }
}

/// The line in the log that says how a job ended.
fn tell(job: &Job) {
    let (volume, state) = (job.request.volume, job.state.as_str());
    match &job.problem {
        Some(problem) if job.state == State::Failed => {
            tracing::error!(job = %job.id, %volume, reason = problem.reason, "job failed: {}", problem.message);
        }
        _ => tracing::info!(job = %job.id, %volume, attempts = job.attempts, "job {state}"),
    }
}
