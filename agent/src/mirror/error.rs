//! What a caller may do about an error of an image.

use drover_engine::{error::Kind, id::VolumeId};
use drover_rbd::{
    crew::CallError,
    group::GroupError,
    image::VerbError,
    pool::{PoolError, PoolPlace},
    request::{Failure, FailureKind},
    verdict::Unsafe,
    view::ImagePlace,
};

#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    #[error("no ceph {name:?} in the configuration; there are: {known}")]
    NoSuchCluster { name: String, known: String },
    #[error(
        "{place} is in no pool that the configuration of ceph {cluster} lists: add the pool, or POOL/NAMESPACE, to `pools`"
    )]
    PoolNotConfigured { cluster: String, place: ImagePlace },
    #[error("{place} is no pool that the configuration of ceph {cluster} lists: add it to `pools`")]
    NoSuchPool { cluster: String, place: PoolPlace },
    #[error("volume {id} is image {image} already")]
    Other { id: VolumeId, image: ImagePlace },
    #[error("image {0} is primary here: demote it, or enable it as the primary")]
    IsPrimary(ImagePlace),
    #[error("image {place} belongs to group {group}: use the group's verb, or say that you mean this image alone")]
    InGroup { place: ImagePlace, group: String },
    #[error(
        "group {group} is of ceph {cluster}: an image of another cluster can't be promoted together with its images"
    )]
    GroupElsewhere { group: String, cluster: String },
    #[error("no image of this agent's clusters is in group {0:?}: enable each with --group, at both agents")]
    NoGroup(String),
    #[error(transparent)]
    Pool(#[from] PoolError),
    #[error(transparent)]
    Group(#[from] GroupError),
    #[error(transparent)]
    Verb(#[from] VerbError),
}

impl From<CallError> for MirrorError {
    fn from(error: CallError) -> Self {
        Self::Verb(error.into())
    }
}

impl MirrorError {
    pub fn kind(&self) -> Kind {
        match self {
            Self::NoSuchCluster { .. } | Self::PoolNotConfigured { .. } | Self::NoSuchPool { .. } => Kind::Invalid,
            Self::Other { .. } => Kind::Exists,
            Self::IsPrimary(_) | Self::InGroup { .. } | Self::GroupElsewhere { .. } => Kind::Precondition,
            Self::NoGroup(_) => Kind::NotFound,
            Self::Group(error) => match error {
                // Where one did not end in its time, that is why the others could not.
                GroupError::Refused { failures, .. } | GroupError::Partly { failures, .. } => {
                    let kinds = || failures.0.iter().map(|(_, error)| kind_of_verb(error));
                    let late = kinds().find(|kind| *kind == Kind::TimedOut);
                    late.or_else(|| kinds().next()).unwrap_or(Kind::Internal)
                }
                GroupError::NoCommonPoint
                | GroupError::Apart
                | GroupError::Begun { .. }
                | GroupError::Members { .. } => Kind::Precondition,
            },
            Self::Pool(error) => match error {
                PoolError::Call(error) => kind_of_call(error),
                PoolError::ModePool(_)
                | PoolError::SiteName { .. }
                | PoolError::Disabled(_)
                | PoolError::Mirrored { .. }
                | PoolError::Peers { .. } => Kind::Precondition,
                PoolError::NoPeersOfNamespace(_) => Kind::Invalid,
                PoolError::Confused => Kind::Internal,
            },
            Self::Verb(error) => kind_of_verb(error),
        }
    }

    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoSuchCluster { .. } => "no-such-ceph",
            Self::PoolNotConfigured { .. } | Self::NoSuchPool { .. } => "pool-not-configured",
            Self::Other { .. } => "other-image",
            Self::IsPrimary(_) => "is-primary",
            Self::InGroup { .. } => "in-group",
            Self::GroupElsewhere { .. } => "group-elsewhere",
            Self::NoGroup(_) => "no-such-group",
            Self::Group(error) => match error {
                GroupError::Refused { failures, .. } => {
                    failures.0.first().map_or("internal", |(_, error)| reason_of_verb(error))
                }
                GroupError::Partly { .. } => "group-half-done",
                GroupError::NoCommonPoint => "no-common-point",
                GroupError::Apart => "group-apart",
                GroupError::Begun { .. } => "group-half-promoted",
                GroupError::Members { .. } => "group-size",
            },
            Self::Pool(error) => match error {
                PoolError::Call(error) => reason_of_call(error),
                PoolError::ModePool(_) | PoolError::Disabled(_) => "pool-mode",
                PoolError::SiteName { .. } => "site-has-a-name",
                PoolError::Mirrored { .. } | PoolError::Peers { .. } => "pool-in-use",
                PoolError::NoPeersOfNamespace(_) => "pool-of-namespace",
                PoolError::Confused => "internal",
            },
            Self::Verb(error) => reason_of_verb(error),
        }
    }
}

fn kind_of_verb(error: &VerbError) -> Kind {
    match error {
        VerbError::Call(error) => kind_of_call(error),
        VerbError::NoImage { .. } => Kind::NotFound,
        VerbError::Journal(_)
        | VerbError::NotMirrored(_)
        | VerbError::NotPrimary(_)
        | VerbError::PoolMode { .. }
        | VerbError::NoPeer { .. }
        | VerbError::IsClone(_)
        | VerbError::Unsafe { .. }
        | VerbError::InTheMiddle { .. }
        | VerbError::NotWhole { .. }
        | VerbError::DataPool { .. }
        | VerbError::FencedBriefly { .. }
        | VerbError::Settling(_)
        | VerbError::Syncing(_)
        | VerbError::Nothing(_)
        | VerbError::InUse { .. }
        | VerbError::SharedClient { .. }
        | VerbError::StillWritten { .. }
        | VerbError::PeerNeeded { .. }
        | VerbError::LockedByHand(_)
        | VerbError::CopyGoes { .. }
        | VerbError::Changing(_)
        | VerbError::NoLock(_)
        | VerbError::TurnUnknown(_) => Kind::Precondition,
        VerbError::EndedBehind { .. } | VerbError::EndedBeyond { .. } => Kind::DataLoss,
        VerbError::PeerIsChanging { .. } | VerbError::Taken { .. } | VerbError::InVerb(_) | VerbError::TurnLost(_) => {
            Kind::Conflict
        }
        VerbError::NotSeen(_) => Kind::Unavailable,
        VerbError::Confused => Kind::Internal,
    }
}

fn reason_of_verb(error: &VerbError) -> &'static str {
    match error {
        VerbError::Call(error) => reason_of_call(error),
        VerbError::NoImage { .. } => "no-image",
        VerbError::Journal(_) => "journal-mode",
        VerbError::NotMirrored(_) => "not-mirrored",
        VerbError::NotPrimary(_) => "not-primary",
        VerbError::PoolMode { .. } => "pool-mode",
        VerbError::IsClone(_) => "image-is-clone",
        VerbError::NoPeer { .. } => "pool-without-peer",
        VerbError::Unsafe { why: Unsafe::PeerIsChanging(_), .. } | VerbError::PeerIsChanging { .. } => "peer-in-verb",
        VerbError::Unsafe { why: Unsafe::PeerIsPrimary, .. } => "peer-is-primary",
        VerbError::Unsafe { .. } => "promote-unsafe",
        VerbError::InTheMiddle { .. } | VerbError::Syncing(_) => "sync-half-copied",
        VerbError::EndedBehind { .. } | VerbError::EndedBeyond { .. } => "promoted-in-a-sync",
        VerbError::NotWhole { .. } => "point-not-whole",
        VerbError::DataPool { .. } => "image-with-data-pool",
        VerbError::FencedBriefly { .. } => "fenced-briefly",
        VerbError::Settling(_) => "image-settling",
        VerbError::Nothing(_) => "nothing-arrived",
        VerbError::InUse { .. } => "image-in-use",
        VerbError::SharedClient { .. } => "client-shared",
        VerbError::StillWritten { .. } => "still-written",
        VerbError::PeerNeeded { .. } => "peer-needed",
        VerbError::LockedByHand(_) => "image-locked",
        VerbError::Changing(_) => "image-changing",
        VerbError::CopyGoes { .. } => "copy-would-go",
        VerbError::NoLock(_) => "image-without-lock",
        VerbError::Taken { .. } | VerbError::InVerb(_) => "image-in-verb",
        VerbError::TurnLost(_) => "verb-taken-over",
        VerbError::TurnUnknown(_) => "verb-unknown",
        VerbError::NotSeen(_) => "not-seen",
        VerbError::Confused => "internal",
    }
}

fn kind_of_call(error: &CallError) -> Kind {
    match error {
        CallError::Failed { failure, .. } => kind_of_failure(failure),
        CallError::Late { .. } | CallError::Unknown { is_late: true, .. } => Kind::TimedOut,
        CallError::Unreachable { .. } | CallError::Ended { .. } | CallError::Unknown { is_late: false, .. } => {
            Kind::Unavailable
        }
        CallError::Busy { .. } => Kind::Exhausted,
    }
}

fn kind_of_failure(failure: &Failure) -> Kind {
    match failure.kind {
        FailureKind::NotFound => Kind::NotFound,
        FailureKind::Exists => Kind::Exists,
        FailureKind::Busy | FailureKind::ReadOnly | FailureKind::Invalid => Kind::Precondition,
        FailureKind::TimedOut => Kind::TimedOut,
        FailureKind::Blocklisted => Kind::Unavailable,
        FailureKind::Permission => Kind::Denied,
        FailureKind::Other => Kind::Storage,
    }
}

fn reason_of_call(error: &CallError) -> &'static str {
    match error {
        CallError::Failed { failure, .. } => match failure.kind {
            FailureKind::NotFound => "ceph-not-found",
            FailureKind::Exists => "ceph-exists",
            FailureKind::Busy => "ceph-busy",
            FailureKind::ReadOnly => "ceph-read-only",
            FailureKind::TimedOut => "ceph-timed-out",
            FailureKind::Blocklisted => "ceph-blocklisted",
            FailureKind::Invalid => "ceph-invalid",
            FailureKind::Permission => "ceph-not-permitted",
            FailureKind::Other => "ceph-error",
        },
        CallError::Late { .. } => "ceph-timed-out",
        CallError::Unreachable { .. } | CallError::Ended { .. } => "ceph-unreachable",
        CallError::Busy { .. } => "ceph-workers-busy",
        CallError::Unknown { .. } => "outcome-unknown",
    }
}
