//! Clients of an agent, one for each role. Blocking: tests read from top to bottom.

use std::{future::Future, path::Path, time::Duration};

use drover_proto::v1::{
    self, fence_client::FenceClient, groups_client::GroupsClient, node_client::NodeClient, pools_client::PoolsClient,
    replication_client::ReplicationClient, snapshots_client::SnapshotsClient, sync_client::SyncClient,
    trash_client::TrashClient,
};
use tokio::{
    runtime::{Builder, Runtime},
    time::timeout,
};
use tonic::{
    Response, Status,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_types::StatusExt;

use super::{Agent, Outcome};

const CALL: Duration = Duration::from_secs(60);
const CONNECT: Duration = Duration::from_secs(5);

/// Whose certificate is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Controller,
    Viewer,
    /// Another agent, by name.
    Peer(&'static str),
    /// No certificate at all.
    Nobody,
}

impl Access {
    /// Name of the certificate's files.
    fn name(self) -> Option<&'static str> {
        match self {
            Self::Controller => Some("controller"),
            Self::Viewer => Some("viewer"),
            Self::Peer(name) => Some(name),
            Self::Nobody => None,
        }
    }
}

/// The stable name of an error, from the details of a status.
pub fn status_reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

#[derive(Debug)]
pub struct Client {
    runtime: Runtime,
    channel: Channel,
}

impl Client {
    pub fn connect(agent: &Agent, access: Access) -> Result<Self, Box<dyn std::error::Error>> {
        let certificates = agent.certificates();
        let identity = access.name().map(|name| (certificates.certificate(name), certificates.key(name)));
        let identity = identity.as_ref().map(|(certificate, key)| (certificate.as_path(), key.as_path()));
        Self::connect_with(agent.port(), &agent.setup.name, &certificates.ca(), identity)
    }

    /// To an agent called `name`, with any certificate.
    pub fn connect_with(
        port: u16,
        name: &str,
        ca: &Path,
        identity: Option<(&Path, &Path)>,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(std::fs::read(ca)?));
        tls = tls.domain_name(format!("{name}.drover"));
        if let Some((certificate, key)) = identity {
            tls = tls.identity(Identity::from_pem(std::fs::read(certificate)?, std::fs::read(key)?));
        }
        let endpoint = Endpoint::from_shared(format!("https://127.0.0.1:{port}"))?;
        let endpoint = endpoint.connect_timeout(CONNECT).tls_config(tls)?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let channel = runtime.block_on(async { timeout(CONNECT, endpoint.connect()).await })??;
        Ok(Self { runtime, channel })
    }

    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Any call, with a deadline.
    pub fn call<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Status> {
        self.call_within(CALL, call)
    }

    pub fn call_within<T>(
        &self,
        deadline: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Status> {
        let answer = self.runtime.block_on(async { timeout(deadline, call).await });
        answer.map_err(|_| Status::deadline_exceeded("the test's own deadline"))?.map(Response::into_inner)
    }

    pub fn replication(&self) -> ReplicationClient<Channel> {
        ReplicationClient::new(self.channel())
    }

    pub fn fence(&self) -> FenceClient<Channel> {
        FenceClient::new(self.channel())
    }

    pub fn groups(&self) -> GroupsClient<Channel> {
        GroupsClient::new(self.channel())
    }

    pub fn trash(&self) -> TrashClient<Channel> {
        TrashClient::new(self.channel())
    }

    pub fn snapshots(&self) -> SnapshotsClient<Channel> {
        SnapshotsClient::new(self.channel())
    }

    pub fn pools(&self) -> PoolsClient<Channel> {
        PoolsClient::new(self.channel())
    }

    pub fn sync(&self) -> SyncClient<Channel> {
        SyncClient::new(self.channel())
    }

    pub fn node(&self) -> NodeClient<Channel> {
        NodeClient::new(self.channel())
    }

    pub fn is_serving(&mut self) -> bool {
        let mut health = HealthClient::new(self.channel());
        let answer = self.call(health.check(HealthCheckRequest::default()));
        answer.is_ok_and(|answer| answer.status() == ServingStatus::Serving)
    }

    pub fn enable(&self, request: v1::EnableRequest) -> Result<v1::VolumeInfo, Status> {
        let answer = self.call(self.replication().enable(request))?;
        answer.volume.ok_or_else(|| Status::internal("no volume in the answer"))
    }

    pub fn info(&self, volume_id: &str) -> Result<v1::VolumeInfo, Status> {
        let answer = self.call(self.replication().get_info(v1::GetInfoRequest {
            volume_id: volume_id.to_owned(),
            local_only: false,
            spec: None,
        }))?;
        answer.volume.ok_or_else(|| Status::internal("no volume in the answer"))
    }

    pub fn promote(&self, volume_id: &str, force: bool) -> Result<(), Status> {
        let request = v1::PromoteRequest { volume_id: volume_id.to_owned(), force, ..v1::PromoteRequest::default() };
        self.call(self.replication().promote(request)).map(drop)
    }

    pub fn demote(&self, volume_id: &str) -> Result<(), Status> {
        self.demote_as(volume_id, false)
    }

    pub fn demote_as(&self, volume_id: &str, force: bool) -> Result<(), Status> {
        let request = v1::DemoteRequest { volume_id: volume_id.to_owned(), force, ..v1::DemoteRequest::default() };
        self.call(self.replication().demote(request)).map(drop)
    }

    pub fn resync(&self, volume_id: &str) -> Result<(), Status> {
        self.call(self.replication().resync(v1::ResyncRequest { volume_id: volume_id.to_owned() })).map(drop)
    }

    pub fn start(&self, request: v1::StartRequest) -> Result<String, Status> {
        self.call(self.sync().start(request)).map(|answer| answer.job_id)
    }

    pub fn cancel(&self, job_id: &str) -> Result<(), Status> {
        self.call(self.sync().cancel(v1::CancelRequest { job_id: job_id.to_owned() })).map(drop)
    }

    pub fn verify(&self, volume_id: &str, deep: bool) -> Result<String, Status> {
        let request = v1::VerifyRequest { volume_id: volume_id.to_owned(), deep, ..Default::default() };
        self.call(self.sync().verify(request)).map(|answer| answer.job_id)
    }

    pub fn plan(&self, volume_id: &str) -> Result<String, Status> {
        let request = v1::PlanRequest { volume_id: volume_id.to_owned(), ..Default::default() };
        self.call(self.sync().plan(request)).map(|answer| answer.job_id)
    }

    pub fn rollback(&self, volume_id: &str, point_id: &str) -> Result<String, Status> {
        let (volume_id, point_id) = (volume_id.to_owned(), point_id.to_owned());
        let request = v1::RollbackRequest { volume_id, point_id, request_id: String::new() };
        self.call(self.sync().rollback(request)).map(|answer| answer.job_id)
    }

    pub fn release(&self, volume_id: &str) -> Result<(), Status> {
        self.call(self.sync().release(v1::ReleaseRequest { volume_id: volume_id.to_owned() })).map(drop)
    }

    pub fn points(&self, volume_id: &str) -> Result<Vec<v1::RestorePoint>, Status> {
        let request = v1::ListRestorePointsRequest { volume_id: volume_id.to_owned() };
        self.call(self.sync().list_restore_points(request)).map(|answer| answer.points)
    }

    pub fn jobs(&self, volume_id: &str) -> Result<Vec<v1::JobStatus>, Status> {
        let request = v1::ListRequest { volume_id: volume_id.to_owned(), active_only: false };
        self.call(self.sync().list(request)).map(|answer| answer.jobs)
    }

    /// Watches a job to its end, or to the deadline: then its last status is the outcome.
    pub fn outcome(&self, job_id: &str, deadline: Duration) -> Result<Outcome, Status> {
        self.watch(job_id, deadline, |_| false)
    }

    /// Watches a job until `stop` says so, its end or the deadline.
    pub fn watch(
        &self,
        job_id: &str,
        deadline: Duration,
        mut stop: impl FnMut(&v1::JobStatus) -> bool,
    ) -> Result<Outcome, Status> {
        let mut last = v1::JobStatus::default();
        let watching = async {
            let request = v1::WatchRequest { job_id: job_id.to_owned() };
            let mut stream = self.sync().watch(request).await?.into_inner();
            while let Some(answer) = stream.message().await? {
                last = answer.job.unwrap_or_default();
                if Outcome::is_end(&last) || stop(&last) {
                    break;
                }
            }
            Ok::<(), Status>(())
        };
        let ended = self.runtime.block_on(async { timeout(deadline, watching).await });
        match ended {
            Ok(Err(status)) => Err(status),
            Ok(Ok(())) | Err(_) => Ok(Outcome::of(last)),
        }
    }
}
