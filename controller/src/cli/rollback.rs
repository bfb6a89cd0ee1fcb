//! `drover rollback VOLUME POINT` and `drover rollback VOLUME --release`

use std::io::{self, BufRead, IsTerminal};

use clap::Args;
use drover_proto::v1::{ReleaseRequest, RollbackRequest};
use drover_report::Exit;
use serde::Serialize;

use super::{Globals, session, target};
use crate::{
    failure::Failure,
    fleet::{Fleet, Replica, Volume},
    job::{self, Job},
    report::Say,
};

#[derive(Debug, Args)]
pub(super) struct RollbackArgs {
    /// Id, 8 or more characters of its beginning, path on its host, or ROOT/PATH
    volume: String,
    /// As `drover points` shows it
    #[arg(required_unless_present = "release", conflicts_with = "release")]
    point: Option<String>,
    /// Let syncs write the replica again
    #[arg(long)]
    release: bool,
    /// Don't ask
    #[arg(long, short)]
    yes: bool,
    /// Name of the job; the same name again is the same job
    #[arg(long, value_name = "ID", conflicts_with = "release")]
    request_id: Option<String>,
}

pub(super) async fn run(globals: &Globals, args: &RollbackArgs) -> Result<Exit, Failure> {
    let fleet = Fleet::connect(&globals.connect.resolve()?).await?;
    let volume = fleet.find(&args.volume).await?;
    let copy = target::secondary(&volume, "rollback")
        .inspect_err(|_| fleet.absent().for_each(|absent| eprintln!("not asked: {absent}")))?;
    match &args.point {
        None => release(globals, &volume, copy).await,
        Some(point) => {
            if !args.yes && !confirm(&volume, copy, point)? {
                return Err(Failure::Refused("not confirmed; nothing was changed".to_owned()));
            }
            rollback(globals, args, point, &volume, copy).await
        }
    }
}

async fn rollback(
    globals: &Globals,
    args: &RollbackArgs,
    point: &str,
    volume: &Volume,
    copy: &Replica,
) -> Result<Exit, Failure> {
    let request = RollbackRequest {
        volume_id: volume.id.clone(),
        point_id: point.to_owned(),
        request_id: args.request_id.clone().unwrap_or_else(job::new_id),
    };
    let started = copy.agent.sync().rollback(request).await;
    let id = started.map_err(|status| Failure::told(&copy.agent.name, &status))?.into_inner().job_id;
    let again = format!("drover rollback {} {point} --yes --request-id {id}", volume.id);
    let job = Job { agent: copy.agent.clone(), id, label: volume.label(), again };
    session::finish(globals, &volume.id, &job).await
}

async fn release(globals: &Globals, volume: &Volume, copy: &Replica) -> Result<Exit, Failure> {
    let released = copy.agent.sync().release(ReleaseRequest { volume_id: volume.id.clone() }).await;
    released.map_err(|status| Failure::told(&copy.agent.name, &status))?;
    let report = Released { volume: volume.id.clone(), agent: copy.agent.name.clone(), released: true };
    globals.output.print(&report)?;
    Ok(Exit::Ok)
}

#[derive(Debug, Serialize)]
struct Released {
    volume: String,
    agent: String,
    released: bool,
}

impl Say for Released {
    fn text(&self) -> String {
        format!("volume {} at {} is released: syncs write it again\n", self.volume, self.agent)
    }
}

/// Asks a person; a script has to say --yes.
fn confirm(volume: &Volume, copy: &Replica, point: &str) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        let how = "nobody can be asked (stdin is not a terminal): give --yes to roll back";
        return Err(Failure::Usage(how.to_owned()));
    }
    eprint!(
        "Take {} at {} ({}) to point {point}? Syncs pause until it is released. [y/N] ",
        volume.label(),
        copy.agent.name,
        copy.path
    );
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes" | "Yes"))
}
