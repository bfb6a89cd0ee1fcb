//! Two primaries, and what becomes of their data (R6, R7).

use std::fs;

use drover_proto::v1::{Direction, Origin, VolumeRole};
use drover_tests::{
    host::{Pair, PairSetup, SYNC, status_reason},
    judge::{self, Portrait},
    seed::Seeds,
    skip, tree,
};

/// A pair in which both sides were promoted and written after their last common point.
fn torn(name: &str) -> Pair {
    let mut rng = Seeds::of(name).rng(0);
    let mut pair = Pair::with(PairSetup { retain: Some(4), ..PairSetup::default() });
    tree::create(&pair.source(), &mut rng, 100);
    pair.sync();
    let volume = pair.volume.clone();
    pair.fail_over(&volume);
    fs::write(pair.source().join("written at a"), "a").expect("write");
    fs::write(pair.replica().join("written at b"), "b").expect("write");
    pair
}

#[test]
fn r6_two_primaries_are_refused_and_the_loser_is_kept() {
    const NAME: &str = "r6_two_primaries_are_refused_and_the_loser_is_kept";
    if !skip::needs_root(NAME) {
        return;
    }
    let mut pair = torn(NAME);
    // Demoted and promoted again, beyond the epoch that it has seen, or to the same one where they never met.
    let volume = pair.volume.clone();
    pair.a.controller().demote_as(&volume, true).expect("demote");
    for force in [false, true] {
        let refused = pair.a.controller().promote(&volume, force).expect_err("the other one is primary and answers");
        assert_eq!(status_reason(&refused), "peer-is-primary", "{refused}");
    }
    pair.fail_back(&volume);
    let epochs = [&pair.a, &pair.b].map(|agent| agent.controller().info(&pair.volume).expect("info").epoch);
    assert!(epochs[0] >= epochs[1], "{epochs:?}");
    let (left, right) = (Portrait::of(&pair.source()), Portrait::of(&pair.replica()));
    let outcome = pair.try_sync();
    let reason = outcome.expect_failed("both are primary");
    println!("{NAME}: {reason}: {}", outcome.message());
    // Even when one side is told to be a secondary, its line is not an ancestor.
    let b = pair.b.controller();
    b.demote_as(&pair.volume, true).expect("demote the loser");
    let outcome = pair.try_sync();
    let reason = outcome.expect_failed("diverged lines");
    assert!(reason.contains("split") || reason.contains("diverged"), "{reason}");
    for history in [format!("source is in epoch {}, lineage", epochs[0]), "replica is in epoch 2, lineage".to_owned()] {
        assert!(outcome.message().contains(&history), "{history} is told: {}", outcome.message());
    }
    judge::assert_is(&left, &pair.source(), "nothing changed at a");
    judge::assert_is(&right, &pair.replica(), "nothing changed at b");
    // The explicit choice.
    b.resync(&pair.volume).expect("resync");
    let outcome = pair.sync();
    pair.assert_same("after the choice");
    let kept = outcome.report.pointer("/kept_as").and_then(|id| id.as_str()).expect("the loser's point").to_owned();
    let points = b.points(&pair.volume).expect("points");
    let point = points.iter().filter_map(|point| point.point.as_ref()).find(|point| point.id == kept);
    assert_eq!(point.expect("the loser is a restore point").origin(), Origin::Kept);
    let job = b.rollback(&pair.volume, &kept).expect("rollback");
    b.outcome(&job, SYNC).expect("watch").expect_done("rollback to the loser");
    judge::assert_is(&right, &pair.replica(), "the loser as it was");
}

/// The old primary catches up by delta, and what it had written is a restore point.
#[test]
fn r7_the_old_primary_catches_up_and_keeps_its_data() {
    const NAME: &str = "r7_the_old_primary_catches_up_and_keeps_its_data";
    if !skip::needs_root(NAME) {
        return;
    }
    let pair = torn(NAME);
    fs::write(pair.source().join("big at both"), vec![1; 4 << 20]).expect("write");
    let loser = Portrait::of(&pair.source());
    let (a, b) = (pair.a.controller(), pair.b.controller());
    let refused = a.demote(&pair.volume).expect_err("it was written to");
    assert_eq!(status_reason(&refused), "not-synced", "{refused}");
    a.demote_as(&pair.volume, true).expect("demote");
    let back = |why: &str| {
        let job = b.start(pair.request(&pair.volume, Direction::Unspecified)).expect(why);
        b.outcome(&job, SYNC).expect("watch")
    };
    let mut outcome = back("a sync back");
    if !outcome.is_done() {
        println!("{NAME}: asks for a choice: {outcome}");
        a.resync(&pair.volume).expect("resync");
        outcome = back("a sync back by choice");
    }
    let outcome = outcome.expect_done("sync back");
    judge::assert_same(&pair.replica(), &pair.source(), "after the sync back");
    let moved = outcome.number("/wire_sent") + outcome.number("/wire_received");
    let whole = tree::list(&pair.source()).iter().map(|item| item.size).sum::<u64>();
    println!("{NAME}: {moved} bytes moved, the volume has {whole}");
    assert!(moved < whole / 2 + 65536, "{moved} bytes moved of {whole}");
    let kept = outcome.report.pointer("/kept_as").and_then(|id| id.as_str()).expect("the loser's point").to_owned();
    let job = a.rollback(&pair.volume, &kept).expect("rollback");
    a.outcome(&job, SYNC).expect("watch").expect_done("rollback to the loser");
    judge::assert_is(&loser, &pair.source(), "the old primary as it was");
}

/// A planned swap loses nothing and keeps nothing aside.
#[test]
fn the_direction_swaps_after_a_planned_promotion() {
    const NAME: &str = "the_direction_swaps_after_a_planned_promotion";
    if !skip::needs_root(NAME) {
        return;
    }
    let mut rng = Seeds::of(NAME).rng(0);
    let pair = Pair::start();
    tree::create(&pair.source(), &mut rng, 100);
    pair.sync();
    let (a, b) = (pair.a.controller(), pair.b.controller());
    let refused = |refused: Result<(), tonic::Status>, reason: &str| {
        let refused = refused.expect_err(reason);
        assert_eq!(status_reason(&refused), reason, "{refused}");
    };
    refused(b.promote(&pair.volume, false), "peer-is-primary");
    fs::write(pair.source().join("late"), "after the last sync").expect("write");
    refused(a.demote(&pair.volume), "not-synced");
    pair.sync();
    a.demote(&pair.volume).expect("demote");
    b.promote(&pair.volume, false).expect("promote");
    refused(a.promote(&pair.volume, false), "peer-is-primary");
    assert_eq!(b.info(&pair.volume).expect("info").role(), VolumeRole::Primary);
    tree::edit(&pair.replica(), &mut rng, 20);
    let job = b.start(pair.request(&pair.volume, Direction::Push)).expect("start");
    b.outcome(&job, SYNC).expect("watch").expect_done("sync back");
    judge::assert_same(&pair.replica(), &pair.source(), "after the swap");
    // And by the old primary's own choice.
    tree::edit(&pair.replica(), &mut rng, 20);
    let job = a.start(pair.request(&pair.volume, Direction::Pull)).expect("start");
    a.outcome(&job, SYNC).expect("watch").expect_done("pull");
    judge::assert_same(&pair.replica(), &pair.source(), "after a pull");
}

/// What lies beside the volume is enough: a lost state directory loses no role, epoch, lineage or point.
#[test]
fn r6_a_lost_state_directory_loses_nothing() {
    const NAME: &str = "r6_a_lost_state_directory_loses_nothing";
    if !skip::needs_root(NAME) {
        return;
    }
    let mut rng = Seeds::of(NAME).rng(0);
    let mut pair = Pair::start();
    tree::create(&pair.source(), &mut rng, 50);
    pair.sync();
    tree::edit(&pair.source(), &mut rng, 10);
    pair.sync();
    let before = pair.b.controller().info(&pair.volume).expect("info");
    pair.b.kill();
    tree::remove_tree(&pair.b.state_dir()).expect("lose the state directory");
    pair.b.start(&Default::default());
    let after = pair.b.controller().info(&pair.volume).expect("info");
    assert_eq!((after.role, after.epoch, &after.lineage), (before.role, before.epoch, &before.lineage));
    assert_eq!(after.restore_points, before.restore_points);
    assert_eq!(after.newest, before.newest);
    pair.sync();
    pair.assert_same("after the loss");
}

/// Each site asks the other, which has not promoted yet.
#[test]
fn r6_of_two_sites_that_promote_at_once_one_does_at_most() {
    const NAME: &str = "r6_of_two_sites_that_promote_at_once_one_does_at_most";
    const ROUNDS: usize = 20;
    if !skip::needs_root(NAME) {
        return;
    }
    let pair = Pair::start();
    tree::create(&pair.source(), &mut Seeds::of(NAME).rng(0), 20);
    pair.sync();
    let mut counts = [0; 2];
    for _ in 0..ROUNDS {
        for agent in [&pair.a, &pair.b] {
            agent.controller().demote(&pair.volume).expect("demote");
        }
        let promoted = std::thread::scope(|scope| {
            let promotions =
                [&pair.a, &pair.b].map(|agent| scope.spawn(|| agent.controller().promote(&pair.volume, false)));
            promotions.map(|promotion| promotion.join().expect("it ends"))
        });
        let count = promoted.iter().filter(|promoted| promoted.is_ok()).count();
        assert!(count < 2, "both are primary");
        counts[count] += 1;
        for refused in promoted.into_iter().filter_map(Result::err) {
            let reason = status_reason(&refused);
            assert!(["peer-in-verb", "peer-is-primary"].contains(&reason.as_str()), "{reason}: {refused}");
        }
    }
    println!("{NAME}: neither was promoted in {} rounds, one in {}", counts[0], counts[1]);
    pair.b.controller().demote(&pair.volume).expect("demote");
    pair.a.controller().demote(&pair.volume).expect("demote");
    pair.a.controller().promote(&pair.volume, false).expect("promote one");
}
