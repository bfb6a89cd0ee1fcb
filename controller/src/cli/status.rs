//! `drover status`

use drover_report::Exit;

use super::Globals;
use crate::{failure::Failure, fleet::Fleet, report::StatusReport};

pub(super) async fn run(globals: &Globals) -> Result<Exit, Failure> {
    let fleet = Fleet::connect(&globals.connect.resolve()?).await?;
    let report = StatusReport::new(&fleet, &fleet.volumes().await?);
    globals.output.print(&report)?;
    Ok(report.exit())
}
