//! SIGKILL of either agent, at every failpoint and at random moments: after recovery the replica is the old or the new
//! point exactly, and the next sync succeeds.

use std::{collections::BTreeMap, path::Path, thread, time::Duration};

use drover_proto::v1::JobState;
use drover_tests::{
    figure::{self, Goal},
    host::{Faults, Pair, PairSetup, SYNC, recover},
    judge::{Portrait, compare},
    process,
    rounds::Rounds,
    seed::{Rng, Seeds},
    skip,
    subject::Subject,
};

use crate::failpoints::{Place, Victim, Workload, count, places, unsettle};

/// How long a job may take to reach a failpoint.
const REACH: Duration = Duration::from_secs(120);
/// Edits are random: a failpoint that one workload does not pass is tried with others.
const TRIES: usize = 6;

/// Which point the replica was found at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Found {
    Old,
    New,
}

pub(crate) struct Site {
    pub(crate) pair: Pair,
    pub(crate) rng: Rng,
    rounds: Rounds,
    /// With which recovery is run: switched off, to show that the test notices.
    recovery: Faults,
}

/// Both portraits of a moment before the work, either of which is a whole point.
pub(crate) struct Expected {
    old: Portrait,
    new: Portrait,
}

impl Site {
    pub(crate) fn new(subject: Subject, rounds: Rounds, seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let pair = Pair::with(PairSetup { subject, retain: Some(4), ..PairSetup::default() });
        subject.create(&pair.source(), &mut rng, &rounds);
        pair.sync();
        Self { pair, rng, rounds, recovery: Faults::none() }
    }

    fn portrait(&self, dir: &Path) -> Portrait {
        self.pair.subject.portrait(dir)
    }

    pub(crate) fn prepare(&mut self, workload: Workload) -> Expected {
        workload.prepare(&self.pair, &self.rounds, &mut self.rng);
        if workload == Workload::Rollback {
            // Back to the point that the replica is at now.
            let old = self.portrait(&self.pair.replica());
            self.pair.sync();
            unsettle(&self.pair);
            return Expected { old: self.portrait(&self.pair.replica()), new: old };
        }
        Expected { old: self.portrait(&self.pair.replica()), new: self.portrait(&self.pair.source()) }
    }

    /// Runs the work with a kill at the given hit of a failpoint; false when it was not reached.
    fn kill_at(&mut self, place: &Place, hit: u64) -> Result<Option<Found>, String> {
        let expected = self.prepare(place.workload);
        let kill = Faults::kill(&place.name, hit);
        let none = Faults::none();
        let (a, b) = if place.victim == Victim::Source { (&kill, &none) } else { (&none, &kill) };
        self.pair.a.kill();
        self.pair.b.kill();
        // A failpoint may lie in an agent's start.
        self.pair.b.spawn(b);
        self.pair.a.spawn(a);
        let died = self.work(place);
        let found = self.recover_and_judge(&expected, &format!("{place:?} hit {hit}"))?;
        self.go_on(place.workload, &format!("{place:?} hit {hit}"));
        Ok(died.then_some(found))
    }

    /// Until the victim dies or the work is done.
    fn work(&mut self, place: &Place) -> bool {
        let victim_died = |pair: &mut Pair| match place.victim {
            Victim::Source => !pair.a.is_running(),
            Victim::Sink => !pair.b.is_running(),
        };
        let pair = &mut self.pair;
        let are_up = [&mut pair.b, &mut pair.a].map(|agent| agent.wait_ready_or_end());
        if are_up.contains(&false) {
            return victim_died(pair);
        }
        let Some(job) = place.workload.start(pair) else {
            return victim_died(pair);
        };
        let client = if place.workload == Workload::Rollback { &pair.b } else { &pair.a };
        let client = client.controller_if_up();
        process::until("a kill or the job's end", REACH, || {
            if victim_died(&mut self.pair) {
                return Some(true);
            }
            let ended = client.as_ref()?.jobs(&self.pair.volume).ok()?;
            let job = ended.iter().find(|status| status.job_id == job)?;
            // The failpoint may come right after the job's last word.
            let is_over = matches!(job.state(), JobState::Done | JobState::Failed | JobState::Cancelled);
            is_over.then(|| {
                thread::sleep(Duration::from_millis(200));
                victim_died(&mut self.pair)
            })
        })
    }

    /// With both agents down, so that nothing but recovery moves the replica.
    pub(crate) fn recover_and_judge(&mut self, expected: &Expected, why: &str) -> Result<Found, String> {
        self.pair.a.kill();
        self.pair.b.kill();
        let done = recover(self.pair.root_b(), &self.recovery).expect("drover-agent recover");
        let found = judge(expected, &self.portrait(&self.pair.replica()), why);
        found.map_err(|why| format!("{why}recover said:\n{}{}", done.stdout, done.stderr))
    }

    /// The next sync succeeds, and the replica is the source.
    pub(crate) fn go_on(&mut self, workload: Workload, why: &str) {
        recover(self.pair.root_b(), &Faults::none()).expect("drover-agent recover");
        self.pair.b.start(&Faults::none());
        self.pair.a.start(&Faults::none());
        self.settle();
        workload.finish(&self.pair);
        self.pair.try_sync().expect_done(&format!("the sync after {why}"));
        self.pair.assert_same(why);
    }

    /// Jobs that were interrupted go on by themselves; they end before the next is begun.
    fn settle(&self) {
        for agent in [&self.pair.a, &self.pair.b] {
            let client = agent.controller();
            for job in client.jobs(&self.pair.volume).expect("jobs") {
                client.outcome(&job.job_id, SYNC).expect("watch a resumed job");
            }
        }
    }
}

/// The replica is one of the two points, or something in between: then the first differences from each.
fn judge(expected: &Expected, found: &Portrait, why: &str) -> Result<Found, String> {
    let (from_old, from_new) = (compare(&expected.old, found), compare(&expected.new, found));
    if from_new.is_empty() {
        return Ok(Found::New);
    }
    if from_old.is_empty() {
        return Ok(Found::Old);
    }
    let first = |list: &[drover_tests::judge::Difference]| {
        list.iter().take(5).map(|difference| format!("  {difference}\n")).collect::<String>()
    };
    Err(format!(
        "{why}: the replica is neither point.\n{} differences from the old:\n{}{} from the new:\n{}",
        from_old.len(),
        first(&from_old),
        from_new.len(),
        first(&from_new)
    ))
}

/// First hit, and in a full run also the last and one between.
fn hits_to_try(place: &Place, kills: u64) -> Vec<u64> {
    let mut hits = vec![1, place.hits, place.hits.div_ceil(2)];
    hits.truncate(kills as usize);
    hits.dedup();
    hits
}

fn kill_at_every_failpoint(name: &str, subject: Subject) {
    if !skip::needs_root(name) {
        return;
    }
    let (rounds, seeds) = (Rounds::chosen(), Seeds::of(name));
    let places = places(subject, &rounds, seeds.round(0));
    // An image is one file: it is exchanged or patched, and that is all.
    let (names_min, applying_min, of) = match subject {
        Subject::Tree => (25, 10, subject.of()),
        Subject::Image | Subject::Device => (15, 3, subject.of()),
    };
    let (names, applying) = count(&places);
    println!("{name}: {names} failpoints, {applying} of them in apply, {} places on both agents", places.len());
    let mut site = Site::new(subject, rounds, seeds.round(1));
    let (mut kills, mut missed) = (BTreeMap::<(String, Victim, Workload), [u64; 2]>::new(), Vec::new());
    for place in &places {
        for hit in hits_to_try(place, rounds.kills_per_failpoint) {
            let found = (0..TRIES).find_map(|_| {
                site.kill_at(place, hit).unwrap_or_else(|why| panic!("DROVER_SEED={}: {why}", seeds.round(0)))
            });
            let at = kills.entry((place.name.clone(), place.victim, place.workload)).or_default();
            match found {
                Some(found) => at[found as usize] += 1,
                None if hit == 1 => missed.push(place.name.clone()),
                // A later hit depends on the edits.
                None => {}
            }
        }
    }
    for ((place, victim, workload), [old, new]) in &kills {
        println!("failpoint {place} {victim:?} {workload:?}: {} kills, {old} old, {new} new", old + new);
    }
    println!("{name}: {} kills", kills.values().flatten().sum::<u64>());
    figure::report(
        &format!("failpoints on the way of a sync or a rollback{of}"),
        names as u64,
        "names",
        Goal::AtLeast(names_min),
    );
    figure::report(
        &format!("places with a kill (failpoint, agent, sync or rollback){of}"),
        (kills.len() - missed.len()) as u64,
        "places",
        Goal::AtLeast(names_min),
    );
    figure::report(
        &format!("failpoints between the commit record and the end of apply{of}"),
        applying as u64,
        "names",
        Goal::AtLeast(applying_min),
    );
    figure::report(&format!("failpoints{of} that no kill came to"), missed.len() as u64, "names", Goal::AtMost(0));
    assert_eq!(missed, Vec::<String>::new(), "failpoints that no kill came to");
    assert!(names as u64 >= names_min, "{names} failpoints, of {names_min} that are asked for");
    assert!(applying as u64 >= applying_min, "{applying} failpoints in apply, of {applying_min} that are asked for");
}

fn kill_at_any_moment(name: &str, subject: Subject) {
    if !skip::needs_root(name) {
        return;
    }
    let (rounds, seeds) = (Rounds::chosen(), Seeds::of(name));
    rounds.announce(name, "kills", |rounds| rounds.random_kills);
    let of = subject.of();
    let mut site = Site::new(subject, rounds, seeds.round(0));
    let mut phases: BTreeMap<String, u64> = BTreeMap::new();
    let mut found = BTreeMap::<Found, u64>::new();
    let (mut longest, mut resumed) = (Duration::from_millis(300), 0);
    for round in 0..rounds.random_kills {
        let expected = site.prepare(Workload::Sync);
        let begun = std::time::Instant::now();
        let job = Workload::Sync.start(&site.pair).expect("start");
        let wait = longest.mul_f64(site.rng.f64());
        thread::sleep(wait);
        let status = site.pair.a.controller().jobs(&site.pair.volume).ok();
        let phase = status.and_then(|jobs| jobs.into_iter().find(|status| status.job_id == job));
        let phase = phase.map_or("unknown".to_owned(), |job| format!("{:?}", job.phase()));
        if phase == "Done" {
            // Too late to be of use: sooner next time.
            longest = begun.elapsed().mul_f64(0.9);
        }
        *phases.entry(phase.clone()).or_default() += 1;
        if site.rng.bool() {
            site.pair.a.kill();
        }
        if site.rng.bool() {
            // And once more while the job is resumed.
            site.pair.a.kill();
            site.pair.b.restart(&Faults::none());
            site.pair.a.start(&Faults::none());
            thread::sleep(longest.mul_f64(site.rng.f64()));
            resumed += 1;
        }
        let why = format!("DROVER_SEED={}: kill {round} after {wait:?} in {phase}", seeds.round(0));
        let at = site.recover_and_judge(&expected, &why).unwrap_or_else(|why| panic!("{why}"));
        *found.entry(at).or_default() += 1;
        site.go_on(Workload::Sync, &why);
    }
    println!("{name}: kills by phase {phases:?}, {resumed} killed again while resumed, found {found:?}");
    figure::report(
        &format!("kills at random moments{of}, each followed by a whole point"),
        rounds.random_kills,
        "kills",
        Goal::AtLeast(100),
    );
}

#[test]
fn r1_replica_is_a_whole_point_after_a_kill_at_every_failpoint() {
    let name = "r1_replica_is_a_whole_point_after_a_kill_at_every_failpoint";
    kill_at_every_failpoint(name, Subject::Tree);
}

#[test]
fn r1_image_is_a_whole_point_after_a_kill_at_every_failpoint() {
    kill_at_every_failpoint("r1_image_is_a_whole_point_after_a_kill_at_every_failpoint", Subject::Image);
}

#[test]
fn r1_replica_is_a_whole_point_after_a_kill_at_any_moment() {
    kill_at_any_moment("r1_replica_is_a_whole_point_after_a_kill_at_any_moment", Subject::Tree);
}

#[test]
fn r1_image_is_a_whole_point_after_a_kill_at_any_moment() {
    kill_at_any_moment("r1_image_is_a_whole_point_after_a_kill_at_any_moment", Subject::Image);
}

#[test]
fn r1_device_is_a_whole_point_after_a_kill_at_every_failpoint() {
    kill_at_every_failpoint("r1_device_is_a_whole_point_after_a_kill_at_every_failpoint", Subject::Device);
}

#[test]
fn r1_device_is_a_whole_point_after_a_kill_at_any_moment() {
    kill_at_any_moment("r1_device_is_a_whole_point_after_a_kill_at_any_moment", Subject::Device);
}

/// The same test without recovery must fail, or it would prove nothing.
#[test]
fn a_crash_without_recovery_is_noticed() {
    const NAME: &str = "a_crash_without_recovery_is_noticed";
    if !skip::needs_root(NAME) {
        return;
    }
    let (rounds, seeds) = (Rounds::chosen(), Seeds::of(NAME));
    let places = places(Subject::Tree, &rounds, seeds.round(0));
    let applying = |place: &&Place| place.name.starts_with("apply.") && place.victim == Victim::Sink;
    let mut site = Site::new(Subject::Tree, rounds, seeds.round(1));
    site.recovery = Faults::none().without("recovery");
    let noticed = places.iter().filter(applying).filter(|place| place.hits > 1).any(|place| {
        let hit = place.hits.div_ceil(2);
        match site.kill_at(place, hit) {
            Err(why) => {
                println!("noticed at {}: {why}", place.name);
                true
            }
            Ok(_) => false,
        }
    });
    figure::report("a crash without recovery is noticed", noticed.into(), "(1 = yes)", Goal::AtLeast(1));
    assert!(noticed, "no kill in apply was noticed without recovery");
}
