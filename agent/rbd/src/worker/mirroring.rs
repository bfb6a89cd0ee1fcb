//! Calls on the mirroring of a pool.

use std::collections::BTreeMap;

use drover_librbd::{Cluster, ErrorKind, MirrorMode, PeerDirection, Pool, Secret};
use serde::Deserialize;

use super::{image, pool};
use crate::{
    pool::{DaemonView, PeerView, PoolMode, PoolPlace, PoolView, Token, Traffic},
    request::{Failure, FailureKind, Schedule},
    view::ImagePlace,
};

fn open(cluster: &Cluster, place: &PoolPlace) -> Result<Pool, drover_librbd::Error> {
    image::pool(cluster, &place.pool, &place.namespace)
}

pub(super) fn look(cluster: &Cluster, place: &PoolPlace) -> Result<PoolView, Failure> {
    let pool = open(cluster, place)?;
    let mode = match pool.mirror_mode()? {
        MirrorMode::Disabled => PoolMode::Disabled,
        MirrorMode::Image => PoolMode::Image,
        MirrorMode::Pool => PoolMode::Pool,
        _ => PoolMode::Unknown,
    };
    let mirror_uuid = match pool.mirror_uuid() {
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        uuid => uuid?,
    };
    // Where there is none librbd gives this.
    let site_name = Some(cluster.site_name()?).filter(|name| cluster.fsid().as_ref() != Ok(name));
    // Peers are those of the pool.
    let peers = match open(cluster, &PoolPlace { namespace: String::new(), ..place.clone() })?.peers() {
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        peers => peers?,
    };
    let peer = |peer: drover_librbd::Peer| PeerView {
        traffic: match peer.direction {
            PeerDirection::Receive => Some(Traffic::Receive),
            PeerDirection::Send => Some(Traffic::Send),
            PeerDirection::Both => Some(Traffic::Both),
            _ => None,
        },
        uuid: peer.uuid,
        site_name: peer.site_name,
        mirror_uuid: peer.mirror_uuid,
    };
    // The peers of the default namespace are those of all.
    let mut mirrored = mirrored_images(&pool)?;
    if place.namespace.is_empty() {
        for namespace in pool.namespaces()? {
            mirrored += mirrored_images(&pool.with_namespace(&namespace)?)?;
        }
    }
    // The mgr may be away: the rest is told all the same.
    let (daemons, schedules) = (daemons(cluster), mgr_schedules(cluster, place));
    let mgr_problem = daemons.as_ref().err().or(schedules.as_ref().err()).map(|failure| failure.message.clone());
    Ok(PoolView {
        mode,
        site_name,
        mirror_uuid,
        peers: peers.into_iter().map(peer).collect(),
        daemons: daemons.unwrap_or_default(),
        mirrored_images: mirrored,
        schedules: schedules.unwrap_or_default(),
        mgr_problem,
    })
}

/// Those that reach every image of the pool.
fn mgr_schedules(cluster: &Cluster, place: &PoolPlace) -> Result<Vec<Schedule>, Failure> {
    let every = ImagePlace { pool: place.pool.clone(), namespace: place.namespace.clone(), image: String::new() };
    pool::schedules(cluster, &every)
}

fn mirrored_images(pool: &Pool) -> Result<usize, drover_librbd::Error> {
    let (mut images, mut last) = (0, String::new());
    loop {
        let page = match pool.mirrored_images(&last) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(images),
            page => page?,
        };
        let Some(end) = page.last() else { return Ok(images) };
        last.clone_from(&end.id);
        images += page.len();
    }
}

#[derive(Deserialize)]
struct Services {
    services: BTreeMap<String, Service>,
}

#[derive(Deserialize)]
struct Service {
    /// By the daemon's number, and a summary in words among them.
    daemons: BTreeMap<String, serde_json::Value>,
}

#[derive(Deserialize)]
struct Daemon {
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    id: String,
    hostname: String,
    ceph_version_short: String,
}

/// A daemon that was not heard of for a minute (`mgr_service_beacon_grace`) is none any more.
fn daemons(cluster: &Cluster) -> Result<Vec<DaemonView>, Failure> {
    const CALL: &str = "service dump";
    let reply = cluster.mgr_command(r#"{"prefix":"service dump","format":"json"}"#).map_err(Failure::from)?;
    let services: Services = serde_json::from_str(&reply.output).map_err(|error| Failure {
        call: CALL.to_owned(),
        kind: FailureKind::Other,
        message: format!("the mgr's answer to {CALL} is not understood: {error}"),
    })?;
    let mirrors = services.services.into_iter().find(|(name, _)| name == "rbd-mirror");
    let daemons = mirrors.into_iter().flat_map(|(_, service)| service.daemons.into_values());
    let daemons = daemons.filter_map(|daemon| serde_json::from_value::<Daemon>(daemon).ok());
    let view = |Metadata { id, hostname, ceph_version_short: version }| DaemonView { id, hostname, version };
    Ok(daemons.map(|daemon| view(daemon.metadata)).collect())
}

/// Images are mirrored one by one, or not at all.
pub(super) fn set_mode(cluster: &Cluster, place: &PoolPlace, is_enabled: bool) -> Result<(), drover_librbd::Error> {
    let mode = if is_enabled { MirrorMode::Image } else { MirrorMode::Disabled };
    open(cluster, place)?.set_mirror_mode(mode)
}

pub(super) fn create_token(cluster: &Cluster, place: &PoolPlace) -> Result<Token, drover_librbd::Error> {
    open(cluster, place)?.peer_bootstrap_create().map(|secret| Token(secret.reveal().to_owned()))
}

pub(super) fn import(
    cluster: &Cluster,
    place: &PoolPlace,
    Token(token): Token,
    is_both: bool,
) -> Result<(), drover_librbd::Error> {
    let direction = if is_both { PeerDirection::Both } else { PeerDirection::Receive };
    open(cluster, place)?.peer_bootstrap_import(direction, &Secret::new(token))
}

/// One that is gone already is removed.
pub(super) fn remove_peer(cluster: &Cluster, place: &PoolPlace, uuid: &str) -> Result<(), drover_librbd::Error> {
    match open(cluster, place)?.peer_remove(uuid) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
