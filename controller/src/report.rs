//! Results of verbs on stdout: text for people, JSON for programs. Both are made of the same structures.

mod job;
mod points;
mod status;

use std::io::{self, Write};

use serde::Serialize;

pub(crate) use job::JobReport;
pub(crate) use points::PointsReport;
pub(crate) use status::StatusReport;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Output {
    #[default]
    Text,
    Json,
}

/// What a verb has to say on stdout.
pub(crate) trait Say: Serialize {
    /// Ends with a newline.
    fn text(&self) -> String;
}

impl<T: Say> Say for [T] {
    fn text(&self) -> String {
        self.iter().map(Say::text).collect()
    }
}

impl Output {
    /// The end of a job. What went wrong is talk for people, and part of the data for programs.
    pub(crate) fn print_job(self, report: &JobReport) -> io::Result<()> {
        match self {
            Self::Text if report.error.is_some() => io::stderr().lock().write_all(report.text().as_bytes()),
            Self::Text | Self::Json => self.print(report),
        }
    }

    pub(crate) fn print_jobs(self, reports: &[JobReport]) -> io::Result<()> {
        match self {
            Self::Text => reports.iter().try_for_each(|report| self.print_job(report)),
            Self::Json => self.print(reports),
        }
    }

    pub(crate) fn print<T: Say + ?Sized>(self, what: &T) -> io::Result<()> {
        let text = match self {
            Self::Text => what.text(),
            Self::Json => serde_json::to_string_pretty(what)? + "\n",
        };
        match io::stdout().lock().write_all(text.as_bytes()) {
            // `drover status | head` has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written,
        }
    }
}
