//! Block files: one raw image as a volume of its own, on every file system that the tests can mount.

use std::fs;

use drover_proto::v1::Direction;
use drover_tests::{
    figure::{self, Goal},
    host::{Faults, Pair, PairSetup, SYNC},
    judge::{self, Portrait},
    mount::{FileSystem, Image, Mounted, Store},
    rounds::Rounds,
    seed::{Rng, Seeds},
    skip,
    subject::Subject,
};

/// Both sites on file systems of one kind.
struct Site {
    pair: Pair,
    _mounts: [Mounted; 2],
    _images: [Image; 2],
    _store: Store,
}

impl Site {
    fn new(file_system: FileSystem, retain: u32) -> Self {
        let store = Store::new(8 << 30).expect("a store for images");
        let images = [0, 1].map(|_| store.image(file_system, 1 << 30).expect("image"));
        let mounts = [0, 1].map(|side| images[side].mount().expect("mount"));
        let pair = Pair::with(PairSetup {
            root_a: Some(mounts[0].join("root")),
            root_b: Some(mounts[1].join("root")),
            subject: Subject::Image,
            retain: Some(retain),
            ..PairSetup::default()
        });
        Self { pair, _mounts: mounts, _images: images, _store: store }
    }
}

/// Edits and syncs; now and then the direction is pulled, an agent is killed on the way, or someone writes the replica.
fn chain(site: &mut Site, rng: &mut Rng, rounds: &Rounds, why: &str) {
    let subject = Subject::Image;
    subject.create(&site.pair.source(), rng, rounds);
    site.pair.sync();
    for round in 0..rounds.image_rounds {
        let why = format!("{why}, round {round}");
        let edits = rng.usize(1..=rounds.edits);
        subject.edit(&site.pair.source(), rng, &rounds.with_edits(edits));
        match rng.u8(0..8) {
            0 => subject.edit(&site.pair.replica(), rng, &rounds.with_edits(2)),
            1 => fs::remove_file(subject.image(&site.pair.replica())).expect("remove the replica's image"),
            2 => interrupt(site, rng),
            _ => {}
        }
        let direction = if rng.bool() { Direction::Pull } else { Direction::Unspecified };
        site.pair.try_sync_of(&site.pair.volume, direction).expect_done(&why);
        site.pair.assert_same(&why);
    }
}

/// A sync that a kill of the sink ends somewhere; the next one takes up what it staged.
fn interrupt(site: &mut Site, rng: &mut Rng) {
    let old = Subject::Image.portrait(&site.pair.replica());
    let new = Subject::Image.portrait(&site.pair.source());
    site.pair.b.restart(&Faults::kill("stage.*", rng.u64(1..=6)));
    let (client, job) = site.pair.start_sync();
    drover_tests::process::until("a kill or the sync's end", SYNC, || {
        (!site.pair.b.is_running() || client.watch(&job, SYNC, |_| true).is_ok_and(|it| it.is_done())).then_some(())
    });
    site.pair.b.kill();
    let now = Subject::Image.portrait(&site.pair.replica());
    let is = |point: &Portrait| judge::compare(point, &now).is_empty();
    assert!(is(&old) || is(&new), "the replica is neither point after a kill while it is staged");
    site.pair.b.start(&Faults::none());
    client.outcome(&job, SYNC).expect("watch").expect_done("the resumed job");
}

#[test]
fn random_images_between_agents() {
    const NAME: &str = "random_images_between_agents";
    if !skip::needs_root(NAME) {
        return;
    }
    let (rounds, seeds) = (Rounds::chosen(), Seeds::of(NAME));
    rounds.announce(NAME, "rounds on each file system", |rounds| rounds.image_rounds);
    let mut done = 0;
    for (number, file_system) in FileSystem::ALL.into_iter().enumerate() {
        if let Some(why) = file_system.missing() {
            skip::skipped(NAME, &why);
            continue;
        }
        let mut site = Site::new(file_system, 2);
        let why = format!("DROVER_SEED={}, {}", seeds.round(0), file_system.name());
        chain(&mut site, &mut seeds.rng(number as u64), &rounds, &why);
        done += rounds.image_rounds;
    }
    figure::report("random images between two agents", done, "rounds", Goal::AtLeast(500));
}

#[test]
fn every_restore_point_of_an_image_is_its_saved_copy() {
    const NAME: &str = "every_restore_point_of_an_image_is_its_saved_copy";
    const POINTS: u32 = 10;
    if !skip::needs_root(NAME) {
        return;
    }
    let (rounds, seeds) = (Rounds::chosen(), Seeds::of(NAME));
    for (number, file_system) in FileSystem::ALL.into_iter().enumerate() {
        if let Some(why) = file_system.missing() {
            skip::skipped(NAME, &why);
            continue;
        }
        let mut rng = seeds.rng(number as u64);
        let (site, subject) = (Site::new(file_system, POINTS), Subject::Image);
        let (pair, mut saved) = (&site.pair, Vec::new());
        subject.create(&pair.source(), &mut rng, &rounds);
        for _ in 0..POINTS {
            subject.edit(&pair.source(), &mut rng, &rounds);
            let outcome = pair.sync();
            let id = outcome.report.pointer("/point/id").and_then(|id| id.as_str()).expect("the point's id").to_owned();
            saved.push((id, subject.portrait(&pair.replica())));
        }
        rng.shuffle(&mut saved);
        for (id, portrait) in &saved {
            let client = pair.b.controller();
            let job = client.rollback(&pair.volume, id).expect("start a rollback");
            client.outcome(&job, SYNC).expect("watch a rollback").expect_done(id);
            let differences = judge::compare(portrait, &subject.portrait(&pair.replica()));
            assert!(differences.is_empty(), "DROVER_SEED={}, point {id}: {differences:?}", seeds.round(0));
        }
        pair.b.controller().release(&pair.volume).expect("release");
        pair.sync();
        pair.assert_same("after the rollbacks");
    }
}
