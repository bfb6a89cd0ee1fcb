//! What the verbs that run a job have in common: follow it, print its report, exit by it.

use drover_report::{Exit, Screen};

use super::Globals;
use crate::{failure::Failure, interrupt::Interrupts, job::Job, report::JobReport};

/// Follows one job and prints how it ended.
pub(super) async fn finish(globals: &Globals, volume: &str, job: &Job) -> Result<Exit, Failure> {
    let screen = Screen::new(globals.show());
    let outcome = job.follow(&screen, Interrupts::listen()).await?;
    globals.output.print_job(&JobReport::new(volume, job, &outcome))?;
    Ok(outcome.exit())
}
