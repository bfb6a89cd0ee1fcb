//! RBD images mirrored between two real clusters, driven by two real agents. Judges are the command line tools of Ceph.

mod disable;
mod namespace;
mod wrong_state;

use std::{
    collections::BTreeMap,
    path::Path,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use drover_librbd::ImageRef;
use drover_proto::v1::{self, VolumeRole};
use drover_tests::{
    ceph::{Cluster, Clusters, Content, Image, Kind, Release},
    execs::Execs,
    figure::{self, Goal},
    fleet::{self, agents, enable_request, rbd_image},
    host::{Access, Agent, Certificates, Client, Faults, status_reason},
    process,
    rounds::Rounds,
    scratch::Scratch,
    seed::Seeds,
    skip,
};
use tonic::Status;

const MIB: u64 = 1 << 20;
/// As Ceph-CSI names it.
const IMAGE: &str = "csi-vol-5f0b6f0e-6a51-4d0a-9f6f-0a4c2f1d7b11";
const JOURNAL: &str = "csi.volume.5f0b6f0e-6a51-4d0a-9f6f-0a4c2f1d7b11";
/// One that Drover knows nothing of.
const PLAIN: &str = "plain";
const BYTES: u64 = 96 * MIB;
/// For a mirror snapshot to reach the other site.
pub(crate) const SYNCED: Duration = Duration::from_secs(90);

struct Sites {
    // Agents end before the clusters do.
    a: Agent,
    b: Agent,
    volume: String,
    clusters: Clusters,
    rng: fastrand::Rng,
    test: &'static str,
    begun: Instant,
    scratch: Scratch,
}

impl Sites {
    /// Mirrored clusters, an image with content at `site-a`, and agents that protect it, with the capabilities of daily work.
    fn start(test: &'static str, release: Release) -> Option<Self> {
        Self::start_round(test, release, &Seeds::of(test), 0)
    }

    fn start_round(test: &'static str, release: Release, seeds: &Seeds, round: u64) -> Option<Self> {
        if let Some(why) = release.missing() {
            skip::skipped(test, &why);
            return None;
        }
        let begun = Instant::now();
        let clusters = Clusters::start(release);
        clusters.mirror();
        let scratch = Scratch::new("rbd");
        let [a, b] = agents(&clusters, &scratch);
        let rng = seeds.rng(round);
        let volume = uuid::Uuid::new_v4().to_string();
        let mut sites = Self { a, b, volume, clusters, rng, test, begun, scratch };
        sites.here().create(BYTES);
        sites.write(8);
        sites.enable();
        sites.say("both agents protect the image");
        Some(sites)
    }

    /// What Ceph-CSI keeps of the image at both sites, as it was when the volume was made known there.
    fn journal(&self) {
        for cluster in self.clusters.both() {
            cluster.set_omap(JOURNAL, "csi.imagename", IMAGE);
            cluster.set_omap(JOURNAL, "csi.imageid", &cluster.image(IMAGE).id());
        }
    }

    #[track_caller]
    fn assert_journal(&self, cluster: &Cluster) {
        assert_eq!(cluster.omap(JOURNAL, "csi.imageid"), cluster.image(IMAGE).id(), "Ceph-CSI knows the image");
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
        for (agent, role) in [(&self.a, VolumeRole::Primary), (&self.b, VolumeRole::Secondary)] {
            let request = enable_request(&self.volume, rbd_image(&self.clusters.a, IMAGE), role);
            Self::client(agent).enable(request.clone()).expect("enable the image");
            // What is not named stays as it is.
            let again = v1::EnableRequest { peer: None, ..request };
            Self::client(agent).enable(again).expect("enable the image again");
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

    fn promote(&self, agent: &Agent) -> Result<(), Status> {
        Self::client(agent).promote(&self.volume, false)
    }

    #[track_caller]
    fn refused(&self, called: Result<(), Status>, why: &str) {
        let status = called.expect_err("it must be refused");
        assert_eq!(status_reason(&status), why, "{status}");
    }

    /// The old primary's copy is kept aside as it was, and comes anew.
    fn give_up_the_loser(&self, lost: &Content) {
        Self::client(&self.a).resync(&self.volume).expect("give up the loser's copy");
        self.say("its copy was given up");
        let neighbours = self.here().neighbours();
        let kept = neighbours
            .iter()
            .find(|name| name.starts_with(&format!("{IMAGE}.drover-kept.")))
            .expect("the loser's image");
        self.clusters.a.image(kept).content().assert_is(lost, "what the loser held");
        process::until("there is a copy again", SYNCED, || self.info(&self.a).mirror);
    }

    /// A planned failover.
    fn switch(&self, from: &Agent, to: &Agent) {
        let why = self.unsafe_because(to).expect("the other side is primary");
        assert!(why.contains("is primary"), "{why}");
        self.refused(self.promote(to), "peer-is-primary");
        self.refused(Self::client(to).promote(&self.volume, true), "peer-is-primary");
        Self::client(from).demote(&self.volume).expect("demote the primary");
        self.say("demoted");
        process::until("a promotion is safe", SYNCED, || self.unsafe_because(to).is_none().then_some(()));
        self.say("a promotion is said to be safe");
        self.promote(to).expect("promote the secondary");
        self.say("promoted");
        // librbd would let both be promoted.
        self.refused(self.promote(from), "peer-is-primary");
        self.promote(to).expect("it is primary already");
        Self::client(from).demote(&self.volume).expect("it is secondary already");
        assert_eq!(self.info(to).health(), v1::Health::Ok, "{:?}", self.info(to).health_because);
    }
}

fn a_planned_failover_and_failback_lose_nothing(test: &'static str, release: Release) {
    let Some(mut sites) = Sites::start(test, release) else { return };
    sites.a.restart(&Faults::none());
    sites.b.restart(&Faults::none());
    let execs = [&sites.a, &sites.b].map(|agent| Execs::watch(agent.pid().expect("a running agent"), &sites.scratch));
    // Those that look for interrupted verbs when an agent starts may have been started unseen, and be enough for all that follows.
    sites.a.kill_workers();
    sites.b.kill_workers();
    let number = sites.point(&sites.a);
    sites.wait_for_point(&sites.b, number);
    sites.say("the first point is at the other site");
    sites.write(4);
    let content = sites.here().content();
    let (second, third) = (sites.point(&sites.a), sites.point(&sites.a));
    assert_eq!((second, third), (number + 1, number + 2), "each has its number");
    sites.switch(&sites.a, &sites.b);
    sites.there().content().assert_is(&content, "after the failover");
    let info = sites.info(&sites.b);
    assert_eq!(info.role(), VolumeRole::Primary);

    sites.write_there(4);
    let content = sites.there().content();
    let fourth = sites.point(&sites.b);
    assert_eq!(fourth, third + 1, "numbers go on at the other site");
    sites.wait_for_point(&sites.a, fourth);
    sites.switch(&sites.b, &sites.a);
    sites.here().content().assert_is(&content, "after the failback");
    sites.say("failed back");
    // Neither `rbd` nor `ceph`: the agent alone, as its own worker.
    for started in execs.map(Execs::stop) {
        println!("{test}: {} programs were started", started.len());
        assert!(!started.is_empty(), "workers are started");
        let is_worker = |call: &String| call.starts_with(r#""/proc/self/exe", ["/proc/self/exe", "rbd-worker"]"#);
        assert!(started.iter().all(is_worker), "{started:?}");
    }
}

#[test]
fn a_planned_failover_and_failback_lose_nothing_on_ceph_16() {
    a_planned_failover_and_failback_lose_nothing(
        "a_planned_failover_and_failback_lose_nothing_on_ceph_16",
        Release::Pacific,
    );
}

/// The clusters are of Ceph 18, the agents' librbd is the host's.
#[test]
fn a_planned_failover_and_failback_lose_nothing_on_ceph_18() {
    a_planned_failover_and_failback_lose_nothing(
        "a_planned_failover_and_failback_lose_nothing_on_ceph_18",
        Release::Reef,
    );
}

/// The primary's cluster dies, its copy is given up and kept, and in the end it is primary again.
fn a_disaster_loses_what_is_told_and_the_loser_is_kept(test: &'static str, release: Release) {
    let Some(mut sites) = Sites::start(test, release) else { return };
    let number = sites.point(&sites.a);
    sites.wait_for_point(&sites.b, number);
    sites.journal();
    let first_id = sites.here().id();
    let content = sites.here().content();
    sites.write(2);
    let lost = sites.here().content();
    sites.clusters.a.kill();
    sites.a.kill();
    sites.say("the primary's site is dead");
    let mirror = sites.info(&sites.b).mirror.expect("the image");
    let why = mirror.promote_unsafe.expect("nobody knows what the peer has");
    assert!(why.contains("can't be asked"), "{why}");
    let ends = mirror.promote_forced_ends.expect("where it would end");
    assert!(ends.contains(&format!("drover.{number}.")), "{ends}");
    sites.refused(sites.promote(&sites.b), "promote-unsafe");
    sites.refused(Sites::client(&sites.b).resync(&sites.volume), "peer-needed");
    Sites::client(&sites.b).promote(&sites.volume, true).expect("promote by force");
    sites.say("promoted by force");
    sites.there().content().assert_is(&content, "the last sync point");
    sites.write_there(2);

    sites.clusters.a.start();
    sites.a.start(&Faults::none());
    sites.say("the dead site is back");
    let is_split_brain = || {
        let info = sites.info(&sites.a);
        let because = info.health_because.iter().any(|why| why.starts_with("split-brain"));
        (info.health() == v1::Health::Error && because).then_some(())
    };
    process::until("both primaries are seen", SYNCED, is_split_brain);
    Sites::client(&sites.a).demote(&sites.volume).expect("demote the loser");
    is_split_brain().expect("what it holds is nowhere else");
    sites.give_up_the_loser(&lost);
    let number = sites.point(&sites.b);
    sites.wait_for_point(&sites.a, number);
    Sites::client(&sites.a).resync(&sites.volume).expect("it follows its peer already");
    sites.say("the dead site has a copy again");
    let content = sites.there().content();
    sites.switch(&sites.b, &sites.a);
    sites.here().content().assert_is(&content, "after the failback");
    assert_ne!(sites.clusters.a.omap(JOURNAL, "csi.imageid"), first_id, "it was copied anew");
    sites.assert_journal(&sites.clusters.a);
    let kept = sites.here().neighbours().into_iter().filter(|name| name.starts_with(&format!("{IMAGE}."))).count();
    assert_eq!(kept, 1, "nothing was given up twice");
}

#[test]
fn a_disaster_loses_what_is_told_and_the_loser_is_kept_on_ceph_16() {
    a_disaster_loses_what_is_told_and_the_loser_is_kept(
        "a_disaster_loses_what_is_told_and_the_loser_is_kept_on_ceph_16",
        Release::Pacific,
    );
}

#[test]
fn a_disaster_loses_what_is_told_and_the_loser_is_kept_on_ceph_18() {
    a_disaster_loses_what_is_told_and_the_loser_is_kept(
        "a_disaster_loses_what_is_told_and_the_loser_is_kept_on_ceph_18",
        Release::Reef,
    );
}

/// Their next write would be acknowledged, and be in no snapshot.
#[test]
fn an_image_that_somebody_writes_to_is_not_demoted_and_a_demotion_is_taken_back() {
    const NAME: &str = "an_image_that_somebody_writes_to_is_not_demoted_and_a_demotion_is_taken_back";
    let Some(sites) = Sites::start(NAME, Release::Pacific) else { return };
    let number = sites.point(&sites.a);
    sites.wait_for_point(&sites.b, number);
    let writer = sites.here().writer();
    let users = || sites.info(&sites.a).mirror.map(|mirror| mirror.users).unwrap_or_default();
    process::until("it writes", SYNCED, || users().iter().any(|user| user.lock_owner).then_some(()));
    sites.refused(Sites::client(&sites.a).demote(&sites.volume), "image-in-use");
    drop(writer);
    process::until("the cluster gives its client up", SYNCED, || {
        (!users().iter().any(|user| user.lock_owner)).then_some(())
    });
    Sites::client(&sites.a).demote(&sites.volume).expect("nobody has it open");
    sites.say("demoted");
    // Nobody was promoted instead.
    sites.promote(&sites.a).expect("take the demotion back");
    sites.say("taken back");
    let number = sites.point(&sites.a);
    sites.wait_for_point(&sites.b, number);
}

/// A client that has a second image open, and writes to the first.
struct Machine {
    disk: drover_librbd::Image,
    other: drover_librbd::Image,
}

impl Machine {
    fn pool(cluster: &Cluster) -> drover_librbd::Pool {
        let ceph = drover_librbd::Ceph::load().expect("librbd");
        let mut configuration = ceph.configure("client.admin").expect("configure");
        configuration.conf_file(&cluster.conf()).expect("read ceph.conf");
        let time = Duration::from_secs(20);
        let times = drover_librbd::Timeouts { connect: time, monitor: time, osd: time };
        configuration.timeouts(times).expect("set timeouts");
        configuration.connect().expect("connect").pool(cluster.pool()).expect("the pool")
    }

    fn start(cluster: &Cluster, other: &str) -> Self {
        let pool = Self::pool(cluster);
        let open = |name| pool.open(ImageRef::Name(name), drover_librbd::Access::ReadWrite).expect("open an image");
        let (disk, other) = (open(IMAGE), open(other));
        disk.write(0, b"written").expect("write");
        other.write(0, b"written").expect("write");
        Self { disk, other }
    }
}

#[test]
fn a_client_that_writes_is_fenced_and_let_in_again() {
    const NAME: &str = "a_client_that_writes_is_fenced_and_let_in_again";
    const OTHER: &str = "other";
    let Some(sites) = Sites::start(NAME, Release::Pacific) else { return };
    sites.clusters.a.image(OTHER).create(4 * MIB);
    let number = sites.point(&sites.a);
    sites.wait_for_point(&sites.b, number);
    let client = Sites::client(&sites.a);
    let fence = |whole_client| {
        let request = v1::FenceVolumeRequest { volume_id: sites.volume.clone(), whole_client, ..Default::default() };
        client.call(client.fence().fence_volume(request))
    };
    let unfence = || {
        let request = v1::UnfenceVolumeRequest { volume_id: sites.volume.clone() };
        client.call(client.fence().unfence_volume(request)).expect("let clients in again").unfenced
    };
    assert!(fence(false).expect("nobody writes").fenced.is_empty());
    assert!(unfence().is_empty());
    let machine = Machine::start(&sites.clusters.a, OTHER);
    sites.refused(client.demote(&sites.volume), "image-in-use");
    let refused = fence(false).expect_err("it has another image");
    assert_eq!(status_reason(&refused), "client-shared", "{refused}");
    assert!(refused.message().contains("rbd/other"), "{refused}");
    machine.disk.write(0, b"again").expect("it was left alone");
    let fenced = fence(true).expect("fence the client").fenced;
    sites.say("fenced");
    assert_eq!(fenced.len(), 1, "{fenced:?}");
    for image in [&machine.disk, &machine.other] {
        let error = image.write(0, b"too late").expect_err("it is shut out");
        assert_eq!(error.kind(), drover_librbd::ErrorKind::Blocklisted, "{error}");
    }
    let mirror = sites.info(&sites.a).mirror.expect("the image");
    assert_eq!(mirror.fenced, fenced);
    assert!(!mirror.users.iter().any(|user| fenced.contains(&user.address)), "{:?}", mirror.users);
    let listed = || sites.clusters.a.ceph(&["osd", "blocklist", "ls"]);
    let listing = listed();
    let entry = listing.lines().find(|line| line.contains(&fenced[0])).expect("its entry");
    let year = |text: &str| text.get(..4).and_then(|year| year.parse::<u32>().ok());
    let until = entry.split_whitespace().find_map(|word| year(word).filter(|_| word.contains('T'))).expect("a time");
    let days = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_secs() / 86_400;
    assert!(u64::from(until) > 1970 + days * 4 / 1461, "not for an hour: {listing}");
    // What it wrote and was told is there, and nothing after it.
    let mut begin = [0; 5];
    let pool = Machine::pool(&sites.clusters.a);
    let reader = pool.open(ImageRef::Name(IMAGE), drover_librbd::Access::ReadOnly).expect("open the image");
    reader.read(0, &mut begin).expect("read");
    assert_eq!(&begin, b"again");
    drop(reader);
    assert_eq!(unfence(), fenced);
    assert!(!listed().contains(&fenced[0]), "{}", listed());
    assert!(sites.info(&sites.a).mirror.expect("the image").fenced.is_empty());
    // Who was shut out has to open it anew.
    drop(machine);
    // One that is cut off has the lock still. Who put it on the list for a time did that for reasons of their own.
    let machine = Machine::start(&sites.clusters.a, OTHER);
    let users = || sites.info(&sites.a).mirror.expect("the image").users;
    let writer = users().into_iter().find(|user| user.lock_owner).expect("it writes").address;
    sites.clusters.a.ceph(&["osd", "blocklist", "add", &writer]);
    process::until("it is cut off", SYNCED, || users().iter().any(|user| user.cut_off).then_some(()));
    for _ in 0..2 {
        let refused = fence(true).expect_err("it is shut out for an hour");
        assert_eq!(status_reason(&refused), "fenced-briefly", "{refused}");
    }
    assert!(unfence().is_empty(), "it was not Drover");
    sites.clusters.a.ceph(&["osd", "blocklist", "rm", &writer]);
    assert_eq!(fence(true).expect("fence the client").fenced, [writer]);
    machine.disk.write(0, b"too late").expect_err("it is shut out");
    unfence();
    drop(machine);
    drop(Machine::start(&sites.clusters.a, OTHER));
    process::until("nobody writes", SYNCED, || {
        let users = sites.info(&sites.a).mirror?.users;
        (!users.iter().any(|user| user.lock_owner)).then_some(())
    });
    client.demote(&sites.volume).expect("nobody writes to it");
    let refused = fence(true).expect_err("nobody can write to a secondary");
    assert_eq!(status_reason(&refused), "not-primary", "{refused}");
}

/// The monitors hang in the middle of a promotion. The worker's address is on record before its call.
#[test]
fn a_promotion_whose_agent_dies_is_taken_over_and_no_other_agent_comes_between() {
    const NAME: &str = "a_promotion_whose_agent_dies_is_taken_over_and_no_other_agent_comes_between";
    const IN_THE_CALL: Duration = Duration::from_secs(3);
    let Some(mut sites) = Sites::start(NAME, Release::Pacific) else { return };
    let number = sites.point(&sites.a);
    sites.wait_for_point(&sites.b, number);
    let content = sites.here().content();
    let certificates = Certificates::init(&sites.scratch.join("other"), &["site-c"]);
    let mut other = Agent::new("site-c", &certificates);
    let cluster = &sites.clusters.b;
    other.setup.more = fleet::section(cluster);
    other.start(&Faults::none());
    Sites::client(&sites.a).demote(&sites.volume).expect("demote the primary");
    process::until("a promotion is safe", SYNCED, || sites.unsafe_because(&sites.b).is_none().then_some(()));
    // Connected, so that they need the OSD alone.
    sites.info(&other);
    sites.clusters.b.stop_processes(&[Kind::Mon]);
    thread::scope(|scope| {
        let promoted = scope.spawn(|| sites.promote(&sites.b));
        thread::sleep(IN_THE_CALL);
        assert!(!promoted.is_finished(), "a promotion waits for the monitors");
        let turn = sites.info(&other).mirror.and_then(|mirror| mirror.turn).expect("whose turn it is");
        assert_eq!((turn.agent.as_str(), turn.verb()), ("site-b", v1::RbdVerb::Promote));
        sites.refused(Sites::client(&other).promote(&sites.volume, true), "image-in-verb");
        let pid = rustix::process::Pid::from_raw(sites.b.pid().expect("it runs").cast_signed()).expect("a process");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("kill the agent");
        promoted.join().expect("it ends").expect_err("the agent is dead");
    });
    sites.say("the agent died in a promotion");
    sites.clusters.b.cont(&[Kind::Mon]);
    sites.clusters.b.wait_serving();
    sites.b.kill();
    sites.b.start(&Faults::none());
    sites.promote(&sites.b).expect("it is taken over");
    sites.say("promoted");
    sites.there().content().assert_is(&content, "nothing was lost");
    let info = sites.info(&sites.b);
    assert_eq!((info.role(), info.mirror.and_then(|it| it.turn)), (VolumeRole::Primary, None));
    let blocked = sites.clusters.b.ceph(&["osd", "blocklist", "ls"]);
    assert!(blocked.contains("127.0.0.1"), "{blocked}");
}

impl Sites {
    /// Stops rbd-mirror at `site-b` in the middle of a sync. Returns the newest point that is whole there, and what it holds. A sync may end
    /// before rbd-mirror is stopped: then the next one is tried.
    fn half_way(&mut self) -> (u64, Content, Plain) {
        const TRIES: usize = 8;
        let (mut number, mut content) = (self.point(&self.a), self.here().content());
        self.wait_for_point(&self.b, number);
        if !self.clusters.a.image(PLAIN).exists() {
            Plain::start(self);
        }
        process::until("the image that Drover knows nothing of arrives", SYNCED, || {
            (Plain::newest_is_whole(&self.clusters.b.image(PLAIN)) == Some(true)).then_some(())
        });
        let mut plain = Plain { whole: vec![self.clusters.a.image(PLAIN).content()] };
        for tried in 1..=TRIES {
            let known = self.newest_there();
            self.write(64);
            let noise = self.noise(64);
            self.clusters.a.image(PLAIN).write(&[(0, &noise)]);
            let (next_content, next_plain) = (self.here().content(), self.clusters.a.image(PLAIN).content());
            let slowed = self.clusters.b.slow_down(Kind::Osd, 0.05);
            self.clusters.a.image(PLAIN).mirror_snapshot();
            let next = self.point(&self.a);
            process::until("a mirror snapshot arrives", SYNCED, || (self.newest_there() > known).then_some(()));
            self.clusters.b.stop_processes(&[Kind::RbdMirror]);
            drop(slowed);
            if self.is_half_way() {
                self.say(&format!("half way at try {tried}"));
                return (number, content, plain);
            }
            self.clusters.b.cont(&[Kind::RbdMirror]);
            self.wait_for_point(&self.b, next);
            self.clusters.a.image(PLAIN).wait_synced(&self.clusters.b.image(PLAIN));
            (number, content) = (next, next_content);
            plain.whole.push(next_plain);
        }
        panic!("no sync was half way in {TRIES} tries");
    }

    /// Some before one image takes the other's place, some in the middle of it, some behind it.
    fn kill_in_promotions(&mut self) {
        let kills = if Rounds::chosen().is_full() { 20 } else { 5 };
        for _ in 0..kills {
            let (pause, volume) = (Duration::from_millis(self.rng.u64(0..1200)), self.volume.clone());
            let client = Self::client(&self.b);
            let promoting = thread::spawn(move || client.promote(&volume, true));
            thread::sleep(pause);
            self.b.kill();
            // Its answer is worth nothing now.
            drop(promoting.join().expect("ask for a promotion"));
            self.b.start(&Faults::none());
            self.say(&format!("killed in a promotion after {pause:.1?}"));
        }
        figure::report("kills of the agent in a promotion by force", kills, "kills", Goal::AtLeast(20));
    }

    fn newest_there(&self) -> Option<u64> {
        let snapshots = self.there().snapshots();
        snapshots.into_iter().rfind(|snapshot| snapshot.mirror().is_some()).map(|snapshot| snapshot.id)
    }

    fn is_half_way(&self) -> bool {
        let newest = self.there().snapshots().pop();
        newest.and_then(|newest| newest.mirror().map(|mirror| !mirror.is_complete)).unwrap_or(false)
    }
}

/// librbd would end on what was there before the last complete sync, with success, or crash.
fn a_promotion_in_the_middle_of_a_sync_ends_on_the_newest_whole_point(test: &'static str, release: Release) {
    let (rounds, seeds) = (Rounds::chosen(), Seeds::of(test));
    let mut plain = BTreeMap::new();
    for round in 0..rounds.half_way {
        let Some(sites) = Sites::start_round(test, release, &seeds, round) else { return };
        let ended = promote_half_way(sites, round == 0);
        *plain.entry(ended).or_insert(0) += 1;
    }
    for ended in Ended::ALL {
        let name = format!("promotions by force with rbd alone on Ceph {}: {}", release.number(), ended.text());
        figure::report(&name, plain.get(&ended).copied().unwrap_or(0), "promotions", Goal::AtLeast(0));
    }
    let name =
        format!("promotions in the middle of a sync on Ceph {}, each on the newest whole point", release.number());
    figure::report(&name, rounds.half_way, "promotions", Goal::AtLeast(20));
}

/// An image beside Drover's, mirrored by rbd alone, and promoted as its manual says.
struct Plain {
    /// At its mirror snapshots that are whole at both sites, oldest first.
    whole: Vec<Content>,
}

/// How a promotion by force with rbd alone has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Ended {
    NotHalfWay,
    NewestWhole,
    Older,
    Mixed,
    Failed,
}

impl Ended {
    const ALL: [Self; 5] = [Self::NotHalfWay, Self::NewestWhole, Self::Older, Self::Mixed, Self::Failed];

    fn text(self) -> &'static str {
        match self {
            Self::NotHalfWay => "its sync was not half way, and it was not tried",
            Self::NewestWhole => "success, on the newest whole snapshot",
            Self::Older => "success, on an older snapshot or an empty image",
            Self::Mixed => "success, and another content than that of any snapshot",
            Self::Failed => "an error, a crash, or no answer within a minute",
        }
    }
}

impl Plain {
    fn start(sites: &Sites) {
        let image = sites.clusters.a.image(PLAIN);
        image.create(BYTES);
        image.write(&[(70 * MIB, &[7; 4 * MIB as usize])]);
        image.enable();
    }

    /// `None`: there is none.
    fn newest_is_whole(image: &Image<'_>) -> Option<bool> {
        if !image.exists() {
            return None;
        }
        image.snapshots().pop()?.mirror().map(|mirror| mirror.is_complete)
    }

    fn promote(&self, cluster: &Cluster) -> Ended {
        let image = cluster.image(PLAIN);
        if Self::newest_is_whole(&image) != Some(false) {
            return Ended::NotHalfWay;
        }
        let done = cluster.try_rbd(&["mirror", "image", "promote", "--force", image.spec()], Duration::from_secs(60));
        if !done.is_ok_and(|done| done.status.success()) {
            return Ended::Failed;
        }
        let content = image.content();
        let is = |other: &Content| content.differences(other).is_empty();
        if self.whole.last().is_some_and(is) {
            return Ended::NewestWhole;
        }
        cluster.rbd(&["create", "--size", &format!("{}M", BYTES / MIB), "empty"]);
        let is_older = is(&cluster.image("empty").content()) || self.whole.iter().any(is);
        if is_older { Ended::Older } else { Ended::Mixed }
    }
}

/// `whole`: with kills of the agent, and until the site that was given up is primary again. Returns what rbd alone makes of the same.
fn promote_half_way(mut sites: Sites, whole: bool) -> Ended {
    let release = sites.clusters.b.release();
    let (number, content, plain) = sites.half_way();
    let lost = sites.here().content();
    sites.journal();
    sites.clusters.a.kill();
    sites.a.kill();
    assert!(sites.is_half_way());
    sites.say("the primary died in the middle of a sync");
    sites.refused(sites.promote(&sites.b), "promote-unsafe");
    let ends = sites.info(&sites.b).mirror.and_then(|mirror| mirror.promote_forced_ends).expect("where it would end");
    assert!(ends.contains(&format!("drover.{number}.")), "{ends}");
    if whole && release == Release::Reef {
        sites.kill_in_promotions();
    }
    // The agent that starts undoes what was interrupted first.
    process::until("a promotion by force", SYNCED * 2, || {
        let promoted = Sites::client(&sites.b).promote(&sites.volume, true);
        match promoted {
            Err(status) if status_reason(&status) == "image-in-verb" => None,
            Err(status) => panic!("promote by force: {status}"),
            Ok(()) => Some(()),
        }
    });
    sites.say("promoted by force");
    sites.there().content().assert_is(&content, "the newest whole point, under the image's own name");
    sites.assert_journal(&sites.clusters.b);
    if !whole {
        sites.clusters.b.cont(&[Kind::RbdMirror]);
        return plain.promote(&sites.clusters.b);
    }
    sites.write_there(2);
    Sites::client(&sites.b).promote(&sites.volume, true).expect("it is primary already");
    assert_eq!(sites.info(&sites.b).role(), VolumeRole::Primary);
    let written = sites.there().content();
    sites.clusters.b.cont(&[Kind::RbdMirror]);
    // It can be used at once; what is long goes on behind it.
    process::until("it is mirrored", SYNCED, || {
        let info = sites.info(&sites.b);
        (!info.mirror?.global_id.is_empty()).then_some(())
    });
    sites.say("it is mirrored");
    let ended = plain.promote(&sites.clusters.b);
    sites.there().content().assert_is(&written, "while it was made independent");
    process::until("clones that came to nothing are gone", SYNCED, || {
        let left = sites.there().neighbours().into_iter().filter(|name| name.contains(".drover-new.")).count();
        (left == 0).then_some(())
    });

    sites.clusters.a.start();
    sites.a.start(&Faults::none());
    process::until("both primaries are seen", SYNCED, || {
        let info = sites.info(&sites.a);
        info.health_because.iter().any(|why| why.starts_with("split-brain")).then_some(())
    });
    sites.give_up_the_loser(&lost);
    let next = sites.point(&sites.b);
    assert!(next > number, "points go on after {number}: {next}");
    sites.wait_for_point(&sites.a, next);
    sites.switch(&sites.b, &sites.a);
    sites.here().content().assert_is(&written, "after the failback");
    ended
}

#[test]
fn r11_a_promotion_in_the_middle_of_a_sync_ends_on_the_newest_whole_point_on_ceph_16() {
    a_promotion_in_the_middle_of_a_sync_ends_on_the_newest_whole_point(
        "r11_a_promotion_in_the_middle_of_a_sync_ends_on_the_newest_whole_point_on_ceph_16",
        Release::Pacific,
    );
}

#[test]
fn r11_a_promotion_in_the_middle_of_a_sync_ends_on_the_newest_whole_point_on_ceph_18() {
    a_promotion_in_the_middle_of_a_sync_ends_on_the_newest_whole_point(
        "r11_a_promotion_in_the_middle_of_a_sync_ends_on_the_newest_whole_point_on_ceph_18",
        Release::Reef,
    );
}

/// Of a clone whose parent is not mirrored: refused, or made independent of it first.
#[test]
fn a_clone_is_enabled_once_it_is_independent_and_its_sync_is_told() {
    const NAME: &str = "a_clone_is_enabled_once_it_is_independent_and_its_sync_is_told";
    const CLONE: &str = "clone";
    let Some(mut sites) = Sites::start(NAME, Release::Pacific) else { return };
    let parent = sites.clusters.a.image("golden");
    parent.create(BYTES);
    parent.write(&[(MIB, &[5; 8 * MIB as usize])]);
    parent.snapshot("base");
    let (from, to) = (format!("{}@base", parent.spec()), format!("{}/{CLONE}", sites.clusters.a.pool()));
    sites.clusters.a.rbd(&["clone", "--rbd-default-clone-format", "2", &from, &to]);
    let noise = sites.noise(4);
    sites.clusters.a.image(CLONE).write(&[(30 * MIB, &noise)]);
    let before = sites.clusters.a.image(CLONE).content();
    let volume = uuid::Uuid::new_v4().to_string();
    let request = |role| enable_request(&volume, rbd_image(&sites.clusters.a, CLONE), role);
    let refused = Sites::client(&sites.a).enable(request(VolumeRole::Primary)).expect_err("its parent is not mirrored");
    assert_eq!(status_reason(&refused), "image-is-clone", "{refused}");
    let flattened = v1::EnableRequest { flatten: true, ..request(VolumeRole::Primary) };
    Sites::client(&sites.a).enable(flattened).expect("enable a clone");
    Sites::client(&sites.b).enable(request(VolumeRole::Secondary)).expect("enable its copy");
    let info = sites.clusters.a.rbd_json(&["info", sites.clusters.a.image(CLONE).spec()]);
    assert!(info["parent"].is_null(), "{info}");
    let [here, there] = [&sites.clusters.a, &sites.clusters.b].map(|cluster| cluster.image(CLONE));
    here.content().assert_is(&before, "what it was as a clone");
    here.wait_synced(&there);
    there.content().assert_is(&before, "at the other site");

    // A sync that takes its time is told while it goes on, and not any more once it has ended.
    let _ = sites.half_way();
    let told = sites.info(&sites.b).mirror.and_then(|mirror| mirror.sync).expect("a sync is under way");
    assert!(told.percent < 100 && told.objects_copied < BYTES >> 22, "{told:?}");
    assert!(sites.info(&sites.a).mirror.expect("it is mirrored").sync.is_none(), "nothing comes to the primary");
    sites.clusters.b.cont(&[Kind::RbdMirror]);
    sites.here().wait_synced(&sites.there());
    process::until("nothing is under way", SYNCED, || sites.info(&sites.b).mirror?.sync.is_none().then_some(()));
}

#[test]
fn a_cluster_that_hangs_delays_its_own_calls_only() {
    const NAME: &str = "a_cluster_that_hangs_delays_its_own_calls_only";
    /// A look takes 5 s in librados and 10 s in the agent; starting and connecting a worker as much again.
    const LATE: Duration = Duration::from_secs(30);
    let Some(sites) = Sites::start(NAME, Release::Pacific) else { return };
    let workers = || sites.a.workers().len();
    sites.clusters.a.stop_processes(&Kind::STORAGE);
    let begun = Instant::now();
    let late = Sites::client(&sites.a).info(&sites.volume).expect_err("the cluster hangs");
    assert!(begun.elapsed() < LATE, "{late} after {:.1?}", begun.elapsed());
    assert_eq!(late.code(), tonic::Code::DeadlineExceeded, "{late}");
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
    const LOOKERS: usize = 4;
    let Some(sites) = Sites::start(NAME, Release::Pacific) else { return };
    let first = sites.point(&sites.a);
    sites.wait_for_point(&sites.b, first);
    // Several that look, none of which will do for the look after the kill.
    thread::scope(|scope| (0..LOOKERS).for_each(|_| drop(scope.spawn(|| sites.info(&sites.a)))));
    // A look needs the OSD alone, once its worker is connected; a snapshot's id comes from the monitors.
    sites.clusters.a.stop_processes(&[Kind::Mon]);
    let second = thread::scope(|scope| {
        let taken = scope.spawn(|| sites.point(&sites.a));
        thread::sleep(IN_THE_CALL);
        assert!(!taken.is_finished(), "a snapshot waits for the monitors");
        sites.a.kill_workers();
        sites.clusters.a.cont(&[Kind::Mon]);
        taken.join().expect("it ends")
    });
    sites.say("its worker was killed");
    assert_eq!(second, first + 1, "it was taken once");
    sites.wait_for_point(&sites.b, second);
    let blocked = sites.clusters.a.ceph(&["osd", "blocklist", "ls"]);
    assert!(blocked.contains("127.0.0.1"), "{blocked}");
}
