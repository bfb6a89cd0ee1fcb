//! The process: its doors, its metrics, its end.

use std::os::unix::fs::PermissionsExt as _;

use drover_proto::v1::{NodeGetInfoRequest, StartRequest, node_client::NodeClient, sync_client::SyncClient};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::{Code, transport::Endpoint};
use tonic_types::StatusExt as _;

use crate::agent::Site;

async fn scrape(port: u16) -> String {
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.expect("metrics answer");
    let request = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.expect("it listens");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("it answers");
    text
}

#[tokio::test]
async fn doors_metrics_and_a_clean_end() {
    let (site, peer) = (Site::new("site-a"), Site::new("site-b"));
    site.write_config(&peer, "");
    let agent = site.start();
    let info =
        NodeClient::new(site.connect("viewer").await).get_info(NodeGetInfoRequest {}).await.unwrap().into_inner();
    assert_eq!((info.name.as_str(), info.roots.len()), ("site-a", 1));

    let socket = site.socket();
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let connect = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { tokio::net::UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let local = Endpoint::from_static("http://local").connect_with_connector(connect).await.unwrap();
    let status = SyncClient::new(local).start(StartRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let details = status.get_details_error_info().expect("an error has its reason in the details");
    assert_eq!((details.reason.as_str(), details.metadata["kind"].as_str()), ("missing-field", "invalid"));

    let metrics = scrape(site.metrics_port).await;
    for wanted in [
        "drover_rpcs_total{method=\"/drover.v1.Node/GetInfo\",code=\"OK\"} 1",
        "drover_rpcs_total{method=\"/drover.v1.Sync/Start\",code=\"INVALID_ARGUMENT\"} 1",
        "drover_jobs{state=\"queued\"} 0",
        "drover_build_info{version=",
        "drover_peak_rss_bytes",
    ] {
        assert!(metrics.contains(wanted), "{wanted} is not in\n{metrics}");
    }
    assert!(agent.terminate().success());
    assert!(!site.socket().exists());
}

#[test]
fn check_finds_what_is_missing() {
    let (site, peer) = (Site::new("site-a"), Site::new("site-b"));
    site.write_config(&peer, "");
    let check = || {
        let output = std::process::Command::new(crate::agent::BINARY)
            .args(["check", "--config"])
            .arg(site.config_path())
            .output()
            .expect("drover-agent runs");
        (output.status.success(), String::from_utf8(output.stdout).expect("text"))
    };
    let (good, text) = check();
    assert!(good, "{text}");
    assert!(text.contains("site-a.drover") && text.contains("0 errors"), "{text}");
    std::fs::remove_dir(site.root()).unwrap();
    let (good, text) = check();
    assert!(!good && text.contains("ERROR    root data"), "{text}");
}
