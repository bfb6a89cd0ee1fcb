//! Restore points that are read without moving the replica.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Read as _},
    os::unix::fs::FileExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use drover_tests::{
    figure::{self, Goal},
    host::{Pair, PairSetup, SYNC, agent_binary},
    judge::assert_same_file,
    mount::{FileSystem, Image, Mounted, Store},
    process::{self, Done},
    rounds::Rounds,
    scratch::Scratch,
    seed::Seeds,
    skip,
    subject::Subject,
};

const DEADLINE: Duration = Duration::from_secs(60);

/// At the replica's host.
fn points(pair: &Pair, arguments: &[&str]) -> Done {
    let mut command = Command::new(agent_binary());
    command.arg("points").arg("--config").arg(pair.b.config()).args(arguments);
    process::run(command, DEADLINE)
}

/// A point of the pair's first volume, as the command writes it.
pub(crate) fn export(pair: &Pair, id: &str, out: &Path) {
    points(pair, &["export", &pair.volume, id, &out.display().to_string()]).expect("points export");
}

fn bytes_of(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)).expect("read");
    bytes
}

#[test]
fn a_point_of_an_image_is_exported_and_attached() {
    const NAME: &str = "a_point_of_an_image_is_exported_and_attached";
    if !skip::needs_root(NAME) {
        return;
    }
    let (rounds, seeds) = (Rounds::chosen(), Seeds::of(NAME));
    let (pair, scratch) =
        (Pair::with(PairSetup { subject: Subject::Image, ..PairSetup::default() }), Scratch::new("out"));
    let mut rng = seeds.rng(0);
    Subject::Image.create(&pair.source(), &mut rng, &rounds);
    let mut saved = Vec::new();
    for n in 0..3 {
        Subject::Image.edit(&pair.source(), &mut rng, &rounds);
        let disk = File::options().write(true).open(Subject::Image.image(&pair.source())).expect("open the image");
        let len = disk.metadata().expect("stat").len();
        // Two of them are whole sectors.
        disk.set_len(len / 512 * 512 + if n == 1 { 7 } else { 512 }).expect("size");
        let id = pair.sync().point_id();
        let copy = scratch.join(format!("saved-{n}"));
        fs::copy(Subject::Image.image(&pair.replica()), &copy).expect("save");
        saved.push((id, copy));
    }
    let before = Subject::Image.portrait(&pair.replica());
    for (id, _) in &saved {
        let out = scratch.join(format!("before-{id}")).display().to_string();
        points(&pair, &["export", &pair.volume, id, &out]).expect("points export");
    }
    assert!(
        drover_tests::judge::compare(&before, &Subject::Image.portrait(&pair.replica())).is_empty(),
        "the replica moved"
    );
    let mut attached_count = 0;
    let listed = points(&pair, &["list", &pair.volume]).expect("points list").stdout;
    for (id, copy) in &saved {
        assert!(listed.lines().any(|line| line.starts_with(&format!("{id} "))), "{id} in {listed}");
        let out = scratch.join(format!("export-{id}"));
        let text = out.display().to_string();
        points(&pair, &["export", &pair.volume, id, &text]).expect("points export");
        assert_same_file(copy, &out, &format!("DROVER_SEED={}: point {id}", seeds.round(0)));
        let again = points(&pair, &["export", &pair.volume, id, &text]);
        assert_eq!(again.code(), Some(1), "an existing file is not overwritten: {}", again.stderr);
        let wanted = bytes_of(copy);
        let attached = points(&pair, &["attach", &pair.volume, id]);
        if !wanted.len().is_multiple_of(512) {
            assert!(attached.code() == Some(1) && attached.stderr.contains("export it"), "{}", attached.stderr);
            continue;
        }
        let device = attached.expect("points attach").stdout.trim().to_owned();
        // The point's own file goes back into the tree, and somebody writes to it there.
        let client = pair.b.controller();
        let job = client.rollback(&pair.volume, id).expect("start a rollback");
        client.outcome(&job, SYNC).expect("watch a rollback").expect_done(id);
        // Only with the last point: where older ones are kept as differences from the replica, this damages them.
        if Some(id) == saved.last().map(|(id, _)| id) {
            let live =
                File::options().write(true).open(Subject::Image.image(&pair.replica())).expect("open the replica");
            live.write_all_at(&[0xa5; 4096], 0).expect("write the replica");
        }
        let shown = bytes_of(Path::new(&device));
        let writable =
            File::options().write(true).open(&device).and_then(|mut it| std::io::Write::write_all(&mut it, &[0; 4096]));
        process::run(command("losetup", &["--detach", &device]), DEADLINE).expect("detach");
        assert!(writable.is_err(), "the device takes writes");
        assert!(shown == wanted, "point {id} on {device}");
        pair.b.controller().release(&pair.volume).expect("release");
        attached_count += 1;
    }
    assert!(attached_count > 0, "every image has a part of a sector at its end");
    let missing = points(&pair, &["export", &pair.volume, "999", "/nonexistent/x"]);
    assert_eq!(missing.code(), Some(1), "{}", missing.stderr);
}

fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin");
    command
}

#[test]
fn a_file_of_a_directorys_point_is_exported() {
    let (pair, scratch) = (Pair::start(), Scratch::new("out"));
    fs::create_dir(pair.source().join("dir")).expect("directory");
    fs::write(pair.source().join("dir/report"), "the old text").expect("write");
    let old = pair.sync().point_id();
    fs::write(pair.source().join("dir/report"), "the new text, which is longer").expect("write");
    let new = pair.sync().point_id();
    for (id, text) in [(&old, "the old text"), (&new, "the new text, which is longer")] {
        let out = scratch.join(format!("out-{id}"));
        let target = out.display().to_string();
        points(&pair, &["export", &pair.volume, id, &target, "--file", "dir/report"]).expect("points export");
        assert_eq!(fs::read_to_string(&out).expect("read"), text);
    }
    let target = scratch.join("none").display().to_string();
    let unnamed = points(&pair, &["export", &pair.volume, &old, &target]);
    assert!(unnamed.code() != Some(0) && unnamed.stderr.contains("--file"), "{}", unnamed.stderr);
    let absent = points(&pair, &["export", &pair.volume, &old, &target, "--file", "dir/other"]);
    assert!(absent.code() != Some(0) && absent.stderr.contains("dir/other"), "{}", absent.stderr);
    assert!(!scratch.join("none").exists());
}

/// Adds two rows and counts them in one transaction, says how many there are, and goes on.
const WRITER: &str = r#"
import os, sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute("pragma synchronous = full")
db.execute("create table if not exists t (n integer primary key, pad blob)")
db.execute("create table if not exists c (count integer)")
db.execute("insert into c select 0 where not exists (select 1 from c)")
db.commit()
while True:
    with db:
        db.executemany("insert into t (pad) values (?)", [(os.urandom(3000),), (os.urandom(500),)])
        db.execute("update c set count = count + 2")
    print(db.execute("select count from c").fetchone()[0], flush=True)
"#;

const CHECKER: &str = r#"
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
assert db.execute("pragma integrity_check").fetchall() == [("ok",)], "integrity"
rows, = db.execute("select count(*) from t").fetchone()
count, = db.execute("select count from c").fetchone()
assert rows == count and count % 2 == 0, (rows, count)
print(count)
"#;

struct Writer {
    child: Child,
    said: std::sync::Arc<std::sync::atomic::AtomicU64>,
}

impl Writer {
    fn start(database: &Path) -> Self {
        let mut command = Command::new("python3");
        command.args(["-c", WRITER]).arg(database).stdout(Stdio::piped());
        let mut child = command.spawn().expect("start python3");
        let said = std::sync::Arc::<std::sync::atomic::AtomicU64>::default();
        let (out, heard) = (child.stdout.take().expect("piped"), said.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                heard.store(line.parse().expect("a number"), std::sync::atomic::Ordering::SeqCst);
            }
        });
        Self { child, said }
    }

    fn committed(&self) -> u64 {
        self.said.load(std::sync::atomic::Ordering::SeqCst)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_database_opens_cleanly_from_every_crash_consistent_point() {
    const NAME: &str = "a_database_opens_cleanly_from_every_crash_consistent_point";
    if !skip::needs_root(NAME) {
        return;
    }
    let syncs = if Rounds::chosen().image_rounds > 100 { 20 } else { 5 };
    let mut opened = 0;
    for file_system in [FileSystem::Xfs, FileSystem::Btrfs] {
        if let Some(why) = file_system.missing() {
            skip::skipped(NAME, &why);
            continue;
        }
        let store = Store::new(12 << 30).expect("a store");
        let images: [Image; 2] = [0, 1].map(|_| store.image(file_system, 4 << 30).expect("image"));
        let mounts: [Mounted; 2] = [0, 1].map(|side| images[side].mount().expect("mount"));
        let pair = Pair::with(PairSetup {
            root_a: Some(mounts[0].join("root")),
            root_b: Some(mounts[1].join("root")),
            subject: Subject::Image,
            retain: Some(syncs),
            ..PairSetup::default()
        });
        let disk = Subject::Image.image(&pair.source());
        File::options().write(true).open(&disk).and_then(|disk| disk.set_len(256 << 20)).expect("size");
        FileSystem::Ext4.make(&disk).expect("mkfs in the image");
        let mut saved = Vec::new();
        {
            let guest = FileSystem::Ext4.mount(&disk).expect("mount the guest's file system");
            let writer = Writer::start(&guest.join("db"));
            process::until("the first transactions", DEADLINE, || (writer.committed() > 20).then_some(()));
            for _ in 0..syncs {
                let committed = writer.committed();
                let synced = pair.sync();
                let label = synced.report.pointer("/point/label").and_then(|label| label.as_str());
                assert_eq!(label, Some("crash-consistent"), "{}", synced.report);
                saved.push((synced.point_id(), committed));
            }
        }
        for (id, committed) in &saved {
            let out = mounts[1].join(format!("export-{id}"));
            points(&pair, &["export", &pair.volume, id, &out.display().to_string()]).expect("points export");
            let guest = FileSystem::Ext4.mount(&out).expect("mount what was exported");
            let mut check = Command::new("python3");
            check.args(["-c", CHECKER]).arg(guest.join("db"));
            let rows = process::run(check, DEADLINE).expect("the database of a restore point").stdout;
            let rows: u64 = rows.trim().parse().expect("a number of rows");
            assert!(rows >= *committed, "{}, point {id}: {rows} of {committed} rows", file_system.name());
            opened += 1;
        }
    }
    figure::report(
        "databases opened cleanly from points taken while they were written",
        opened,
        "points",
        Goal::AtLeast(10),
    );
}
