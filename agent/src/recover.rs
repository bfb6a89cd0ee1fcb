//! `drover-agent recover`: the last resort needs nothing but the root.

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use anyhow::Context as _;
use clap::Args;
use drover_engine::{
    beside::{Open, Root, RootKind},
    volume::Volume,
};

use crate::rpc::status::chain;

#[derive(Debug, Args)]
pub struct RecoverArgs {
    /// Root whose volumes are recovered
    root: PathBuf,
    /// Where the state beside the volumes lies, when it is not ROOT/.drover
    #[arg(long, value_name = "DIR")]
    beside: Option<PathBuf>,
    /// ROOT holds block devices (`kind = "devices"`); needs --beside
    #[arg(long, requires = "beside")]
    devices: bool,
}

pub fn run(args: &RecoverArgs) -> anyhow::Result<ExitCode> {
    let shown = args.root.display();
    let kind = if args.devices { RootKind::Devices } else { RootKind::Files };
    let root = Root::open(&args.root, kind, args.beside.as_deref(), Open::Existing).context("open the root")?;
    let (root, mut failed) = (Arc::new(root), 0);
    let volumes = root.volumes().context("list the volumes")?;
    for id in &volumes {
        // Opening a volume is what recovers it.
        match Volume::open(&root, *id) {
            Ok(volume) => println!("{id} {shown}/{}: {}", volume.path(), volume.recovery()),
            Err(error) => {
                failed += 1;
                println!("{id}: NOT RECOVERED: {}", chain(&error));
            }
        }
    }
    println!("{shown}: {} volumes, {failed} not recovered", volumes.len());
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
