//! The end of one job.

use drover_engine::{error::Kind, report::Report};
use drover_report::Exit;
use serde::Serialize;

use super::Say;
use crate::{
    failure::Told,
    job::{Job, Outcome},
};

#[derive(Clone, Debug, Serialize)]
pub(crate) struct JobReport {
    pub volume: String,
    pub agent: String,
    pub job: String,
    pub state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<Report>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorReport>,
    #[serde(skip)]
    label: String,
    #[serde(skip)]
    pub exit: Exit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    Done,
    Failed,
    Cancelled,
    /// Left to itself; it may still run.
    Left,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct ErrorReport {
    pub kind: Kind,
    pub reason: String,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<&'static str>,
}

impl From<&Told> for ErrorReport {
    fn from(told: &Told) -> Self {
        let Told { kind, reason, message } = told.clone();
        Self { kind, reason, message, advice: told.advice() }
    }
}

impl JobReport {
    pub(crate) fn new(volume: &str, job: &Job, outcome: &Outcome) -> Self {
        let (state, report, error) = match outcome {
            Outcome::Done(report) => (State::Done, Some(report.as_ref().clone()), None),
            Outcome::Failed(told) => (State::Failed, None, Some(ErrorReport::from(told))),
            Outcome::Cancelled => (State::Cancelled, None, None),
            Outcome::Left => (State::Left, None, None),
        };
        Self {
            volume: volume.to_owned(),
            agent: job.agent.name.clone(),
            job: job.id.clone(),
            state,
            report,
            error,
            label: job.label.clone(),
            exit: outcome.exit(),
        }
    }
}

impl Say for JobReport {
    fn text(&self) -> String {
        let label = &self.label;
        match (&self.report, &self.error, self.state) {
            (Some(report), ..) => drover_report::text(report, label),
            (None, Some(error), _) => {
                let ErrorReport { reason, message, advice, .. } = error;
                let reason = if reason.is_empty() { String::new() } else { format!(" [{reason}]") };
                let advice = advice.map_or_else(String::new, |advice| format!("  to do    {advice}\n"));
                format!("{label}: FAILED: {message}{reason}\n{advice}")
            }
            (None, None, State::Left) => format!("{label}: job {} was left running\n", self.job),
            (None, None, _) => {
                format!(
                    "{label}: cancelled; the replica is its last whole point, what was received is kept for the next sync\n"
                )
            }
        }
    }
}
