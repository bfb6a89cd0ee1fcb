//! `drover-agent copy SRC DST`: one sync of a directory tree, with the guarantees of any other sync.
//!
//! The destination is a volume beside its parent's `.drover` directory, so a second copy moves only what changed, a
//! crash leaves the old tree or the new one, and what was overwritten stays as a restore point. The source's side keeps
//! its index in `.drover-copy` beside SRC. SRC always wins: a destination that doesn't descend from what SRC remembers
//! is kept as a restore point and then overwritten.

mod bandwidth;
mod error;
mod follow;
mod local;
mod pair;
mod place;
mod remote;
mod rsync;
mod summary;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, ValueEnum};
use drover_engine::session::{Intent, SyncOptions};
use drover_report::{Exit, MaxDelete, Screen, Show};

use bandwidth::Bandwidth;
use error::CopyError;
use pair::Pair;
use place::Place;
use rsync::RsyncFlags;
use summary::Summary;
use tokio::runtime::Runtime;

const EXAMPLES: &str = "\
SRC and DST are local directories, or HOST:PORT:PATH of an agent, where PATH is ROOT/PATH or an absolute path beneath
one of its roots. The content of SRC always becomes the content of DST, with or without a trailing slash.

Examples:
  drover-agent copy /srv/data /mnt/backup/data
  drover-agent copy -n /srv/data /mnt/backup/data
  drover-agent copy /srv/data /mnt/backup/data --verify --retain 7
  drover-agent copy /srv/data site-b:7171:nfs/data --ca ca.pem --cert site-a.pem --key site-a.key \\
      --controller-cert controller.pem --controller-key controller.key";

/// Copy a directory tree once, with the guarantees of a sync
#[derive(Clone, Debug, Args)]
#[command(disable_help_flag = true, after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{}", Exit::HELP))]
pub struct CopyArgs {
    /// What is copied: a directory, or HOST:PORT:PATH
    src: Place,
    /// What it becomes: a directory that is made when it is missing, or HOST:PORT:PATH
    dst: Place,
    /// Print help; -h is --human-readable, as rsync has it
    #[arg(long, action = clap::ArgAction::HelpLong)]
    help: Option<bool>,
    /// Stop at the plan and print it; nothing is changed
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// Compare both sides when the copy is done
    #[arg(long)]
    verify: bool,
    /// Compare by reading all content of both sides again
    #[arg(long)]
    deep: bool,
    /// What stands on stdout; progress goes to stderr
    #[arg(long, value_enum, default_value_t)]
    output: Output,
    /// No progress
    #[arg(long, short, conflicts_with = "progress")]
    quiet: bool,
    /// Progress even when stderr is no terminal: the default
    #[arg(long)]
    progress: bool,
    /// Refuse to delete more than N entries, or PCT% of the entries of DST [default: 50%]
    #[arg(long, value_name = "N|PCT%")]
    max_delete: Option<MaxDelete>,
    /// An empty SRC may empty DST
    #[arg(long)]
    allow_empty_source: bool,
    /// Take over a DST that Drover did not make; what it holds is kept as a restore point
    #[arg(long)]
    adopt: bool,
    /// Copy although this process lacks something; what it can't reproduce fails the copy
    #[arg(long, value_enum, value_name = "NAME")]
    waive: Vec<Waive>,
    /// How many older states of DST are kept as restore points
    #[arg(long, value_name = "N", default_value_t = 2)]
    retain: u32,
    /// Bytes a second, as rsync writes it: KiB without a suffix, or 1.5m, 2GB; 0 is no limit
    #[arg(long, value_name = "RATE", default_value = "0")]
    bwlimit: Bandwidth,
    #[command(flatten)]
    credentials: Credentials,
    #[command(flatten)]
    rsync: RsyncFlags,
}

/// For an agent at one side.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Remote side")]
struct Credentials {
    /// CA certificates that the agent's certificate must come from (PEM)
    #[arg(long, value_name = "FILE", env = "DROVER_CA")]
    ca: Option<PathBuf>,
    /// Our certificate, with the role peer at the agent (PEM)
    #[arg(long, value_name = "FILE", env = "DROVER_CERT")]
    cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE", env = "DROVER_KEY")]
    key: Option<PathBuf>,
    /// A certificate with the role controller, needed the first time: it enables the volume at the agent (PEM)
    #[arg(long, value_name = "FILE", requires = "controller_key")]
    controller_cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE", requires = "controller_cert")]
    controller_key: Option<PathBuf>,
    /// DNS name in the agent's certificate, when it is not HOST
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Waive {
    /// Those of root: other owners, device nodes, trusted attributes and more
    Capabilities,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    #[default]
    Text,
    Json,
}

/// Makes its own runtime, for Ctrl-C and the remote side; the copy itself blocks in threads.
pub fn run(args: CopyArgs) -> anyhow::Result<ExitCode> {
    let refused = args.rsync.refused();
    if !refused.is_empty() {
        refused.iter().for_each(|line| eprintln!("error: {line}"));
        return Ok(Exit::Usage.into());
    }
    let screen = Screen::new(if args.quiet { Show::Nothing } else { Show::detect() });
    if args.rsync.asks_to_delete() && !args.quiet {
        screen.say("--delete is always on: DST becomes what SRC is, and what goes is kept in a restore point");
    }
    let exit = match copy(&args, &screen) {
        Ok(summary) => {
            summary.print(args.output)?;
            summary.exit()
        }
        Err(error) => {
            eprintln!("{}", error.shown());
            error.exit()
        }
    };
    Ok(exit.into())
}

fn copy(args: &CopyArgs, screen: &Screen) -> Result<Summary, CopyError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(CopyError::Runtime)?;
    let pair = Pair::open(args, runtime.handle())?;
    let mut summary = Summary::new(args);
    pair.notes().for_each(|note| summary.note(note));
    if pair.needs_adoption() {
        summary
            .note("DST was not made by Drover: the copy will need --adopt, and keep what DST holds as a restore point");
    }
    let done = run_sessions(args, &pair, &mut summary, screen, &runtime);
    pair.close();
    done.map(|()| summary)
}

fn run_sessions(
    args: &CopyArgs,
    pair: &Pair,
    summary: &mut Summary,
    screen: &Screen,
    runtime: &Runtime,
) -> Result<(), CopyError> {
    let label = args.dst.to_string();
    let run = |intent| follow::run(pair, intent, args.bwlimit, &label, screen, runtime);
    if args.dry_run {
        summary.add(run(Intent::Plan(args.options()))?);
        return Ok(());
    }
    summary.add(run(Intent::Sync(args.options()))?);
    if args.verify || args.deep {
        summary.add(run(Intent::Verify { deep: args.deep })?);
    }
    Ok(())
}

impl CopyArgs {
    fn options(&self) -> SyncOptions {
        let mut options = SyncOptions { allow_empty_source: self.allow_empty_source, ..SyncOptions::default() };
        match self.max_delete {
            None => {}
            // A number replaces the share: who names it has counted.
            Some(MaxDelete::Entries(n)) => (options.delete_entries_max, options.delete_percent_max) = (Some(n), 100),
            Some(MaxDelete::Percent(percent)) => options.delete_percent_max = percent,
        }
        options
    }
}

#[cfg(test)]
mod tests;
