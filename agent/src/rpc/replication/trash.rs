//! What was deleted and waits.

use drover_engine::point::Role;
use drover_proto::v1::{self, trash_server::Trash};
use tonic::{Request, Response, Status};

use super::{Replication as _, ReplicationService};
use crate::{
    volumes::{Trashed, Volumes},
    work::Lane,
};

const DAY_SECS: i64 = 24 * 3600;

#[derive(Clone)]
pub struct TrashService(pub ReplicationService);

fn told(root: String, trashed: Trashed, keep_days: u32) -> v1::TrashEntry {
    let entry = v1::TrashEntry {
        name: trashed.name,
        root,
        volume_id: trashed.volume.to_string(),
        deleted_at_unix_secs: trashed.since,
        purged_at_unix_secs: trashed.since.saturating_add(i64::from(keep_days) * DAY_SECS),
        ..v1::TrashEntry::default()
    };
    let Some(was) = trashed.was else { return entry };
    let role = match was.role {
        Role::Primary => v1::VolumeRole::Primary,
        Role::Secondary => v1::VolumeRole::Secondary,
    };
    v1::TrashEntry {
        restorable: true,
        path: was.path.to_string(),
        role: role.into(),
        points: was.points as u64,
        ..entry
    }
}

#[tonic::async_trait]
impl Trash for TrashService {
    async fn list(&self, request: Request<v1::ListTrashRequest>) -> Result<Response<v1::ListTrashResponse>, Status> {
        let root = Some(request.into_inner().root).filter(|root| !root.is_empty());
        let found = self.0.call(move |volumes: &Volumes| volumes.trashed(root.as_deref())).await?;
        let keep_days = self.0.defaults.trash_days;
        let entries = found.into_iter().map(|(root, trashed)| told(root, trashed, keep_days)).collect();
        Ok(Response::new(v1::ListTrashResponse { entries }))
    }

    async fn restore(
        &self,
        request: Request<v1::RestoreTrashRequest>,
    ) -> Result<Response<v1::RestoreTrashResponse>, Status> {
        let name = request.into_inner().name;
        let restored = name.clone();
        let id = self.0.call_in(Lane::Opening, move |volumes: &Volumes| volumes.restore_trashed(&restored)).await?;
        tracing::info!(volume = %id, trash = name, "volume is back from the trash");
        let request = v1::GetInfoRequest { volume_id: id.to_string(), local_only: true, spec: None };
        let volume = self.0.get_info(Request::new(request)).await?.into_inner().volume;
        Ok(Response::new(v1::RestoreTrashResponse { volume }))
    }
}
