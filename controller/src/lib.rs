//! `drover`: a thin controller. It asks agents to act and shows what they say; it keeps no state of its own.
//!
//! `config` says where the agents are, `agents` talks to them, `fleet` merges what they know of each volume, `job`
//! follows a job to its end, `report` turns the result into text or JSON. `cli` has one file for each verb.

mod agents;
mod cli;
mod config;
mod failure;
mod fleet;
mod interrupt;
mod job;
mod report;

use std::process::ExitCode;

use clap::Parser;
use drover_report::Exit;

/// The whole program: parses, acts, reports, and returns the exit code.
pub fn run() -> ExitCode {
    let cli = cli::Cli::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: can't start: {error}");
            return Exit::Failure.into();
        }
    };
    match runtime.block_on(cli.act()) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            eprintln!("{}", failure.shown());
            failure.exit().into()
        }
    }
}
