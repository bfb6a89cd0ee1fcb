//! Restore points: each of a chain of ten is what the replica was at that point, also after a rollback was interrupted.

use std::{collections::BTreeMap, time::Duration};

use drover_tests::{
    figure::{self, Goal},
    host::{Faults, Pair, PairSetup, SYNC, recover},
    judge::{self, Portrait},
    process,
    rounds::Rounds,
    seed::{Rng, Seeds},
    skip,
    snapshot::Snapshot,
    tree,
};

const POINTS: u64 = 10;

/// Ten syncs with edits between them; saved copies by the points' ids.
fn chain(pair: &Pair, rng: &mut Rng, rounds: &Rounds) -> BTreeMap<String, Snapshot> {
    tree::create(&pair.source(), rng, rounds.entries);
    let mut saved = BTreeMap::new();
    for _ in 0..POINTS {
        tree::edit(&pair.source(), rng, rounds.edits);
        let outcome = pair.sync();
        let id = outcome.report.pointer("/point/id").and_then(|id| id.as_str()).expect("the point's id").to_owned();
        saved.insert(id, Snapshot::of(&pair.replica()));
    }
    assert_eq!(saved.len() as u64, POINTS, "each sync made a point");
    saved
}

fn roll_back(pair: &Pair, point: &str, why: &str) {
    let client = pair.b.controller();
    let job = client.rollback(&pair.volume, point).expect("start a rollback");
    client.outcome(&job, SYNC).expect("watch a rollback").expect_done(why);
}

#[test]
fn r2_every_restore_point_is_its_saved_copy() {
    const NAME: &str = "r2_every_restore_point_is_its_saved_copy";
    if !skip::needs_root(NAME) {
        return;
    }
    let (rounds, seeds) = (Rounds::chosen(), Seeds::of(NAME));
    rounds.announce(NAME, "chains of ten points", |rounds| rounds.rollback_chains);
    let mut compared = 0;
    for number in 0..rounds.rollback_chains {
        let mut rng = seeds.rng(number);
        let pair = Pair::with(PairSetup { retain: Some(POINTS as u32), ..PairSetup::default() });
        let saved = chain(&pair, &mut rng, &rounds);
        let listed = pair.b.controller().points(&pair.volume).expect("restore points");
        assert_eq!(listed.len(), saved.len(), "all points are kept");
        let mut order: Vec<&String> = saved.keys().collect();
        rng.shuffle(&mut order);
        for point in order {
            let why = format!("seed {}, rollback to {point}", seeds.round(number));
            roll_back(&pair, point, &why);
            saved[point].assert_is(&pair.replica(), &why);
            compared += 1;
        }
        pair.b.controller().release(&pair.volume).expect("release");
        pair.sync();
        pair.assert_same("after the rollbacks");
    }
    figure::report("restore points compared with saved copies", compared, "points", Goal::AtLeast(POINTS * 5));
}

#[test]
fn an_interrupted_rollback_leaves_whole_points() {
    const NAME: &str = "an_interrupted_rollback_leaves_whole_points";
    if !skip::needs_root(NAME) {
        return;
    }
    let (rounds, seeds) = (Rounds::chosen(), Seeds::of(NAME));
    let mut rng = seeds.rng(0);
    let mut pair = Pair::with(PairSetup { retain: Some(POINTS as u32), ..PairSetup::default() });
    let saved = chain(&pair, &mut rng, &rounds);
    let points: Vec<&String> = saved.keys().collect();
    for kill in 1..=5 {
        let point = points[rng.usize(0..points.len())];
        let before = Portrait::of(&pair.replica());
        pair.b.restart(&Faults::kill("apply.*", kill * 7));
        let client = pair.b.controller();
        let job = client.rollback(&pair.volume, point).expect("start a rollback");
        let ended = client.outcome(&job, SYNC);
        if ended.is_err() {
            process::until("the kill", Duration::from_secs(10), || pair.b.ended());
        }
        pair.b.kill();
        recover(pair.root_b(), &Faults::none()).expect("drover-agent recover");
        let after = Portrait::of(&pair.replica());
        let is_old = judge::compare(&before, &after).is_empty();
        let is_new = judge::compare(saved[point].portrait(), &after).is_empty();
        assert!(is_old || is_new, "seed {}, kill {kill}: neither point", seeds.round(0));
        pair.b.start(&Faults::none());
        settle(&pair);
        let why = format!("seed {}, after kill {kill}", seeds.round(0));
        for point in [points[rng.usize(0..points.len())], point] {
            roll_back(&pair, point, &why);
            saved[point].assert_is(&pair.replica(), &why);
        }
        println!("{NAME}: kill {kill}: {}", if is_new { "new" } else { "old" });
    }
}

fn settle(pair: &Pair) {
    let client = pair.b.controller();
    for job in client.jobs(&pair.volume).expect("jobs") {
        client.outcome(&job.job_id, SYNC).expect("watch a resumed job");
    }
}

/// A rollback pauses syncs until it is released.
#[test]
fn a_rolled_back_replica_is_not_synced() {
    const NAME: &str = "a_rolled_back_replica_is_not_synced";
    if !skip::needs_root(NAME) {
        return;
    }
    let (rounds, seeds) = (Rounds::chosen(), Seeds::of(NAME));
    let pair = Pair::with(PairSetup { retain: Some(POINTS as u32), ..PairSetup::default() });
    let saved = chain(&pair, &mut seeds.rng(0), &rounds);
    let (oldest, copy) = saved.iter().next().expect("ten points");
    roll_back(&pair, oldest, "rollback");
    pair.try_sync().expect_failed("a sync of a paused replica");
    copy.assert_is(&pair.replica(), "after the refused sync");
    pair.b.controller().release(&pair.volume).expect("release");
    pair.sync();
    pair.assert_same("after release");
}
