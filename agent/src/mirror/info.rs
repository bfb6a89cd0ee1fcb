//! Between an image as it was seen and the wire's messages.

use std::num::NonZeroU64;

use drover_proto::v1;
use drover_rbd::{
    point::{self, Point},
    verdict::{self, Forced},
    view::{
        ImageView, MirrorSnapshot, MirrorState, Mirroring, SiteView, SnapshotKind, SnapshotView, StandIn, TurnView,
        UserView, Verb,
    },
};

use super::Mirrored;
use crate::job::unix_now;

/// The image at the peer, or why it can't be seen.
pub type Peer = Result<ImageView, String>;

/// Who uses an image, and who may not any more.
#[derive(Debug, Default)]
pub(super) struct Clients {
    pub users: Vec<UserView>,
    pub fenced: Vec<String>,
}

pub(super) fn spec_of(mirrored: &Mirrored) -> v1::VolumeSpec {
    let (cluster, place) = (mirrored.cluster.clone(), mirrored.place.clone());
    let replication = if mirrored.is_delta { v1::RbdReplication::Delta } else { v1::RbdReplication::Mirror };
    let image = v1::RbdImage {
        cluster,
        pool: place.pool,
        namespace: place.namespace,
        image: place.image,
        replication: replication.into(),
    };
    v1::VolumeSpec { kind: Some(v1::volume_spec::Kind::RbdImage(image)) }
}

pub(super) fn info(
    mirrored: &Mirrored,
    view: Option<&ImageView>,
    sites: Vec<SiteView>,
    Clients { users, fenced }: Clients,
    peer: Option<&Peer>,
    turn_of_missing: Option<TurnView>,
) -> v1::VolumeInfo {
    let (mut health, mut health_because) = health(view, peer);
    if let Some(why) = view.and_then(|view| late(mirrored, view)) {
        if health == v1::Health::Ok {
            health = v1::Health::Degraded;
        }
        health_because.push(why);
    }
    v1::VolumeInfo {
        volume_id: mirrored.id.to_string(),
        spec: Some(spec_of(mirrored)),
        role: match view {
            Some(view) if view.is_primary => v1::VolumeRole::Primary.into(),
            _ => v1::VolumeRole::Secondary.into(),
        },
        peer: mirrored.peer.clone(),
        health: health.into(),
        health_because,
        rpo_age_seconds: rpo_age_seconds(view, peer),
        mirror: match view {
            Some(view) => {
                let group = mirrored.group.clone().unwrap_or_default();
                let point_every_seconds = mirrored.point_every_secs.map_or(0, NonZeroU64::get);
                let users = users.into_iter().map(user).collect();
                Some(v1::RbdMirror { users, fenced, group, point_every_seconds, ..mirror(view, sites, peer) })
            }
            // Who asks must not take the image for one that is not there, in the middle of a verb that gives its name to another.
            None => turn_of_missing.map(|it| v1::RbdMirror { turn: Some(turn(&it)), ..v1::RbdMirror::default() }),
        },
        ..v1::VolumeInfo::default()
    }
}

/// A primary whose next point should have been taken.
fn late(mirrored: &Mirrored, view: &ImageView) -> Option<String> {
    const GRACE_SECS: u64 = 60;
    let every = mirrored.point_every_secs.filter(|_| view.is_primary && view.mirroring == Mirroring::Snapshot)?.get();
    let Some(newest) = point::points(view).last().map(|point| point.name.taken_at_unix_secs) else {
        return Some(format!("there is no sync point yet, and one is due every {every} s"));
    };
    let Ok(age) = u64::try_from(unix_now() - newest) else {
        return Some("the newest sync point is of the future: the clocks of the sites are apart".to_owned());
    };
    let is_late = age > every.saturating_mul(2).saturating_add(GRACE_SECS);
    is_late.then(|| {
        format!("the newest sync point is {age} s old, and one is due every {every} s: look at the agents' logs")
    })
}

fn health(view: Option<&ImageView>, peer: Option<&Peer>) -> (v1::Health, Vec<String>) {
    let Some(view) = view else {
        return (v1::Health::Degraded, vec!["the image is not here yet: rbd-mirror has not copied it".to_owned()]);
    };
    let mut because = Vec::new();
    let mut worst = v1::Health::Ok;
    if view.is_settling() {
        worst = v1::Health::Degraded;
        let number = view.stands_in_for.as_ref().map_or(0, |it| it.number);
        because.push(format!(
            "the image is a clone of point {number} that took a half copied one's place: it can be used, and is mirrored once it is independent"
        ));
    } else if view.mirroring != Mirroring::Snapshot {
        worst = v1::Health::Error;
        because.push("the image is not mirrored by snapshots".to_owned());
    }
    if view.is_half_primary {
        worst = v1::Health::Error;
        because
            .push("librbd was interrupted in a promotion: nobody can write to the image; promote it again".to_owned());
    }
    match peer {
        Some(Ok(peer)) if verdict::is_split_brain(view, peer) => {
            worst = v1::Health::Error;
            let had = |view: &ImageView| point::points(view).last().map_or("none".to_owned(), |it| it.name.to_string());
            because.push(format!(
                "split-brain: the image is primary at both sites; the newest point here is {}, at the peer {}",
                had(view),
                had(peer)
            ));
        }
        Some(Ok(_)) | None => {}
        Some(Err(why)) => {
            if worst == v1::Health::Ok {
                worst = v1::Health::Degraded;
            }
            because.push(format!("the peer can't be seen: {why}"));
        }
    }
    (worst, because)
}

/// Since the newest point that the secondary has whole.
fn rpo_age_seconds(view: Option<&ImageView>, peer: Option<&Peer>) -> Option<u64> {
    let view = view?;
    let secondary = if view.is_primary { peer?.as_ref().ok()? } else { view };
    let taken = point::newest_whole(secondary)?.name.taken_at_unix_secs;
    u64::try_from(unix_now() - taken).ok()
}

/// That is under way to a secondary: the newest mirror snapshot of its peer is not complete.
fn sync(view: &ImageView, sites: &[SiteView]) -> Option<v1::RbdSync> {
    let (id, newest) = view.newest_mirror_snapshot().filter(|_| !view.is_primary)?;
    let is_under_way = newest.state == MirrorState::NonPrimary && !newest.is_complete && newest.primary_id.is_some();
    if !is_under_way || view.objects == 0 {
        return None;
    }
    let (copied, objects) = (newest.objects_copied.min(view.objects), view.objects);
    let began = view.snapshots.iter().find(|snapshot| snapshot.id == id)?.made_at_unix_secs;
    let took = u64::try_from(unix_now() - began).unwrap_or(0);
    let own = sites.iter().find(|site| site.site_uuid.is_empty());
    Some(v1::RbdSync {
        percent: u32::try_from(copied * 100 / objects).unwrap_or(100),
        objects_copied: copied,
        seconds_left: (copied > 0).then(|| took.saturating_mul(objects - copied) / copied),
        bytes_per_second: own.and_then(|site| bytes_per_second(&site.description)),
    })
}

/// As in `replaying, {"bytes_per_second":123.0,…}`: only to be shown.
fn bytes_per_second(description: &str) -> Option<u64> {
    let (_, json) = description.split_once(", ")?;
    let told: serde_json::Value = serde_json::from_str(json).ok()?;
    told["bytes_per_second"].as_f64().map(|rate| rate as u64)
}

fn mirror(view: &ImageView, sites: Vec<SiteView>, peer: Option<&Peer>) -> v1::RbdMirror {
    let forced = verdict::forced(view);
    let planned = match peer {
        _ if view.is_primary => None,
        Some(peer) => verdict::planned(view, peer.as_ref().map_err(Clone::clone)).err(),
        None => Some(verdict::Unsafe::PeerUnknown("it was not asked".to_owned())),
    };
    let progress = sync(view, &sites);
    v1::RbdMirror {
        sync: progress,
        image_id: view.id.clone(),
        global_id: view.global_id.clone(),
        site_uuid: view.site_uuid.clone(),
        size_bytes: view.size_bytes,
        objects: view.objects,
        snapshots: view.mirror_snapshots().map(|(id, snapshot)| snapshot_of(id, snapshot)).collect(),
        points: point::points(view).into_iter().map(sync_point).collect(),
        promote_unsafe: planned.map(|why| why.to_string()),
        promote_forced_ends: (forced != Forced::Primary).then(|| verdict::told(&forced)),
        sites: sites.into_iter().map(site).collect(),
        turn: view.turn.as_ref().map(turn),
        users: Vec::new(),
        stands_in_for: view.stands_in_for.clone().map(|it| v1::StandIn { global_id: it.global_id, number: it.number }),
        group: String::new(),
        point_every_seconds: 0,
        fenced: Vec::new(),
    }
}

fn turn(turn: &TurnView) -> v1::RbdTurn {
    let verb = match turn.verb {
        Verb::Enable => v1::RbdVerb::Enable,
        Verb::Point => v1::RbdVerb::Point,
        Verb::Promote => v1::RbdVerb::Promote,
        Verb::Demote => v1::RbdVerb::Demote,
        Verb::Resync => v1::RbdVerb::Resync,
        Verb::Fence => v1::RbdVerb::Fence,
        Verb::Disable => v1::RbdVerb::Disable,
        Verb::Sync => v1::RbdVerb::Sync,
        Verb::Rollback => v1::RbdVerb::Rollback,
    };
    let (agent, ended) = (turn.agent.clone(), turn.has_ended);
    v1::RbdTurn { agent, verb: verb.into(), since_unix_secs: turn.since_unix_secs, ended }
}

/// A verb of a later release may be any.
fn turn_view(turn: &v1::RbdTurn) -> TurnView {
    let verb = match v1::RbdVerb::try_from(turn.verb) {
        Ok(v1::RbdVerb::Enable) => Verb::Enable,
        Ok(v1::RbdVerb::Point) => Verb::Point,
        Ok(v1::RbdVerb::Demote) => Verb::Demote,
        Ok(v1::RbdVerb::Resync) => Verb::Resync,
        Ok(v1::RbdVerb::Fence) => Verb::Fence,
        Ok(v1::RbdVerb::Disable) => Verb::Disable,
        Ok(v1::RbdVerb::Sync) => Verb::Sync,
        Ok(v1::RbdVerb::Rollback) => Verb::Rollback,
        Ok(v1::RbdVerb::Promote | v1::RbdVerb::Unspecified) | Err(_) => Verb::Promote,
    };
    let (agent, has_ended, unwhole) = (turn.agent.clone(), turn.ended, Vec::new());
    TurnView { agent, verb, since_unix_secs: turn.since_unix_secs, has_ended, unwhole }
}

fn user(user: UserView) -> v1::RbdUser {
    let UserView { address, is_lock_owner, is_heard_of } = user;
    v1::RbdUser { address, lock_owner: is_lock_owner && is_heard_of, cut_off: is_lock_owner && !is_heard_of }
}

pub(crate) fn sync_point(point: Point) -> v1::SyncPoint {
    v1::SyncPoint {
        number: point.name.number,
        taken_at_unix_secs: point.name.taken_at_unix_secs,
        snapshot_id: point.snapshot_id,
        whole: point.is_whole,
    }
}

fn site(site: SiteView) -> v1::MirrorSite {
    v1::MirrorSite {
        site_uuid: site.site_uuid,
        state: site.state,
        description: site.description,
        updated_at_unix_secs: site.updated_at_unix_secs,
        up: site.is_up,
    }
}

fn snapshot_of(id: u64, snapshot: &MirrorSnapshot) -> v1::MirrorSnapshot {
    let state = match snapshot.state {
        MirrorState::Primary => v1::MirrorState::Primary,
        MirrorState::PrimaryDemoted => v1::MirrorState::PrimaryDemoted,
        MirrorState::NonPrimary => v1::MirrorState::NonPrimary,
        MirrorState::NonPrimaryDemoted => v1::MirrorState::NonPrimaryDemoted,
        MirrorState::Unknown => v1::MirrorState::Unspecified,
    };
    v1::MirrorSnapshot {
        id,
        state: state.into(),
        complete: snapshot.is_complete,
        primary_uuid: snapshot.primary_uuid.clone(),
        primary_id: snapshot.primary_id,
        objects_copied: snapshot.objects_copied,
    }
}

/// The image that a peer told of; `None` where it has none.
pub fn view_of(info: &v1::VolumeInfo) -> Option<ImageView> {
    let mirror = info.mirror.as_ref()?;
    let mut snapshots: Vec<_> =
        mirror.snapshots.iter().map(mirror_view).chain(mirror.points.iter().map(point_view)).collect();
    snapshots.sort_by_key(|snapshot| snapshot.id);
    Some(ImageView {
        id: mirror.image_id.clone(),
        size_bytes: mirror.size_bytes,
        objects: mirror.objects,
        mirroring: if mirror.global_id.is_empty() { Mirroring::Off } else { Mirroring::Snapshot },
        is_primary: info.role == i32::from(v1::VolumeRole::Primary),
        is_half_primary: false,
        global_id: mirror.global_id.clone(),
        site_uuid: mirror.site_uuid.clone(),
        snapshots,
        parent_id: None,
        stands_in_for: mirror.stands_in_for.clone().map(|it| StandIn {
            image_id: mirror.image_id.clone(),
            global_id: it.global_id,
            number: it.number,
        }),
        has_data_pool: false,
        number_floor: 0,
        turn: mirror.turn.as_ref().map(turn_view),
    })
}

fn mirror_view(snapshot: &v1::MirrorSnapshot) -> SnapshotView {
    let state = match v1::MirrorState::try_from(snapshot.state) {
        Ok(v1::MirrorState::Primary) => MirrorState::Primary,
        Ok(v1::MirrorState::PrimaryDemoted) => MirrorState::PrimaryDemoted,
        Ok(v1::MirrorState::NonPrimary) => MirrorState::NonPrimary,
        Ok(v1::MirrorState::NonPrimaryDemoted) => MirrorState::NonPrimaryDemoted,
        Ok(v1::MirrorState::Unspecified) | Err(_) => MirrorState::Unknown,
    };
    let mirror = MirrorSnapshot {
        state,
        is_complete: snapshot.complete,
        primary_uuid: snapshot.primary_uuid.clone(),
        primary_id: snapshot.primary_id,
        objects_copied: snapshot.objects_copied,
    };
    SnapshotView { id: snapshot.id, name: String::new(), made_at_unix_secs: 0, kind: SnapshotKind::Mirror(mirror) }
}

fn point_view(point: &v1::SyncPoint) -> SnapshotView {
    let name = point::PointName { number: point.number, taken_at_unix_secs: point.taken_at_unix_secs };
    SnapshotView { id: point.snapshot_id, name: name.to_string(), made_at_unix_secs: 0, kind: SnapshotKind::User }
}
