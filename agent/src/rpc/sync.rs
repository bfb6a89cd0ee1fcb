//! Jobs: start, watch, cancel, list; restore points.

mod watch;

use std::{pin::Pin, sync::Arc};

use drover_engine::{
    error::Kind,
    point::{Role, VolumeState},
    session::{Intent, Side},
    volume::Standing,
};
use drover_proto::v1::{self, sync_server::Sync};
use tokio::sync::mpsc;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status};

use super::{
    convert,
    status::{ToStatus as _, status},
};
use crate::{
    config::Defaults,
    job::{self, JobId, Keeper, Route, Sessions, Work},
    mirror::SharedMirrors,
    peers::Peers,
    target::{Target, TargetError},
    volumes::{Held, Volumes},
    work::{Lane, Lanes},
};

#[derive(Clone)]
pub struct SyncService {
    pub volumes: Arc<Volumes>,
    pub mirrors: SharedMirrors,
    pub keeper: Keeper,
    pub sessions: Arc<Sessions>,
    pub lanes: Arc<Lanes>,
    pub peers: Arc<Peers>,
    pub defaults: Defaults,
    pub tasks: TaskTracker,
    pub stop: CancellationToken,
}

/// What Start, Plan and Verify have in common.
struct Asked {
    volume_id: String,
    peer: Option<String>,
    direction: i32,
    request_id: String,
}

impl SyncService {
    fn held(&self, volume_id: &str) -> Result<Arc<Held>, Status> {
        let id = convert::volume_id(volume_id).map_err(|error| error.to_status())?;
        self.volumes.get(id).map_err(|error| error.to_status())
    }

    /// With its state. Clusters are asked where it is beneath no root.
    async fn target(&self, volume_id: &str) -> Result<(Target, VolumeState), Status> {
        let id = convert::volume_id(volume_id).map_err(|error| error.to_status())?;
        let (volumes, mirrors) = (self.volumes.clone(), self.mirrors.clone());
        let is_held = volumes.knows(id) || mirrors.is_empty();
        let found = move || {
            let target = Target::find(&volumes, &mirrors, id)?;
            let state = target.state()?;
            Ok::<_, TargetError>((target, state))
        };
        let lane = if is_held { Lane::Calls } else { Lane::Ceph };
        let found = self.lanes.run(lane, found).await;
        found.map_err(|error| error.to_status())?.map_err(|error| error.to_status())
    }

    async fn session(&self, asked: Asked, intent: Intent) -> Result<String, Status> {
        let side = convert::side(asked.direction).map_err(|error| error.to_status())?;
        let peer = asked.peer.filter(|peer| !peer.is_empty());
        let (_, state) = self.target(&asked.volume_id).await?;
        let work = Work::Session { peer: peer.clone(), side, intent };
        let request = job::Request { volume: state.volume, work };
        self.submit(&asked.request_id, request, || self.route(state, peer, side).map(Some)).await
    }

    /// Where the request leads now: the volume's peer unless one is named, the direction by the copy's role.
    fn route(&self, state: VolumeState, peer: Option<String>, side: Option<Side>) -> Result<Route, Status> {
        let peer = peer.or(state.peer).ok_or_else(|| {
            let message = format!("volume {} names no peer; name one in the call or in Enable", state.volume);
            status(Kind::Precondition, "no-peer", message)
        })?;
        self.peers.get(&peer).map_err(|error| error.to_status())?;
        let side = side.unwrap_or(match state.role {
            Role::Primary => Side::Source,
            Role::Secondary => Side::Sink,
        });
        Ok(Route { peer, side })
    }

    async fn submit(
        &self,
        request_id: &str,
        request: job::Request,
        route: impl FnOnce() -> Result<Option<Route>, Status>,
    ) -> Result<String, Status> {
        let id = convert::request_id(request_id).map_err(|error| error.to_status())?;
        // A request that was accepted stays so, whatever has become of the volume since.
        let known = self.keeper.known(id.clone(), request.clone()).await.map_err(|error| error.to_status())?;
        if let Some(job) = known {
            return Ok(job.id.to_string());
        }
        let submitted = self.keeper.submit(id, request, route()?).await;
        submitted.map(|job| job.id.to_string()).map_err(|error| error.to_status())
    }

    /// A job, or a session that a peer runs under this id.
    async fn status_of(&self, id: &JobId) -> Result<v1::JobStatus, Status> {
        match self.keeper.get(id.clone()).await {
            Ok(found) => {
                let progress = found.running.as_ref().map(|running| &*running.control.progress);
                Ok(convert::job_status(&found.job, progress))
            }
            Err(error) => {
                let session = self.sessions.find(id.as_str()).and_then(|session| convert::session_status(&session));
                session.ok_or_else(|| error.to_status())
            }
        }
    }
}

#[tonic::async_trait]
impl Sync for SyncService {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::WatchResponse, Status>> + Send>>;

    async fn start(&self, request: Request<v1::StartRequest>) -> Result<Response<v1::StartResponse>, Status> {
        let v1::StartRequest { volume_id, peer, direction, request_id, options } = request.into_inner();
        let options = convert::options(options, &self.defaults).map_err(|error| error.to_status())?;
        let asked = Asked { volume_id, peer, direction, request_id };
        let job_id = self.session(asked, Intent::Sync(options)).await?;
        Ok(Response::new(v1::StartResponse { job_id }))
    }

    async fn plan(&self, request: Request<v1::PlanRequest>) -> Result<Response<v1::PlanResponse>, Status> {
        let v1::PlanRequest { volume_id, peer, direction, request_id, options } = request.into_inner();
        let options = convert::options(options, &self.defaults).map_err(|error| error.to_status())?;
        let asked = Asked { volume_id, peer, direction, request_id };
        let job_id = self.session(asked, Intent::Plan(options)).await?;
        Ok(Response::new(v1::PlanResponse { job_id }))
    }

    async fn verify(&self, request: Request<v1::VerifyRequest>) -> Result<Response<v1::VerifyResponse>, Status> {
        let v1::VerifyRequest { volume_id, peer, direction, request_id, deep } = request.into_inner();
        let asked = Asked { volume_id, peer, direction, request_id };
        let job_id = self.session(asked, Intent::Verify { deep }).await?;
        Ok(Response::new(v1::VerifyResponse { job_id }))
    }

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let id: JobId = request.into_inner().job_id.parse().map_err(|error: job::JobError| error.to_status())?;
        let first = self.status_of(&id).await?;
        let (sender, receiver) = mpsc::channel(4);
        self.tasks.spawn(watch::follow(self.clone(), id, first, sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn cancel(&self, request: Request<v1::CancelRequest>) -> Result<Response<v1::CancelResponse>, Status> {
        let id: JobId = request.into_inner().job_id.parse().map_err(|error: job::JobError| error.to_status())?;
        let job = match self.keeper.cancel(id.clone()).await {
            Ok(found) => convert::job_status(&found.job, found.running.as_ref().map(|it| &*it.control.progress)),
            Err(error) => {
                let session = self.sessions.find(id.as_str()).ok_or_else(|| error.to_status())?;
                session.running.stop();
                convert::session_status(&session).ok_or_else(|| error.to_status())?
            }
        };
        tracing::info!(job = %id, "cancel was asked for");
        Ok(Response::new(v1::CancelResponse { job: Some(job) }))
    }

    async fn list(&self, request: Request<v1::ListRequest>) -> Result<Response<v1::ListResponse>, Status> {
        let request = request.into_inner();
        let volume = match request.volume_id.as_str() {
            "" => None,
            id => Some(convert::volume_id(id).map_err(|error| error.to_status())?),
        };
        let mut found = self.keeper.list().await.map_err(|error| error.to_status())?;
        found.retain(|it| volume.is_none_or(|volume| volume == it.job.request.volume));
        found.retain(|it| !request.active_only || !it.job.state.has_ended());
        let of_job = |it: &job::Snapshot| {
            convert::job_status(&it.job, it.running.as_ref().map(|running| &*running.control.progress))
        };
        let sessions = self.sessions.list();
        let sessions = sessions.iter().filter_map(convert::session_status);
        let of_volume = |it: &v1::JobStatus| volume.is_none_or(|volume| volume.to_string() == it.volume_id);
        let mut jobs: Vec<_> = found.iter().map(of_job).chain(sessions.filter(of_volume)).collect();
        jobs.sort_by_key(|it| std::cmp::Reverse(it.created_at_unix_secs));
        Ok(Response::new(v1::ListResponse { jobs }))
    }

    async fn list_restore_points(
        &self,
        request: Request<v1::ListRestorePointsRequest>,
    ) -> Result<Response<v1::ListRestorePointsResponse>, Status> {
        let (target, state) = self.target(&request.into_inner().volume_id).await?;
        let Target::Volume(held) = target else {
            let points = convert::restore_points(&state);
            return Ok(Response::new(v1::ListRestorePointsResponse { points, paused: state.paused }));
        };
        let standings = self.lanes.run(Lane::Calls, move || held.volume.standings()).await;
        let standings = standings.map_err(|error| error.to_status())?.map_err(|error| error.to_status())?;
        let mut points = convert::restore_points(&state);
        for (id, standing) in standings {
            let is_it = |it: &&mut v1::RestorePoint| it.point.as_ref().is_some_and(|point| point.id == id.to_string());
            let Some(listed) = points.iter_mut().find(is_it) else { continue };
            listed.on_copy = standing == Standing::OnCopy;
            if let (Standing::Lost, Some(point)) = (standing, &mut listed.point) {
                point.lost_paths = vec!["its content".to_owned()];
            }
        }
        Ok(Response::new(v1::ListRestorePointsResponse { points, paused: state.paused }))
    }

    async fn locate_content(
        &self,
        request: Request<v1::LocateContentRequest>,
    ) -> Result<Response<v1::LocateContentResponse>, Status> {
        let v1::LocateContentRequest { volume_id, point_id, path } = request.into_inner();
        let point = convert::point_id(&point_id).map_err(|error| error.to_status())?;
        let path = path.map(|path| convert::path(&path)).transpose().map_err(|error| error.to_status())?;
        let held = self.held(&volume_id)?;
        let located = self.lanes.run(Lane::Calls, move || held.volume.locate(point, path.as_ref())).await;
        let located = located.map_err(|error| error.to_status())?.map_err(|error| error.to_status())?;
        Ok(Response::new(v1::LocateContentResponse {
            file: bytes_of(located.file),
            size: located.body.size,
            digest: located.body.digest.to_string(),
            deltas: located
                .deltas
                .into_iter()
                .map(|(ranges, data)| v1::Delta { ranges: bytes_of(ranges), data: bytes_of(data) })
                .collect(),
            scratch: bytes_of(located.scratch),
        }))
    }

    async fn rollback(&self, request: Request<v1::RollbackRequest>) -> Result<Response<v1::RollbackResponse>, Status> {
        let v1::RollbackRequest { volume_id, point_id, request_id } = request.into_inner();
        let to = convert::point_id(&point_id).map_err(|error| error.to_status())?;
        let (_, state) = self.target(&volume_id).await?;
        let request = job::Request { volume: state.volume, work: Work::Rollback { to } };
        let job_id = self.submit(&request_id, request, || Ok(None)).await?;
        Ok(Response::new(v1::RollbackResponse { job_id }))
    }

    async fn release(&self, request: Request<v1::ReleaseRequest>) -> Result<Response<v1::ReleaseResponse>, Status> {
        let (target, state) = self.target(&request.into_inner().volume_id).await?;
        let lane = match target {
            Target::Volume(_) => Lane::Calls,
            Target::Image(_) => Lane::CephVerbs,
            // It waits for what is being done with it.
            Target::ImageFile(_) => Lane::Scans,
        };
        let id = state.volume;
        let released = self.lanes.run(lane, move || target.release()).await;
        released.map_err(|error| error.to_status())?.map_err(|error| error.to_status())?;
        tracing::info!(volume = %id, "released: syncs may go on");
        Ok(Response::new(v1::ReleaseResponse {}))
    }
}

fn bytes_of(path: std::path::PathBuf) -> bytes::Bytes {
    path.into_os_string().into_encoded_bytes().into()
}
