//! The catalogue of snapshots.

use std::{collections::BTreeSet, sync::Arc};

use drover_engine::{error::Kind, id::VolumeId};
use drover_proto::v1::{self, snapshots_server::Snapshots};
use tonic::{Request, Response, Status};

use super::{
    convert::{self, ConvertError},
    status::{ToStatus, chain, status},
    transfer::target_for,
};
use crate::{
    catalogue::{Catalogue, CatalogueError, Entry, Page, Query, Record, unix_millis},
    mirror::SharedMirrors,
    peers::Peers,
    target::Target,
    tls::Caller,
    volumes::Volumes,
    work::{Lane, Lanes},
};

const PAGE: u32 = 500;
const PAGE_MAX: u32 = 1000;
const PUT_MAX: usize = 1000;

#[derive(Clone)]
pub struct SnapshotsService {
    pub catalogue: Arc<Catalogue>,
    pub volumes: Arc<Volumes>,
    pub mirrors: SharedMirrors,
    pub peers: Arc<Peers>,
    pub lanes: Arc<Lanes>,
}

pub fn told(entry: Entry) -> v1::Snapshot {
    let Entry { record, changed_at_millis, is_deleted } = entry;
    v1::Snapshot {
        volume_id: record.volume.to_string(),
        namespace: record.namespace,
        name: record.name,
        uid: record.uid,
        created_at_unix_secs: record.created_at,
        handle: record.handle,
        content_name: record.content,
        claim_name: record.claim,
        data_volume_id: record.data.map(|data| data.to_string()).unwrap_or_default(),
        manifest: record.manifest,
        changed_at_unix_millis: changed_at_millis,
        deleted: is_deleted,
    }
}

pub fn entry_of(told: v1::Snapshot) -> Result<Entry, ConvertError> {
    let data = match told.data_volume_id.as_str() {
        "" => None,
        id => Some(convert::volume_id(id)?),
    };
    let record = Record {
        volume: convert::volume_id(&told.volume_id)?,
        namespace: told.namespace,
        name: told.name,
        uid: told.uid,
        created_at: told.created_at_unix_secs,
        handle: told.handle,
        content: told.content_name,
        claim: told.claim_name,
        data,
        manifest: told.manifest,
    };
    Ok(Entry { record, changed_at_millis: told.changed_at_unix_millis, is_deleted: told.deleted })
}

impl ToStatus for CatalogueError {
    fn to_status(&self) -> Status {
        let (kind, reason) = match self {
            Self::Record(_) => (Kind::Invalid, "bad-snapshot-record"),
            Self::Token => (Kind::Invalid, "bad-page-token"),
            Self::Full => (Kind::Exhausted, "catalogue-full"),
            Self::InUse { .. } | Self::Newer { .. } => (Kind::Precondition, "catalogue-unusable"),
            Self::Damaged { .. } | Self::Malformed(_) | Self::Store(_) => (Kind::Storage, "catalogue-unusable"),
        };
        status(kind, reason, chain(self))
    }
}

impl SnapshotsService {
    async fn with<T: Send + 'static>(
        &self,
        what: impl FnOnce(&Catalogue) -> Result<T, CatalogueError> + Send + 'static,
    ) -> Result<T, Status> {
        let catalogue = Arc::clone(&self.catalogue);
        let done = self.lanes.run(Lane::Calls, move || what(&catalogue)).await;
        done.map_err(|panicked| panicked.to_status())?.map_err(|error| error.to_status())
    }

    /// Every one is a volume here, mirrored or not.
    async fn check_volumes(&self, ids: BTreeSet<VolumeId>) -> Result<(), Status> {
        let unknown: Vec<_> = ids.into_iter().filter(|id| !self.volumes.knows(*id)).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let (volumes, mirrors) = (self.volumes.clone(), self.mirrors.clone());
        let find = move || unknown.into_iter().try_for_each(|id| Target::exists(&volumes, &mirrors, id));
        let found = self.lanes.run(Lane::Ceph, find).await.map_err(|panicked| panicked.to_status())?;
        found.map_err(|error| error.to_status())
    }

    /// Which volume an agent that calls means: one that it is synced with.
    async fn volume_of<T>(&self, request: &Request<T>, volume_id: &str) -> Result<VolumeId, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        let caller = caller.ok_or_else(|| Status::unauthenticated("the caller is unknown"))?;
        let id = id(volume_id)?;
        let (volumes, mirrors, peers) = (self.volumes.clone(), self.mirrors.clone(), self.peers.clone());
        let find = move || target_for(&volumes, &mirrors, &peers, &caller, id).map(drop);
        let found = self.lanes.run(Lane::Ceph, find).await.map_err(|panicked| panicked.to_status())?;
        found.map_err(|failure| status(failure.kind, &failure.reason, failure.message))?;
        Ok(id)
    }
}

fn id(text: &str) -> Result<VolumeId, Status> {
    convert::volume_id(text).map_err(|error| error.to_status())
}

fn some_id(text: &str) -> Result<Option<VolumeId>, Status> {
    if text.is_empty() { Ok(None) } else { id(text).map(Some) }
}

fn entries(told: Vec<v1::Snapshot>) -> Result<Vec<Entry>, Status> {
    told.into_iter().map(entry_of).collect::<Result<_, _>>().map_err(|error| error.to_status())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Result<Option<Vec<u8>>, Status> {
    let digits = text.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
        u8::from_str_radix(pair, 16).ok()
    });
    let bytes = digits.collect::<Option<Vec<_>>>().ok_or_else(|| CatalogueError::Token.to_status())?;
    Ok(Some(bytes).filter(|bytes| !bytes.is_empty()))
}

#[tonic::async_trait]
impl Snapshots for SnapshotsService {
    async fn put(
        &self,
        request: Request<v1::PutSnapshotsRequest>,
    ) -> Result<Response<v1::PutSnapshotsResponse>, Status> {
        let snapshots = request.into_inner().snapshots;
        if snapshots.len() > PUT_MAX {
            let message =
                format!("{} records in one call, and there may be {PUT_MAX}: put them in parts", snapshots.len());
            return Err(status(Kind::Invalid, "bad-snapshot-record", message));
        }
        let records: Vec<_> = entries(snapshots)?.into_iter().map(|entry| entry.record).collect();
        self.check_volumes(records.iter().map(|record| record.volume).collect()).await?;
        let changed = self.with(move |catalogue| catalogue.put(&records, unix_millis())).await? as u64;
        Ok(Response::new(v1::PutSnapshotsResponse { changed }))
    }

    async fn get(&self, request: Request<v1::GetSnapshotRequest>) -> Result<Response<v1::GetSnapshotResponse>, Status> {
        let v1::GetSnapshotRequest { volume_id, namespace, name } = request.into_inner();
        let volume = id(&volume_id)?;
        let what = format!("{namespace}/{name}");
        let found = self.with(move |catalogue| catalogue.get(volume, &namespace, &name)).await?;
        let missing =
            || status(Kind::NotFound, "no-such-snapshot", format!("no snapshot {what} of volume {volume} is known"));
        Ok(Response::new(v1::GetSnapshotResponse { snapshot: Some(told(found.ok_or_else(missing)?)) }))
    }

    async fn list(
        &self,
        request: Request<v1::ListSnapshotsRequest>,
    ) -> Result<Response<v1::ListSnapshotsResponse>, Status> {
        let asked = request.into_inner();
        let page_size = if asked.page_size == 0 { PAGE } else { asked.page_size.min(PAGE_MAX) };
        let query = Query {
            volume: some_id(&asked.volume_id)?,
            namespace: Some(asked.namespace).filter(|namespace| !namespace.is_empty()),
            since: asked.since_unix_secs,
            until: asked.until_unix_secs,
            after: from_hex(&asked.page_token)?,
            limit: page_size as usize,
        };
        let Page { entries, next } = self.with(move |catalogue| catalogue.list(&query)).await?;
        let next_page_token = next.map(|next| hex(&next)).unwrap_or_default();
        let snapshots = entries.into_iter().map(told).collect();
        Ok(Response::new(v1::ListSnapshotsResponse { snapshots, next_page_token }))
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteSnapshotRequest>,
    ) -> Result<Response<v1::DeleteSnapshotResponse>, Status> {
        let v1::DeleteSnapshotRequest { volume_id, namespace, name, uid } = request.into_inner();
        let (volume, uid) = (some_id(&volume_id)?, Some(uid).filter(|uid| !uid.is_empty()));
        if namespace.is_empty() || name.is_empty() {
            let message = "say the namespace and the name of the snapshot".to_owned();
            return Err(status(Kind::Invalid, "bad-snapshot-record", message));
        }
        let delete =
            move |catalogue: &Catalogue| catalogue.delete(volume, &namespace, &name, uid.as_deref(), unix_millis());
        Ok(Response::new(v1::DeleteSnapshotResponse { deleted: self.with(delete).await? as u64 }))
    }

    async fn changes(
        &self,
        request: Request<v1::ChangedSnapshotsRequest>,
    ) -> Result<Response<v1::ChangedSnapshotsResponse>, Status> {
        let volume = self.volume_of(&request, &request.get_ref().volume_id).await?;
        let since = request.into_inner().since;
        let changes = self.with(move |catalogue| catalogue.changes(volume, since)).await?;
        Ok(Response::new(v1::ChangedSnapshotsResponse {
            snapshots: changes.entries.into_iter().map(told).collect(),
            incarnation: changes.incarnation,
            next: changes.next,
            has_more: changes.has_more,
            last: changes.last,
        }))
    }

    async fn merge(
        &self,
        request: Request<v1::MergeSnapshotsRequest>,
    ) -> Result<Response<v1::MergeSnapshotsResponse>, Status> {
        let volume = self.volume_of(&request, &request.get_ref().volume_id).await?;
        let entries = entries(request.into_inner().snapshots)?;
        if entries.iter().any(|entry| entry.record.volume != volume) {
            let message = format!("records of other volumes than {volume} are told");
            return Err(status(Kind::Invalid, "bad-snapshot-record", message));
        }
        let changed = self.with(move |catalogue| catalogue.merge(&entries, unix_millis())).await? as u64;
        Ok(Response::new(v1::MergeSnapshotsResponse { changed }))
    }
}
