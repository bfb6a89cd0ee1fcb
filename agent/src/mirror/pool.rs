//! Mirroring of pools.

use drover_proto::v1;
use drover_rbd::{
    pool::{Pool, PoolMode, PoolPlace, PoolView, Traffic},
    request::Schedule,
};

use super::{MirrorError, Mirrors};

impl Mirrors {
    /// Only of pools that the configuration lists: what else is in the cluster is no business of the agent's.
    pub fn pool<T>(
        &self,
        cluster: &str,
        place: &PoolPlace,
        verb: impl FnOnce(Pool<'_>) -> Result<T, drover_rbd::pool::PoolError>,
    ) -> Result<T, MirrorError> {
        let ceph = self.ceph(cluster)?;
        let is_configured = ceph.registries.iter().any(|registry| registry.pool() == (&place.pool, &place.namespace));
        // A namespace's pool has its peers.
        let is_pool_of_one =
            || place.namespace.is_empty() && ceph.registries.iter().any(|registry| registry.pool().0 == place.pool);
        if !is_configured && !is_pool_of_one() {
            return Err(MirrorError::NoSuchPool { cluster: cluster.to_owned(), place: place.clone() });
        }
        Ok(verb(Pool { crew: &ceph.crew, setup: ceph.setup.as_ref().unwrap_or(&ceph.crew), place })?)
    }
}

pub fn info(cluster: &str, place: &PoolPlace, view: &PoolView) -> v1::PoolInfo {
    let mode = match view.mode {
        PoolMode::Disabled => v1::PoolMode::Disabled,
        PoolMode::Image => v1::PoolMode::Image,
        PoolMode::Pool => v1::PoolMode::Pool,
        PoolMode::Unknown => v1::PoolMode::Unspecified,
    };
    let traffic = |traffic| match traffic {
        Some(Traffic::Receive) => v1::PeerTraffic::Receive,
        Some(Traffic::Send) => v1::PeerTraffic::Send,
        Some(Traffic::Both) => v1::PeerTraffic::Both,
        None => v1::PeerTraffic::Unspecified,
    };
    let peers = view.peers.iter().map(|peer| v1::PoolPeer {
        uuid: peer.uuid.clone(),
        site_name: peer.site_name.clone(),
        traffic: traffic(peer.traffic).into(),
        mirror_uuid: peer.mirror_uuid.clone(),
    });
    let daemons = view.daemons.iter().map(|daemon| v1::MirrorDaemon {
        id: daemon.id.clone(),
        hostname: daemon.hostname.clone(),
        version: daemon.version.clone(),
    });
    let of_mgr = |Schedule { level, interval }: Schedule| v1::MgrSchedule { level, interval };
    v1::PoolInfo {
        spec: Some(v1::PoolSpec {
            cluster: cluster.to_owned(),
            pool: place.pool.clone(),
            namespace: place.namespace.clone(),
        }),
        mode: mode.into(),
        site_name: view.site_name.clone().unwrap_or_default(),
        mirror_uuid: view.mirror_uuid.clone(),
        peers: peers.collect(),
        daemons: daemons.collect(),
        mirrored_images: u32::try_from(view.mirrored_images).unwrap_or(u32::MAX),
        mgr_schedules: view.schedules.iter().cloned().map(of_mgr).collect(),
        health_because: view.troubles(),
    }
}
