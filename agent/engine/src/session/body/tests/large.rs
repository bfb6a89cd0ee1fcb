use std::os::unix::fs::FileExt;

use super::*;
use crate::{
    content::LEAF_BYTES,
    patch::{Patch, REDO},
};

fn staged(rig: &mut Rig, name: &str) {
    let fetches = [rig.want(name)];
    assert_eq!(rig.run(&fetches).unwrap(), [Fetched::AsWanted]);
    rig.is_staged(name);
}

#[test]
fn changed_pages_move_alone() {
    let mut rig = Rig::new();
    let mut content = noise(32 * MIB + 777, 1);
    rig.write("live", "image", &content);
    for n in 0..40 {
        let at = (n * 7919 * 4096 + 5) % content.len();
        content[at] ^= 0xff;
    }
    rig.write("source", "image", &content);
    staged(&mut rig, "image");
    assert!(rig.moved < 400_000, "{}", rig.moved);
}

#[test]
fn inserted_bytes_do_not_move_the_rest() {
    let mut rig = Rig::new();
    let mut content = noise(64 * MIB, 2);
    rig.write("live", "log", &content);
    content.splice(5_000_000..5_000_000, noise(37, 3));
    rig.write("source", "log", &content);
    staged(&mut rig, "log");
    assert!(rig.moved < 2 * MIB as u64, "{}", rig.moved);
}

#[test]
fn several_shifts_are_followed() {
    let mut rig = Rig::new();
    let mut content = noise(40 * MIB, 2);
    rig.write("live", "log", &content);
    content.drain(30_000_000..30_100_000);
    content.splice(20_000_000..20_000_000, noise(1234, 3));
    content.drain(..300_001);
    content.extend(noise(500_000, 4));
    rig.write("source", "log", &content);
    staged(&mut rig, "log");
    assert!(rig.moved < 6 * MIB as u64, "{}", rig.moved);
}

/// The segments at the start can't follow a shift that leads before the base: they once asked for it again and again.
#[test]
fn a_shift_does_not_lead_before_the_start() {
    for seed in 0..20 {
        let mut rig = Rig::new();
        let content = noise(4 * MIB, seed);
        rig.write("live", "log", &content);
        let inserted = noise(900_000 + seed as usize * 40_000, seed + 100);
        rig.write("source", "log", &[inserted, content].concat());
        staged(&mut rig, "log");
        assert!(rig.moved < 4 * MIB as u64, "{}", rig.moved);
    }
}

#[test]
fn appended_and_truncated() {
    let mut rig = Rig::new();
    let content = noise(20 * MIB + 100, 5);
    for (name, base) in [("longer", 18 * MIB + 11), ("shorter", 20 * MIB + 100), ("short", 10)] {
        rig.write("live", name, &content[..base]);
    }
    rig.write("source", "longer", &content);
    rig.write("source", "shorter", &content[..9 * MIB + 1]);
    rig.write("source", "short", &content[..2 * MIB]);
    staged(&mut rig, "longer");
    assert!(rig.moved < 2 * MIB as u64 + 200_000, "{}", rig.moved);
    staged(&mut rig, "shorter");
    assert!(rig.moved < 200_000, "{}", rig.moved);
    staged(&mut rig, "short");
}

#[test]
fn rewritten_content_moves_once() {
    let mut rig = Rig::new();
    rig.write("live", "dump", &noise(16 * MIB, 6));
    rig.write("source", "dump", &noise(16 * MIB, 7));
    staged(&mut rig, "dump");
    assert!(rig.moved < 17 * MIB as u64, "{}", rig.moved);
}

#[test]
fn holes_and_zeros_move_as_such() {
    let mut rig = Rig::new();
    for (side, bytes) in [("live", &[1; 70_000]), ("source", &[2; 70_000])] {
        rig.write(side, "disk", b"");
        let file = File::options().write(true).open(rig.path(side, "disk")).unwrap();
        file.set_len(24 * MIB as u64 + 5).unwrap();
        file.write_all_at(bytes, 3 * MIB as u64).unwrap();
        if side == "source" {
            file.write_all_at(&vec![0; 2 * MIB], 10 * MIB as u64).unwrap();
        } else {
            file.write_all_at(&vec![9; 2 * MIB], 14 * MIB as u64).unwrap();
            file.write_all_at(&vec![0; 2 * MIB], 18 * MIB as u64).unwrap();
        }
    }
    staged(&mut rig, "disk");
    assert!(rig.moved < 100_000, "{}", rig.moved);
    fs::remove_file(rig.path("live", "disk")).unwrap();
    fs::remove_file(rig.path("staging", "disk")).unwrap();
    staged(&mut rig, "disk");
    assert!(rig.moved < 100_000, "{}", rig.moved);
}

#[test]
fn an_interrupted_transfer_goes_on() {
    let mut rig = Rig::new();
    let content = noise(40 * MIB, 8);
    rig.write("source", "disk", &content);
    rig.leftovers = Leftovers::Possible;
    let partial = File::create(rig.path("staging", "disk")).unwrap();
    partial.set_len(content.len() as u64).unwrap();
    partial.write_all_at(&content[..32 * MIB], 0).unwrap();
    staged(&mut rig, "disk");
    assert!(rig.moved < 9 * MIB as u64, "{}", rig.moved);
    staged(&mut rig, "disk");
    assert_eq!(rig.moved, 0);
}

#[test]
fn a_leftover_and_a_base_both_help() {
    let mut rig = Rig::new();
    let mut content = noise(24 * MIB, 9);
    rig.write("live", "disk", &content);
    content[..10 * MIB].copy_from_slice(&noise(10 * MIB, 10));
    rig.write("source", "disk", &content);
    rig.leftovers = Leftovers::Possible;
    let partial = File::create(rig.path("staging", "disk")).unwrap();
    partial.write_all_at(&content[..9 * MIB], 0).unwrap();
    staged(&mut rig, "disk");
    assert!(rig.moved < 2 * MIB as u64, "{}", rig.moved);
}

#[test]
fn a_leftover_with_another_name_is_not_written() {
    let mut rig = Rig::new();
    rig.write("source", "disk", &noise(2 * MIB, 11));
    rig.write("live", "history", &noise(2 * MIB, 12));
    fs::hard_link(rig.path("live", "history"), rig.path("staging", "disk")).unwrap();
    rig.leftovers = Leftovers::Possible;
    staged(&mut rig, "disk");
    assert!(fs::read(rig.path("live", "history")).unwrap() == noise(2 * MIB, 12));
}

/// Both sides know what the replica holds: it is named, not told.
#[test]
fn a_known_base_is_named() {
    for (seed, cut) in [(1, 0), (2, 3 * MIB + 500), (3, 70_000)] {
        let mut rig = Rig::new();
        let mut content = noise(24 * MIB + 777, seed);
        rig.write("live", "image", &content);
        for n in 0..40 {
            let at = (n * 7919 * 4096 + 5) % content.len();
            content[at] ^= 0xff;
        }
        content[9 * MIB..9 * MIB + 300_000].fill(0);
        content.truncate(content.len() - cut);
        rig.write("source", "image", &content);
        let fetch = rig.with_bases("image");
        let digest = fetch.body.digest;
        assert_eq!(rig.run(&[fetch]).unwrap(), [Fetched::AsWanted]);
        rig.is_staged("image");
        assert!(rig.moved < 250_000, "{}", rig.moved);
        let (_, replica) = rig.bases.as_ref().unwrap();
        assert!(replica.leaves_of(&digest, content.len() as u64).unwrap().is_some());
    }
}

/// The source knows the pages of what the replica holds: it says which have changed, and the sink need not read the others.
#[test]
fn known_pages_prove_the_leaves_of_a_patch() {
    let mut rig = Rig::new();
    rig.has_pages = true;
    let size = 24 * MIB + 777;
    let mut content = noise(size, 6);
    content[2 * MIB..3 * MIB].fill(0);
    rig.write("live", "image", &content);
    let old = content.clone();
    for n in 0..40 {
        content[(n * 7919 * 4096 + 5) % size] ^= 0xff;
    }
    content[2 * MIB + 100_000..2 * MIB + 100_010].fill(1);
    content[9 * MIB..9 * MIB + 300_000].fill(0);
    content[11 * MIB..12 * MIB].copy_from_slice(&noise(MIB, 7));
    content[size - 1] ^= 1;
    rig.write("source", "image", &content);
    let fetch = Fetch { way: Way::Patch, ..rig.with_bases("image") };
    let (from, to) = (fetch.base_body.unwrap(), fetch.body);
    assert_eq!(rig.run(&[fetch]).unwrap(), [Fetched::AsWanted]);
    assert!(rig.moved < 1_450_000, "{}", rig.moved);

    let patch = Patch::expect(&rig.staging, REDO).unwrap();
    assert_eq!((patch.from, patch.to), ((&from).into(), (&to).into()));
    let (copy, data) = (tempfile::tempfile().unwrap(), File::open(rig.path("staging", "image")).unwrap());
    copy.write_all_at(&old, 0).unwrap();
    patch.apply(&data, &copy, "test").unwrap();
    let mut patched = vec![0; size];
    copy.read_exact_at(&mut patched, 0).unwrap();
    assert!(patched == content, "the patch makes something else");

    let (source, _) = rig.bases.as_ref().unwrap();
    let (pages, leaves) = (source.pages().unwrap(), source.leaves_of(&to.digest, size as u64).unwrap().unwrap());
    let at = 11 * MIB as u64;
    let leaf = leaves.range(at, LEAF_BYTES).unwrap()[0];
    assert!(pages.of(at, &leaf).unwrap().is_some(), "what was sent is known");
}

/// What the replica holds was never at this source.
#[test]
fn an_unknown_base_is_told() {
    let mut rig = Rig::new();
    let mut content = noise(24 * MIB, 4);
    rig.write("live", "image", &content);
    content[MIB] ^= 1;
    rig.write("source", "image", &content);
    let fetch = rig.with_bases("image");
    let (source, _) = rig.bases.as_ref().unwrap();
    source.keep_only(&[fetch.body.digest].into()).unwrap();
    assert_eq!(rig.run(&[fetch]).unwrap(), [Fetched::AsWanted]);
    rig.is_staged("image");
    assert!(rig.moved < 60_000, "{}", rig.moved);
}

/// The replica's file was written to after it was scanned, by someone who kept its times.
#[test]
fn a_base_that_is_not_what_it_was_does_no_harm() {
    let mut rig = Rig::new();
    let mut content = noise(24 * MIB, 5);
    rig.write("live", "image", &content);
    content[MIB] ^= 1;
    rig.write("source", "image", &content);
    let fetch = rig.with_bases("image");
    let live = File::options().write(true).open(rig.path("live", "image")).unwrap();
    live.write_all_at(&[9; 10_000], 7 * MIB as u64).unwrap();
    assert_eq!(rig.run(&[fetch]).unwrap(), [Fetched::AsWanted]);
    rig.is_staged("image");
}
