//! Images that belong together: one number for the sync points of all, failed over as one; and points that are taken by themselves.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use drover_proto::v1::{self, VolumeRole};
use drover_tests::{
    ceph::{Clusters, Content, Image, Kind, Release},
    fleet::{agents, enable_request, rbd_image},
    host::{Access, Agent, Certificates, Client, Faults, status_reason},
    process,
    scratch::Scratch,
    seed::Seeds,
    skip,
};
use tonic::Status;

use crate::rbd::SYNCED;

const MIB: u64 = 1 << 20;
const GROUP: &str = "vm1";
const DISKS: [&str; 3] = ["vm1-root", "vm1-data", "vm1-log"];
const BYTES: u64 = 96 * MIB;

struct Sites {
    // Agents end before the clusters do.
    a: Agent,
    b: Agent,
    volumes: BTreeMap<&'static str, String>,
    clusters: Clusters,
    rng: fastrand::Rng,
    test: &'static str,
    begun: Instant,
    scratch: Scratch,
}

impl Sites {
    /// Mirrored clusters, three images with content at `site-a`, and agents that know both.
    fn start(test: &'static str, release: Release) -> Option<Self> {
        if let Some(why) = release.missing() {
            skip::skipped(test, &why);
            return None;
        }
        let begun = Instant::now();
        let clusters = Clusters::start(release);
        clusters.mirror();
        let scratch = Scratch::new("groups");
        let [a, b] = agents(&clusters, &scratch);
        let rng = Seeds::of(test).rng(0);
        let volumes = DISKS.map(|disk| (disk, uuid::Uuid::new_v4().to_string())).into();
        let mut sites = Self { a, b, volumes, clusters, rng, test, begun, scratch };
        for disk in DISKS {
            sites.here(disk).create(BYTES);
            sites.write(disk, 4);
        }
        Some(sites)
    }

    fn say(&self, what: &str) {
        println!("{}: {what} after {:.1?}", self.test, self.begun.elapsed());
    }

    fn here(&self, disk: &str) -> Image<'_> {
        self.clusters.a.image(disk)
    }

    fn there(&self, disk: &str) -> Image<'_> {
        self.clusters.b.image(disk)
    }

    fn write(&mut self, disk: &str, mib: u64) {
        let mut content = vec![0; usize::try_from(mib * MIB).expect("it fits")];
        self.rng.fill(&mut content);
        let at = self.rng.u64(0..(BYTES - mib * MIB) / MIB) * MIB;
        self.here(disk).write(&[(at, &content)]);
    }

    fn contents(&self) -> BTreeMap<&'static str, Content> {
        DISKS.into_iter().map(|disk| (disk, self.here(disk).content())).collect()
    }

    #[track_caller]
    fn assert_there(&self, contents: &BTreeMap<&'static str, Content>, why: &str) {
        for (disk, content) in contents {
            self.there(disk).content().assert_is(content, &format!("{disk}: {why}"));
        }
    }

    fn client(agent: &Agent) -> Client {
        agent.client(Access::Controller)
    }

    fn enable(&self, every_seconds: Option<u64>) -> Vec<v1::MgrSchedule> {
        let mut schedules = Vec::new();
        for (agent, role) in [(&self.a, VolumeRole::Primary), (&self.b, VolumeRole::Secondary)] {
            for (disk, volume) in &self.volumes {
                let request = v1::EnableRequest {
                    group: Some(GROUP.to_owned()),
                    point_every_seconds: every_seconds,
                    ..enable_request(volume, rbd_image(&self.clusters.a, disk), role)
                };
                let client = Self::client(agent);
                let enabled = client.call(client.replication().enable(request)).expect("enable an image");
                schedules.extend(enabled.mgr_schedules);
            }
        }
        self.say("both agents protect the images");
        schedules
    }

    fn point(&self, agent: &Agent) -> u64 {
        let client = Self::client(agent);
        let request = v1::CreateMirrorSnapshotsRequest { group: GROUP.to_owned() };
        let taken = client.call(client.groups().create_mirror_snapshots(request)).expect("take points");
        println!("{}: point {} within {} ms", self.test, taken.number, taken.spread_millis);
        taken.number
    }

    fn group(&self, agent: &Agent) -> v1::GroupInfo {
        let client = Self::client(agent);
        let request = v1::GetGroupRequest { group: GROUP.to_owned(), local_only: false };
        client.call(client.groups().get_group(request)).expect("look at the group").group.expect("the group")
    }

    fn wait_for_point(&self, agent: &Agent, number: u64) {
        process::until("the point is whole on every image at the other site", SYNCED, || {
            (self.group(agent).common_point == Some(number)).then_some(())
        });
    }

    fn promote(agent: &Agent, force: bool) -> Result<Option<u64>, Status> {
        let client = Self::client(agent);
        let request = v1::PromoteGroupRequest { group: GROUP.to_owned(), force };
        client.call(client.groups().promote_group(request)).map(|promoted| promoted.ended_on)
    }

    fn demote(agent: &Agent) -> Result<(), Status> {
        let client = Self::client(agent);
        let request = v1::DemoteGroupRequest { group: GROUP.to_owned() };
        client.call(client.groups().demote_group(request)).map(drop)
    }

    #[track_caller]
    fn refused<T: std::fmt::Debug>(called: Result<T, Status>, why: &str) {
        let status = called.expect_err("it must be refused");
        assert_eq!(status_reason(&status), why, "{status}");
    }

    #[track_caller]
    fn assert_roles(&self, agent: &Agent, role: VolumeRole) {
        for member in self.group(agent).members {
            assert_eq!(member.role(), role, "{}", member.volume_id);
        }
    }

    fn switch(&self, from: &Agent, to: &Agent) {
        Self::refused(Self::promote(to, false), "peer-is-primary");
        Self::refused(Self::promote(to, true), "peer-is-primary");
        Self::demote(from).expect("demote the group");
        self.say("demoted");
        process::until("a promotion is safe", SYNCED, || self.group(to).promote_unsafe.is_empty().then_some(()));
        assert_eq!(Self::promote(to, false).expect("promote the group"), None);
        self.say("promoted");
        assert_eq!(Self::promote(to, false).expect("it is primary already"), None);
        self.assert_roles(to, VolumeRole::Primary);
        self.assert_roles(from, VolumeRole::Secondary);
    }
}

#[test]
fn a_group_fails_over_and_back_as_one() {
    const NAME: &str = "a_group_fails_over_and_back_as_one";
    let Some(mut sites) = Sites::start(NAME, Release::Pacific) else { return };
    sites.enable(None);
    let first = sites.point(&sites.a);
    sites.wait_for_point(&sites.b, first);
    sites.say("the first point is at the other site");
    // Of one image alone: its number is taken for all of them.
    let client = Sites::client(&sites.a);
    let request = v1::CreateMirrorSnapshotRequest { volume_id: sites.volumes[DISKS[0]].clone() };
    client.call(client.replication().create_mirror_snapshot(request)).expect("a point of one image");
    let next = sites.point(&sites.a);
    assert_eq!(next, first + 2);
    Sites::refused(client.demote(&sites.volumes[DISKS[1]]), "in-group");
    let request = v1::GetGroupRequest { group: "none".to_owned(), local_only: true };
    Sites::refused(client.call(client.groups().get_group(request)), "no-such-group");

    // One that is in use keeps all where they are.
    let writer = sites.here(DISKS[2]).writer();
    let is_used = || {
        let info = Sites::client(&sites.a).info(&sites.volumes[DISKS[2]]).expect("look");
        info.mirror.is_some_and(|mirror| mirror.users.iter().any(|user| user.lock_owner))
    };
    process::until("it writes", SYNCED, || is_used().then_some(()));
    Sites::refused(Sites::demote(&sites.a), "image-in-use");
    sites.assert_roles(&sites.a, VolumeRole::Primary);
    drop(writer);
    process::until("the cluster gives its client up", SYNCED, || (!is_used()).then_some(()));

    for disk in DISKS {
        sites.write(disk, 2);
    }
    let contents = sites.contents();
    sites.switch(&sites.a, &sites.b);
    sites.assert_there(&contents, "after the failover");
    let back = sites.point(&sites.b);
    assert_eq!(back, next + 1, "numbers go on at the other site");
    sites.wait_for_point(&sites.a, back);
    sites.switch(&sites.b, &sites.a);
    for (disk, content) in &contents {
        sites.here(disk).content().assert_is(content, "after the failback");
    }
    // What a demotion begun and could not end is taken back.
    assert_eq!(sites.point(&sites.a), back + 1);
}

/// One image is further, one is half copied, and one is where all of them can be.
fn a_forced_promotion_ends_all_images_on_one_point(test: &'static str, release: Release, kills: usize) {
    const TRIES: usize = 8;
    let Some(mut sites) = Sites::start(test, release) else { return };
    sites.enable(None);
    let number = sites.point(&sites.a);
    sites.wait_for_point(&sites.b, number);
    let contents = sites.contents();
    let [further, half, _] = DISKS;
    let point_of = |sites: &Sites, disk: &str| {
        let client = Sites::client(&sites.a);
        let request = v1::CreateMirrorSnapshotRequest { volume_id: sites.volumes[disk].clone() };
        client.call(client.replication().create_mirror_snapshot(request)).expect("a point of one image");
    };
    sites.write(further, 2);
    point_of(&sites, further);
    process::until("it is further", SYNCED, || sites.here(further).is_synced(&sites.there(further)).then_some(()));
    let newest = |sites: &Sites| sites.there(half).snapshots().into_iter().rfind(|it| it.mirror().is_some());
    let mut tried = 0;
    loop {
        tried += 1;
        assert!(tried <= TRIES, "no sync was half way in {TRIES} tries");
        let known = newest(&sites).map(|it| it.id);
        sites.write(half, 64);
        let slowed = sites.clusters.b.slow_down(Kind::Osd, 0.05);
        point_of(&sites, half);
        process::until("a mirror snapshot arrives", SYNCED, || (newest(&sites).map(|it| it.id) > known).then_some(()));
        sites.clusters.b.stop_processes(&[Kind::RbdMirror]);
        drop(slowed);
        if newest(&sites).is_some_and(|it| it.mirror().is_some_and(|mirror| !mirror.is_complete)) {
            break;
        }
        sites.clusters.b.cont(&[Kind::RbdMirror]);
        process::until("it arrives", SYNCED, || sites.here(half).is_synced(&sites.there(half)).then_some(()));
    }
    sites.say(&format!("one image is further, one half copied at try {tried}"));
    sites.clusters.a.kill();
    sites.a.kill();
    Sites::refused(Sites::promote(&sites.b, false), "promote-unsafe");
    sites.assert_roles(&sites.b, VolumeRole::Secondary);
    assert_eq!(sites.group(&sites.b).common_point, Some(number));
    for _ in 0..kills {
        let (pause, client) = (Duration::from_millis(sites.rng.u64(0..2500)), Sites::client(&sites.b));
        let promoting = thread::spawn(move || {
            let request = v1::PromoteGroupRequest { group: GROUP.to_owned(), force: true };
            client.call(client.groups().promote_group(request))
        });
        thread::sleep(pause);
        sites.b.kill();
        // Its answer is worth nothing now.
        drop(promoting.join().expect("ask for a promotion"));
        sites.b.start(&Faults::none());
        sites.say(&format!("killed in a promotion after {pause:.1?}"));
    }
    let ended = process::until("a promotion by force", SYNCED * 2, || match Sites::promote(&sites.b, true) {
        Err(status) if status_reason(&status) == "image-in-verb" => None,
        Err(status) => panic!("promote by force: {status} {}", status_reason(&status)),
        Ok(ended) => Some(ended),
    });
    // One that was killed may have been at its end.
    assert!(ended == Some(number) || (kills > 0 && ended.is_none()), "{ended:?}");
    sites.say("promoted by force");
    sites.assert_there(&contents, "the newest point of all, under its own name");
    sites.assert_roles(&sites.b, VolumeRole::Primary);
    assert_eq!(Sites::promote(&sites.b, true).expect("it is primary already"), None);
    sites.clusters.b.cont(&[Kind::RbdMirror]);
    process::until("all are mirrored", SYNCED, || {
        let members = sites.group(&sites.b).members;
        members.iter().all(|it| it.mirror.as_ref().is_some_and(|it| !it.global_id.is_empty())).then_some(())
    });
    let next = sites.point(&sites.b);
    assert!(next > number, "{next}");
}

#[test]
fn r11_a_forced_promotion_of_a_group_ends_on_one_point_on_ceph_16() {
    a_forced_promotion_ends_all_images_on_one_point(
        "r11_a_forced_promotion_of_a_group_ends_on_one_point_on_ceph_16",
        Release::Pacific,
        0,
    );
}

#[test]
fn r11_a_forced_promotion_of_a_group_ends_on_one_point_on_ceph_18() {
    a_forced_promotion_ends_all_images_on_one_point(
        "r11_a_forced_promotion_of_a_group_ends_on_one_point_on_ceph_18",
        Release::Reef,
        4,
    );
}

/// By one of the agents of a cluster, and by another one once that has died.
#[test]
fn points_of_a_group_are_taken_on_schedule_by_one_agent() {
    const NAME: &str = "points_of_a_group_are_taken_on_schedule_by_one_agent";
    const EVERY: u64 = 6;
    /// Who comes after an agent that died in the middle of a point waits until that must be over.
    const TAKEN_OVER: Duration = Duration::from_secs(270);
    let Some(mut sites) = Sites::start(NAME, Release::Pacific) else { return };
    let cluster = &sites.clusters.a;
    let schedule = |arguments: &[&str]| {
        let add = ["mirror", "snapshot", "schedule", "add", "--pool", cluster.pool()];
        cluster.rbd(&[&add, arguments].concat());
    };
    schedule(&["1h"]);
    for disk in DISKS {
        cluster.image(disk).enable();
        schedule(&["--image", disk, "2h"]);
    }
    let found = sites.enable(Some(EVERY));
    let levels: Vec<_> = found.iter().map(|it| (it.level.as_str(), it.interval.as_str())).collect();
    let pool = format!("{}/", cluster.pool());
    assert_eq!(levels, [(pool.as_str(), "1h"); DISKS.len()], "those of the images gave way");
    let certificates = Certificates::init(&sites.scratch.join("other"), &["site-c"]);
    let mut other = Agent::new("site-c", &certificates);
    other.setup.more.clone_from(&sites.a.setup.more);
    other.start(&Faults::none());
    let taken = |agent: &Agent| -> Vec<Vec<(u64, i64)>> {
        let members = sites.volumes.values().map(|volume| {
            let request = v1::GetInfoRequest { volume_id: volume.clone(), local_only: true, spec: None };
            let client = Sites::client(agent);
            let info = client.call(client.replication().get_info(request)).expect("look").volume.expect("the volume");
            let points = info.mirror.expect("the image").points;
            points.iter().map(|point| (point.number, point.taken_at_unix_secs)).collect()
        });
        members.collect()
    };
    let check = |taken: &[Vec<(u64, i64)>]| {
        for pair in taken[0].windows(2) {
            assert!(pair[1].1 - pair[0].1 >= EVERY.cast_signed(), "one of them is taken twice: {taken:?}");
        }
        let newest: Vec<_> = taken.iter().map(|points| points.last().copied()).collect();
        (newest.iter().all(|it| *it == newest[0])).then_some(newest[0])?
    };
    process::until("points are taken", SYNCED, || check(&taken(&other)).filter(|(number, _)| *number >= 4));
    sites.say("four points were taken");
    thread::sleep(Duration::from_secs(EVERY / 3));
    sites.a.kill();
    let (before, _) = taken(&other)[0].last().copied().expect("points");
    process::until("another agent goes on", TAKEN_OVER, || {
        check(&taken(&other)).filter(|(number, _)| *number >= before + 3)
    });
    sites.say("another agent went on");
}
