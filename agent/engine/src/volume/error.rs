use std::io;

use crate::{
    beside::BesideError,
    control::Cancelled,
    error::Kind,
    id::VolumeId,
    path::RelPath,
    point::{PointId, StateError, Superseded, Unsafe},
    record::RecordError,
    scan::ScanError,
    transaction::{CommitError, LoadManifestError},
};

#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error("volume {0} is not on this root")]
    NotFound(VolumeId),
    #[error("volume {volume} is busy with {with}; wait for it, or cancel it")]
    Busy { volume: VolumeId, with: &'static str },
    #[error(
        "volume {volume} was lost with an unfinished commit; put its directory back, so that recovery can finish it, or \
         move {beside} away by hand: it holds contents that are nowhere else"
    )]
    CommitOpen { volume: VolumeId, beside: String },
    #[error("{path} of the volume can't be opened")]
    Tree {
        path: RelPath,
        #[source]
        source: io::Error,
    },
    #[error(
        "{path} is not the directory that volume {volume} was enabled on (it was replaced, or another file system is \
         mounted); put the old one back, or disable the volume and enable it again"
    )]
    NotTheMarkedTree { volume: VolumeId, path: RelPath },
    #[error("{path} is another device than the one that was enabled: that was {expected:?}, this is {found:?}")]
    OtherDevice { path: RelPath, expected: String, found: String },
    #[error(
        "device {path} can't be told from others (it has no WWN, UUID or serial number); waive it as `device-identity` if its name is certain"
    )]
    NoIdentity { path: RelPath },
    #[error("device {path} has {have} bytes and the other copy {want}: a replica must be as large as its primary")]
    DeviceSize { path: RelPath, have: u64, want: u64 },
    #[error(
        "device {path} is in use, and a replica is written to by Drover alone; unmount it, or detach what is built on it"
    )]
    DeviceBusy { path: RelPath },
    #[error(
        "image {path} is open for writing elsewhere (a guest, a loop device, a mount), and what that writes from now on would be lost; stop it first"
    )]
    ImageBusy { path: RelPath },
    #[error("snapshot of volume {volume}: {problem}")]
    Snapshot { volume: VolumeId, problem: String },
    #[error("{path} can't be a volume: {problem}")]
    Unsuitable { path: RelPath, problem: &'static str },
    #[error("{path} and staging are not on one file system: {source}")]
    NoRename { path: RelPath, source: io::Error },
    #[error("{path} belongs to volume {other} already")]
    Taken { path: RelPath, other: VolumeId },
    #[error("volume {volume} exists with path {path} and role {role}")]
    Different { volume: VolumeId, path: RelPath, role: crate::point::Role },
    #[error(
        "{path} is not empty; adopt what is there (it is kept as a restore point), or clear it or choose another one"
    )]
    NotEmpty { path: RelPath },
    #[error("this process lacks {missing}, so it can't make faithful copies; grant them or waive them by name")]
    MissingCapabilities { missing: String },
    #[error("state of volume {volume}")]
    State {
        volume: VolumeId,
        #[source]
        source: RecordError,
    },
    #[error("storage of volume {volume}")]
    Storage {
        volume: VolumeId,
        #[source]
        source: io::Error,
    },
    #[error("volume {volume}: {source}")]
    Refused { volume: VolumeId, source: StateError },
    #[error("a promotion of volume {volume} is not safe: {why}")]
    PromoteUnsafe { volume: VolumeId, why: Unsafe },
    #[error(
        "volume {volume} is primary at {} since a promotion there (epoch {}): this copy is no source any more. Demote it by force, ask for a resync (what it holds is kept as a restore point), and sync from there",
        by.by, by.epoch
    )]
    Superseded { volume: VolumeId, by: Superseded },
    #[error("volume {0} is primary here: demote it before it can be synced again")]
    PrimaryCantResync(VolumeId),
    #[error("volume {0} is primary here: demote it before it is rolled back")]
    PrimaryCantRollBack(VolumeId),
    #[error("volume {0} is primary here: only a secondary goes to the trash")]
    PrimaryCantBeTrashed(VolumeId),
    #[error(
        "point {point} is not whole any more: the content of {path} and {others} more was destroyed by another process"
    )]
    Incomplete { point: PointId, path: RelPath, others: usize },
    #[error("volume {0} is a directory: name a file in it")]
    NoFileNamed(VolumeId),
    #[error("point {point} has no file {path}")]
    NoSuchFile { point: PointId, path: RelPath },
    #[error(
        "what volume {volume} holds is not its newest point {newest}: it was written to since, and a demotion would leave that behind"
    )]
    NotSynced { volume: VolumeId, newest: PointId },
    #[error("{unreadable} entries of this copy can't be read, the first is {path}")]
    Unreadable {
        path: RelPath,
        unreadable: usize,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Beside(#[from] BesideError),
    #[error(transparent)]
    Scan(#[from] ScanError),
    #[error(transparent)]
    Manifest(#[from] LoadManifestError),
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

pub(crate) fn scan_kind(error: &ScanError) -> Kind {
    match error {
        ScanError::Cancelled(_) => Kind::Cancelled,
        ScanError::MountPoint { .. } => Kind::Precondition,
        ScanError::Tree(_) => Kind::Internal,
        ScanError::Root(_) | ScanError::Clock(_) | ScanError::Fault(_) => Kind::Storage,
    }
}

pub(crate) fn scan_reason(error: &ScanError) -> &'static str {
    match error {
        ScanError::Cancelled(_) => "cancelled",
        ScanError::MountPoint { .. } => "mount-point-inside",
        ScanError::Tree(_) => "internal",
        ScanError::Root(_) | ScanError::Clock(_) | ScanError::Fault(_) => "io-error",
    }
}

impl VolumeError {
    pub fn kind(&self) -> Kind {
        match self {
            Self::NotFound(_) => Kind::NotFound,
            Self::Busy { .. } => Kind::Unavailable,
            Self::Tree { source, .. } if drover_linux::is_gone(source) => Kind::Precondition,
            Self::Tree { .. } | Self::Storage { .. } | Self::Unreadable { .. } | Self::Snapshot { .. } => Kind::Storage,
            Self::Unsuitable { .. } => Kind::Invalid,
            Self::Taken { .. } | Self::Different { .. } => Kind::Exists,
            Self::NotTheMarkedTree { .. }
            | Self::OtherDevice { .. }
            | Self::NoIdentity { .. }
            | Self::DeviceSize { .. }
            | Self::DeviceBusy { .. }
            | Self::ImageBusy { .. }
            | Self::CommitOpen { .. }
            | Self::NoRename { .. }
            | Self::NotEmpty { .. }
            | Self::MissingCapabilities { .. }
            | Self::Refused { source: StateError::NeverSynced, .. }
            | Self::PrimaryCantResync(_)
            | Self::PrimaryCantRollBack(_)
            | Self::PrimaryCantBeTrashed(_)
            | Self::Superseded { .. }
            | Self::NotSynced { .. } => Kind::Precondition,
            Self::PromoteUnsafe { why, .. } => why.kind(),
            Self::Refused { source: StateError::NoSuchPoint(_), .. } => Kind::NotFound,
            Self::State { source, .. } => source.kind(),
            Self::Incomplete { .. } | Self::Manifest(_) => Kind::DataLoss,
            Self::NoFileNamed(_) => Kind::Invalid,
            Self::NoSuchFile { .. } => Kind::NotFound,
            Self::Beside(error) => error.kind(),
            Self::Scan(error) => scan_kind(error),
            Self::Commit(error) => error.kind(),
            Self::Cancelled(_) => Kind::Cancelled,
        }
    }

    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "no-such-volume",
            Self::Busy { .. } => "volume-busy",
            Self::CommitOpen { .. } => "commit-open",
            Self::Tree { .. } => "tree-unusable",
            Self::NotTheMarkedTree { .. } => "not-the-marked-tree",
            Self::OtherDevice { .. } => "other-device",
            Self::NoIdentity { .. } => "device-without-identity",
            Self::DeviceSize { .. } => "device-size",
            Self::DeviceBusy { .. } => "device-busy",
            Self::ImageBusy { .. } => "image-busy",
            Self::Snapshot { .. } => "snapshot-failed",
            Self::Unsuitable { .. } => "unsuitable-path",
            Self::NoRename { .. } => "staging-on-other-filesystem",
            Self::Taken { .. } => "path-taken",
            Self::Different { .. } => "volume-differs",
            Self::NotEmpty { .. } => "replica-not-empty",
            Self::MissingCapabilities { .. } => "missing-capabilities",
            Self::State { .. } => "state-damaged",
            Self::Storage { .. } | Self::Unreadable { .. } => "io-error",
            Self::Refused { source: StateError::NeverSynced, .. } => "never-synced",
            Self::Refused { source: StateError::NoSuchPoint(_), .. } => "no-such-point",
            Self::PrimaryCantResync(_) | Self::PrimaryCantRollBack(_) | Self::PrimaryCantBeTrashed(_) => "is-primary",
            Self::PromoteUnsafe { why, .. } => why.reason(),
            Self::NotSynced { .. } => "not-synced",
            Self::Superseded { .. } => "superseded",
            Self::Incomplete { .. } => "point-incomplete",
            Self::NoFileNamed(_) => "no-file-named",
            Self::NoSuchFile { .. } => "no-such-file",
            Self::Manifest(_) => "manifest-damaged",
            Self::Beside(error) => error.reason(),
            Self::Scan(error) => scan_reason(error),
            Self::Commit(error) => error.reason(),
            Self::Cancelled(_) => "cancelled",
        }
    }
}
