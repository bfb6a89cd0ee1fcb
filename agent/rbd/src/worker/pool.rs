//! Calls on a pool: records in an omap object, and what the mgr schedules.

use std::collections::BTreeMap;

use drover_librbd::{Cluster, Condition, Error, ErrorKind, OmapChange, Written};
use serde::Deserialize;

use super::image::pool;
use crate::{
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

/// `pool/` and `pool/namespace/`.
fn is_within(place: &ImagePlace, level: &str) -> bool {
    let pool = format!("{}/", place.pool);
    level == pool || (!place.namespace.is_empty() && level == format!("{pool}{}/", place.namespace))
}
