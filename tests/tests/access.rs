//! Who may call what, asked over the wire, and a client that no one here wrote.

use std::{path::PathBuf, process::Command, time::Duration};

use drover_proto::DESCRIPTOR_SET;
use drover_tests::{
    figure::{self, Goal},
    host::{Access, Agent, Client, Pair},
    process::{self, has},
    skip,
};
use prost::Message;
use prost_types::FileDescriptorSet;
use tonic::{Code, Request, Status, client::Grpc, codegen::http::uri::PathAndQuery};
use tonic_prost::ProstCodec;

use Access::{Controller, Peer, Viewer};

const PEER: Access = Peer("site-b");
const EVERYONE: &[Access] = &[Controller, Viewer, PEER];
const READERS: &[Access] = &[Controller, Viewer];
const CONTROL: &[Access] = &[Controller];

/// Written by hand from the contract, not taken from the agent's own table.
const ROWS: &[(&str, &[Access])] = &[
    ("drover.v1.Replication/Enable", CONTROL),
    ("drover.v1.Replication/Disable", CONTROL),
    ("drover.v1.Replication/Promote", CONTROL),
    ("drover.v1.Replication/Demote", CONTROL),
    ("drover.v1.Replication/Resync", CONTROL),
    ("drover.v1.Replication/CreateMirrorSnapshot", CONTROL),
    ("drover.v1.Replication/GetInfo", EVERYONE),
    ("drover.v1.Replication/WatchInfo", READERS),
    ("drover.v1.Fence/FenceVolume", CONTROL),
    ("drover.v1.Fence/UnfenceVolume", CONTROL),
    ("drover.v1.Fence/ListExports", READERS),
    ("drover.v1.Fence/FenceExport", CONTROL),
    ("drover.v1.Fence/UnfenceExport", CONTROL),
    ("drover.v1.Groups/CreateMirrorSnapshots", CONTROL),
    ("drover.v1.Groups/PromoteGroup", CONTROL),
    ("drover.v1.Groups/DemoteGroup", CONTROL),
    ("drover.v1.Groups/GetGroup", READERS),
    ("drover.v1.Trash/List", READERS),
    ("drover.v1.Trash/Restore", CONTROL),
    ("drover.v1.Snapshots/Put", CONTROL),
    ("drover.v1.Snapshots/Get", READERS),
    ("drover.v1.Snapshots/List", READERS),
    ("drover.v1.Snapshots/Delete", CONTROL),
    ("drover.v1.Snapshots/Changes", &[PEER]),
    ("drover.v1.Snapshots/Merge", &[PEER]),
    ("drover.v1.Pools/GetPool", READERS),
    ("drover.v1.Pools/EnablePool", CONTROL),
    ("drover.v1.Pools/DisablePool", CONTROL),
    ("drover.v1.Pools/CreatePeerToken", CONTROL),
    ("drover.v1.Pools/ImportPeerToken", CONTROL),
    ("drover.v1.Pools/RemovePeer", CONTROL),
    ("drover.v1.Sync/Start", CONTROL),
    ("drover.v1.Sync/Plan", CONTROL),
    ("drover.v1.Sync/Watch", READERS),
    ("drover.v1.Sync/Cancel", CONTROL),
    ("drover.v1.Sync/List", READERS),
    ("drover.v1.Sync/Verify", CONTROL),
    ("drover.v1.Sync/ListRestorePoints", READERS),
    ("drover.v1.Sync/LocateContent", CONTROL),
    ("drover.v1.Sync/Rollback", CONTROL),
    ("drover.v1.Sync/Release", CONTROL),
    ("drover.v1.Node/GetInfo", EVERYONE),
    ("drover.v1.Transfer/Session", &[PEER]),
    ("drover.v1.Transfer/CompareCopies", &[PEER]),
    ("grpc.health.v1.Health/Check", EVERYONE),
    ("grpc.health.v1.Health/Watch", EVERYONE),
    ("grpc.reflection.v1.ServerReflection/ServerReflectionInfo", READERS),
    ("grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", READERS),
];

/// Calls a method with an empty message and says how that ended. A stream's first answer is enough.
fn call(client: &Client, method: &str) -> Result<(), Status> {
    let path: PathAndQuery = format!("/{method}").parse().expect("a path");
    let mut grpc = Grpc::new(client.channel());
    client.call(async move {
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let codec = ProstCodec::<(), ()>::default();
        let mut answer = grpc.server_streaming(Request::new(()), path, codec).await?.into_inner();
        let first = tokio::time::timeout(Duration::from_secs(2), answer.message()).await;
        first.unwrap_or(Ok(None)).map(|_| tonic::Response::new(()))
    })
}

fn is_refused(answer: &Result<(), Status>) -> bool {
    answer.as_ref().is_err_and(|status| matches!(status.code(), Code::PermissionDenied | Code::Unauthenticated))
}

#[test]
fn each_role_is_refused_what_it_may_not_call() {
    let pair = Pair::start();
    for (method, allowed) in ROWS {
        for role in EVERYONE {
            let answer = call(&pair.a.client(*role), method);
            assert_eq!(is_refused(&answer), !allowed.contains(role), "{role:?} calls {method}: {answer:?}");
        }
    }
    let cells = (ROWS.len() * EVERYONE.len()) as u64;
    figure::report("cells of the table of RPCs and roles", cells, "calls", Goal::AtLeast(54));
}

/// An RPC without a row would be tested by nobody.
#[test]
fn every_rpc_has_a_row() {
    let set = FileDescriptorSet::decode(DESCRIPTOR_SET).expect("descriptors");
    let mut methods = Vec::new();
    for file in &set.file {
        for service in &file.service {
            let name = |method: &str| format!("{}.{}/{method}", file.package(), service.name());
            methods.extend(service.method.iter().map(|method| name(method.name())));
        }
    }
    let rows: Vec<&str> = ROWS.iter().map(|(method, _)| *method).collect();
    let missing: Vec<&String> = methods.iter().filter(|method| !rows.contains(&method.as_str())).collect();
    assert!(missing.is_empty(), "no row for {missing:?}");
    assert!(methods.len() >= 18);
}

#[test]
fn without_a_certificate_of_the_authority_nothing_is_answered() {
    let pair = Pair::start();
    let other = pair.scratch().join("stranger");
    let strangers = drover_tests::host::Certificates::init(&other, &["site-a"]);
    let (certificate, key) = (strangers.certificate("controller"), strangers.key("controller"));
    let ours = pair.a.certificates().ca();
    for identity in [None, Some((certificate.as_path(), key.as_path()))] {
        let client = Client::connect_with(pair.a.port(), "site-a", &ours, identity);
        let refused = client.map_or(true, |client| call(&client, "drover.v1.Node/GetInfo").is_err());
        assert!(refused, "answered a caller with {identity:?}");
    }
    // And an agent that another authority signed is not believed.
    let identity = Some((certificate.as_path(), key.as_path()));
    assert!(Client::connect_with(pair.a.port(), "site-a", &strangers.ca(), identity).is_err());
}

/// grpcurl, where `tests/run` put it or on the path.
fn grpcurl() -> Option<PathBuf> {
    let given = std::env::var_os("DROVER_TOOLS").map(|dir| PathBuf::from(dir).join("bin/grpcurl"));
    given.filter(|path| path.is_file()).or_else(|| has("grpcurl").then(|| "grpcurl".into()))
}

fn curl(agent: &Agent, role: &str, what: &str, more: &[&str]) -> process::Done {
    let certificates = agent.certificates();
    let mut command = Command::new(grpcurl().expect("looked for before"));
    command.args(["-max-time", "10", "-authority", "site-a.drover"]);
    command.arg("-cacert").arg(certificates.ca());
    command.arg("-cert").arg(certificates.certificate(role)).arg("-key").arg(certificates.key(role));
    // "list" stands alone, "describe" wants a symbol, a call wants its message before the address.
    if !matches!(what, "list" | "describe") {
        command.args(["-d", "{}"]);
    }
    command.arg(format!("127.0.0.1:{}", agent.port())).arg(what).args(more);
    process::run(command, Duration::from_secs(30))
}

#[test]
fn grpcurl_lists_and_calls_by_reflection() {
    const NAME: &str = "grpcurl_lists_and_calls_by_reflection";
    if grpcurl().is_none() {
        return skip::skipped(NAME, "grpcurl is not installed (tests/run installs it where Go is)");
    }
    let pair = Pair::start();
    pair.sync();
    let services = curl(&pair.a, "controller", "list", &[]).expect("grpcurl list").stdout;
    for service in ["Replication", "Groups", "Fence", "Sync", "Node", "Transfer"] {
        assert!(services.contains(&format!("drover.v1.{service}")), "{services}");
    }
    let methods = curl(&pair.a, "viewer", "describe", &["drover.v1.Sync"]).expect("grpcurl describe").stdout;
    assert!(methods.contains("ListRestorePoints"), "{methods}");
    let health = curl(&pair.a, "controller", "grpc.health.v1.Health/Check", &[]).expect("grpcurl Health").stdout;
    assert!(health.contains("SERVING"), "{health}");
    let jobs = curl(&pair.a, "viewer", "drover.v1.Sync/List", &[]).expect("grpcurl Sync/List").stdout;
    assert!(jobs.contains(&pair.volume), "{jobs}");
    let refused = curl(&pair.a, "viewer", "drover.v1.Replication/Promote", &[]);
    assert!(refused.stderr.contains("PermissionDenied"), "{}", refused.stderr);
}
