//! Each role against each RPC, over real mutual TLS. What the table denies must be denied by the wire; what it allows
//! must reach the service, whatever that then says.

use bytes::{Buf as _, BufMut as _};
use drover_agent::{rpc::access::ROWS, tls::Role};
use tonic::{
    Code, Request, Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    transport::Channel,
};

use crate::agent::Site;

/// Bytes in, bytes out: an empty message is a valid request of every RPC.
#[derive(Clone, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining()).to_vec()))
    }
}

/// The code that the call begins with.
async fn call(channel: &Channel, method: &'static str) -> Status {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.expect("the agent answers");
    let request = Request::new(tokio_stream::once(Vec::new()));
    match client.streaming(request, PathAndQuery::from_static(method), Raw).await {
        Ok(_) => Status::ok(""),
        Err(status) => status,
    }
}

async fn sites() -> (Site, crate::agent::Agent) {
    let (site, peer) = (Site::new("site-a"), Site::new("site-b"));
    site.write_config(&peer, "");
    let agent = site.start();
    (site, agent)
}

#[tokio::test]
async fn each_role_may_call_what_its_row_says_and_nothing_else() {
    let (site, _agent) = sites().await;
    for (who, role) in [("controller", Role::Controller), ("viewer", Role::Viewer), ("site-b", Role::Peer)] {
        let channel = site.connect(who).await;
        for (method, allowed) in ROWS {
            let status = call(&channel, method).await;
            if allowed.contains(&role) {
                assert_ne!(status.code(), Code::PermissionDenied, "{role} {method}: {}", status.message());
                assert_ne!(status.code(), Code::Unimplemented, "{role} {method}: {}", status.message());
            } else {
                assert_eq!(status.code(), Code::PermissionDenied, "{role} {method}");
                let names = [format!("{who}.drover"), allowed[0].to_string()];
                assert!(names.iter().all(|name| status.message().contains(name)), "{}", status.message());
            }
        }
        let unknown = call(&channel, "/drover.v1.Sync/Nothing").await;
        assert_eq!(unknown.code(), Code::PermissionDenied, "{role}");
    }
}

#[tokio::test]
async fn a_certificate_without_a_role_may_call_nothing() {
    let (site, _agent) = sites().await;
    let channel = site.connect("stranger").await;
    for (method, _) in ROWS {
        let status = call(&channel, method).await;
        assert_eq!(status.code(), Code::PermissionDenied, "{method}");
        assert!(status.message().contains("stranger.drover"), "{}", status.message());
    }
}

#[tokio::test]
async fn without_a_certificate_nothing_is_answered() {
    let (site, _agent) = sites().await;
    site.connect("controller").await;
    // TLS 1.3 lets the client finish its side first: the refusal comes with the connection or with the first call.
    if let Ok(channel) = site.endpoint(None).connect().await {
        let mut client = drover_proto::v1::node_client::NodeClient::new(channel);
        let answer = client.get_info(drover_proto::v1::NodeGetInfoRequest {}).await;
        assert!(answer.is_err(), "{answer:?}");
    }
}
