//! Block files: one raw image as a volume of its own, on every file system that the tests can mount.

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, SystemTime},
};

use drover_proto::v1::{self, Direction};
use drover_tests::{
    figure::{self, Goal},
    host::{Faults, Outcome, Pair, PairSetup, SYNC, status_reason},
    judge::{self, Portrait},
    mount::{FileSystem, Image, Mounted, Store},
    process,
    rounds::Rounds,
    seed::{Rng, Seeds},
    skip,
    subject::{self, Subject},
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
        Self::with(file_system, PairSetup { retain: Some(retain), ..PairSetup::default() })
    }

    fn with(file_system: FileSystem, setup: PairSetup) -> Self {
        Self::sized(file_system, setup, 1 << 30)
    }

    /// Each side's file system has so many bytes.
    fn sized(file_system: FileSystem, setup: PairSetup, bytes: u64) -> Self {
        let store = Store::new(2 * bytes + (6 << 30)).expect("a store for images");
        let images = [0, 1].map(|_| store.image(file_system, bytes).expect("image"));
        let mounts = [0, 1].map(|side| images[side].mount().expect("mount"));
        let pair = Pair::with(PairSetup {
            root_a: Some(mounts[0].join("root")),
            root_b: Some(mounts[1].join("root")),
            subject: Subject::Image,
            ..setup
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
        if rng.u8(0..8) == 0 {
            // Small images are replaced as a whole, everywhere.
            let image =
                std::fs::File::options().write(true).open(subject.image(&site.pair.source())).expect("the image");
            image.set_len(rng.u64(0..6 << 20)).expect("another size");
        }
        subject.edit(&site.pair.source(), rng, &rounds.with_edits(edits));
        match rng.u8(0..8) {
            0 => subject.edit(&site.pair.replica(), rng, &rounds.with_edits(2)),
            1 => fs::remove_file(subject.image(&site.pair.replica())).expect("remove the replica's image"),
            2 => interrupt(&mut site.pair, rng),
            _ => {}
        }
        let direction = if rng.bool() { Direction::Pull } else { Direction::Unspecified };
        site.pair.try_sync_of(&site.pair.volume, direction).expect_done(&why);
        site.pair.assert_same(&why);
    }
}

/// A sync that a kill of the sink ends somewhere; the next one takes up what it staged.
pub(crate) fn interrupt(pair: &mut Pair, rng: &mut Rng) {
    let old = pair.subject.portrait(&pair.replica());
    let new = pair.subject.portrait(&pair.source());
    pair.b.restart(&Faults::kill("stage.*", rng.u64(1..=6)));
    let (client, job) = pair.start_sync();
    process::until("a kill or the sync's end", SYNC, || {
        (!pair.b.is_running() || client.watch(&job, SYNC, |_| true).is_ok_and(|it| it.is_done())).then_some(())
    });
    pair.b.kill();
    let now = pair.subject.portrait(&pair.replica());
    let is = |point: &Portrait| judge::compare(point, &now).is_empty();
    assert!(is(&old) || is(&new), "the replica is neither point after a kill while it is staged");
    pair.b.start(&Faults::none());
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
            let id = outcome.point_id();
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

/// Some file systems write the last block of a file that grows, others don't: the replica has the source's holes all the same, and
/// where it has not, the point that it is at can be rolled back to.
#[test]
fn an_image_that_ends_in_a_hole_grows() {
    const NAME: &str = "an_image_that_ends_in_a_hole_grows";
    if !skip::needs_root(NAME) {
        return;
    }
    let mut rng = Seeds::of(NAME).rng(0);
    for file_system in FileSystem::ALL {
        if let Some(why) = file_system.missing() {
            skip::skipped(NAME, &why);
            continue;
        }
        let site = Site::new(file_system, 3);
        let pair = &site.pair;
        let open = |at: PathBuf| File::options().write(true).open(Subject::Image.image(&at)).expect("open the image");
        let mut noise = vec![0; 3 << 20];
        rng.fill(&mut noise);
        open(pair.source()).write_all_at(&noise, 0).expect("write the image");
        let mut newest = None;
        for size in [8_069_812, 8_142_492, 8_142_500] {
            let image = open(pair.source());
            image.set_len(size).expect("another size");
            subject::punch(&image, 8_000_000, 1 << 20).expect("a hole at the end");
            newest = Some(pair.sync().point_id());
            pair.assert_same(file_system.name());
            let blocks = |at: PathBuf| Subject::Image.image(&at).metadata().expect("stat").blocks();
            let (source, replica) = (blocks(pair.source()), blocks(pair.replica()));
            assert!(replica <= source, "{}: {replica} blocks for {source}", file_system.name());
        }
        let client = pair.b.controller();
        let roll_back = |why: &str| {
            let id = newest.clone().expect("a point");
            let job = client.rollback(&pair.volume, &id).expect("start a rollback");
            client.outcome(&job, SYNC).expect("watch a rollback").expect_done(why);
        };
        roll_back(file_system.name());
        // Zeros in the hole: the same content.
        open(pair.replica()).write_all_at(&[0; 4096], 4 << 20).expect("write zeros");
        roll_back("zeros in a hole");
        pair.assert_same("after the rollbacks");
    }
}

#[test]
fn a_copy_whose_image_is_gone_is_not_promoted() {
    const NAME: &str = "a_copy_whose_image_is_gone_is_not_promoted";
    if !skip::needs_root(NAME) {
        return;
    }
    let site = Site::new(FileSystem::Ext4, 2);
    let pair = &site.pair;
    Subject::Image.create(&pair.source(), &mut Seeds::of(NAME).rng(0), &Rounds::chosen());
    pair.sync();
    pair.a.controller().demote(&pair.volume).expect("demote");
    let (image, aside) = (Subject::Image.image(&pair.replica()), pair.replica().join("aside"));
    fs::rename(&image, &aside).expect("move the image away");
    let client = pair.b.controller();
    let refused = client.promote(&pair.volume, false).expect_err("a guest would find nothing");
    assert_eq!(status_reason(&refused), "tree-unusable", "{refused}");
    fs::rename(&aside, &image).expect("put the image back");
    client.promote(&pair.volume, false).expect("promote");
}

/// File systems that share blocks and tell where they are.
const WITH_MAPS: [FileSystem; 2] = [FileSystem::Xfs, FileSystem::Btrfs];

/// 48 MiB of noise, so that reading it as a whole is told apart from reading what changed.
fn noise_image(pair: &Pair, rng: &mut Rng) -> File {
    let file =
        File::options().read(true).write(true).open(Subject::Image.image(&pair.source())).expect("open the image");
    let mut piece = vec![0; 1 << 20];
    for n in 0..48 {
        rng.fill(&mut piece);
        file.write_all_at(&piece, n << 20).expect("write the image");
    }
    file
}

fn found_by(outcome: &Outcome, side: &str) -> Vec<String> {
    let counts = outcome.report.pointer(&format!("/found_by/{side}")).and_then(|counts| counts.as_object());
    counts.map_or_else(Vec::new, |counts| counts.keys().cloned().collect())
}

#[test]
fn r10_two_frozen_clones_tell_what_changed() {
    const NAME: &str = "r10_two_frozen_clones_tell_what_changed";
    const PAGES: u64 = 60;
    if !skip::needs_root(NAME) {
        return;
    }
    let seeds = Seeds::of(NAME);
    for (number, file_system) in WITH_MAPS.into_iter().enumerate() {
        if let Some(why) = file_system.missing() {
            skip::skipped(NAME, &why);
            continue;
        }
        let mut rng = seeds.rng(number as u64);
        let why = format!("DROVER_SEED={}, {}", seeds.round(0), file_system.name());
        let site = Site::new(file_system, 2);
        let file = noise_image(&site.pair, &mut rng);
        let first = site.pair.sync();
        assert_eq!(found_by(&first, "source"), ["read-frozen"], "{why}");
        for round in 0..4 {
            for _ in 0..PAGES {
                let mut page = [0; 4096];
                rng.fill(&mut page);
                file.write_all_at(&page, rng.u64(0..48 << 8) << 12).expect("write a page");
            }
            let synced = site.pair.sync();
            assert_eq!(found_by(&synced, "source"), ["extent-map"], "{why}, round {round}");
            assert_eq!(found_by(&synced, "replica"), [""; 0], "nobody had it open: {why}, round {round}");
            assert_eq!(
                synced.report.pointer("/point/label").and_then(|it| it.as_str()),
                Some("crash-consistent"),
                "{why}"
            );
            let moved = synced.number("/wire_received") + synced.number("/wire_sent");
            assert!(moved < PAGES * 4096 * 11 / 10 + 40_000, "{why}, round {round}: {moved} bytes for {PAGES} pages");
            site.pair.assert_same(&why);
        }
    }
}

/// On ext4 a replica is patched. What a sync wrote is not read again by the next one, unless somebody else could have written
/// to it meanwhile.
#[test]
fn r9_a_patched_replica_is_read_again_only_if_others_had_it_open() {
    const NAME: &str = "r9_a_patched_replica_is_read_again_only_if_others_had_it_open";
    /// Longer than a change counts as racy.
    const SETTLING: Duration = Duration::from_secs(7);
    if !skip::needs_root(NAME) {
        return;
    }
    let mut rng = Seeds::of(NAME).rng(0);
    let site = Site::new(FileSystem::Ext4, 2);
    let file = noise_image(&site.pair, &mut rng);
    let mut change = |page: u64| {
        let mut content = [0; 4096];
        rng.fill(&mut content);
        file.write_all_at(&content, page << 12).expect("write a page");
    };
    site.pair.sync();
    for page in 7..11 {
        change(page);
        assert_eq!(found_by(&site.pair.sync(), "replica"), [""; 0], "page {page}");
        site.pair.assert_same("patched alone");
    }

    // Whoever has it open may write to it at any time, and leave the times of the patch.
    let replica = Subject::Image.image(&site.pair.replica());
    let other = File::open(&replica).expect("open the replica");
    change(11);
    assert_eq!(found_by(&site.pair.sync(), "replica"), [""; 0]);
    drop(other);
    change(12);
    assert_eq!(found_by(&site.pair.sync(), "replica"), ["read-live"], "somebody had it open");

    thread::sleep(SETTLING);
    assert_eq!(found_by(&site.pair.sync(), "replica"), ["read-live"], "it was read too soon after it was written");
    change(13);
    assert_eq!(found_by(&site.pair.sync(), "replica"), [""; 0]);
    let writer = File::options().write(true).open(&replica).expect("open the replica");
    writer.write_all_at(b"foreign", 20 << 20).expect("write the replica");
    drop(writer);
    change(14);
    assert_eq!(found_by(&site.pair.sync(), "replica"), ["read-live"], "a write moves the times");
    site.pair.assert_same("repaired");
}

/// A guest that still runs, or a loop device: what it writes would go into what is overwritten, or into history.
#[test]
fn an_image_that_is_open_for_writing_is_neither_demoted_nor_synced_to() {
    const NAME: &str = "an_image_that_is_open_for_writing_is_neither_demoted_nor_synced_to";
    if !skip::needs_root(NAME) {
        return;
    }
    let mut rng = Seeds::of(NAME).rng(0);
    for file_system in [FileSystem::Ext4, FileSystem::Xfs] {
        if let Some(why) = file_system.missing() {
            skip::skipped(NAME, &why);
            continue;
        }
        let site = Site::new(file_system, 2);
        let file = noise_image(&site.pair, &mut rng);
        site.pair.sync();
        let replica = Subject::Image.image(&site.pair.replica());
        let open = || File::options().write(true).open(&replica).expect("open the replica");
        file.write_all_at(b"changed", 5 << 20).expect("write the image");
        let writer = open();
        assert_eq!(site.pair.try_sync().expect_failed("a writer has the replica"), "image-busy");
        drop(writer);
        site.pair.sync();
        site.pair.assert_same("nobody has it open");

        let source = Subject::Image.image(&site.pair.source());
        let aside = source.with_extension("aside");
        fs::rename(&source, &aside).expect("take the image away");
        assert_eq!(site.pair.try_sync().expect_failed("there is no image"), "source-missing");
        fs::rename(&aside, &source).expect("put the image back");
        site.pair.sync();

        let demote = || site.pair.a.controller().demote(&site.pair.volume);
        let refused = demote().expect_err("it is open for writing");
        assert_eq!(status_reason(&refused), "image-busy", "{refused}");
        drop(file);
        demote().expect("nobody has it open");
    }
}

/// One byte, with the old times.
#[test]
fn a_scrub_tells_a_foreign_write_of_an_image_by_its_offset() {
    const NAME: &str = "a_scrub_tells_a_foreign_write_of_an_image_by_its_offset";
    const AT: u64 = 9 << 20;
    if !skip::needs_root(NAME) {
        return;
    }
    let mut rng = Seeds::of(NAME).rng(0);
    for file_system in [FileSystem::Ext4, FileSystem::Xfs] {
        if let Some(why) = file_system.missing() {
            skip::skipped(NAME, &why);
            continue;
        }
        let more = "[scrub]\nmib_per_second = 1000\ndays = 0\n".to_owned();
        let site = Site::with(file_system, PairSetup { retain: Some(2), more, ..PairSetup::default() });
        let file = noise_image(&site.pair, &mut rng);
        for changed in 0..2u64 {
            file.write_all_at(b"changed", changed << 20).expect("write the image");
            site.pair.sync();
            let scrub = || site.pair.b.controller().info(&site.pair.volume).expect("info").scrub.expect("scrub");
            let wait = |why: &str, is_it: &dyn Fn(&v1::Scrub) -> bool| {
                drover_tests::process::until(why, SYNC, || Some(scrub()).filter(is_it))
            };
            wait("a clean pass", &|scrub| scrub.passed_at_unix_secs.is_some() && scrub.damaged.is_empty());
            let path = Subject::Image.image(&site.pair.replica());
            let replica = File::options().read(true).write(true).open(&path).expect("the replica");
            let times = replica.metadata().and_then(|it| it.modified()).expect("its time");
            let mut byte = [0];
            replica.read_exact_at(&mut byte, AT).expect("read");
            replica.write_all_at(&[byte[0] ^ 1], AT).expect("write");
            replica.set_modified(times).expect("set its time");
            drop(replica);
            let found = wait("the foreign write", &|scrub| scrub.damaged_bytes > 0);
            assert_eq!(found.damaged, [v1::ByteRange { offset: AT, length: 64 << 10 }], "{file_system:?}");
            site.pair.sync();
            site.pair.assert_same("repaired");
        }
    }
}

/// Where the replica is a patched clone that is exchanged for the old one, and where only its times are set.
#[test]
fn r9_a_replica_that_came_whole_is_looked_at_again_only_if_others_had_it_open() {
    const NAME: &str = "r9_a_replica_that_came_whole_is_looked_at_again_only_if_others_had_it_open";
    if !skip::needs_root(NAME) {
        return;
    }
    for (number, file_system) in WITH_MAPS.into_iter().enumerate() {
        if let Some(why) = file_system.missing() {
            skip::skipped(NAME, &why);
            continue;
        }
        let mut rng = Seeds::of(NAME).rng(number as u64);
        let site = Site::new(file_system, 2);
        let file = noise_image(&site.pair, &mut rng);
        let mut change = |page: u64| {
            let mut content = [0; 4096];
            rng.fill(&mut content);
            file.write_all_at(&content, page << 12).expect("write a page");
        };
        site.pair.sync();
        for page in 7..10 {
            change(page);
            assert_eq!(found_by(&site.pair.sync(), "replica"), [""; 0], "page {page} on {file_system:?}");
            site.pair.assert_same("exchanged alone");
            file.set_modified(SystemTime::now()).expect("set the time");
            assert_eq!(found_by(&site.pair.sync(), "replica"), [""; 0], "times after page {page} on {file_system:?}");
            site.pair.assert_same("times set alone");
        }

        let replica = Subject::Image.image(&site.pair.replica());
        let other = File::open(&replica).expect("open the replica");
        file.set_modified(SystemTime::now()).expect("set the time");
        assert_eq!(found_by(&site.pair.sync(), "replica"), [""; 0]);
        drop(other);
        let other = File::options().write(true).open(&replica).expect("open the replica");
        other.write_all_at(b"foreign", 20 << 20).expect("write the replica");
        drop(other);
        change(11);
        assert_eq!(found_by(&site.pair.sync(), "replica"), ["extent-map"], "somebody had it open");
        site.pair.assert_same("repaired");
    }
}

/// A writer goes over some pages again and again, in order. At each instant the pages hold at most two numbers, the
/// higher one first; a copy that mixes instants holds others.
#[test]
fn r10_a_file_that_is_written_all_the_time_is_one_instant() {
    const NAME: &str = "r10_a_file_that_is_written_all_the_time_is_one_instant";
    const PAGES: u64 = 24;
    if !skip::needs_root(NAME) {
        return;
    }
    let (rounds, seeds) = (Rounds::chosen(), Seeds::of(NAME));
    for (number, file_system) in WITH_MAPS.into_iter().enumerate() {
        if let Some(why) = file_system.missing() {
            skip::skipped(NAME, &why);
            continue;
        }
        let site = Site::new(file_system, 2);
        let file = noise_image(&site.pair, &mut seeds.rng(number as u64));
        let place = |page: u64| page * ((48 << 20) / PAGES);
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                for turn in 1u64.. {
                    for page in 0..PAGES {
                        file.write_all_at(&turn.to_le_bytes().repeat(512), place(page)).expect("write");
                    }
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
            for round in 0..rounds.image_rounds.min(40) {
                let synced = site.pair.sync();
                let label = synced.report.pointer("/point/label").and_then(|it| it.as_str());
                assert_eq!(label, Some("crash-consistent"), "round {round}");
                assert!(synced.list("/fuzzy").is_empty(), "round {round}: {}", synced.report);
                let replica = File::open(Subject::Image.image(&site.pair.replica())).expect("open the replica");
                let turns = (0..PAGES).map(|page| {
                    let mut turn = [0; 8];
                    replica.read_exact_at(&mut turn, place(page)).expect("read the replica");
                    u64::from_le_bytes(turn)
                });
                let turns: Vec<u64> = turns.collect();
                let is_instant = turns.is_sorted_by(|a, b| a >= b) && turns[0] - turns[PAGES as usize - 1] <= 1;
                assert!(is_instant || round == 0, "{}, round {round}: {turns:?}", file_system.name());
            }
            is_over.store(true, Ordering::Relaxed);
        });
    }
}

/// Where clones cost too much there is none left, and the change is found all the same.
#[test]
fn r10_without_room_or_with_too_many_extents_there_is_no_clone() {
    const NAME: &str = "r10_without_room_or_with_too_many_extents_there_is_no_clone";
    if !skip::needs_root(NAME) {
        return;
    }
    let seeds = Seeds::of(NAME);
    for (number, file_system) in WITH_MAPS.into_iter().enumerate() {
        if let Some(why) = file_system.missing() {
            skip::skipped(NAME, &why);
            continue;
        }
        let mut rng = seeds.rng(number as u64);
        for (limit, pages) in [("base_extents = 200", 400), ("base_free_percent = 90", 5)] {
            let why = format!("{}, {limit}", file_system.name());
            let more = format!("[limits]\n{limit}\n");
            let site = Site::with(file_system, PairSetup { more, ..PairSetup::default() });
            let file = noise_image(&site.pair, &mut rng);
            site.pair.sync();
            let bases = site.pair.root_a().join(".drover/volumes").join(&site.pair.volume).join("bases");
            let clones = || {
                let names =
                    fs::read_dir(&bases).expect("list the bases").map(|entry| entry.expect("entry").file_name());
                names.filter(|name| name.to_string_lossy().ends_with(".clone")).count()
            };
            let is_short_of_room = limit.contains("free");
            assert_eq!(clones(), usize::from(!is_short_of_room), "{why}");
            for _ in 0..3 {
                for _ in 0..pages {
                    file.write_all_at(&[rng.u8(..); 4096], rng.u64(0..48 << 8) << 12).expect("write a page");
                }
                site.pair.sync();
                site.pair.assert_same(&why);
            }
            file.write_all_at(&[7; 4096], 0).expect("write a page");
            let last = site.pair.sync();
            assert_eq!(found_by(&last, "source"), ["read-live"], "{why}");
            assert_eq!(clones(), 0, "{why}: the base was dropped");
            site.pair.assert_same(&why);
        }
    }
}

/// Far larger than both file systems: only what it holds counts, for space, time and memory.
#[test]
fn a_sparse_image_of_a_tebibyte_is_replicated() {
    const NAME: &str = "a_sparse_image_of_a_tebibyte_is_replicated";
    const TEBIBYTE: u64 = 1 << 40;
    if !skip::needs_root(NAME) {
        return;
    }
    let seeds = Seeds::of(NAME);
    for file_system in FileSystem::ALL {
        if let Some(why) = file_system.missing() {
            skip::skipped(NAME, &why);
            continue;
        }
        let mut rng = seeds.rng(0);
        let site = Site::new(file_system, 2);
        let source = Subject::Image.image(&site.pair.source());
        let file = File::options().write(true).open(&source).expect("open the image");
        file.set_len(TEBIBYTE).expect("size");
        let mut written = Vec::new();
        // Each write has a part of the image for itself: none overwrites another.
        let part = TEBIBYTE / 60;
        for round in 0..2 {
            for n in 0..30 {
                let mut data = vec![0; 300_000];
                rng.fill(&mut data);
                let at = (2 * n + round) * part + rng.u64(0..part - 300_000);
                file.write_all_at(&data, at).expect("write");
                written.push((at, data));
            }
            let synced = site.pair.sync();
            let moved = synced.number("/wire_received") + synced.number("/wire_sent");
            assert!(moved < 30 * 300_000 * 2, "{}, round {round}: {moved} bytes moved", file_system.name());
            let replica = File::open(Subject::Image.image(&site.pair.replica())).expect("open the replica");
            let (here, there) = (file.metadata().expect("stat"), replica.metadata().expect("stat"));
            assert_eq!(here.len(), there.len());
            assert!(
                there.blocks() <= here.blocks() + here.blocks() / 4,
                "{} of {} blocks",
                there.blocks(),
                here.blocks()
            );
            for (at, data) in &written {
                let mut found = vec![0; data.len()];
                replica.read_exact_at(&mut found, *at).expect("read the replica");
                assert!(found == *data, "{}, round {round}: {at} differs", file_system.name());
            }
        }
        for agent in [&site.pair.a, &site.pair.b] {
            let what = format!("peak of an agent with a sparse image of 1 TiB on {}", file_system.name());
            figure::report(&what, agent.peak_bytes() >> 20, "MiB", Goal::AtMost(128));
        }
    }
}

/// As the one before, with 10 GiB in it, of which short runs have a 64th: memory follows neither the size nor what it holds.
#[test]
fn a_sparse_image_of_a_tebibyte_holds_much() {
    const NAME: &str = "a_sparse_image_of_a_tebibyte_holds_much";
    const TEBIBYTE: u64 = 1 << 40;
    const PIECES: u64 = 160;
    if !skip::needs_root(NAME) {
        return;
    }
    let bytes = if Rounds::chosen().is_full() { 64 << 20 } else { 1 << 20 };
    let seeds = Seeds::of(NAME);
    let mut piece = vec![0; bytes];
    for file_system in [FileSystem::Ext4, FileSystem::Xfs] {
        if let Some(why) = file_system.missing() {
            skip::skipped(NAME, &why);
            continue;
        }
        let site = Site::sized(file_system, PairSetup { retain: Some(1), ..PairSetup::default() }, 12 << 30);
        let source = Subject::Image.image(&site.pair.source());
        let file = File::options().write(true).open(&source).expect("open the image");
        file.set_len(TEBIBYTE).expect("size");
        // Each piece is made again from its number to be compared.
        let (part, mut places) = (TEBIBYTE / PIECES, seeds.rng(0));
        let places: Vec<u64> = (0..PIECES).map(|n| n * part + places.u64(0..part - bytes as u64)).collect();
        for (n, at) in places.iter().enumerate() {
            seeds.rng(1 + n as u64).fill(&mut piece);
            file.write_all_at(&piece, *at).expect("write");
        }
        site.pair.sync();
        for at in &places {
            file.write_all_at(&[7; 4096], at + 4096).expect("write a page");
        }
        site.pair.sync();
        let replica = File::open(Subject::Image.image(&site.pair.replica())).expect("open the replica");
        let mut found = vec![0; bytes];
        for (n, at) in places.iter().enumerate() {
            seeds.rng(1 + n as u64).fill(&mut piece);
            piece[4096..8192].fill(7);
            replica.read_exact_at(&mut found, *at).expect("read the replica");
            assert!(found == piece, "{}: piece {n} at {at} differs", file_system.name());
        }
        for agent in [&site.pair.a, &site.pair.b] {
            let held = (PIECES as usize * bytes) >> 20;
            let what = format!("peak of an agent with {held} MiB in an image of 1 TiB on {}", file_system.name());
            figure::report(&what, agent.peak_bytes() >> 20, "MiB", Goal::AtMost(128));
        }
    }
}

/// A guest's image, converted from qcow2 by a tool that no one here wrote, which also judges the replica.
#[test]
fn qemu_img_finds_the_replica_of_a_guests_image_equal() {
    const NAME: &str = "qemu_img_finds_the_replica_of_a_guests_image_equal";
    if !skip::needs_root(NAME) {
        return;
    }
    if !process::has("qemu-img") {
        return skip::skipped(NAME, "qemu-img is not installed (Debian package qemu-utils)");
    }
    let pair = Pair::with(PairSetup { subject: Subject::Image, ..PairSetup::default() });
    let (guest, raw) = (pair.scratch().join("guest"), pair.scratch().join("guest.raw"));
    let qcow = pair.scratch().join("guest.qcow2");
    fs::create_dir(&guest).expect("directory");
    for n in 0..200u32 {
        fs::write(guest.join(format!("file-{n}")), n.to_string().repeat(20_000)).expect("write");
    }
    File::create(&raw).and_then(|file| file.set_len(256 << 20)).expect("size");
    process::must("mkfs.ext4", &[&"-q", &"-F", &"-d", &guest, &raw], SYNC);
    process::must("qemu-img", &[&"convert", &"-f", &"raw", &"-O", &"qcow2", &"-c", &raw, &qcow], SYNC);
    let source = Subject::Image.image(&pair.source());
    process::must("qemu-img", &[&"convert", &"-f", &"qcow2", &"-O", &"raw", &qcow, &source], SYNC);
    let replica = Subject::Image.image(&pair.replica());
    for round in 0..3u8 {
        pair.sync();
        // Content by content, and the guest's own file system on it.
        process::must("qemu-img", &[&"compare", &"-f", &"raw", &"-F", &"raw", &source, &replica], SYNC);
        process::must("qemu-img", &[&"compare", &"-f", &"raw", &"-F", &"qcow2", &replica, &qcow], SYNC);
        process::must("e2fsck", &[&"-f", &"-n", &replica], SYNC);
        // What the guest writes next, in both formats.
        for (path, format) in [(&source, "raw"), (&qcow, "qcow2")] {
            let at = format!("write -P {} {} 64k", 0x40 + round, (100 << 20) + u64::from(round) * (1 << 20));
            process::must("qemu-io", &[&"-f", &format, &"-c", &at, path], SYNC);
        }
    }
}
