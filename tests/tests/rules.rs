//! Rules of the replica that have no campaign of their own.

use std::{fs, os::unix::fs::MetadataExt, thread, time::Duration};

use drover_tests::{
    host::{Faults, Pair, PairSetup, SYNC, recover},
    judge::{self, Portrait},
    rounds::Rounds,
    seed::Seeds,
    skip,
    subject::Subject,
    tree,
    tree::Mtime,
};

use crate::failpoints::{Victim, places};

/// R3: whatever fails in apply, the replica ends at the old point, with a reason, or at the new one.
#[test]
fn r3_undo_first_an_io_error_anywhere_in_apply() {
    const NAME: &str = "r3_undo_first_an_io_error_anywhere_in_apply";
    if !skip::needs_root(NAME) {
        return;
    }
    let (rounds, seeds) = (Rounds::chosen(), Seeds::of(NAME));
    let places = places(Subject::Tree, &rounds, seeds.round(0));
    let mut rng = seeds.rng(1);
    let mut pair = Pair::with(PairSetup { retain: Some(3), ..PairSetup::default() });
    tree::create(&pair.source(), &mut rng, rounds.entries);
    pair.sync();
    let (mut undone, mut finished) = (0, 0);
    for place in places.iter().filter(|place| place.victim == Victim::Sink && place.name.starts_with("apply.")) {
        tree::edit(&pair.source(), &mut rng, rounds.edits);
        let old = Portrait::of(&pair.replica());
        pair.b.restart(&Faults::error(&place.name, place.hits.div_ceil(2)));
        let outcome = pair.try_sync();
        let why = format!("seed {}, {} fails", seeds.round(0), place.name);
        if outcome.is_done() {
            pair.assert_same(&why);
            finished += 1;
        } else {
            let reason = outcome.expect_failed(&why);
            println!("{NAME}: {}: {reason}", place.name);
            // A failure so late that the point stands is as good, if the point is whole.
            pair.b.kill();
            recover(pair.root_b(), &Faults::none()).expect("recover");
            let now = Portrait::of(&pair.replica());
            let is_new = judge::compare(&Portrait::of(&pair.source()), &now).is_empty();
            if !is_new {
                judge::assert_is(&old, &pair.replica(), &format!("{why}: not the new point"));
            }
            undone += 1;
            pair.b.start(&Faults::none());
        }
        pair.try_sync().expect_done(&format!("the sync after {why}"));
        pair.assert_same(&why);
    }
    println!("{NAME}: {undone} undone, {finished} finished all the same");
    assert!(undone > 0);
}

/// R3: a failed fsync discards the staging; the replica is the old point, and the job says so.
#[test]
fn r3_an_error_while_staging_changes_nothing() {
    const NAME: &str = "r3_an_error_while_staging_changes_nothing";
    if !skip::needs_root(NAME) {
        return;
    }
    let mut rng = Seeds::of(NAME).rng(0);
    let mut pair = Pair::start();
    tree::create(&pair.source(), &mut rng, 100);
    pair.sync();
    for name in ["stage.sync", "stage.small", "commit.manifests", "commit.before-record"] {
        fs::write(pair.source().join("changed"), name).expect("write");
        let old = Portrait::of(&pair.replica());
        pair.b.restart(&Faults::error(name, 1));
        let outcome = pair.try_sync();
        outcome.expect_failed(name);
        judge::assert_is(&old, &pair.replica(), name);
        pair.b.restart(&Faults::none());
        pair.sync();
        pair.assert_same(name);
    }
}

/// R4: an inode that has a name outside the volume is never written in place, and the root keeps its inode.
#[test]
fn r4_names_outside_the_volume_keep_their_content() {
    const NAME: &str = "r4_names_outside_the_volume_keep_their_content";
    if !skip::needs_root(NAME) {
        return;
    }
    let pair = Pair::start();
    fs::write(pair.source().join("file"), vec![1; 300_000]).expect("write");
    pair.sync();
    let root = fs::metadata(pair.replica()).expect("stat").ino();
    let outside = pair.root_b().join("outside");
    fs::hard_link(pair.replica().join("file"), &outside).expect("link");
    let before = fs::metadata(&outside).expect("stat");
    tree::write_at(&pair.source().join("file"), 100_000, &[2; 100]).expect("write");
    tree::set_xattr(&pair.source().join("file"), "user.new", b"x").expect("xattr");
    pair.sync();
    pair.assert_same("after the change");
    assert_eq!(fs::read(&outside).expect("read"), vec![1; 300_000], "content of the name outside");
    assert_eq!(fs::metadata(&outside).expect("stat").mtime(), before.mtime());
    assert!(rustix::fs::lgetxattr(&outside, "user.new", &mut [0u8; 8]).is_err(), "xattr of the name outside");
    assert_eq!(fs::metadata(pair.replica()).expect("stat").ino(), root, "the root's inode");
}

/// R9: a change of content whose modification time is put back is found, at once and when all is settled.
#[test]
fn r9_a_change_with_its_time_put_back_is_found() {
    const NAME: &str = "r9_a_change_with_its_time_put_back_is_found";
    if !skip::needs_root(NAME) {
        return;
    }
    let pair = Pair::start();
    let path = pair.source().join("file");
    fs::write(&path, vec![1; 10_000]).expect("write");
    for (round, pause) in [0, 0, 6].into_iter().enumerate() {
        pair.sync();
        thread::sleep(Duration::from_secs(pause));
        let meta = fs::metadata(&path).expect("stat");
        tree::write_at(&path, 5000, &[round as u8 + 2]).expect("write");
        tree::set_mtime(&path, Mtime(meta.mtime(), meta.mtime_nsec() as u32)).expect("time");
        pair.sync();
        pair.assert_same(&format!("round {round}"));
    }
}

/// R9: a second store through a memory map to a page that is dirty already changes no time at all.
#[test]
fn r9_a_store_that_moves_no_time_is_found() {
    const NAME: &str = "r9_a_store_that_moves_no_time_is_found";
    if !skip::needs_root(NAME) {
        return;
    }
    let pair = Pair::start();
    let path = pair.source().join("mapped");
    fs::write(&path, vec![1; 4096]).expect("write");
    let script = "import mmap,sys\nf=open(sys.argv[1],'r+b')\nm=mmap.mmap(f.fileno(),4096)\nm[0]=2\n\
                  print('first',flush=True)\nsys.stdin.readline()\nm[1]=3\nprint('second',flush=True)\n\
                  sys.stdin.readline()\n";
    let mut child = std::process::Command::new("python3")
        .args(["-c", script])
        .arg(&path)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("python3");
    let (mut input, output) = (child.stdin.take().expect("pipe"), child.stdout.take().expect("pipe"));
    let mut said = std::io::BufRead::lines(std::io::BufReader::new(output));
    said.next().expect("first").expect("read");
    pair.sync();
    std::io::Write::write_all(&mut input, b"\n").expect("write");
    said.next().expect("second").expect("read");
    pair.sync();
    assert_eq!(fs::read(pair.replica().join("mapped")).expect("read")[..2], [2, 3]);
    drop(input);
    child.wait().expect("wait");
}

/// Step 4 of the design: guards refuse before anything is changed.
#[test]
fn guards_refuse_a_mass_delete_and_an_empty_source() {
    const NAME: &str = "guards_refuse_a_mass_delete_and_an_empty_source";
    if !skip::needs_root(NAME) {
        return;
    }
    let pair = Pair::start();
    for number in 0..100 {
        fs::write(pair.source().join(format!("f{number}")), "x").expect("write");
    }
    pair.sync();
    let old = Portrait::of(&pair.replica());
    let client = pair.a.controller();
    let refused = |why: &str| {
        let request =
            drover_proto::v1::StartRequest { options: None, ..pair.request(&pair.volume, Default::default()) };
        let job = client.start(request).expect("start");
        let outcome = client.outcome(&job, SYNC).expect("watch");
        let reason = outcome.expect_failed(why);
        judge::assert_is(&old, &pair.replica(), why);
        reason
    };
    for number in 0..60 {
        fs::remove_file(pair.source().join(format!("f{number}"))).expect("remove");
    }
    println!("{NAME}: {}", refused("60 % deleted"));
    for number in 60..100 {
        fs::remove_file(pair.source().join(format!("f{number}"))).expect("remove");
    }
    println!("{NAME}: {}", refused("an empty source"));
    pair.sync();
    pair.assert_same("when it is asked for");
}
