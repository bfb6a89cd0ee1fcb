//! Bare block devices as source and as target: loop devices without a file system.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use drover_proto::v1::{self, Direction, VolumeRole, volume_spec::Kind};
use drover_tests::{
    figure::{self, Goal},
    host::{Client, Faults, Outcome, Pair, PairSetup, SYNC, status_reason},
    judge,
    mount::{Device, FileSystem, Image},
    process,
    rounds::Rounds,
    scratch::Scratch,
    seed::{Rng, Seeds},
    skip,
    subject::Subject,
};

const DEVICE: Subject = Subject::Device;

fn pair(retain: u32) -> Pair {
    Pair::with(PairSetup { subject: DEVICE, retain: Some(retain), ..PairSetup::default() })
}

fn open(dir: &Path) -> File {
    File::options().read(true).write(true).open(DEVICE.image(dir)).expect("open the device")
}

fn rolled_back(pair: &Pair, id: &str) {
    let client = pair.b.controller();
    let job = client.rollback(&pair.volume, id).expect("start a rollback");
    client.outcome(&job, SYNC).expect("watch a rollback").expect_done(id);
}

#[test]
fn random_devices_between_agents() {
    const NAME: &str = "random_devices_between_agents";
    if !skip::needs_root(NAME) {
        return;
    }
    let (rounds, seeds) = (Rounds::chosen(), Seeds::of(NAME));
    rounds.announce(NAME, "rounds", |rounds| rounds.image_rounds);
    let (mut rng, mut pair) = (seeds.rng(0), pair(2));
    DEVICE.create(&pair.source(), &mut rng, &rounds);
    pair.sync();
    for round in 0..rounds.image_rounds {
        let why = format!("DROVER_SEED={}, round {round}", seeds.round(0));
        let edits = rng.usize(1..=rounds.edits);
        DEVICE.edit(&pair.source(), &mut rng, &rounds.with_edits(edits));
        match rng.u8(0..6) {
            0 => DEVICE.edit(&pair.replica(), &mut rng, &rounds.with_edits(2)),
            1 => pair.b.restart(&Faults::none()),
            2 => crate::block::interrupt(&mut pair, &mut rng),
            _ => {}
        }
        let direction = if rng.bool() { Direction::Pull } else { Direction::Unspecified };
        pair.try_sync_of(&pair.volume, direction).expect_done(&why);
        pair.assert_same(&why);
    }
    figure::report("random devices between two agents", rounds.image_rounds, "rounds", Goal::AtLeast(200));
}

#[test]
fn every_restore_point_of_a_device_is_its_saved_copy() {
    const NAME: &str = "every_restore_point_of_a_device_is_its_saved_copy";
    const POINTS: u32 = 8;
    if !skip::needs_root(NAME) {
        return;
    }
    let (rounds, seeds, scratch) = (Rounds::chosen(), Seeds::of(NAME), Scratch::new("out"));
    let (mut rng, pair) = (seeds.rng(0), pair(POINTS));
    let mut saved = Vec::new();
    for _ in 0..POINTS {
        DEVICE.edit(&pair.source(), &mut rng, &rounds);
        let outcome = pair.sync();
        saved.push((outcome.point_id(), DEVICE.portrait(&pair.replica())));
    }
    for (id, portrait) in &saved {
        let out = scratch.join(format!("export-{id}"));
        crate::points::export(&pair, id, &out);
        let found = drover_tests::judge::Portrait::try_of_content(&out).expect("look at an export");
        assert!(judge::compare(portrait, &found).is_empty(), "DROVER_SEED={}: export of {id}", seeds.round(0));
    }
    rng.shuffle(&mut saved);
    for (id, portrait) in &saved {
        rolled_back(&pair, id);
        let differences = judge::compare(portrait, &DEVICE.portrait(&pair.replica()));
        assert!(differences.is_empty(), "DROVER_SEED={}, point {id}: {differences:?}", seeds.round(0));
    }
    pair.b.controller().release(&pair.volume).expect("release");
    pair.sync();
    pair.assert_same("after all rollbacks");
}

/// Number of files that a scan read of a side.
fn read(outcome: &Outcome, side: &str) -> u64 {
    let counts = outcome.report.pointer(&format!("/found_by/{side}")).and_then(|counts| counts.as_object());
    counts.into_iter().flat_map(|counts| counts.values()).filter_map(serde_json::Value::as_u64).sum()
}

#[test]
fn a_device_that_nobody_wrote_to_is_not_read() {
    const NAME: &str = "a_device_that_nobody_wrote_to_is_not_read";
    if !skip::needs_root(NAME) {
        return;
    }
    let (rounds, seeds, pair) = (Rounds::chosen(), Seeds::of(NAME), pair(2));
    DEVICE.create(&pair.source(), &mut seeds.rng(0), &rounds);
    let first = pair.sync();
    let label = first.report.pointer("/point/label").and_then(|label| label.as_str());
    assert_eq!(label, Some("crash-consistent"), "its write counters stood still while it was read: {}", first.report);
    // What a sync wrote itself is read once.
    pair.sync();
    let second = pair.sync();
    assert_eq!((read(&second, "source"), read(&second, "replica")), (0, 0), "{}", second.report);
    // Put back as it was: only the counters tell.
    let device = open(&pair.replica());
    let mut block = [0; 4096];
    device.read_exact_at(&mut block, 0).expect("read");
    device.write_all_at(&block.map(|byte| !byte), 0).expect("write");
    let third = pair.sync();
    assert_eq!((read(&third, "source"), read(&third, "replica")), (0, 1), "{}", third.report);
    pair.assert_same("a write behind our back");
}

/// The kernel counts what a patch writes; whoever writes meanwhile, even as much as that and through the page cache, moves the
/// counters further.
#[test]
fn r9_a_patched_device_is_read_again_only_if_others_wrote_to_it() {
    const NAME: &str = "r9_a_patched_device_is_read_again_only_if_others_wrote_to_it";
    const PAGES: [u64; 5] = [3, 4, 300, 900, 1500];
    if !skip::needs_root(NAME) {
        return;
    }
    let (rounds, seeds, mut pair) = (Rounds::chosen(), Seeds::of(NAME), pair(2));
    let mut rng = seeds.rng(0);
    DEVICE.create(&pair.source(), &mut rng, &rounds);
    let mut change = |pair: &Pair| {
        for page in PAGES {
            let mut content = [0; 4096];
            rng.fill(&mut content);
            open(&pair.source()).write_all_at(&content, page << 12).expect("write a page");
        }
        let run = vec![0; 256 << 10];
        open(&pair.source()).write_all_at(&run, rng.u64(4..7) << 20).expect("write zeros");
    };
    pair.sync();
    pair.sync();
    for round in 0..3 {
        change(&pair);
        assert_eq!(read(&pair.sync(), "replica"), 0, "round {round}");
        pair.assert_same("patched alone");
    }

    for (place, foreign) in [("apply.patch-range#2", PAGES[1]), ("apply.patched", 700), ("retain.begin", PAGES[0])] {
        let flag = pair.scratch().join("paused");
        pair.b.restart(&Faults::pause(place, &flag));
        change(&pair);
        let writer = open(&pair.replica());
        let outcome = thread::scope(|scope| {
            let syncing = scope.spawn(|| pair.try_sync());
            process::until("the patch is paused", SYNC, || flag.exists().then_some(()));
            writer.write_all_at(&[b'f'; 4096], foreign << 12).expect("write to the replica");
            fs::remove_file(&flag).expect("go on");
            syncing.join().expect("sync")
        });
        // Where a page of the writer's met the patch on its way to the device the kernel says EIO (seed 313602101439), and the patch is undone.
        match outcome.is_done() {
            true => assert_eq!(read(&outcome, "replica"), 0, "{place}: before"),
            false => assert_eq!(outcome.reason(), "io-error", "{place}: {outcome}"),
        }
        drop(writer);
        assert_eq!(read(&pair.sync(), "replica"), 1, "{place}: somebody wrote to it");
        pair.assert_same(place);
    }
}

/// A mounted file system writes past the page cache of its device: what was read once must not be told again.
#[test]
fn what_a_mounted_file_system_writes_is_replicated() {
    const NAME: &str = "what_a_mounted_file_system_writes_is_replicated";
    const BYTES: usize = 2 << 20;
    if !skip::needs_root(NAME) {
        return;
    }
    let (pair, scratch) = (pair(2), Scratch::new("mounted"));
    let device = fs::read_link(DEVICE.image(&pair.source())).expect("the device");
    process::must("mkfs.ext4", &[&"-q", &"-b", &"4096", &device], SYNC);
    process::must("mount", &[&device, &scratch.path()], SYNC);
    for round in 0..4u8 {
        let file = File::options().create(true).write(true).truncate(false).open(scratch.join("file")).expect("open");
        file.write_all_at(&vec![b'A' + round; BYTES], 0).and_then(|()| file.sync_all()).expect("write");
        drop(file);
        let synced = process::must("sync", &[&"-f", &scratch.path()], SYNC);
        assert!(synced.is_empty());
        pair.sync();
        let replica = fs::read(pair.replica().join("backing")).expect("read");
        let found = replica.chunks(4096).filter(|page| page.iter().all(|byte| *byte == b'A' + round)).count();
        assert!(found >= BYTES / 4096, "round {round}: {found} pages of what the file holds are on the replica");
    }
    process::must("umount", &[&scratch.path()], SYNC);
    pair.sync();
    pair.assert_same("after the file system was unmounted");
    let job = pair.a.controller().verify(&pair.volume, true).expect("verify");
    pair.a.controller().outcome(&job, SYNC).expect("watch").expect_done("a deep verify");
}

/// Only what was blank when it was enabled, and has not been anybody's since, is written to without keeping it.
#[test]
fn r7_a_device_that_is_somebodys_is_kept_before_its_first_copy() {
    const NAME: &str = "r7_a_device_that_is_somebodys_is_kept_before_its_first_copy";
    if !skip::needs_root(NAME) {
        return;
    }
    let (rounds, seeds, mut pair) = (Rounds::chosen(), Seeds::of(NAME), pair(2));
    DEVICE.create(&pair.source(), &mut seeds.rng(0), &rounds);
    let volume = pair.volume.clone();
    // Written to between enable and the first copy.
    let device = open(&pair.replica());
    device.write_all_at(b"somebody's", 0).and_then(|()| device.sync_all()).expect("write");
    assert_eq!(pair.try_sync().reason(), "replica-not-empty");
    // Its own primary for a while.
    pair.fail_over(&volume);
    let b = pair.b.controller();
    DEVICE.edit(&pair.replica(), &mut seeds.rng(1), &rounds);
    let held = DEVICE.portrait(&pair.replica());
    b.demote(&pair.volume).expect("demote");
    b.resync(&pair.volume).expect("resync");
    pair.a.controller().demote(&pair.volume).expect("demote");
    pair.a.controller().promote(&pair.volume, true).expect("a line that is as young");
    let outcome = pair.sync();
    pair.assert_same("after the first copy");
    let kept = outcome.report.pointer("/kept_as").and_then(|id| id.as_str()).expect("a kept point").to_owned();
    rolled_back(&pair, &kept);
    assert!(judge::compare(&held, &DEVICE.portrait(&pair.replica())).is_empty(), "what somebody had is a point");
}

/// An image file here, a device there, and back: the roles swap, and both ends' changes move.
#[test]
fn r7_an_image_and_a_device_change_roles_and_catch_up_by_what_changed() {
    const NAME: &str = "r7_an_image_and_a_device_change_roles_and_catch_up_by_what_changed";
    const BYTES: u64 = 64 << 20;
    if !skip::needs_root(NAME) {
        return;
    }
    let (seeds, scratch) = (Seeds::of(NAME), Scratch::new("mixed"));
    let mut rng = seeds.rng(0);
    let more = |beside: &Path| {
        format!("[[root]]\nname = \"disks\"\npath = \"/dev\"\nkind = \"devices\"\nbeside = {beside:?}\n")
    };
    let beside = scratch.join("disks");
    // The replica's agent alone has a root for devices.
    let mut pair = Pair::with(PairSetup { more: more(&beside), ..PairSetup::default() });
    pair.a.kill();
    pair.a.setup.more = String::new();
    pair.a.start(&Faults::none());
    let device = Device::new(&scratch.join("backing"), BYTES).expect("a loop device");
    let image: PathBuf = pair.root_a().join("vm.img");
    let mut content = vec![0; BYTES as usize];
    rng.fill(&mut content[..BYTES as usize / 2]);
    fs::write(&image, &content).expect("write the image");
    let volume = uuid::Uuid::new_v4().to_string();
    let enable = |root: &str, path: &str, role: VolumeRole, peer: &str| v1::EnableRequest {
        volume_id: volume.clone(),
        spec: Some(v1::VolumeSpec {
            kind: Some(Kind::BlockFile(v1::BlockFile { root: root.into(), path: path.into() })),
        }),
        role: role.into(),
        peer: Some(peer.into()),
        retain: Some(4),
        ..v1::EnableRequest::default()
    };
    let (a, b) = (pair.a.controller(), pair.b.controller());
    a.enable(enable("nfs", "vm.img", VolumeRole::Primary, "site-b")).expect("enable the image");
    b.enable(enable("disks", device.name(), VolumeRole::Secondary, "site-a")).expect("enable the device");
    let same = |why: &str| {
        let (one, other) = (fs::read(&image).expect("read"), fs::read(device.path()).expect("read"));
        assert!(one == other, "{why}: image and device differ");
    };
    let write = |path: &Path, at: u64, rng: &mut Rng| {
        let mut block = [0; 4096];
        rng.fill(&mut block);
        File::options().write(true).open(path).and_then(|file| file.write_all_at(&block, at)).expect("write");
    };
    pair.try_sync_of(&volume, Direction::Unspecified).expect_done("first copy");
    same("first copy");
    for at in [4096, 10 << 20, 40 << 20] {
        write(&image, at, &mut rng);
    }
    pair.try_sync_of(&volume, Direction::Unspecified).expect_done("second sync");
    same("second sync");
    // Disaster: the device is promoted and written to, while the old primary is written to as well.
    pair.fail_over(&volume);
    write(device.path(), 20 << 20, &mut rng);
    write(&image, 30 << 20, &mut rng);
    let diverged = fs::read(&image).expect("read");
    let (a, client) = (pair.a.controller(), pair.b.controller());
    a.demote_as(&volume, true).expect("demote the old primary");
    a.resync(&volume).expect("give the old line up");
    let job = client.start(pair.request(&volume, Direction::Push)).expect("start the sync back");
    let back = client.outcome(&job, SYNC).expect("watch").expect_done("the sync back");
    same("the sync back");
    let moved = back.number("/wire_sent") + back.number("/wire_received");
    assert!(moved < 400_000, "{moved} bytes moved for two changed pages: {}", back.report);
    // R7: what only the old primary had is a restore point.
    let kept = back.report.pointer("/kept_as").and_then(|id| id.as_str()).expect("a kept point").to_owned();
    let job = a.rollback(&volume, &kept).expect("start a rollback");
    a.outcome(&job, SYNC).expect("watch").expect_done("rollback to what was kept");
    assert!(fs::read(&image).expect("read") == diverged, "the kept point is what the old primary held");
    a.release(&volume).expect("release");
    figure::report("wire of a catch-up after both sides changed a page", moved, "bytes", Goal::AtMost(400_000));
}

/// Rot beneath a device moves no counter: only reading finds it.
#[test]
fn a_scrub_tells_rot_by_its_offset_and_a_sync_repairs_it() {
    const NAME: &str = "a_scrub_tells_rot_by_its_offset_and_a_sync_repairs_it";
    const AT: u64 = 3 << 20;
    if !skip::needs_root(NAME) {
        return;
    }
    let (rounds, seeds) = (Rounds::chosen(), Seeds::of(NAME));
    let pair = Pair::with(PairSetup {
        subject: DEVICE,
        retain: Some(2),
        more: "[scrub]\nmib_per_second = 1000\ndays = 0\n".to_owned(),
        ..PairSetup::default()
    });
    DEVICE.create(&pair.source(), &mut seeds.rng(0), &rounds);
    pair.sync();
    let scrub = || pair.b.controller().info(&pair.volume).expect("info").scrub.expect("scrub");
    let wait =
        |why: &str, is_it: &dyn Fn(&v1::Scrub) -> bool| process::until(why, SYNC, || Some(scrub()).filter(is_it));
    wait("a clean pass", &|scrub| scrub.passed_at_unix_secs.is_some() && scrub.damaged.is_empty());
    let backing =
        File::options().read(true).write(true).open(pair.replica().join("backing")).expect("the file behind it");
    let mut byte = [0];
    backing.read_exact_at(&mut byte, AT).expect("read");
    backing.write_all_at(&[byte[0] ^ 1], AT).expect("rot");
    backing.sync_all().expect("sync");
    let found = wait("the rot", &|scrub| scrub.damaged_bytes > 0);
    assert_eq!(found.damaged, [v1::ByteRange { offset: AT, length: 64 << 10 }]);
    let info = pair.b.controller().info(&pair.volume).expect("info");
    assert!(info.health_because.iter().any(|why| why.contains("3145728+65536")), "{:?}", info.health_because);
    pair.b.assert_logged("scrub found rot");
    // Until an agent has looked again the ordinary sync trusts the counters: the scrub made it read.
    process::until("a repair", SYNC, || {
        pair.sync();
        judge::compare(&DEVICE.portrait(&pair.source()), &DEVICE.portrait(&pair.replica())).is_empty().then_some(())
    });
    wait("a clean pass after the repair", &|scrub| scrub.damaged.is_empty());
}

/// The snapshot command is a reflink of the file behind the device, which is one instant of what has reached that.
#[test]
fn a_device_that_is_written_all_the_time_is_one_instant_by_a_snapshot() {
    const NAME: &str = "a_device_that_is_written_all_the_time_is_one_instant_by_a_snapshot";
    const SECOND: u64 = 6 << 20;
    if !skip::needs_root(NAME) {
        return;
    }
    if let Some(why) = FileSystem::Xfs.missing() {
        return skip::skipped(NAME, &why);
    }
    let (rounds, seeds) = (Rounds::chosen(), Seeds::of(NAME));
    let image = Image::new(FileSystem::Xfs, 512 << 20).expect("image");
    let mounted = image.mount().expect("mount");
    let (root, scratch) = (mounted.join("root"), Scratch::new("replica"));
    let (backing, snapshot) = (root.join("v/backing"), root.join("snapshot-{id}"));
    let more = format!(
        "[root.snapshot]\ncreate = [\"/bin/cp\", \"--reflink=always\", {backing:?}, {snapshot:?}]\npath = {snapshot:?}\n\
         remove = [\"/bin/rm\", {snapshot:?}]\n"
    );
    let pair = Pair::with(PairSetup {
        subject: DEVICE,
        root_a: Some(root.clone()),
        root_b: Some(scratch.path().to_owned()),
        more,
        ..PairSetup::default()
    });
    DEVICE.create(&pair.source(), &mut seeds.rng(0), &rounds);
    let (device, stop) = (open(&pair.source()), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            for n in (1u64..).take_while(|_| !stop.load(Ordering::Relaxed)) {
                for at in [0, SECOND] {
                    device.write_all_at(&n.to_le_bytes(), at).and_then(|()| device.sync_all()).expect("write");
                }
            }
        });
        for sync in 0..3 {
            let outcome = pair.sync();
            let label = outcome.report.pointer("/point/label").and_then(|label| label.as_str());
            assert_eq!(label, Some("crash-consistent"), "{}", outcome.report);
            assert_eq!(outcome.number("/found_by/source/snapshot"), 1);
            let replica = open(&pair.replica());
            let [first, second] = [0, SECOND].map(|at| {
                let mut bytes = [0; 8];
                replica.read_exact_at(&mut bytes, at).expect("read");
                u64::from_le_bytes(bytes)
            });
            assert!(first - second <= 1, "sync {sync}: {first} and {second} are of two instants");
        }
        stop.store(true, Ordering::Relaxed);
    });
    let left: Vec<_> = fs::read_dir(&root).expect("list").flatten().map(|entry| entry.file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with("snapshot-")), "{left:?}");
    drop(pair);
}

/// What is there already, from a shipped disk say, is taken over by its digests.
#[test]
fn a_copy_that_is_there_is_adopted() {
    const NAME: &str = "a_copy_that_is_there_is_adopted";
    if !skip::needs_root(NAME) {
        return;
    }
    let (rounds, seeds) = (Rounds::chosen(), Seeds::of(NAME));
    let mut pair = pair(2);
    DEVICE.create(&pair.source(), &mut seeds.rng(0), &rounds);
    let content = fs::read(DEVICE.image(&pair.source())).expect("read");
    let disable = v1::DisableRequest { volume_id: pair.volume.clone(), ..v1::DisableRequest::default() };
    let client = pair.b.controller();
    client.call(client.replication().disable(disable)).expect("disable");
    let device = open(&pair.replica());
    device.write_all_at(&content, 0).expect("copy");
    device.write_all_at(&[0x5a; 4096], 2 << 20).expect("write");
    device.sync_all().expect("sync");
    let shipped = DEVICE.portrait(&pair.replica());
    let name = pair.devices[1].name().to_owned();
    let request = v1::EnableRequest {
        volume_id: pair.volume.clone(),
        spec: Some(v1::VolumeSpec { kind: Some(Kind::BlockFile(v1::BlockFile { root: "disks".into(), path: name })) }),
        role: VolumeRole::Secondary.into(),
        peer: Some("site-a".into()),
        retain: Some(2),
        adopt: true,
        ..v1::EnableRequest::default()
    };
    client.enable(request).expect("adopt");
    let outcome = pair.sync();
    pair.assert_same("after the adoption");
    let moved = outcome.number("/wire_sent") + outcome.number("/wire_received");
    assert!(moved < 100_000, "{moved} bytes moved for one page: {}", outcome.report);
    let kept = outcome.report.pointer("/kept_as").and_then(|id| id.as_str()).expect("a kept point").to_owned();
    rolled_back(&pair, &kept);
    assert!(judge::compare(&shipped, &DEVICE.portrait(&pair.replica())).is_empty(), "the shipped copy is a point");
    pair.devices.clear();
}

#[test]
fn a_device_is_recognised_and_never_taken_from_others() {
    const NAME: &str = "a_device_is_recognised_and_never_taken_from_others";
    if !skip::needs_root(NAME) {
        return;
    }
    let (rounds, seeds, scratch) = (Rounds::chosen(), Seeds::of(NAME), Scratch::new("others"));
    let mut pair = pair(2);
    DEVICE.create(&pair.source(), &mut seeds.rng(0), &rounds);
    pair.sync();
    let enable_as = |client: &Client, volume_id: &str, device: &Device, adopt: bool| {
        client.enable(v1::EnableRequest {
            volume_id: volume_id.to_owned(),
            spec: Some(v1::VolumeSpec {
                kind: Some(Kind::BlockFile(v1::BlockFile { root: "disks".into(), path: device.name().into() })),
            }),
            role: VolumeRole::Secondary.into(),
            peer: Some("site-a".into()),
            adopt,
            ..v1::EnableRequest::default()
        })
    };
    let client = pair.b.controller();
    let enable = |device: &Device, adopt: bool| enable_as(&client, &uuid::Uuid::new_v4().to_string(), device, adopt);
    let reason = |refused: Result<v1::VolumeInfo, tonic::Status>| status_reason(&refused.expect_err("refused"));
    // Not blank.
    let other = Device::new(&scratch.join("other"), 8 << 20).expect("a loop device");
    let file = File::options().write(true).open(other.path()).expect("open");
    file.write_all_at(b"precious", 100).expect("write");
    assert_eq!(reason(enable(&other, false)), "replica-not-empty");
    // One that is a volume already, under another name.
    let alias = PathBuf::from(format!("/dev/drover-alias-{}", std::process::id()));
    let device = fs::read_link(DEVICE.image(&pair.replica())).expect("the device");
    std::os::unix::fs::symlink(device.file_name().expect("a name"), &alias).expect("symlink");
    let refused = client.enable(v1::EnableRequest {
        volume_id: uuid::Uuid::new_v4().to_string(),
        spec: Some(v1::VolumeSpec {
            kind: Some(Kind::BlockFile(v1::BlockFile {
                root: "disks".into(),
                path: alias.file_name().expect("a name").to_string_lossy().into_owned(),
            })),
        }),
        role: VolumeRole::Secondary.into(),
        adopt: true,
        ..v1::EnableRequest::default()
    });
    fs::remove_file(&alias).expect("remove");
    assert_eq!(reason(refused), "path-taken");
    // In use by a file system.
    process::must("mkfs.ext4", &[&"-q", &other.path()], SYNC);
    let at = scratch.join("mnt");
    fs::create_dir(&at).expect("mount point");
    process::must("mount", &[&other.path(), &at], SYNC);
    let refused = enable(&other, true);
    process::must("umount", &[&at], SYNC);
    assert_eq!(reason(refused), "device-busy");
    // Another disk has the name.
    let link = DEVICE.image(&pair.replica());
    let path = fs::read_link(&link).expect("the device");
    pair.b.kill();
    drop(pair.devices.pop());
    let thief = Device::named(&path, &scratch.join("other"));
    let before = fs::read(&path).expect("read");
    pair.b.start(&Faults::none());
    DEVICE.edit(&pair.source(), &mut seeds.rng(1), &rounds);
    let failed = pair.try_sync();
    assert!(!failed.is_done(), "a sync to another device: {}", failed.report);
    let told = pair.b.log_text();
    assert!(told.contains("another device"), "{told}");
    assert!(fs::read(&path).expect("read") == before, "another device was written to");
    // Its own one is back.
    drop(thief);
    pair.devices.push(Device::named(&path, &pair.replica().join("backing")));
    pair.b.restart(&Faults::none());
    pair.sync();
    pair.assert_same("its own device is back");
    // A device of another size.
    let small = Device::new(&scratch.join("small"), 4 << 20).expect("a loop device");
    let client = pair.b.controller();
    let disable = v1::DisableRequest { volume_id: pair.volume.clone(), ..v1::DisableRequest::default() };
    client.call(client.replication().disable(disable)).expect("disable");
    enable_as(&client, &pair.volume, &small, false).expect("enable a blank device");
    assert_eq!(pair.try_sync().reason(), "device-size");
}
