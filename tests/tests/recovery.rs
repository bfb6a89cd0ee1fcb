//! Recovery and undo are interrupted themselves: whatever is killed, the next recovery ends at a whole point.

use std::time::Duration;

use drover_tests::{
    figure::{self, Goal},
    host::{Faults, recover},
    process,
    rounds::Rounds,
    seed::Seeds,
    skip,
    subject::Subject,
};

use crate::{
    crash::{Found, Site},
    failpoints::Workload,
};

const REACH: Duration = Duration::from_secs(120);

/// Starts a sync whose sink suffers `faults`, and waits until that has killed it; false when it did not.
fn sink_dies(site: &mut Site, faults: &Faults) -> bool {
    site.pair.b.restart(faults);
    let Some(job) = Workload::Sync.start(&site.pair) else { return !site.pair.b.is_running() };
    let client = site.pair.a.controller();
    process::until("the sink's death or the job's end", REACH, || {
        if !site.pair.b.is_running() {
            return Some(true);
        }
        let over = client.watch(&job, Duration::from_secs(1), |_| true).is_ok_and(|outcome| outcome.has_ended());
        over.then_some(false)
    })
}

/// R1: killed in apply, then killed again at each step of the recovery, then recovered: the new point.
#[test]
fn r1_a_recovery_that_is_killed_is_done_again() {
    const NAME: &str = "r1_a_recovery_that_is_killed_is_done_again";
    if !skip::needs_root(NAME) {
        return;
    }
    let seeds = Seeds::of(NAME);
    let mut site = Site::new(Subject::Tree, Rounds::chosen(), seeds.round(0));
    let kills = ["recover.begin#1", "apply.*#5", "apply.*#12", "apply.sync#1", "apply.state#1", "apply.done#1"];
    let kills = kills.into_iter().chain(["retain.begin#1", "retain.moved#2", "retain.sync#1", "recover.applied#1"]);
    let mut killed = 0;
    for kill in kills {
        let expected = site.prepare(Workload::Sync);
        let why = format!("seed {}, recovery killed at {kill}", seeds.round(0));
        assert!(sink_dies(&mut site, &Faults::kill("apply.*", 4)), "{why}: apply was not reached");
        site.pair.a.kill();
        let died = !recover(site.pair.root_b(), &Faults::none().and(format!("{kill}=kill"))).status.success();
        killed += u64::from(died);
        println!("{NAME}: {kill}: {}", if died { "killed" } else { "not reached" });
        let found = site.recover_and_judge(&expected, &why).unwrap_or_else(|why| panic!("{why}"));
        assert_eq!(found, Found::New, "{why}: the record was durable");
        site.go_on(Workload::Sync, &why);
    }
    figure::report("kills in a recovery", killed, "kills", Goal::AtLeast(5));
}

/// R3: an apply fails, its undo is killed at each step, and recovery finishes the undo: the old point.
#[test]
fn r3_an_undo_that_is_killed_is_done_again() {
    const NAME: &str = "r3_an_undo_that_is_killed_is_done_again";
    if !skip::needs_root(NAME) {
        return;
    }
    let seeds = Seeds::of(NAME);
    let mut site = Site::new(Subject::Tree, Rounds::chosen(), seeds.round(0));
    for (number, kill) in
        ["undo.recorded#1", "undo.step#1", "undo.step#6", "undo.step#15", "undo.done#1"].iter().enumerate()
    {
        let expected = site.prepare(Workload::Sync);
        let why = format!("seed {}, undo killed at {kill}", seeds.round(0));
        let faults = Faults::error("apply.*", 20 + number as u64).and(format!("{kill}=kill"));
        assert!(sink_dies(&mut site, &faults), "{why}: not reached");
        let found = site.recover_and_judge(&expected, &why).unwrap_or_else(|why| panic!("{why}"));
        assert_eq!(found, Found::Old, "{why}: once it went backward it goes backward");
        site.go_on(Workload::Sync, &why);
    }
}
