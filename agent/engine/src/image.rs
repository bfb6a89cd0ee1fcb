//! Volumes that are images with snapshots of their own, as RBD images are: what a sync asks of a copy, whoever keeps it.
//!
//! A point is a snapshot. What a secondary holds beyond its newest one, its *head*, is only staging (R11): it is what an interrupted sync
//! has written, or what somebody else has, and no reader of a point sees it.

pub mod stream;
pub mod verbs;

use bytes::Bytes;

use crate::{
    digest::Digest,
    point::{Label, Origin, Point, PointId, PointTotals, VolumeState},
    session::{Failure, SessionError},
    volume::unix_now,
};

/// Bytes of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub offset: u64,
    pub length: u64,
}

impl Range {
    pub fn end(self) -> u64 {
        self.offset.saturating_add(self.length)
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
    /// Those that points have, whether the volume's state knows them or not.
    pub snapshots: Vec<SnapshotName>,
}

/// One copy of an image, held for one session: nothing else of Drover changes it meanwhile. All calls block.
pub trait ImageCopy {
    fn state(&self) -> Result<VolumeState, Failure>;

    /// Nobody else writes to it, as far as can be told.
    fn check_unused(&self) -> Result<(), Failure>;

    /// Durable once it returns.
    fn set_state(&self, state: &VolumeState) -> Result<(), Failure>;

    /// `None`: no such image, as at a secondary before its first copy.
    fn look(&self) -> Result<Option<Look>, Failure>;

    fn create(&self, size_bytes: u64, order: u8) -> Result<(), Failure>;

    fn size_at(&self, snapshot: SnapshotName) -> Result<u64, Failure>;

    /// Done before: nothing.
    fn take(&self, snapshot: SnapshotName) -> Result<(), Failure>;

    /// One that is gone is removed.
    fn remove(&self, snapshot: SnapshotName) -> Result<(), Failure>;

    /// Where the head may differ from a snapshot, or from zeros; in order of the offset. What is zeros beyond the end of either is no difference.
    fn head_changes(&self, since: Option<SnapshotName>) -> Result<Vec<Range>, Failure>;

    /// What is another thing in `to` than in `from`, or than zeros, and all that `to` has in `also`: frames of [`stream`], and what they sum
    /// up to.
    fn read(
        &self,
        from: Option<SnapshotName>,
        to: SnapshotName,
        also: &[Range],
        frame: &mut dyn FnMut(Bytes) -> Result<(), SessionError>,
    ) -> Result<stream::Totals, SessionError>;

    /// Makes the head so large and writes frames to it, until there are no more. Durable once it returns.
    fn write(
        &self,
        size_bytes: u64,
        frames: &mut dyn FnMut() -> Result<Option<Bytes>, SessionError>,
    ) -> Result<stream::Totals, SessionError>;

    /// Makes the head what the snapshot is.
    fn restore(&self, to: SnapshotName) -> Result<(), Failure>;
}

/// The root digest of a point: of the point that the change began from, if there is one, and of the change. Equal digests say
/// that both sides had the same change to apply to the same point; not that nobody else has written to one of them.
pub fn root_digest(parent: Option<&Point>, size_bytes: u64, totals: &stream::Totals) -> Digest {
    let mut record = Vec::with_capacity(72);
    record.extend_from_slice(parent.map(|point| point.root).unwrap_or_default().as_bytes());
    record.extend_from_slice(&size_bytes.to_le_bytes());
    record.extend_from_slice(totals.digest.as_bytes());
    Digest::of_record("drover 2026-11 image point", &record)
}

/// Whether the head is what the snapshot is, its size too.
pub(crate) fn is_at(image: &dyn ImageCopy, snapshot: SnapshotName) -> Result<bool, Failure> {
    let Some(look) = image.look()? else { return Ok(false) };
    Ok(look.size_bytes == image.size_at(snapshot)? && image.head_changes(Some(snapshot))?.is_empty())
}

/// R7: what the head holds and no point has becomes a restore point, unless it is what an interrupted sync has written. Returns that point, made
/// now or by an earlier try.
pub(crate) fn keep(image: &dyn ImageCopy, state: &mut VolumeState) -> Result<Option<PointId>, Failure> {
    let Some(look) = image.look()?.filter(|_| !state.staging) else { return Ok(None) };
    // A point whose confirmation was lost is one.
    let at = state.current_point().or(state.offered.as_ref()).cloned();
    let at = at.filter(|point| look.snapshots.contains(&point.into()));
    match &at {
        Some(at) if is_at(image, at.into())? => return Ok(None),
        None if image.head_changes(None)?.is_empty() => return Ok(None),
        Some(_) | None => {}
    }
    let number = at.as_ref().map_or(state.highest_number(), |at| at.id.number);
    let of_point = || state.restorable.iter().filter(|point| point.id.number == number && point.origin == Origin::Kept);
    if let Some(kept) = of_point().max_by_key(|point| point.id).filter(|kept| look.snapshots.contains(&(*kept).into()))
        && is_at(image, kept.into())?
    {
        return Ok(Some(kept.id));
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
    };
    // A snapshot that no point has is swept, so the point comes first; and so is a point without one.
    state.restorable.push(kept.clone());
    image.set_state(state)?;
    image.take((&kept).into())?;
    Ok(Some(id))
}
