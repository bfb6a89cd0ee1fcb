//! Digest of a file's content, on all cores, in bounded memory, without reading holes.
//!
//! Up to 1 MiB it is plain BLAKE3 of all bytes (`b3sum` prints the same). Beyond, it is a tree over leaves of 64 KiB, so
//! that a change costs the leaves it touches and zeros cost nothing wherever they lie; see `leaves`.
//! Each thread holds one read buffer.

use std::{cell::RefCell, fs::File, io};

use drover_linux::file::{self, data_ranges, written_ranges};
use rayon::prelude::*;

use crate::{
    codec::Writer,
    content::{LEAF_BYTES, part::is_zero},
    control::Control,
    digest::Digest,
    leaves::{LeafFile, NODE_BYTES, Node, body_digest},
    pages::Filling,
    tree::Body,
};

/// Content up to this size has a plain digest.
pub const PLAIN_BYTES_MAX: u64 = 1 << 20;
/// Stays within a core's second-level cache between the read and the hash.
const READ_BYTES: usize = 2 * LEAF_BYTES;
/// Past the page cache each read waits for the disk: two threads with 64 KiB get a third of what they get with this.
const READ_DIRECT_BYTES: usize = 16 * LEAF_BYTES;

static ZEROS: [u8; READ_BYTES] = [0; READ_BYTES];

thread_local! {
    /// With an aligned piece in it, as reads past the page cache want it.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

fn with_buffer<T>(len: usize, work: impl FnOnce(&mut [u8]) -> T) -> T {
    BUFFER.with_borrow_mut(|room| {
        room.resize(room.len().max(len + file::ALIGNMENT), 0);
        let first = room.as_ptr().align_offset(file::ALIGNMENT);
        work(&mut room[first..first + len])
    })
}

/// Content that can be read: a file's, or one that is put together.
pub(crate) trait ReadContent: Sync {
    /// What is beyond the end reads as zeros.
    fn read_padded(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Offset and length of what is no hole in the first `size` bytes, in order.
    fn allocated(&self, size: u64) -> io::Result<Vec<(u64, u64)>>;

    /// That are best read at once; a multiple of a leaf's.
    fn read_bytes(&self) -> io::Result<usize> {
        Ok(READ_BYTES)
    }
}

impl ReadContent for File {
    fn read_padded(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        read_padded(self, buffer, offset)
    }

    fn allocated(&self, size: u64) -> io::Result<Vec<(u64, u64)>> {
        allocated(self, size)
    }

    fn read_bytes(&self) -> io::Result<usize> {
        Ok(if file::is_direct(self)? { READ_DIRECT_BYTES } else { READ_BYTES })
    }
}

/// Digest and hole map of the first `size` bytes. What a file that shrinks meanwhile no longer has counts as zeros: the
/// caller compares the file's times before and after. Fails with `Cancelled` inside when `control` says so.
pub fn hash_file(file: &File, size: u64, control: &Control) -> io::Result<Body> {
    hash_content(file, size, control)
}

pub(crate) fn hash_content(content: &dyn ReadContent, size: u64, control: &Control) -> io::Result<Body> {
    hash(content, content, size, None, None, control)
}

/// As `hash_file`, and keeps the digests of the leaves. Of content with a plain digest there are none. Holes are where
/// `map` has them, which is the file itself or a clone of it.
pub(crate) fn hash_keeping(
    file: &dyn ReadContent,
    map: &dyn ReadContent,
    size: u64,
    leaves: &LeafFile,
    control: &Control,
) -> io::Result<Body> {
    hash(file, map, size, Some(leaves), None, control)
}

/// As `hash_keeping`, of a file that is its own map; brings what is known of its pages up to date.
pub(crate) fn hash_filling(
    file: &File,
    size: u64,
    leaves: &LeafFile,
    filling: Option<&Filling>,
    control: &Control,
) -> io::Result<Body> {
    hash(file, file, size, Some(leaves), filling, control)
}

fn hash(
    file: &dyn ReadContent,
    map: &dyn ReadContent,
    size: u64,
    leaves: Option<&LeafFile>,
    filling: Option<&Filling>,
    control: &Control,
) -> io::Result<Body> {
    let data = map.allocated(size)?;
    let holes = hole_fingerprint(&data, size);
    let content = Content { file, data: &data, size, read_bytes: file.read_bytes()?, filling, control };
    let digest = if size <= PLAIN_BYTES_MAX { content.plain()? } else { content.tree(leaves)? };
    Ok(Body { size, digest, holes })
}

/// Digest and hole map of a file that differs only in `changed` (in order) from one whose leaves `leaves` has; brings
/// them up to date.
pub(crate) fn hash_changed(
    file: &dyn ReadContent,
    map: &dyn ReadContent,
    size: u64,
    changed: &[std::ops::Range<u64>],
    leaves: &LeafFile,
    control: &Control,
) -> io::Result<Body> {
    let data = map.allocated(size)?;
    let holes = hole_fingerprint(&data, size);
    let content = Content { file, data: &data, size, read_bytes: file.read_bytes()?, filling: None, control };
    leaves.resize(size)?;
    by_node(changed, size).into_par_iter().try_for_each(|(n, touched)| {
        let mut node = leaves.read(n)?;
        content.update(n, &mut node, |leaf| touched & 1 << leaf != 0)?;
        leaves.write(n, &node)
    })?;
    Ok(Body { size, digest: leaves.digest()?, holes })
}

/// Ranges that are no holes. The extent map says it better and needs dirty pages written, which many small files don't
/// pay for.
pub(crate) fn allocated(file: &File, size: u64) -> io::Result<Vec<(u64, u64)>> {
    if size <= LEAF_BYTES as u64 { data_ranges(file, size) } else { written_ranges(file, size) }
}

/// Nodes with the leaves that ranges touch, as bits; each node once, since they are updated in parallel.
fn by_node(ranges: &[std::ops::Range<u64>], size: u64) -> Vec<(u64, u128)> {
    let mut nodes: std::collections::BTreeMap<u64, u128> = std::collections::BTreeMap::new();
    for range in ranges.iter().filter(|range| range.start < size.min(range.end)) {
        for leaf in range.start / LEAF_BYTES as u64..=(range.end.min(size) - 1) / LEAF_BYTES as u64 {
            *nodes.entry(leaf / NODE_LEAVES).or_default() |= 1u128 << (leaf % NODE_LEAVES);
        }
    }
    nodes.into_iter().collect()
}

const NODE_LEAVES: u64 = NODE_BYTES / LEAF_BYTES as u64;
const _: () = assert!(NODE_LEAVES == u128::BITS as u64);

struct Content<'a> {
    file: &'a dyn ReadContent,
    /// Offset and length of what is not a hole, in order.
    data: &'a [(u64, u64)],
    size: u64,
    read_bytes: usize,
    filling: Option<&'a Filling>,
    control: &'a Control,
}

impl Content<'_> {
    fn plain(&self) -> io::Result<Digest> {
        self.control.check().map_err(io::Error::other)?;
        let mut hasher = blake3::Hasher::new();
        let mut at = 0;
        for (start, len) in self.data {
            update_zeros(&mut hasher, start - at);
            self.read(*start, start + len, |bytes| {
                hasher.update(bytes);
            })?;
            at = start + len;
        }
        update_zeros(&mut hasher, self.size - at);
        self.control.progress.bytes_done.add(self.size);
        Ok(hasher.finalize().into())
    }

    fn tree(&self, leaves: Option<&LeafFile>) -> io::Result<Digest> {
        if let Some(leaves) = leaves {
            leaves.resize(self.size)?;
        }
        let nodes = (0..self.size.div_ceil(NODE_BYTES)).into_par_iter().map(|n| {
            let mut node = Node::zeros(n, self.size);
            self.update(n, &mut node, |_| true)?;
            if let Some(leaves) = leaves {
                leaves.write(n, &node)?;
            }
            Ok(node.digest())
        });
        Ok(body_digest(self.size, nodes.collect::<io::Result<_>>()?))
    }

    /// Reads those leaves of a node that are wanted.
    fn update(&self, n: u64, node: &mut Node, wanted: impl Fn(usize) -> bool) -> io::Result<()> {
        self.control.check().map_err(io::Error::other)?;
        let begin = n * NODE_BYTES;
        let before = self.filling.map(|filling| filling.before(n)).transpose()?;
        let at = |leaf: usize| (begin + (leaf * LEAF_BYTES) as u64).min(self.size);
        let is_read = |leaf: usize| wanted(leaf) && !self.is_hole(at(leaf), at(leaf + 1));
        let mut leaf = 0;
        while leaf < node.len() {
            let end = (leaf..node.len()).find(|leaf| !is_read(*leaf)).unwrap_or(node.len());
            if end == leaf {
                if wanted(leaf) {
                    node.set_zero(leaf);
                }
                leaf += 1;
                continue;
            }
            let mut taken = Ok(());
            self.read(at(leaf), at(end), |bytes| {
                for bytes in bytes.chunks_mut(LEAF_BYTES) {
                    let filled = self.take(node, leaf, at(leaf), bytes, before.as_ref());
                    taken = std::mem::replace(&mut taken, Ok(())).and(filled);
                    leaf += 1;
                }
            })?;
            taken?;
        }
        self.control.progress.bytes_done.add(NODE_BYTES.min(self.size - begin));
        Ok(())
    }

    /// A leaf that begins at `start`.
    fn take(
        &self,
        node: &mut Node,
        leaf: usize,
        start: u64,
        bytes: &mut [u8],
        before: Option<&Node>,
    ) -> io::Result<()> {
        self.blank_holes(start, bytes);
        if is_zero(bytes) {
            node.set_zero(leaf);
            return Ok(());
        }
        node.set(leaf, blake3::hash(bytes));
        match (self.filling, before) {
            (Some(filling), Some(before)) => filling.look(start, bytes, &before.leaf(leaf)),
            _ => Ok(()),
        }
    }

    /// Zeros where the map has a hole: a file that is read for its clone may hold something there meanwhile.
    fn blank_holes(&self, start: u64, bytes: &mut [u8]) {
        let end = start + bytes.len() as u64;
        let mut at = start;
        let first = self.data.partition_point(|(from, len)| from + len <= start);
        for (from, len) in self.data[first..].iter().take_while(|(from, _)| *from < end).chain([&(end, 0)]) {
            if at < *from {
                bytes[(at - start) as usize..(*from - start) as usize].fill(0);
            }
            at = (from + len).min(end);
        }
    }

    fn is_hole(&self, from: u64, to: u64) -> bool {
        let next = self.data.partition_point(|(start, len)| start + len <= from);
        self.data.get(next).is_none_or(|(start, _)| *start >= to)
    }

    /// In pieces of whole leaves but for the last one, from `from` on.
    fn read(&self, from: u64, to: u64, mut take: impl FnMut(&mut [u8])) -> io::Result<()> {
        with_buffer(self.read_bytes, |buffer| {
            let mut at = from;
            while at < to {
                let want = buffer.len().min(usize::try_from(to - at).unwrap_or(usize::MAX));
                self.file.read_padded(&mut buffer[..want], at)?;
                take(&mut buffer[..want]);
                at += want as u64;
            }
            Ok(())
        })
    }
}

/// What the file does not have (any more) reads as zeros.
pub(crate) fn read_padded(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while done < buffer.len() {
        match file::read_at(file, &mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer[done..].fill(0);
    Ok(())
}

fn update_zeros(hasher: &mut blake3::Hasher, mut len: u64) {
    while len > 0 {
        let n = ZEROS.len().min(usize::try_from(len).unwrap_or(usize::MAX));
        hasher.update(&ZEROS[..n]);
        len -= n as u64;
    }
}

/// 0 without holes; else the first 8 bytes, little-endian, of BLAKE3 over offset and length (LEB128) of each hole, with
/// 0 replaced by 1.
pub(crate) fn hole_fingerprint(data: &[(u64, u64)], size: u64) -> u64 {
    let mut holes = Writer::new();
    let mut at = 0;
    for (start, len) in data.iter().copied().chain([(size, 0)]) {
        if start > at {
            holes.uint(at).uint(start - at);
        }
        at = start + len;
    }
    if holes.is_empty() {
        return 0;
    }
    let digest = Digest::of(&holes.into_bytes());
    let (first, _) = digest.as_bytes().split_first_chunk().expect("a digest has 32 bytes");
    u64::from_le_bytes(*first).max(1)
}

/// The definition at the head of this file and of `leaves`, word by word.
#[cfg(test)]
pub(crate) fn by_definition(content: &[u8]) -> Digest {
    if content.len() as u64 <= PLAIN_BYTES_MAX {
        return Digest::of(content);
    }
    let mut level: Vec<Digest> = content.chunks(LEAF_BYTES).map(Digest::of).collect();
    while level.len() > 1 {
        let node = |children: &[Digest]| {
            let bytes: Vec<u8> = children.iter().flat_map(|digest| *digest.as_bytes()).collect();
            Digest::of_record("drover 2026-11 node of a body", &bytes)
        };
        level = level.chunks(128).map(node).collect();
    }
    let body = [&(content.len() as u64).to_le_bytes()[..], level[0].as_bytes()].concat();
    Digest::of_record("drover 2026-11 body", &body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt as _;

    use proptest::prelude::*;

    const LEAF: u64 = LEAF_BYTES as u64;

    fn file_with(content: &[u8]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(content, 0).unwrap();
        file
    }

    fn hashed(file: &File) -> Digest {
        hash_file(file, file.metadata().unwrap().len(), &Control::default()).unwrap().digest
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn a_big_body_is_a_tree(size in PLAIN_BYTES_MAX + 1..20 << 20, hole in 0u64..16 << 20, byte in any::<u8>()) {
            let mut content: Vec<u8> = (0..size).map(|n| (n / 1000) as u8 ^ byte).collect();
            let end = (hole + 3 * LEAF).min(size);
            content[hole.min(end) as usize..end as usize].fill(0);
            prop_assert_eq!(hashed(&file_with(&content)), by_definition(&content));
        }

        #[test]
        fn leaves_follow_changes(
            size in PLAIN_BYTES_MAX + 1..12 << 20,
            new_size in PLAIN_BYTES_MAX + 1..12 << 20,
            edits in proptest::collection::vec((0u64..12 << 20, 1usize..200_000, any::<u8>()), 0..6),
        ) {
            let control = Control::default();
            let file = file_with(&vec![7; size as usize]);
            let leaves = LeafFile::new(tempfile::tempfile().unwrap(), size);
            hash_keeping(&file, &file, size, &leaves, &control).unwrap();
            file.set_len(new_size).unwrap();
            let tail = size.min(new_size) / LEAF * LEAF..size.max(new_size);
            let mut changed: Vec<_> = std::iter::once(tail).collect();
            for (at, len, byte) in edits {
                let (at, end) = (at.min(new_size), (at + len as u64).min(new_size));
                file.write_all_at(&vec![byte; (end - at) as usize], at).unwrap();
                changed.push(at..end);
            }
            changed.sort_by_key(|range| range.start);
            let body = hash_changed(&file, &file, new_size, &changed, &leaves, &control).unwrap();
            prop_assert_eq!(body.digest, hashed(&file));
            prop_assert_eq!(leaves.digest().unwrap(), body.digest);
        }
    }

    #[test]
    fn a_small_body_is_plain_blake3() {
        for size in [0, 1, 5000, 300_000, PLAIN_BYTES_MAX as usize] {
            let content: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
            assert_eq!(hashed(&file_with(&content)), Digest::of(&content));
        }
    }

    #[test]
    fn a_huge_hole_costs_nothing() {
        let file = tempfile::tempfile().unwrap();
        let size = 1 << 40;
        file.set_len(size).unwrap();
        file.write_all_at(&[7; 100_000], size - 70_000_000).unwrap();
        let control = Control::default();
        let body = hash_file(&file, size, &control).unwrap();
        assert_ne!(body.holes, 0);
        assert_eq!(control.progress.bytes_done.get(), size);
        control.cancel();
        assert!(hash_file(&file, size, &control).is_err());
    }

    #[test]
    fn hole_map_is_part_of_the_body() {
        let control = Control::default();
        let full = file_with(&[0; 65536]);
        let sparse = tempfile::tempfile().unwrap();
        sparse.set_len(65536).unwrap();
        let (full, sparse) = (hash_file(&full, 65536, &control).unwrap(), hash_file(&sparse, 65536, &control).unwrap());
        assert_eq!((full.digest, full.holes), (sparse.digest, 0));
        assert_ne!(sparse.holes, 0);
        assert_eq!(hole_fingerprint(&[(0, 10)], 10), 0);
        assert_eq!(hole_fingerprint(&[], 0), 0);
    }

    #[test]
    fn a_file_that_shrank_reads_as_zeros() {
        let file = file_with(b"abc");
        let body = hash_file(&file, 3, &Control::default()).unwrap();
        assert_eq!(body.digest, Digest::of(b"abc"));
        let control = Control::default();
        let content =
            Content { file: &file, data: &[(0, 5)], size: 5, read_bytes: READ_BYTES, filling: None, control: &control };
        assert_eq!(content.plain().unwrap(), Digest::of(b"abc\0\0"));
    }
}
