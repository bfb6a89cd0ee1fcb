//! Who may call what: one row for each RPC. What has no row is denied; a test compares the rows with the descriptors,
//! so that a new RPC without a row fails.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, LazyLock},
    task::{Context, Poll},
};

use drover_engine::error::Kind;
use tonic::{
    Code, Status,
    body::Body,
    codegen::{BoxFuture, http},
    transport::server::{TcpConnectInfo, TlsConnectInfo},
};
use tower::{Layer, Service};

use super::status::status;
use crate::{
    config::Roles,
    metrics::Metrics,
    tls::{Caller, Role},
};

const CONTROL: &[Role] = &[Role::Controller];
const READ: &[Role] = &[Role::Controller, Role::Viewer];
const PEER: &[Role] = &[Role::Peer];
const ALL: &[Role] = &Role::ALL;

/// Full name of each RPC, and the roles that may call it.
pub const ROWS: &[(&str, &[Role])] = &[
    ("/drover.v1.Replication/Enable", CONTROL),
    ("/drover.v1.Replication/Disable", CONTROL),
    ("/drover.v1.Replication/Promote", CONTROL),
    ("/drover.v1.Replication/Demote", CONTROL),
    ("/drover.v1.Replication/Resync", CONTROL),
    ("/drover.v1.Replication/CreateMirrorSnapshot", CONTROL),
    // Peers compare their copies before one is promoted.
    ("/drover.v1.Replication/GetInfo", ALL),
    ("/drover.v1.Replication/WatchInfo", READ),
    ("/drover.v1.Fence/FenceVolume", CONTROL),
    ("/drover.v1.Fence/UnfenceVolume", CONTROL),
    ("/drover.v1.Fence/ListExports", READ),
    ("/drover.v1.Fence/FenceExport", CONTROL),
    ("/drover.v1.Fence/UnfenceExport", CONTROL),
    ("/drover.v1.Groups/CreateMirrorSnapshots", CONTROL),
    ("/drover.v1.Groups/PromoteGroup", CONTROL),
    ("/drover.v1.Groups/DemoteGroup", CONTROL),
    ("/drover.v1.Groups/GetGroup", READ),
    ("/drover.v1.Pools/GetPool", READ),
    ("/drover.v1.Pools/EnablePool", CONTROL),
    ("/drover.v1.Pools/DisablePool", CONTROL),
    ("/drover.v1.Pools/CreatePeerToken", CONTROL),
    ("/drover.v1.Pools/ImportPeerToken", CONTROL),
    ("/drover.v1.Pools/RemovePeer", CONTROL),
    ("/drover.v1.Sync/Start", CONTROL),
    // Plan and Verify read whole volumes on both sides: that is load, so it is not a viewer's.
    ("/drover.v1.Sync/Plan", CONTROL),
    ("/drover.v1.Sync/Verify", CONTROL),
    ("/drover.v1.Sync/Watch", READ),
    ("/drover.v1.Sync/Cancel", CONTROL),
    ("/drover.v1.Sync/List", READ),
    ("/drover.v1.Sync/ListRestorePoints", READ),
    ("/drover.v1.Sync/LocateContent", CONTROL),
    ("/drover.v1.Sync/Rollback", CONTROL),
    ("/drover.v1.Sync/Release", CONTROL),
    ("/drover.v1.Trash/List", READ),
    ("/drover.v1.Trash/Restore", CONTROL),
    ("/drover.v1.Snapshots/Put", CONTROL),
    ("/drover.v1.Snapshots/Get", READ),
    ("/drover.v1.Snapshots/List", READ),
    ("/drover.v1.Snapshots/Delete", CONTROL),
    // As a session: whoever brings records can replace them.
    ("/drover.v1.Snapshots/Changes", PEER),
    ("/drover.v1.Snapshots/Merge", PEER),
    ("/drover.v1.Node/GetInfo", ALL),
    // Whoever transfers can overwrite a secondary: agents only, not even a controller.
    ("/drover.v1.Transfer/Session", PEER),
    ("/drover.v1.Transfer/CompareCopies", PEER),
    ("/grpc.health.v1.Health/Check", ALL),
    ("/grpc.health.v1.Health/Watch", ALL),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", READ),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", READ),
];

static BY_METHOD: LazyLock<HashMap<&str, (&'static str, &'static [Role])>> =
    LazyLock::new(|| ROWS.iter().map(|&(method, roles)| (method, (method, roles))).collect());

fn roles_text(roles: &[Role]) -> String {
    roles.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
}

/// The table's verdict.
fn judge(caller: &Caller, method: &str) -> Result<&'static str, Status> {
    let Some(&(method, allowed)) = BY_METHOD.get(method) else {
        let message = format!("{} called {method:?}, which is no RPC of this agent", caller.name());
        return Err(status(Kind::Denied, "no-such-rpc", message));
    };
    if caller.roles.iter().any(|role| allowed.contains(role)) {
        return Ok(method);
    }
    let has = match caller.roles.as_slice() {
        [] => "no role here: add the name to [roles] in the agent's configuration".to_owned(),
        roles => format!("the role {}", roles_text(roles)),
    };
    let message = format!("{method} is for the role {}; {} has {has}", roles_text(allowed), caller.name());
    Err(status(Kind::Denied, "role-may-not-call", message))
}

/// Where a listener's callers come from.
#[derive(Clone, Debug)]
pub enum Door {
    /// Their certificate says who they are.
    Tls(Arc<Roles>),
    /// The socket's mode lets only root in.
    LocalSocket,
}

#[derive(Clone, Debug)]
pub struct AccessLayer {
    pub door: Door,
    pub metrics: Arc<Metrics>,
}

impl<S> Layer<S> for AccessLayer {
    type Service = Access<S>;

    fn layer(&self, inner: S) -> Access<S> {
        Access { inner, gate: self.clone() }
    }
}

#[derive(Clone, Debug)]
pub struct Access<S> {
    inner: S,
    gate: AccessLayer,
}

impl AccessLayer {
    fn caller<B>(&self, request: &http::Request<B>) -> Result<Caller, Status> {
        let roles = match &self.door {
            Door::LocalSocket => return Ok(Caller::local()),
            Door::Tls(roles) => roles,
        };
        let info = request.extensions().get::<TlsConnectInfo<TcpConnectInfo>>();
        let certificates = info.and_then(TlsConnectInfo::peer_certs);
        match certificates.as_deref().and_then(|chain| chain.first()) {
            Some(certificate) => Ok(Caller::from_certificate(certificate, roles)),
            None => Err(Status::new(Code::Unauthenticated, "no client certificate was shown")),
        }
    }

    fn admit<B>(&self, request: &mut http::Request<B>) -> Result<&'static str, Status> {
        let caller = self.caller(request)?;
        let method = judge(&caller, request.uri().path())?;
        request.extensions_mut().insert(caller);
        Ok(method)
    }
}

impl<S, B> Service<http::Request<B>> for Access<S>
where
    S: Service<http::Request<B>, Response = http::Response<Body>, Error = Infallible> + Send,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        let metrics = self.gate.metrics.clone();
        match self.gate.admit(&mut request) {
            Ok(method) => {
                let response = self.inner.call(request);
                Box::pin(async move {
                    let response = response.await?;
                    metrics.rpc(method, code_name(response.headers()));
                    Ok(response)
                })
            }
            Err(denied) => {
                let known = BY_METHOD.get(request.uri().path()).map_or("unknown", |(method, _)| method);
                metrics.rpc(known, code_text(denied.code()));
                tracing::warn!(method = known, "call denied: {}", denied.message());
                Box::pin(async move { Ok(denied.into_http()) })
            }
        }
    }
}

/// A failed call has its code in the headers; a stream that began well counts as begun well.
fn code_name(headers: &http::HeaderMap) -> &'static str {
    code_text(headers.get("grpc-status").map_or(Code::Ok, |code| Code::from_bytes(code.as_bytes())))
}

fn code_text(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    use super::*;

    /// What the server offers: our package, health and both reflections.
    fn offered() -> BTreeSet<String> {
        let sets = [
            drover_proto::DESCRIPTOR_SET,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ];
        let mut methods = BTreeSet::new();
        for file in sets.into_iter().flat_map(|set| FileDescriptorSet::decode(set).unwrap().file) {
            for service in &file.service {
                let of = |method: &str| format!("/{}.{}/{method}", file.package(), service.name());
                methods.extend(service.method.iter().map(|method| of(method.name())));
            }
        }
        methods
    }

    #[test]
    fn every_rpc_has_exactly_one_row() {
        let rows: BTreeSet<String> = ROWS.iter().map(|(method, _)| (*method).to_owned()).collect();
        assert_eq!(rows.len(), ROWS.len(), "a row is doubled");
        assert_eq!(rows, offered());
    }

    #[test]
    fn a_refusal_says_who_came_and_who_may() {
        let caller = Caller { names: vec!["viewer.drover".to_owned()], roles: vec![Role::Viewer] };
        let denied = judge(&caller, "/drover.v1.Sync/Cancel").unwrap_err();
        assert_eq!(denied.code(), Code::PermissionDenied);
        let said = "/drover.v1.Sync/Cancel is for the role controller; viewer.drover has the role viewer";
        assert_eq!(denied.message(), said);
        let stranger = Caller { names: Vec::new(), roles: Vec::new() };
        assert!(judge(&stranger, "/grpc.health.v1.Health/Check").is_err());
        assert!(judge(&Caller::local(), "/drover.v1.Transfer/Session").is_err());
        assert!(judge(&Caller::local(), "/drover.v1.Sync/Nothing").is_err());
    }
}
