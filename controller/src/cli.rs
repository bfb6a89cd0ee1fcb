//! The command line. One file for each verb; each asks, prints to stdout and says how it ended.

mod points;
mod rollback;
mod session;
mod status;
mod sync;
mod target;
mod verify;

use clap::{Args, Parser, Subcommand};
use drover_report::{Exit, Show};

use crate::{config::Connect, failure::Failure, report::Output};

/// Syncs, verifies and rolls back volumes by calling their agents
#[derive(Debug, Parser)]
#[command(name = "drover", version, propagate_version = true, after_help = Exit::HELP, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Args)]
struct Globals {
    #[command(flatten)]
    connect: Connect,
    /// What stands on stdout; progress and talk go to stderr
    #[arg(long, short, value_enum, default_value_t, global = true, env = "DROVER_OUTPUT")]
    output: Output,
    /// No progress
    #[arg(long, short, global = true)]
    quiet: bool,
}

impl Globals {
    fn show(&self) -> Show {
        if self.quiet { Show::Nothing } else { Show::detect() }
    }
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Bring a volume's replica to a new sync point
    Sync(sync::SyncArgs),
    /// Compare both copies of a volume with each other and with the newest sync point
    Verify(verify::VerifyArgs),
    /// Say whether every volume is healthy, and list them all
    Status,
    /// List the restore points of a volume
    Points(points::PointsArgs),
    /// Take a replica to one of its restore points, back or forward
    Rollback(rollback::RollbackArgs),
}

impl Cli {
    pub(crate) async fn act(&self) -> Result<Exit, Failure> {
        let globals = &self.globals;
        match &self.verb {
            Verb::Sync(args) => sync::run(globals, args).await,
            Verb::Verify(args) => verify::run(globals, args).await,
            Verb::Status => status::run(globals).await,
            Verb::Points(args) => points::run(globals, args).await,
            Verb::Rollback(args) => rollback::run(globals, args).await,
        }
    }
}

#[cfg(test)]
mod tests;
