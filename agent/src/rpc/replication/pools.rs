//! Mirroring of pools. A token is in no log: requests and answers of these calls are never printed.

use drover_proto::v1::{self, pools_server::Pools};
use drover_rbd::pool::{Pool, PoolError, PoolPlace, Token};
use tonic::{Request, Response, Status};

use super::ReplicationService;
use crate::{
    mirror,
    rpc::{convert::ConvertError, status::ToStatus as _},
    work::Lane,
};

/// A token is some 250 bytes.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

#[derive(Clone)]
pub struct PoolsService(pub ReplicationService);

struct Named {
    cluster: String,
    place: PoolPlace,
}

impl Named {
    fn of(spec: Option<v1::PoolSpec>) -> Result<Self, Status> {
        let v1::PoolSpec { cluster, pool, namespace } =
            spec.ok_or_else(|| ConvertError::Missing { field: "pool" }.to_status())?;
        for (field, text) in [("pool.cluster", &cluster), ("pool.pool", &pool)] {
            if text.is_empty() {
                return Err(ConvertError::Missing { field }.to_status());
            }
        }
        Ok(Self { cluster, place: PoolPlace { pool, namespace } })
    }
}

impl PoolsService {
    async fn verb<T: Send + 'static>(
        &self,
        spec: Option<v1::PoolSpec>,
        verb: impl FnOnce(Pool<'_>) -> Result<T, PoolError> + Send + 'static,
    ) -> Result<(Named, T), Status> {
        let Named { cluster, place } = Named::of(spec)?;
        let done = self
            .0
            .ceph(Lane::CephVerbs, move |mirrors| {
                let done = mirrors.pool(&cluster, &place, verb)?;
                Ok((Named { cluster, place }, done))
            })
            .await?;
        Ok(done)
    }

    async fn info(&self, spec: Option<v1::PoolSpec>) -> Result<Option<v1::PoolInfo>, Status> {
        let (Named { cluster, place }, view) = self.verb(spec, |pool| pool.look()).await?;
        Ok(Some(mirror::pool::info(&cluster, &place, &view)))
    }

    /// Does it, says so, and tells what the pool is then.
    async fn change(
        &self,
        spec: Option<v1::PoolSpec>,
        what: &'static str,
        verb: impl FnOnce(Pool<'_>) -> Result<(), PoolError> + Send + 'static,
    ) -> Result<Option<v1::PoolInfo>, Status> {
        let (Named { cluster, place }, ()) = self.verb(spec.clone(), verb).await?;
        tracing::info!(cluster, pool = %place, "{what}");
        self.info(spec).await
    }
}

#[tonic::async_trait]
impl Pools for PoolsService {
    async fn get_pool(&self, request: Request<v1::GetPoolRequest>) -> Result<Response<v1::GetPoolResponse>, Status> {
        Ok(Response::new(v1::GetPoolResponse { pool: self.info(request.into_inner().pool).await? }))
    }

    async fn enable_pool(
        &self,
        request: Request<v1::EnablePoolRequest>,
    ) -> Result<Response<v1::EnablePoolResponse>, Status> {
        let v1::EnablePoolRequest { pool, site_name } = request.into_inner();
        let enable = move |pool: Pool<'_>| pool.enable(Some(site_name.as_str()).filter(|name| !name.is_empty()));
        let pool = self.change(pool, "images of the pool may be mirrored", enable).await?;
        Ok(Response::new(v1::EnablePoolResponse { pool }))
    }

    async fn disable_pool(
        &self,
        request: Request<v1::DisablePoolRequest>,
    ) -> Result<Response<v1::DisablePoolResponse>, Status> {
        let disable = |pool: Pool<'_>| pool.disable();
        let pool = self.change(request.into_inner().pool, "mirroring of the pool is disabled", disable).await?;
        Ok(Response::new(v1::DisablePoolResponse { pool }))
    }

    async fn create_peer_token(
        &self,
        request: Request<v1::CreatePeerTokenRequest>,
    ) -> Result<Response<v1::CreatePeerTokenResponse>, Status> {
        let (Named { cluster, place }, Token(token)) =
            self.verb(request.into_inner().pool, |pool| pool.create_token()).await?;
        tracing::info!(cluster, pool = %place, "a token for a peer was made");
        Ok(Response::new(v1::CreatePeerTokenResponse { token }))
    }

    async fn import_peer_token(
        &self,
        request: Request<v1::ImportPeerTokenRequest>,
    ) -> Result<Response<v1::ImportPeerTokenResponse>, Status> {
        let v1::ImportPeerTokenRequest { pool, token, traffic } = request.into_inner();
        let is_both = match v1::PeerTraffic::try_from(traffic) {
            Ok(v1::PeerTraffic::Unspecified | v1::PeerTraffic::Both) => true,
            Ok(v1::PeerTraffic::Receive) => false,
            Ok(v1::PeerTraffic::Send) | Err(_) => {
                return Err(ConvertError::UnknownEnum { field: "traffic", value: traffic }.to_status());
            }
        };
        let token = token.trim().to_owned();
        if token.is_empty() || token.len() > TOKEN_BYTES_MAX {
            let (field, text, expected) = ("token", format!("of {} bytes", token.len()), "a bootstrap token");
            return Err(ConvertError::Malformed { field, text, expected }.to_status());
        }
        let import = move |pool: Pool<'_>| pool.import_token(Token(token), is_both);
        let pool = self.change(pool, "the cluster of a token is a peer", import).await?;
        Ok(Response::new(v1::ImportPeerTokenResponse { pool }))
    }

    async fn remove_peer(
        &self,
        request: Request<v1::RemovePeerRequest>,
    ) -> Result<Response<v1::RemovePeerResponse>, Status> {
        let v1::RemovePeerRequest { pool, uuid } = request.into_inner();
        let remove = move |pool: Pool<'_>| pool.remove_peer(&uuid);
        let pool = self.change(pool, "a peer is removed", remove).await?;
        Ok(Response::new(v1::RemovePeerResponse { pool }))
    }
}
