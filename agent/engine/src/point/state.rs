//! What a copy of a volume knows of itself: role, epoch, lineage and points. It lies beside the volume, so that a lost
//! state directory loses nothing (R6).

use serde::{Deserialize, Serialize};

use super::{Origin, Point, PointId};
use crate::{
    id::{LineageId, VolumeId},
    image::Range,
    path::RelPath,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// May be written by its users; the source of syncs.
    Primary,
    /// Written only by sync.
    Secondary,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Primary => "primary",
            Self::Secondary => "secondary",
        })
    }
}

/// What a volume is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VolumeKind {
    /// A directory and everything beneath it.
    #[default]
    Directory,
    /// One regular file: a raw image. Or an image of a cluster, which has no path.
    BlockFile,
    /// One block device.
    BlockDevice,
}

impl VolumeKind {
    /// One sequence of bytes; copies of such volumes may be of different kinds.
    pub fn is_block(self) -> bool {
        match self {
            Self::Directory => false,
            Self::BlockFile | Self::BlockDevice => true,
        }
    }
}

impl std::fmt::Display for VolumeKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Directory => "directory",
            Self::BlockFile => "block file",
            Self::BlockDevice => "block device",
        })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("volume has no restore point {0}")]
    NoSuchPoint(PointId),
    #[error(
        "no sync to or from this copy was ever completed: promoting it would make what it holds now, perhaps nothing, \
         primary (force says that it shall be)"
    )]
    NeverSynced,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeState {
    pub volume: VolumeId,
    #[serde(default)]
    pub kind: VolumeKind,
    /// Beneath the root.
    pub path: RelPath,
    pub role: Role,
    /// Raised by every promotion.
    pub epoch: u64,
    /// Made anew by every promotion.
    pub lineage: LineageId,
    /// The sync points that led to this copy's newest one, oldest first, at most `HISTORY_MAX`.
    pub history: Vec<Point>,
    /// A point that was proposed to the replica and not yet confirmed: it may have been committed there.
    #[serde(default)]
    pub offered: Option<Point>,
    /// The point that the tree is at, older than the newest after a rollback; of a primary, the last that its replica
    /// confirmed.
    #[serde(default)]
    pub current: Option<PointId>,
    /// Points that can be rolled back to, with their manifests; the current one is among them.
    #[serde(default)]
    pub restorable: Vec<Point>,
    /// Raised by every commit to the tree: tells whether a commit record was carried out.
    #[serde(default)]
    pub transaction: u64,
    /// How many restore points of syncs are kept besides the current one.
    pub retain: u32,
    /// Restore points of syncs younger than this are kept as well, however many they are.
    #[serde(default)]
    pub retain_secs: u64,
    /// Rolled back: no sync until released.
    #[serde(default)]
    pub paused: bool,
    /// Someone chose to give this copy's line up at the next sync.
    #[serde(default)]
    pub resync: bool,
    /// When both sides were last seen equal, seconds since 1970 by the source's clock.
    #[serde(default)]
    pub confirmed_at: Option<i64>,
    /// Name of the peer agent in the configuration.
    #[serde(default)]
    pub peer: Option<String>,
    /// A device that was blank when it was enabled as a secondary, and was never promoted: before its first sync it holds
    /// nothing that is anybody's.
    #[serde(default)]
    pub blank: bool,
    /// Its first copy has begun, so that what it holds is a part of that.
    #[serde(default)]
    pub first_copy_begun: bool,
    /// Which device it is (`drover_linux::device::identity`).
    #[serde(default)]
    pub device: Option<String>,
    /// A promotion asks the peer: written before it does, so that of two sites that promote at least one sees the other.
    #[serde(default)]
    pub promoting: bool,
    /// Of an image: a sync has begun to write to it, and has not made a point of that.
    #[serde(default)]
    pub staging: bool,
    /// Of an image: points up to this number are of others, as of an earlier life of the image, and stay.
    #[serde(default)]
    pub floor: u64,
    /// Of a secondary's image: where a verification found another content than the source's. The next sync brings it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differs: Vec<Range>,
    /// Points of a secondary's image whose content a verification found to be another one. Nobody rolls back to them, and a promotion says so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<PointId>,
    /// Of an image that belongs with others: points from this number on stay, however old they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_from: Option<u64>,
    /// Of an image: numbers up to this one are used up, also of snapshots that never became points.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub passed: u64,
    /// Of a primary: since a promotion elsewhere it is one no more (R8).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub superseded: Option<Superseded>,
    /// The highest epoch that a copy elsewhere was seen in.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub seen_epoch: u64,
}

/// Who is primary in the place of a copy that does not know of it yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Superseded {
    /// Name of the agent.
    pub by: String,
    /// Of its copy.
    pub epoch: u64,
    /// When that was learned, seconds since 1970.
    pub at: i64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl VolumeState {
    /// Sync points that are remembered by number and root; a replica further behind counts as diverged.
    pub const HISTORY_MAX: usize = 4096;
    /// Restore points of kept (diverged) data are dropped oldest first beyond this.
    pub const KEPT_MAX: usize = 8;

    pub fn new(volume: VolumeId, path: RelPath, role: Role, retain: u32) -> Self {
        Self {
            volume,
            kind: VolumeKind::Directory,
            path,
            role,
            epoch: if role == Role::Primary { 1 } else { 0 },
            lineage: LineageId::random(),
            history: Vec::new(),
            offered: None,
            current: None,
            restorable: Vec::new(),
            transaction: 0,
            retain,
            retain_secs: 0,
            paused: false,
            resync: false,
            confirmed_at: None,
            peer: None,
            blank: false,
            first_copy_begun: false,
            device: None,
            promoting: false,
            staging: false,
            floor: 0,
            differs: Vec::new(),
            damaged: Vec::new(),
            kept_from: None,
            passed: 0,
            superseded: None,
            seen_epoch: 0,
        }
    }

    pub fn current_point(&self) -> Option<&Point> {
        let current = self.current?;
        self.restorable.iter().chain(&self.history).find(|point| point.id == current)
    }

    pub fn newest(&self) -> Option<&Point> {
        self.history.last()
    }

    /// Highest number ever used here, so that no number means two things.
    pub fn highest_number(&self) -> u64 {
        let points = self.history.iter().chain(&self.offered).chain(&self.restorable);
        points.map(|point| point.id.number).max().unwrap_or(0).max(self.floor).max(self.passed)
    }

    pub fn restorable(&self, id: PointId) -> Result<&Point, StateError> {
        self.restorable.iter().find(|point| point.id == id).ok_or(StateError::NoSuchPoint(id))
    }

    /// A new line of sync points begins here. The history stays: it is the ancestry of the new line.
    pub fn promote(&mut self, force: Force) -> Result<(), StateError> {
        if self.role == Role::Primary && self.superseded.is_none() {
            return Ok(());
        }
        if self.current.is_none() && force == Force::No {
            return Err(StateError::NeverSynced);
        }
        // What came after the point that the tree is at does not lead to it.
        if let Some(at) = self.current.and_then(|id| self.history.iter().position(|point| point.id == id)) {
            self.history.truncate(at + 1);
        }
        self.role = Role::Primary;
        (self.promoting, self.staging) = (false, false);
        self.superseded = None;
        self.blank = false;
        self.epoch = self.epoch.max(self.seen_epoch) + 1;
        self.lineage = LineageId::random();
        self.paused = false;
        self.resync = false;
        self.offered = None;
        Ok(())
    }

    /// No more than can be counted on from.
    pub(crate) fn see_epoch(&mut self, epoch: u64) {
        const EPOCH_MAX: u64 = 1 << 62;
        self.seen_epoch = self.seen_epoch.max(epoch.min(EPOCH_MAX));
    }

    pub fn demote(&mut self) {
        self.role = Role::Secondary;
        self.superseded = None;
    }

    /// Confirmed on both sides: appended to the history that leads here.
    pub fn append(&mut self, point: Point) {
        self.history.push(point);
        let surplus = self.history.len().saturating_sub(Self::HISTORY_MAX);
        self.history.drain(..surplus);
    }

    /// Takes the restore points out of the list that retention no longer covers `now`, in seconds since 1970, and returns
    /// them.
    pub fn expire(&mut self, now: i64) -> Vec<Point> {
        let mut expired = Vec::new();
        let since = now.saturating_sub(i64::try_from(self.retain_secs).unwrap_or(i64::MAX));
        for (origin, keep, since) in [(Origin::Sync, self.retain as usize, since), (Origin::Kept, Self::KEPT_MAX, now)]
        {
            let is_of_group = |point: &Point| self.kept_from.is_some_and(|from| point.id.number >= from);
            let is_needed =
                |point: &Point| Some(point.id) == self.current || (point.origin == Origin::Sync && is_of_group(point));
            let is_old = |point: &&Point| point.origin == origin && !is_needed(point);
            let mut old: Vec<_> =
                self.restorable.iter().filter(is_old).map(|point| (point.id, point.taken_at)).collect();
            old.sort_unstable();
            old.truncate(old.len().saturating_sub(keep));
            let is_one_too_many = old.len().saturating_sub(Self::HISTORY_MAX);
            let by_age = old.iter().enumerate().filter(|(n, (_, taken_at))| *n < is_one_too_many || *taken_at <= since);
            let old: Vec<PointId> = by_age.map(|(_, (id, _))| *id).collect();
            expired.extend(self.restorable.extract_if(.., |point| old.contains(&point.id)));
        }
        self.damaged.retain(|id| self.restorable.iter().any(|point| point.id == *id));
        expired
    }
}

/// Whether the caller insists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    No,
    Yes,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{digest::Digest, point::Label};

    fn point(number: u64, taken_at: i64) -> Point {
        Point {
            id: PointId::sync(number),
            origin: Origin::Sync,
            lineage: LineageId::random(),
            epoch: 1,
            parent: None,
            taken_at,
            root: Digest::default(),
            totals: crate::point::PointTotals::default(),
            label: Label::PerFile,
            bytes_moved: 0,
            lost: Vec::new(),
            is_cut: false,
        }
    }

    #[test]
    fn points_are_kept_by_number_and_by_age() {
        const HOUR: i64 = 3600;
        let now = 100 * HOUR;
        for (retain, hours, kept) in [(2, 0, 2), (2, 5, 4), (6, 3, 6), (0, 0, 0), (20, 100, 9)] {
            let mut state = VolumeState::new(VolumeId::random(), RelPath::root(), Role::Secondary, retain);
            // One an hour; the newest is the current one.
            state.restorable = (0..10).map(|n| point(n, now - (9 - n as i64) * HOUR)).collect();
            (state.current, state.retain_secs) = (Some(PointId::sync(9)), hours * HOUR as u64);
            let expired = state.expire(now);
            assert_eq!(state.restorable.len() - 1, kept, "{retain} points and {hours} hours");
            assert_eq!(expired.len() + state.restorable.len(), 10);
            assert!(expired.iter().all(|old| state.restorable.iter().all(|new| old.id < new.id)));
        }
    }

    #[test]
    fn what_a_group_would_end_on_is_kept() {
        let mut state = VolumeState::new(VolumeId::random(), RelPath::root(), Role::Secondary, 1);
        state.restorable = (0..10).map(|number| point(number, 0)).collect();
        (state.current, state.kept_from) = (Some(PointId::sync(9)), Some(6));
        state.expire(1000);
        let kept: Vec<_> = state.restorable.iter().map(|point| point.id.number).collect();
        assert_eq!(kept, [5, 6, 7, 8, 9]);
    }
}
