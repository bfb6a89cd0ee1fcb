//! A target that can't take more, a file that can't be changed, a source that can't be read: the job fails with a
//! reason, the replica is the old point, another volume goes on.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use drover_proto::v1::Direction;
use drover_tests::{
    eiofs::EioFs,
    host::{Faults, Outcome, Pair, PairSetup, SYNC},
    judge::{self, Portrait},
    mount::{FileSystem, Image, Mounted},
    process::{self, must},
    rounds::Rounds,
    scratch::Scratch,
    seed::Seeds,
    skip,
    subject::Subject,
    tree,
};
use rustix::fs::IFlags;

const MIB: u64 = 1 << 20;

fn fill(path: &Path, bytes: u64) {
    let mut random = vec![0; bytes as usize];
    Seeds::of("fill").rng(0).fill(&mut random);
    fs::write(path, random).expect("write");
}

/// The job failed with a reason, nothing of the replica changed, and the other volume can be synced.
fn assert_old_point_and_others_go_on(pair: &Pair, outcome: &Outcome, old: &Portrait, other: &str, why: &str) -> String {
    let reason = outcome.expect_failed(why);
    println!("{why}: {reason}: {}", outcome.message());
    judge::assert_is(old, &pair.replica(), why);
    fs::write(pair.root_a().join("other").join(&reason), "small").expect("write");
    pair.try_sync_of(other, Direction::Unspecified).expect_done("another volume");
    judge::assert_same(&pair.root_a().join("other"), &pair.root_b().join("other"), "another volume");
    reason
}

/// The replica's root on a small file system.
fn small_target(file_system: FileSystem, bytes: u64) -> (Image, Mounted) {
    let image = Image::new(file_system, bytes).expect("image");
    let mounted = image.mount().expect("mount");
    (image, mounted)
}

#[test]
fn a_full_target_leaves_the_old_point() {
    const NAME: &str = "a_full_target_leaves_the_old_point";
    if !skip::needs_root(NAME) {
        return;
    }
    let (_image, target) = small_target(FileSystem::Ext4, 64 * MIB);
    let mut pair = Pair::with(PairSetup { root_b: Some(target.join("root")), ..PairSetup::default() });
    tree::create(&pair.source(), &mut Seeds::of(NAME).rng(0), 100);
    let other = pair.protect("other");
    pair.sync();
    let old = Portrait::of(&pair.replica());
    fill(&pair.source().join("too big"), 80 * MIB);
    let outcome = pair.try_sync();
    assert_old_point_and_others_go_on(&pair, &outcome, &old, &other, "a file larger than the target");
    // Space that is gone only after the plan was made: the guard can't know.
    fs::remove_file(pair.source().join("too big")).expect("remove");
    fill(&pair.source().join("big"), 20 * MIB);
    let (outcome, eaten) = sync_while_space_vanishes(&mut pair, &target);
    outcome.expect_failed("space that vanishes during the transfer");
    judge::assert_is(&old, &pair.replica(), "space that vanishes during the transfer");
    fs::remove_file(eaten).expect("remove");
    pair.sync();
    pair.assert_same("when there is space again");
}

/// Room for the journal and for history is beside a device, and in an image's own file system.
fn full_beside(name: &str, subject: Subject) {
    if !skip::needs_root(name) {
        return;
    }
    let (rounds, mut rng) = (Rounds::chosen(), Seeds::of(name).rng(0));
    let (_image, target) = small_target(FileSystem::Ext4, 64 * MIB);
    let pair = Pair::with(PairSetup { root_b: Some(target.join("root")), subject, ..PairSetup::default() });
    subject.create(&pair.source(), &mut rng, &rounds);
    pair.sync();
    let old = subject.portrait(&pair.replica());
    subject.edit(&pair.source(), &mut rng, &rounds);
    let eaten = target.join("eaten");
    let mut file = fs::File::create(&eaten).expect("create");
    while std::io::Write::write(&mut file, &[7; 4096]).is_ok_and(|written| written > 0) {}
    drop(file);
    let reason = pair.try_sync().expect_failed("no room for the change");
    assert_eq!(reason, "no-space");
    let troubles = pair.troubles();
    assert!(troubles.iter().any(|why| why.starts_with("the last sync failed")), "{troubles:?}");
    let differences = judge::compare(&old, &subject.portrait(&pair.replica()));
    assert!(differences.is_empty(), "the replica changed: {differences:?}");
    fs::remove_file(&eaten).expect("remove");
    pair.sync();
    pair.assert_same("when there is space again");
}

#[test]
fn no_room_beside_an_image_leaves_the_old_point() {
    full_beside("no_room_beside_an_image_leaves_the_old_point", Subject::Image);
}

#[test]
fn no_room_beside_a_device_leaves_the_old_point() {
    full_beside("no_room_beside_a_device_leaves_the_old_point", Subject::Device);
}

/// Pauses the sink at its first staged range, and eats the space meanwhile.
fn sync_while_space_vanishes(pair: &mut Pair, target: &Mounted) -> (Outcome, PathBuf) {
    let (eaten, flag) = (target.join("eaten"), pair.scratch().join("paused"));
    pair.b.restart(&Faults::pause("stage.range", &flag));
    let (client, job) = pair.start_sync();
    process::until("staging is paused", Duration::from_secs(60), || flag.exists().then_some(()));
    let mut file = fs::File::create(&eaten).expect("create");
    while std::io::Write::write(&mut file, &[7; 4096]).is_ok_and(|written| written > 0) {}
    fs::remove_file(&flag).expect("go on");
    (client.outcome(&job, SYNC).expect("watch"), eaten)
}

/// Project and user quotas are not in every kernel; btrfs has its own in every one.
#[test]
fn a_quota_leaves_the_old_point() {
    const NAME: &str = "a_quota_leaves_the_old_point";
    if !skip::needs_root(NAME) {
        return;
    }
    if let Some(why) = FileSystem::Btrfs.missing() {
        return skip::skipped(NAME, &why);
    }
    let (_image, target) = small_target(FileSystem::Btrfs, 512 * MIB);
    let second = Duration::from_secs(60);
    must("btrfs", &[&"quota", &"enable", &target.path()], second);
    let root = target.join("root");
    must("btrfs", &[&"subvolume", &"create", &root], second);
    must("btrfs", &[&"qgroup", &"limit", &"32M", &root], second);
    let mut pair = Pair::with(PairSetup { root_b: Some(root), ..PairSetup::default() });
    tree::create(&pair.source(), &mut Seeds::of(NAME).rng(0), 50);
    let other = pair.protect("other");
    pair.sync();
    let old = Portrait::of(&pair.replica());
    fill(&pair.source().join("big"), 64 * MIB);
    let outcome = pair.try_sync();
    assert_old_point_and_others_go_on(&pair, &outcome, &old, &other, "a quota");
    fs::remove_file(pair.source().join("big")).expect("remove");
    pair.sync();
    pair.assert_same("within the quota again");
}

/// R3: an apply that can't finish is undone to the old point.
#[test]
fn r3_undo_first_an_immutable_file_in_the_middle_of_apply() {
    const NAME: &str = "r3_undo_first_an_immutable_file_in_the_middle_of_apply";
    if !skip::needs_root(NAME) {
        return;
    }
    let mut pair = Pair::start();
    for number in 0..40 {
        fs::write(pair.source().join(format!("file{number:02}")), format!("old {number}")).expect("write");
    }
    let other = pair.protect("other");
    pair.sync();
    let old = Portrait::of(&pair.replica());
    for number in 0..40 {
        let path = pair.source().join(format!("file{number:02}"));
        if number % 2 == 0 { fs::remove_file(path) } else { fs::write(path, format!("new {number}")) }.expect("change");
    }
    let flag = pair.scratch().join("paused");
    pair.b.restart(&Faults::none().and(format!("apply.*#20=pause:{}", flag.display())));
    let (client, job) = pair.start_sync();
    process::until("apply is paused", Duration::from_secs(60), || flag.exists().then_some(()));
    let locked = lock_all(&pair.replica());
    assert!(locked > 0, "something is left to be locked");
    fs::remove_file(&flag).expect("go on");
    let outcome = client.outcome(&job, SYNC).expect("watch");
    tree::unlock_tree(&pair.replica()).expect("unlock");
    if outcome.is_done() {
        // Unlocking what is in the way is as good.
        pair.assert_same("an agent that unlocks");
        return println!("{NAME}: the agent changed {locked} locked files");
    }
    assert_old_point_and_others_go_on(&pair, &outcome, &old, &other, "an immutable file in apply");
    pair.sync();
    pair.assert_same("after the undo");
}

fn lock_all(dir: &Path) -> usize {
    let files = tree::list(dir).into_iter().filter(|item| item.kind == tree::Kind::File);
    files.filter(|item| tree::set_flags(&item.path, IFlags::IMMUTABLE, IFlags::empty()).is_ok()).count()
}

/// R5: nothing is deleted when the source had I/O errors.
#[test]
fn r5_a_source_that_cannot_be_read_deletes_nothing() {
    const NAME: &str = "r5_a_source_that_cannot_be_read_deletes_nothing";
    if !skip::needs_root(NAME) {
        return;
    }
    let (real, at) = (Scratch::new("real"), Scratch::new("eio"));
    let fuse = match EioFs::mount(real.path(), at.path()) {
        Ok(fuse) => fuse,
        Err(error) => return skip::skipped(NAME, &format!("FUSE can't be mounted: {error}")),
    };
    let mut pair = Pair::with(PairSetup { root_a: Some(fuse.path().to_owned()), ..PairSetup::default() });
    for name in ["good", "bad", "gone"] {
        fs::write(pair.source().join(name), name.repeat(1000)).expect("write");
    }
    let other = pair.protect("other");
    pair.sync();
    let old = Portrait::of(&pair.replica());
    fs::remove_file(pair.source().join("gone")).expect("remove");
    fs::write(pair.source().join("bad"), "changed").expect("write");
    fuse.break_file("v/bad");
    let outcome = pair.try_sync();
    let reason = assert_old_point_and_others_go_on(&pair, &outcome, &old, &other, "EIO on the source");
    assert!(outcome.message().contains("bad"), "{reason}: the message names the file: {}", outcome.message());
    fuse.mend_all();
    pair.sync();
    assert!(!pair.replica().join("gone").exists(), "deleted when the source can be read");
    assert_eq!(fs::read(pair.replica().join("bad")).expect("read"), b"changed");
}
