//! Follows a job on an agent to its end. The job is the agent's: it goes on when the link is cut or this process dies.

use std::time::Duration;

use drover_engine::{control::Phase, report::Report};
use drover_proto::v1::{CancelRequest, JobState, JobStatus, Phase as WirePhase, WatchRequest};
use drover_report::{Exit, Sample, Screen, exit};
use tokio::time::{Instant, sleep};
use tonic::{Code, Status};

use crate::{
    agents::Agent,
    failure::{Failure, Told},
    interrupt::Interrupts,
};

/// How long an agent that went away is waited for: it may be restarting, and its jobs survive that.
const AWAY: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_secs(1);

/// A job that is being followed.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub agent: Agent,
    pub id: String,
    /// How the user sees the volume.
    pub label: String,
    /// The command that watches it again.
    pub again: String,
}

#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Done(Box<Report>),
    Failed(Told),
    Cancelled,
    /// A second Ctrl-C: nobody watches it any more.
    Left,
}

impl Outcome {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Done(report) => exit(report),
            Self::Failed(told) => told.exit(),
            Self::Cancelled | Self::Left => Exit::Cancelled,
        }
    }
}

/// Why following stopped for now.
enum Pause {
    Ended(Box<JobStatus>),
    Interrupted,
    Lost(Status),
}

impl Job {
    pub(crate) async fn follow(&self, screen: &Screen, mut interrupts: Interrupts) -> Result<Outcome, Failure> {
        let mut bar = screen.bar(&self.label);
        let mut seen = 0;
        let mut away_since: Option<Instant> = None;
        loop {
            let watched = tokio::select! {
                count = interrupts.more_than(seen) => { seen = count; Pause::Interrupted }
                watched = self.watch(|status| { away_since = None; bar.update(&sample(status)); }) => watched,
            };
            match watched {
                Pause::Ended(status) => return outcome(&self.agent.name, &status),
                // The agent may be slow to answer; a second Ctrl-C does not wait for it.
                Pause::Interrupted if seen == 1 => tokio::select! {
                    _ = interrupts.more_than(seen) => return Ok(self.leave(screen)),
                    cancelled = self.cancel(screen) => cancelled?,
                },
                Pause::Interrupted => return Ok(self.leave(screen)),
                Pause::Lost(status) => {
                    let since = *away_since.get_or_insert_with(Instant::now);
                    if !is_away(&status) || since.elapsed() > AWAY {
                        screen.say(&self.how_to_watch());
                        return Err(Failure::told(&self.agent.name, &status));
                    }
                    sleep(AGAIN).await;
                }
            }
        }
    }

    async fn watch(&self, mut each: impl FnMut(&JobStatus)) -> Pause {
        let request = WatchRequest { job_id: self.id.clone() };
        let mut answers = match self.agent.sync().watch(request).await {
            Ok(answers) => answers.into_inner(),
            Err(status) => return Pause::Lost(status),
        };
        loop {
            match answers.message().await {
                Ok(Some(answer)) => {
                    let status = answer.job.unwrap_or_default();
                    each(&status);
                    if has_ended(status.state()) {
                        return Pause::Ended(Box::new(status));
                    }
                }
                Ok(None) => {
                    return Pause::Lost(Status::unavailable("the agent stopped telling about the job"));
                }
                Err(status) => return Pause::Lost(status),
            }
        }
    }

    async fn cancel(&self, screen: &Screen) -> Result<(), Failure> {
        screen.say(&format!("{}: cancelling; Ctrl-C again leaves the job to itself", self.label));
        let cancelled = self.agent.sync().cancel(CancelRequest { job_id: self.id.clone() }).await;
        match cancelled {
            Ok(_) => Ok(()),
            // It has ended meanwhile, or the agent is away: watching tells.
            Err(status) if matches!(status.code(), Code::FailedPrecondition | Code::Unavailable) => Ok(()),
            Err(status) => Err(Failure::told(&self.agent.name, &status)),
        }
    }

    fn leave(&self, screen: &Screen) -> Outcome {
        screen.say(&self.how_to_watch());
        Outcome::Left
    }

    fn how_to_watch(&self) -> String {
        format!("job {} goes on at agent {}; watch it with: {}", self.id, self.agent.name, self.again)
    }
}

fn is_away(status: &Status) -> bool {
    // A connection that breaks in the middle of a stream is Unknown or Internal with an HTTP/2 cause.
    matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled | Code::DeadlineExceeded)
        || (status.code() == Code::Internal && std::error::Error::source(status).is_some())
}

fn has_ended(state: JobState) -> bool {
    match state {
        JobState::Done | JobState::Failed | JobState::Cancelled => true,
        JobState::Unspecified | JobState::Queued | JobState::Running | JobState::Retrying => false,
    }
}

fn outcome(agent: &str, status: &JobStatus) -> Result<Outcome, Failure> {
    let told = || status.error.as_ref().map(Told::of_job);
    Ok(match status.state() {
        JobState::Done => {
            let read = serde_json::from_str(&status.report_json);
            let report = read.map_err(|source| Failure::Report { agent: agent.to_owned(), source })?;
            Outcome::Done(Box::new(report))
        }
        JobState::Cancelled => Outcome::Cancelled,
        JobState::Failed | JobState::Unspecified | JobState::Queued | JobState::Running | JobState::Retrying => {
            Outcome::Failed(told().unwrap_or_else(Told::unexplained))
        }
    })
}

fn sample(status: &JobStatus) -> Sample {
    let why = status.error.as_ref().map(|error| error.message.clone()).unwrap_or_default();
    let note = match status.state() {
        JobState::Queued => Some("waits for a free place, or for another job of this volume".to_owned()),
        JobState::Retrying => Some(format!("trying again (attempt {}): {why}", status.attempts)),
        _ => None,
    };
    Sample {
        phase: phase(status.phase()),
        entries_done: status.entries_done,
        entries_total: status.entries_total,
        bytes_done: status.bytes_done,
        bytes_total: status.bytes_total,
        bytes_per_second: status.bytes_per_second,
        eta: status.eta_seconds.map(Duration::from_secs),
        note,
    }
}

fn phase(phase: WirePhase) -> Phase {
    match phase {
        WirePhase::Unspecified | WirePhase::Waiting => Phase::Waiting,
        WirePhase::Connecting => Phase::Connecting,
        WirePhase::Scanning => Phase::Scanning,
        WirePhase::Comparing => Phase::Comparing,
        WirePhase::Planning => Phase::Planning,
        WirePhase::Transferring => Phase::Transferring,
        WirePhase::Committing => Phase::Committing,
        WirePhase::Applying => Phase::Applying,
        WirePhase::Retaining => Phase::Retaining,
        WirePhase::Verifying => Phase::Verifying,
        WirePhase::Done => Phase::Done,
    }
}

/// A new name for a job; the same name again is the same job, so a repeated call never starts it twice.
pub(crate) fn new_id() -> String {
    format!("cli-{}", uuid::Uuid::new_v4().simple())
}
