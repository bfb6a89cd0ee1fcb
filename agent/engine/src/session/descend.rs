//! The sink learns the source's tree: from the root down, asking only for directories whose digests differ.
//!
//! All directories of one depth are asked for together, so a tree costs as many round trips as it is deep. Each block is
//! verified against the digest that its parent's block announced.

use std::collections::HashMap;

use super::{Message, Offer, SessionError, Wire};
use crate::{
    digest::Digest,
    path::RelPath,
    tree::{DirBlock, Entry, Manifest, ManifestBuilder, Node},
};

/// Directories asked for in one message.
const ASKED_MAX: usize = 2048;
/// Bytes of paths in one message.
const PATHS_BYTES_MAX: usize = 1 << 20;
/// Longest block that is put together: about five million entries in one directory.
const BLOCK_BYTES_MAX: usize = 512 << 20;

pub(super) fn root(offer: &Offer) -> Result<(Entry, Digest), SessionError> {
    let malformed = || SessionError::Protocol("offered a root that is none");
    let hex = offer.root.as_bytes().chunks(2);
    let bytes: Option<Vec<u8>> = hex.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect();
    Manifest::decode_root(&bytes.ok_or_else(malformed)?).map_err(|_| malformed())
}

pub(super) fn descend(wire: &Wire<'_>, ours: &Manifest, offer: &Offer) -> Result<Manifest, SessionError> {
    let (root, digest) = root(offer)?;
    let Node::Directory { digest: content, .. } = &root.node else {
        return Err(SessionError::Protocol("offered a root that is no directory"));
    };
    let mut descent = Descent { wire, ours, builder: ManifestBuilder::new(), next: Vec::new() };
    descent.subtree(RelPath::root(), *content);
    while !descent.next.is_empty() {
        let level = std::mem::take(&mut descent.next);
        for asked in batches(&level) {
            descent.ask(asked)?;
        }
    }
    let manifest = descent.builder.finish(root.meta.clone())?;
    if has_stray_links(&manifest) {
        return Err(SessionError::Protocol("sent a hard link without the name that leads it"));
    }
    if manifest.root_digest() != digest {
        return Err(SessionError::Protocol("sent a tree that does not have the digest it offered"));
    }
    Ok(manifest)
}

/// A leader must be there, come first, and be neither a directory nor a further name itself.
fn has_stray_links(manifest: &Manifest) -> bool {
    let mut leaders: HashMap<RelPath, RelPath> = HashMap::new();
    for (path, entry) in manifest.entries() {
        if let Node::Hardlink { leader } = entry.node {
            let first = leaders.entry(leader).or_insert_with(|| path.clone());
            *first = path.min(first.clone());
        }
    }
    if leaders.is_empty() {
        return false;
    }
    for (path, entry) in manifest.entries() {
        if !matches!(entry.node, Node::Directory { .. } | Node::Hardlink { .. })
            && leaders.get(&path).is_some_and(|first| path < *first)
        {
            leaders.remove(&path);
        }
    }
    !leaders.is_empty()
}

fn batches(level: &[(RelPath, Digest)]) -> Vec<&[(RelPath, Digest)]> {
    let mut batches = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (at, (path, _)) in level.iter().enumerate() {
        bytes += path.as_bytes().len();
        if at + 1 - start == ASKED_MAX || bytes >= PATHS_BYTES_MAX {
            batches.push(&level[start..=at]);
            (start, bytes) = (at + 1, 0);
        }
    }
    if start < level.len() {
        batches.push(&level[start..]);
    }
    batches
}

struct Descent<'a> {
    wire: &'a Wire<'a>,
    ours: &'a Manifest,
    builder: ManifestBuilder,
    /// Directories of the next depth that differ, with the digests they must have.
    next: Vec<(RelPath, Digest)>,
}

impl Descent<'_> {
    fn subtree(&mut self, path: RelPath, digest: Digest) {
        if self.ours.block(&path).is_some_and(|block| block.digest() == digest) {
            for (path, block) in self.ours.blocks_beneath(&path) {
                self.builder.block(path.clone(), block.clone());
            }
        } else {
            self.next.push((path, digest));
        }
    }

    fn ask(&mut self, asked: &[(RelPath, Digest)]) -> Result<(), SessionError> {
        self.wire.send(&Message::List(asked.iter().map(|(path, _)| path.clone()).collect()))?;
        let mut due: HashMap<&RelPath, Digest> = asked.iter().map(|(path, digest)| (path, *digest)).collect();
        let mut partial: Vec<u8> = Vec::new();
        while !due.is_empty() {
            let pieces = match self.wire.receive()? {
                Message::Listing(pieces) => pieces,
                Message::Failure(failure) => return Err(SessionError::Peer(failure)),
                other => {
                    return Err(SessionError::Unexpected { expected: "listing", got: other.name() });
                }
            };
            for piece in pieces {
                let expected = *due.get(&piece.path).ok_or(SessionError::Protocol("listed what was not asked for"))?;
                if partial.len() + piece.bytes.len() > BLOCK_BYTES_MAX {
                    return Err(SessionError::Protocol("sent a directory that is too large"));
                }
                partial.extend_from_slice(&piece.bytes);
                if piece.is_last {
                    due.remove(&piece.path);
                    let bytes = std::mem::take(&mut partial);
                    self.block(piece.path, &bytes, expected)?;
                }
            }
        }
        Ok(())
    }

    fn block(&mut self, path: RelPath, bytes: &[u8], expected: Digest) -> Result<(), SessionError> {
        let block = DirBlock::parse(bytes, Some(expected))
            .map_err(|source| SessionError::Block { path: path.clone(), source })?;
        let progress = &self.wire.control().progress;
        for entry in block.entries() {
            progress.entries_done.add(1);
            if let Node::Directory { digest, .. } = entry.node {
                self.subtree(path.join(&entry.name), digest);
            }
        }
        self.builder.block(path, block);
        Ok(())
    }
}
