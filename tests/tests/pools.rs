//! Mirroring of a pool, set up by the agents alone.

use std::fs;

use drover_proto::v1::{self, VolumeRole, pools_client::PoolsClient};
use drover_tests::{
    ceph::{Cluster, Clusters, Recipe, Release},
    fleet::{enable_request, rbd_image, section},
    host::{Access, Agent, Certificates, Client, Faults, status_reason},
    process,
    scratch::Scratch,
    skip,
};
use tonic::{Status, transport::Channel};

use crate::rbd::SYNCED;

const MIB: u64 = 1 << 20;
const IMAGE: &str = "vm1";

struct Sites {
    // Agents end before the clusters do.
    a: Agent,
    b: Agent,
    clusters: Clusters,
    scratch: Scratch,
}

/// With the user for daily work and the one for set-up.
fn both_users(cluster: &Cluster) -> String {
    let user = Recipe::SetUp.user();
    let keyring = cluster.user(&user, &Recipe::SetUp.caps(cluster.pool()));
    format!("{}setup_user = \"client.{user}\"\nsetup_keyring = {keyring:?}\n", section(cluster))
}

fn pool(cluster: &Cluster) -> Option<v1::PoolSpec> {
    Some(v1::PoolSpec { cluster: "ceph".to_owned(), pool: cluster.pool().to_owned(), namespace: String::new() })
}

fn client(agent: &Agent) -> Client {
    agent.client(Access::Controller)
}

fn call<T>(
    agent: &Agent,
    call: impl AsyncFnOnce(PoolsClient<Channel>) -> Result<tonic::Response<T>, Status>,
) -> Result<T, Status> {
    let client = client(agent);
    client.call(call(client.pools()))
}

fn enable(agent: &Agent, cluster: &Cluster, site_name: &str) -> Result<v1::PoolInfo, Status> {
    let request = v1::EnablePoolRequest { pool: pool(cluster), site_name: site_name.to_owned() };
    call(agent, async |mut pools| pools.enable_pool(request).await).map(|enabled| enabled.pool.expect("the pool"))
}

fn look(agent: &Agent, cluster: &Cluster) -> v1::PoolInfo {
    let request = v1::GetPoolRequest { pool: pool(cluster) };
    call(agent, async |mut pools| pools.get_pool(request).await).expect("look at the pool").pool.expect("the pool")
}

fn disable(agent: &Agent, cluster: &Cluster) -> Result<v1::PoolInfo, Status> {
    let request = v1::DisablePoolRequest { pool: pool(cluster) };
    call(agent, async |mut pools| pools.disable_pool(request).await).map(|disabled| disabled.pool.expect("the pool"))
}

fn token(agent: &Agent, cluster: &Cluster) -> Result<String, Status> {
    let request = v1::CreatePeerTokenRequest { pool: pool(cluster) };
    call(agent, async |mut pools| pools.create_peer_token(request).await).map(|made| made.token)
}

fn import(agent: &Agent, cluster: &Cluster, token: &str) -> Result<v1::PoolInfo, Status> {
    let traffic = v1::PeerTraffic::Both.into();
    let request = v1::ImportPeerTokenRequest { pool: pool(cluster), token: token.to_owned(), traffic };
    call(agent, async |mut pools| pools.import_peer_token(request).await)
        .map(|imported| imported.pool.expect("the pool"))
}

#[track_caller]
fn refused<T: std::fmt::Debug>(called: Result<T, Status>, why: &str) {
    let status = called.expect_err("it must be refused");
    assert_eq!(status_reason(&status), why, "{status}");
}

impl Sites {
    fn start(test: &'static str) -> Option<Self> {
        if let Some(why) = Release::Pacific.missing() {
            skip::skipped(test, &why);
            return None;
        }
        let (clusters, scratch) = (Clusters::start(Release::Pacific), Scratch::new("pools"));
        let certificates = Certificates::init(&scratch.join("certs"), &["site-a", "site-b"]);
        let [mut a, mut b] = ["site-a", "site-b"].map(|name| Agent::new(name, &certificates));
        a.setup.peers = vec![("site-b".to_owned(), b.port())];
        b.setup.peers = vec![("site-a".to_owned(), a.port())];
        for (agent, cluster) in [(&mut a, &clusters.a), (&mut b, &clusters.b)] {
            agent.setup.more = both_users(cluster);
            agent.start(&Faults::none());
        }
        Some(Self { a, b, clusters, scratch })
    }

    fn agents(&self) -> [(&Agent, &Cluster); 2] {
        [(&self.a, &self.clusters.a), (&self.b, &self.clusters.b)]
    }
}

#[test]
fn a_pool_is_set_up_by_the_agents_and_no_token_is_written_anywhere() {
    const NAME: &str = "a_pool_is_set_up_by_the_agents_and_no_token_is_written_anywhere";
    let Some(sites) = Sites::start(NAME) else { return };
    let [(a, on_a), (b, on_b)] = sites.agents();
    let before = look(a, on_a);
    assert_eq!((before.mode(), before.site_name.as_str()), (v1::PoolMode::Disabled, ""));
    refused(token(a, on_a), "pool-mode");
    for (agent, cluster) in sites.agents() {
        let enabled = enable(agent, cluster, cluster.name()).expect("enable the pool");
        assert_eq!((enabled.mode(), enabled.site_name.as_str()), (v1::PoolMode::Image, cluster.name()));
        enable(agent, cluster, "").expect("it is enabled already");
        refused(enable(agent, cluster, "another"), "site-has-a-name");
    }
    let token = token(a, on_a).expect("make a token");
    refused(import(a, on_a, &token), "ceph-invalid");
    refused(import(b, on_b, "no token"), "ceph-invalid");
    let imported = import(b, on_b, &token).expect("import the token");
    assert_eq!(imported.peers.iter().map(|peer| peer.site_name.as_str()).collect::<Vec<_>>(), [on_a.name()]);
    import(b, on_b, &token).expect("it is imported already");
    let no_daemon = look(a, on_a).health_because;
    assert!(no_daemon.iter().any(|why| why.contains("no rbd-mirror")), "{no_daemon:?}");
    sites.clusters.both().iter().for_each(|cluster| cluster.start_rbd_mirror());
    sites.clusters.wait_healthy();
    for (agent, cluster) in sites.agents() {
        process::until("the pool is well", SYNCED, || look(agent, cluster).health_because.is_empty().then_some(()));
        println!("{NAME}: {:?}", look(agent, cluster));
    }

    // It mirrors.
    on_a.image(IMAGE).create(16 * MIB);
    on_a.image(IMAGE).write(&[(0, &[7; 65536])]);
    let volume = uuid::Uuid::new_v4().to_string();
    let request = enable_request(&volume, rbd_image(on_a, IMAGE), VolumeRole::Primary);
    client(a).enable(request).expect("enable the image");
    on_a.image(IMAGE).wait_synced(&on_b.image(IMAGE));
    on_b.image(IMAGE).content().assert_is(&on_a.image(IMAGE).content(), "it is mirrored");
    assert_eq!(look(a, on_a).mirrored_images, 1);

    // What is used is not taken away.
    let peer = look(b, on_b).peers[0].uuid.clone();
    let remove = |agent: &Agent, cluster: &Cluster, uuid: &str| {
        let request = v1::RemovePeerRequest { pool: pool(cluster), uuid: uuid.to_owned() };
        call(agent, async |mut pools| pools.remove_peer(request).await).map(|removed| removed.pool.expect("the pool"))
    };
    refused(remove(b, on_b, &peer), "pool-in-use");
    refused(disable(b, on_b), "pool-in-use");
    on_a.rbd(&["mirror", "image", "disable", on_a.image(IMAGE).spec()]);
    process::until("the copy is gone", SYNCED, || (look(b, on_b).mirrored_images == 0).then_some(()));
    refused(disable(b, on_b), "pool-in-use");
    assert!(remove(b, on_b, &peer).expect("remove the peer").peers.is_empty());
    remove(b, on_b, &peer).expect("it is removed already");
    assert_eq!(disable(b, on_b).expect("disable the pool").mode(), v1::PoolMode::Disabled);
    disable(b, on_b).expect("it is disabled already");

    // The key in it alone would do.
    let decoded = sites.scratch.join("token");
    fs::write(&decoded, &token).expect("write a token");
    let mut command = std::process::Command::new("base64");
    command.arg("-d").arg(&decoded);
    let json = process::run(command, SYNCED).expect("decode a token").stdout;
    let json: serde_json::Value = serde_json::from_str(&json).expect("a token is JSON");
    let key = json["key"].as_str().expect("the key of a token").to_owned();
    let mut files = 0;
    for (agent, _) in sites.agents() {
        let mut directories = vec![agent.state_dir()];
        let mut found = vec![agent.log()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).expect("read a directory").flatten() {
                let kind = entry.file_type().expect("the kind of an entry");
                if kind.is_dir() {
                    directories.push(entry.path())
                } else if kind.is_file() {
                    found.push(entry.path())
                }
            }
        }
        for path in found {
            let content = fs::read(&path).expect("read a file");
            let is_in = |text: &str| content.windows(text.len()).any(|window| window == text.as_bytes());
            assert!(!is_in(&token) && !is_in(&key), "the token is in {}", path.display());
            files += 1;
        }
    }
    println!("{NAME}: {files} files searched for the token");
    assert!(files >= 4, "logs and journals of two agents");
}

#[test]
fn the_user_for_daily_work_sets_no_pool_up() {
    const NAME: &str = "the_user_for_daily_work_sets_no_pool_up";
    let Some(mut sites) = Sites::start(NAME) else { return };
    enable(&sites.a, &sites.clusters.a, "site-a").expect("enable the pool");
    sites.a.kill();
    sites.a.setup.more = section(&sites.clusters.a);
    sites.a.start(&Faults::none());
    let (a, on_a) = (&sites.a, &sites.clusters.a);
    refused(token(a, on_a), "ceph-not-permitted");
    let info = look(a, on_a);
    assert_eq!((info.mode(), info.site_name.as_str()), (v1::PoolMode::Image, "site-a"), "it may look");
    let elsewhere = v1::PoolSpec { pool: "other".to_owned(), ..pool(on_a).expect("a pool") };
    let request = v1::GetPoolRequest { pool: Some(elsewhere) };
    refused(call(a, async |mut pools| pools.get_pool(request).await), "pool-not-configured");
    assert!(sites.scratch.path().is_dir());
}
