//! The Ceph clusters that other tests stand on do what they say.

use std::{
    env, fs,
    io::{BufRead, BufReader, ErrorKind},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use drover_tests::{
    ceph::{Cluster, Clusters, Image, Kind, Recipe, Release},
    figure::{self, Goal},
    process::{self, Done},
    scratch::Scratch,
    seed::Seeds,
    skip,
};

const MIB: u64 = 1 << 20;
/// Long against any call on a cluster that is well.
const HANG: Duration = Duration::from_secs(3);
const HALF_WAY: Duration = Duration::from_secs(60);
const LIBRBD_DEADLINE: Duration = Duration::from_secs(400);
/// Longer than the leases of placement groups (16 s).
const LONG: Duration = Duration::from_secs(25);
/// The tests of the crate that calls librbd, built by `tests/run`: they need clusters.
const LIBRBD_TESTS: &str = "DROVER_LIBRBD_TESTS";
/// Says to a copy of this test that it is the one to be killed.
const READY: &str = "ready to be killed";
const VICTIM: &str = "DROVER_CEPH_VICTIM";

/// Prints what was reached, and when.
struct Clock {
    test: &'static str,
    begun: Instant,
}

impl Clock {
    /// Nothing where the clusters can't run.
    fn start(test: &'static str, release: Release) -> Option<Self> {
        match release.missing() {
            Some(why) => {
                skip::skipped(test, &why);
                None
            }
            None => Some(Self { test, begun: Instant::now() }),
        }
    }

    fn say(&self, what: &str) {
        println!("{}: {what} after {:.1?}", self.test, self.begun.elapsed());
    }

    fn clusters(&self, release: Release) -> Clusters {
        let clusters = Clusters::start(release);
        self.say("both clusters serve");
        clusters
    }

    fn mirrored(&self, release: Release) -> Clusters {
        let clusters = self.clusters(release);
        clusters.mirror();
        self.say("mirrored in both directions");
        clusters
    }

    fn random(&self, bytes: u64) -> Vec<u8> {
        let mut content = vec![0; bytes as usize];
        Seeds::of(self.test).rng(0).fill(&mut content);
        content
    }
}

/// One image of 64 MiB with 3 MiB of content, and where its copy goes.
fn image<'a>(clusters: &'a Clusters, content: &[u8]) -> (Image<'a>, Image<'a>) {
    let (here, there) = (clusters.a.image("one"), clusters.b.image("one"));
    here.create(64 * MIB);
    here.write(&[(0, content), (40 * MIB + 4096, content)]);
    (here, there)
}

#[test]
fn an_image_arrives_byte_equal_pacific() {
    arrives_byte_equal("an_image_arrives_byte_equal_pacific", Release::Pacific);
}

#[test]
fn an_image_arrives_byte_equal_reef() {
    arrives_byte_equal("an_image_arrives_byte_equal_reef", Release::Reef);
}

fn arrives_byte_equal(test: &'static str, release: Release) {
    let Some(clock) = Clock::start(test, release) else { return };
    let clusters = clock.mirrored(release);
    let content = clock.random(3 * MIB);
    let (here, there) = image(&clusters, &content);
    here.enable();
    here.wait_synced(&there);
    clock.say("the first copy is there");
    here.content().assert_is(&there.content(), "first copy");
    here.write(&[(20 * MIB + 512, &content[..5000])]);
    assert_eq!(here.content().differences(&there.content()).len(), 1, "what no snapshot has");
    here.mirror_snapshot();
    here.wait_synced(&there);
    clock.say("a mirror snapshot is there");
    here.content().assert_is(&there.content(), "mirror snapshot");
    here.snapshot("s");
    here.write(&[(0, &[1; 512])]);
    here.mirror_snapshot();
    here.wait_synced(&there);
    here.content_at("s").assert_is(&there.content_at("s"), "user snapshot");
    assert_ne!(there.content_at("s"), there.content(), "user snapshot and head");
}

#[test]
fn a_killed_cluster_comes_back_with_its_images() {
    let Some(clock) = Clock::start("a_killed_cluster_comes_back_with_its_images", Release::Pacific) else { return };
    let clusters = clock.mirrored(Release::Pacific);
    let (here, there) = image(&clusters, &clock.random(3 * MIB));
    here.enable();
    here.wait_synced(&there);
    let was = here.content();
    clusters.a.kill();
    assert!(!clusters.a.is_running(Kind::Mon) && clusters.a.is_running(Kind::RbdMirror), "what was killed");
    there.content().assert_is(&was, "the copy while the primary is dead");
    clusters.a.start();
    clock.say("killed and back");
    here.content().assert_is(&was, "the primary after the kill");
    here.write(&[(30 * MIB, &[7; 4096])]);
    here.mirror_snapshot();
    here.wait_synced(&there);
    clock.say("mirrored again");
    here.content().assert_is(&there.content(), "after the kill");
    clusters.b.kill_rbd_mirror();
    here.mirror_snapshot();
    assert!(!here.is_synced(&there), "without rbd-mirror");
    clusters.b.start_rbd_mirror();
    here.wait_synced(&there);
    clock.say("mirrored again after rbd-mirror was killed");
}

#[test]
fn stopped_processes_make_calls_hang() {
    let Some(clock) = Clock::start("stopped_processes_make_calls_hang", Release::Pacific) else { return };
    let clusters = clock.clusters(Release::Pacific);
    let (here, _) = image(&clusters, &clock.random(3 * MIB));
    let was = here.content();
    for (kinds, time) in [(&[Kind::Mon][..], HANG), (&[Kind::Osd], LONG), (&Kind::STORAGE, HANG)] {
        clusters.a.stop_processes(kinds);
        let late = clusters.a.try_rbd(&["info", here.spec()], HANG).expect_err("a call hangs");
        assert_eq!(late.kind(), ErrorKind::TimedOut, "{late}");
        thread::scope(|scope| {
            let content = scope.spawn(|| here.content());
            thread::sleep(time);
            assert!(!content.is_finished(), "a call ended while {kinds:?} was stopped");
            clusters.a.cont(kinds);
            content.join().expect("the call ends").assert_is(&was, "after the stop");
        });
        clock.say(&format!("{kinds:?} was stopped for {time:?} and a call went on"));
    }
}

#[test]
fn a_slow_target_is_met_half_way() {
    let Some(clock) = Clock::start("a_slow_target_is_met_half_way", Release::Pacific) else { return };
    let clusters = clock.mirrored(Release::Pacific);
    let (here, there) = image(&clusters, &clock.random(3 * MIB));
    here.enable();
    here.wait_synced(&there);
    let first = here.content();
    here.write(&[(0, &clock.random(60 * MIB))]);
    let slowed = clusters.b.slow_down(Kind::Osd, 0.05);
    here.mirror_snapshot();
    let is_half_way = || there.snapshots().pop().and_then(|newest| Some(!newest.mirror()?.is_complete)) == Some(true);
    process::until("a mirror snapshot that is not complete", HALF_WAY, || is_half_way().then_some(()));
    clusters.b.stop_processes(&[Kind::RbdMirror]);
    drop(slowed);
    clock.say("half way");
    thread::sleep(HANG);
    assert!(is_half_way() && !here.is_synced(&there), "rbd-mirror goes on while it is stopped");
    clusters.b.cont(&[Kind::RbdMirror]);
    here.wait_synced(&there);
    clock.say("at full speed again and synced");
    assert!(!first.differences(&there.content()).is_empty(), "the copy did not move");
    here.content().assert_is(&there.content(), "after it was slow");
}

#[test]
fn the_judge_of_images_sees_a_planted_byte() {
    let Some(clock) = Clock::start("the_judge_of_images_sees_a_planted_byte", Release::Pacific) else { return };
    let clusters = clock.clusters(Release::Pacific);
    let content = clock.random(3 * MIB);
    let (here, there) = image(&clusters, &content);
    there.create(64 * MIB);
    there.write(&[(0, &content), (40 * MIB + 4096, &content)]);
    here.content().assert_is(&there.content(), "two images that were written the same");
    there.write(&[(40 * MIB + 4096 + 77, &[!content[77]])]);
    let differences = here.content().differences(&there.content());
    assert_eq!(differences, [format!("65536 bytes at {} differ", 40 * MIB)], "one byte");
    there.write(&[(40 * MIB + 4096 + 77, &content[77..78])]);
    here.content().assert_is(&there.content(), "the byte is as it was");
    clusters.b.rbd(&["resize", "--no-progress", "--size", "65M", there.spec()]);
    let differences = here.content().differences(&there.content());
    assert_eq!(differences, [format!("{} bytes, and {} bytes", 64 * MIB, 65 * MIB)], "one is longer");
    assert!(!here.is_synced(&there), "images that are not mirrored are called synced");
    clock.say("judged");
}

/// What an agent does every day, with the tools; in this order.
const DAILY: &[&str] = &[
    "ceph status",
    "ceph health",
    "ceph df",
    "ceph versions",
    "ceph service dump",
    "ceph config-key get rbd/mirror/site_name",
    "ceph osd blocklist add 127.0.0.1:0/1234",
    "ceph osd blocklist ls",
    "ceph osd blocklist rm 127.0.0.1:0/1234",
    "rbd create --size 8M rbd/i",
    "rbd mirror image enable rbd/i snapshot",
    "rbd snap create rbd/i@s",
    "rbd mirror image snapshot rbd/i",
    "rbd mirror image status rbd/i",
    "rbd mirror pool status rbd --verbose",
    "rbd mirror pool info rbd",
    "rbd mirror image demote rbd/i",
    "rbd mirror image promote rbd/i",
    "rbd mirror snapshot schedule add --pool rbd --image i 1h",
    "rbd mirror snapshot schedule ls --pool rbd --recursive",
    "rbd mirror snapshot schedule status",
    "rbd mirror snapshot schedule rm --pool rbd --image i",
    "rbd status rbd/i",
    "rbd image-meta set rbd/i epoch 1",
    "rbd create --size 8M rbd/locked",
    "rbd lock add rbd/locked operator",
    "rbd lock ls rbd/locked",
    "rbd clone --rbd-default-clone-format 2 rbd/i@s rbd/c",
    "rbd flatten --no-progress rbd/c",
    "rbd rename rbd/c rbd/d",
    "rbd trash mv rbd/d",
    "rbd trash ls rbd",
    "rbd trash purge rbd --no-progress",
    "rbd group create rbd/g",
    "rbd group image add rbd/g rbd/i",
    "rbd group snap create rbd/g@s",
    "rbd group snap rm rbd/g@s",
    "rbd group rm rbd/g",
    "rbd mirror image disable rbd/i",
    "rados --pool rbd setomapval drover epoch 1",
    "rados --pool rbd listomapvals drover",
    "rados --pool rbd lock get drover leader --lock-cookie c",
    "rados --pool rbd lock info drover leader",
    "rados --pool rbd listwatchers rbd_mirroring",
    "rados --pool rbd rm drover",
];
/// Of the set-up alone.
const SET_UP: &[&str] = &[
    "rbd mirror pool enable rbd image --site-name other",
    "rbd mirror pool peer bootstrap create rbd",
    "rbd mirror pool peer remove rbd PEER",
];
const NEVER: &[&str] = &["ceph auth ls", "ceph config-key dump", "ceph osd blocklist clear", "rbd ls other"];

/// Words without quotes: a program of the cluster's release and its arguments.
fn call_as(cluster: &Cluster, recipe: Recipe, call: &str) -> Done {
    let mut words = call.split(' ');
    let mut command = cluster.tool(words.next().expect("a program"));
    command.args(["--id", &recipe.user()]).args(words);
    process::run(command, Duration::from_secs(60))
}

#[test]
fn the_documented_capabilities_are_enough_pacific() {
    capabilities_are_enough("the_documented_capabilities_are_enough_pacific", Release::Pacific);
}

#[test]
fn the_documented_capabilities_are_enough_reef() {
    capabilities_are_enough("the_documented_capabilities_are_enough_reef", Release::Reef);
}

fn capabilities_are_enough(test: &'static str, release: Release) {
    let Some(clock) = Clock::start(test, release) else { return };
    let clusters = clock.clusters(release);
    for cluster in clusters.both() {
        for recipe in [Recipe::SetUp, Recipe::Daily] {
            cluster.user(&recipe.user(), &recipe.caps(cluster.pool()));
        }
    }
    clusters.mirror_as(&Recipe::SetUp.user());
    clock.say("set up as the user for it");
    clusters.a.ceph(&["osd", "pool", "create", "other", "8"]);
    clusters.a.rbd(&["pool", "init", "other"]);
    let may = |recipe, call: &str| drop(call_as(&clusters.a, recipe, call).expect(&format!("{recipe:?}: {call}")));
    let may_not = |recipe, call: &str| {
        assert!(!call_as(&clusters.a, recipe, call).status.success(), "{recipe:?} may: {call}");
    };
    DAILY.iter().for_each(|call| may(Recipe::Daily, call));
    clock.say("daily work");
    let pool = clusters.a.rbd_json(&["mirror", "pool", "info", clusters.a.pool()]);
    let peer = pool["peers"][0]["uuid"].as_str().expect("a peer");
    for call in SET_UP.iter().map(|call| call.replace("PEER", peer)) {
        may_not(Recipe::Daily, &call);
        may(Recipe::SetUp, &call);
    }
    for recipe in [Recipe::SetUp, Recipe::Daily] {
        NEVER.iter().for_each(|call| may_not(recipe, call));
    }
    clock.say("what each may not");
}

#[test]
fn no_daemon_outlives_a_test_that_was_killed() {
    const NAME: &str = "no_daemon_outlives_a_test_that_was_killed";
    let Some(clock) = Clock::start(NAME, Release::Pacific) else { return };
    if env::var_os(VICTIM).is_some() {
        let clusters = clock.mirrored(Release::Pacific);
        clusters.a.stop_processes(&Kind::STORAGE);
        clock.say(READY);
        // Only its end is of interest: it hangs until this process is killed.
        let _ = clusters.a.try_rbd(&["ls", clusters.a.pool()], Duration::from_secs(600));
        return;
    }
    let scratch = Scratch::new("victim");
    let mut command = Command::new(env::current_exe().expect("the path of this program"));
    command.args(["--exact", &format!("ceph::{NAME}"), "--nocapture"]).env(VICTIM, "1");
    command.env("DROVER_SCRATCH", scratch.path()).stdout(Stdio::piped());
    let mut victim = command.spawn().expect("start this test again");
    let lines = BufReader::new(victim.stdout.take().expect("its output")).lines();
    let is_ready = lines.map_while(Result::ok).any(|line| line.contains(READY));
    let users = || users_of(scratch.path().to_str().expect("a path in UTF-8"));
    // Four daemons of each site, the victim and its call.
    let reached = (is_ready, process::until("a call hangs", HANG, || Some(users()).filter(|users| *users == 10)));
    victim.kill().expect("kill the test");
    victim.wait().expect("wait for the test");
    assert_eq!(reached, (true, 10), "ready, and processes before the kill");
    process::until("all daemons have ended", HANG, || (users() == 0).then_some(()));
    clock.say("killed");
}

/// Processes whose environment names the directory.
fn users_of(dir: &str) -> usize {
    let processes = fs::read_dir("/proc").expect("list the processes").filter_map(Result::ok);
    let environments = processes.filter_map(|entry| fs::read(entry.path().join("environ")).ok());
    environments.filter(|text| text.windows(dir.len()).any(|part| part == dir.as_bytes())).count()
}

/// Its unit tests compare declarations; here each call is made.
fn librbd_is_called_as_its_declarations_say(test: &'static str, release: Release) {
    const AT_LEAST: u64 = 30;
    let Some(clock) = Clock::start(test, release) else { return };
    let Some(tests) = env::var_os(LIBRBD_TESTS) else {
        return skip::skipped(test, &format!("{LIBRBD_TESTS} names no tests: tests/run does"));
    };
    let clusters = clock.clusters(release);
    let mut command = Command::new(tests);
    command.args(["--test-threads", "2"]);
    command.env("DROVER_TEST_CEPH_CONF", clusters.a.conf()).env("DROVER_TEST_CEPH_PEER_CONF", clusters.b.conf());
    let done = process::run(command, LIBRBD_DEADLINE);
    assert!(done.status.success(), "{}{}", done.stdout, done.stderr);
    assert!(!done.stdout.contains("SKIPPED"), "{}", done.stdout);
    let passed = done
        .stdout
        .lines()
        .find_map(|line| line.strip_prefix("test result: ok. ")?.split_once(" passed")?.0.parse::<u64>().ok());
    let passed = passed.expect("a result");
    figure::report("tests of librbd's wrapper on live clusters", passed, "tests", Goal::AtLeast(AT_LEAST));
    assert!(passed >= AT_LEAST, "{}", done.stdout);
}

#[test]
fn librbd_is_called_as_its_declarations_say_pacific() {
    librbd_is_called_as_its_declarations_say("librbd_is_called_as_its_declarations_say_pacific", Release::Pacific);
}
