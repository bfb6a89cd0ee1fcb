//! `drover-agent volume`: the verbs of a protected volume, for root on the agent's own host, over its Unix socket.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Subcommand, ValueEnum};
use drover_engine::id::VolumeId;
use drover_proto::v1::{
    self, DemoteRequest, DisableRequest, Disposal, EnableRequest, GetInfoRequest, ListRestorePointsRequest,
    NodeGetInfoRequest, PromoteRequest, ResyncRequest, VolumeInfo, VolumeRole, VolumeSpec, fence_client::FenceClient,
    node_client::NodeClient, replication_client::ReplicationClient, sync_client::SyncClient,
};
use drover_report::{Exit, advice, causes};
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

use crate::{
    cli::ConfigArgs,
    config::{Config, ConfigError},
    exports_cli,
    pv::{self, PvError},
    rpc::status::{kind_of, reason_of},
};

#[derive(Clone, Debug, Args)]
pub struct VolumeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Debug, Subcommand)]
enum Verb {
    /// Put a directory, an image file, a block device or an RBD image under protection at this agent
    #[command(after_help = "\
Examples:
  drover-agent volume enable --root nfs --path pvc-1 --role primary --peer site-b
  drover-agent volume enable --root nfs --path pvc-1 --role secondary --peer site-a --id ID-OF-THE-PRIMARY
  drover-agent volume enable --root images --path vm1.img --kind block-file --role primary --peer site-b
  drover-agent volume enable --root disks --path mapper/vg-vm1 --kind block-file --role primary --peer site-b
  drover-agent volume enable --root ceph-a --path rbd/vm1 --kind rbd-image --role primary --peer site-b --every 5m

The fourth is a block device, beneath a root with kind = \"devices\". Enabled again with the same id, a volume takes the
retention and the peer that are named. Say the role that the copy has now.")]
    Enable(EnableArgs),
    /// End the protection of the copy at this agent
    Disable {
        /// Id, 8 or more characters of its beginning, or ROOT/PATH
        volume: String,
        /// Move the restore points, and the tree of a secondary that is no device, to the trash; without this the tree stays and
        /// the restore points go
        #[arg(long)]
        trash: bool,
        /// A mirrored RBD image: forget the volume alone, the image is mirrored as before. Without this it is not mirrored any more; at the secondary,
        /// which goes first, it becomes an image of its own with its points
        #[arg(long, conflicts_with = "trash")]
        forget: bool,
        /// A primary RBD image: also while the peer has a copy, which rbd-mirror then deletes. With --trash: also while the peer protects the volume, or
        /// can't be asked
        #[arg(long, conflicts_with = "forget")]
        force: bool,
    },
    /// Make this copy the primary: a new lineage, a higher epoch
    Promote {
        /// Id, 8 or more characters of its beginning, or ROOT/PATH
        volume: String,
        /// Promote a copy that was never synced, whose peer can't be asked, or that lacks what the peer has: what came after its last sync is
        /// lost. Never beside a primary that answers
        #[arg(long)]
        force: bool,
        /// Of an RBD image whose promotion ended behind a point (`promoted-in-a-sync`): the point that it was rolled back to since,
        /// 0 where there is none
        #[arg(long, value_name = "NUMBER")]
        accept_point: Option<u64>,
        /// One image of a group, without the others: they may end on different points
        #[arg(long)]
        alone: bool,
    },
    /// Make this copy a secondary, which is written only by sync. Stop what uses it and sync first
    Demote {
        /// Id, 8 or more characters of its beginning, or ROOT/PATH
        volume: String,
        /// Also a copy that was written to after its newest point: what was written stays behind on this copy. Not of a mirrored image
        #[arg(long)]
        force: bool,
        /// One image of a group, without the others
        #[arg(long)]
        alone: bool,
    },
    /// Give this secondary's line of points up at the next sync; what it holds is kept as a restore point. A mirrored RBD image, primary
    /// or not, is renamed at once, and rbd-mirror copies the peer's anew
    Resync {
        /// Id, 8 or more characters of its beginning, or ROOT/PATH
        volume: String,
    },
    /// Take a sync point of a primary RBD image: a snapshot, and the mirror snapshot that carries it to the peer
    Point {
        /// Id, 8 or more characters of its beginning, or CEPH/POOL/IMAGE
        volume: String,
    },
    /// Shut the clients of a volume out: those of this host's NFS server, which may read from then on, and prove it. Of a primary RBD image the
    /// client that writes to it: its lock is broken, and its address blocklisted in the cluster
    #[command(after_help = "\
What is printed says whether it is proved, and how: the same write through the NFS server succeeded before and was refused after, and every entry
that leads to the volume was read back from the server. Exit code 4 when it is not proved. Again, it looks again.")]
    Fence {
        /// Id, 8 or more characters of its beginning, ROOT/PATH, or CEPH/POOL/IMAGE
        volume: String,
        /// NFS clients may do nothing at all, not even read
        #[arg(long)]
        refuse: bool,
        /// Also where an export leads to more than the volume: its clients can't write to the rest either
        #[arg(long)]
        whole_export: bool,
        /// Also where it has images open that are not of the volume's group: it loses them, too
        #[arg(long)]
        whole_client: bool,
    },
    /// Let the clients in again that were shut out because of a volume, with exactly the options that they had
    Unfence {
        /// Id, 8 or more characters of its beginning, ROOT/PATH, or CEPH/POOL/IMAGE
        volume: String,
    },
    /// Print what this agent knows of a volume
    Info {
        /// Id, 8 or more characters of its beginning, or ROOT/PATH
        volume: String,
    },
}

#[derive(Clone, Debug, Args)]
struct EnableArgs {
    /// Name of a root in the configuration; of an RBD image, name of a ceph
    #[arg(long, required_unless_present = "pv")]
    root: Option<String>,
    /// Directory, file or device beneath the root, without a slash at its beginning; POOL/IMAGE of an RBD image
    #[arg(long, required_unless_present = "pv")]
    path: Option<String>,
    /// A PersistentVolume on an NFS server as JSON, in the place of root and path: in-tree nfs, nfs-subdir-external-provisioner, csi-driver-nfs; or a
    /// VolumeSnapshotContent of the latter, whose directory is meant. `exports` in the configuration says which root that is; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["root", "path", "kind"])]
    pv: Option<PathBuf>,
    #[arg(long, value_enum, default_value_t)]
    kind: KindArg,
    #[arg(long, value_enum)]
    role: RoleArg,
    /// The volume's id at the other agent. A primary without it is a new volume, whose id is printed
    #[arg(long, required_if_eq("role", "secondary"))]
    id: Option<VolumeId>,
    /// Peer of the configuration that syncs go to or come from
    #[arg(long)]
    peer: Option<String>,
    /// Restore points that are kept besides the current one [default: the agent's; of a mirrored RBD image always that]
    #[arg(long)]
    retain: Option<u32>,
    /// Restore points that are younger are kept besides, however many [default: the agent's]
    #[arg(long, value_name = "HOURS")]
    retain_hours: Option<u32>,
    /// An RBD image: the images that it belongs with, by a name of your choice, the same at both agents; '' for none [default: as it is]
    #[arg(long)]
    group: Option<String>,
    /// An RBD image: while it is primary, take a sync point of it, or of its group, so often, as 5m; 0s for never. Say it at both
    /// agents [default: as it is]
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    every: Option<Duration>,
    /// A primary RBD image that is a clone of one that is not mirrored: copy what it has of its parent first
    #[arg(long)]
    flatten: bool,
    /// A secondary: take over a directory, file or image that is not empty; what it holds is kept as a restore point
    #[arg(long)]
    adopt: bool,
    /// What this volume may go without: `capabilities`, `device-identity`
    #[arg(long, value_name = "NAME")]
    waive: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum KindArg {
    /// A directory and everything beneath it
    #[default]
    Directory,
    /// One regular file, the raw image of a disk; beneath a root for devices, a block device
    BlockFile,
    /// An image of a Ceph cluster, mirrored by rbd-mirror: --root names the cluster, --path is POOL/IMAGE or POOL/NAMESPACE/IMAGE
    RbdImage,
    /// An image of a Ceph cluster whose pool need not be mirrored, synced by the agents: --root and --path as of an rbd-image; they may differ
    /// between the sites, and the first sync makes the secondary's image
    RbdDelta,
    /// The copy of an rbd-delta image in a regular file of XFS or btrfs, for a site without Ceph; --root and --path as of a block-file
    ImageFile,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RoleArg {
    /// May be written by its users; the source of syncs
    Primary,
    /// Written only by sync
    Secondary,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeCliError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("the agent does not answer at {}; is it running, and are you root?", socket.display())]
    Unreachable { socket: PathBuf, source: tonic::transport::Error },
    #[error(
        "this agent has no open volume {wanted:?}; name one by its id, the first 8 or more characters of it, or ROOT/PATH{}",
        Problems(.problems)
    )]
    NoSuchVolume { wanted: String, problems: Vec<String> },
    #[error("{wanted:?} may be any of {found}")]
    Ambiguous { wanted: String, found: String },
    #[error("{}", .0.message())]
    Agent(Box<Status>),
    #[error("{what} {}", path.display())]
    File { what: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{}", path.display())]
    Pv { path: PathBuf, source: PvError },
    #[error("the directory of {name} was archived when its claim was deleted: it is {} now. Enable that by --root and --path if you want it", archived.display())]
    Archived { name: String, archived: PathBuf },
    #[error("the content of {} is not what the point holds: another process changed it", path.display())]
    NotThePoint { path: PathBuf },
    #[error("{} exists; choose another name, nothing was written", path.display())]
    Exists { path: PathBuf },
    #[error("the content has {bytes} bytes, and a device only whole sectors of 512: export it")]
    NoSectors { bytes: u64 },
    #[error("agent's answer has a digest that is none")]
    Answer,
    #[error("runtime")]
    Runtime(#[source] std::io::Error),
}

/// One may be the volume that is meant; a whole id still addresses it.
pub(crate) struct Problems<'a>(&'a [String]);

impl fmt::Display for Problems<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
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
            next_step(&args, &done).iter().for_each(|next| eprintln!("{next}"));
            Ok(done.exit().into())
        }
        Err(error) => Ok(failed(&error)),
    }
}

/// A copy alone protects nothing.
fn next_step(args: &VolumeArgs, done: &Done) -> Option<String> {
    let (Verb::Enable(EnableArgs { id: None, path, pv, role, kind, peer: Some(_), .. }), Done::Enabled(Some(info))) =
        (&args.verb, done)
    else {
        return None;
    };
    let other = match role {
        RoleArg::Primary => "secondary",
        RoleArg::Secondary => "primary",
    };
    let kind = match kind {
        KindArg::Directory => "",
        KindArg::BlockFile => " --kind block-file",
        KindArg::RbdImage => " --kind rbd-image",
        KindArg::RbdDelta => " --kind rbd-delta",
        KindArg::ImageFile => " --kind image-file",
    };
    let place = match (pv, path) {
        (Some(pv), _) => format!("--pv {}", pv.display()),
        (None, path) => format!("--root ROOT --path {}", path.as_deref().unwrap_or("PATH")),
    };
    let (id, this) = (&info.volume_id, Config::load(&args.config.config).map_or("THIS-AGENT".to_owned(), |it| it.name));
    Some(format!(
        "this is a new volume; its {other} copy is enabled at the peer, where ROOT and PATH may be others:\n  \
         drover-agent volume enable {place}{kind} --role {other} --peer {this} --id {id}"
    ))
}

impl VolumeCliError {
    fn reason(&self) -> Option<String> {
        match self {
            Self::Agent(status) => reason_of(status),
            Self::Config(_)
            | Self::Unreachable { .. }
            | Self::NoSuchVolume { .. }
            | Self::Ambiguous { .. }
            | Self::File { .. }
            | Self::Pv { .. }
            | Self::Archived { .. }
            | Self::Exists { .. }
            | Self::NoSectors { .. }
            | Self::Answer
            | Self::Runtime(_) => None,
            Self::NotThePoint { .. } => Some("point-incomplete".to_owned()),
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Config(_) => Exit::Usage,
            Self::Unreachable { .. } => Exit::Unreachable,
            Self::NotThePoint { .. } => Exit::Discrepancy,
            Self::NoSuchVolume { .. }
            | Self::Ambiguous { .. }
            | Self::File { .. }
            | Self::Pv { .. }
            | Self::Archived { .. }
            | Self::Exists { .. }
            | Self::NoSectors { .. }
            | Self::Answer
            | Self::Runtime(_) => Exit::Failure,
            Self::Agent(status) => Exit::of(kind_of(status), &reason_of(status).unwrap_or_default()),
        }
    }
}

fn act(args: &VolumeArgs) -> Result<Done, VolumeCliError> {
    let config = Config::load(&args.config.config)?;
    runtime()?.block_on(async { args.verb.call(&config, connect(&config).await?).await })
}

pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, VolumeCliError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(VolumeCliError::Runtime)
}

/// To the agent of this host.
pub(crate) async fn connect(config: &Config) -> Result<Channel, VolumeCliError> {
    let socket = config.socket_path();
    let unreachable = |source| VolumeCliError::Unreachable { socket: socket.clone(), source };
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display())).map_err(unreachable)?;
    endpoint.connect().await.map_err(unreachable)
}

/// Says what went wrong and what to do about it.
pub(crate) fn failed(error: &VolumeCliError) -> ExitCode {
    let reason = error.reason();
    let shown = reason.as_ref().map_or_else(String::new, |reason| format!(" [{reason}]"));
    eprintln!("error: {}{shown}", causes(error));
    if let Some(advice) = reason.as_deref().and_then(advice) {
        eprintln!("  to do: {advice}");
    }
    error.exit().into()
}

impl Verb {
    async fn call(&self, config: &Config, channel: Channel) -> Result<Done, VolumeCliError> {
        let mut agent = ReplicationClient::new(channel.clone());
        let volume = match self {
            Self::Enable(args) => {
                let enabled = agent.enable(args.request(args.place(config)?)).await?.into_inner();
                for v1::MgrSchedule { level, interval } in &enabled.mgr_schedules {
                    let level = if level.is_empty() { "all pools" } else { level };
                    eprintln!(
                        "warning: a schedule of the mgr for {level} takes mirror snapshots of this image every {interval} without sync \
                         points before them: what a promotion ends on then has no number (rbd mirror snapshot schedule remove)"
                    );
                }
                return Ok(Done::Enabled(enabled.volume));
            }
            Self::Disable { volume, .. }
            | Self::Promote { volume, .. }
            | Self::Point { volume }
            | Self::Demote { volume, .. }
            | Self::Resync { volume }
            | Self::Fence { volume, .. }
            | Self::Unfence { volume }
            | Self::Info { volume } => resolve(channel.clone(), volume).await?,
        };
        let volume_id = volume.clone();
        let now = match self {
            Self::Disable { trash, forget, force, .. } => {
                let disposal = match (trash, forget) {
                    (true, _) => Disposal::Trash,
                    (_, true) => Disposal::Forget,
                    _ => Disposal::Keep,
                };
                agent.disable(DisableRequest { volume_id, disposal: disposal.into(), force: *force }).await?;
                return Ok(Done::Disabled(volume));
            }
            Self::Promote { force, accept_point, alone, .. } => {
                warn_of_points(channel, &volume_id).await;
                let (force, accept_point, alone) = (*force, *accept_point, *alone);
                let request = PromoteRequest { volume_id, force, accept_point, alone };
                agent.promote(request).await?.into_inner().volume
            }
            Self::Point { .. } => {
                let taken = agent.create_mirror_snapshot(v1::CreateMirrorSnapshotRequest { volume_id }).await?;
                taken.into_inner().volume
            }
            Self::Demote { alone, force, .. } => {
                let request = DemoteRequest { volume_id, alone: *alone, force: *force };
                agent.demote(request).await?.into_inner().volume
            }
            Self::Fence { whole_client, refuse, whole_export, .. } => {
                let (whole_client, whole_export) = (*whole_client, *whole_export);
                let shut = exports_cli::shut(*refuse).into();
                let request = v1::FenceVolumeRequest { volume_id, whole_client, shut, whole_export };
                let volume = FenceClient::new(channel).fence_volume(request).await?.into_inner().volume;
                return Ok(Done::Fenced(volume));
            }
            Self::Unfence { .. } => {
                let request = v1::UnfenceVolumeRequest { volume_id };
                let unfenced = FenceClient::new(channel).unfence_volume(request).await?.into_inner();
                unfenced.exports.iter().for_each(exports_cli::warn);
                let is_replica =
                    |volume: &VolumeInfo| volume.role() == VolumeRole::Secondary && volume.mirror.is_none();
                if unfenced.volume.as_ref().is_some_and(is_replica) {
                    eprintln!(
                        "warning: this copy is a secondary: what NFS clients write to it now is undone by the next sync"
                    );
                }
                if unfenced.exports.as_ref().is_some_and(|exports| !exports.edited.is_empty()) {
                    return Ok(Done::Unsettled(unfenced.volume));
                }
                unfenced.volume
            }
            Self::Resync { .. } => agent.resync(ResyncRequest { volume_id }).await?.into_inner().volume,
            Self::Enable(_) | Self::Info { .. } => {
                agent.get_info(GetInfoRequest { volume_id, local_only: false, spec: None }).await?.into_inner().volume
            }
        };
        Ok(Done::Now(now))
    }
}

/// As `drover status` shows ids.
const ID_CHARS_MIN: usize = 8;

/// The id of the volume that the user means. A whole id may be one that the agent can't open.
pub(crate) async fn resolve(channel: Channel, wanted: &str) -> Result<String, VolumeCliError> {
    if wanted.parse::<VolumeId>().is_ok() {
        return Ok(wanted.to_owned());
    }
    let node = NodeClient::new(channel.clone()).get_info(NodeGetInfoRequest {}).await?.into_inner();
    let of_ceph = || node.ceph.iter().flat_map(|ceph| &ceph.volume_ids);
    let ids = || node.roots.iter().flat_map(|root| &root.volume_ids).chain(of_ceph());
    // Fewer characters may be a slip, or an empty variable of a script.
    let is_id = wanted.len() >= ID_CHARS_MIN;
    let mut found: Vec<String> = ids().filter(|id| is_id && id.starts_with(wanted)).cloned().collect();
    if found.is_empty() {
        let mut agent = ReplicationClient::new(channel);
        for id in ids() {
            let info = agent
                .get_info(GetInfoRequest { volume_id: id.clone(), local_only: true, spec: None })
                .await?
                .into_inner()
                .volume;
            if info.as_ref().and_then(path).is_some_and(|path| path == wanted.trim_end_matches('/')) {
                found.push(id.clone());
            }
        }
    }
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => {
            let of_ceph = node.ceph.iter().map(|ceph| &ceph.problem).filter(|problem| !problem.is_empty());
            let of_roots = node.roots.iter().flat_map(|root| &root.problems);
            let problems = of_roots.chain(of_ceph).cloned().collect();
            Err(VolumeCliError::NoSuchVolume { wanted: wanted.to_owned(), problems })
        }
        _ => Err(VolumeCliError::Ambiguous { wanted: wanted.to_owned(), found: found.join(", ") }),
    }
}

/// `ROOT/PATH`
pub(crate) fn path(info: &VolumeInfo) -> Option<String> {
    match info.spec.as_ref()?.kind.as_ref()? {
        v1::volume_spec::Kind::Directory(directory) => Some(format!("{}/{}", directory.root, directory.path)),
        v1::volume_spec::Kind::BlockFile(file) => Some(format!("{}/{}", file.root, file.path)),
        v1::volume_spec::Kind::ImageFile(file) => Some(format!("{}/{}", file.root, file.path)),
        v1::volume_spec::Kind::RbdImage(image) => {
            let parts = [&image.cluster, &image.pool, &image.namespace, &image.image];
            let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).map(String::as_str).collect();
            Some(parts.join("/"))
        }
    }
}

impl EnableArgs {
    /// Root and path.
    fn place(&self, config: &Config) -> Result<(String, String), VolumeCliError> {
        let Some(file) = &self.pv else {
            return Ok((self.root.clone().unwrap_or_default(), self.path.clone().unwrap_or_default()));
        };
        let failed =
            |source| VolumeCliError::File { what: "a PersistentVolume can't be read from", path: file.clone(), source };
        let text = read_text(file).map_err(failed)?;
        let (name, place) = pv::place_of(&text).map_err(|source| VolumeCliError::Pv { path: file.clone(), source })?;
        let found = pv::beneath(&config.roots, &name, &place);
        let (root, path) = found.map_err(|source| VolumeCliError::Pv { path: file.clone(), source })?;
        let at = config.roots.iter().find(|it| it.name == root).map(|it| it.path.join(&path));
        let archived = at.filter(|at| !at.exists()).and_then(|at| {
            let archived = at.with_file_name(format!("archived-{}", at.file_name()?.to_str()?));
            archived.exists().then_some(archived)
        });
        match archived {
            Some(archived) if matches!(self.role, RoleArg::Primary) => Err(VolumeCliError::Archived { name, archived }),
            _ => Ok((root, path)),
        }
    }

    fn request(&self, (root, path): (String, String)) -> EnableRequest {
        let kind = match self.kind {
            KindArg::Directory => v1::volume_spec::Kind::Directory(v1::Directory { root, path }),
            KindArg::BlockFile => v1::volume_spec::Kind::BlockFile(v1::BlockFile { root, path }),
            KindArg::ImageFile => v1::volume_spec::Kind::ImageFile(v1::ImageFile { root, path }),
            KindArg::RbdImage => v1::volume_spec::Kind::RbdImage(image(root, &path)),
            KindArg::RbdDelta => {
                let replication = v1::RbdReplication::Delta.into();
                v1::volume_spec::Kind::RbdImage(v1::RbdImage { replication, ..image(root, &path) })
            }
        };
        let role = match self.role {
            RoleArg::Primary => VolumeRole::Primary,
            RoleArg::Secondary => VolumeRole::Secondary,
        };
        EnableRequest {
            volume_id: self.id.unwrap_or_else(VolumeId::random).to_string(),
            spec: Some(VolumeSpec { kind: Some(kind) }),
            role: role.into(),
            peer: self.peer.clone(),
            retain: self.retain,
            retain_seconds: self.retain_hours.map(|hours| u64::from(hours) * 3600),
            adopt: self.adopt,
            waive: self.waive.clone(),
            group: self.group.clone(),
            point_every_seconds: self.every.map(|every| every.as_secs()),
            flatten: self.flatten,
        }
    }
}

/// `-` is standard input.
pub(crate) fn read_text(path: &Path) -> io::Result<String> {
    match path.to_str() {
        Some("-") => io::read_to_string(io::stdin()),
        _ => fs::read_to_string(path),
    }
}

/// As `90s`, `5m`, `1h 30m`.
fn seconds(text: &str) -> Result<Duration, String> {
    let time: jiff::SignedDuration = text.parse().map_err(|error: jiff::Error| error.to_string())?;
    let time = Duration::try_from(time).map_err(|_| "it is negative".to_owned())?;
    if time.subsec_nanos() == 0 { Ok(time) } else { Err("whole seconds, please".to_owned()) }
}

/// `POOL/IMAGE` or `POOL/NAMESPACE/IMAGE`; what is neither is refused by the agent.
fn image(cluster: String, path: &str) -> v1::RbdImage {
    let (pool, rest) = path.split_once('/').unwrap_or((path, ""));
    let (namespace, image) = rest.split_once('/').unwrap_or(("", rest));
    let (pool, namespace, image) = (pool.to_owned(), namespace.to_owned(), image.to_owned());
    v1::RbdImage { cluster, pool, namespace, image, ..v1::RbdImage::default() }
}

/// Points that a promoted copy's users end by their first write.
async fn warn_of_points(channel: Channel, volume_id: &str) {
    let request = ListRestorePointsRequest { volume_id: volume_id.to_owned() };
    // An image has none of these; any other trouble the promotion tells as well.
    let Ok(listed) = SyncClient::new(channel).list_restore_points(request).await else { return };
    let listed = listed.into_inner();
    let on_copy: Vec<_> = listed.points.iter().filter(|it| it.on_copy).filter_map(|it| it.point.as_ref()).collect();
    if !on_copy.is_empty() {
        let ids = on_copy.iter().map(|point| point.id.as_str()).collect::<Vec<_>>().join(", ");
        eprintln!(
            "warning: points {ids} are kept as differences from this copy and end with the first write to it; export what you \
             need of them before it is used (drover-agent points export)"
        );
    }
}

/// What stands on stdout: the volume as it is now, one fact a line, so that a script can read the id.
enum Done {
    Now(Option<VolumeInfo>),
    Enabled(Option<VolumeInfo>),
    Fenced(Option<VolumeInfo>),
    /// Something is left for the caller.
    Unsettled(Option<VolumeInfo>),
    Disabled(String),
}

impl Done {
    fn exit(&self) -> Exit {
        match self {
            Self::Fenced(Some(info)) if info.export_fence.as_ref().is_some_and(|fence| !fence.proved) => {
                Exit::Discrepancy
            }
            Self::Unsettled(_) => Exit::Discrepancy,
            _ => Exit::Ok,
        }
    }
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disabled(volume) => writeln!(f, "volume {volume}\ndisabled"),
            Self::Now(info) | Self::Enabled(info) | Self::Fenced(info) | Self::Unsettled(info) => {
                info.as_ref().map_or(Ok(()), |info| show(info, f))
            }
        }
    }
}

fn show(info: &VolumeInfo, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "volume {}", info.volume_id)?;
    if let Some(path) = path(info) {
        writeln!(f, "path   {path}")?;
    }
    let role = match info.role() {
        VolumeRole::Primary => "primary",
        VolumeRole::Secondary => "secondary",
        VolumeRole::Unspecified => "unknown",
    };
    writeln!(f, "role   {role}")?;
    if let Some(peer) = &info.peer {
        writeln!(f, "peer   {peer}")?;
    }
    match &info.mirror {
        Some(mirror) => show_mirror(mirror, f)?,
        None => show_points(info, f)?,
    }
    info.export_fence.as_ref().map_or(Ok(()), |fence| exports_cli::show_fence(fence, f))?;
    // The fence has said why.
    let is_said = |why: &&String| !(info.export_fence.is_some() && why.starts_with("it is not proved"));
    info.health_because.iter().filter(is_said).try_for_each(|why| writeln!(f, "note   {why}"))
}

fn show_points(info: &VolumeInfo, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let point = info.newest.as_ref().map_or("none", |point| point.id.as_str());
    writeln!(f, "epoch  {}\nnewest {point}\nkeeps  {} points besides", info.epoch, info.retain)?;
    if info.retain_seconds > 0 {
        writeln!(f, "       and all of the last {} hours", info.retain_seconds / 3600)?;
    }
    Ok(())
}

fn show_mirror(mirror: &v1::RbdMirror, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if !mirror.group.is_empty() {
        writeln!(f, "group  {}", mirror.group)?;
    }
    if mirror.point_every_seconds > 0 {
        writeln!(f, "points every {} s", mirror.point_every_seconds)?;
    }
    mirror.fenced.iter().try_for_each(|address| writeln!(f, "fenced {address}"))?;
    for user in &mirror.users {
        let writes = match (user.lock_owner, user.cut_off) {
            (true, _) => " and writes",
            (false, true) => ", has the lock and is not heard of: dead, or cut off",
            (false, false) => ", maybe rbd-mirror",
        };
        writeln!(f, "open   at {}{writes}", user.address)?;
    }
    if let Some(turn) = &mirror.turn {
        let verb = turn.verb().as_str_name().trim_start_matches("RBD_VERB_").to_lowercase();
        let state = if turn.ended { " (left something for the next verb)" } else { " is under way" };
        writeln!(f, "verb   {verb} by {}{state}", turn.agent)?;
    }
    for point in &mirror.points {
        let is_here = if point.whole { "" } else { " (not all of it is here)" };
        writeln!(f, "point  {}{is_here}", point.number)?;
    }
    if let Some(sync) = &mirror.sync {
        let left = sync.seconds_left.map_or_else(String::new, |left| format!(", about {left} s left"));
        writeln!(f, "sync   {} % has arrived{left}", sync.percent)?;
    }
    match (&mirror.promote_unsafe, &mirror.promote_forced_ends) {
        (Some(why), Some(ends)) => writeln!(f, "promotion is not safe: {why}; by force it would end {ends}"),
        (None, Some(_)) => writeln!(f, "promotion would lose nothing"),
        _ => Ok(()),
    }
}
