//! Sync points of an image: a user snapshot taken just before each mirror snapshot. The mirror snapshot carries it to the
//! peer, where its content is exact as soon as that mirror snapshot is complete, whatever a later sync has half copied.

use std::collections::BTreeSet;

use jiff::{Timestamp, tz::TimeZone};
use serde::{Deserialize, Serialize};

use crate::view::{ImageView, MirrorSnapshot, MirrorState, SnapshotKind, SnapshotView};

/// Of the snapshots that are Drover's.
const PREFIX: &str = "drover.";

/// `drover.<number>.<UTC of the primary>`, as `drover.12.20261122T031500Z`.
const FORMAT: &str = "%Y%m%dT%H%M%SZ";

/// A sync point as its snapshot's name tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PointName {
    /// Grows by one with each point of the image, or of its group.
    pub number: u64,
    /// When it was taken, by the clock of the agent at the primary.
    pub taken_at_unix_secs: i64,
}

impl std::fmt::Display for PointName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = Timestamp::from_second(self.taken_at_unix_secs).map_err(|_| std::fmt::Error)?;
        write!(f, "{PREFIX}{}.{}", self.number, at.strftime(FORMAT))
    }
}

impl PointName {
    pub fn parse(name: &str) -> Option<Self> {
        let (number, at) = name.strip_prefix(PREFIX)?.split_once('.')?;
        let at = jiff::civil::DateTime::strptime(FORMAT, at).ok()?.to_zoned(TimeZone::UTC).ok()?;
        let parsed = Self { number: number.parse().ok()?, taken_at_unix_secs: at.timestamp().as_second() };
        // No second spelling of a number.
        (parsed.to_string() == name).then_some(parsed)
    }
}

/// A sync point that an image has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    pub name: PointName,
    pub snapshot_id: u64,
    /// Its content is there, byte for byte.
    pub is_whole: bool,
}

/// By number, oldest first.
///
/// On a secondary rbd-mirror makes a user snapshot before the mirror snapshot that came after it at the primary, and its content
/// is all there once that one is complete. So a point is whole if a complete mirror snapshot has a higher id. What a primary had before it was demoted
/// is as whole as its own mirror snapshots, which count as complete. What a forced promotion leaves (no primary's id) says nothing.
pub fn points(view: &ImageView) -> Vec<Point> {
    let proof = proof(view);
    let unwhole = view.turn.as_ref().map(|turn| turn.unwhole.as_slice()).unwrap_or_default();
    let is_whole = |id: u64| !unwhole.contains(&id) && (view.is_primary || proof.is_some_and(|proof| id < proof));
    let named = view.snapshots.iter().filter(|snapshot| snapshot.kind == SnapshotKind::User);
    let mut points: Vec<_> = named
        .filter_map(|snapshot| {
            let name = PointName::parse(&snapshot.name)?;
            Some(Point { name, snapshot_id: snapshot.id, is_whole: is_whole(snapshot.id) })
        })
        .collect();
    points.sort_by_key(|point| point.name);
    points
}

/// Id of the newest mirror snapshot before which all is there.
fn proof(view: &ImageView) -> Option<u64> {
    view.mirror_snapshots().filter(|(_, mirror)| is_proof(mirror)).map(|(id, _)| id).max()
}

/// Id of the newest snapshot of a peer that has arrived whole, 0 where none has.
pub fn arrived(secondary: &ImageView) -> u64 {
    let is_copy =
        |mirror: &MirrorSnapshot| matches!(mirror.state, MirrorState::NonPrimary | MirrorState::NonPrimaryDemoted);
    let has_arrived = |mirror: &MirrorSnapshot| is_copy(mirror) && is_proof(mirror);
    let arrived = secondary.mirror_snapshots().filter(|(_, mirror)| has_arrived(mirror)).map(|(id, _)| id);
    arrived.max().unwrap_or(0)
}

/// Ids of a secondary's user snapshots, Drover's and others', whose content has not arrived.
pub fn not_whole(secondary: &ImageView) -> Vec<u64> {
    let proof = proof(secondary).unwrap_or(0);
    let snapshots = secondary.snapshots.iter().filter(|it| it.kind == SnapshotKind::User && it.id > proof);
    snapshots.map(|snapshot| snapshot.id).collect()
}

/// Of an image that was promoted just now: ids of the snapshots that had not arrived then. `newest_before` is the newest mirror snapshot of
/// before the promotion. None where the promotion's own can't be told: what was taken after it is somebody's.
pub fn not_whole_at_promotion(primary: &ImageView, newest_before: u64) -> Vec<u64> {
    let is_own = |(id, mirror): &(u64, &MirrorSnapshot)| *id > newest_before && mirror.state == MirrorState::Primary;
    let Some((promoted, _)) = primary.mirror_snapshots().find(is_own) else { return Vec::new() };
    let before = primary.mirror_snapshots().filter(|(id, mirror)| *id < promoted && is_proof(mirror));
    let proof = before.map(|(id, _)| id).max().unwrap_or(0);
    let user = primary.snapshots.iter().filter(|it| it.kind == SnapshotKind::User);
    user.map(|snapshot| snapshot.id).filter(|id| (proof + 1..promoted).contains(id)).collect()
}

/// Whether all that came before this mirror snapshot is there.
pub(crate) fn is_proof(mirror: &MirrorSnapshot) -> bool {
    match mirror.state {
        MirrorState::Primary | MirrorState::PrimaryDemoted => true,
        MirrorState::NonPrimary | MirrorState::NonPrimaryDemoted => mirror.is_complete && mirror.primary_id.is_some(),
        MirrorState::Unknown => false,
    }
}

/// The newest point whose content is all there.
pub fn newest_whole(view: &ImageView) -> Option<Point> {
    points(view).into_iter().rev().find(|point| point.is_whole)
}

/// The point with this name, if its content is all there.
pub fn whole(view: &ImageView, name: PointName) -> Option<Point> {
    points(view).into_iter().find(|point| point.name == name && point.is_whole)
}

/// Whether a promotion of a secondary by force ends on it: all that arrived after it is the mirror snapshot that carried it. Of older ones
/// rbd-mirror keeps none, so one that was taken without a point looks the same.
pub fn is_newest(secondary: &ImageView, point: &Point) -> bool {
    let is_later_point =
        |snapshot: &SnapshotView| snapshot.id > point.snapshot_id && PointName::parse(&snapshot.name).is_some();
    let mut later = secondary
        .mirror_snapshots()
        .filter(|(id, mirror)| *id > point.snapshot_id && !mirror.is_orphan())
        .map(|(_, mirror)| mirror.state == MirrorState::NonPrimary && is_proof(mirror))
        .peekable();
    later.peek().is_some() && later.all(|has_arrived| has_arrived) && !secondary.snapshots.iter().any(is_later_point)
}

/// The newest point that is whole in each of them. Points of single images may have the same number, and were taken at other times.
pub fn newest_common<'a>(views: impl IntoIterator<Item = &'a ImageView>) -> Option<PointName> {
    let names = |view: &ImageView| -> BTreeSet<PointName> {
        points(view).into_iter().filter(|point| point.is_whole).map(|point| point.name).collect()
    };
    let common = views.into_iter().map(names).reduce(|ours, theirs| &ours & &theirs)?;
    common.last().copied()
}

/// The oldest points beyond the newest `keep` of a primary, of those that its peer, which follows it, does not need: that falls back to the newest
/// one that is whole there, at most.
pub fn prunable(primary: &ImageView, peer: &ImageView, keep: usize) -> Vec<Point> {
    let is_ours = |mirror: &MirrorSnapshot| mirror.is_complete && mirror.primary_uuid == primary.site_uuid;
    let arrived =
        peer.mirror_snapshots().filter(|(_, mirror)| is_ours(mirror)).filter_map(|(_, mirror)| mirror.primary_id);
    let points = points(primary);
    let Some(needed) =
        arrived.max().and_then(|arrived| points.iter().map(|point| point.snapshot_id).filter(|id| *id < arrived).max())
    else {
        return Vec::new();
    };
    let old = points.len().saturating_sub(keep.max(1));
    points[..old].iter().filter(|point| point.snapshot_id < needed).copied().collect()
}

pub fn next_number(view: &ImageView) -> u64 {
    points(view).last().map_or(0, |point| point.name.number).max(view.number_floor) + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::{mirror, mirror_of, primary, secondary, user};

    #[test]
    fn a_name_is_read_as_it_was_written_and_no_other_way() {
        let name = PointName { number: 12, taken_at_unix_secs: 1_795_317_300 };
        assert_eq!(PointName::parse(&name.to_string()), Some(name));
        for other in ["drover.12", "drover.012.20261122T031500Z", "drover.x.20261122T031500Z", "snap", "drover.1.2026"]
        {
            assert_eq!(PointName::parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_point_is_whole_once_a_later_mirror_snapshot_is_complete() {
        let view = secondary(vec![
            user(1, "drover.1.20261122T031500Z"),
            mirror(2, MirrorState::NonPrimary, true),
            user(3, "drover.2.20261122T031600Z"),
            mirror(4, MirrorState::NonPrimary, false),
        ]);
        let whole: Vec<_> = points(&view).iter().map(|point| (point.name.number, point.is_whole)).collect();
        assert_eq!(whole, [(1, true), (2, false)]);
        assert_eq!(newest_whole(&view).unwrap().name.number, 1);
        assert_eq!(next_number(&view), 3);
        assert_eq!(not_whole(&view), [3]);
    }

    #[test]
    fn what_had_not_arrived_is_known_after_a_promotion_too() {
        let name = |number: u64| format!("drover.{number}.20261122T031500Z");
        let mut view = secondary(vec![
            user(1, &name(1)),
            mirror(2, MirrorState::NonPrimary, true),
            user(3, &name(2)),
            mirror(5, MirrorState::Primary, true),
            user(6, &name(3)),
        ]);
        view.is_primary = true;
        assert_eq!(not_whole_at_promotion(&view, 2), [3]);
        // Of somebody who was faster than the look.
        view.snapshots.push(mirror(7, MirrorState::Primary, true));
        assert_eq!(not_whole_at_promotion(&view, 2), [3]);
        assert!(not_whole_at_promotion(&view, 9).is_empty());
        view.snapshots.insert(3, mirror(4, MirrorState::NonPrimary, true));
        assert!(not_whole_at_promotion(&view, 2).is_empty(), "it arrived in the last moment");
    }

    #[test]
    fn nothing_goes_that_the_peer_may_fall_back_on() {
        let name = |number: u64| format!("drover.{number}.20261122T031500Z");
        // Point 1 is snapshot 10, its mirror snapshot 11, and so on.
        let snapshots = (1..=5).flat_map(|n| [user(n * 10, &name(n)), mirror(n * 10 + 1, MirrorState::Primary, true)]);
        let ours = primary(snapshots.collect(), true);
        let gone = |peer: &ImageView, keep| -> Vec<u64> {
            prunable(&ours, peer, keep).iter().map(|point| point.name.number).collect()
        };
        let copied = |of, is_complete| mirror_of(of, MirrorState::NonPrimary, is_complete, of);
        let peer = |snapshots| secondary(snapshots);
        assert!(gone(&peer(vec![]), 1).is_empty());
        assert_eq!(gone(&peer(vec![copied(31, true), copied(41, false)]), 1), [1, 2]);
        assert_eq!(gone(&peer(vec![copied(51, true)]), 2), [1, 2, 3]);
        assert_eq!(gone(&peer(vec![copied(51, true)]), 0), [1, 2, 3, 4]);
        assert!(gone(&peer(vec![copied(51, true)]), 9).is_empty());
        // Of another primary.
        let other = ImageView { site_uuid: "another".to_owned(), ..ours.clone() };
        assert!(prunable(&other, &peer(vec![copied(51, true)]), 1).is_empty());
    }

    #[test]
    fn a_group_ends_on_the_newest_number_that_all_have() {
        let name = |number: u64| format!("drover.{number}.20261122T031500Z");
        let copied = |numbers: &[u64], half: Option<u64>| {
            let whole = numbers
                .iter()
                .flat_map(|n| [user(n * 10, &name(*n)), mirror(n * 10 + 1, MirrorState::NonPrimary, true)]);
            let half =
                half.iter().flat_map(|n| [user(n * 10, &name(*n)), mirror(n * 10 + 1, MirrorState::NonPrimary, false)]);
            secondary(whole.chain(half).collect())
        };
        let (ahead, behind) = (copied(&[1, 2, 3], None), copied(&[1, 2], Some(3)));
        let number = |views: &[&ImageView]| newest_common(views.iter().copied()).map(|name| name.number);
        assert_eq!(number(&[&ahead, &behind]), Some(2));
        assert_eq!(number(&[&ahead]), Some(3));
        assert_eq!(newest_common([&ahead, &copied(&[], Some(1))]), None);
        assert_eq!(newest_common([]), None);
        let named = |number| PointName::parse(&name(number)).unwrap();
        let (second, third) = (whole(&ahead, named(2)).unwrap(), whole(&ahead, named(3)).unwrap());
        assert!(is_newest(&ahead, &third) && !is_newest(&ahead, &second));
        assert!(!is_newest(&behind, &whole(&behind, named(2)).unwrap()), "another one is on its way");
        assert_eq!(whole(&behind, named(3)), None);
        // Each of them had one of its own.
        let mut other = copied(&[1, 2], None);
        other.snapshots.push(user(30, "drover.3.20261122T051500Z"));
        other.snapshots.push(mirror(31, MirrorState::NonPrimary, true));
        assert_eq!(number(&[&ahead, &other]), Some(2));
        // rbd-mirror keeps the newest mirror snapshot alone.
        let mut pruned = ahead.clone();
        pruned.snapshots.retain(|snapshot| snapshot.id != 21);
        assert!(is_newest(&pruned, &third) && !is_newest(&pruned, &second));
        // It was primary after the point, and is a copy of what came then.
        let mut again = ahead;
        again.snapshots.push(mirror(40, MirrorState::PrimaryDemoted, true));
        again.snapshots.push(mirror(41, MirrorState::NonPrimary, true));
        assert!(!is_newest(&again, &third));
    }

    #[test]
    fn what_proves_nothing_makes_no_point_whole() {
        let point = user(1, "drover.1.20261122T031500Z");
        let whole = |snapshots| points(&secondary(snapshots))[0].is_whole;
        // Copied before its mirror snapshot: in a first sync, and after a demotion of its own.
        assert!(!whole(vec![point.clone()]));
        let demoted = mirror(1, MirrorState::PrimaryDemoted, true);
        assert!(!whole(vec![demoted, user(2, "drover.2.20261122T031500Z")]));
        // Left by a promotion by force that did not end.
        let mut orphan = mirror(2, MirrorState::NonPrimary, true);
        if let SnapshotKind::Mirror(mirror) = &mut orphan.kind {
            mirror.primary_id = None;
        }
        assert!(!whole(vec![point.clone(), orphan]));
        assert!(whole(vec![point, mirror(2, MirrorState::PrimaryDemoted, true)]));
    }
}
