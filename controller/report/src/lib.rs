//! How Drover talks to people: reports as text, progress, advice about errors and exit codes. `drover` and
//! `drover-agent copy` share it, so that a sync reads the same wherever it was started.
//!
//! Reports themselves are the engine's; `--output json` prints those and nothing of this crate.

mod advice;
mod bar;
mod causes;
mod exit;
mod max_delete;
mod moment;
mod plan;
mod rollback;
mod sync;
mod table;
mod units;
mod verify;

pub use advice::{REASONS, advice};
pub use bar::{Bar, Sample, Screen, Show};
pub use causes::causes;
pub use exit::Exit;
pub use max_delete::MaxDelete;
pub use moment::Moment;
pub use table::Table;
pub use units::{Ago, Bytes, Count, Rate, Time};

use drover_engine::{path::RelPath, report::Report};

/// The report of a finished job; `subject` is how the user named the volume. Ends with a newline.
pub fn text(report: &Report, subject: &str) -> String {
    match report {
        Report::Sync(report) => sync::text(report, subject),
        Report::Plan(report) => plan::text(report, subject),
        Report::Verify(report) => verify::text(report, subject),
        Report::Rollback(report) => rollback::text(report, subject),
    }
}

/// The exit code of a job that ended with this report.
pub fn exit(report: &Report) -> Exit {
    match report {
        Report::Verify(report) if report.is_discrepancy() => Exit::Discrepancy,
        Report::Plan(report) if !report.refused_by.is_empty() => Exit::Refused,
        Report::Sync(_) | Report::Plan(_) | Report::Verify(_) | Report::Rollback(_) => Exit::Ok,
    }
}

/// A list of paths under a heading; nothing when there are none. Lists are cut at what fits a screen, the JSON has more.
fn paths(out: &mut String, heading: &str, paths: &[RelPath]) {
    const SHOWN: usize = 10;
    if paths.is_empty() {
        return;
    }
    out.push_str(&format!("  {heading}:\n"));
    for path in paths.iter().take(SHOWN) {
        out.push_str(&format!("    {path}\n"));
    }
    if paths.len() > SHOWN {
        out.push_str(&format!("    … and {} more in --output json\n", paths.len() - SHOWN));
    }
}

#[cfg(test)]
mod tests;
