//! The doors: gRPC over mutual TLS, the Unix socket for root on this host, and the metrics' port.

use std::{fs, io, net::SocketAddr, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc};

use anyhow::Context as _;
use drover_proto::v1::{
    fence_server::FenceServer, groups_server::GroupsServer, node_server::NodeServer, pools_server::PoolsServer,
    replication_server::ReplicationServer, snapshots_server::SnapshotsServer, sync_server::SyncServer,
    trash_server::TrashServer,
};
use tokio::{
    net::{TcpListener, UnixListener, UnixStream},
    task::JoinHandle,
};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    service::Routes,
    transport::{Server, server::TcpIncoming},
};

use super::App;
use crate::{
    rpc::{
        access::{AccessLayer, Door},
        replication::{fence::FenceService, groups::GroupsService, pools::PoolsService, trash::TrashService},
        snapshots::SnapshotsService,
    },
    transfer::{
        CONNECTION_WINDOW_BYTES, HTTP2_FRAME_BYTES, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, STREAM_WINDOW_BYTES,
    },
};

/// Streams of one connection: a controller watches many jobs over one.
const STREAMS_MAX: u32 = 256;
const HEADER_BYTES_MAX: u32 = 16 * 1024;

/// The listeners' tasks; `failed` when one ends by itself.
pub(super) struct Listeners {
    pub(super) address: SocketAddr,
    tasks: Vec<JoinHandle<()>>,
    failed: CancellationToken,
}

impl Listeners {
    pub(super) async fn failed(&self) {
        self.failed.cancelled().await;
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed.is_cancelled()
    }

    pub(super) async fn closed(self) {
        for task in self.tasks {
            let _ = task.await;
        }
    }
}

impl App {
    pub(super) async fn listen(&self) -> anyhow::Result<Listeners> {
        let listen = self.config.listen;
        let listener = TcpListener::bind(listen).await.with_context(|| format!("listen on {listen}"))?;
        let address = listener.local_addr().context("read the listener's address")?;
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let tls = self.credentials.server();
        let failed = CancellationToken::new();

        let door = Door::Tls(Arc::new(self.config.roles.clone()));
        let server = tuned().tls_config(tls).context("use certificate and key")?;
        let router = server.layer(self.gate(door)).add_routes(self.routes().await?);
        let over_tls = self.watch_over(
            failed.clone(),
            router.serve_with_incoming_shutdown(incoming, self.stop.clone().cancelled_owned()),
        );

        let path = self.config.socket_path();
        let socket = bind_socket(&path).await.with_context(|| format!("listen on {}", path.display()))?;
        let router = tuned().layer(self.gate(Door::LocalSocket)).add_routes(self.routes().await?);
        let incoming = UnixListenerStream::new(socket);
        let local = self.watch_over(
            failed.clone(),
            router.serve_with_incoming_shutdown(incoming, self.stop.clone().cancelled_owned()),
        );

        self.serve_metrics().await?;
        Ok(Listeners { address, tasks: vec![over_tls, local], failed })
    }

    fn gate(&self, door: Door) -> AccessLayer {
        AccessLayer { door, metrics: self.metrics.clone() }
    }

    async fn routes(&self) -> anyhow::Result<Routes> {
        let (reporter, health) = tonic_health::server::health_reporter();
        // The empty name, which means the whole agent, is serving from the start.
        reporter.set_serving::<SyncServer<crate::rpc::sync::SyncService>>().await;
        reporter.set_serving::<ReplicationServer<crate::rpc::replication::ReplicationService>>().await;
        reporter.set_serving::<FenceServer<FenceService>>().await;
        reporter.set_serving::<GroupsServer<GroupsService>>().await;
        reporter.set_serving::<PoolsServer<PoolsService>>().await;
        reporter.set_serving::<TrashServer<TrashService>>().await;
        reporter.set_serving::<SnapshotsServer<SnapshotsService>>().await;
        reporter.set_serving::<NodeServer<crate::rpc::node::NodeService>>().await;
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(drover_proto::DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let mut routes = Routes::builder();
        routes
            .add_service(ReplicationServer::new(self.replication()))
            .add_service(FenceServer::new(FenceService(self.replication())))
            .add_service(GroupsServer::new(GroupsService(self.replication())))
            .add_service(PoolsServer::new(PoolsService(self.replication())))
            .add_service(TrashServer::new(TrashService(self.replication())))
            .add_service(SnapshotsServer::new(self.snapshots()))
            .add_service(SyncServer::new(self.sync()))
            .add_service(NodeServer::new(self.node()))
            .add_service(self.transfer().into_server())
            .add_service(health)
            .add_service(reflection().build_v1().context("build reflection v1")?)
            .add_service(reflection().build_v1alpha().context("build reflection v1alpha")?);
        Ok(routes.routes())
    }

    fn watch_over(
        &self,
        failed: CancellationToken,
        serving: impl Future<Output = Result<(), tonic::transport::Error>> + Send + 'static,
    ) -> JoinHandle<()> {
        let stop = self.stop.clone();
        tokio::spawn(async move {
            if let Err(error) = serving.await {
                tracing::error!("listener failed: {}", crate::rpc::status::chain(&error));
            }
            if !stop.is_cancelled() {
                failed.cancel();
            }
        })
    }
}

fn tuned() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(HTTP2_FRAME_BYTES)
        .max_concurrent_streams(STREAMS_MAX)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
}

/// The journal has proved that no other agent uses this state directory, so a socket that is there is a dead one's; one
/// that answers all the same is left alone.
async fn bind_socket(path: &Path) -> io::Result<UnixListener> {
    if path.try_exists()? {
        if UnixStream::connect(path).await.is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    // The directory is 0700, so no one else could connect in between.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}
