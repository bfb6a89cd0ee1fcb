//! The verbs of copies of images in files.

use drover_engine::{
    error::Kind,
    id::VolumeId,
    image::{file::FileCopy, verbs},
    point::Force,
    session::Failure,
    volume::Disposal,
};
use drover_proto::v1;
use tokio::runtime::Handle;
use tonic::Status;

use super::{ReplicationService, force, mirrored::no_trash};
use crate::{
    mirror::MirrorError,
    rpc::{
        convert::{self, ConvertError},
        status::{ToStatus as _, status},
    },
    volumes::{ImageFile, NewImageFile, Volumes},
    work::Lane,
};

fn refused(failure: Failure) -> Status {
    status(failure.kind, &failure.reason, failure.message)
}

impl ReplicationService {
    pub(super) fn image_file(&self, id: VolumeId) -> Result<Option<ImageFile>, Status> {
        self.volumes.image_file(id).map_err(|error| error.to_status())
    }

    pub(super) fn image_file_by(&self, id: &str) -> Result<Option<ImageFile>, Status> {
        self.image_file(convert::volume_id(id).map_err(|error| error.to_status())?)
    }

    pub(super) async fn image_file_info(&self, image: ImageFile) -> Result<v1::VolumeInfo, Status> {
        let jobs = self.jobs(image.id).await;
        let root = image.root.clone();
        let state = self.lanes.run(Lane::Calls, move || image.state()).await;
        let state = state.map_err(|error| error.to_status())?.map_err(refused)?;
        let mut because = convert::troubles_of(&state);
        because.extend(jobs.trouble);
        let health = if because.is_empty() { v1::Health::Ok } else { v1::Health::Degraded };
        let file = v1::ImageFile { root, path: state.path.to_string() };
        let spec = v1::VolumeSpec { kind: Some(v1::volume_spec::Kind::ImageFile(file)) };
        Ok(convert::state_info(&state, spec, (health, because), jobs.running))
    }

    pub(super) async fn all_image_files(&self) -> Vec<v1::VolumeInfo> {
        let mut infos = Vec::new();
        for image in self.volumes.image_files() {
            let id = image.id;
            match self.image_file_info(image).await {
                Ok(info) => infos.push(info),
                // One that can't be looked at hides no other.
                Err(error) => tracing::warn!(volume = %id, "{}", error.message()),
            }
        }
        infos
    }

    pub(super) async fn enable_image_file(
        &self,
        request: &v1::EnableRequest,
        file: v1::ImageFile,
        peer: Option<String>,
    ) -> Result<v1::EnableResponse, Status> {
        super::delta::check_fields(request)?;
        if request.group.as_ref().is_some_and(|group| !group.is_empty()) {
            return Err(MirrorError::NotOfDelta("a copy in a file is in no group: leave the group out").to_status());
        }
        let new = new_image_file(request, file, peer).map_err(|error| error.to_status())?;
        if self.mirrored(Some(new.id)).await?.is_some() {
            let message = format!("volume {} is an RBD image of this agent already", new.id);
            return Err(status(Kind::Exists, "volume-on-other-root", message));
        }
        let (retain, retain_secs) = (self.defaults.retain, u64::from(self.defaults.retain_hours) * 3600);
        let enable = move |volumes: &Volumes| volumes.enable_image_file(new, retain, retain_secs);
        let image = self.call_in(Lane::Scans, enable).await?;
        tracing::info!(volume = %image.id, root = image.root, "image in a file is enabled");
        Ok(v1::EnableResponse { volume: Some(self.image_file_info(image).await?), mgr_schedules: Vec::new() })
    }

    async fn image_file_verb(
        &self,
        image: ImageFile,
        name: &'static str,
        verb: impl FnOnce(&FileCopy) -> Result<(), Failure> + Send + 'static,
    ) -> Result<v1::VolumeInfo, Status> {
        let on = image.clone();
        let done = self.lanes.run(Lane::Scans, move || on.with(verb)).await;
        done.map_err(|error| error.to_status())?.map_err(refused)?;
        tracing::info!(volume = %image.id, "{name}");
        self.image_file_info(image).await
    }

    pub(super) async fn promote_image_file(&self, image: ImageFile, is_forced: bool) -> Result<v1::VolumeInfo, Status> {
        let (service, runtime, force, on) = (self.clone(), Handle::current(), force(is_forced), image.clone());
        let verb = move |copy: &FileCopy| {
            let peer = on.state()?.peer;
            let ask = async || convert::peer_copy(&service.ask_peer(peer.as_deref(), on.id).await?);
            if let Some(kept) = verbs::promote(copy, force, || runtime.block_on(ask()))? {
                tracing::warn!(volume = %on.id, point = %kept, "what somebody had written to the replica is kept as a restore point");
            }
            Ok(())
        };
        self.image_file_verb(image, "promoted", verb).await
    }

    pub(super) async fn demote_image_file(&self, image: ImageFile, force: Force) -> Result<v1::VolumeInfo, Status> {
        self.image_file_verb(image, "demoted", move |copy| verbs::demote(copy, force)).await
    }

    pub(super) async fn resync_image_file(&self, image: ImageFile) -> Result<v1::VolumeInfo, Status> {
        self.image_file_verb(image, "resync was asked for", |copy| verbs::request_resync(copy)).await
    }

    pub(super) async fn disable_image_file(&self, image: ImageFile, disposal: Disposal) -> Result<(), Status> {
        if disposal == Disposal::Trash {
            return Err(no_trash());
        }
        let id = image.id;
        self.call_in(Lane::Scans, move |volumes| volumes.disable_image_file(&image)).await?;
        tracing::info!(volume = %id, "image in a file is disabled; the file stays, at its newest point, and all points go to the trash");
        Ok(())
    }
}

fn new_image_file(
    request: &v1::EnableRequest,
    file: v1::ImageFile,
    peer: Option<String>,
) -> Result<NewImageFile, ConvertError> {
    Ok(NewImageFile {
        id: convert::volume_id(&request.volume_id)?,
        path: convert::beneath(&file.root, &file.path)?,
        root: file.root,
        peer,
        role: convert::role(request.role)?,
        retain: request.retain,
        retain_secs: request.retain_seconds,
        adopt: request.adopt,
    })
}
