//! `drover-agent volume`: the verbs of a protected volume, for root on the agent's own host, over its Unix socket.

use std::{fmt, path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand, ValueEnum};
use drover_engine::{error::Kind, id::VolumeId};
use drover_proto::v1::{
    self, DemoteRequest, DisableRequest, Disposal, EnableRequest, GetInfoRequest, PromoteRequest, ResyncRequest,
    VolumeInfo, VolumeRole, VolumeSpec, replication_client::ReplicationClient,
};
use drover_report::{Exit, advice, causes};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt as _;

use crate::config::{Config, ConfigError};

#[derive(Clone, Debug, Args)]
pub struct VolumeArgs {
    /// Configuration of the agent
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "DROVER_AGENT_CONFIG",
        default_value = "/etc/drover/agent.toml"
    )]
    config: PathBuf,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Debug, Subcommand)]
enum Verb {
    /// Put a directory under protection at this agent
    #[command(after_help = "\
Examples:
  drover-agent volume enable --root nfs --path pvc-1 --role primary --peer site-b
  drover-agent volume enable --root nfs --path pvc-1 --role secondary --peer site-a --id ID-OF-THE-PRIMARY")]
    Enable(EnableArgs),
    /// End the protection of the copy at this agent
    Disable {
        /// Id of the volume
        volume: VolumeId,
        /// Move the tree of a secondary to the trash beside it; without this the tree stays
        #[arg(long)]
        trash: bool,
    },
    /// Make this copy the primary: a new lineage, a higher epoch
    Promote {
        /// Id of the volume
        volume: VolumeId,
        /// Promote a copy that was never synced
        #[arg(long)]
        force: bool,
    },
    /// Make this copy a secondary, which is written only by sync
    Demote {
        /// Id of the volume
        volume: VolumeId,
    },
    /// Give this secondary's line of points up at the next sync; what it holds is kept as a restore point
    Resync {
        /// Id of the volume
        volume: VolumeId,
    },
    /// Print what this agent knows of a volume
    Info {
        /// Id of the volume
        volume: VolumeId,
    },
}

#[derive(Clone, Debug, Args)]
struct EnableArgs {
    /// Name of a root in the configuration
    #[arg(long)]
    root: String,
    /// Directory beneath the root
    #[arg(long)]
    path: String,
    #[arg(long, value_enum)]
    role: RoleArg,
    /// The volume's id at the other agent; a new one is made and printed when it is missing
    #[arg(long)]
    id: Option<VolumeId>,
    /// Peer of the configuration that syncs go to or come from
    #[arg(long)]
    peer: Option<String>,
    /// Restore points that are kept besides the current one [default: the agent's]
    #[arg(long)]
    retain: Option<u32>,
    /// A secondary: take over a directory that is not empty; what it holds is kept as a restore point
    #[arg(long)]
    adopt: bool,
    /// What this volume may go without, by name
    #[arg(long, value_name = "NAME")]
    waive: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RoleArg {
    /// May be written by its users; the source of syncs
    Primary,
    /// Written only by sync
    Secondary,
}

#[derive(Debug, thiserror::Error)]
enum VolumeCliError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("the agent does not answer at {}; is it running, and are you root?", socket.display())]
    Unreachable { socket: PathBuf, source: tonic::transport::Error },
    #[error("{}", .0.message())]
    Agent(Box<Status>),
    #[error("runtime")]
    Runtime(#[source] std::io::Error),
}

impl From<Status> for VolumeCliError {
    fn from(status: Status) -> Self {
        Self::Agent(Box::new(status))
    }
}

/// Makes its own runtime.
pub fn run(args: VolumeArgs) -> anyhow::Result<ExitCode> {
    match act(&args) {
        Ok(done) => {
            print!("{done}");
            Ok(Exit::Ok.into())
        }
        Err(error) => {
            eprintln!("error: {}", causes(&error));
            if let Some(advice) = error.reason().as_deref().and_then(advice) {
                eprintln!("  to do: {advice}");
            }
            Ok(error.exit().into())
        }
    }
}

impl VolumeCliError {
    fn reason(&self) -> Option<String> {
        match self {
            Self::Agent(status) => status.get_details_error_info().map(|info| info.reason),
            Self::Config(_) | Self::Unreachable { .. } | Self::Runtime(_) => None,
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Config(_) => Exit::Usage,
            Self::Unreachable { .. } => Exit::Unreachable,
            Self::Runtime(_) => Exit::Failure,
            Self::Agent(status) => match status.code() {
                Code::FailedPrecondition => Exit::Refused,
                Code::InvalidArgument => Exit::of(Kind::Invalid, ""),
                Code::Unavailable => Exit::Unreachable,
                _ => Exit::Failure,
            },
        }
    }
}

fn act(args: &VolumeArgs) -> Result<Done, VolumeCliError> {
    let config = Config::load(&args.config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(VolumeCliError::Runtime)?.block_on(async {
        let socket = config.socket_path();
        let unreachable = |source| VolumeCliError::Unreachable { socket: socket.clone(), source };
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display())).map_err(unreachable)?;
        let channel = endpoint.connect().await.map_err(unreachable)?;
        args.verb.call(ReplicationClient::new(channel)).await
    })
}

impl Verb {
    async fn call(&self, mut agent: ReplicationClient<Channel>) -> Result<Done, VolumeCliError> {
        let id = |volume: &VolumeId| volume.to_string();
        Ok(match self {
            Self::Enable(args) => Done::Now(agent.enable(args.request()).await?.into_inner().volume),
            Self::Disable { volume, trash } => {
                let disposal = if *trash { Disposal::Trash } else { Disposal::Keep };
                agent.disable(DisableRequest { volume_id: id(volume), disposal: disposal.into() }).await?;
                Done::Disabled(*volume)
            }
            Self::Promote { volume, force } => {
                let request = PromoteRequest { volume_id: id(volume), force: *force };
                Done::Now(agent.promote(request).await?.into_inner().volume)
            }
            Self::Demote { volume } => {
                Done::Now(agent.demote(DemoteRequest { volume_id: id(volume) }).await?.into_inner().volume)
            }
            Self::Resync { volume } => {
                Done::Now(agent.resync(ResyncRequest { volume_id: id(volume) }).await?.into_inner().volume)
            }
            Self::Info { volume } => {
                Done::Now(agent.get_info(GetInfoRequest { volume_id: id(volume) }).await?.into_inner().volume)
            }
        })
    }
}

impl EnableArgs {
    fn request(&self) -> EnableRequest {
        let directory = v1::Directory { root: self.root.clone(), path: self.path.clone() };
        let role = match self.role {
            RoleArg::Primary => VolumeRole::Primary,
            RoleArg::Secondary => VolumeRole::Secondary,
        };
        EnableRequest {
            volume_id: self.id.unwrap_or_else(VolumeId::random).to_string(),
            spec: Some(VolumeSpec { kind: Some(v1::volume_spec::Kind::Directory(directory)) }),
            role: role.into(),
            peer: self.peer.clone(),
            retain: self.retain,
            adopt: self.adopt,
            waive: self.waive.clone(),
        }
    }
}

/// What stands on stdout: the volume as it is now, one fact a line, so that a script can read the id.
#[expect(clippy::large_enum_variant, reason = "made once a command")]
enum Done {
    Now(Option<VolumeInfo>),
    Disabled(VolumeId),
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disabled(volume) => writeln!(f, "volume {volume}\ndisabled"),
            Self::Now(None) => Ok(()),
            Self::Now(Some(info)) => show(info, f),
        }
    }
}

fn show(info: &VolumeInfo, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "volume {}", info.volume_id)?;
    if let Some(v1::volume_spec::Kind::Directory(directory)) = info.spec.as_ref().and_then(|spec| spec.kind.as_ref()) {
        writeln!(f, "path   {}/{}", directory.root, directory.path)?;
    }
    let role = match info.role() {
        VolumeRole::Primary => "primary",
        VolumeRole::Secondary => "secondary",
        VolumeRole::Unspecified => "unknown",
    };
    writeln!(f, "role   {role}\nepoch  {}", info.epoch)?;
    if let Some(peer) = &info.peer {
        writeln!(f, "peer   {peer}")?;
    }
    let point = info.newest.as_ref().map_or("none", |point| point.id.as_str());
    writeln!(f, "newest {point}")?;
    info.health_because.iter().try_for_each(|why| writeln!(f, "note   {why}"))
}
