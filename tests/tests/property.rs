//! Random trees and random edits: after every sync both judges must find the replica to be the source.

use std::{fs, path::Path};

use drover_tests::{
    figure::{self, Goal},
    host::{OneShot, Pair},
    judge::{self, Portrait},
    rounds::Rounds,
    seed::{Rng, Seeds},
    skip, tree,
};

/// One of three rounds changes the replica behind the agent's back as well.
const TAMPER_EVERY: u64 = 3;

/// Runs one chain: a new tree, then rounds of edits, each synced and judged. Returns the number of rounds.
fn chain(rounds: &Rounds, seed: u64, source: &Path, replica: &Path, mut sync: impl FnMut(&str)) -> u64 {
    let mut rng = Rng::with_seed(seed);
    tree::create(source, &mut rng, rounds.entries);
    if seed.is_multiple_of(4) {
        tree::create_deep(source, &mut rng);
    }
    let why = format!("seed {seed}, first sync");
    sync(&why);
    judge::assert_same(source, replica, &why);
    for round in 1..=rounds.chain_rounds {
        let mut edits = tree::edit(source, &mut rng, rounds.edits);
        top_up(source, &mut rng, rounds.entries);
        if round % TAMPER_EVERY == 0 {
            edits.extend(tree::edit(replica, &mut rng, 5));
        }
        let list: Vec<String> = edits.iter().map(ToString::to_string).collect();
        let why = format!("seed {seed}, round {round} after\n  {}\n", list.join("\n  "));
        sync(&why);
        judge::assert_same(source, replica, &why);
    }
    rounds.chain_rounds + 1
}

/// Edits may have deleted more than they made.
fn top_up(source: &Path, rng: &mut Rng, entries: usize) {
    let missing = entries.saturating_sub(tree::list(source).len());
    let more = source.join("more");
    // The name may be taken by what an earlier round made, or an edit turned into something else.
    if missing > 0 && fs::symlink_metadata(&more).is_err() {
        tree::unlock_tree(source).expect("unlock");
        tree::create(&more, rng, missing.max(20));
    }
}

#[test]
fn random_trees_through_copy() {
    const NAME: &str = "random_trees_through_copy";
    if !skip::needs_root(NAME) {
        return;
    }
    let (rounds, seeds) = (Rounds::chosen(), Seeds::of(NAME));
    rounds.announce(NAME, "chains", |rounds| rounds.chains);
    let mut done = 0;
    for number in 0..rounds.chains {
        let site = OneShot::new();
        let (source, replica) = (site.source(), site.replica());
        done += chain(&rounds, seeds.round(number), &source, &replica, |why| {
            let done = site.run(&Default::default(), &["--max-delete", "100%"]);
            assert!(done.status.success(), "{why}: {}\n{}{}", done.status, done.stdout, done.stderr);
        });
    }
    figure::report("random trees and edits through copy", done, "rounds", Goal::AtLeast(500));
}

#[test]
fn random_trees_between_agents() {
    const NAME: &str = "random_trees_between_agents";
    if !skip::needs_root(NAME) {
        return;
    }
    let (rounds, seeds) = (Rounds::chosen(), Seeds::of(NAME));
    rounds.announce(NAME, "rounds", |rounds| rounds.chains * (rounds.chain_rounds + 1));
    let mut done = 0;
    for number in 0..rounds.chains {
        let pair = Pair::start();
        done += chain(&rounds, seeds.round(number), &pair.source(), &pair.replica(), |why| {
            pair.try_sync().expect_done(why);
        });
        pair.assert_quiet(crate::LISTED);
    }
    figure::report("random trees and edits between two agents", done, "rounds", Goal::AtLeast(500));
}

/// What was changed on the replica behind the agent's back is found and repaired, though the source did not change.
#[test]
fn a_change_behind_our_back_is_repaired() {
    const NAME: &str = "a_change_behind_our_back_is_repaired";
    if !skip::needs_root(NAME) {
        return;
    }
    let seeds = Seeds::of(NAME);
    let pair = Pair::start();
    let mut rng = seeds.rng(0);
    tree::create(&pair.source(), &mut rng, 200);
    pair.sync();
    let point = Portrait::of(&pair.replica());
    for round in 0..3 {
        let edits = tree::edit(&pair.replica(), &mut rng, 10);
        assert_ne!(Portrait::of(&pair.replica()), point, "{edits:?}");
        let outcome = pair.sync();
        let why = format!("seed {}, round {round}: {edits:?}", seeds.round(0));
        pair.assert_same(&why);
        assert!(!outcome.list("/repaired").is_empty(), "the report names what was repaired: {}", outcome.report);
    }
}

/// An unchanged volume makes no new point and moves next to nothing.
#[test]
fn an_unchanged_volume_moves_nothing() {
    const NAME: &str = "an_unchanged_volume_moves_nothing";
    if !skip::needs_root(NAME) {
        return;
    }
    let pair = Pair::start();
    tree::create(&pair.source(), &mut Seeds::of(NAME).rng(0), 300);
    let first = pair.sync();
    let second = pair.sync();
    assert_eq!(second.report.pointer("/unchanged"), Some(&serde_json::Value::Bool(true)), "{}", second.report);
    assert_eq!(first.report.pointer("/point/id"), second.report.pointer("/point/id"));
    let moved = second.number("/wire_sent") + second.number("/wire_received");
    assert!(moved < 8192, "{moved} bytes for nothing");
}
