//! Two volumes of one process over a local link.

use std::{fs, os::unix::fs::symlink, path::Path, process::Command, sync::Arc, thread};

use super::*;
use crate::{
    beside::{Open, Root, RootKind},
    control::Control,
    id::VolumeId,
    path::RelPath,
    point::{Force, PointId, Role, VolumeKind},
    report::SyncReport,
    volume::{Disposal, NewVolume},
};

struct Pair {
    dir: tempfile::TempDir,
    a: Volume,
    b: Volume,
}

fn volume(dir: &Path, id: VolumeId, role: Role) -> Volume {
    fs::create_dir_all(dir.join("v")).unwrap();
    let root = Arc::new(Root::open(dir, RootKind::Files, None, Open::Create).unwrap());
    let path = RelPath::new(b"v").unwrap();
    Volume::create(
        &root,
        NewVolume {
            id,
            kind: VolumeKind::Directory,
            path,
            role,
            retain: 3,
            retain_secs: 0,
            peer: None,
            adopt: false,
            waive: vec![],
        },
    )
    .unwrap()
}

impl Pair {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let id = VolumeId::random();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        fs::create_dir_all(&a).unwrap();
        fs::create_dir_all(&b).unwrap();
        Self { a: volume(&a, id, Role::Primary), b: volume(&b, id, Role::Secondary), dir }
    }

    fn src(&self) -> std::path::PathBuf {
        self.dir.path().join("a/v")
    }

    fn dst(&self) -> std::path::PathBuf {
        self.dir.path().join("b/v")
    }

    fn run(&self, from: &Volume, to: &Volume, intent: &Intent) -> Result<Report, SessionError> {
        let (left, right) = LocalLink::pair();
        thread::scope(|scope| {
            let listener = scope.spawn(move || {
                let control = Control::default();
                let wire = Wire::new(&right, &control);
                let hello = greet(&wire).unwrap();
                let result = answer(&wire, &hello, to);
                drop(right);
                result
            });
            let control = Control::default();
            let wire = Wire::new(&left, &control);
            let dialed = dial(&wire, from, Side::Source, intent.clone(), "test");
            drop(left);
            let answered = listener.join().unwrap();
            answered.and_then(|report| dialed.map(|_| report))
        })
    }

    fn sync(&self) -> SyncReport {
        match self.run(&self.a, &self.b, &Intent::Sync(SyncOptions::default())).unwrap() {
            Report::Sync(report) => report,
            other => panic!("{other:?}"),
        }
    }

    fn judge(&self) {
        judge(&self.src(), &self.dst());
    }
}

fn judge(src: &Path, dst: &Path) {
    let slash = |path: &Path| format!("{}/", path.display());
    let rsync = Command::new("rsync").args(["-aHAXni", "--checksum", "--delete", &slash(src), &slash(dst)]).output();
    let Ok(rsync) = rsync else { panic!("rsync is needed") };
    let text = String::from_utf8_lossy(&rsync.stdout).into_owned() + &String::from_utf8_lossy(&rsync.stderr);
    assert!(rsync.status.success() && text.is_empty(), "{text}");
}

fn fill(src: &Path) {
    for d in 0..5 {
        let dir = src.join(format!("d{d}/sub"));
        fs::create_dir_all(&dir).unwrap();
        for f in 0..20 {
            fs::write(dir.join(format!("f{f}")), vec![f as u8; 1000 * f + d]).unwrap();
        }
        symlink("../f", dir.join("link")).unwrap();
        fs::hard_link(dir.join("f3"), dir.join("hard")).unwrap();
    }
    fs::write(src.join("big"), (0..3_000_000u32).flat_map(|n| n.to_le_bytes()).collect::<Vec<_>>()).unwrap();
}

#[test]
fn first_copy_then_changes_then_nothing() {
    let pair = Pair::new();
    let src = pair.src();
    fill(&src);
    let first = pair.sync();
    assert_eq!(first.point.as_ref().unwrap().id, PointId::sync(1));
    pair.judge();

    fs::remove_file(src.join("d0/sub/f3")).unwrap();
    fs::remove_dir_all(src.join("d1")).unwrap();
    fs::rename(src.join("d2"), src.join("d2-renamed")).unwrap();
    fs::write(src.join("d3/sub/f5"), "changed").unwrap();
    fs::remove_file(src.join("d4/sub/f6")).unwrap();
    fs::create_dir(src.join("d4/sub/f6")).unwrap();
    fs::write(src.join("d4/sub/f6/inside"), "x").unwrap();
    let second = pair.sync();
    pair.judge();
    assert!(second.changes.renamed >= 19, "{:?}", second.changes);

    let third = pair.sync();
    assert!(third.unchanged);
    assert_eq!(third.point.unwrap().id, PointId::sync(2));
    pair.judge();
}

#[test]
fn rolls_back_and_forward() {
    let pair = Pair::new();
    let src = pair.src();
    fill(&src);
    pair.sync();
    let saved = pair.dir.path().join("saved");
    assert!(Command::new("cp").arg("-a").args([&src, &saved]).status().unwrap().success());
    fs::remove_dir_all(src.join("d1")).unwrap();
    fs::write(src.join("d3/sub/f5"), "changed").unwrap();
    fs::write(src.join("big"), "small now").unwrap();
    pair.sync();
    let control = Control::default();
    pair.b.rollback(PointId::sync(1), &control).unwrap();
    judge(&saved, &pair.dst());
    assert!(pair.run(&pair.a, &pair.b, &Intent::Sync(SyncOptions::default())).is_err(), "paused");
    pair.b.rollback(PointId::sync(2), &control).unwrap();
    pair.judge();
    pair.b.rollback(PointId::sync(1), &control).unwrap();
    pair.b.release().unwrap();
    pair.sync();
    pair.judge();
}

#[test]
fn r7_the_old_primary_catches_up_and_its_diverged_data_is_kept() {
    let pair = Pair::new();
    fill(&pair.src());
    pair.sync();
    fs::write(pair.src().join("only-here"), "written after the last sync").unwrap();
    pair.b.promote(Force::Yes, || Err("it is not asked".to_owned())).unwrap();
    fs::write(pair.dst().join("new-site"), "written there").unwrap();
    let both = pair.run(&pair.b, &pair.a, &Intent::Sync(SyncOptions::default()));
    assert_eq!(both.unwrap_err().reason(), "both-primary");
    pair.a.demote(Force::Yes, &Control::default()).unwrap();
    let report = pair.run(&pair.b, &pair.a, &Intent::Sync(SyncOptions::default())).unwrap();
    pair.judge();
    assert!(!pair.src().join("only-here").exists());
    let Report::Sync(report) = report else { panic!() };
    let kept = report.kept_as.unwrap();
    pair.a.rollback(kept, &Control::default()).unwrap();
    assert_eq!(fs::read(pair.src().join("only-here")).unwrap(), b"written after the last sync");
}

#[test]
fn r7_the_point_of_a_planned_switch_stays_at_the_old_primary() {
    let pair = Pair::new();
    fill(&pair.src());
    pair.sync();
    let saved = pair.dir.path().join("saved");
    assert!(Command::new("cp").arg("-a").args([&pair.src(), &saved]).status().unwrap().success());
    pair.a.demote(Force::Yes, &Control::default()).unwrap();
    pair.b.promote(Force::Yes, || Err("it is not asked".to_owned())).unwrap();
    fs::write(pair.dst().join("d0/sub/f7"), "written there").unwrap();
    let Report::Sync(report) = pair.run(&pair.b, &pair.a, &Intent::Sync(SyncOptions::default())).unwrap() else {
        panic!()
    };
    pair.judge();
    assert_eq!(report.kept_as, None, "nothing had diverged");
    // The promoted copy still holds what both had.
    let path = RelPath::new(b"d3/sub/f5").unwrap();
    let located = pair.b.locate(PointId::sync(1), Some(&path)).unwrap();
    assert_eq!(fs::read(located.file).unwrap(), fs::read(saved.join("d3/sub/f5")).unwrap());
    pair.a.rollback(PointId::sync(1), &Control::default()).unwrap();
    judge(&saved, &pair.src());
}

#[test]
fn r6_split_brain_is_told_and_resync_keeps_the_loser() {
    let pair = Pair::new();
    fill(&pair.src());
    pair.sync();
    pair.b.promote(Force::Yes, || Err("it is not asked".to_owned())).unwrap();
    fs::write(pair.dst().join("theirs"), "theirs").unwrap();
    pair.a.demote(Force::Yes, &Control::default()).unwrap();
    pair.a.promote(Force::Yes, || Err("it is not asked".to_owned())).unwrap();
    assert_eq!(pair.a.state().epoch, pair.b.state().epoch);
    pair.b.demote(Force::Yes, &Control::default()).unwrap();
    let refused = pair.run(&pair.a, &pair.b, &Intent::Sync(SyncOptions::default())).unwrap_err();
    assert_eq!(refused.reason(), "split-brain", "{refused}");
    pair.b.request_resync().unwrap();
    let Report::Sync(report) = pair.run(&pair.a, &pair.b, &Intent::Sync(SyncOptions::default())).unwrap() else {
        panic!()
    };
    pair.judge();
    pair.b.rollback(report.kept_as.unwrap(), &Control::default()).unwrap();
    assert_eq!(fs::read(pair.dst().join("theirs")).unwrap(), b"theirs");
}

#[test]
fn a_change_behind_our_back_is_repaired() {
    let pair = Pair::new();
    fill(&pair.src());
    pair.sync();
    fs::write(pair.dst().join("d0/sub/f7"), "tampered").unwrap();
    fs::remove_file(pair.dst().join("d2/sub/f8")).unwrap();
    fs::write(pair.dst().join("extra"), "extra").unwrap();
    let report = pair.sync();
    pair.judge();
    assert!(report.repaired.len() >= 3, "{report:?}");
    assert!(report.kept_as.is_some());
}

#[test]
fn empty_source_and_mass_delete_are_refused() {
    let pair = Pair::new();
    fill(&pair.src());
    pair.sync();
    for entry in fs::read_dir(pair.src()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }
    let refused = pair.run(&pair.a, &pair.b, &Intent::Sync(SyncOptions::default())).unwrap_err();
    assert_eq!(refused.reason(), "empty-source");
    fs::write(pair.src().join("one"), "1").unwrap();
    let refused = pair.run(&pair.a, &pair.b, &Intent::Sync(SyncOptions::default())).unwrap_err();
    assert_eq!(refused.reason(), "mass-delete");
}

#[test]
fn a_deleted_replica_waits_in_the_trash() {
    let pair = Pair::new();
    fill(&pair.src());
    pair.sync();
    assert_eq!(pair.a.disable(Disposal::Trash).unwrap_err().reason(), "is-primary");
    pair.b.disable(Disposal::Trash).unwrap();
    assert!(!pair.dst().exists());
    let trash = pair.dir.path().join("b/.drover/trash");
    let waiting = fs::read_dir(&trash).unwrap().next().unwrap().unwrap().path();
    judge(&pair.src(), &waiting.join("tree"));
    for (keep_secs, gone) in [(3600, 0), (-1, 1)] {
        pair.b.root().expire_trash(keep_secs).unwrap();
        assert_eq!(pair.b.root().purge_trash().unwrap().len(), gone);
    }
    assert!(!waiting.exists());
}

#[test]
fn a_tree_that_was_replaced_under_us_is_no_source_and_no_replica() {
    let pair = Pair::new();
    fill(&pair.src());
    pair.sync();
    for tree in [pair.src(), pair.dst()] {
        let aside = tree.with_extension("aside");
        fs::rename(&tree, &aside).unwrap();
        fs::create_dir(&tree).unwrap();
        for intent in [Intent::Sync(SyncOptions::default()), Intent::Verify { deep: true }] {
            assert_eq!(pair.run(&pair.a, &pair.b, &intent).unwrap_err().reason(), "not-the-marked-tree");
        }
        fs::remove_dir(&tree).unwrap();
        fs::rename(&aside, &tree).unwrap();
    }
    assert!(pair.sync().unchanged);
}
