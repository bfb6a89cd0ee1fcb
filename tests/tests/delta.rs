//! RBD images of pools that are not mirrored, synced by the agents between two real clusters. Judges are the command line tools of Ceph.

use std::{thread, time::Duration};

use drover_proto::v1::{self, VolumeRole};
use drover_tests::{
    ceph::{Cluster, Clusters, Content, Image, Release},
    figure::{self, Goal},
    fleet::{agents, enable_request, rbd_image},
    host::{Agent, Client, Faults, Outcome, SYNC, status_reason},
    process,
    rounds::Rounds,
    scratch::Scratch,
    seed::{Rng, Seeds},
    skip,
};

const MIB: u64 = 1 << 20;
const PAGE: u64 = 4096;
const BYTES: u64 = 64 * MIB;
/// The same image need not have the same name.
const HERE: &str = "vm";
const THERE: &str = "vm-copy";

struct Sites {
    // Agents end before the clusters do.
    a: Agent,
    b: Agent,
    volume: String,
    clusters: Clusters,
    rng: Rng,
    test: &'static str,
    scratch: Scratch,
}

/// Which end of a sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Source,
    Sink,
}

impl Sites {
    /// An image with content at `site-a`; the sync makes the one at `site-b`.
    fn start(test: &'static str, release: Release) -> Option<Self> {
        if let Some(why) = release.missing() {
            skip::skipped(test, &why);
            return None;
        }
        let clusters = Clusters::start(release);
        let scratch = Scratch::new("delta");
        let [a, b] = agents(&clusters, &scratch);
        let (volume, rng) = (uuid::Uuid::new_v4().to_string(), Seeds::of(test).rng(0));
        let mut sites = Self { a, b, volume, clusters, rng, test, scratch };
        sites.here().create(BYTES);
        sites.edit();
        sites.enable();
        Some(sites)
    }

    fn here(&self) -> Image<'_> {
        self.clusters.a.image(HERE)
    }

    fn there(&self) -> Image<'_> {
        self.clusters.b.image(THERE)
    }

    fn enable(&self) {
        for (agent, role, name) in [(&self.a, VolumeRole::Primary, HERE), (&self.b, VolumeRole::Secondary, THERE)] {
            let replication = v1::RbdReplication::Delta.into();
            let image = v1::RbdImage { replication, ..rbd_image(&self.clusters.a, name) };
            let request = v1::EnableRequest { retain: Some(2), ..enable_request(&self.volume, image, role) };
            agent.controller().enable(request.clone()).expect("enable the image");
            // What is not named stays as it is.
            let again = v1::EnableRequest { peer: None, retain: None, ..request };
            agent.controller().enable(again).expect("enable the image again");
        }
    }

    /// Of the image at `site-a`: writes of every size, ranges that are given back, another size.
    fn edit(&mut self) {
        let bytes = match self.rng.u8(0..4) {
            0 => self.rng.u64(BYTES / 2 / MIB..BYTES * 2 / MIB) * MIB,
            _ => self.here().bytes(),
        };
        let mut parts = Vec::new();
        for _ in 0..self.rng.usize(3..12) {
            let length = match self.rng.u8(0..4) {
                0 => self.rng.u64(1..3 * MIB),
                1 => self.rng.u64(1..100),
                _ => PAGE,
            };
            let mut content = vec![0; usize::try_from(length).expect("it fits")];
            if self.rng.u8(0..5) > 0 {
                self.rng.fill(&mut content);
            }
            parts.push((self.rng.u64(0..bytes - length), content));
        }
        let mut zeros = Vec::new();
        for _ in 0..self.rng.usize(0..3) {
            let length = self.rng.u64(1..9 * MIB);
            zeros.push((self.rng.u64(0..bytes - length), length));
        }
        let parts: Vec<_> = parts.iter().map(|(offset, content)| (*offset, content.as_slice())).collect();
        self.here().change(bytes, &parts, &zeros);
    }

    fn request(&self) -> v1::StartRequest {
        v1::StartRequest { volume_id: self.volume.clone(), ..v1::StartRequest::default() }
    }

    #[track_caller]
    fn try_sync(&self, agent: &Agent) -> Outcome {
        let client = agent.controller();
        let job = client.start(self.request()).expect("start a sync");
        client.outcome(&job, SYNC).expect("watch a sync")
    }

    #[track_caller]
    fn sync(&self, agent: &Agent) -> Outcome {
        self.try_sync(agent).expect_done("a sync")
    }

    /// Of the newest point of a copy, by its snapshot.
    #[track_caller]
    fn newest(&self, agent: &Agent, image: &Image<'_>) -> Content {
        let info = agent.controller().info(&self.volume).expect("look at the volume");
        content_of(image, &info.newest.expect("a point").id)
    }
}

#[track_caller]
fn content_of(image: &Image<'_>, point: &str) -> Content {
    let snapshots = image.snapshots();
    let name = snapshots.iter().find(|snapshot| snapshot.name.starts_with(&format!("drover.{point}.")));
    image.content_at(&name.unwrap_or_else(|| panic!("a snapshot of point {point}: {snapshots:?}")).name)
}

fn an_image_is_synced_by_its_changes(test: &'static str, release: Release) {
    const ROUNDS: u64 = 6;
    let Some(mut sites) = Sites::start(test, release) else { return };
    for round in 0..ROUNDS {
        if round > 0 {
            sites.edit();
        }
        let content = sites.here().content();
        let point = sites.sync(if round % 2 == 0 { &sites.a } else { &sites.b }).point_id();
        assert_eq!(point, (round + 1).to_string());
        sites.there().content().assert_is(&content, &format!("the replica in round {round}"));
        sites.newest(&sites.b, &sites.there()).assert_is(&content, &format!("the point of round {round}"));
    }
    figure::report(&format!("rounds of random changes of an image{}", of(release)), ROUNDS, "rounds", Goal::AtLeast(6));
    for (agent, image) in [(&sites.a, sites.here()), (&sites.b, sites.there())] {
        // The newest and two more.
        assert_eq!(agent.controller().points(&sites.volume).expect("list points").len(), 3);
        assert_eq!(image.snapshots().len(), 3);
    }
    assert_eq!(sites.sync(&sites.a).point_id(), ROUNDS.to_string(), "nothing has changed");

    // One page at a time, far apart: pages move, and not the objects that they lie in.
    let pages: Vec<_> =
        (0..sites.here().bytes() / MIB).map(|n| (n * MIB + 64 * PAGE, vec![n as u8 + 1; PAGE as usize])).collect();
    let parts: Vec<_> = pages.iter().map(|(offset, page)| (*offset, page.as_slice())).collect();
    sites.here().write(&parts);
    let changed = parts.len() as u64 * PAGE;
    let outcome = sites.sync(&sites.a);
    let moved = outcome.number("/wire_sent") + outcome.number("/wire_received");
    figure::report(
        &format!("wire of {} pages, of what changed{}", parts.len(), of(release)),
        moved * 100 / changed,
        "%",
        Goal::AtMost(120),
    );
    sites.newest(&sites.b, &sites.there()).assert_is(&sites.here().content(), "single pages");
    fail_over_and_back(sites);
}

fn of(release: Release) -> String {
    format!(" on Ceph {}", release.number())
}

/// Planned, then after a disaster with changes on both sides (R7).
fn fail_over_and_back(mut sites: Sites) {
    let refused = |called: Result<(), tonic::Status>, why: &str| {
        let status = called.expect_err("it must be refused");
        assert_eq!(status_reason(&status), why, "{status}");
    };
    refused(sites.b.controller().promote(&sites.volume, false), "peer-is-primary");
    refused(sites.b.controller().promote(&sites.volume, true), "peer-is-primary");
    sites.edit();
    refused(sites.a.controller().demote(&sites.volume), "not-synced");
    sites.sync(&sites.a);
    let content = sites.here().content();
    sites.a.controller().demote(&sites.volume).expect("demote the primary");
    sites.b.controller().promote(&sites.volume, false).expect("promote the secondary");
    sites.there().content().assert_is(&content, "after a planned failover");

    // Back again, by what changed there.
    sites.there().write(&[(5 * MIB, &[7; 9000])]);
    let content = sites.there().content();
    let outcome = sites.sync(&sites.b);
    assert!(outcome.number("/wire_sent") + outcome.number("/wire_received") < 60_000, "the change moves");
    sites.b.controller().demote(&sites.volume).expect("demote the primary");
    sites.a.controller().promote(&sites.volume, false).expect("promote the secondary");
    sites.here().content().assert_is(&content, "after the failback");
    println!("{}: failed over and back", sites.test);

    // The primary's site dies with what was never synced.
    sites.here().write(&[(9 * MIB, &[1; 5000])]);
    let lost = sites.here().content();
    sites.a.kill();
    // What somebody has written to the replica is no point's: it is kept (R11).
    sites.there().write(&[(20 * MIB, &[2; 5000])]);
    let foreign = sites.there().content();
    refused(sites.b.controller().promote(&sites.volume, false), "promote-unsafe");
    sites.b.controller().promote(&sites.volume, true).expect("promote by force");
    sites.there().content().assert_is(&content, "after a promotion by force");
    let kept = sites.b.controller().points(&sites.volume).expect("list points");
    let kept = kept
        .iter()
        .filter_map(|point| point.point.as_ref())
        .find(|point| point.id.contains('+'))
        .expect("what was kept");
    content_of(&sites.there(), &kept.id).assert_is(&foreign, "what somebody had written");
    sites.there().write(&[(30 * MIB, &[3; 5000])]);
    let content = sites.there().content();

    sites.a.start(&Faults::none());
    let reason = sites.try_sync(&sites.b).expect_failed("two primaries");
    assert_eq!(reason, "both-primary");
    sites.a.controller().demote_as(&sites.volume, true).expect("demote the loser");
    // It was promoted last, and what its users have written since is on no other site.
    assert_eq!(sites.try_sync(&sites.b).expect_failed("a line that is given up by nobody"), "split-brain");
    sites.a.controller().resync(&sites.volume).expect("give up the loser's line");
    let outcome = sites.sync(&sites.b);
    assert!(
        outcome.number("/wire_sent") + outcome.number("/wire_received") < 200_000,
        "what changed on either side moves"
    );
    sites.here().content().assert_is(&content, "the loser has caught up");
    let kept = sites.a.controller().points(&sites.volume).expect("list points");
    let kept = kept
        .iter()
        .filter_map(|point| point.point.as_ref())
        .find(|point| point.id.contains('+'))
        .expect("what was kept");
    content_of(&sites.here(), &kept.id).assert_is(&lost, "what the loser held");
}

#[test]
fn r7_an_image_is_synced_by_its_changes_and_fails_over_on_ceph_16() {
    an_image_is_synced_by_its_changes(
        "r7_an_image_is_synced_by_its_changes_and_fails_over_on_ceph_16",
        Release::Pacific,
    );
}

#[test]
fn r7_an_image_is_synced_by_its_changes_and_fails_over_on_ceph_18() {
    an_image_is_synced_by_its_changes("r7_an_image_is_synced_by_its_changes_and_fails_over_on_ceph_18", Release::Reef);
}

/// What rots beneath a copy is found by a deep verification, told by its offset, and mended by the next sync.
#[test]
fn rot_beneath_an_image_is_found_by_its_offset_and_mended() {
    const NAME: &str = "rot_beneath_an_image_is_found_by_its_offset_and_mended";
    let Some(mut sites) = Sites::start(NAME, Release::Pacific) else { return };
    let mut noise = vec![0; 9 * MIB as usize];
    sites.rng.fill(&mut noise);
    sites.here().write(&[(8 * MIB, &noise)]);
    sites.sync(&sites.a);
    let verify = |deep: bool| {
        let client = sites.a.controller();
        let job = client.verify(&sites.volume, deep).expect("start a verification");
        client.outcome(&job, SYNC).expect("watch a verification").expect_done("a verification").report
    };
    for deep in [false, true] {
        let report = verify(deep);
        let is = |what: &str| report[what].as_bool().expect("yes or no");
        assert!(is("replica_is_point") && is("source_is_point"), "{report}");
    }
    let plan = {
        let client = sites.b.controller();
        let request = v1::PlanRequest { volume_id: sites.volume.clone(), ..v1::PlanRequest::default() };
        let job = client.call(client.sync().plan(request)).expect("start a plan").job_id;
        client.outcome(&job, SYNC).expect("watch a plan").expect_done("a plan")
    };
    assert_eq!(plan.number("/changes/bytes_changed"), 0, "nothing has changed: {}", plan.report);
    for round in 0..3 {
        let offset = 8 * MIB + sites.rng.u64(0..9 * MIB);
        sites.there().rot(offset);
        assert_eq!(verify(false)["replica_is_point"], true, "the image knows nothing of it");
        let report = verify(true);
        assert_eq!((&report["replica_is_point"], &report["source_is_point"]), (&false.into(), &true.into()));
        let differs = &report["differs_at"][0];
        let (at, length) = (differs["offset"].as_u64().expect("bytes"), differs["length"].as_u64().expect("bytes"));
        assert!((at..at + length).contains(&offset) && length <= MIB, "round {round}, {offset}: {report}");
        let outcome = sites.sync(&sites.b);
        assert!(outcome.number("/wire_sent") + outcome.number("/wire_received") < 2 * MIB, "the leaf moves");
        assert_eq!(verify(true)["replica_is_point"], true);
        sites.newest(&sites.b, &sites.there()).assert_is(&sites.here().content(), "it is mended");
    }
    // What the source's users write makes it another one, and no discrepancy.
    sites.here().write(&[(MIB, &[9; 5000])]);
    let report = verify(true);
    assert_eq!((&report["replica_is_point"], &report["source_is_point"]), (&true.into(), &false.into()));
}

/// Of a first copy that is interrupted what has arrived is not sent again; nor what a copy holds that was made by other means.
#[test]
fn what_a_copy_without_a_point_holds_is_not_sent_again() {
    const NAME: &str = "what_a_copy_without_a_point_holds_is_not_sent_again";
    const NOISE: u64 = 160 * MIB;
    let Some(mut sites) = Sites::start(NAME, Release::Pacific) else { return };
    let mut noise = vec![0; usize::try_from(NOISE).expect("it fits")];
    sites.rng.fill(&mut noise);
    sites.here().change(NOISE + 8 * MIB, &[(0, &noise)], &[]);
    let content = sites.here().content();
    // Frames are about a MiB each; what is on its way to the cluster is lost with the agent.
    sites.b.restart(&Faults::kill("image.received", 128));
    let client = sites.a.controller();
    let job = client.start(sites.request()).expect("start a sync");
    process::until("the agent dies", Duration::from_secs(60), || (!sites.b.is_running()).then_some(()));
    drop(client);
    sites.b.start(&Faults::none());
    let outcome = sites.a.controller().outcome(&job, SYNC).expect("watch a sync").expect_done("a sync");
    let moved = outcome.number("/wire_sent") + outcome.number("/wire_received");
    figure::report(
        &format!("rest of a first copy of {} MiB after a kill at 80 %", NOISE / MIB),
        moved * 100 / NOISE,
        "%",
        Goal::AtMost(50),
    );
    assert!(moved < NOISE / 2, "{moved} of {NOISE} bytes moved again");
    sites.newest(&sites.b, &sites.there()).assert_is(&content, "the first copy");

    // Made by an administrator, and not quite the same.
    let (adopted, volume) = ("adopted", uuid::Uuid::new_v4().to_string());
    let copy = sites.clusters.b.image(adopted);
    copy.create(NOISE + 8 * MIB);
    copy.write(&[(0, &noise)]);
    copy.write(&[(7 * MIB, &[1; 5000]), (NOISE + MIB, &[2; 100])]);
    let replication = v1::RbdReplication::Delta.into();
    let (client, request) = (sites.a.controller(), v1::DisableRequest::default());
    let request = v1::DisableRequest { volume_id: sites.volume.clone(), ..request };
    client.call(client.replication().disable(request)).expect("disable the volume");
    for (agent, role, name) in [(&sites.a, VolumeRole::Primary, HERE), (&sites.b, VolumeRole::Secondary, adopted)] {
        let image = v1::RbdImage { replication, ..rbd_image(&sites.clusters.a, name) };
        let adopt = role == VolumeRole::Secondary;
        let request = v1::EnableRequest { adopt, ..enable_request(&volume, image, role) };
        agent.controller().enable(request).expect("enable the image");
    }
    let request = v1::StartRequest { volume_id: volume.clone(), ..v1::StartRequest::default() };
    let client = sites.a.controller();
    let job = client.start(request).expect("start a sync");
    let outcome = client.outcome(&job, SYNC).expect("watch a sync").expect_done("a sync");
    let moved = outcome.number("/wire_sent") + outcome.number("/wire_received");
    assert!(moved < 4 * MIB, "{moved} bytes moved, of which two leaves differ");
    copy.content().assert_is(&content, "it is adopted");
    assert!(outcome.report["kept_as"].is_string(), "what it held before is kept: {}", outcome.report);
}

/// To an older point, and forward again by a sync once it is released.
#[test]
fn a_replica_is_rolled_back_and_goes_on() {
    const NAME: &str = "a_replica_is_rolled_back_and_goes_on";
    let Some(mut sites) = Sites::start(NAME, Release::Pacific) else { return };
    let mut contents = Vec::new();
    for _ in 0..3 {
        sites.sync(&sites.a);
        contents.push(sites.here().content());
        sites.edit();
    }
    let client = sites.b.controller();
    let roll = |to: &str| {
        let client = sites.b.controller();
        let job = client.rollback(&sites.volume, to).expect("start a rollback");
        client.outcome(&job, SYNC).expect("watch a rollback")
    };
    assert_eq!(roll("77").expect_failed("a point that nobody has"), "no-such-point");
    sites.there().write(&[(3 * MIB, &[5; 5000])]);
    let foreign = sites.there().content();
    let report = roll("2").expect_done("a rollback").report;
    sites.there().content().assert_is(&contents[1], "point 2");
    let kept = report["kept_as"].as_str().expect("what was kept").to_owned();
    content_of(&sites.there(), &kept).assert_is(&foreign, "what somebody had written");
    assert_eq!(sites.try_sync(&sites.a).expect_failed("it is paused"), "rolled-back");
    roll("1").expect_done("a rollback");
    sites.there().content().assert_is(&contents[0], "point 1");
    client.release(&sites.volume).expect("release the replica");
    sites.sync(&sites.a);
    sites.there().content().assert_is(&sites.here().content(), "forward again");
    let refused = sites.a.controller();
    let job = refused.rollback(&sites.volume, "2").expect("start a rollback");
    assert_eq!(refused.outcome(&job, SYNC).expect("watch").expect_failed("a primary"), "is-primary");
}

/// Whoever holds the image is lost: nothing is made of what others may have written since, and the job begins again.
#[test]
fn r11_a_sync_whose_workers_are_killed_begins_again() {
    const NAME: &str = "r11_a_sync_whose_workers_are_killed_begins_again";
    const NOISE: u64 = 24 * MIB;
    let Some(mut sites) = Sites::start(NAME, Release::Pacific) else { return };
    sites.here().change(BYTES, &[], &[]);
    sites.sync(&sites.a);
    let rounds = if Rounds::chosen().is_full() { 20 } else { 4 };
    for round in 0..rounds {
        let old = sites.newest(&sites.b, &sites.there());
        let mut noise = vec![0; usize::try_from(NOISE).expect("it fits")];
        sites.rng.fill(&mut noise);
        sites.here().write(&[(0, &noise)]);
        let new = sites.here().content();
        let client = sites.a.controller();
        let job = client.start(sites.request()).expect("start a sync");
        thread::sleep(Duration::from_millis(sites.rng.u64(50..1500)));
        let agent = if round % 4 == 3 { &sites.a } else { &sites.b };
        agent.kill_workers();
        let found = sites.newest(&sites.b, &sites.there());
        let is_whole = found.differences(&old).is_empty() || found.differences(&new).is_empty();
        assert!(is_whole, "round {round}: the newest point is neither the old nor the new one");
        client.outcome(&job, SYNC).expect("watch a job").expect_done(&format!("the job of round {round}"));
        sites.newest(&sites.b, &sites.there()).assert_is(&new, &format!("round {round}"));
    }
    figure::report("kills of workers in a sync of an image", rounds, "kills", Goal::AtLeast(20));
}

/// While the other side is at work no other agent of the cluster may take the image for abandoned.
#[test]
fn a_sync_that_waits_says_that_it_lives() {
    const NAME: &str = "a_sync_that_waits_says_that_it_lives";
    let Some(mut sites) = Sites::start(NAME, Release::Pacific) else { return };
    sites.sync(&sites.a);
    sites.edit();
    let beats = |cluster: &Cluster| {
        let mut command = cluster.tool("rados");
        command.args(["--pool", cluster.pool(), "listomapkeys", "drover.alive"]);
        // There is no such object before the first one.
        process::try_run(command, Duration::from_secs(20)).expect("ask the cluster").stdout.trim().to_owned()
    };
    assert_eq!(beats(&sites.clusters.a), "");
    let flag = sites.scratch.join("paused");
    sites.b.restart(&Faults::pause("image.compared", &flag));
    let client = sites.a.controller();
    let job = client.start(sites.request()).expect("start a sync");
    for (cluster, name) in [(&sites.clusters.a, HERE), (&sites.clusters.b, THERE)] {
        process::until("a beat", Duration::from_secs(75), || (beats(cluster) == name).then_some(()));
    }
    std::fs::remove_file(&flag).expect("let it go on");
    sites.a.controller().outcome(&job, SYNC).expect("watch a job").expect_done("the sync");
    sites.newest(&sites.b, &sites.there()).assert_is(&sites.here().content(), "it went on");
    for cluster in sites.clusters.both() {
        process::until("no beat is left", Duration::from_secs(20), || beats(cluster).is_empty().then_some(()));
    }
}

/// Nobody could tell who writes to it.
#[test]
fn an_image_without_a_lock_is_refused() {
    const NAME: &str = "an_image_without_a_lock_is_refused";
    let Some(sites) = Sites::start(NAME, Release::Pacific) else { return };
    let ends =
        [(&sites.a, &sites.clusters.a, VolumeRole::Primary), (&sites.b, &sites.clusters.b, VolumeRole::Secondary)];
    let volume = uuid::Uuid::new_v4().to_string();
    for (agent, cluster, role) in ends {
        let image = cluster.image("lockless");
        image.create(8 * MIB);
        image.disable_lock();
        let replication = v1::RbdReplication::Delta.into();
        let place = v1::RbdImage { replication, ..rbd_image(cluster, "lockless") };
        let refused = agent.controller().enable(enable_request(&volume, place, role)).expect_err("it has no lock");
        assert_eq!(status_reason(&refused), "image-without-lock", "{refused}");
    }
}

/// Where either agent can die in a sync.
const PLACES: [(End, &str); 11] = [
    (End::Source, "image.offered"),
    (End::Source, "image.taken"),
    (End::Source, "image.sent"),
    (End::Source, "image.proposed"),
    (End::Source, "image.finished"),
    (End::Sink, "image.compared"),
    (End::Sink, "image.staging"),
    (End::Sink, "image.received"),
    (End::Sink, "image.written"),
    (End::Sink, "image.snapped"),
    (End::Sink, "image.committed"),
];

/// R1 and R11: the newest point is the old one or the new one, whole; the job goes on by itself; and a replica that is promoted without its source is
/// its newest point.
#[test]
fn r11_an_image_is_a_whole_point_after_a_kill_anywhere() {
    const NAME: &str = "r11_an_image_is_a_whole_point_after_a_kill_anywhere";
    let Some(mut sites) = Sites::start(NAME, Release::Pacific) else { return };
    sites.sync(&sites.a);
    let rounds = if Rounds::chosen().is_full() { 2 } else { 1 };
    let mut kills = 0;
    for (end, place) in PLACES.into_iter().cycle().take(PLACES.len() * rounds) {
        let old = sites.newest(&sites.b, &sites.there());
        sites.edit();
        let new = sites.here().content();
        let kill = Faults::kill(place, 1);
        match end {
            End::Source => sites.a.restart(&kill),
            End::Sink => sites.b.restart(&kill),
        }
        let client: Client = sites.a.controller();
        let job = client.start(sites.request()).expect("start a sync");
        process::until("the agent dies", Duration::from_secs(60), || {
            let victim = if end == End::Source { &mut sites.a } else { &mut sites.b };
            (!victim.is_running()).then_some(())
        });
        kills += 1;
        drop(client);
        match end {
            End::Source => sites.a.start(&Faults::none()),
            End::Sink => sites.b.start(&Faults::none()),
        }
        let found = sites.newest(&sites.b, &sites.there());
        let is_whole = found.differences(&old).is_empty() || found.differences(&new).is_empty();
        assert!(is_whole, "{end:?} killed at {place}: the newest point is neither the old nor the new one");
        let client = sites.a.controller();
        client.outcome(&job, SYNC).expect("watch a job").expect_done(&format!("the job, {end:?} killed at {place}"));
        sites.newest(&sites.b, &sites.there()).assert_is(&new, &format!("{end:?} killed at {place}"));
        sites.there().content().assert_is(&new, &format!("the head, {end:?} killed at {place}"));
    }
    figure::report("kills in a sync of an image", kills, "kills", Goal::AtLeast(20));
    promote_in_the_middle(sites);
}

fn promote_in_the_middle(mut sites: Sites) {
    let old = sites.newest(&sites.b, &sites.there());
    sites.edit();
    sites.b.restart(&Faults::kill("image.written", 1));
    sites.a.controller().start(sites.request()).expect("start a sync");
    process::until("the agent dies", Duration::from_secs(60), || (!sites.b.is_running()).then_some(()));
    sites.a.kill();
    assert!(!sites.there().content().differences(&old).is_empty(), "the head is half written");
    sites.b.start(&Faults::none());
    thread::sleep(Duration::from_secs(1));
    sites.b.controller().promote(&sites.volume, true).expect("promote by force");
    sites.there().content().assert_is(&old, "promoted without its source");
    assert_eq!(sites.b.controller().info(&sites.volume).expect("look").role(), VolumeRole::Primary);
}
