//! `drover-agent group`: the verbs of RBD images that belong together, for root on the agent's own host, over its Unix socket.

use std::{fmt, process::ExitCode};

use clap::{Args, Subcommand};
use drover_proto::v1::{
    CreateMirrorSnapshotsRequest, DemoteGroupRequest, GetGroupRequest, GroupInfo, PromoteGroupRequest, VolumeRole,
    groups_client::GroupsClient,
};
use drover_report::Exit;

use crate::{
    cli::ConfigArgs,
    config::Config,
    volume_cli::{VolumeCliError, connect, failed, path, runtime},
};

#[derive(Clone, Debug, Args)]
pub struct GroupArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Debug, Subcommand)]
enum Verb {
    /// Take a sync point of every image, all under one number
    Point { group: String },
    /// Make every image here the primary
    #[command(after_help = "\
Without --force nothing is lost, or nothing is changed. With it all images end on the newest point that is whole on each of them: an
image that is further, or half copied, is replaced by a clone of that point under its own name. Repeat the command after an error.")]
    Promote {
        group: String,
        /// The peer can't be asked, or lacks what it should have: what came after the newest common point is lost
        #[arg(long)]
        force: bool,
    },
    /// Make every image here a secondary, or none. Stop what uses them first
    Demote { group: String },
    /// Print the images, where a promotion by force would end, and what keeps one without force
    Info { group: String },
}

pub fn run(args: GroupArgs) -> ExitCode {
    match act(&args) {
        Ok(done) => {
            print!("{done}");
            Exit::Ok.into()
        }
        Err(error) => failed(&error),
    }
}

struct Done {
    /// What the verb did.
    told: Option<String>,
    group: Option<GroupInfo>,
}

fn act(args: &GroupArgs) -> Result<Done, VolumeCliError> {
    let config = Config::load(&args.config.config)?;
    runtime()?.block_on(async { args.verb.call(GroupsClient::new(connect(&config).await?)).await })
}

impl Verb {
    async fn call(&self, mut agent: GroupsClient<tonic::transport::Channel>) -> Result<Done, VolumeCliError> {
        Ok(match self.clone() {
            Self::Point { group } => {
                let taken = agent.create_mirror_snapshots(CreateMirrorSnapshotsRequest { group }).await?.into_inner();
                let told = format!("point  {}, within {} ms", taken.number, taken.spread_millis);
                Done { told: Some(told), group: taken.group }
            }
            Self::Promote { group, force } => {
                let promoted = agent.promote_group(PromoteGroupRequest { group, force }).await?.into_inner();
                let told = promoted.ended_on.map(|number| format!("ended on point {number}"));
                Done { told, group: promoted.group }
            }
            Self::Demote { group } => {
                let demoted = agent.demote_group(DemoteGroupRequest { group }).await?.into_inner();
                Done { told: None, group: demoted.group }
            }
            Self::Info { group } => {
                let found = agent.get_group(GetGroupRequest { group, local_only: false }).await?.into_inner();
                Done { told: None, group: found.group }
            }
        })
    }
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(group) = &self.group else { return Ok(()) };
        writeln!(f, "group  {}", group.group)?;
        self.told.iter().try_for_each(|told| writeln!(f, "{told}"))?;
        for member in &group.members {
            let role = match member.role() {
                VolumeRole::Primary => "primary",
                VolumeRole::Secondary => "secondary",
                VolumeRole::Unspecified => "unknown",
            };
            writeln!(f, "image  {} {role}", path(member).unwrap_or_else(|| member.volume_id.clone()))?;
        }
        match group.common_point {
            Some(number) => writeln!(f, "whole  {number} on every image")?,
            None => writeln!(f, "whole  no point on every image")?,
        }
        group.promote_unsafe.iter().try_for_each(|why| writeln!(f, "note   {why}"))
    }
}
