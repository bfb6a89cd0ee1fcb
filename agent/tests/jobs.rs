//! Jobs between two real agents: sync, verify, roll back, the same request twice, cancel, crash and resume.

use std::{fs, path::Path, time::Duration};

use drover_engine::report::Report;
use drover_proto::v1::{
    self, JobState, JobStatus, VolumeRole, replication_client::ReplicationClient, sync_client::SyncClient,
};
use tonic::{Code, transport::Channel};
use tonic_types::StatusExt as _;

use crate::agent::{Agent, Site};

struct Pair {
    a: Site,
    b: Site,
    agent_a: Option<Agent>,
    agent_b: Option<Agent>,
    volume: String,
}

impl Pair {
    /// A primary volume with some files at site-a, its empty secondary at site-b.
    async fn with(files: &[(&str, usize)], config: &str) -> Self {
        let (a, b) = (Site::new("site-a"), Site::new("site-b"));
        fs::create_dir(a.root().join("tree")).unwrap();
        for (name, bytes) in files {
            write(&a.root().join("tree").join(name), *bytes, 1);
        }
        a.write_config(&b, config);
        b.write_config(&a, config);
        let (agent_a, agent_b) = (Some(a.start()), Some(b.start()));
        let volume = uuid::Uuid::new_v4().to_string();
        let pair = Self { a, b, agent_a, agent_b, volume };
        pair.enable(&pair.a, VolumeRole::Primary, "site-b").await;
        pair.enable(&pair.b, VolumeRole::Secondary, "site-a").await;
        pair
    }

    async fn enable(&self, site: &Site, role: VolumeRole, peer: &str) {
        let directory = v1::Directory { root: "data".to_owned(), path: "tree".to_owned() };
        let request = v1::EnableRequest {
            volume_id: self.volume.clone(),
            spec: Some(v1::VolumeSpec { kind: Some(v1::volume_spec::Kind::Directory(directory)) }),
            role: role.into(),
            peer: Some(peer.to_owned()),
            waive: vec!["capabilities".to_owned()],
            retain_seconds: None,
            ..Default::default()
        };
        let mut client = replication(site).await;
        let first = client.enable(request.clone()).await.unwrap().into_inner();
        assert_eq!(client.enable(request).await.unwrap().into_inner(), first, "enabling twice is enabling once");
    }

    fn start_request(&self, request_id: &str) -> v1::StartRequest {
        v1::StartRequest { volume_id: self.volume.clone(), request_id: request_id.to_owned(), ..Default::default() }
    }

    async fn sync(&self, site: &Site, request_id: &str) -> JobStatus {
        let mut client = sync(site).await;
        let job = client.start(self.start_request(request_id)).await.unwrap().into_inner().job_id;
        ended(&mut client, &job).await
    }

    async fn info(&self, site: &Site) -> v1::VolumeInfo {
        let request = v1::GetInfoRequest { volume_id: self.volume.clone(), local_only: false, spec: None };
        replication(site).await.get_info(request).await.unwrap().into_inner().volume.unwrap()
    }

    fn path(&self, site: &Site, name: &str) -> std::path::PathBuf {
        site.root().join("tree").join(name)
    }

    fn same(&self, name: &str) -> bool {
        fs::read(self.path(&self.a, name)).unwrap() == fs::read(self.path(&self.b, name)).unwrap()
    }
}

/// Content that does not compress and differs from seed to seed.
fn write(path: &Path, bytes: usize, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed ^ bytes as u64);
    let mut content = vec![0; bytes];
    random.fill(&mut content);
    fs::write(path, content).unwrap();
}

async fn sync(site: &Site) -> SyncClient<Channel> {
    SyncClient::new(site.connect("controller").await)
}

async fn replication(site: &Site) -> ReplicationClient<Channel> {
    ReplicationClient::new(site.connect("controller").await)
}

async fn ended(client: &mut SyncClient<Channel>, job: &str) -> JobStatus {
    let mut watch = client.watch(v1::WatchRequest { job_id: job.to_owned() }).await.unwrap().into_inner();
    let mut last = None;
    while let Some(status) = watch.message().await.unwrap() {
        last = status.job;
    }
    last.expect("a watch says something")
}

fn done(status: &JobStatus) -> Report {
    assert_eq!(status.state(), JobState::Done, "{status:?}");
    serde_json::from_str(&status.report_json).unwrap()
}

/// Waits until the running job has moved so much over the wire.
async fn moved(client: &mut SyncClient<Channel>, job: &str, bytes: u64) {
    let mut watch = client.watch(v1::WatchRequest { job_id: job.to_owned() }).await.unwrap().into_inner();
    while let Some(status) = watch.message().await.unwrap() {
        let status = status.job.unwrap();
        assert!(!matches!(status.state(), JobState::Done | JobState::Failed), "{status:?}");
        if status.wire_sent_bytes + status.wire_received_bytes >= bytes {
            return;
        }
    }
    panic!("the job ended too early");
}

#[tokio::test]
async fn push_verify_roll_back_and_release() {
    let pair = Pair::with(&[("a", 100), ("b", 300_000)], "").await;
    let Report::Sync(report) = done(&pair.sync(&pair.a, "one").await) else { panic!("no sync report") };
    assert_eq!(report.point.unwrap().id.to_string(), "1");
    assert!(pair.same("a") && pair.same("b"));

    write(&pair.path(&pair.a, "a"), 100, 2);
    done(&pair.sync(&pair.a, "two").await);
    assert!(pair.same("a"));
    let info = pair.info(&pair.b).await;
    assert_eq!((info.role(), info.restore_points.len()), (VolumeRole::Secondary, 2), "{info:?}");
    assert!(info.rpo_age_seconds.unwrap() < 60 && info.newest.unwrap().id == "2");

    let mut client = sync(&pair.a).await;
    let request = v1::VerifyRequest { volume_id: pair.volume.clone(), deep: true, ..Default::default() };
    let job = client.verify(request).await.unwrap().into_inner().job_id;
    let Report::Verify(verified) = done(&ended(&mut client, &job).await) else { panic!("no verify report") };
    assert!(verified.deep && !verified.is_discrepancy());

    let mut client = sync(&pair.b).await;
    let points = v1::ListRestorePointsRequest { volume_id: pair.volume.clone() };
    let points = client.list_restore_points(points).await.unwrap().into_inner().points;
    assert_eq!(points.iter().map(|it| it.point.as_ref().unwrap().id.as_str()).collect::<Vec<_>>(), ["2", "1"]);
    let request =
        v1::RollbackRequest { volume_id: pair.volume.clone(), point_id: "1".to_owned(), ..Default::default() };
    let job = client.rollback(request).await.unwrap().into_inner().job_id;
    done(&ended(&mut client, &job).await);
    assert!(!pair.same("a") && pair.info(&pair.b).await.paused);
    let refused = pair.sync(&pair.a, "three").await;
    assert_eq!((refused.state(), refused.error.unwrap().kind.as_str()), (JobState::Failed, "precondition"));
    client.release(v1::ReleaseRequest { volume_id: pair.volume.clone() }).await.unwrap();
    done(&pair.sync(&pair.a, "four").await);
    assert!(pair.same("a"));
}

#[tokio::test]
async fn pull_and_the_same_request_twice() {
    let pair = Pair::with(&[("a", 5000)], "").await;
    let first = pair.sync(&pair.b, "once").await;
    done(&first);
    assert_eq!((first.direction(), pair.same("a")), (v1::Direction::Pull, true));
    assert_eq!(pair.sync(&pair.b, "once").await, first, "the same request is the same job");
    let mut other = pair.start_request("once");
    other.direction = v1::Direction::Push.into();
    let status = sync(&pair.b).await.start(other).await.unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists);
    assert_eq!(status.get_details_error_info().unwrap().reason, "request-id-in-use");
    let jobs = sync(&pair.b).await.list(v1::ListRequest::default()).await.unwrap().into_inner().jobs;
    assert_eq!(jobs.len(), 1);
}

#[tokio::test]
async fn a_plan_changes_nothing() {
    let pair = Pair::with(&[("a", 5000)], "").await;
    let mut client = sync(&pair.a).await;
    let request = v1::PlanRequest { volume_id: pair.volume.clone(), ..Default::default() };
    let job = client.plan(request).await.unwrap().into_inner().job_id;
    let Report::Plan(plan) = done(&ended(&mut client, &job).await) else { panic!("no plan report") };
    assert_eq!(plan.changes.created, 1);
    assert!(!pair.path(&pair.b, "a").exists());
}

#[tokio::test]
async fn directions_swap_by_demote_and_promote() {
    let pair = Pair::with(&[("a", 5000)], "").await;
    done(&pair.sync(&pair.a, "one").await);
    let volume_id = pair.volume.clone();
    let demoted = replication(&pair.a)
        .await
        .demote(v1::DemoteRequest { volume_id: volume_id.clone(), ..v1::DemoteRequest::default() })
        .await
        .unwrap();
    assert_eq!(demoted.into_inner().volume.unwrap().role(), VolumeRole::Secondary);
    let promoted = v1::PromoteRequest { volume_id, ..v1::PromoteRequest::default() };
    let promoted = replication(&pair.b).await.promote(promoted).await.unwrap().into_inner().volume.unwrap();
    assert_eq!((promoted.role(), promoted.epoch), (VolumeRole::Primary, 2));
    write(&pair.path(&pair.b, "a"), 5000, 7);
    done(&pair.sync(&pair.b, "back").await);
    assert!(pair.same("a"));
}

/// Slow enough that there is a middle to act in.
const SLOW: &str = "[limits]\nbandwidth_mib = 8\n";

#[tokio::test]
async fn a_cancelled_job_stops_and_says_so() {
    let pair = Pair::with(&[("big", 64 << 20)], SLOW).await;
    let mut client = sync(&pair.a).await;
    let job = client.start(pair.start_request("long")).await.unwrap().into_inner().job_id;
    moved(&mut client, &job, 4 << 20).await;
    let listed = sync(&pair.b).await.list(v1::ListRequest::default()).await.unwrap().into_inner().jobs;
    assert!(listed.iter().any(|it| it.passive && it.job_id == "long"), "the peer lists the session: {listed:?}");
    client.cancel(v1::CancelRequest { job_id: job.clone() }).await.unwrap();
    let status = tokio::time::timeout(Duration::from_secs(10), ended(&mut client, &job)).await.unwrap();
    assert_eq!((status.state(), status.error.unwrap().reason.as_str()), (JobState::Cancelled, "cancelled"));
    assert!(!pair.path(&pair.b, "big").exists());
    for _ in 0..100 {
        let listed = sync(&pair.b).await.list(v1::ListRequest::default()).await.unwrap().into_inner().jobs;
        if listed.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the peer's session did not end");
}

#[tokio::test]
async fn a_killed_dialer_goes_on_after_its_restart() {
    let mut pair = Pair::with(&[("big", 64 << 20)], SLOW).await;
    let mut client = sync(&pair.a).await;
    let job = client.start(pair.start_request("long")).await.unwrap().into_inner().job_id;
    moved(&mut client, &job, 16 << 20).await;
    pair.agent_a.take().unwrap().kill();
    pair.agent_a = Some(pair.a.start());
    let status = ended(&mut sync(&pair.a).await, &job).await;
    done(&status);
    assert!(status.attempts >= 2 && pair.same("big"), "{status:?}");
}

#[tokio::test]
async fn a_killed_listener_is_dialled_again() {
    let mut pair = Pair::with(&[("big", 64 << 20)], SLOW).await;
    let mut client = sync(&pair.a).await;
    let job = client.start(pair.start_request("long")).await.unwrap().into_inner().job_id;
    moved(&mut client, &job, 16 << 20).await;
    pair.agent_b.take().unwrap().kill();
    assert!(!pair.path(&pair.b, "big").exists());
    pair.agent_b = Some(pair.b.start());
    let status = ended(&mut client, &job).await;
    done(&status);
    assert!(status.attempts >= 2 && pair.same("big"), "{status:?}");
}

#[tokio::test]
async fn a_stopped_agent_checkpoints_its_job() {
    let mut pair = Pair::with(&[("big", 64 << 20)], SLOW).await;
    let mut client = sync(&pair.a).await;
    let job = client.start(pair.start_request("long")).await.unwrap().into_inner().job_id;
    moved(&mut client, &job, 16 << 20).await;
    let began = std::time::Instant::now();
    assert!(pair.agent_a.take().unwrap().terminate().success());
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    pair.agent_a = Some(pair.a.start());
    let status = ended(&mut sync(&pair.a).await, &job).await;
    done(&status);
    assert!(pair.same("big"));
}

#[tokio::test]
async fn a_peer_that_is_away_is_waited_for() {
    let mut pair = Pair::with(&[("a", 5000)], "").await;
    pair.agent_b.take().unwrap().kill();
    let mut client = sync(&pair.a).await;
    let job = client.start(pair.start_request("patient")).await.unwrap().into_inner().job_id;
    let mut watch = client.watch(v1::WatchRequest { job_id: job.clone() }).await.unwrap().into_inner();
    loop {
        let status = watch.message().await.unwrap().unwrap().job.unwrap();
        if status.state() == JobState::Retrying {
            assert_eq!(status.error.unwrap().reason, "peer-unreachable");
            break;
        }
    }
    pair.agent_b = Some(pair.b.start());
    done(&ended(&mut client, &job).await);
    assert!(pair.same("a"));
}

/// A peer that neither answers nor closes is only noticed by the connection's keepalive: 10 s until it asks, 20 s until
/// it gives up.
#[tokio::test]
#[ignore = "takes 40 s"]
async fn a_silent_peer_is_given_up_and_dialled_again() {
    let mut pair = Pair::with(&[("big", 64 << 20)], SLOW).await;
    let mut client = sync(&pair.a).await;
    let job = client.start(pair.start_request("long")).await.unwrap().into_inner().job_id;
    moved(&mut client, &job, 16 << 20).await;
    pair.agent_b.as_ref().unwrap().freeze();
    let began = std::time::Instant::now();
    let mut watch = client.watch(v1::WatchRequest { job_id: job.clone() }).await.unwrap().into_inner();
    while watch.message().await.unwrap().unwrap().job.unwrap().state() != JobState::Retrying {}
    assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
    pair.agent_b.take().unwrap().kill();
    pair.agent_b = Some(pair.b.start());
    done(&ended(&mut client, &job).await);
    assert!(pair.same("big"));
}
