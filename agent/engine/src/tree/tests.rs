//! Test vectors of the root digest: another implementation of the specification must find the same bytes and digests.

use super::*;
use crate::{
    digest::Digest,
    path::{Name, RelPath},
};

fn meta(mode: u32) -> Meta {
    Meta { mode, uid: 1000, gid: 100, mtime: Time { secs: -1, nanos: 999_999_999 }, ..Meta::default() }
}

fn entry(name: &[u8], mode: u32, node: Node) -> Entry {
    Entry { name: Name::new(name).unwrap(), meta: meta(mode), node }
}

fn sample() -> Manifest {
    let body = Body { size: 3, digest: Digest::of(b"abc"), holes: 0 };
    let mut file = entry(b"file", 0o644, Node::File(body));
    file.meta.xattrs = vec![Xattr { name: (*b"user.k").into(), value: (*b"v\0").into() }];
    let directory = Node::Directory { digest: Digest::default(), totals: Totals::default() };
    let mut builder = ManifestBuilder::new();
    builder.directory(
        RelPath::root(),
        vec![
            entry(b"d", 0o755, directory),
            entry(b"z\xff\n", 0o777, Node::Symlink { target: (*b"../d").into() }),
            entry(b"null", 0o666, Node::Device { kind: DeviceKind::Char, major: 1, minor: 3 }),
            entry(b"pipe", 0o600, Node::Fifo),
        ],
    );
    let leader = RelPath::new(b"d/file").unwrap();
    builder.directory(RelPath::new(b"d").unwrap(), vec![file, entry(b"name2", 0o644, Node::Hardlink { leader })]);
    builder.finish(meta(0o2750)).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn root_digest_of_the_specification() {
    let manifest = sample();
    let inner = manifest.block(&RelPath::new(b"d").unwrap()).unwrap();
    assert_eq!(hex(inner.as_bytes()), INNER_BLOCK);
    assert_eq!(inner.digest().to_string(), INNER_DIGEST);
    assert_eq!(manifest.root_digest().to_string(), ROOT_DIGEST);
}

#[test]
fn every_field_reaches_the_root_digest() {
    let base = sample().root_digest();
    let change = |edit: &dyn Fn(&mut Entry)| {
        let mut builder = ManifestBuilder::new();
        for (path, block) in sample().blocks() {
            builder.block(path.clone(), block.clone());
        }
        let inside = RelPath::new(b"d").unwrap();
        edit(builder.entries_mut(&inside).unwrap().iter_mut().find(|entry| entry.name.as_bytes() == b"file").unwrap());
        builder.finish(meta(0o2750)).unwrap().root_digest()
    };
    let edits: [&dyn Fn(&mut Entry); 8] = [
        &|entry| entry.name = Name::new(b"filf").unwrap(),
        &|entry| entry.meta.mode = 0o4644,
        &|entry| entry.meta.uid += 1,
        &|entry| entry.meta.gid += 1,
        &|entry| entry.meta.mtime.nanos -= 1,
        &|entry| entry.meta.flags = Flags::carried(Flags::NODUMP),
        &|entry| entry.meta.xattrs[0].value = (*b"w").into(),
        &|entry| entry.node = Node::File(Body { size: 3, digest: Digest::of(b"abd"), holes: 0 }),
    ];
    for (at, edit) in edits.iter().enumerate() {
        assert_ne!(change(edit), base, "edit {at}");
    }
}

#[test]
fn a_block_with_names_out_of_order_or_twice_is_refused() {
    let block = sample().block(&RelPath::root()).unwrap().as_bytes().to_vec();
    assert!(DirBlock::parse(&block, None).is_ok());
    assert!(DirBlock::parse(&[block.clone(), block.clone()].concat(), None).is_err());
    assert!(DirBlock::parse(&block[..block.len() - 1], None).is_err());
    assert!(DirBlock::parse(&block, Some(Digest::default())).is_err());
}

const INNER_BLOCK: &str = "0466696c6502a403e8076401ff93ebdc03000106757365722e6b027600036437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d8500056e616d653203a403e8076401ff93ebdc03000006642f66696c65";
const INNER_DIGEST: &str = "55e9cda63cd94dc6c2b90269bc1eccba0454f31354df3b437203b464bd6e5db4";
const ROOT_DIGEST: &str = "221cb604bc34056ca9cf15fa24c4338d17d1dc581a63ac4f9fbc4d427b96c67e";
