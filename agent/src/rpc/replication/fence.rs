//! Fencing of volumes' clients.

use drover_proto::v1::{self, fence_server::Fence};
use tonic::{Request, Response, Status};

use super::{
    ReplicationService,
    mirrored::{self, Scope},
};
use crate::{mirror::Mirrored, work::Lane};

#[derive(Clone)]
pub struct FenceService(pub ReplicationService);

impl FenceService {
    async fn mirrored(&self, id: &str) -> Result<Mirrored, Status> {
        let mirrored = self.0.mirrored_by(id).await?.ok_or_else(|| mirrored::no_image(id))?;
        mirrored::not_delta(&mirrored, "shut its client out with `ceph osd blocklist add ADDRESS`")?;
        Ok(mirrored)
    }

    async fn info(&self, mirrored: Mirrored) -> Result<Option<v1::VolumeInfo>, Status> {
        self.0.mirrored_info(mirrored, Scope::BothSites).await.map(Some)
    }
}

#[tonic::async_trait]
impl Fence for FenceService {
    async fn fence_volume(
        &self,
        request: Request<v1::FenceVolumeRequest>,
    ) -> Result<Response<v1::FenceVolumeResponse>, Status> {
        let v1::FenceVolumeRequest { volume_id, whole_client } = request.into_inner();
        let mirrored = self.mirrored(&volume_id).await?;
        let image = mirrored.clone();
        let fenced = self.0.ceph(Lane::CephVerbs, move |mirrors| mirrors.fence(&image, whole_client)).await?;
        Ok(Response::new(v1::FenceVolumeResponse { volume: self.info(mirrored).await?, fenced }))
    }

    async fn unfence_volume(
        &self,
        request: Request<v1::UnfenceVolumeRequest>,
    ) -> Result<Response<v1::UnfenceVolumeResponse>, Status> {
        let mirrored = self.mirrored(&request.into_inner().volume_id).await?;
        let image = mirrored.clone();
        let unfenced = self.0.ceph(Lane::CephVerbs, move |mirrors| mirrors.unfence(&image)).await?;
        Ok(Response::new(v1::UnfenceVolumeResponse { volume: self.info(mirrored).await?, unfenced }))
    }
}
