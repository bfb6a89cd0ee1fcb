//! What a caller may do about an error of an image.

use drover_engine::{error::Kind, id::VolumeId, session::Failure};
use drover_rbd::{
    crew::CallError,
    group::GroupError,
    image::VerbError,
    pool::{PoolError, PoolPlace},
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
    #[error("image {0} is synced by its changes: disable that volume before it is mirrored")]
    IsDelta(ImagePlace),
    #[error("image {0} is mirrored: disable that volume before it is synced by its changes")]
    IsMirrored(ImagePlace),
    #[error("the agents sync this image: {0}")]
    NotOfDelta(&'static str),
    #[error("image {0} is alone in its group, so there is nothing to cut at one moment: a sync of it makes its points")]
    Alone(ImagePlace),
    #[error("rbd-mirror mirrors this image: {0}")]
    NotOfMirrored(&'static str),
    #[error(transparent)]
    Delta(#[from] Failure),
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
            Self::NotOfDelta(_) | Self::NotOfMirrored(_) => Kind::Invalid,
            Self::Alone(_) => Kind::Precondition,
            Self::Delta(failure) => failure.kind,
            Self::IsDelta(_)
            | Self::IsMirrored(_)
            | Self::IsPrimary(_)
            | Self::InGroup { .. }
            | Self::GroupElsewhere { .. } => Kind::Precondition,
            Self::NoGroup(_) => Kind::NotFound,
            Self::Group(error) => match error {
                // Where one did not end in its time, that is why the others could not.
                GroupError::Refused { failures, .. } | GroupError::Partly { failures, .. } => {
                    let kinds = || failures.0.iter().map(|(_, error)| error.kind());
                    let late = kinds().find(|kind| *kind == Kind::TimedOut);
                    late.or_else(|| kinds().next()).unwrap_or(Kind::Internal)
                }
                GroupError::NoCommonPoint
                | GroupError::Apart
                | GroupError::Begun { .. }
                | GroupError::Members { .. } => Kind::Precondition,
            },
            Self::Pool(error) => match error {
                PoolError::Call(error) => error.kind(),
                PoolError::ModePool(_)
                | PoolError::SiteName { .. }
                | PoolError::Disabled(_)
                | PoolError::Mirrored { .. }
                | PoolError::Peers { .. } => Kind::Precondition,
                PoolError::NoPeersOfNamespace(_) => Kind::Invalid,
                PoolError::Confused => Kind::Internal,
            },
            Self::Verb(error) => error.kind(),
        }
    }

    pub fn reason(&self) -> &str {
        match self {
            Self::NoSuchCluster { .. } => "no-such-ceph",
            Self::PoolNotConfigured { .. } | Self::NoSuchPool { .. } => "pool-not-configured",
            Self::Other { .. } => "other-image",
            Self::IsDelta(_) => "is-delta",
            Self::IsMirrored(_) => "is-mirrored",
            Self::NotOfDelta(_) => "not-of-delta",
            Self::NotOfMirrored(_) => "not-of-mirrored",
            Self::Alone(_) => "group-size",
            Self::Delta(failure) => &failure.reason,
            Self::IsPrimary(_) => "is-primary",
            Self::InGroup { .. } => "in-group",
            Self::GroupElsewhere { .. } => "group-elsewhere",
            Self::NoGroup(_) => "no-such-group",
            Self::Group(error) => match error {
                GroupError::Refused { failures, .. } => {
                    failures.0.first().map_or("internal", |(_, error)| error.reason())
                }
                GroupError::Partly { .. } => "group-half-done",
                GroupError::NoCommonPoint => "no-common-point",
                GroupError::Apart => "group-apart",
                GroupError::Begun { .. } => "group-half-promoted",
                GroupError::Members { .. } => "group-size",
            },
            Self::Pool(error) => match error {
                PoolError::Call(error) => error.reason(),
                PoolError::Disabled(_) => "pool-mode",
                PoolError::ModePool(_) => "pool-mode-journal",
                PoolError::SiteName { .. } => "site-has-a-name",
                PoolError::Mirrored { .. } | PoolError::Peers { .. } => "pool-in-use",
                PoolError::NoPeersOfNamespace(_) => "pool-of-namespace",
                PoolError::Confused => "internal",
            },
            Self::Verb(error) => error.reason(),
        }
    }
}
