//! On real trees in a temporary directory; what needs root is skipped aloud for others.

mod changes;
mod live;

use std::{fs, io, os::unix::fs::symlink, path::Path};

use drover_linux::{Dir, FileId, Kind, Time};

use super::{Scan, ScanError, ScanOptions, scan};
use crate::{
    control::Control,
    digest::Digest,
    hash::by_definition,
    index::Index,
    path::RelPath,
    tree::{Body, Entry, ManifestBuilder, Node},
};

struct Volume {
    temp: tempfile::TempDir,
    dir: Dir,
}

/// Long after everything that a test does, so that nothing is racy.
fn later() -> io::Result<Time> {
    let now = Time::now();
    Ok(Time { secs: now.secs + 1000, ..now })
}

fn options() -> ScanOptions<'static> {
    ScanOptions {
        mark: FileId::default(),
        clock: &later,
        deep: false,
        reread_before: None,
        waive_mount_points: false,
        bases: None,
    }
}

fn path(text: &str) -> RelPath {
    RelPath::new(text.as_bytes()).unwrap()
}

impl Volume {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        Self { temp, dir }
    }

    fn at(&self, path: &str) -> std::path::PathBuf {
        self.temp.path().join(path)
    }

    fn write(&self, path: &str, content: &[u8]) {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        fs::write(self.at(path), content).unwrap();
    }

    fn scan(&self, previous: Option<&Index>) -> Scan {
        self.scan_as(previous, options())
    }

    fn scan_as(&self, previous: Option<&Index>, options: ScanOptions<'_>) -> Scan {
        let scan = scan(&self.dir, previous, &options, &Control::default()).unwrap();
        assert!(scan.unreadable.is_empty(), "{:?}", scan.unreadable);
        check(&scan.index);
        scan
    }

    /// What a scan without an index finds, which any scan must find.
    fn agrees(&self, scan: &Scan) {
        assert!(scan.flux.is_quiet(), "{:?}", scan.flux);
        assert_eq!(scan.index.manifest, self.scan(None).index.manifest);
    }
}

/// Each entry has its local.
fn check(index: &Index) {
    for (path, block) in index.manifest.blocks() {
        assert_eq!(block.entries().count(), index.locals[path].len(), "{path}");
    }
    assert_eq!(index.locals.len(), index.manifest.blocks().count());
}

fn find(scan: &Scan, text: &str) -> Entry {
    scan.index.manifest.find(&path(text)).unwrap_or_else(|| panic!("{text} was not found"))
}

fn sample() -> Volume {
    let volume = Volume::new();
    volume.write("a/b/file", b"content");
    volume.write("a/other", &[7; 5000]);
    volume.write("big", &vec![3; 3 << 20]);
    fs::create_dir(volume.at("empty")).unwrap();
    symlink("../nowhere", volume.at("a/link")).unwrap();
    volume.dir.mknod(b"fifo", Kind::Fifo, 0o600, 0, 0).unwrap();
    volume.dir.create_file(b"sparse", 0o600).unwrap().set_len(1 << 20).unwrap();
    volume
}

#[test]
fn finds_every_kind() {
    let volume = sample();
    let scan = volume.scan(None);
    assert!(scan.index.complete && scan.flux.is_quiet() && scan.rotten.is_empty());
    assert_eq!(scan.index.manifest.entries().count(), 9);
    let body = find(&scan, "a/b/file").node.body().copied().unwrap();
    assert_eq!(body, Body { size: 7, digest: Digest::of(b"content"), holes: 0 });
    assert_eq!(find(&scan, "big").node.body().unwrap().digest, by_definition(&vec![3; 3 << 20]));
    assert_ne!(find(&scan, "sparse").node.body().unwrap().holes, 0);
    assert_eq!(find(&scan, "a/link").node, Node::Symlink { target: b"../nowhere"[..].into() });
    assert_eq!(find(&scan, "fifo").node, Node::Fifo);
    assert_eq!(scan.changed.entries, 6);
    assert_eq!(scan.changed.bytes, 7 + 5000 + (3 << 20) + (1 << 20));
    let local = scan.index.local(&path("a/other")).unwrap();
    assert_eq!(local.id, volume.dir.open_beneath(b"a").unwrap().stat(b"other").unwrap().id);
}

#[test]
fn an_unchanged_tree_is_taken_from_the_index() {
    let volume = sample();
    let first = volume.scan(None);
    let second = volume.scan(Some(&first.index));
    assert_eq!(second.changed, Default::default());
    assert_eq!(second.index, first.index);
}

#[test]
fn what_changed_just_now_is_read_again() {
    let volume = sample();
    let now = || Ok(Time::now());
    let racy = ScanOptions { clock: &now, ..options() };
    let first = volume.scan_as(None, racy);
    let second = volume.scan(Some(&first.index));
    assert_eq!(second.changed.entries, 6);
    assert_eq!(second.index.manifest, first.index.manifest);
    let third = volume.scan(Some(&second.index));
    assert_eq!(third.changed.entries, 0);
}

#[test]
fn an_index_of_another_volume_is_not_trusted() {
    let volume = sample();
    let first = volume.scan(None);
    let other = ScanOptions { mark: FileId { ino: 1, born: Time::default() }, ..options() };
    assert_eq!(volume.scan_as(Some(&first.index), other).changed.entries, 6);
}

#[test]
fn content_is_read_again_when_it_is_old() {
    let volume = sample();
    let first = volume.scan(None);
    let old = ScanOptions { reread_before: Some(later().unwrap().secs + 5000), ..options() };
    let second = volume.scan_as(Some(&first.index), old);
    assert_eq!(second.changed.entries, 6);
    assert!(second.rotten.is_empty());
}

/// The index as it would be if the content of `rotten` had been another one when it was read.
fn with_another_digest(index: &Index, rotten: &RelPath) -> Index {
    let mut builder = ManifestBuilder::new();
    for (path, block) in index.manifest.blocks() {
        let mut entries: Vec<Entry> = block.entries().collect();
        for entry in entries.iter_mut().filter(|entry| path.join(&entry.name) == *rotten) {
            entry.node = Node::File(Body { digest: Digest::of(b"once"), ..*entry.node.body().unwrap() });
        }
        builder.directory(path.clone(), entries);
    }
    Index { manifest: builder.finish(index.manifest.root().meta.clone()).unwrap(), ..index.clone() }
}

#[test]
fn a_deep_scan_finds_rot() {
    let volume = sample();
    let first = volume.scan(None);
    let rotten = with_another_digest(&first.index, &path("a/other"));
    assert!(volume.scan(Some(&rotten)).rotten.is_empty());
    let deep = volume.scan_as(Some(&rotten), ScanOptions { deep: true, ..options() });
    assert_eq!(deep.rotten, [path("a/other")]);
    assert_eq!(deep.index.manifest, first.index.manifest);
    volume.write("a/other", b"changed on purpose");
    assert!(volume.scan_as(Some(&rotten), ScanOptions { deep: true, ..options() }).rotten.is_empty());
}

#[test]
fn a_very_deep_tree() {
    let volume = Volume::new();
    let name = [b'n'; 250];
    let mut dir = volume.dir.try_clone().unwrap();
    for _ in 0..40 {
        dir.mkdir(&name, 0o755).unwrap();
        dir = dir.open_beneath(&name).unwrap();
    }
    dir.create_file(b"deepest", 0o600).unwrap();
    let scan = volume.scan(None);
    assert_eq!(scan.index.manifest.entries().count(), 41);
    assert_eq!(volume.scan(Some(&scan.index)).changed.entries, 0);
}

#[test]
fn a_cancelled_scan_says_so() {
    let volume = sample();
    let control = Control::default();
    control.cancel();
    assert!(matches!(scan(&volume.dir, None, &options(), &control), Err(ScanError::Cancelled(_))));
}

/// Unmounts when it is dropped.
struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    fn tmpfs(at: &'a Path) -> Option<Self> {
        let status = std::process::Command::new("mount").args(["-t", "tmpfs", "none"]).arg(at).status();
        status.is_ok_and(|status| status.success()).then_some(Self(at))
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.0).status();
    }
}

#[test]
fn a_mount_point_refuses_or_is_empty() {
    let volume = sample();
    let at = volume.at("a/mounted");
    fs::create_dir(&at).unwrap();
    let Some(_mounted) = Mounted::tmpfs(&at) else {
        return eprintln!("SKIPPED a_mount_point_refuses_or_is_empty: can't mount");
    };
    fs::write(at.join("inside"), "x").unwrap();
    let refused = scan(&volume.dir, None, &options(), &Control::default());
    assert!(matches!(refused, Err(ScanError::MountPoint { path: at }) if at == path("a/mounted")));
    let waived = ScanOptions { waive_mount_points: true, ..options() };
    let first = volume.scan_as(None, waived);
    assert!(find(&first, "a/mounted").node.is_directory());
    assert_eq!(first.index.manifest.find(&path("a/mounted/inside")), None);
    assert_eq!(volume.scan_as(Some(&first.index), waived).index, first.index);
}
