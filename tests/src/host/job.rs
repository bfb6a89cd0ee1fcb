//! How a job ended.

use std::fmt;

use drover_proto::v1::{JobState, JobStatus};
use serde_json::Value;

#[derive(Clone, Debug)]
pub struct Outcome {
    pub status: JobStatus,
    /// The report of a job that is done.
    pub report: Value,
}

impl Outcome {
    pub(super) fn of(status: JobStatus) -> Self {
        let report = serde_json::from_str(&status.report_json).unwrap_or(Value::Null);
        Self { status, report }
    }

    pub(super) fn is_end(status: &JobStatus) -> bool {
        matches!(status.state(), JobState::Done | JobState::Failed | JobState::Cancelled)
    }

    pub fn state(&self) -> JobState {
        self.status.state()
    }

    /// Done, failed or cancelled.
    pub fn has_ended(&self) -> bool {
        Self::is_end(&self.status)
    }

    pub fn is_done(&self) -> bool {
        self.state() == JobState::Done
    }

    /// Stable name of what went wrong; empty when nothing did.
    pub fn reason(&self) -> &str {
        self.status.error.as_ref().map_or("", |error| &error.reason)
    }

    pub fn message(&self) -> &str {
        self.status.error.as_ref().map_or("", |error| &error.message)
    }

    #[track_caller]
    pub fn expect_done(self, why: &str) -> Self {
        assert!(self.is_done(), "{why}: {self}");
        self
    }

    /// It failed, and says why; returns the reason.
    #[track_caller]
    pub fn expect_failed(&self, why: &str) -> String {
        assert_eq!(self.state(), JobState::Failed, "{why}: {self}");
        assert!(!self.reason().is_empty() && !self.message().is_empty(), "{why}: no reason: {self}");
        self.reason().to_owned()
    }

    /// The sync point that a sync made or confirmed.
    #[track_caller]
    pub fn point_id(&self) -> String {
        let id = self.report.pointer("/point/id").and_then(Value::as_str);
        id.unwrap_or_else(|| panic!("no point in {}", self.report)).to_owned()
    }

    /// A number of the report, by its JSON pointer.
    #[track_caller]
    pub fn number(&self, pointer: &str) -> u64 {
        let found = self.report.pointer(pointer).and_then(Value::as_u64);
        found.unwrap_or_else(|| panic!("no {pointer} in {}", self.report))
    }

    /// Entries of a list of the report.
    pub fn list(&self, pointer: &str) -> Vec<Value> {
        self.report.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let job = &self.status;
        write!(f, "job {} is {:?} in {:?}", job.job_id, job.state(), job.phase())?;
        write!(f, " after {} attempts: {} {}", job.attempts, self.reason(), self.message())
    }
}
