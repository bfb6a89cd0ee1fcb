//! Digests of a big body's leaves: the tree that its digest is the root of, and the file that keeps them.
//!
//! ```text
//! leaf = BLAKE3 of 64 KiB, the last one shorter
//! node = BLAKE3 (context "drover 2026-11 node of a body") of the digests of 128 leaves, or of 128 nodes; the last one fewer
//! body = BLAKE3 (context "drover 2026-11 body") of size:u64le and the topmost node
//! ```
//! The file has 32 bytes for each leaf, in order: 512 MiB for a TiB of data. A leaf of zeros is 32 zero bytes, so that
//! what is a hole in the body is a hole in the file. It needs no checksum and no sync: its root is the digest that it is
//! named by, and one that does not match counts as absent.

use std::{fs::File, io, os::unix::fs::FileExt, sync::LazyLock};

use rayon::prelude::*;

use crate::{content::LEAF_BYTES, digest::Digest, hash::read_padded};

const NODE_CONTEXT: &str = "drover 2026-11 node of a body";
const BODY_CONTEXT: &str = "drover 2026-11 body";

const NODE_CHILDREN: usize = 128;
/// Content beneath one node of the lowest level.
pub(crate) const NODE_BYTES: u64 = (NODE_CHILDREN * LEAF_BYTES) as u64;

type Leaf = [u8; Digest::BYTES];

/// Stands for a leaf of zeros, of whatever length.
const ZERO: Leaf = [0; Digest::BYTES];

/// Of a whole leaf, and of a whole node of such leaves.
static ZERO_LEAF: LazyLock<Digest> = LazyLock::new(|| Digest::of(&[0; LEAF_BYTES]));
static ZERO_NODE: LazyLock<Digest> = LazyLock::new(|| of_children(&[*ZERO_LEAF; NODE_CHILDREN]));

/// Whether a whole leaf with this digest is all zeros.
pub(crate) fn is_zero_leaf(digest: &Digest) -> bool {
    *digest == *ZERO_LEAF
}

fn of_children(children: &[Digest]) -> Digest {
    let mut bytes = [0; NODE_CHILDREN * Digest::BYTES];
    for (child, place) in children.iter().zip(bytes.as_chunks_mut().0) {
        *place = *child.as_bytes();
    }
    Digest::of_record(NODE_CONTEXT, &bytes[..children.len() * Digest::BYTES])
}

/// Of a body by the nodes of its lowest level.
pub(crate) fn body_digest(size: u64, mut level: Vec<Digest>) -> Digest {
    while level.len() > 1 {
        level = level.chunks(NODE_CHILDREN).map(of_children).collect();
    }
    let mut bytes = [0; 8 + Digest::BYTES];
    bytes[..8].copy_from_slice(&size.to_le_bytes());
    bytes[8..].copy_from_slice(level.first().unwrap_or(&ZERO_LEAF).as_bytes());
    Digest::of_record(BODY_CONTEXT, &bytes)
}

/// The leaves beneath one node of the lowest level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    leaves: [Leaf; NODE_CHILDREN],
    len: usize,
    /// Of the last leaf, when it is shorter than the others.
    tail: Option<usize>,
}

impl Node {
    /// The `n`th of a body, as if it were all zeros.
    pub(crate) fn zeros(n: u64, size: u64) -> Self {
        let bytes = size.saturating_sub(n * NODE_BYTES).min(NODE_BYTES) as usize;
        let tail = bytes % LEAF_BYTES;
        Self { leaves: [ZERO; _], len: bytes.div_ceil(LEAF_BYTES), tail: (tail > 0).then_some(tail) }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn set(&mut self, leaf: usize, digest: blake3::Hash) {
        self.leaves[leaf] = *digest.as_bytes();
    }

    pub(crate) fn set_zero(&mut self, leaf: usize) {
        self.leaves[leaf] = ZERO;
    }

    pub(crate) fn leaf(&self, leaf: usize) -> Digest {
        if self.leaves[leaf] != ZERO {
            return Digest::from_bytes(self.leaves[leaf]);
        }
        match self.tail.filter(|_| leaf + 1 == self.len) {
            Some(tail) => Digest::of(&vec![0; tail]),
            None => *ZERO_LEAF,
        }
    }

    pub(crate) fn digest(&self) -> Digest {
        if self.len == NODE_CHILDREN && self.tail.is_none() && self.leaves == [ZERO; NODE_CHILDREN] {
            return *ZERO_NODE;
        }
        let children: Vec<Digest> = (0..self.len).map(|leaf| self.leaf(leaf)).collect();
        of_children(&children)
    }
}

#[derive(Debug)]
pub(crate) struct LeafFile {
    file: File,
    /// Of the body.
    size: std::sync::atomic::AtomicU64,
}

impl LeafFile {
    pub(crate) fn new(file: File, size: u64) -> Self {
        Self { file, size: size.into() }
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    pub(crate) fn size(&self) -> u64 {
        self.size.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// For a body that has another size now; its last leaf, and those beyond the old end, are read anew by the caller.
    pub(crate) fn resize(&self, size: u64) -> io::Result<()> {
        self.size.store(size, std::sync::atomic::Ordering::Relaxed);
        self.file.set_len(Self::bytes(size))
    }

    /// Of the file, for a body of a size.
    pub(crate) fn bytes(size: u64) -> u64 {
        size.div_ceil(LEAF_BYTES as u64) * Digest::BYTES as u64
    }

    pub(crate) fn read(&self, n: u64) -> io::Result<Node> {
        let mut node = Node::zeros(n, self.size());
        read_padded(&self.file, node.leaves[..node.len].as_flattened_mut(), Self::place(n))?;
        Ok(node)
    }

    /// Zeros stay holes where nothing else was written before.
    pub(crate) fn write(&self, n: u64, node: &Node) -> io::Result<()> {
        if node.leaves == [ZERO; NODE_CHILDREN] && self.read(n)? == *node {
            return Ok(());
        }
        self.file.write_all_at(node.leaves[..node.len].as_flattened(), Self::place(n))
    }

    /// Digests of leaves from an offset on, which begins one; `None` for one of zeros. Others may be written meanwhile.
    pub(crate) fn write_leaves(&self, offset: u64, leaves: &[Option<blake3::Hash>]) -> io::Result<()> {
        if leaves.is_empty() {
            return Ok(());
        }
        let bytes: Vec<Leaf> = leaves.iter().map(|leaf| leaf.map_or(ZERO, |leaf| *leaf.as_bytes())).collect();
        self.file.write_all_at(bytes.as_flattened(), offset / LEAF_BYTES as u64 * Digest::BYTES as u64)
    }

    /// All leaves that begin in a range are zeros.
    pub(crate) fn write_zeros(&self, offset: u64, len: u64) -> io::Result<()> {
        let leaves = |bytes: u64| bytes.div_ceil(LEAF_BYTES as u64) * Digest::BYTES as u64;
        let (from, to) = (leaves(offset), leaves(offset + len));
        match drover_linux::file::punch_hole(&self.file, from, to - from) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                self.file.write_all_at(&vec![0; (to - from) as usize], from)
            }
            punched => punched,
        }
    }

    /// Of the body that the leaves make.
    pub(crate) fn digest(&self) -> io::Result<Digest> {
        let size = self.size();
        let nodes = (0..size.div_ceil(NODE_BYTES) as usize).into_par_iter().with_min_len(16);
        let nodes = nodes.map(|n| Ok(self.read(n as u64)?.digest())).collect::<io::Result<_>>()?;
        Ok(body_digest(size, nodes))
    }

    /// Digests of the leaves of a range that begins at a leaf, as many as the body has.
    pub(crate) fn range(&self, offset: u64, len: usize) -> io::Result<Vec<Digest>> {
        let end = (offset + len as u64).min(self.size());
        let mut digests = Vec::with_capacity(len.div_ceil(LEAF_BYTES));
        let mut at = offset;
        while at < end {
            let n = at / NODE_BYTES;
            let node = self.read(n)?;
            let first = ((at - n * NODE_BYTES) / LEAF_BYTES as u64) as usize;
            let until = end.min((n + 1) * NODE_BYTES);
            let count = (until - at).div_ceil(LEAF_BYTES as u64) as usize;
            digests.extend((first..first + count).map(|leaf| node.leaf(leaf)));
            at = until;
        }
        Ok(digests)
    }

    fn place(n: u64) -> u64 {
        n * (NODE_CHILDREN * Digest::BYTES) as u64
    }
}
