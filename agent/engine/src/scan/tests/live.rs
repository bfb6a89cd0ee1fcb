//! Scans of a volume that is written meanwhile.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::Write,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use drover_linux::FileId;

use super::{Volume, path};
use crate::{hash::by_definition, index::Index};

/// Set when it is dropped, so that a failed assertion ends the writer too.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `write` again and again while `scan` runs.
fn while_writing<T>(write: impl Fn(usize) + Sync, scan: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let _done = Done(&done);
        scope.spawn(|| {
            for n in 0.. {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                write(n);
            }
        });
        scan()
    })
}

/// How often each regular file's inode is in the index.
fn sightings(index: &Index) -> BTreeMap<FileId, u32> {
    let mut sightings = BTreeMap::new();
    for (directory, block) in index.manifest.blocks() {
        for (entry, local) in block.entries().zip(index.locals[directory].iter()) {
            if !entry.node.is_directory() {
                *sightings.entry(local.id).or_default() += 1;
            }
        }
    }
    sightings
}

#[test]
fn nothing_that_is_renamed_meanwhile_is_lost_or_doubled() {
    const FILES: usize = 40;
    let volume = Volume::new();
    for n in 0..FILES {
        volume.write(&format!("d{}/f{n}", n % 4), b"x");
    }
    let mut index = volume.scan(None).index;
    let expected = sightings(&index);
    assert_eq!(expected.len(), FILES);
    let rename = |n: usize| {
        let (file, from) = (n % FILES, n / FILES + n % FILES);
        let at = |d: usize| volume.at(&format!("d{}/f{file}", d % 4));
        fs::rename(at(from), at(from + 1)).unwrap();
    };
    while_writing(rename, || {
        for _ in 0..15 {
            let scan = volume.scan(Some(&index));
            assert!(sightings(&scan.index) == expected, "{:?}", scan.flux);
            index = scan.index;
        }
    });
    volume.agrees(&volume.scan(Some(&index)));
}

#[test]
fn a_moved_directory_is_found_once() {
    let volume = Volume::new();
    for n in 0..200 {
        volume.write(&format!("a/moving/{}/f{n}", n % 10), b"x");
    }
    fs::create_dir(volume.at("b")).unwrap();
    let mut index = volume.scan(None).index;
    let expected = sightings(&index);
    let rename = |n: usize| {
        let names = ["a/moving", "b/moving"];
        fs::rename(volume.at(names[n % 2]), volume.at(names[(n + 1) % 2])).unwrap();
        thread::sleep(Duration::from_micros(300));
    };
    while_writing(rename, || {
        for _ in 0..10 {
            let scan = volume.scan(Some(&index));
            assert!(sightings(&scan.index) == expected, "{:?}", scan.flux);
            index = scan.index;
        }
    });
    volume.agrees(&volume.scan(Some(&index)));
}

#[test]
fn a_file_that_is_written_meanwhile_is_named() {
    let volume = Volume::new();
    volume.write("log", &vec![1; 32 << 20]);
    volume.write("quiet", b"");
    let append = |_| {
        OpenOptions::new().append(true).open(volume.at("log")).unwrap().write_all(b"line\n").unwrap();
        thread::sleep(Duration::from_millis(1));
    };
    let scan = while_writing(append, || volume.scan(None));
    assert_eq!(scan.flux.unstable, [path("log")]);
    let second = volume.scan(Some(&scan.index));
    assert_eq!(second.changed.entries, 1);
    volume.agrees(&second);
    let body = second.index.manifest.find(&path("log")).unwrap().node.body().copied().unwrap();
    assert_eq!(body.digest, by_definition(&fs::read(volume.at("log")).unwrap()));
}

#[test]
fn files_that_come_and_go_do_no_harm() {
    let volume = Volume::new();
    volume.write("stays", b"x");
    let churn = |n: usize| {
        let name = format!("dir{}/temporary", n % 3);
        volume.write(&name, b"y");
        fs::remove_dir_all(volume.at(&name).parent().unwrap()).unwrap();
    };
    let index = while_writing(churn, || {
        let mut index = volume.scan(None).index;
        for _ in 0..10 {
            index = volume.scan(Some(&index)).index;
            assert!(index.manifest.find(&path("stays")).is_some());
        }
        index
    });
    volume.agrees(&volume.scan(Some(&index)));
}
