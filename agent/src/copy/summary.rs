//! What a copy says on stdout when it is done.

use std::io::{self, Write as _};

use drover_engine::report::Report;
use drover_report::Exit;
use serde::Serialize;

use super::{CopyArgs, Output};

#[derive(Clone, Debug, Serialize)]
pub(super) struct Summary {
    source: String,
    destination: String,
    /// The copy or the plan, then the verification when one was asked for.
    reports: Vec<Report>,
    notes: Vec<String>,
}

impl Summary {
    pub(super) fn new(args: &CopyArgs) -> Self {
        let (source, destination) = (args.src.to_string(), args.dst.to_string());
        Self { source, destination, reports: Vec::new(), notes: Vec::new() }
    }

    pub(super) fn add(&mut self, report: Report) {
        self.reports.push(report);
    }

    pub(super) fn note(&mut self, note: &str) {
        self.notes.push(note.to_owned());
    }

    pub(super) fn exit(&self) -> Exit {
        self.reports.iter().map(drover_report::exit).fold(Exit::Ok, Exit::worse)
    }

    pub(super) fn print(&self, output: Output) -> io::Result<()> {
        let text = match output {
            Output::Json => serde_json::to_string_pretty(self)? + "\n",
            Output::Text => self.text(),
        };
        match io::stdout().lock().write_all(text.as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written,
        }
    }

    fn text(&self) -> String {
        let reports = self.reports.iter().map(|report| drover_report::text(report, &self.destination));
        reports.chain(self.notes.iter().map(|note| format!("note: {note}\n"))).collect()
    }
}
