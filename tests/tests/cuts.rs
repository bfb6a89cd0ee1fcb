//! Images of pools that are not mirrored and belong together: their points are of one moment, while a machine writes to all of them.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use drover_librbd::{Access, Ceph, ImageRef, Pool, Timeouts};
use drover_proto::v1::{self, VolumeRole};
use drover_tests::{
    ceph::{Cluster, Clusters, Release},
    figure::{self, Goal},
    fleet::{agents, enable_request, rbd_image},
    host::{Agent, Faults, Outcome, SYNC, status_reason},
    process,
    rounds::Rounds,
    scratch::Scratch,
    seed::{Rng, Seeds},
    skip,
};
use tonic::Status;

/// How late calls of a killed worker may land.
const SETTLES: Duration = Duration::from_secs(5);
const GROUP: &str = "vm1";
const DISKS: [&str; 3] = ["vm1-root", "vm1-data", "vm1-log"];
const PAGE: u64 = 4096;
/// Every second page is written to.
const STEP: u64 = 2 * PAGE;
const PAGES: u64 = 512;
const BYTES: u64 = PAGES * STEP;

fn pool(cluster: &Cluster) -> Pool {
    connect(&cluster.conf(), cluster.pool())
}

fn connect(conf: &Path, pool: &str) -> Pool {
    let ceph = Ceph::load().expect("librbd");
    let mut configuration = ceph.configure("client.admin").expect("configure");
    configuration.conf_file(conf).expect("read ceph.conf");
    let time = Duration::from_secs(60);
    configuration.timeouts(Timeouts { connect: time, monitor: time, osd: time }).expect("set timeouts");
    configuration.connect().expect("connect").pool(pool).expect("the pool")
}

/// Writes a number to each disk in turn, each write after the one before was acknowledged: at any moment a disk is at the number of the one before
/// it, or at the number below. A write that fails ends the test.
fn write_until(pool: &Pool, from: u64, stop: &AtomicBool, written: &AtomicU64) {
    let disks = DISKS.map(|disk| pool.open(ImageRef::Name(disk), Access::ReadWrite).expect("open a disk"));
    for number in from.. {
        for disk in &disks {
            disk.write(number % PAGES * STEP, &page(number)).expect("a machine's write");
        }
        written.store(number, Ordering::Release);
        if stop.load(Ordering::Acquire) {
            break;
        }
    }
    for disk in disks {
        disk.close().expect("close a disk");
    }
}

fn page(number: u64) -> Vec<u8> {
    number.to_le_bytes().repeat(PAGE as usize / 8)
}

/// The number that a disk is at, of its snapshot or its head; every page of it is judged.
#[track_caller]
fn number(pool: &Pool, disk: &str, snapshot: Option<&str>) -> u64 {
    let image = match snapshot {
        Some(snapshot) => pool.open_at(ImageRef::Name(disk), snapshot),
        None => pool.open(ImageRef::Name(disk), Access::ReadOnly),
    };
    let image = image.unwrap_or_else(|error| panic!("{disk} at {snapshot:?}: {error}"));
    let mut content = vec![0; BYTES as usize];
    assert_eq!(image.read(0, &mut content).expect("read a disk"), content.len());
    let at = |page: u64| &content[(page * STEP) as usize..][..STEP as usize];
    let said = |page: u64| u64::from_le_bytes(at(page)[..8].try_into().expect("eight bytes"));
    let number = (0..PAGES).map(said).max().expect("pages");
    for n in 0..PAGES {
        // The newest number up to this one that was written there.
        let expected = (number + 1).checked_sub(PAGES).map_or(n, |first| first + (n + PAGES - first % PAGES) % PAGES);
        let expected = if expected <= number && expected > 0 { page(expected) } else { vec![0; PAGE as usize] };
        let is_right = at(n)[..PAGE as usize] == expected;
        assert!(is_right, "{disk} at {snapshot:?} is at number {number}, and page {n} is of number {}", said(n));
        assert!(at(n)[PAGE as usize..].iter().all(|byte| *byte == 0), "{disk}: a page that nobody wrote to");
    }
    number
}

/// By how much the disks are apart. 0 or 1 is one moment.
#[track_caller]
fn apart(pool: &Pool, snapshot: Option<&dyn Fn(&str) -> String>) -> u64 {
    let numbers = DISKS.map(|disk| number(pool, disk, snapshot.map(|name| name(disk)).as_deref()));
    println!("disks are at {numbers:?}");
    assert!(numbers[0] > 0 && numbers.is_sorted_by(|one, other| one >= other), "{numbers:?}");
    numbers[0] - numbers[2]
}

struct Sites {
    // Agents end before the clusters do.
    a: Agent,
    b: Agent,
    volumes: [String; 3],
    clusters: Clusters,
    test: &'static str,
    begun: Instant,
    _scratch: Scratch,
}

impl Sites {
    fn start(test: &'static str, release: Release) -> Option<Self> {
        if let Some(why) = release.missing() {
            skip::skipped(test, &why);
            return None;
        }
        let begun = Instant::now();
        let clusters = Clusters::start(release);
        let scratch = Scratch::new("cuts");
        let [a, b] = agents(&clusters, &scratch);
        let volumes = DISKS.map(|_| uuid::Uuid::new_v4().to_string());
        let sites = Self { a, b, volumes, clusters, test, begun, _scratch: scratch };
        for disk in DISKS {
            sites.clusters.a.image(disk).create(BYTES);
        }
        for (agent, role) in [(&sites.a, VolumeRole::Primary), (&sites.b, VolumeRole::Secondary)] {
            for (disk, volume) in DISKS.into_iter().zip(&sites.volumes) {
                agent.controller().enable(sites.request(volume, disk, role)).expect("enable a disk");
            }
        }
        Some(sites)
    }

    fn request(&self, volume: &str, disk: &str, role: VolumeRole) -> v1::EnableRequest {
        let replication = v1::RbdReplication::Delta.into();
        let image = v1::RbdImage { replication, ..rbd_image(&self.clusters.a, disk) };
        let request = enable_request(volume, image, role);
        v1::EnableRequest { group: Some(GROUP.to_owned()), retain: Some(1), ..request }
    }

    fn say(&self, what: &str) {
        println!("{}: {what} after {:.1?}", self.test, self.begun.elapsed());
    }

    #[track_caller]
    fn try_sync(&self, agent: &Agent, disk: usize) -> Outcome {
        let client = agent.controller();
        let request = v1::StartRequest { volume_id: self.volumes[disk].clone(), ..v1::StartRequest::default() };
        let job = client.start(request).expect("start a sync");
        client.outcome(&job, SYNC).expect("watch a sync")
    }

    #[track_caller]
    fn sync(&self, agent: &Agent, disk: usize) -> u64 {
        self.try_sync(agent, disk).expect_done("a sync").point_id().parse().expect("a number")
    }

    /// Each disk once, beginning with that one.
    #[track_caller]
    fn sync_all(&self, agent: &Agent, first: usize) -> u64 {
        let points: Vec<_> = (first..first + 3).map(|disk| self.sync(agent, disk % 3)).collect();
        assert!(points.iter().all(|point| *point == points[0]), "one number for all: {points:?}");
        points[0]
    }

    /// Of a point at `site-b`, by the name of its snapshot.
    fn snapshot(&self, disk: &str, point: u64) -> String {
        let snapshots = self.clusters.b.image(disk).snapshots();
        let found = snapshots.iter().find(|snapshot| snapshot.name.starts_with(&format!("drover.{point}.")));
        found.unwrap_or_else(|| panic!("a snapshot of point {point} of {disk}: {snapshots:?}")).name.clone()
    }

    fn cut(&self, agent: &Agent) -> Result<u64, Status> {
        let client = agent.controller();
        let request = v1::CreateMirrorSnapshotsRequest { group: GROUP.to_owned() };
        client.call(client.groups().create_mirror_snapshots(request)).map(|taken| taken.number)
    }

    fn group(&self, agent: &Agent) -> v1::GroupInfo {
        let client = agent.controller();
        let request = v1::GetGroupRequest { group: GROUP.to_owned(), local_only: false };
        client.call(client.groups().get_group(request)).expect("look at the group").group.expect("the group")
    }

    fn promote(agent: &Agent, force: bool) -> Result<Option<u64>, Status> {
        let client = agent.controller();
        let request = v1::PromoteGroupRequest { group: GROUP.to_owned(), force };
        client.call(client.groups().promote_group(request)).map(|promoted| promoted.ended_on)
    }

    fn demote(agent: &Agent) -> Result<(), Status> {
        let client = agent.controller();
        client.call(client.groups().demote_group(v1::DemoteGroupRequest { group: GROUP.to_owned() })).map(drop)
    }

    #[track_caller]
    fn refused<T: std::fmt::Debug>(called: Result<T, Status>, why: &str) {
        let status = called.expect_err("it must be refused");
        assert_eq!(status_reason(&status), why, "{status}");
    }

    #[track_caller]
    fn assert_roles(&self, agent: &Agent, role: VolumeRole) {
        let roles: Vec<_> = self.group(agent).members.iter().map(v1::VolumeInfo::role).collect();
        assert_eq!(roles, [role; 3]);
    }

    /// The agent that cuts, with its workers, which hold the locks of the disks.
    fn kill_in_a_cut(&mut self, rng: &mut Rng) {
        let (pause, client) = (Duration::from_millis(rng.u64(0..1200)), self.a.controller());
        let cutting = thread::spawn(move || {
            let request = v1::CreateMirrorSnapshotsRequest { group: GROUP.to_owned() };
            client.call(client.groups().create_mirror_snapshots(request)).map(|taken| taken.number)
        });
        thread::sleep(pause);
        self.a.kill();
        let cut = cutting.join().expect("ask for a cut");
        self.a.start(&Faults::none());
        self.say(&format!("killed in a cut after {pause:.1?}, which was told: {:?}", cut.ok()));
    }

    /// What a cut leaves on a disk is whole. A call that was on its way when its worker was killed may land behind the next cut's sweep, so what is
    /// seen then goes with the one after that.
    fn assert_no_halves(&self) {
        if self.halves().is_some() {
            thread::sleep(SETTLES);
            self.sync_all(&self.a, 1);
        }
        if let Some((disk, names)) = self.halves() {
            panic!("{disk}: {names:?}");
        }
    }

    fn halves(&self) -> Option<(&'static str, Vec<String>)> {
        DISKS.iter().find_map(|disk| {
            let snapshots = self.clusters.a.image(disk).snapshots();
            let names: Vec<_> = snapshots.into_iter().map(|snapshot| snapshot.name).collect();
            let of_users = names.iter().filter(|name| name.ends_with(".before")).count();
            let of_groups = names.iter().filter(|name| name.starts_with(".group.")).count();
            (of_users != of_groups || of_users > 3).then_some((*disk, names))
        })
    }

    fn numbers(&self, cluster: &Cluster) -> [u64; 3] {
        let pool = pool(cluster);
        DISKS.map(|disk| number(&pool, disk, None))
    }
}

fn a_group_is_cut_at_one_moment(test: &'static str, release: Release) {
    let Some(mut sites) = Sites::start(test, release) else { return };
    let rounds = Rounds::chosen().cuts;
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let there = pool(&sites.clusters.b);
    let (mut worst, mut rng) = (0, Seeds::of(test).rng(0));
    let whole = thread::scope(|scope| {
        let machine = pool(&sites.clusters.a);
        let (stop, written) = (&stop, &written);
        scope.spawn(move || write_until(&machine, 1, stop, written));
        let ends = EndOnDrop(stop);
        process::until("the machine writes", SYNC, || (written.load(Ordering::Acquire) > 20).then_some(()));
        // The judge sees snapshots that are of several moments.
        let begun = written.load(Ordering::Acquire);
        for disk in DISKS {
            sites.clusters.a.image(disk).snapshot("one-by-one");
        }
        let here = pool(&sites.clusters.a);
        let numbers = DISKS.map(|disk| number(&here, disk, Some("one-by-one")));
        assert!(numbers[2] > numbers[0] + 1, "{numbers:?} since {begun}");
        for round in 0..rounds {
            let (agent, first) = (if round % 2 == 0 { &sites.a } else { &sites.b }, round as usize % 3);
            let (begun, from) = (Instant::now(), written.load(Ordering::Acquire));
            let point = sites.sync_all(agent, first);
            let writes = written.load(Ordering::Acquire) - from;
            sites.say(&format!("round {round}: point {point} in {:.1?}, {writes} writes meanwhile", begun.elapsed()));
            assert!(writes > 0, "the machine goes on");
            worst = worst.max(apart(&there, Some(&|disk| sites.snapshot(disk, point))));
            assert_eq!(sites.group(&sites.b).common_point, Some(point));
        }
        for _ in 0..rounds {
            sites.kill_in_a_cut(&mut rng);
        }
        let point = sites.sync_all(&sites.a, 1);
        worst = worst.max(apart(&there, Some(&|disk| sites.snapshot(disk, point))));
        sites.assert_no_halves();
        // One disk is further than the others, by more points than are kept.
        let whole = sites.group(&sites.b).common_point.expect("a point");
        let cut = sites.cut(&sites.a).expect("cut the group");
        assert_eq!(sites.sync(&sites.a, 0), cut, "the cut is what is synced next");
        for more in 1..4 {
            assert_eq!(sites.sync(&sites.a, 0), cut + more);
        }
        assert_eq!(sites.group(&sites.b).common_point, Some(whole), "it is kept for the group");
        drop(ends);
        whole
    });
    figure::report(
        &format!("moments of a group that is written to, apart, on Ceph {}", release.number()),
        worst,
        "writes",
        Goal::AtMost(1),
    );
    figure::report(&format!("cuts of a group, on Ceph {}", release.number()), rounds, "cuts", Goal::AtLeast(rounds));
    sites.say("the disks are at different points");
    end_on_one_point(&mut sites, whole);
    fail_back(&mut sites);
}

struct EndOnDrop<'a>(&'a AtomicBool);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// The primary's site dies, and the agent of the other one in the middle of the promotion.
fn end_on_one_point(sites: &mut Sites, whole: u64) {
    let mut rng = Seeds::of(sites.test).rng(1);
    let there = pool(&sites.clusters.b);
    Sites::refused(Sites::promote(&sites.b, true), "peer-is-primary");
    let expected = DISKS.map(|disk| number(&there, disk, Some(&sites.snapshot(disk, whole))));
    sites.a.kill();
    Sites::refused(Sites::promote(&sites.b, false), "promote-unsafe");
    sites.assert_roles(&sites.b, VolumeRole::Secondary);
    for _ in 0..2 {
        let (pause, client) = (Duration::from_millis(rng.u64(0..3000)), sites.b.controller());
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
    let ended = process::until("a promotion by force", SYNC, || match Sites::promote(&sites.b, true) {
        Err(status) if status_reason(&status) == "image-in-verb" => None,
        Err(status) => panic!("promote by force: {status} {}", status_reason(&status)),
        Ok(ended) => Some(ended),
    });
    // One that was killed may have been at its end.
    assert!(ended == Some(whole) || ended.is_none(), "{ended:?}");
    sites.assert_roles(&sites.b, VolumeRole::Primary);
    assert_eq!(sites.numbers(&sites.clusters.b), expected, "all are at the newest point of all");
    assert!(apart(&there, None) <= 1);
    sites.say("promoted by force to one point");
    assert_eq!(Sites::promote(&sites.b, true).expect("it is primary already"), None);
}

/// The old site gives its lines up; then back as one.
fn fail_back(sites: &mut Sites) {
    let (stop, written) = (AtomicBool::new(true), AtomicU64::new(0));
    // No disk leaves one out.
    let from = sites.numbers(&sites.clusters.b)[2] + 1;
    write_until(&pool(&sites.clusters.b), from, &stop, &written);
    sites.a.start(&Faults::none());
    assert_eq!(sites.try_sync(&sites.b, 1).expect_failed("two primaries"), "both-primary");
    let client = sites.a.controller();
    Sites::refused(client.demote(&sites.volumes[1]), "in-group");
    for volume in &sites.volumes {
        let (alone, force) = (true, true);
        let request = v1::DemoteRequest { volume_id: volume.clone(), alone, force };
        client.call(client.replication().demote(request)).expect("demote the loser");
        client.resync(volume).expect("give the loser's line up");
    }
    sites.sync_all(&sites.b, 0);
    assert_eq!(sites.numbers(&sites.clusters.a), sites.numbers(&sites.clusters.b), "the loser has caught up");
    sites.say("the old site has caught up");

    // What one disk holds besides keeps all where they are.
    write_until(&pool(&sites.clusters.b), from + 1, &stop, &written);
    Sites::refused(Sites::demote(&sites.b), "not-synced");
    sites.assert_roles(&sites.b, VolumeRole::Primary);
    sites.sync_all(&sites.b, 2);
    Sites::refused(Sites::promote(&sites.a, false), "peer-is-primary");
    Sites::demote(&sites.b).expect("demote the group");
    assert!(sites.group(&sites.a).promote_unsafe.is_empty());
    assert_eq!(Sites::promote(&sites.a, false).expect("promote the group"), None);
    sites.assert_roles(&sites.a, VolumeRole::Primary);
    sites.assert_roles(&sites.b, VolumeRole::Secondary);
    assert_eq!(sites.numbers(&sites.clusters.a), [from + 1; 3], "after the failback");
    write_until(&pool(&sites.clusters.a), from + 2, &stop, &written);
    sites.sync_all(&sites.a, 1);
    assert_eq!(sites.numbers(&sites.clusters.b), [from + 2; 3], "and on from there");
    sites.say("failed back");

    // Nothing of it stays where the volumes end.
    for volume in &sites.volumes {
        let request = v1::DisableRequest { volume_id: volume.clone(), ..v1::DisableRequest::default() };
        let client = sites.a.controller();
        client.call(client.replication().disable(request)).expect("disable a disk");
    }
    for disk in DISKS {
        let left: Vec<_> = sites.clusters.a.image(disk).snapshots();
        assert!(left.iter().all(|snapshot| snapshot.name == "one-by-one"), "{left:?}");
    }
    assert_eq!(sites.clusters.a.rbd(&["group", "ls", sites.clusters.a.pool()]).trim(), "");
}

#[test]
fn r11_a_group_is_cut_at_one_moment_on_ceph_16() {
    a_group_is_cut_at_one_moment("r11_a_group_is_cut_at_one_moment_on_ceph_16", Release::Pacific);
}

#[test]
fn r11_a_group_is_cut_at_one_moment_on_ceph_18() {
    a_group_is_cut_at_one_moment("r11_a_group_is_cut_at_one_moment_on_ceph_18", Release::Reef);
}
