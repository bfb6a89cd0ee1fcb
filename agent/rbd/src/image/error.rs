//! Why a verb of an image failed.

use std::time::Duration;

use drover_engine::{
    error::Kind,
    session::{Failure, SessionError},
};

use crate::{
    crew::CallError,
    point::{Point, PointName},
    request::FailureKind,
    verdict::Unsafe,
    view::{ImagePlace, TurnView, UserView, Verb},
};

#[derive(Debug, thiserror::Error)]
pub enum VerbError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("there is no image {place} in cluster {cluster}: create it, or wait for rbd-mirror to copy it here")]
    NoImage { cluster: String, place: ImagePlace },
    #[error(
        "image {0} is mirrored by its journal, for which there are no sync points: disable mirroring and enable it again by snapshots"
    )]
    Journal(ImagePlace),
    #[error("image {0} is not mirrored: enable it first")]
    NotMirrored(ImagePlace),
    #[error("image {0} is not primary here")]
    NotPrimary(ImagePlace),
    #[error(
        "mirroring of pool {pool} can't be used for single images: set its mode to `image` on both sites and add the peer"
    )]
    PoolMode { pool: String },
    #[error(
        "mirror snapshots of pool {pool} go nowhere: it has no peer that receives from here, or none that has called yet"
    )]
    NoPeer { pool: String },
    #[error(
        "image {0} is a clone of an image that is not mirrored: enable that one first, or have what this one has of it copied (flatten)"
    )]
    IsClone(ImagePlace),
    #[error("a promotion of {place} is not safe: {why}{}", by_force(.forced.as_deref()))]
    Unsafe { place: ImagePlace, why: Unsafe, forced: Option<String> },
    #[error(
        "a sync of {place} is half copied: librbd would go back behind the last complete one, and no point of Drover's is whole. Wait for the sync, or copy the snapshot that is complete"
    )]
    InTheMiddle { place: ImagePlace },
    #[error(
        "image {place} is primary, but a sync began in the instant of its promotion: it is behind the last complete one{}. Don't use it: roll it back to that snapshot (`rbd snap rollback`), then promote it again and say to which point (0 if to none)",
        whole(.point)
    )]
    EndedBehind { place: ImagePlace, point: Option<Point> },
    #[error(
        "image {place} is primary, but another sync arrived in the instant of its promotion: it is further than point {} of its group. Don't use it: roll it back to that snapshot (`rbd snap rollback`), then promote it alone again and say to which point, then its group",
        point.name
    )]
    EndedBeyond { place: ImagePlace, point: Point },
    #[error("point {point} of {place} is not whole here any more")]
    NotWhole { place: ImagePlace, point: PointName },
    #[error(
        "image {place} is further than point {point}, and has a data pool of its own, so that no clone can take its place: promote the images one by one"
    )]
    DataPool { place: ImagePlace, point: PointName },
    #[error(
        "client {address} was on the cluster's blocklist before, and is shut out until {until} only: it still has the lock. Make sure that it is dead, or fence again when its time is over"
    )]
    FencedBriefly { address: String, until: String },
    #[error("no sync of {0} has ever arrived whole: a promotion would leave an empty image")]
    Nothing(ImagePlace),
    #[error("image {place} is written by {}: stop that client, or fence it, then try again", addresses(.users))]
    InUse { place: ImagePlace, users: Vec<UserView> },
    #[error(
        "client {address}, which writes to image {place}, has other images open, too: {}; shut out of one it is shut out of all. Say that you mean the whole client",
        named(.others)
    )]
    SharedClient { place: ImagePlace, address: String, others: Vec<ImagePlace> },
    #[error("image {place} is still open at {}, although its writers were shut out: stop what starts them, then try again", addresses(.users))]
    StillWritten { place: ImagePlace, users: Vec<UserView> },
    #[error(
        "mirroring of image {0} is being begun or ended by another hand: wait, or finish it (`rbd mirror image disable --force`)"
    )]
    Changing(ImagePlace),
    #[error("mirroring of {place} goes on: {why}")]
    CopyGoes { place: ImagePlace, why: String },
    #[error(
        "somebody has locked image {0} by hand: `rbd lock ls {0}` says who; remove that lock, or wait until it is gone"
    )]
    LockedByHand(ImagePlace),
    #[error("{what} of {place} needs the peer, and {why}")]
    PeerNeeded { place: ImagePlace, what: Verb, why: String },
    #[error("the peer is in the middle of {turn}; {place} was not changed")]
    PeerIsChanging { place: ImagePlace, turn: TurnView },
    #[error(
        "agent {agent} is in the middle of a {verb} of image {place}; if it is dead, its turn ends in {} s",
        wait.as_secs()
    )]
    Taken { place: ImagePlace, agent: String, verb: Verb, wait: Duration },
    #[error("this agent is in the middle of another verb of image {0}: wait until it has ended")]
    InVerb(ImagePlace),
    #[error(
        "image {0} has no exclusive lock, so nobody can tell who writes to it: `rbd feature enable {0} exclusive-lock`, and have its clients open it anew"
    )]
    NoLock(ImagePlace),
    #[error(
        "image {0} took the place of a half copied one and is being made independent of it: it can be used, and is mirrored within minutes"
    )]
    Settling(ImagePlace),
    #[error("a sync of {0} is half copied: wait until it has arrived, then try again")]
    Syncing(ImagePlace),
    #[error("the worker that kept others out of image {0} was lost, and somebody may have written to it: begin again")]
    LockLost(ImagePlace),
    #[error("another agent has taken image {0} over in the middle of this verb")]
    TurnLost(ImagePlace),
    #[error("what an agent of another release was doing with image {0} is not understood: use that release")]
    TurnUnknown(ImagePlace),
    #[error("librbd said that it changed image {0}, and the image does not show it; look at the cluster's health")]
    NotSeen(ImagePlace),
    #[error(
        "image {0} is mirrored by rbd-mirror: end that (disable it as a mirrored volume) before it is synced by its changes"
    )]
    IsMirrored(ImagePlace),
    #[error(
        "image {0} has content already: give an empty one, or adopt it (what it holds is kept as a restore point, and overwritten where it differs)"
    )]
    NotBlank(ImagePlace),
    #[error("what is known of the volume of image {0} is gone: enable it again")]
    NoVolume(ImagePlace),
    #[error("what an agent of another release knows of the volume of image {0} is not understood: use that release")]
    StateUnknown(ImagePlace),
    #[error(
        "image {place} of group {group} is not primary here, so that the group can't be cut at one moment: promote it, or enable it in no group"
    )]
    GroupApart { group: String, place: ImagePlace },
    #[error(
        "image {place} holds group {group} back: its syncs have brought none of many cuts. Sync it, or disable it at both agents"
    )]
    GroupBehind { group: String, place: ImagePlace },
    #[error("another agent takes a snapshot of group {0}: try again")]
    GroupInCut(String),
    /// Of an image that the agents sync.
    #[error(transparent)]
    Delta(#[from] Failure),
    #[error("a worker answered something else than was asked")]
    Confused,
}

impl VerbError {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Call(error) => error.kind(),
            Self::Delta(failure) => failure.kind,
            Self::NoImage { .. } | Self::NoVolume(_) => Kind::NotFound,
            Self::Journal(_)
            | Self::NotMirrored(_)
            | Self::NotPrimary(_)
            | Self::PoolMode { .. }
            | Self::NoPeer { .. }
            | Self::IsClone(_)
            | Self::Unsafe { .. }
            | Self::InTheMiddle { .. }
            | Self::NotWhole { .. }
            | Self::DataPool { .. }
            | Self::FencedBriefly { .. }
            | Self::Settling(_)
            | Self::Syncing(_)
            | Self::Nothing(_)
            | Self::InUse { .. }
            | Self::SharedClient { .. }
            | Self::StillWritten { .. }
            | Self::PeerNeeded { .. }
            | Self::LockedByHand(_)
            | Self::CopyGoes { .. }
            | Self::Changing(_)
            | Self::NoLock(_)
            | Self::IsMirrored(_)
            | Self::NotBlank(_)
            | Self::StateUnknown(_)
            | Self::GroupApart { .. }
            | Self::GroupBehind { .. }
            | Self::TurnUnknown(_) => Kind::Precondition,
            Self::EndedBehind { .. } | Self::EndedBeyond { .. } => Kind::DataLoss,
            Self::PeerIsChanging { .. }
            | Self::Taken { .. }
            | Self::InVerb(_)
            | Self::GroupInCut(_)
            | Self::TurnLost(_) => Kind::Conflict,
            Self::NotSeen(_) | Self::LockLost(_) => Kind::Unavailable,
            Self::Confused => Kind::Internal,
        }
    }

    /// Stable, and documented.
    pub fn reason(&self) -> &str {
        match self {
            Self::Call(error) => error.reason(),
            Self::Delta(failure) => &failure.reason,
            Self::GroupApart { .. } => "group-not-primary",
            Self::GroupBehind { .. } => "group-behind",
            Self::GroupInCut(_) => "group-in-cut",
            Self::NoImage { .. } => "no-image",
            Self::Journal(_) => "journal-mode",
            Self::NotMirrored(_) => "not-mirrored",
            Self::NotPrimary(_) => "not-primary",
            Self::PoolMode { .. } => "pool-mode",
            Self::IsClone(_) => "image-is-clone",
            Self::NoPeer { .. } => "pool-without-peer",
            Self::Unsafe { why: Unsafe::PeerIsChanging(_), .. } | Self::PeerIsChanging { .. } => "peer-in-verb",
            Self::Unsafe { why: Unsafe::PeerIsPrimary, .. } => "peer-is-primary",
            Self::Unsafe { .. } => "promote-unsafe",
            Self::InTheMiddle { .. } | Self::Syncing(_) => "sync-half-copied",
            Self::EndedBehind { .. } | Self::EndedBeyond { .. } => "promoted-in-a-sync",
            Self::NotWhole { .. } => "point-not-whole",
            Self::DataPool { .. } => "image-with-data-pool",
            Self::FencedBriefly { .. } => "fenced-briefly",
            Self::Settling(_) => "image-settling",
            Self::Nothing(_) => "nothing-arrived",
            Self::InUse { .. } => "image-in-use",
            Self::SharedClient { .. } => "client-shared",
            Self::StillWritten { .. } => "still-written",
            Self::PeerNeeded { .. } => "peer-needed",
            Self::LockedByHand(_) => "image-locked",
            Self::Changing(_) => "image-changing",
            Self::CopyGoes { .. } => "copy-would-go",
            Self::NoLock(_) => "image-without-lock",
            Self::LockLost(_) => "image-lock-lost",
            Self::Taken { .. } | Self::InVerb(_) => "image-in-verb",
            Self::TurnLost(_) => "verb-taken-over",
            Self::TurnUnknown(_) => "verb-unknown",
            Self::IsMirrored(_) => "is-mirrored",
            Self::NotBlank(_) => "replica-not-empty",
            Self::NoVolume(_) => "no-such-volume",
            Self::StateUnknown(_) => "state-unknown",
            Self::NotSeen(_) => "not-seen",
            Self::Confused => "internal",
        }
    }

    pub(crate) fn is(&self, kind: FailureKind) -> bool {
        matches!(self, Self::Call(error) if error.is(kind))
    }
}

impl From<VerbError> for Failure {
    fn from(error: VerbError) -> Self {
        Self { kind: error.kind(), reason: error.reason().to_owned(), message: error.to_string() }
    }
}

impl From<VerbError> for SessionError {
    fn from(error: VerbError) -> Self {
        Self::Image(error.into())
    }
}

fn by_force(ends: Option<&str>) -> String {
    ends.map_or_else(String::new, |ends| format!(". By force it would end {ends}"))
}

fn whole(point: &Option<Point>) -> String {
    point.map_or_else(String::new, |point| format!("; point {} is whole", point.name))
}

fn named(places: &[ImagePlace]) -> String {
    listed(places.iter())
}

fn addresses(users: &[UserView]) -> String {
    listed(users.iter().map(|user| &user.address))
}

/// An error goes in a header of HTTP, which takes no more than some KB.
fn listed(names: impl ExactSizeIterator<Item: ToString>) -> String {
    const SHOWN: usize = 10;
    let more = names.len().saturating_sub(SHOWN);
    let shown = names.take(SHOWN).map(|name| name.to_string()).collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{shown} and {more} more") } else { shown }
}
