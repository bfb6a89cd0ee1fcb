//! The judges are judged first: each must see a planted difference of its kind.

use std::{fs, os::unix::fs::symlink, path::Path};

use drover_tests::{
    figure::{self, Goal},
    judge::{self, Portrait, compare},
    scratch::Scratch,
    seed::Seeds,
    skip,
    snapshot::Snapshot,
    tree::{self, Acl, Mtime},
};
use rustix::fs::{CWD, FileType, Gid, IFlags, Mode, Uid, makedev, mknodat};

/// Which judges see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Both,
    /// rsync does not look at it.
    OwnOnly,
}

type Plant = (&'static str, Seen, fn(&Path));

fn set(path: &Path, time: Mtime) {
    tree::set_mtime(path, time).unwrap();
}

const OLD: Mtime = Mtime(1_000_000_000, 5);

/// A tree with one entry for each plant, all times fixed.
fn lay_out(root: &Path) {
    fs::create_dir(root.join("d")).unwrap();
    for name in ["content", "mode", "owner", "xattr", "trusted", "cap", "acl", "flags", "gone", "linked", "ns"] {
        fs::write(root.join(name), [name; 400].concat()).unwrap();
    }
    fs::hard_link(root.join("linked"), root.join("d/linked")).unwrap();
    symlink("target", root.join("symlink")).unwrap();
    mknodat(CWD, root.join("device"), FileType::CharacterDevice, Mode::from_raw_mode(0o600), makedev(241, 1)).unwrap();
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.set_len(1 << 20).unwrap();
    tree::set_xattr(&root.join("trusted"), "trusted.t", b"1").unwrap();
    tree::set_xattr(&root.join("cap"), "security.capability", tree::CAPABILITY).unwrap();
    tree::set_xattr(&root.join("acl"), Acl::Access.xattr(), &Acl::bytes(1000, 2000, 0o640)).unwrap();
    tree::set_xattr(&root.join("d"), Acl::Default.xattr(), &Acl::bytes(1000, 2000, 0o750)).unwrap();
    for item in tree::list(root).iter().rev() {
        set(&item.path, OLD);
    }
    set(root, OLD);
}

/// Content of the same length, with its time put back: only a checksum sees it.
fn flip(root: &Path) {
    tree::write_at(&root.join("content"), 17, b"#").unwrap();
    set(&root.join("content"), OLD);
}

fn fill_hole(root: &Path) {
    fs::write(root.join("sparse"), vec![0; 1 << 20]).unwrap();
    set(&root.join("sparse"), OLD);
}

fn split_link(root: &Path) {
    fs::copy(root.join("linked"), root.join("d/copy")).unwrap();
    fs::rename(root.join("d/copy"), root.join("d/linked")).unwrap();
    set(&root.join("d/linked"), OLD);
    set(&root.join("d"), OLD);
}

fn retarget(root: &Path) {
    fs::remove_file(root.join("symlink")).unwrap();
    symlink("tarGet", root.join("symlink")).unwrap();
    set(&root.join("symlink"), OLD);
    set(root, OLD);
}

fn other_device(root: &Path) {
    fs::remove_file(root.join("device")).unwrap();
    mknodat(CWD, root.join("device"), FileType::CharacterDevice, Mode::from_raw_mode(0o600), makedev(241, 2)).unwrap();
    set(&root.join("device"), OLD);
    set(root, OLD);
}

fn other_kind(root: &Path) {
    fs::remove_file(root.join("gone")).unwrap();
    fs::create_dir(root.join("gone")).unwrap();
    set(&root.join("gone"), OLD);
    set(root, OLD);
}

fn chown(root: &Path) {
    rustix::fs::chownat(
        CWD,
        root.join("owner"),
        Some(Uid::from_raw(7)),
        Some(Gid::from_raw(8)),
        rustix::fs::AtFlags::empty(),
    )
    .unwrap();
}

const PLANTS: [Plant; 21] = [
    ("content", Seen::Both, flip),
    ("mode", Seen::Both, |r| chmod(&r.join("mode"), 0o4600)),
    ("owner", Seen::Both, chown),
    ("a nanosecond", Seen::OwnOnly, |r| set(&r.join("ns"), Mtime(OLD.0, OLD.1 + 1))),
    ("directory's time", Seen::Both, |r| set(&r.join("d"), Mtime(OLD.0 + 1, 0))),
    ("root's mode", Seen::Both, |r| chmod(r, 0o711)),
    ("size", Seen::Both, |r| fs::write(r.join("content"), b"short").unwrap()),
    ("user xattr", Seen::Both, |r| tree::set_xattr(&r.join("xattr"), "user.x", b"").unwrap()),
    ("trusted xattr", Seen::Both, |r| tree::set_xattr(&r.join("trusted"), "trusted.t", b"2").unwrap()),
    ("trusted xattr of a symlink", Seen::Both, |r| tree::set_xattr(&r.join("symlink"), "trusted.t", b"2").unwrap()),
    ("file capability", Seen::Both, |r| {
        rustix::fs::lremovexattr(r.join("cap"), "security.capability").unwrap();
    }),
    ("access ACL", Seen::Both, |r| {
        tree::set_xattr(&r.join("acl"), Acl::Access.xattr(), &Acl::bytes(1001, 2000, 0o640)).unwrap();
    }),
    ("default ACL", Seen::Both, |r| {
        tree::set_xattr(&r.join("d"), Acl::Default.xattr(), &Acl::bytes(1001, 2000, 0o750)).unwrap();
    }),
    ("flags", Seen::OwnOnly, |r| tree::set_flags(&r.join("flags"), IFlags::NODUMP, IFlags::empty()).unwrap()),
    ("immutable directory", Seen::OwnOnly, |r| {
        tree::set_flags(&r.join("d"), IFlags::IMMUTABLE, IFlags::empty()).unwrap()
    }),
    ("filled hole", Seen::OwnOnly, fill_hole),
    ("split hard link", Seen::Both, split_link),
    ("symlink's target", Seen::Both, retarget),
    ("device number", Seen::Both, other_device),
    ("kind", Seen::Both, other_kind),
    ("an extra file", Seen::Both, |r| {
        fs::write(r.join("extra"), "").unwrap();
        set(r, OLD);
    }),
];

fn chmod(path: &Path, mode: u32) {
    rustix::fs::chmodat(CWD, path, Mode::from_raw_mode(mode), rustix::fs::AtFlags::empty()).unwrap();
}

#[test]
fn each_judge_sees_what_it_should() {
    if !skip::needs_root("each_judge_sees_what_it_should") {
        return;
    }
    for (name, seen, plant) in PLANTS {
        let scratch = Scratch::new("plant");
        let (a, b) = (scratch.join("a"), scratch.join("b"));
        for root in [&a, &b] {
            fs::create_dir(root).unwrap();
            lay_out(root);
        }
        judge::assert_same(&a, &b, "before the plant");
        plant(&b);
        let own = compare(&Portrait::of(&a), &Portrait::of(&b));
        let rsync = judge::rsync_differences(&a, &b);
        println!("{name}: own judge {}, rsync {}", own.len(), rsync.len());
        assert!(!own.is_empty(), "own judge does not see: {name}");
        assert_eq!(!rsync.is_empty(), seen == Seen::Both, "rsync on {name}: {rsync:?}");
    }
    figure::report("planted differences that the judges notice", PLANTS.len() as u64, "plants", Goal::AtLeast(12));
}

#[test]
fn a_missing_file_and_a_deep_one_are_seen() {
    let scratch = Scratch::new("plant");
    let (a, b) = (scratch.join("a"), scratch.join("b"));
    for root in [&a, &b] {
        fs::create_dir(root).unwrap();
        tree::create_deep(root, &mut Seeds::of("deep").rng(0));
        fs::write(root.join("file"), "x").unwrap();
        set(&root.join("file"), OLD);
    }
    fs::remove_file(b.join("file")).unwrap();
    let own = compare(&Portrait::of(&a), &Portrait::of(&b));
    assert!(own.iter().any(|difference| difference.path == b"file" && difference.what == "existence"));
    assert!(own.iter().any(|difference| difference.path.len() > 4096), "a time far down differs");
    assert!(!judge::rsync_differences(&a, &b).is_empty());
}

#[test]
fn the_same_seed_makes_the_same_tree_and_edits() {
    let seeds = Seeds::of("the_same_seed_makes_the_same_tree_and_edits");
    let scratch = Scratch::new("seed");
    let portraits = ["a", "b"].map(|name| {
        let root = scratch.join(name);
        let rng = &mut seeds.rng(0);
        tree::create(&root, rng, 200);
        tree::edit(&root, rng, 40);
        without_clock(Portrait::of(&root))
    });
    assert!(portraits[0].entries.len() > 150);
    assert_eq!(compare(&portraits[0], &portraits[1]), []);
}

/// Times that were set by the clock differ from run to run.
fn without_clock(mut portrait: Portrait) -> Portrait {
    for entry in portrait.entries.values_mut() {
        entry.mtime = (0, 0);
    }
    portrait
}

/// What the tests make can be copied by a tool that we trust, and both judges then agree that it is the same.
#[test]
fn random_trees_pass_the_judges_when_copied_by_cp() {
    let seeds = Seeds::of("random_trees_pass_the_judges_when_copied_by_cp");
    for round in 0..5 {
        let scratch = Scratch::new("cp");
        let root = scratch.join("tree");
        let rng = &mut seeds.rng(round);
        tree::create(&root, rng, 200);
        tree::edit(&root, rng, 100);
        let saved = Snapshot::of(&root);
        saved.assert_is(&root, &format!("seed {}", seeds.round(round)));
    }
}
