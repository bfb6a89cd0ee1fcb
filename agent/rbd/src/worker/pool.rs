//! Calls on a pool: records in an omap object, and what the mgr schedules.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use drover_librbd::{
    Access, Cluster, Condition, Error, ErrorKind, ImageRef, Lock, OmapChange, Renewal, TrashEntry, TrashSource, Written,
};
use serde::Deserialize;

use super::image::pool;
use crate::{
    point::PointName,
    pool::PoolPlace,
    request::{Failure, FailureKind, Schedule},
    view::ImagePlace,
};

pub(super) fn read_record(
    cluster: &Cluster,
    name: &str,
    namespace: &str,
    object: &str,
) -> Result<Vec<(String, String)>, Error> {
    let record = match pool(cluster, name, namespace)?.object(object)?.omap() {
        Err(error) if error.kind() == ErrorKind::NotFound => BTreeMap::new(),
        record => record?,
    };
    let text = |(key, value): (String, Vec<u8>)| (key, String::from_utf8_lossy(&value).into_owned());
    Ok(record.into_iter().map(text).collect())
}

pub(super) fn read_key(
    cluster: &Cluster,
    name: &str,
    namespace: &str,
    object: &str,
    key: &str,
) -> Result<Vec<(String, String)>, Error> {
    let record = match pool(cluster, name, namespace)?.object(object)?.omap_values(&[key]) {
        Err(error) if error.kind() == ErrorKind::NotFound => BTreeMap::new(),
        record => record?,
    };
    let text = |(key, value): (String, Vec<u8>)| (key, String::from_utf8_lossy(&value).into_owned());
    Ok(record.into_iter().map(text).collect())
}

/// Without a value the key goes.
pub(super) fn write_record(
    cluster: &Cluster,
    name: &str,
    namespace: &str,
    object: &str,
    key: &str,
    value: Option<&str>,
) -> Result<(), Error> {
    let object = pool(cluster, name, namespace)?.object(object)?;
    let set: Vec<_> = value.map(|value| (key, value.as_bytes())).into_iter().collect();
    let remove: &[&str] = if value.is_none() { &[key] } else { &[] };
    match object.change_omap(Condition::Always, OmapChange { set: &set, remove })? {
        Written::Done | Written::Refused => Ok(()),
    }
}

/// As one step of the OSD, if the key has the value that is expected; an empty value counts as none.
pub(super) fn exchange_record(
    cluster: &Cluster,
    place: &ImagePlace,
    object: &str,
    expected: Option<&str>,
    value: Option<&str>,
) -> Result<bool, Error> {
    let object = pool(cluster, &place.pool, &place.namespace)?.object(object)?;
    let key = place.image.as_str();
    let set: Vec<_> = value.map(|value| (key, value.as_bytes())).into_iter().collect();
    let remove: &[&str] = if value.is_none() { &[key] } else { &[] };
    let change = OmapChange { set: &set, remove };
    let as_expected = [(key, expected.unwrap_or_default().as_bytes())];
    let written = match object.change_omap(Condition::Equal(&as_expected), change) {
        Err(error) if error.kind() == ErrorKind::NotFound && expected.is_none() => {
            object.change_omap(Condition::New, change)?
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Written::Refused,
        written => written?,
    };
    Ok(written == Written::Done)
}

/// Nobody can purge an image that has snapshots, and of these nobody but Drover knows. Those of others stay. `rest`: how long an image stays in
/// the trash as it is, whatever its own time there.
pub(super) fn prune_trash(cluster: &Cluster, place: &PoolPlace, rest: Duration) -> Result<usize, Error> {
    /// Each takes a second or two; the rest is for the next call.
    const AT_ONCE: usize = 20;
    let pool = pool(cluster, &place.pool, &place.namespace)?;
    let now = SystemTime::now();
    let is_over = |entry: &TrashEntry| {
        let has_rested = now.duration_since(entry.deleted).is_ok_and(|since| since >= rest);
        has_rested && entry.kept_until <= now && matches!(entry.source, TrashSource::User | TrashSource::Mirroring)
    };
    let mut gone = 0;
    for entry in pool.trash()?.into_iter().filter(is_over) {
        // It was purged, taken out, or is used by somebody: the next one may be free.
        let Ok(image) = pool.open(ImageRef::Id(&entry.id), Access::ReadWrite) else { continue };
        for snapshot in image.snapshots().unwrap_or_default() {
            if gone == AT_ONCE {
                return Ok(gone);
            }
            if PointName::parse(&snapshot.name).is_some() && image.remove_snapshot_by_id(snapshot.id).is_ok() {
                gone += 1;
            }
        }
    }
    Ok(gone)
}

#[derive(Deserialize)]
struct Shut {
    addr: String,
    /// As `2027-11-22T13:24:54.803278+0000`.
    until: String,
}

/// An OSD that has not heard of the new list still takes a write. It hears by the next request of a connection that has, to any object,
/// there or not: so many that each OSD gets some.
pub(super) fn shut_out(cluster: &Cluster, place: &ImagePlace, address: &str, time: Duration) -> Result<(), Error> {
    const ASKED: usize = 1024;
    cluster.blocklist_add(address, time)?;
    let pool = pool(cluster, &place.pool, &place.namespace)?;
    for n in 0..ASKED {
        match pool.object(&format!("drover.fence.{n}"))?.omap_values(&[]) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            asked => drop(asked?),
        }
    }
    Ok(())
}

pub(super) fn blocklisted(cluster: &Cluster) -> Result<Vec<(String, String)>, Failure> {
    let reply = cluster.mon_command(r#"{"prefix":"osd blocklist ls","format":"json"}"#).map_err(Failure::from)?;
    // Whole networks stand in a list of their own behind the first.
    let mut lists = serde_json::Deserializer::from_str(&reply.output).into_iter::<Vec<Shut>>();
    let listed = lists.next().unwrap_or_else(|| Ok(Vec::new())).map_err(|error| Failure {
        call: "osd blocklist ls".to_owned(),
        kind: FailureKind::Other,
        message: format!("the monitors' answer is not understood: {error}"),
    })?;
    Ok(listed.into_iter().map(|Shut { addr, until }| (addr, until)).collect())
}

pub(super) fn unblocklist(cluster: &Cluster, address: &str) -> Result<(), Failure> {
    let json = serde_json::json!({ "prefix": "osd blocklist", "blocklistop": "rm", "addr": address });
    cluster.mon_command(&json.to_string()).map_err(Failure::from).map(drop)
}

#[derive(Deserialize)]
struct Listed {
    name: String,
    schedule: Vec<Interval>,
}

#[derive(Deserialize)]
struct Interval {
    interval: String,
}

/// Of the image, its namespace, its pool, and all pools: those of a wider level reach the image as well.
pub(super) fn schedules(cluster: &Cluster, place: &ImagePlace) -> Result<Vec<Schedule>, Failure> {
    let json = r#"{"prefix":"rbd mirror snapshot schedule list","level_spec":"","format":"json"}"#;
    let reply = cluster.mgr_command(json).map_err(Failure::from)?;
    let listed: BTreeMap<String, Listed> = serde_json::from_str(&reply.output).map_err(|error| Failure {
        call: "rbd mirror snapshot schedule list".to_owned(),
        kind: FailureKind::Other,
        message: format!("the mgr's answer is not understood: {error}"),
    })?;
    let reaches = |level: &str| level.is_empty() || place.to_string() == level || is_within(place, level);
    let found = listed.into_values().filter(|listed| reaches(&listed.name)).flat_map(|Listed { name, schedule }| {
        schedule.into_iter().map(move |Interval { interval }| Schedule { level: name.clone(), interval })
    });
    Ok(found.collect())
}

pub(super) fn remove_schedule(cluster: &Cluster, place: &ImagePlace, interval: &str) -> Result<(), Failure> {
    let json = serde_json::json!({
        "prefix": "rbd mirror snapshot schedule remove",
        "level_spec": place.to_string(),
        "interval": interval,
    });
    cluster.mgr_command(&json.to_string()).map_err(Failure::from).map(drop)
}

/// Whose schedules run: a lock that the OSD forgets.
const LEADER: &str = "drover.leader";

/// The lock belongs to a connection: one that another connection of the same agent has is taken over.
pub(super) fn lead(cluster: &Cluster, name: &str, namespace: &str, agent: &str, time: Duration) -> Result<bool, Error> {
    let object = pool(cluster, name, namespace)?.object(LEADER)?;
    let lock = Lock { name: LEADER, cookie: agent };
    let take = || object.lock(lock, "whose schedules of sync points run", Some(time), Renewal::May);
    let is_busy = |error: &Error| matches!(error.kind(), ErrorKind::Busy | ErrorKind::Exists);
    match take() {
        Ok(()) => return Ok(true),
        Err(error) if is_busy(&error) => {}
        Err(error) => return Err(error),
    }
    let lockers = object.lockers(LEADER)?.lockers;
    let Some(own) = lockers.iter().find(|locker| locker.cookie == agent) else { return Ok(false) };
    match object.break_lock(LEADER, own) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        broken => broken?,
    }
    match take() {
        Ok(()) => Ok(true),
        Err(error) if is_busy(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// `pool/` and `pool/namespace/`.
fn is_within(place: &ImagePlace, level: &str) -> bool {
    let pool = format!("{}/", place.pool);
    level == pool || (!place.namespace.is_empty() && level == format!("{pool}{}/", place.namespace))
}
