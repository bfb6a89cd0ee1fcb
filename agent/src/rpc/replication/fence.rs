//! Fencing of volumes' clients: those of an NFS server, and those of RBD images.

use std::{path::PathBuf, sync::Arc};

use drover_engine::error::Kind;
use drover_nfs::{Asked, Cause, Holder, NfsError, Table, Whole};
use drover_proto::v1::{self, fence_server::Fence};
use tonic::{Request, Response, Status};

use super::{
    ReplicationService,
    mirrored::{self, Scope},
};
use crate::{
    exports::{Exports, path_of},
    mirror::Mirrored,
    rpc::{
        convert::{self, ConvertError},
        exports,
        status::{ToStatus as _, status},
    },
    volumes::{Held, Volumes},
    work::Lane,
};

#[derive(Clone)]
pub struct FenceService(pub ReplicationService);

impl FenceService {
    async fn mirrored(&self, id: &str) -> Result<Mirrored, Status> {
        let mirrored = self.0.mirrored_by(id).await?.ok_or_else(|| mirrored::no_image(id))?;
        mirrored::not_delta(&mirrored, "shut its client out with `ceph osd blocklist add ADDRESS`")?;
        Ok(mirrored)
    }

    async fn mirrored_info(&self, mirrored: Mirrored) -> Result<Option<v1::VolumeInfo>, Status> {
        self.0.mirrored_info(mirrored, Scope::BothSites).await.map(Some)
    }

    /// A copy that an NFS server may serve.
    fn held(&self, id: &str) -> Result<Option<Arc<Held>>, Status> {
        let id = convert::volume_id(id).map_err(|error| error.to_status())?;
        if !self.0.volumes.knows(id) {
            return Ok(None);
        }
        if self.0.image_file(id)?.is_some() {
            let field = "volume_id";
            let expected = "a volume whose exports can be fenced: fence its directory (fence-export)";
            return Err(ConvertError::Malformed { field, text: id.to_string(), expected }.to_status());
        }
        self.0.volumes.get_surely(id).map(Some).map_err(|error| error.to_status())
    }

    /// Asking and probing a server that hangs takes a while.
    async fn exports<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Exports, &Volumes) -> Result<T, NfsError> + Send + 'static,
    ) -> Result<T, Status> {
        let (exports, volumes) = (self.0.exports.clone(), self.0.volumes.clone());
        let called = self.0.lanes.run(Lane::Exports, move || call(&exports, &volumes)).await;
        called.map_err(|error| error.to_status())?.map_err(|error| error.to_status())
    }

    async fn fence_held(
        &self,
        held: Arc<Held>,
        request: &v1::FenceVolumeRequest,
    ) -> Result<v1::FenceVolumeResponse, Status> {
        let shut = exports::shut(request.shut).map_err(|error| error.to_status())?;
        let path = path_of(&held).ok_or_else(|| {
            let (field, text) = ("volume_id", request.volume_id.clone());
            ConvertError::Malformed { field, text, expected: "a volume that an NFS server serves: a device is not" }
                .to_status()
        })?;
        let (holder, whole) = (Holder::Volume(held.volume.id()), whole(request.whole_export));
        let asked = Asked { holder, path, shut, cause: Cause::Asked, whole };
        self.exports(move |exports, volumes| exports.fences.fence(&asked, &Exports::owners(volumes))).await?;
        Ok(v1::FenceVolumeResponse { volume: Some(self.0.info(held).await?), fenced: Vec::new() })
    }
}

fn whole(whole_export: bool) -> Whole {
    if whole_export { Whole::Yes } else { Whole::No }
}

/// Of a directory that need be no volume.
fn directory(path: &str) -> Result<PathBuf, Status> {
    let is_whole = path.starts_with('/') && !path.split('/').any(|part| part == "..");
    match is_whole {
        true => Ok(path.into()),
        false => {
            let (field, text) = ("path", path.to_owned());
            Err(ConvertError::Malformed { field, text, expected: "the absolute path of a directory" }.to_status())
        }
    }
}

#[tonic::async_trait]
impl Fence for FenceService {
    async fn fence_volume(
        &self,
        request: Request<v1::FenceVolumeRequest>,
    ) -> Result<Response<v1::FenceVolumeResponse>, Status> {
        let request = request.into_inner();
        if let Some(held) = self.held(&request.volume_id)? {
            return Ok(Response::new(self.fence_held(held, &request).await?));
        }
        let mirrored = self.mirrored(&request.volume_id).await?;
        let image = mirrored.clone();
        let fenced = self.0.ceph(Lane::CephVerbs, move |mirrors| mirrors.fence(&image, request.whole_client)).await?;
        Ok(Response::new(v1::FenceVolumeResponse { volume: self.mirrored_info(mirrored).await?, fenced }))
    }

    async fn unfence_volume(
        &self,
        request: Request<v1::UnfenceVolumeRequest>,
    ) -> Result<Response<v1::UnfenceVolumeResponse>, Status> {
        let volume_id = request.into_inner().volume_id;
        let id = convert::volume_id(&volume_id).map_err(|error| error.to_status())?;
        let held = self.held(&volume_id);
        if let Ok(Some(held)) = &held
            && held.volume.state().superseded.is_some()
            && self.0.exports.fences_superseded()
        {
            let message = "this copy is superseded, and its clients are shut out for that: demote it, or promote it once the other is no primary; on_superseded = \"warn\" lets them in";
            return Err(status(Kind::Precondition, "superseded", message.to_owned()));
        }
        // Also of a volume that is not there any more.
        if self.0.exports.of(id).is_some() || matches!(held, Ok(Some(_))) {
            let wanted = self.exports(move |exports, _| exports.fences.lift(&Holder::Volume(id))).await?;
            let volume = match held {
                Ok(Some(held)) => Some(self.0.info(held).await?),
                _ => None,
            };
            let exports = Some(exports::unfenced(wanted));
            return Ok(Response::new(v1::UnfenceVolumeResponse { volume, unfenced: Vec::new(), exports }));
        }
        held?;
        let mirrored = self.mirrored(&volume_id).await?;
        let image = mirrored.clone();
        let unfenced = self.0.ceph(Lane::CephVerbs, move |mirrors| mirrors.unfence(&image)).await?;
        let volume = self.mirrored_info(mirrored).await?;
        Ok(Response::new(v1::UnfenceVolumeResponse { volume, unfenced, exports: None }))
    }

    async fn list_exports(
        &self,
        _request: Request<v1::ListExportsRequest>,
    ) -> Result<Response<v1::ListExportsResponse>, Status> {
        let list = |exports: &Exports, volumes: &Volumes| {
            let fences = exports.fences.all()?;
            match exports.fences.exports(&Exports::owners(volumes)) {
                Ok((seen, table)) => Ok((seen, table, fences)),
                Err(error) if fences.is_empty() => Err(error),
                // What is shut is in the journal, whatever the server says.
                Err(error) => {
                    let gaps = vec![crate::rpc::status::chain(&error)];
                    let table = Table { source: "the journal of fences alone".to_owned(), gaps, ..Table::default() };
                    Ok((Vec::new(), table, fences))
                }
            }
        };
        let (seen, table, fences) = self.exports(list).await?;
        Ok(Response::new(v1::ListExportsResponse {
            exports: seen.into_iter().map(exports::export).collect(),
            source: table.source,
            gaps: table.gaps,
            fences: fences.iter().map(exports::fence_info).collect(),
        }))
    }

    async fn fence_export(
        &self,
        request: Request<v1::FenceExportRequest>,
    ) -> Result<Response<v1::FenceExportResponse>, Status> {
        let request = request.into_inner();
        let path = directory(&request.path)?;
        let shut = exports::shut(request.shut).map_err(|error| error.to_status())?;
        let (holder, whole) = (Holder::Export(path.clone()), whole(request.whole_export));
        let asked = Asked { holder, path, shut, cause: Cause::Asked, whole };
        let fence =
            self.exports(move |exports, volumes| exports.fences.fence(&asked, &Exports::owners(volumes))).await?;
        Ok(Response::new(v1::FenceExportResponse { fence: Some(exports::fence_info(&fence)) }))
    }

    async fn unfence_export(
        &self,
        request: Request<v1::UnfenceExportRequest>,
    ) -> Result<Response<v1::UnfenceExportResponse>, Status> {
        let holder = Holder::Export(directory(&request.into_inner().path)?);
        let wanted = self.exports(move |exports, _| exports.fences.lift(&holder)).await?;
        Ok(Response::new(v1::UnfenceExportResponse { exports: Some(exports::unfenced(wanted)) }))
    }
}
