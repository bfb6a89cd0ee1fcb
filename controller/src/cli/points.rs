//! `drover points VOLUME`

use clap::Args;
use drover_proto::v1::ListRestorePointsRequest;
use drover_report::Exit;

use super::Globals;
use crate::{failure::Failure, fleet::Fleet, report::PointsReport};

#[derive(Debug, Args)]
pub(super) struct PointsArgs {
    /// Id, 8 or more characters of its beginning, path on its host, or ROOT/PATH
    volume: String,
}

pub(super) async fn run(globals: &Globals, args: &PointsArgs) -> Result<Exit, Failure> {
    let fleet = Fleet::connect(&globals.connect.resolve()?).await?;
    let volume = fleet.find(&args.volume).await?;
    let mut copies = Vec::new();
    for copy in &volume.copies {
        let request = ListRestorePointsRequest { volume_id: volume.id.clone() };
        let listed = copy.agent.sync().list_restore_points(request).await;
        let listed = listed.map_err(|status| Failure::told(&copy.agent.name, &status))?.into_inner();
        copies.push((copy.clone(), listed.points, listed.paused));
    }
    globals.output.print(&PointsReport::new(&volume, copies))?;
    // Points of a copy that can't be asked are not gone.
    fleet.absent().for_each(|absent| eprintln!("not listed: {absent}"));
    Ok(if fleet.unreachable.is_empty() { Exit::Ok } else { Exit::Unreachable })
}
