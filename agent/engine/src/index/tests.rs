use std::{collections::BTreeMap, io::Write};

use drover_linux::{Dir, FileId, Time};

use super::{Index, Local, manifest_file};
use crate::{
    digest::Digest,
    path::{Name, RelPath},
    tree::{Body, Entry, ManifestBuilder, Meta, Node, Totals},
};

const FILES_EACH: usize = 100;

/// Directories of files, with times and digests as unlike each other as real ones.
fn sample(directories: usize) -> Index {
    let mut builder = ManifestBuilder::new();
    let mut locals = BTreeMap::new();
    let mut root = Vec::new();
    for d in 0..directories {
        let name = Name::new(format!("directory {d}").as_bytes()).unwrap();
        let path = RelPath::root().join(&name);
        builder.directory(path.clone(), (0..FILES_EACH).map(|f| file(d * FILES_EACH + f)).collect());
        locals.insert(path, (0..FILES_EACH).map(|f| local(d * FILES_EACH + f)).collect());
        root.push(Entry {
            name,
            meta: Meta::default(),
            node: Node::Directory { digest: Digest::default(), totals: Totals::default() },
        });
    }
    builder.directory(RelPath::root(), root);
    locals.insert(RelPath::root(), (0..directories).map(local).collect());
    let manifest = builder.finish(Meta { mode: 0o755, ..Meta::default() }).unwrap();
    Index { manifest, locals, root: local(7), mark: local(9).id, complete: true }
}

fn scattered(n: usize) -> u32 {
    (n as u32).wrapping_mul(2_654_435_761) % 1_000_000_000
}

fn file(n: usize) -> Entry {
    let mtime = Time { secs: 1_700_000_000 + i64::from(scattered(n)) / 1000, nanos: scattered(n + 1) };
    let meta = Meta { mode: 0o644, uid: 1000, gid: 1000, mtime, ..Meta::default() };
    let body = Body { size: u64::from(scattered(n)) / 7, digest: Digest::of(&n.to_le_bytes()), holes: 0 };
    Entry { name: Name::new(format!("some-file-{n:06}.dat").as_bytes()).unwrap(), meta, node: Node::File(body) }
}

fn local(n: usize) -> Local {
    let time = Time { secs: 1_700_000_000 + i64::from(scattered(n)) / 1000, nanos: scattered(n + 2) };
    let id = FileId { ino: 1_000_000 + n as u64, born: time };
    Local { id, ctime: time, nlink: 1, racy: n.is_multiple_of(5), read_at: 1_700_000_000 }
}

#[test]
fn comes_back_and_is_small() {
    let temp = tempfile::tempdir().unwrap();
    let dir = Dir::open(temp.path()).unwrap();
    assert_eq!(Index::load(&dir, b"index"), None);
    let index = sample(20);
    index.store(&dir, b"index").unwrap();
    assert_eq!(Index::load(&dir, b"index").unwrap(), index);
    let bytes_each = dir.stat(b"index").unwrap().size / (20 * FILES_EACH as u64);
    assert!(bytes_each < 120, "{bytes_each} bytes a file");
}

#[test]
fn a_damaged_one_counts_as_absent() {
    let temp = tempfile::tempdir().unwrap();
    let dir = Dir::open(temp.path()).unwrap();
    sample(2).store(&dir, b"index").unwrap();
    dir.open_write(b"index").unwrap().write_all(b"DRVX??").unwrap();
    assert_eq!(Index::load(&dir, b"index"), None);
}

#[test]
fn a_manifest_file_proves_itself() {
    let manifest = sample(3).manifest;
    let bytes = manifest_file::encode(&manifest).unwrap();
    assert_eq!(manifest_file::decode(&bytes, manifest.root_digest()).unwrap(), manifest);
    assert!(manifest_file::decode(&bytes, Digest::of(b"another")).is_err());
    assert!(manifest_file::decode(&bytes[..bytes.len() - 9], manifest.root_digest()).is_err());
}

#[test]
fn damage_is_refused_or_put_right() {
    let manifest = sample(2).manifest;
    let plain = manifest_file::encode_plain(&manifest);
    for at in (0..plain.len()).step_by(7) {
        let mut damaged = plain.clone();
        damaged[at] ^= 1;
        let bytes = manifest_file::compress(&damaged).unwrap();
        // A subdirectory's digest is computed again, so damage to it does no harm.
        if let Ok(read) = manifest_file::decode(&bytes, manifest.root_digest()) {
            assert!(read == manifest, "byte {at}");
        }
    }
}
