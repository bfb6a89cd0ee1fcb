//! `drover sync VOLUME` and `drover sync --all`

use clap::Args;
use drover_proto::v1::{Direction, PlanRequest, StartRequest, SyncOptions};
use drover_report::{Exit, MaxDelete, Screen};
use futures_util::{StreamExt, stream};

use super::{Globals, session, target};
use crate::{
    failure::Failure,
    fleet::{Fleet, Replica, Volume},
    interrupt::Interrupts,
    job::{self, Job, Outcome},
    report::JobReport,
};

/// Jobs that are watched at once; agents queue what is more than they may run.
const JOBS: usize = 8;

#[derive(Debug, Args)]
pub(super) struct SyncArgs {
    /// Id, 8 or more characters of its beginning, path on its host, or ROOT/PATH
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    volume: Option<String>,
    /// Every volume that has a peer; targets of `drover-agent copy` have none and are passed over
    #[arg(long)]
    all: bool,
    /// Drive it from the primary's agent [default: by the role of the copy that is asked]
    #[arg(long, conflicts_with = "pull")]
    push: bool,
    /// Drive it from the secondary's agent
    #[arg(long)]
    pull: bool,
    /// Stop at the plan: say what would change, and which guards would refuse it
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// Refuse to delete more than N entries, or PCT% of the replica's entries [default: the agent's, 50%]
    #[arg(long, value_name = "N|PCT%")]
    max_delete: Option<MaxDelete>,
    /// An empty source may empty the replica
    #[arg(long)]
    allow_empty_source: bool,
    /// Name of the job; the same name again is the same job, so a script can safely repeat it
    #[arg(long, value_name = "ID", conflicts_with = "all")]
    request_id: Option<String>,
}

pub(super) async fn run(globals: &Globals, args: &SyncArgs) -> Result<Exit, Failure> {
    let fleet = Fleet::connect(&globals.connect.resolve()?).await?;
    match &args.volume {
        Some(wanted) => {
            let volume = fleet.find(wanted).await?;
            let job = start(args, &volume).await?;
            session::finish(globals, &volume.id, &job).await
        }
        None => run_all(globals, args, &fleet).await,
    }
}

/// Starts and follows them side by side; the worst end is the exit code.
async fn run_all(globals: &Globals, args: &SyncArgs, fleet: &Fleet) -> Result<Exit, Failure> {
    let screen = Screen::new(globals.show());
    let interrupts = Interrupts::listen();
    for (_, why) in &fleet.unreachable {
        screen.say(&format!("warning: {why}"));
    }
    let (volumes, alone): (Vec<Volume>, Vec<Volume>) = fleet.volumes().await?.into_iter().partition(Volume::has_peer);
    for volume in &alone {
        screen.say(&format!("{}: passed over: it has no peer", volume.label()));
    }
    let ends = volumes.iter().map(|volume| one_of_all(args, volume, &screen, interrupts.clone()));
    let ends: Vec<Result<JobReport, (Exit, String)>> = stream::iter(ends).buffer_unordered(JOBS).collect().await;
    let mut exit = if fleet.unreachable.is_empty() { Exit::Ok } else { Exit::Unreachable };
    let mut reports = Vec::new();
    for end in ends {
        match end {
            Ok(report) => {
                exit = exit.worse(report.exit);
                reports.push(report);
            }
            Err((code, why)) => {
                exit = exit.worse(code);
                screen.say(&why);
            }
        }
    }
    globals.output.print_jobs(&reports)?;
    Ok(exit)
}

async fn one_of_all(
    args: &SyncArgs,
    volume: &Volume,
    screen: &Screen,
    interrupts: Interrupts,
) -> Result<JobReport, (Exit, String)> {
    let told = |failure: Failure| (failure.exit(), format!("{}: {}", volume.label(), failure.shown()));
    let job = start(args, volume).await.map_err(told)?;
    let outcome: Outcome = job.follow(screen, interrupts).await.map_err(told)?;
    Ok(JobReport::new(&volume.id, &job, &outcome))
}

async fn start(args: &SyncArgs, volume: &Volume) -> Result<Job, Failure> {
    let (copy, direction) = args.where_to(volume)?;
    let id = args.request_id.clone().unwrap_or_else(job::new_id);
    let volume_id = volume.id.clone();
    let options = Some(args.options());
    let direction = direction.into();
    let mut client = copy.agent.sync();
    let started = if args.dry_run {
        let request = PlanRequest { volume_id, peer: None, direction, request_id: id, options };
        client.plan(request).await.map(|answer| answer.into_inner().job_id)
    } else {
        let request = StartRequest { volume_id, peer: None, direction, request_id: id, options };
        client.start(request).await.map(|answer| answer.into_inner().job_id)
    };
    let id = started.map_err(|status| Failure::told(&copy.agent.name, &status))?;
    let dry = if args.dry_run { " --dry-run" } else { "" };
    let again = format!("drover sync {}{dry} --request-id {id}", volume.id);
    Ok(Job { agent: copy.agent.clone(), id, label: volume.label(), again })
}

impl SyncArgs {
    /// The agent to ask, and what it shall do.
    fn where_to<'a>(&self, volume: &'a Volume) -> Result<(&'a Replica, Direction), Failure> {
        match (self.push, self.pull) {
            (true, _) => Ok((target::driver(volume, "sync")?, Direction::Push)),
            (_, true) => Ok((target::secondary(volume, "sync --pull")?, Direction::Pull)),
            _ => Ok((target::driver(volume, "sync")?, Direction::Unspecified)),
        }
    }

    fn options(&self) -> SyncOptions {
        let (entries, percent) = match self.max_delete {
            None => (None, None),
            // A number replaces the share: who names it has counted.
            Some(MaxDelete::Entries(n)) => (Some(n), Some(100)),
            Some(MaxDelete::Percent(percent)) => (None, Some(percent.into())),
        };
        SyncOptions {
            delete_percent_max: percent,
            delete_entries_max: entries,
            allow_empty_source: self.allow_empty_source,
            always_point: false,
        }
    }
}
