//! The command line of `drover-agent`.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use crate::{app, certs, check, config::Config, log, recover};

#[derive(Debug, Parser)]
#[command(
    name = "drover-agent",
    version,
    about = "Replicates, proves and rolls back the volumes of one storage host",
    after_help = "Examples:\n  \
        drover-agent certs init /etc/drover/certs --name site-a --name site-b\n  \
        drover-agent check --config /etc/drover/agent.toml\n  \
        drover-agent serve --config /etc/drover/agent.toml\n  \
        drover-agent recover /srv/nfs\n  \
        drover-agent copy /srv/data /mnt/backup/data --verify\n\n\
        Exit codes: 0 ok, 1 failure, 2 usage, 3 refused by a guard or by lineage, 4 discrepancy, 5 unreachable, \
        130 cancelled"
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// How logs are written to stderr
    #[arg(long, global = true, value_enum, default_value_t)]
    log_format: log::Format,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent until SIGTERM
    ///
    /// Volumes are recovered before the agent says that it is ready. On SIGTERM running jobs are checkpointed; they go
    /// on at the next start.
    Serve(ConfigArgs),
    /// Read a configuration, print what it means and what is wrong with this host
    #[command(
        after_help = "Exit code 2 when the file is wrong, 1 when the agent could not start on this host; warnings alone are 0."
    )]
    Check(ConfigArgs),
    /// Make certificates for development and tests
    Certs {
        #[command(subcommand)]
        command: CertsCommand,
    },
    /// Finish or undo what a crash left open on a root, with nothing but the files beside its volumes
    #[command(after_help = "Examples:\n  drover-agent recover /srv/nfs\n  \
            drover-agent recover /srv/nfs --beside /srv/.drover-nfs\n\n\
            A running agent holds its roots; it recovers them itself when it starts. Exit code 1 when a volume could \
            not be recovered.")]
    Recover(recover::RecoverArgs),
    /// Copy a directory tree once, with the guarantees of a sync
    Copy(Box<crate::copy::CopyArgs>),
    /// List the restore points of a copy on this host, export or attach the content of one
    Points(crate::points_cli::PointsArgs),
    /// Take sync points of RBD images that belong together, promote and demote them as one
    Group(crate::group_cli::GroupArgs),
    /// Set the mirroring of RBD pools up: mode, site name, peers
    Pool(crate::pool_cli::PoolArgs),
    /// List deleted copies that wait in the trash, put one back
    Trash(crate::trash_cli::TrashArgs),
    /// What this host's NFS server serves; shut the clients of a directory out, let them in again
    Exports(crate::exports_cli::ExportsArgs),
    /// The catalogue of snapshots: what a restore has to know of the VolumeSnapshots of volumes
    Snapshots(crate::snapshots_cli::SnapshotsArgs),
    /// Calls librbd for the agent, which starts it
    #[command(hide = true)]
    RbdWorker,
    /// Writes through the NFS server for the agent, which starts it
    #[command(hide = true)]
    NfsProbe,
    /// Protect, release, promote and demote volumes at the agent of this host
    Volume(crate::volume_cli::VolumeArgs),
}

/// Where an agent's configuration is; every command that needs it says so in the same way.
#[derive(Clone, Debug, Args)]
pub(crate) struct ConfigArgs {
    /// Configuration of the agent
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "DROVER_AGENT_CONFIG",
        default_value = "/etc/drover/agent.toml"
    )]
    pub(crate) config: PathBuf,
}

#[derive(Debug, Subcommand)]
enum CertsCommand {
    /// Make a CA, a certificate for each agent, and client certificates for a controller and a viewer
    #[command(after_help = "Example:\n  drover-agent certs init certs --name site-a --name site-b\n\n\
            Files that exist are kept: a second run with another --name adds a certificate of the same CA. Keys have \
            mode 0600. Keep ca.key away from the agents.")]
    Init(certs::InitArgs),
}

impl Cli {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Serve(args) => {
                log::init(self.log_format);
                match Config::load(&args.config) {
                    Ok(config) => app::serve(config),
                    Err(error) => {
                        tracing::error!("{}", drover_report::causes(&error));
                        Ok(drover_report::Exit::Usage.into())
                    }
                }
            }
            Command::Check(args) => check::run(&args.config),
            Command::Certs { command: CertsCommand::Init(args) } => certs::init(&args),
            Command::Recover(args) => {
                log::init(self.log_format);
                recover::run(&args)
            }
            Command::RbdWorker => {
                drover_rbd::worker::serve()?;
                Ok(ExitCode::SUCCESS)
            }
            Command::NfsProbe => {
                drover_nfs::probe::worker::serve()?;
                Ok(ExitCode::SUCCESS)
            }
            Command::Exports(args) => Ok(crate::exports_cli::run(&args)),
            Command::Volume(args) => crate::volume_cli::run(args),
            Command::Group(args) => Ok(crate::group_cli::run(args)),
            Command::Pool(args) => Ok(crate::pool_cli::run(args)),
            Command::Trash(args) => Ok(crate::trash_cli::run(&args)),
            Command::Snapshots(args) => Ok(crate::snapshots_cli::run(&args)),
            Command::Points(args) => Ok(crate::points_cli::run(args)),
            Command::Copy(args) => {
                log::init(self.log_format);
                crate::copy::run(*args)
            }
        }
    }
}
