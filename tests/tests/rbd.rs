//! RBD images mirrored between two real clusters, driven by two real agents. Judges are the command line tools of Ceph.

use std::{
    thread,
    time::{Duration, Instant},
};

use drover_proto::v1::{self, VolumeRole, volume_spec};
use drover_tests::{
    ceph::{Cluster, Clusters, Image, Kind, Recipe, Release},
    host::{Access, Agent, Certificates, Client, Faults},
    process,
    scratch::Scratch,
    seed::Seeds,
    skip,
};
use tonic::Status;
use tonic_types::StatusExt as _;

const MIB: u64 = 1 << 20;
const IMAGE: &str = "vm1";
const BYTES: u64 = 96 * MIB;
/// For a mirror snapshot to reach the other site.
const SYNCED: Duration = Duration::from_secs(90);

struct Sites {
    // Agents end before the clusters do.
    a: Agent,
    b: Agent,
    volume: String,
    clusters: Clusters,
    rng: fastrand::Rng,
    test: &'static str,
    begun: Instant,
    _scratch: Scratch,
}

impl Sites {
    /// Mirrored clusters, an image with content at `site-a`, and agents that protect it, with the capabilities of daily work.
    fn start(test: &'static str, release: Release) -> Option<Self> {
        if let Some(why) = release.missing() {
            skip::skipped(test, &why);
            return None;
        }
        let begun = Instant::now();
        let clusters = Clusters::start(release);
        clusters.mirror();
        let scratch = Scratch::new("rbd");
        let certificates = Certificates::init(&scratch.join("certs"), &["site-a", "site-b"]);
        let (mut a, mut b) = (Agent::new("site-a", &certificates), Agent::new("site-b", &certificates));
        a.setup.peers = vec![("site-b".to_owned(), b.port())];
        b.setup.peers = vec![("site-a".to_owned(), a.port())];
        for (agent, cluster) in [(&mut a, &clusters.a), (&mut b, &clusters.b)] {
            let keyring = cluster.user(&Recipe::Daily.user(), &Recipe::Daily.caps(cluster.pool()));
            agent.setup.more = format!(
                "[[ceph]]\nname = \"ceph\"\nconf = {:?}\nuser = \"client.{}\"\nkeyring = {keyring:?}\npools = [{:?}]\n",
                cluster.conf(),
                Recipe::Daily.user(),
                cluster.pool()
            );
            agent.start(&Faults::none());
        }
        let rng = Seeds::of(test).rng(0);
        let volume = uuid::Uuid::new_v4().to_string();
        let mut sites = Self { a, b, volume, clusters, rng, test, begun, _scratch: scratch };
        sites.here().create(BYTES);
        sites.write(8);
        sites.enable();
        sites.say("both agents protect the image");
        Some(sites)
    }

    fn say(&self, what: &str) {
        println!("{}: {what} after {:.1?}", self.test, self.begun.elapsed());
    }

    fn here(&self) -> Image<'_> {
        self.clusters.a.image(IMAGE)
    }

    fn there(&self) -> Image<'_> {
        self.clusters.b.image(IMAGE)
    }

    /// Noise at a random place of the primary at `site-a`.
    fn write(&mut self, mib: u64) {
        let content = self.noise(mib);
        let at = self.rng.u64(0..(BYTES - mib * MIB) / MIB) * MIB;
        self.here().write(&[(at, &content)]);
    }

    fn write_there(&mut self, mib: u64) {
        let content = self.noise(mib);
        let at = self.rng.u64(0..(BYTES - mib * MIB) / MIB) * MIB;
        self.there().write(&[(at, &content)]);
    }

    fn noise(&mut self, mib: u64) -> Vec<u8> {
        let mut content = vec![0; usize::try_from(mib * MIB).expect("it fits")];
        self.rng.fill(&mut content);
        content
    }

    fn client(agent: &Agent) -> Client {
        agent.client(Access::Controller)
    }

    fn enable(&self) {
        for (agent, role, peer) in
            [(&self.a, VolumeRole::Primary, "site-b"), (&self.b, VolumeRole::Secondary, "site-a")]
        {
            let image = v1::RbdImage {
                cluster: "ceph".to_owned(),
                pool: self.clusters.a.pool().to_owned(),
                image: IMAGE.to_owned(),
                ..v1::RbdImage::default()
            };
            let request = v1::EnableRequest {
                volume_id: self.volume.clone(),
                spec: Some(v1::VolumeSpec { kind: Some(volume_spec::Kind::RbdImage(image)) }),
                role: role.into(),
                peer: Some(peer.to_owned()),
                ..v1::EnableRequest::default()
            };
            Self::client(agent).enable(request).expect("enable the image");
        }
    }

    /// Number of a new sync point.
    fn point(&self, agent: &Agent) -> u64 {
        let client = Self::client(agent);
        let request = v1::CreateMirrorSnapshotRequest { volume_id: self.volume.clone() };
        let answer = client.call(client.replication().create_mirror_snapshot(request)).expect("take a sync point");
        answer.point.expect("the point").number
    }

    fn info(&self, agent: &Agent) -> v1::VolumeInfo {
        Self::client(agent).info(&self.volume).expect("look at the volume")
    }

    fn wait_for_point(&self, agent: &Agent, number: u64) {
        process::until("the sync point is whole at the other site", SYNCED, || {
            let points = self.info(agent).mirror?.points;
            points.iter().any(|point| point.number == number && point.whole).then_some(())
        });
    }

    /// Why a promotion here without force would lose something.
    fn unsafe_because(&self, agent: &Agent) -> Option<String> {
        self.info(agent).mirror.expect("the image").promote_unsafe
    }

    /// Demoted and promoted as the agents say that it is safe; the operator's command does it.
    fn switch(&self, from: (&Agent, &Image<'_>), to: (&Agent, &Image<'_>), clusters: [&Cluster; 2]) {
        let why = self.unsafe_because(to.0).expect("the other side is primary");
        assert!(why.contains("is primary"), "{why}");
        clusters[0].rbd(&["mirror", "image", "demote", from.1.spec()]);
        self.say("demoted");
        process::until("a promotion is safe", SYNCED, || self.unsafe_because(to.0).is_none().then_some(()));
        self.say("a promotion is said to be safe");
        // rbd-mirror lets go of the image some seconds later.
        process::until("it is promoted", SYNCED, || {
            let promoted = clusters[1].try_rbd(&["mirror", "image", "promote", to.1.spec()], SYNCED).expect("rbd runs");
            promoted.status.success().then_some(())
        });
        // librbd would let both be promoted.
        let why = self.unsafe_because(from.0).expect("the other side is primary");
        assert!(why.contains("is primary"), "{why}");
    }
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().map_or_else(String::new, |info| info.reason)
}

fn workers_of(agent: &Agent) -> Vec<u32> {
    process::children(agent.pid().expect("a running agent"))
}

fn what_is_said_to_be_safe_to_promote_loses_nothing(test: &'static str, release: Release) {
    let Some(mut sites) = Sites::start(test, release) else { return };
    let number = sites.point(&sites.a);
    sites.wait_for_point(&sites.b, number);
    sites.say("the first point is at the other site");
    sites.write(4);
    let content = sites.here().content();
    let (second, third) = (sites.point(&sites.a), sites.point(&sites.a));
    assert_eq!((second, third), (number + 1, number + 2), "each has its number");
    let clusters = [&sites.clusters.a, &sites.clusters.b];
    sites.switch((&sites.a, &sites.here()), (&sites.b, &sites.there()), clusters);
    sites.there().content().assert_is(&content, "after the failover");
    let info = sites.info(&sites.b);
    assert_eq!(info.role(), VolumeRole::Primary);

    sites.write_there(4);
    let content = sites.there().content();
    let fourth = sites.point(&sites.b);
    assert_eq!(fourth, third + 1, "numbers go on at the other site");
    sites.wait_for_point(&sites.a, fourth);
    let clusters = [&sites.clusters.b, &sites.clusters.a];
    sites.switch((&sites.b, &sites.there()), (&sites.a, &sites.here()), clusters);
    sites.here().content().assert_is(&content, "after the failback");
    sites.say("failed back");
}

#[test]
fn what_is_said_to_be_safe_to_promote_loses_nothing_on_ceph_16() {
    what_is_said_to_be_safe_to_promote_loses_nothing(
        "what_is_said_to_be_safe_to_promote_loses_nothing_on_ceph_16",
        Release::Pacific,
    );
}

/// The clusters are of Ceph 18, the agents' librbd is the host's.
#[test]
fn what_is_said_to_be_safe_to_promote_loses_nothing_on_ceph_18() {
    what_is_said_to_be_safe_to_promote_loses_nothing(
        "what_is_said_to_be_safe_to_promote_loses_nothing_on_ceph_18",
        Release::Reef,
    );
}

#[test]
fn what_a_promotion_by_force_loses_is_told_and_so_are_two_primaries() {
    const NAME: &str = "what_a_promotion_by_force_loses_is_told_and_so_are_two_primaries";
    let Some(mut sites) = Sites::start(NAME, Release::Pacific) else { return };
    let number = sites.point(&sites.a);
    sites.wait_for_point(&sites.b, number);
    let content = sites.here().content();
    sites.write(2);
    sites.clusters.a.kill();
    sites.a.kill();
    sites.say("the primary's site is dead");
    let mirror = sites.info(&sites.b).mirror.expect("the image");
    let why = mirror.promote_unsafe.expect("nobody knows what the peer has");
    assert!(why.contains("can't be asked"), "{why}");
    let ends = mirror.promote_forced_ends.expect("where it would end");
    assert!(ends.contains(&format!("drover.{number}.")), "{ends}");
    let refused = Sites::client(&sites.b).promote(&sites.volume, true).expect_err("it is not offered");
    assert_eq!(reason(&refused), "rbd-verb", "{refused}");
    sites.clusters.b.rbd(&["mirror", "image", "promote", "--force", sites.there().spec()]);
    sites.say("promoted by force");
    sites.there().content().assert_is(&content, "the last sync point");

    sites.clusters.a.start();
    sites.a.start(&Faults::none());
    sites.say("the dead site is back");
    let because = process::until("both primaries are seen", SYNCED, || {
        let info = sites.info(&sites.a);
        (info.health() == v1::Health::Error).then_some(info.health_because)
    });
    assert!(because.iter().any(|why| why.starts_with("split-brain")), "{because:?}");
}

/// librbd would end on what was there before the last complete sync, with success, or crash.
#[test]
fn r11_a_promotion_in_the_middle_of_a_sync_is_warned_of_and_the_point_that_is_named_is_whole() {
    const NAME: &str = "r11_a_promotion_in_the_middle_of_a_sync_is_warned_of_and_the_point_that_is_named_is_whole";
    let Some(mut sites) = Sites::start(NAME, Release::Pacific) else { return };
    let number = sites.point(&sites.a);
    sites.wait_for_point(&sites.b, number);
    let content = sites.here().content();
    sites.write(64);
    let slowed = sites.clusters.b.slow_down(Kind::Osd, 0.05);
    sites.point(&sites.a);
    let half_way = |sites: &Sites| {
        let newest = sites.there().snapshots().pop()?;
        (!newest.mirror()?.is_complete).then_some(())
    };
    process::until("a mirror snapshot that is not complete", SYNCED, || half_way(&sites));
    sites.clusters.b.stop_processes(&[Kind::RbdMirror]);
    drop(slowed);
    sites.clusters.a.kill();
    sites.a.kill();
    sites.say("the primary died in the middle of a sync");
    half_way(&sites).expect("it is half way still");
    let ends = sites.info(&sites.b).mirror.and_then(|mirror| mirror.promote_forced_ends).expect("where it would end");
    assert!(ends.starts_with("behind") && ends.contains(&format!("drover.{number}.")), "{ends}");
    let snapshots = sites.there().snapshots();
    let prefix = format!("drover.{number}.");
    let point = snapshots.iter().find(|snapshot| snapshot.name.starts_with(&prefix)).expect("its snapshot");
    sites.there().content_at(&point.name).assert_is(&content, "the point that is said to be whole");
}

#[test]
fn a_cluster_that_hangs_delays_its_own_calls_only() {
    const NAME: &str = "a_cluster_that_hangs_delays_its_own_calls_only";
    /// A look takes 5 s in librados and 10 s in the agent; starting and connecting a worker as much again.
    const LATE: Duration = Duration::from_secs(30);
    let Some(sites) = Sites::start(NAME, Release::Pacific) else { return };
    let workers = || workers_of(&sites.a).len();
    sites.clusters.a.stop_processes(&Kind::STORAGE);
    let begun = Instant::now();
    let late = Sites::client(&sites.a).info(&sites.volume).expect_err("the cluster hangs");
    assert!(begun.elapsed() < LATE, "{late} after {:.1?}", begun.elapsed());
    assert_eq!(late.code(), tonic::Code::Unavailable, "{late}");
    // What needs no cluster goes on meanwhile.
    thread::scope(|scope| {
        let hanging = scope.spawn(|| Sites::client(&sites.a).info(&sites.volume).expect_err("the cluster hangs"));
        let begun = Instant::now();
        let mut client = Sites::client(&sites.a);
        assert!(client.is_serving());
        client.call(client.sync().list(v1::ListRequest::default())).expect("list jobs");
        assert!(begun.elapsed() < Duration::from_secs(3), "{:.1?}", begun.elapsed());
        hanging.join().expect("it ends");
    });
    sites.say("the hanging cluster was told");
    sites.clusters.a.cont(&Kind::STORAGE);
    sites.clusters.a.wait_serving();
    process::until("the cluster is used again", SYNCED, || {
        Sites::client(&sites.a).info(&sites.volume).is_ok().then_some(())
    });
    sites.point(&sites.a);
    assert!(workers() <= 8, "{} workers", workers());
    sites.say("the cluster is used again");
}

/// The monitors don't answer while its worker takes a snapshot.
#[test]
fn a_worker_that_is_killed_in_a_change_is_blocklisted_and_the_change_is_looked_for() {
    const NAME: &str = "a_worker_that_is_killed_in_a_change_is_blocklisted_and_the_change_is_looked_for";
    const IN_THE_CALL: Duration = Duration::from_secs(2);
    let Some(sites) = Sites::start(NAME, Release::Pacific) else { return };
    let first = sites.point(&sites.a);
    sites.wait_for_point(&sites.b, first);
    // A look needs the OSD alone, once its worker is connected; a snapshot's id comes from the monitors.
    sites.clusters.a.stop_processes(&[Kind::Mon]);
    let second = thread::scope(|scope| {
        let taken = scope.spawn(|| sites.point(&sites.a));
        thread::sleep(IN_THE_CALL);
        assert!(!taken.is_finished(), "a snapshot waits for the monitors");
        for worker in workers_of(&sites.a) {
            let pid = rustix::process::Pid::from_raw(worker.cast_signed()).expect("a process");
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("kill a worker");
        }
        sites.clusters.a.cont(&[Kind::Mon]);
        taken.join().expect("it ends")
    });
    sites.say("its worker was killed");
    assert_eq!(second, first + 1, "it was taken once");
    sites.wait_for_point(&sites.b, second);
    let blocked = sites.clusters.a.ceph(&["osd", "blocklist", "ls"]);
    assert!(blocked.contains("127.0.0.1"), "{blocked}");
}
