//! What a worker is asked, and what it answers.

use std::{path::PathBuf, time::Duration};

use drover_engine::error::Kind;
use drover_librbd::ErrorKind;
use serde::{Deserialize, Serialize};

use crate::{
    data::DataRequest,
    pool::{PoolPlace, PoolView, Token},
    view::{ContentView, ImagePlace, ImageView, SiteView, UserView},
};

/// The first message to a worker: which cluster it works on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connect {
    /// `ceph.conf`.
    pub conf: PathBuf,
    /// `client.NAME`.
    pub user: String,
    /// By default the one that the configuration names.
    pub keyring: Option<PathBuf>,
    /// Of librados, for each of its round trips: below the deadline of the call, so that an answer comes before the worker is killed.
    pub timeout: Duration,
}

/// What a worker says of itself once it is connected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connected {
    pub fsid: String,
    /// As the cluster sees it: what is blocklisted when the worker was killed.
    pub address: String,
    /// Of the librbd that was loaded, as `1.16.0`.
    pub rbd_version: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Whether the cluster answers.
    Check,
    /// Content is moved: see `crate::data`.
    Data(DataRequest),
    /// Reads.
    Look(ImagePlace),
    LookAtSites(ImagePlace),
    LookAtUsers(ImagePlace),
    /// Images of the pool and namespace of `place` that a client has open for writing.
    ImagesOf {
        place: ImagePlace,
        address: String,
    },
    /// Addresses of clients that are shut out of the cluster, and until when. Replies with a record.
    Blocklisted,
    /// Replies with what a sync of the image's content must know.
    LookAtContent(ImagePlace),
    /// Keys and values of an omap object; empty where there is none.
    ReadRecord {
        pool: String,
        namespace: String,
        object: String,
    },
    /// As ReadRecord, of one key.
    ReadKey {
        pool: String,
        namespace: String,
        object: String,
        key: String,
    },
    /// Schedules of the mgr that reach this image.
    Schedules(ImagePlace),
    LookAtPool(PoolPlace),
    /// Changes. Each one is one call of librbd that changes something.
    /// The worker keeps the image open for the calls that follow.
    Hold(ImagePlace),
    /// No other client can write to the image that it holds until it lets go.
    KeepOthersOut(ImagePlace),
    /// Of what it holds, if anything.
    LetGo,
    /// Has Ceph-CSI's journal name the image that has this name now. Replies whether it named another one.
    RepairCsi(ImagePlace),
    /// One of the image alone.
    RemoveSchedule {
        place: ImagePlace,
        interval: String,
    },
    /// Of all agents, the one with this name leads in the pool for so long, unless another one does. Replies whether it does.
    Lead {
        pool: String,
        namespace: String,
        name: String,
        time: Duration,
    },
    EnableMirroring(ImagePlace),
    /// Replies with the image's size at it.
    TakeSnapshot {
        place: ImagePlace,
        name: String,
    },
    /// Replies with the id of the mirror snapshot.
    TakeMirrorSnapshot(ImagePlace),
    /// Without force librbd looks at the local image alone; by force in the middle of a sync it may crash, or lose what had arrived.
    Promote {
        place: ImagePlace,
        force: bool,
    },
    Demote(ImagePlace),
    /// rbd-mirror then deletes the peer's copy, unless that is primary.
    DisableMirroring {
        place: ImagePlace,
        force: bool,
    },
    /// One snapshot of several images at one moment: all of it, in several calls. Replies with its name.
    Cut(Cut),
    /// The image is cut with the group no more. `homes`: pools that may have it.
    LeaveGroup {
        place: ImagePlace,
        group: String,
        homes: Vec<String>,
    },
    RemoveSnapshot {
        place: ImagePlace,
        id: u64,
    },
    /// Makes an image named `child` beside `place` that is a clone of its user snapshot. NotFound: no such image or snapshot.
    Clone {
        place: ImagePlace,
        snapshot: String,
        child: String,
    },
    SetMetadata {
        place: ImagePlace,
        key: String,
        value: String,
    },
    /// Of an image by its id, in the pool and namespace of `place`: whether librbd takes it for a secondary. One that is not can be renamed.
    MarkNonPrimary {
        place: ImagePlace,
        image_id: String,
        is_non_primary: bool,
    },
    /// Copies what a clone has of its parent. Invalid: it is no clone (any more).
    Flatten(ImagePlace),
    /// Of so many bytes, all zero, with objects of 2^order bytes. Exists: the name is taken.
    Create {
        place: ImagePlace,
        size_bytes: u64,
        order: u8,
    },
    /// An image that was begun and never used. Refused (Exists) where it has a snapshot or is mirrored.
    RemoveUnused(ImagePlace),
    /// Within its pool and namespace.
    Rename {
        place: ImagePlace,
        to: String,
    },
    WriteRecord {
        pool: String,
        namespace: String,
        object: String,
        key: String,
        value: Option<String>,
    },
    /// As one step, if the image's key has this value now. `None`: it is missing. Replies whether it was done.
    ExchangeRecord {
        place: ImagePlace,
        object: String,
        expected: Option<String>,
        value: Option<String>,
    },
    Blocklist {
        address: String,
        time: Duration,
    },
    /// A client, of the image: returns once the OSDs of its pool know.
    ShutOut {
        place: ImagePlace,
        address: String,
        time: Duration,
    },
    /// Of images in the trash whose time there is over: Drover's snapshots, without which they can be purged. Replies how many went.
    PruneTrash {
        place: PoolPlace,
        rest: Duration,
    },
    SetPoolMode {
        place: PoolPlace,
        is_enabled: bool,
    },
    /// Of the whole cluster.
    SetSiteName(String),
    CreatePeerToken(PoolPlace),
    ImportPeerToken {
        place: PoolPlace,
        token: Token,
        /// Both sites receive from each other.
        is_both: bool,
    },
    RemovePeer {
        place: PoolPlace,
        uuid: String,
    },
    /// One that is not on the list is let in, too.
    Unblocklist {
        address: String,
    },
    /// Of the owner with this address; nothing where another one, or nobody, has it.
    BreakLock {
        place: ImagePlace,
        address: String,
    },
}

/// Of a group of images, all of one namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    pub group: String,
    /// In one order at all agents.
    pub members: Vec<ImagePlace>,
    /// The highest number that each of these has used: a snapshot of a higher one waits to be synced.
    pub known: Vec<u64>,
    /// Number of the newest point that all of them have, or 0.
    pub common: u64,
    /// Pools that may have the group.
    pub homes: Vec<String>,
    /// One of them. A snapshot of the group that it has, of this number or a higher one, is as good as a new one.
    pub of: ImagePlace,
    pub serves: u64,
    /// A new one gets this number or a higher one.
    pub number: u64,
    pub now_unix_secs: i64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    Done,
    Image(Box<ImageView>),
    Content(ContentView),
    Sites(Vec<SiteView>),
    Record(Vec<(String, String)>),
    Snapshot(u64),
    /// The name of a snapshot.
    Taken(String),
    /// None was taken: this image is too far behind.
    Behind(ImagePlace),
    /// Nor now: another agent is at it.
    Contended,
    /// In bytes.
    Size(u64),
    Users(Vec<UserView>),
    Exchanged(bool),
    Leads(bool),
    Repaired(bool),
    Images(Vec<ImagePlace>),
    Schedules(Vec<Schedule>),
    Pool(Box<PoolView>),
    Token(Token),
    Gone(usize),
}

/// A schedule of the mgr, which takes no snapshot of its own before a mirror snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// What it is set for: a pool with a slash at its end, an image, or all pools (empty).
    pub level: String,
    /// As `5m`.
    pub interval: String,
}

/// A call that failed, or a cluster that could not be reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The function of C, or what was done.
    pub call: String,
    pub kind: FailureKind,
    pub message: String,
}

/// As `drover_librbd::ErrorKind`, whose meaning for each call is documented there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    NotFound,
    Exists,
    Busy,
    ReadOnly,
    TimedOut,
    Blocklisted,
    Invalid,
    Permission,
    Other,
}

impl Failure {
    /// What the caller of a verb may do about it.
    pub fn engine_kind(&self) -> Kind {
        match self.kind {
            FailureKind::NotFound => Kind::NotFound,
            FailureKind::Exists => Kind::Exists,
            FailureKind::Busy | FailureKind::ReadOnly | FailureKind::Invalid => Kind::Precondition,
            FailureKind::TimedOut => Kind::TimedOut,
            FailureKind::Blocklisted => Kind::Unavailable,
            FailureKind::Permission => Kind::Denied,
            FailureKind::Other => Kind::Storage,
        }
    }
}

impl From<drover_librbd::Error> for Failure {
    fn from(error: drover_librbd::Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::NotFound => FailureKind::NotFound,
            ErrorKind::Exists | ErrorKind::NotEmpty => FailureKind::Exists,
            ErrorKind::Busy => FailureKind::Busy,
            ErrorKind::ReadOnly => FailureKind::ReadOnly,
            ErrorKind::TimedOut => FailureKind::TimedOut,
            ErrorKind::Blocklisted => FailureKind::Blocklisted,
            ErrorKind::Invalid => FailureKind::Invalid,
            ErrorKind::Permission => FailureKind::Permission,
            ErrorKind::OutOfRange | ErrorKind::Other => FailureKind::Other,
        };
        Self { call: error.call.to_owned(), kind, message: error.to_string() }
    }
}

impl From<drover_librbd::CommandError> for Failure {
    /// With what the cluster says in words.
    fn from(error: drover_librbd::CommandError) -> Self {
        Self { message: error.to_string(), ..Self::from(error.error) }
    }
}

impl Request {
    /// The image that it is about.
    pub fn place(&self) -> Option<&ImagePlace> {
        match self {
            Self::Look(place)
            | Self::LookAtSites(place)
            | Self::LookAtUsers(place)
            | Self::ImagesOf { place, .. }
            | Self::BreakLock { place, .. }
            | Self::ShutOut { place, .. }
            | Self::Schedules(place)
            | Self::EnableMirroring(place)
            | Self::RepairCsi(place)
            | Self::RemoveSchedule { place, .. }
            | Self::TakeSnapshot { place, .. }
            | Self::TakeMirrorSnapshot(place)
            | Self::Promote { place, .. }
            | Self::Demote(place)
            | Self::DisableMirroring { place, .. }
            | Self::RemoveSnapshot { place, .. }
            | Self::LeaveGroup { place, .. }
            | Self::Clone { place, .. }
            | Self::SetMetadata { place, .. }
            | Self::MarkNonPrimary { place, .. }
            | Self::Flatten(place)
            | Self::RemoveUnused(place)
            | Self::Hold(place)
            | Self::KeepOthersOut(place)
            | Self::LookAtContent(place)
            | Self::Create { place, .. }
            | Self::Rename { place, .. }
            | Self::ExchangeRecord { place, .. } => Some(place),
            Self::Data(request) => Some(request.place()),
            Self::Cut(cut) => Some(&cut.of),
            Self::Check
            | Self::LetGo
            | Self::ReadRecord { .. }
            | Self::ReadKey { .. }
            | Self::WriteRecord { .. }
            | Self::Lead { .. }
            | Self::Blocklisted
            | Self::LookAtPool(_)
            | Self::PruneTrash { .. }
            | Self::SetPoolMode { .. }
            | Self::SetSiteName(_)
            | Self::CreatePeerToken(_)
            | Self::ImportPeerToken { .. }
            | Self::RemovePeer { .. }
            | Self::Unblocklist { .. }
            | Self::Blocklist { .. } => None,
        }
    }

    /// Whether a worker that is killed over it may have changed something.
    pub fn changes(&self) -> bool {
        if let Self::Data(request) = self {
            return request.changes();
        }
        !matches!(
            self,
            Self::Check
                | Self::Look(_)
                | Self::LookAtSites(_)
                | Self::LookAtContent(_)
                | Self::ImagesOf { .. }
                | Self::Blocklisted
                | Self::LookAtUsers(_)
                | Self::ReadRecord { .. }
                | Self::ReadKey { .. }
                | Self::Schedules(_)
                | Self::LookAtPool(_)
                // It ends by itself, and what is done by it is done in turns.
                | Self::Lead { .. }
        )
    }
}
