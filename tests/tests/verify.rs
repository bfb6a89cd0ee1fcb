//! Silent rot is found by a deep verification, and named.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use drover_tests::{
    host::{Faults, Outcome, Pair, PairSetup, SYNC},
    mount::{FileSystem, Image},
    seed::Seeds,
    skip, tree,
    tree::Mtime,
};

fn verify(pair: &Pair, deep: bool) -> Outcome {
    let client = pair.a.controller();
    let job = client.verify(&pair.volume, deep).expect("start a verification");
    client.outcome(&job, SYNC).expect("watch").expect_done("verify")
}

#[track_caller]
fn assert_names(outcome: &Outcome, list: &str, path: &str) {
    let found = outcome.list(list);
    let names = |value: &serde_json::Value| value.as_str() == Some(path) || value["path"].as_str() == Some(path);
    assert!(found.iter().any(names), "{list} names {path}: {}", outcome.report);
}

/// Flips a byte and puts the modification time back.
fn flip_with_time_restored(path: &Path) {
    let meta = fs::metadata(path).expect("stat");
    let byte = fs::read(path).expect("read")[1000];
    tree::write_at(path, 1000, &[byte ^ 1]).expect("flip");
    tree::set_mtime(path, Mtime(meta.mtime(), meta.mtime_nsec() as u32)).expect("time");
}

#[test]
fn a_flipped_byte_with_its_times_restored_is_named() {
    const NAME: &str = "a_flipped_byte_with_its_times_restored_is_named";
    if !skip::needs_root(NAME) {
        return;
    }
    let pair = Pair::start();
    tree::create(&pair.source(), &mut Seeds::of(NAME).rng(0), 100);
    fs::create_dir(pair.source().join("deep down")).expect("directory");
    fs::write(pair.source().join("deep down/file"), vec![9; 50_000]).expect("write");
    pair.sync();
    for deep in [false, true] {
        let clean = verify(&pair, deep);
        assert_eq!(clean.report["replica_is_point"], true, "{}", clean.report);
        assert_eq!(clean.number("/replica_differs_total"), 0, "{}", clean.report);
        assert_eq!(clean.report["replica_root"], clean.report["source_root"], "{}", clean.report);
    }
    flip_with_time_restored(&pair.replica().join("deep down/file"));
    let found = verify(&pair, true);
    assert_eq!(found.report["replica_is_point"], false, "{}", found.report);
    assert_names(&found, "/replica_differs", "deep down/file");
    let troubles = pair.troubles();
    assert!(troubles.iter().any(|why| why.starts_with("the last verification found a discrepancy")), "{troubles:?}");
    // The next sync repairs it.
    pair.sync();
    assert_eq!(pair.troubles(), [""; 0]);
    pair.assert_same("after the repair");
    assert_eq!(verify(&pair, true).report["replica_is_point"], true);
}

/// Beneath the file system no time moves at all: only reading finds it.
#[test]
fn a_byte_flipped_on_the_raw_device_is_named() {
    const NAME: &str = "a_byte_flipped_on_the_raw_device_is_named";
    if !skip::needs_root(NAME) {
        return;
    }
    for file_system in [FileSystem::Ext4, FileSystem::Xfs] {
        if let Some(why) = file_system.missing() {
            skip::skipped(NAME, &why);
            continue;
        }
        rot(file_system);
    }
}

fn rot(file_system: FileSystem) {
    let image = Image::new(file_system, 64 << 20).expect("image");
    let at = drover_tests::scratch::Scratch::new("rot");
    let mounted = image.mount_at(at.path()).expect("mount");
    let mut pair = Pair::with(PairSetup { root_b: Some(at.join("root")), ..PairSetup::default() });
    let needle = b"a line that is nowhere else on this device, and nothing but a deep verification reads it again";
    fs::write(pair.source().join("rotten"), needle.repeat(100)).expect("write");
    fs::write(pair.source().join("sound"), "sound").expect("write");
    pair.sync();
    pair.b.stop();
    drop(mounted);
    image.rot(needle).expect("flip a bit");
    let mounted = image.mount_at(at.path()).expect("mount again");
    pair.b.start(&Faults::none());
    let quick = verify(&pair, false);
    println!("{file_system:?}: a quick verification says {}", quick.report["replica_is_point"]);
    let found = verify(&pair, true);
    assert_eq!(found.report["replica_is_point"], false, "{file_system:?}: {}", found.report);
    assert_names(&found, "/replica_differs", "rotten");
    assert_eq!(found.number("/replica_differs_total"), 1, "{}", found.report);
    drop(pair);
    drop(mounted);
}

/// Rot on the source: the content changed though its times did not.
#[test]
fn rot_on_the_source_is_named() {
    const NAME: &str = "rot_on_the_source_is_named";
    if !skip::needs_root(NAME) {
        return;
    }
    let image = Image::new(FileSystem::Ext4, 64 << 20).expect("image");
    let at = drover_tests::scratch::Scratch::new("rot");
    let mounted = image.mount_at(at.path()).expect("mount");
    let mut pair = Pair::with(PairSetup { root_a: Some(at.join("root")), ..PairSetup::default() });
    let needle = b"a line of the source that is nowhere else on this device and that nobody reads again by himself";
    fs::write(pair.source().join("rotten"), needle.repeat(100)).expect("write");
    pair.sync();
    // Entries that were written a moment ago are read again anyhow (R9).
    std::thread::sleep(std::time::Duration::from_secs(6));
    pair.sync();
    pair.a.stop();
    drop(mounted);
    image.rot(needle).expect("flip a bit");
    let mounted = image.mount_at(at.path()).expect("mount again");
    pair.a.start(&Faults::none());
    let found = verify(&pair, true);
    assert_names(&found, "/source_rotten", "rotten");
    drop(pair);
    drop(mounted);
}
