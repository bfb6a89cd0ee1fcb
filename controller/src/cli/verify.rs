//! `drover verify VOLUME [--deep]`

use clap::Args;
use drover_proto::v1::{Direction, VerifyRequest};
use drover_report::Exit;

use super::{Globals, session, target};
use crate::{
    failure::Failure,
    fleet::Fleet,
    job::{self, Job},
};

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// Id, 8 or more characters of its beginning, path on its host, or ROOT/PATH
    volume: String,
    /// Read all content again on both sides; only digests are transferred
    #[arg(long)]
    deep: bool,
    /// Name of the job; the same name again is the same job
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

pub(super) async fn run(globals: &Globals, args: &VerifyArgs) -> Result<Exit, Failure> {
    let fleet = Fleet::connect(&globals.connect.resolve()?).await?;
    let volume = fleet.find(&args.volume).await?;
    let copy = target::driver(&volume, "verify")?;
    let request = VerifyRequest {
        volume_id: volume.id.clone(),
        peer: None,
        direction: Direction::Unspecified.into(),
        request_id: args.request_id.clone().unwrap_or_else(job::new_id),
        deep: args.deep,
    };
    let started = copy.agent.sync().verify(request).await;
    let id = started.map_err(|status| Failure::told(&copy.agent.name, &status))?.into_inner().job_id;
    let deep = if args.deep { " --deep" } else { "" };
    let again = format!("drover verify {}{deep} --request-id {id}", volume.id);
    let job = Job { agent: copy.agent.clone(), id, label: volume.label(), again };
    session::finish(globals, &volume.id, &job).await
}
