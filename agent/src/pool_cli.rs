//! `drover-agent pool`: mirroring of the pools of a cluster, for root on the agent's own host, over its Unix socket.

use std::{
    fmt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Subcommand};
use drover_proto::v1::{
    CreatePeerTokenRequest, DisablePoolRequest, EnablePoolRequest, GetPoolRequest, ImportPeerTokenRequest, PeerTraffic,
    PoolInfo, PoolMode, PoolSpec, RemovePeerRequest, pools_client::PoolsClient,
};
use drover_report::Exit;
use tonic::transport::Channel;

use crate::{
    cli::ConfigArgs,
    config::Config,
    volume_cli::{VolumeCliError, connect, failed, read_text, runtime},
};

#[derive(Clone, Debug, Args)]
pub struct PoolArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(subcommand)]
    verb: Verb,
}

/// `CEPH/POOL` or `CEPH/POOL/NAMESPACE`.
#[derive(Clone, Debug)]
struct Named(PoolSpec);

impl std::str::FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.splitn(3, '/').map(str::to_owned);
        match (parts.next(), parts.next(), parts.next()) {
            (Some(cluster), Some(pool), namespace) if !cluster.is_empty() && !pool.is_empty() => {
                Ok(Self(PoolSpec { cluster, pool, namespace: namespace.unwrap_or_default() }))
            }
            _ => {
                Err("name it CEPH/POOL or CEPH/POOL/NAMESPACE; CEPH is a name of the agent's configuration".to_owned())
            }
        }
    }
}

#[derive(Clone, Debug, Subcommand)]
enum Verb {
    /// Print mode, site name, peers and rbd-mirror daemons of a pool, and what keeps its images from being mirrored
    Info {
        /// CEPH/POOL or CEPH/POOL/NAMESPACE
        pool: Named,
    },
    /// Let images of the pool be mirrored, each one that is enabled
    Enable {
        /// CEPH/POOL or CEPH/POOL/NAMESPACE
        pool: Named,
        /// What peers call this site, if it has no name yet
        #[arg(long, value_name = "NAME")]
        site_name: Option<String>,
    },
    /// End mirroring of the pool, which has no mirrored image and no peer
    Disable {
        /// CEPH/POOL or CEPH/POOL/NAMESPACE
        pool: Named,
    },
    /// Print a token by which the other site makes this cluster its peer. Who has it may read and write every RBD pool of the cluster
    Token {
        /// CEPH/POOL
        pool: Named,
    },
    /// Make the cluster of a token a peer
    #[command(after_help = "\
Example, from the host of the other site:
  ssh root@site-a drover-agent pool token ceph-a/rbd | drover-agent pool import ceph-b/rbd -")]
    Import {
        /// CEPH/POOL
        pool: Named,
        /// File with the token; - is standard input
        token: PathBuf,
        /// Only receive from the peer. Without this the peer receives from here as well, which failing back needs
        #[arg(long)]
        receive_only: bool,
    },
    /// Forget a peer; no image of the pool is mirrored any more
    RemovePeer {
        /// CEPH/POOL
        pool: Named,
        /// As `info` shows it
        uuid: String,
    },
}

pub fn run(args: PoolArgs) -> ExitCode {
    match act(&args) {
        Ok(done) => {
            print!("{done}");
            Exit::Ok.into()
        }
        Err(error) => failed(&error),
    }
}

enum Done {
    Now(Option<PoolInfo>),
    Token(String),
}

fn act(args: &PoolArgs) -> Result<Done, VolumeCliError> {
    let config = Config::load(&args.config.config)?;
    runtime()?.block_on(async { args.verb.call(PoolsClient::new(connect(&config).await?)).await })
}

fn read(path: &Path) -> Result<String, VolumeCliError> {
    let what = "a token can't be read from";
    read_text(path).map_err(|source| VolumeCliError::File { what, path: path.to_owned(), source })
}

impl Verb {
    async fn call(&self, mut agent: PoolsClient<Channel>) -> Result<Done, VolumeCliError> {
        Ok(Done::Now(match self.clone() {
            Self::Info { pool: Named(pool) } => {
                agent.get_pool(GetPoolRequest { pool: Some(pool) }).await?.into_inner().pool
            }
            Self::Enable { pool: Named(pool), site_name } => {
                let request = EnablePoolRequest { pool: Some(pool), site_name: site_name.unwrap_or_default() };
                agent.enable_pool(request).await?.into_inner().pool
            }
            Self::Disable { pool: Named(pool) } => {
                agent.disable_pool(DisablePoolRequest { pool: Some(pool) }).await?.into_inner().pool
            }
            Self::Token { pool: Named(pool) } => {
                let made = agent.create_peer_token(CreatePeerTokenRequest { pool: Some(pool) }).await?;
                return Ok(Done::Token(made.into_inner().token));
            }
            Self::Import { pool: Named(pool), token, receive_only } => {
                let traffic = if receive_only { PeerTraffic::Receive } else { PeerTraffic::Both };
                let request =
                    ImportPeerTokenRequest { pool: Some(pool), token: read(&token)?, traffic: traffic.into() };
                agent.import_peer_token(request).await?.into_inner().pool
            }
            Self::RemovePeer { pool: Named(pool), uuid } => {
                agent.remove_peer(RemovePeerRequest { pool: Some(pool), uuid }).await?.into_inner().pool
            }
        }))
    }
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(token) => writeln!(f, "{token}"),
            Self::Now(None) => Ok(()),
            Self::Now(Some(pool)) => show(pool, f),
        }
    }
}

fn show(pool: &PoolInfo, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if let Some(PoolSpec { cluster, pool, namespace }) = &pool.spec {
        let within = if namespace.is_empty() { String::new() } else { format!("/{namespace}") };
        writeln!(f, "pool   {cluster}/{pool}{within}")?;
    }
    let mode = match pool.mode() {
        PoolMode::Disabled => "disabled",
        PoolMode::Image => "each image that is enabled",
        PoolMode::Pool => "all images with a journal",
        PoolMode::Unspecified => "unknown",
    };
    writeln!(f, "mirror {mode}; {} images", pool.mirrored_images)?;
    let site = if pool.site_name.is_empty() { "without a name" } else { &pool.site_name };
    writeln!(f, "site   {site}")?;
    for peer in &pool.peers {
        let traffic = match peer.traffic() {
            PeerTraffic::Both => "both ways",
            PeerTraffic::Receive => "only received from",
            PeerTraffic::Send => "only sent to",
            PeerTraffic::Unspecified => "in a way that is not known",
        };
        writeln!(f, "peer   {} ({traffic}, {})", peer.site_name, peer.uuid)?;
    }
    for daemon in &pool.daemons {
        writeln!(f, "daemon {} at {}, Ceph {}", daemon.id, daemon.hostname, daemon.version)?;
    }
    for schedule in &pool.mgr_schedules {
        writeln!(
            f,
            "note   the mgr takes mirror snapshots of every image each {}, without sync points",
            schedule.interval
        )?;
    }
    pool.health_because.iter().try_for_each(|why| writeln!(f, "note   {why}"))
}
