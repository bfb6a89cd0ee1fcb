//! What a call in the wrong state is answered: each row is tried on live clusters, and its reason has a line in the README.

use std::path::PathBuf;

use super::*;

struct Table {
    readme: String,
    rows: usize,
}

impl Table {
    fn new() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
        Self { readme: std::fs::read_to_string(path).expect("read the README"), rows: 0 }
    }

    #[track_caller]
    fn row<T: std::fmt::Debug>(&mut self, what: &str, called: Result<T, Status>, code: tonic::Code, reason: &str) {
        let status = called.expect_err(what);
        let told = status_reason(&status);
        println!("{what:64} {:?} {told}: {}", status.code(), status.message());
        assert_eq!((status.code(), told.as_str()), (code, reason), "{what}: {status}");
        assert!(self.readme.contains(&format!("| `{reason}` |")), "README says what to do about {reason}");
        self.rows += 1;
    }

    #[track_caller]
    fn accepted<T>(&mut self, what: &str, called: Result<T, Status>) {
        called.unwrap_or_else(|status| panic!("{what}: {status}"));
        println!("{what:64} Ok");
        self.rows += 1;
    }
}

/// An agent at `site-a` with another section for the cluster.
fn other(sites: &Sites, name: &str, more: String) -> Agent {
    let certificates = Certificates::init(&sites.scratch.join(name), &[name]);
    let mut agent = Agent::new(name, &certificates);
    agent.setup.more = more;
    agent.start(&Faults::none());
    agent
}

fn cluster_of(sites: &Sites, user: &str, keyring: Option<PathBuf>, pools: &[&str]) -> String {
    let conf = sites.clusters.a.conf();
    let keyring = keyring.map_or_else(String::new, |path| format!("keyring = {path:?}\n"));
    format!("[[ceph]]\nname = \"ceph\"\nconf = {conf:?}\nuser = \"{user}\"\n{keyring}pools = {pools:?}\n")
}

fn enable(agent: &Agent, pool: &str, image: &str, role: VolumeRole) -> Result<String, Status> {
    let (pool, image) = (pool.to_owned(), image.to_owned());
    let image = v1::RbdImage { cluster: "ceph".to_owned(), pool, image, ..v1::RbdImage::default() };
    let request = enable_request(&uuid::Uuid::new_v4().to_string(), image, role);
    let request = v1::EnableRequest { peer: None, ..request };
    Sites::client(agent).enable(request).map(|info| info.volume_id)
}

fn point(agent: &Agent, volume: &str) -> Result<(), Status> {
    let client = Sites::client(agent);
    let request = v1::CreateMirrorSnapshotRequest { volume_id: volume.to_owned() };
    client.call(client.replication().create_mirror_snapshot(request)).map(drop)
}

#[test]
fn each_call_in_the_wrong_state_says_what_to_do() {
    use VolumeRole::Primary;
    use tonic::Code::{DeadlineExceeded, FailedPrecondition, InvalidArgument, NotFound, PermissionDenied};
    const NAME: &str = "each_call_in_the_wrong_state_says_what_to_do";
    const PLAIN: &str = "plain";
    let Some(sites) = Sites::start(NAME, Release::Pacific) else { return };
    let (mut table, cluster, pool) = (Table::new(), &sites.clusters.a, sites.clusters.a.pool());
    let (a, b, volume) = (Sites::client(&sites.a), Sites::client(&sites.b), sites.volume.as_str());
    cluster.ceph(&["osd", "pool", "create", PLAIN, "8"]);
    cluster.rbd(&["pool", "init", PLAIN]);

    // What is not there, and who may not.
    table.row("enable: no such image", enable(&sites.a, pool, "none", Primary), NotFound, "no-image");
    table.row(
        "enable: a pool that is not configured",
        enable(&sites.a, "none", "none", Primary),
        InvalidArgument,
        "pool-not-configured",
    );
    table.row("verb: no such volume", a.promote(&uuid::Uuid::new_v4().to_string(), false), NotFound, "no-such-volume");
    let admin = other(&sites, "admin", cluster_of(&sites, "client.admin", None, &["gone", PLAIN]));
    table.row("enable: no such pool", enable(&admin, "gone", "none", Primary), NotFound, "ceph-not-found");
    let daily = cluster.user("drover", &[]);
    let nobody = other(&sites, "nobody", cluster_of(&sites, "client.nobody", Some(daily), &[pool]));
    table.row(
        "connect: another user's key",
        enable(&nobody, pool, IMAGE, Primary),
        PermissionDenied,
        "ceph-not-permitted",
    );
    let keyless = other(&sites, "keyless", cluster_of(&sites, "client.drover", Some("/nonexistent".into()), &[pool]));
    table.row("connect: no keyring", enable(&keyless, pool, IMAGE, Primary), NotFound, "ceph-not-found");

    // Mirroring of the pool.
    cluster.rbd(&["create", "--size", "8M", "plain/vm"]);
    table.row(
        "enable: the pool is not mirrored",
        enable(&admin, PLAIN, "vm", Primary),
        FailedPrecondition,
        "pool-mode",
    );
    cluster.rbd(&["mirror", "pool", "enable", PLAIN, "image"]);
    let peerless = enable(&admin, PLAIN, "vm", Primary).expect("enable an image without a peer");
    table.row("point: the pool has no peer", point(&admin, &peerless), FailedPrecondition, "pool-without-peer");
    cluster.rbd(&["create", "--size", "8M", "--image-feature", "exclusive-lock,journaling", "plain/journal"]);
    cluster.rbd(&["mirror", "image", "enable", "plain/journal", "journal"]);
    table.row(
        "enable: mirrored by its journal",
        enable(&admin, PLAIN, "journal", Primary),
        FailedPrecondition,
        "journal-mode",
    );
    cluster.rbd(&["mirror", "image", "disable", "plain/vm"]);
    table.row("point: not mirrored", point(&admin, &peerless), FailedPrecondition, "not-mirrored");
    table.row(
        "promote: not mirrored",
        Sites::client(&admin).promote(&peerless, true),
        FailedPrecondition,
        "not-mirrored",
    );
    table.row("demote: not mirrored", Sites::client(&admin).demote(&peerless), FailedPrecondition, "not-mirrored");
    table.accepted("GetInfo: not mirrored", Sites::client(&admin).info(&peerless));

    // Roles.
    let first = sites.point(&sites.a);
    sites.wait_for_point(&sites.b, first);
    sites.enable();
    table.accepted("enable: enabled already, at both sites", Ok(()));
    table.row("point: not primary", point(&sites.b, volume), FailedPrecondition, "not-primary");
    table.row("promote: the peer is primary", b.promote(volume, false), FailedPrecondition, "peer-is-primary");
    table.row("promote by force: the peer is primary", b.promote(volume, true), FailedPrecondition, "peer-is-primary");
    table.accepted("promote: primary already", a.promote(volume, false));
    table.accepted("demote: secondary already", b.demote(volume));
    table.row("resync: a primary whose peer is none", a.resync(volume), FailedPrecondition, "peer-needed");
    cluster.rbd(&["lock", "add", sites.here().spec(), "a lock by hand"]);
    table.row("demote: somebody has its lock", a.demote(volume), FailedPrecondition, "image-locked");
    let locks = cluster.rbd_json(&["lock", "ls", sites.here().spec()]);
    let locker = locks[0]["locker"].as_str().expect("who has the lock").to_owned();
    cluster.rbd(&["lock", "rm", sites.here().spec(), "a lock by hand", &locker]);
    // So that nothing arrives there.
    cluster.stop_processes(&[Kind::RbdMirror]);
    sites.switch(&sites.a, &sites.b);
    table.row("promote: demoted here, promoted there", a.promote(volume, false), FailedPrecondition, "peer-is-primary");
    table.row("demote: nothing has arrived at the peer", b.demote(volume), FailedPrecondition, "peer-needed");
    cluster.cont(&[Kind::RbdMirror]);
    let second = sites.point(&sites.b);
    sites.wait_for_point(&sites.a, second);
    sites.switch(&sites.b, &sites.a);

    // A cluster, and a peer, that are gone.
    sites.clusters.b.kill();
    table.row(
        "promote: this cluster is dead",
        Sites::client(&sites.b).promote(volume, false),
        DeadlineExceeded,
        "ceph-timed-out",
    );
    table.row("demote: the peer can't be asked", a.demote(volume), FailedPrecondition, "peer-needed");
    println!("{NAME}: {} rows", table.rows);
    assert!(table.rows >= 24);
}
