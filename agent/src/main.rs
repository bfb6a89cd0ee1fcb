//! `drover-agent`: see `cli` for its verbs and `app` for the story of `serve`.

use std::process::ExitCode;

use clap::Parser as _;
use drover_agent::cli::Cli;

fn main() -> ExitCode {
    drover_linux::allocator::keep_buffers();
    match Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("drover-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}
