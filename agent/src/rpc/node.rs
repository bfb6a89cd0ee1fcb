//! The agent itself.

use std::{sync::Arc, time::Instant};

use drover_engine::session;
use drover_linux::{Dir, FilesystemType};
use drover_proto::v1::{self, node_server::Node};
use tonic::{Request, Response, Status};

use super::status::ToStatus as _;
use crate::{
    config::Config,
    mirror::SharedMirrors,
    throttle,
    volumes::{RootView, Volumes},
    work::{Lane, Lanes},
};

pub struct NodeService {
    pub config: Arc<Config>,
    pub volumes: Arc<Volumes>,
    pub mirrors: SharedMirrors,
    pub lanes: Arc<Lanes>,
    pub started: Instant,
}

#[tonic::async_trait]
impl Node for NodeService {
    async fn get_info(
        &self,
        _request: Request<v1::NodeGetInfoRequest>,
    ) -> Result<Response<v1::NodeGetInfoResponse>, Status> {
        let (config, volumes, started) = (self.config.clone(), self.volumes.clone(), self.started);
        let described = self.lanes.run(Lane::Calls, move || describe(&config, &volumes, started)).await;
        let described = described.map_err(|error| error.to_status())?;
        let mirrors = self.mirrors.clone();
        let ceph = self.lanes.run(Lane::Ceph, move || mirrors.clusters()).await.map_err(|error| error.to_status())?;
        Ok(Response::new(v1::NodeGetInfoResponse { ceph, ..described }))
    }
}

fn describe(config: &Config, volumes: &Volumes, started: Instant) -> v1::NodeGetInfoResponse {
    let limits = &config.limits;
    let missing = drover_linux::privileges::missing().unwrap_or_default();
    v1::NodeGetInfoResponse {
        name: config.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        session_version_min: session::VERSION.into(),
        session_version_max: session::VERSION.into(),
        uptime_seconds: started.elapsed().as_secs(),
        roots: volumes.roots().into_iter().map(root).collect(),
        capabilities_missing: missing.into_iter().map(str::to_owned).collect(),
        limits: Some(v1::Limits {
            jobs: limits.jobs as u32,
            sessions: limits.sessions as u32,
            in_flight_bytes: limits.in_flight_bytes() as u64,
            bandwidth_bytes_per_second: throttle::in_force(limits),
        }),
        peers: config
            .peers
            .iter()
            .map(|peer| v1::PeerInfo { name: peer.name.clone(), address: peer.address.clone() })
            .collect(),
        peak_rss_bytes: drover_linux::process_peak_rss_bytes().unwrap_or(0),
        ceph: Vec::new(),
    }
}

fn root(view: RootView) -> v1::RootInfo {
    let mut info = v1::RootInfo {
        name: view.name,
        path: view.path.to_string_lossy().into_owned(),
        beside: view.beside.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default(),
        volume_ids: view.volumes.iter().map(ToString::to_string).collect(),
        problems: view.problems,
        ..v1::RootInfo::default()
    };
    let looked = Dir::open(&view.path).and_then(|dir| Ok((dir.filesystem()?, dir.space()?)));
    match looked {
        Ok((filesystem, space)) => {
            info.filesystem = filesystem_name(filesystem);
            (info.bytes_total, info.bytes_free) = (space.total_bytes, space.free_bytes);
        }
        Err(error) => info.problems.push(format!("can't be read: {error}")),
    }
    info
}

pub(crate) fn filesystem_name(filesystem: FilesystemType) -> String {
    match filesystem {
        FilesystemType::Ext => "ext4".to_owned(),
        FilesystemType::Xfs => "xfs".to_owned(),
        FilesystemType::Btrfs => "btrfs".to_owned(),
        FilesystemType::Tmpfs => "tmpfs".to_owned(),
        FilesystemType::Fuse => "fuse".to_owned(),
        FilesystemType::Overlay => "overlay".to_owned(),
        FilesystemType::Other(magic) => format!("type {magic:#x}"),
    }
}
