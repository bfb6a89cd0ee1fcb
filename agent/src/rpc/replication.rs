//! The verbs of a protected volume. Those of RBD images are in `replication/mirrored.rs`.

mod delta;
pub mod fence;
pub mod groups;
mod image_file;
mod mirrored;
pub mod pools;
mod schedule;
pub mod trash;

use std::{pin::Pin, sync::Arc, time::Duration};

use drover_engine::{
    control::Control,
    error::Kind,
    id::VolumeId,
    point::{Force, Role},
    volume::{Disposal, NewVolume, VolumeError},
};
use drover_nfs::Cause;
use drover_proto::v1::{self, replication_client::ReplicationClient, replication_server::Replication};
use tokio::{runtime::Handle, sync::mpsc};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status};

use mirrored::Scope;

use super::{
    convert::{self, ConvertError},
    exports,
    status::{ToStatus as _, reason_of, status},
};
use crate::{
    config::Defaults,
    exports::SharedExports,
    job::{Keeper, trouble},
    mirror::MirrorError,
    mirror::SharedMirrors,
    peers::Peers,
    superseded::Superseding,
    volumes::{Held, Volumes, VolumesError},
    work::{Lane, Lanes},
};

/// A peer that does not answer sooner counts as one that can't be asked.
const PEER_PATIENCE: Duration = Duration::from_secs(15);

/// How often a watcher looks: states change seldom, and looking costs a copy of them.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub struct ReplicationService {
    pub volumes: Arc<Volumes>,
    pub keeper: Keeper,
    pub lanes: Arc<Lanes>,
    pub peers: Arc<Peers>,
    pub mirrors: SharedMirrors,
    pub exports: SharedExports,
    pub superseding: Arc<Superseding>,
    pub defaults: Defaults,
    pub tasks: TaskTracker,
    pub stop: CancellationToken,
}

impl ReplicationService {
    async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Volumes) -> Result<T, VolumesError> + Send + 'static,
    ) -> Result<T, Status> {
        self.call_in(Lane::Calls, call).await
    }

    async fn call_in<T: Send + 'static>(
        &self,
        lane: Lane,
        call: impl FnOnce(&Volumes) -> Result<T, VolumesError> + Send + 'static,
    ) -> Result<T, Status> {
        let volumes = self.volumes.clone();
        let called = self.lanes.run(lane, move || call(&volumes)).await;
        called.map_err(|error| error.to_status())?.map_err(|error| error.to_status())
    }

    /// A verb on one volume, then what the volume says of itself.
    async fn verb(
        &self,
        volume_id: &str,
        name: &'static str,
        lane: Lane,
        verb: impl FnOnce(&Held) -> Result<(), VolumeError> + Send + 'static,
    ) -> Result<v1::VolumeInfo, Status> {
        let id = convert::volume_id(volume_id).map_err(|error| error.to_status())?;
        let held = self
            .call_in(lane, move |volumes| {
                let held = volumes.get(id)?;
                verb(&held)?;
                Ok(held)
            })
            .await?;
        let state = held.volume.state();
        tracing::info!(volume = %id, role = %state.role, epoch = state.epoch, "{name}");
        self.info(held).await
    }

    /// After a promotion, where clients were shut out because the copy was superseded. An NFS server that hangs keeps no promotion from its end: the next
    /// look does it.
    async fn let_in(&self, info: v1::VolumeInfo) -> Result<v1::VolumeInfo, Status> {
        const PATIENCE: Duration = Duration::from_secs(10);
        if info.export_fence.is_none() {
            return Ok(info);
        }
        let id = convert::volume_id(&info.volume_id).map_err(|error| error.to_status())?;
        let held = self.volumes.get(id).map_err(|error| error.to_status())?;
        let (exports, promoted) = (self.exports.clone(), held.clone());
        let lifting = self.lanes.run(Lane::Exports, move || exports.lift_superseded(&promoted));
        let _ = tokio::time::timeout(PATIENCE, lifting).await;
        self.info(held).await
    }

    async fn info(&self, held: Arc<Held>) -> Result<v1::VolumeInfo, Status> {
        let id = held.volume.id();
        let (mut jobs, fence) = (self.jobs(id).await, self.exports.of(id));
        let lacking = fence.iter().flat_map(|fence| &fence.proof.lacking);
        jobs.trouble.extend(lacking.map(|why| format!("it is not proved that its clients are shut out: {why}")));
        if let Some(why) = self.exports.not_shut(&held) {
            jobs.trouble.push(format!("its clients are NOT shut out, and write to a copy that is superseded: {why}"));
        }
        let (is_primary, shut_for) = (held.volume.state().role == Role::Primary, self.exports.shut_for(&held));
        if is_primary && fence.as_ref().is_some_and(|fence| fence.cause == Cause::Asked) {
            jobs.trouble.push("its NFS clients are shut out (volume unfence lets them in)".to_owned());
        }
        jobs.trouble.extend(shut_for.iter().map(|holder| format!("its exports are shut for {holder} (exports list)")));
        if let Some(peer) = self.superseding.rival_of(id) {
            jobs.trouble
                .push(format!("{peer} is primary as well, and neither has the higher epoch: demote one of both"));
        }
        let info = self.call(move |_| Ok(convert::volume_info(&held, jobs))).await?;
        Ok(v1::VolumeInfo { export_fence: fence.map(|fence| exports::fence_info(&fence)), ..info })
    }

    /// Of a keeper that is shutting down nothing is told.
    async fn jobs(&self, volume: VolumeId) -> convert::Jobs {
        let jobs = self.keeper.list().await.unwrap_or_default();
        let running = jobs.iter().find(|it| it.job.request.volume == volume && it.job.state.is_active());
        convert::Jobs {
            running: running.map(|it| it.job.id.to_string()),
            trouble: trouble(jobs.iter().map(|it| &it.job), volume),
        }
    }

    /// What the agent at the other site says of its copy.
    async fn ask_peer(&self, name: Option<&str>, id: VolumeId) -> Result<v1::VolumeInfo, String> {
        let request = v1::GetInfoRequest { volume_id: id.to_string(), local_only: true, spec: None };
        self.ask_peer_about(name, request).await
    }

    async fn ask_peer_about(&self, name: Option<&str>, request: v1::GetInfoRequest) -> Result<v1::VolumeInfo, String> {
        let name = name.ok_or("the volume names no peer")?;
        let ask = async {
            let channel = self.peers.connect(name).await.map_err(|error| error.to_string())?;
            let told = ReplicationClient::new(channel).get_info(Request::new(request)).await;
            let told = told.map_err(|status| format!("{name}: {}", status.message()))?.into_inner();
            told.volume.ok_or_else(|| format!("{name} has no such volume"))
        };
        let silent = |_| Err(format!("{name} did not answer within {} s", PEER_PATIENCE.as_secs()));
        tokio::time::timeout(PEER_PATIENCE, ask).await.unwrap_or_else(silent)
    }

    /// Nobody deletes the copy of something that the peer protects still; nor the last copy, while the peer can't be asked.
    async fn check_unwanted(&self, id: VolumeId) -> Result<(), Status> {
        // One that can't be opened, or is primary, is refused by itself.
        let state = self.volumes.get(id).map(|held| held.volume.state());
        let Some(state) = state.ok().filter(|state| state.role == Role::Secondary) else { return Ok(()) };
        let Some(name) = state.peer else {
            let message = format!(
                "volume {id} names no peer that could be asked whether it is wanted. This may be the last copy (--force insists)"
            );
            return Err(status(Kind::Precondition, "peer-needed", message));
        };
        let request = v1::GetInfoRequest { volume_id: id.to_string(), local_only: true, spec: None };
        let ask = async {
            let channel = self.peers.connect(&name).await.map_err(|error| error.to_status())?;
            ReplicationClient::new(channel).get_info(Request::new(request)).await
        };
        let silent =
            |_| Err(Status::deadline_exceeded(format!("it did not answer within {} s", PEER_PATIENCE.as_secs())));
        match tokio::time::timeout(PEER_PATIENCE, ask).await.unwrap_or_else(silent) {
            // And not of one that may lie on a root that is not mounted there.
            Err(status) if reason_of(&status).as_deref() == Some("no-such-volume") => Ok(()),
            Ok(_) => {
                let message = format!(
                    "{name} protects volume {id} still: disable it there first, or say that its replica goes all the same"
                );
                Err(status(Kind::Precondition, "peer-has-volume", message))
            }
            Err(error) => {
                let message = format!(
                    "whether {name} protects volume {id} still can't be asked: {}. This may be the last copy (--force insists)",
                    error.message()
                );
                Err(status(Kind::Precondition, "peer-needed", message))
            }
        }
    }

    fn peer(&self, name: Option<String>) -> Result<Option<String>, Status> {
        match name.filter(|name| !name.is_empty()) {
            Some(name) => self.peers.get(&name).map(|_| Some(name)).map_err(|error| error.to_status()),
            None => Ok(None),
        }
    }

    async fn watched(&self, id: Option<VolumeId>) -> Result<Vec<v1::VolumeInfo>, Status> {
        if let Some(image) = id.map(|id| self.image_file(id)).transpose()?.flatten() {
            return Ok(vec![self.image_file_info(image).await?]);
        }
        if let Some(mirrored) = self.mirrored(id).await? {
            return Ok(vec![self.mirrored_info(mirrored, Scope::Local).await?]);
        }
        let held = match id {
            Some(id) => vec![self.volumes.get(id).map_err(|error| error.to_status())?],
            None => self.volumes.all(),
        };
        let mut infos = Vec::with_capacity(held.len());
        for held in held {
            infos.push(self.info(held).await?);
        }
        if id.is_none() {
            infos.extend(self.all_image_files().await);
            infos.extend(self.all_mirrored().await?);
        }
        Ok(infos)
    }

    async fn watch(self, id: Option<VolumeId>, sender: mpsc::Sender<Result<v1::WatchInfoResponse, Status>>) {
        let mut last: Vec<v1::VolumeInfo> = Vec::new();
        loop {
            let infos = match self.watched(id).await {
                Ok(infos) => infos,
                Err(status) => return drop(sender.send(Err(status)).await),
            };
            // The age of the newest point grows by itself: that alone is no news.
            let ageless = |info: &v1::VolumeInfo| v1::VolumeInfo { rpo_age_seconds: None, ..info.clone() };
            for info in &infos {
                let known = last.iter().find(|known| known.volume_id == info.volume_id);
                if known.map(ageless) == Some(ageless(info)) {
                    continue;
                }
                if sender.send(Ok(v1::WatchInfoResponse { volume: Some(info.clone()) })).await.is_err() {
                    return;
                }
            }
            last = infos;
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = sender.closed() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }
}

#[tonic::async_trait]
impl Replication for ReplicationService {
    type WatchInfoStream = Pin<Box<dyn Stream<Item = Result<v1::WatchInfoResponse, Status>> + Send>>;

    async fn enable(&self, request: Request<v1::EnableRequest>) -> Result<Response<v1::EnableResponse>, Status> {
        let request = request.into_inner();
        let peer = self.peer(request.peer.clone())?;
        if let Some(v1::volume_spec::Kind::RbdImage(image)) = request.spec.clone().and_then(|spec| spec.kind) {
            let enabled = match v1::RbdReplication::try_from(image.replication) {
                Ok(v1::RbdReplication::Delta) => self.enable_delta(&request, image, peer).await?,
                Ok(v1::RbdReplication::Unspecified | v1::RbdReplication::Mirror) => {
                    self.enable_mirrored(&request, image, peer).await?
                }
                Err(_) => {
                    let (field, value) = ("spec.replication", image.replication);
                    return Err(ConvertError::UnknownEnum { field, value }.to_status());
                }
            };
            return Ok(Response::new(enabled));
        }
        if let Some(v1::volume_spec::Kind::ImageFile(file)) = request.spec.clone().and_then(|spec| spec.kind) {
            return Ok(Response::new(self.enable_image_file(&request, file, peer).await?));
        }
        let (retain, retain_secs) = (request.retain, request.retain_seconds);
        let (root, new) = new_volume(request, peer.clone(), &self.defaults).map_err(|error| error.to_status())?;
        let id = new.id;
        let enabled = move |volumes: &Volumes| {
            let held = volumes.enable(&root, new)?;
            // Of a volume that is there already what the call names is set.
            held.volume.configure(retain, retain_secs, peer)?;
            Ok(held)
        };
        let held = self.call(enabled).await?;
        tracing::info!(volume = %id, root = held.root, path = %held.volume.path(), "volume is enabled");
        let volume = Some(self.info(held).await?);
        Ok(Response::new(v1::EnableResponse { volume, mgr_schedules: Vec::new() }))
    }

    async fn disable(&self, request: Request<v1::DisableRequest>) -> Result<Response<v1::DisableResponse>, Status> {
        let request = request.into_inner();
        let id = convert::volume_id(&request.volume_id).map_err(|error| error.to_status())?;
        let disposal = match v1::Disposal::try_from(request.disposal) {
            Ok(v1::Disposal::Unspecified | v1::Disposal::Keep) => Disposal::Keep,
            Ok(v1::Disposal::Trash) => Disposal::Trash,
            Ok(v1::Disposal::Forget) => {
                let mirrored = self.mirrored(Some(id)).await?.ok_or_else(|| mirrored::no_image(&request.volume_id))?;
                mirrored::not_delta(&mirrored, "disable it without --forget, the image stays")?;
                self.forget_mirrored(mirrored).await?;
                return Ok(Response::new(v1::DisableResponse {}));
            }
            Err(_) => {
                return Err(ConvertError::UnknownEnum { field: "disposal", value: request.disposal }.to_status());
            }
        };
        if let Some(image) = self.image_file(id)? {
            self.disable_image_file(image, disposal).await?;
            return Ok(Response::new(v1::DisableResponse {}));
        }
        if let Some(mirrored) = self.mirrored(Some(id)).await? {
            self.disable_mirrored(mirrored, disposal, request.force).await?;
            return Ok(Response::new(v1::DisableResponse {}));
        }
        if disposal == Disposal::Trash && !request.force {
            self.check_unwanted(id).await?;
        }
        self.call(move |volumes| volumes.disable(id, disposal)).await?;
        tracing::info!(volume = %id, "volume is disabled");
        Ok(Response::new(v1::DisableResponse {}))
    }

    async fn promote(&self, request: Request<v1::PromoteRequest>) -> Result<Response<v1::PromoteResponse>, Status> {
        let request = request.into_inner();
        if let Some(image) = self.image_file_by(&request.volume_id)? {
            let volume = Some(self.promote_image_file(image, request.force).await?);
            return Ok(Response::new(v1::PromoteResponse { volume }));
        }
        if let Some(mirrored) = self.mirrored_by(&request.volume_id).await? {
            let volume = Some(self.promote_mirrored(mirrored, &request).await?);
            return Ok(Response::new(v1::PromoteResponse { volume }));
        }
        let force = force(request.force);
        let (service, runtime) = (self.clone(), Handle::current());
        let promote = move |held: &Held| {
            let (id, peer) = (held.volume.id(), held.volume.state().peer);
            let ask = async || convert::peer_copy(&service.ask_peer(peer.as_deref(), id).await?);
            held.volume.promote(force, || runtime.block_on(ask()))
        };
        let info = self.verb(&request.volume_id, "promoted", Lane::Scans, promote).await?;
        let info = self.let_in(info).await?;
        Ok(Response::new(v1::PromoteResponse { volume: Some(info) }))
    }

    async fn demote(&self, request: Request<v1::DemoteRequest>) -> Result<Response<v1::DemoteResponse>, Status> {
        let v1::DemoteRequest { volume_id: id, alone, force: is_forced } = request.into_inner();
        let force = force(is_forced);
        if let Some(image) = self.image_file_by(&id)? {
            let volume = Some(self.demote_image_file(image, force).await?);
            return Ok(Response::new(v1::DemoteResponse { volume }));
        }
        if let Some(mirrored) = self.mirrored_by(&id).await? {
            let volume = match mirrored.is_delta {
                true => {
                    mirrored::of_no_group(&mirrored, alone)?;
                    self.demote_delta(mirrored, force).await?
                }
                false if is_forced => {
                    let why = "what its users wrote is in no point that the peer has, and there is no force: take a point, and wait for it";
                    return Err(MirrorError::NotOfMirrored(why).to_status());
                }
                false => self.demote_mirrored(mirrored, alone).await?,
            };
            return Ok(Response::new(v1::DemoteResponse { volume: Some(volume) }));
        }
        let info =
            self.verb(&id, "demoted", Lane::Scans, move |held| held.volume.demote(force, &Control::default())).await?;
        Ok(Response::new(v1::DemoteResponse { volume: Some(info) }))
    }

    async fn resync(&self, request: Request<v1::ResyncRequest>) -> Result<Response<v1::ResyncResponse>, Status> {
        let id = request.into_inner().volume_id;
        if let Some(image) = self.image_file_by(&id)? {
            let volume = Some(self.resync_image_file(image).await?);
            return Ok(Response::new(v1::ResyncResponse { volume }));
        }
        if let Some(mirrored) = self.mirrored_by(&id).await? {
            let volume = Some(self.resync_mirrored(mirrored).await?);
            return Ok(Response::new(v1::ResyncResponse { volume }));
        }
        let info = self.verb(&id, "resync was asked for", Lane::Calls, |held| held.volume.request_resync()).await?;
        Ok(Response::new(v1::ResyncResponse { volume: Some(info) }))
    }

    async fn create_mirror_snapshot(
        &self,
        request: Request<v1::CreateMirrorSnapshotRequest>,
    ) -> Result<Response<v1::CreateMirrorSnapshotResponse>, Status> {
        let id = request.into_inner().volume_id;
        match self.mirrored_by(&id).await? {
            Some(mirrored) => {
                mirrored::not_delta(&mirrored, "its points are taken by a sync (`drover sync`)")?;
                Ok(Response::new(self.take_point(mirrored).await?))
            }
            None => Err(mirrored::no_image(&id)),
        }
    }

    async fn get_info(&self, request: Request<v1::GetInfoRequest>) -> Result<Response<v1::GetInfoResponse>, Status> {
        let request = request.into_inner();
        let id = convert::volume_id(&request.volume_id).map_err(|error| error.to_status())?;
        if let Some(image) = self.image_file(id)? {
            let volume = Some(self.image_file_info(image).await?);
            return Ok(Response::new(v1::GetInfoResponse { volume }));
        }
        if let Some(mirrored) = self.mirrored(Some(id)).await? {
            let scope = if request.local_only { Scope::Local } else { Scope::BothSites };
            let volume = Some(self.mirrored_info(mirrored, scope).await?);
            return Ok(Response::new(v1::GetInfoResponse { volume }));
        }
        if let Some(v1::volume_spec::Kind::RbdImage(image)) = request.spec.and_then(|spec| spec.kind)
            && !self.volumes.knows(id)
        {
            let volume = Some(self.image_at(id, image).await?);
            return Ok(Response::new(v1::GetInfoResponse { volume }));
        }
        let held = self.volumes.get_surely(id).map_err(|error| error.to_status())?;
        Ok(Response::new(v1::GetInfoResponse { volume: Some(self.info(held).await?) }))
    }

    async fn watch_info(
        &self,
        request: Request<v1::WatchInfoRequest>,
    ) -> Result<Response<Self::WatchInfoStream>, Status> {
        let id = request.into_inner().volume_id;
        let id = if id.is_empty() { None } else { Some(convert::volume_id(&id).map_err(|error| error.to_status())?) };
        let (sender, receiver) = mpsc::channel(16);
        self.tasks.spawn(self.clone().watch(id, sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

fn force(is_forced: bool) -> Force {
    if is_forced { Force::Yes } else { Force::No }
}

fn new_volume(
    request: v1::EnableRequest,
    peer: Option<String>,
    defaults: &Defaults,
) -> Result<(String, NewVolume), ConvertError> {
    let (kind, root, path) = convert::spec(request.spec)?;
    let new = NewVolume {
        id: convert::volume_id(&request.volume_id)?,
        kind,
        path,
        role: convert::role(request.role)?,
        retain: request.retain.unwrap_or(defaults.retain),
        retain_secs: request.retain_seconds.unwrap_or(u64::from(defaults.retain_hours) * 3600),
        peer,
        adopt: request.adopt,
        waive: request.waive.iter().map(|name| convert::waiver(name)).collect::<Result<_, _>>()?,
    };
    Ok((root, new))
}
