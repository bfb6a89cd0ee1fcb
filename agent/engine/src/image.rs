//! Volumes that are images with snapshots of their own, as RBD images are: what a sync asks of a copy, whoever keeps it.
//!
//! A point is a snapshot. What a secondary holds beyond its newest one, its *head*, is only staging (R11): it is what an interrupted sync
//! has written, or what somebody else has, and no reader of a point sees it.

pub mod file;
pub mod narrow;
pub mod stream;
pub mod verbs;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    digest::Digest,
    point::{Label, Origin, Point, PointId, PointTotals, VolumeState},
    session::{Failure, SessionError},
    volume::unix_now,
};

/// Bytes of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    pub offset: u64,
    pub length: u64,
}

/// Of an image, by number of the leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    pub number: u64,
    pub digest: Digest,
}

/// Of so much of an image a leaf is, of less at its end.
pub const LEAF_BYTES: u64 = 1 << 20;

impl Range {
    pub fn end(self) -> u64 {
        self.offset.saturating_add(self.length)
    }

    /// None goes beyond a multiple of `bytes`, which is not 0.
    pub fn parts(self, bytes: u64) -> impl Iterator<Item = Self> {
        let mut at = self.offset;
        std::iter::from_fn(move || {
            let end = ((at / bytes + 1) * bytes).min(self.end());
            let part = (at < end).then(|| Self { offset: at, length: end - at });
            at = end;
            part
        })
    }
}

/// By which a point's snapshot is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SnapshotName {
    pub id: PointId,
    /// Seconds since 1970, by the clock of who made the point.
    pub taken_at: i64,
}

impl From<&Point> for SnapshotName {
    fn from(point: &Point) -> Self {
        Self { id: point.id, taken_at: point.taken_at }
    }
}

/// A copy as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    pub size_bytes: u64,
    /// Objects of 2^order bytes.
    pub order: u8,
    /// Those that points have, whether the volume's state knows them or not, and the image's size at each in bytes.
    pub snapshots: BTreeMap<SnapshotName, u64>,
    /// Of these, the ones that were taken of several images at one moment.
    pub cuts: BTreeSet<SnapshotName>,
}

/// One copy of an image, held for one session: nothing else of Drover changes it meanwhile. All calls block.
pub trait ImageCopy {
    fn state(&self) -> Result<VolumeState, Failure>;

    /// Nobody else writes to it, as far as can be told.
    fn check_unused(&self) -> Result<(), Failure>;

    /// It stays open for what follows, which spares opening it each time. `false`: no such image.
    fn open(&self) -> Result<bool, Failure>;

    /// As `check_unused`; and nobody else can write to it as long as it stays open.
    fn keep_others_out(&self) -> Result<(), Failure>;

    /// Durable once it returns.
    fn set_state(&self, state: &VolumeState) -> Result<(), Failure>;

    /// `None`: no such image, as at a secondary before its first copy.
    fn look(&self) -> Result<Option<Look>, Failure>;

    fn create(&self, size_bytes: u64, order: u8) -> Result<(), Failure>;

    /// Of the head; done before: nothing. Returns the image's size at it in bytes.
    fn take(&self, snapshot: SnapshotName) -> Result<u64, Failure>;

    /// What a new point of an image that belongs with others is made of: a snapshot of all of them at one moment that this one has no point of yet, with
    /// that number or a higher one, made now or by a sync of another of them; and the image's size at it in bytes. `None`: it belongs with none.
    fn cut(&self, at_least: u64) -> Result<Option<(SnapshotName, u64)>, Failure> {
        let _ = at_least;
        Ok(None)
    }

    /// Number of the newest point that all images that it belongs with have on this side, 0 if there is none: points from there on stay, since one
    /// that is slower than this one may be on its way to any of them. `None`: it belongs with none.
    fn kept_from(&self, state: &VolumeState) -> Result<Option<u64>, Failure> {
        let _ = state;
        Ok(None)
    }

    /// One that is gone is removed.
    fn remove(&self, snapshot: SnapshotName) -> Result<(), Failure>;

    /// Where the head may differ from a snapshot, or from zeros; in order of the offset. What is zeros beyond the end of either is no difference.
    fn head_changes(&self, since: Option<SnapshotName>) -> Result<Vec<Range>, Failure>;

    /// What is another thing in `to` than in `from`, and all that `to` has in `asked`: frames of [`stream`], and what they sum up to.
    fn read(
        &self,
        from: &Basis<'_>,
        to: SnapshotName,
        asked: &[Range],
        frame: &mut dyn FnMut(Bytes) -> Result<(), SessionError>,
    ) -> Result<stream::Totals, SessionError>;

    /// Makes the head so large and writes frames to it, until there are no more. Durable once it returns.
    fn write(
        &self,
        size_bytes: u64,
        frames: &mut dyn FnMut() -> Result<Option<Bytes>, SessionError>,
    ) -> Result<stream::Totals, SessionError>;

    /// Of each leaf of a snapshot, or of the head, that is not all zeros, in order; nothing, from time to time, says that it goes on.
    fn digests(
        &self,
        of: Option<SnapshotName>,
        leaves: &mut dyn FnMut(&[Leaf]) -> Result<(), SessionError>,
    ) -> Result<(), SessionError>;

    /// Makes the head what the snapshot is.
    fn restore(&self, to: SnapshotName) -> Result<(), Failure>;
}

/// What the other side has, which a change begins from.
#[derive(Clone, Copy, Debug)]
pub enum Basis<'a> {
    Snapshot(SnapshotName),
    /// Of an image that shares no point: the leaves that are not all zeros, in order, as far as they are known. What is not known is told whole.
    Leaves(&'a [Leaf]),
}

/// What a change begins from, as both sides know it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ground(Digest);

impl Ground {
    pub fn digest(self) -> Digest {
        self.0
    }

    pub fn of_point(point: &Point) -> Self {
        Self(point.root)
    }

    /// Of an image that shares no point: after each message with its leaves. Without one it is the ground of an empty image.
    pub fn add(&mut self, leaves: &[Leaf]) {
        if leaves.is_empty() {
            return;
        }
        let mut record = Vec::with_capacity(Digest::BYTES + leaves.len() * (8 + Digest::BYTES));
        record.extend_from_slice(self.0.as_bytes());
        for leaf in leaves {
            record.extend_from_slice(&leaf.number.to_le_bytes());
            record.extend_from_slice(leaf.digest.as_bytes());
        }
        self.0 = Digest::of_record("drover 2026-11 leaves of an image", &record);
    }
}

/// The root digest of a point: of what the change began from, and of the change. Equal digests say
/// that both sides had the same change to apply to the same thing; not that nobody else has written to one of them.
pub fn root_digest(ground: Ground, size_bytes: u64, totals: &stream::Totals) -> Digest {
    let mut record = Vec::with_capacity(72);
    record.extend_from_slice(ground.0.as_bytes());
    record.extend_from_slice(&size_bytes.to_le_bytes());
    record.extend_from_slice(totals.digest.as_bytes());
    Digest::of_record("drover 2026-11 image point", &record)
}

/// Whether the head is what the snapshot is, its size too.
pub(crate) fn is_at(image: &dyn ImageCopy, look: &Look, snapshot: SnapshotName) -> Result<bool, Failure> {
    let is_as_large = look.snapshots.get(&snapshot).is_some_and(|size_bytes| *size_bytes == look.size_bytes);
    Ok(is_as_large && image.head_changes(Some(snapshot))?.is_empty())
}

/// What [`keep`] has seen of the head.
#[derive(Debug, Default)]
pub(crate) struct Head {
    /// The restore point that it became, made now or by an earlier try.
    pub kept: Option<PointId>,
    /// What it is, and nothing else.
    pub at: Option<SnapshotName>,
}

/// R7: what the head holds and no point has becomes a restore point, unless it is what an interrupted sync has written.
pub(crate) fn keep(image: &dyn ImageCopy, look: &Look, state: &mut VolumeState) -> Result<Head, Failure> {
    if state.staging {
        return Ok(Head::default());
    }
    // A point whose confirmation was lost is one.
    let at = state.current_point().or(state.offered.as_ref()).cloned();
    let at = at.filter(|point| look.snapshots.contains_key(&SnapshotName::from(point)));
    match &at {
        Some(at) if is_at(image, look, at.into())? => return Ok(Head { kept: None, at: Some(at.into()) }),
        None if image.head_changes(None)?.is_empty() => return Ok(Head::default()),
        Some(_) | None => {}
    }
    let number = at.as_ref().map_or(state.highest_number(), |at| at.id.number);
    let of_point = || state.restorable.iter().filter(|point| point.id.number == number && point.origin == Origin::Kept);
    if let Some(kept) = of_point().max_by_key(|point| point.id)
        && is_at(image, look, kept.into())?
    {
        return Ok(Head { kept: Some(kept.id), at: Some(kept.into()) });
    }
    let id = PointId { number, kept: of_point().map(|point| point.id.kept).max().unwrap_or(0) + 1 };
    let taken_at = unix_now();
    let kept = Point {
        id,
        origin: Origin::Kept,
        lineage: state.lineage,
        epoch: state.epoch,
        parent: at.map(|at| at.id),
        taken_at,
        // Of a content that nobody has hashed: no other point is the same.
        root: Digest::of_record("drover 2026-11 kept image", format!("{}{id}{taken_at}", state.lineage).as_bytes()),
        totals: PointTotals { entries: 1, bytes: look.size_bytes },
        label: Label::CrashConsistent,
        bytes_moved: 0,
        lost: Vec::new(),
        is_cut: false,
    };
    // A snapshot that no point has is swept, so the point comes first; and so is a point without one.
    state.restorable.push(kept.clone());
    image.set_state(state)?;
    image.take((&kept).into())?;
    Ok(Head { kept: Some(id), at: Some((&kept).into()) })
}
