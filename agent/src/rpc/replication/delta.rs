//! The verbs of images that the agents sync themselves.

use drover_engine::{id::VolumeId, point::Force, volume::Disposal};
use drover_proto::v1;
use tokio::runtime::Handle;
use tonic::Status;

use super::{
    ReplicationService, force,
    mirrored::{check_group, place},
};
use crate::{
    mirror::{MirrorError, Mirrored, Mirrors, NewDelta},
    rpc::{
        convert::{self, ConvertError},
        status::ToStatus as _,
    },
    work::Lane,
};

impl ReplicationService {
    pub(super) async fn delta_info(&self, mirrored: Mirrored) -> Result<v1::VolumeInfo, Status> {
        let jobs = self.jobs(mirrored.id).await;
        self.ceph(Lane::Ceph, move |mirrors| mirrors.delta_info(&mirrored, jobs)).await
    }

    pub(super) async fn enable_delta(
        &self,
        request: &v1::EnableRequest,
        image: v1::RbdImage,
        peer: Option<String>,
    ) -> Result<v1::EnableResponse, Status> {
        let new = new_delta(request, image, peer).map_err(|error| error.to_status())?;
        self.of_no_root(new.id)?;
        check_fields(request)?;
        let default_secs = u64::from(self.defaults.retain_hours) * 3600;
        let enabled = move |mirrors: &Mirrors| mirrors.enable_delta(&new, default_secs);
        let mirrored = self.ceph(Lane::CephVerbs, enabled).await?;
        tracing::info!(volume = %mirrored.id, cluster = mirrored.cluster, image = %mirrored.place, "image is enabled, and synced by its changes");
        let volume = Some(self.delta_info(mirrored).await?);
        Ok(v1::EnableResponse { volume, mgr_schedules: Vec::new() })
    }

    async fn delta_verb(
        &self,
        mirrored: Mirrored,
        name: &'static str,
        verb: impl FnOnce(&Mirrors, &Mirrored) -> Result<(), MirrorError> + Send + 'static,
    ) -> Result<v1::VolumeInfo, Status> {
        let image = mirrored.clone();
        self.ceph(Lane::CephCopies, move |mirrors| verb(mirrors, &image)).await?;
        tracing::info!(volume = %mirrored.id, "{name}");
        self.delta_info(mirrored).await
    }

    /// Its head becomes its newest point first, which may copy what an interrupted sync has written.
    pub(super) async fn promote_delta(&self, mirrored: Mirrored, is_forced: bool) -> Result<v1::VolumeInfo, Status> {
        let (service, runtime, force) = (self.clone(), Handle::current(), force(is_forced));
        let verb = move |mirrors: &Mirrors, image: &Mirrored| {
            let ask = async || convert::peer_copy(&service.ask_peer(image.peer.as_deref(), image.id).await?);
            if let Some(kept) = mirrors.promote_delta(image, force, || runtime.block_on(ask()))? {
                tracing::warn!(volume = %image.id, point = %kept, "what somebody had written to the replica is kept as a restore point");
            }
            Ok(())
        };
        self.delta_verb(mirrored, "promoted", verb).await
    }

    pub(super) async fn demote_delta(&self, mirrored: Mirrored, force: Force) -> Result<v1::VolumeInfo, Status> {
        self.delta_verb(mirrored, "demoted", move |mirrors, image| mirrors.demote_delta(image, force)).await
    }

    pub(super) async fn resync_delta(&self, mirrored: Mirrored) -> Result<v1::VolumeInfo, Status> {
        self.delta_verb(mirrored, "resync was asked for", Mirrors::resync_delta).await
    }

    pub(super) async fn disable_delta(&self, mirrored: Mirrored, disposal: Disposal) -> Result<(), Status> {
        if disposal == Disposal::Trash {
            return Err(super::mirrored::no_trash());
        }
        let id = mirrored.id;
        self.ceph(Lane::CephCopies, move |mirrors| mirrors.disable_delta(&mirrored)).await?;
        tracing::info!(volume = %id, "image is disabled; it stays as it is");
        Ok(())
    }
}

/// What images that the agents sync don't have.
pub(super) fn check_fields(request: &v1::EnableRequest) -> Result<(), Status> {
    if request.point_every_seconds.is_some_and(|every| every > 0) {
        let what = "it has no schedule: leave that out, and have a timer call `drover sync`";
        return Err(MirrorError::NotOfDelta(what).to_status());
    }
    Ok(())
}

fn new_delta(request: &v1::EnableRequest, image: v1::RbdImage, peer: Option<String>) -> Result<NewDelta, ConvertError> {
    if image.cluster.is_empty() {
        return Err(ConvertError::Missing { field: "spec.cluster" });
    }
    let cluster = image.cluster.clone();
    let id: VolumeId = convert::volume_id(&request.volume_id)?;
    request.group.iter().filter(|group| !group.is_empty()).try_for_each(|group| check_group("group", group))?;
    Ok(NewDelta {
        id,
        cluster,
        place: place(image)?,
        peer,
        group: request.group.clone(),
        role: convert::role(request.role)?,
        retain: request.retain,
        retain_secs: request.retain_seconds,
        adopt: request.adopt,
    })
}
