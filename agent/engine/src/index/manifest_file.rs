//! A manifest on disk, as restore points and the index keep it.
//!
//! ```text
//! manifest = root:bytes directories:uint { shared:uint suffix:bytes block:bytes }*
//! ```
//! `root` is what the root digest is of. Directories are in path order; each path shares its first `shared` bytes with
//! the path before. `encode` compresses all of it as one zstd frame. Nothing is trusted when it is read: each block is
//! checked, the digests are computed again from the leaves up, and the root's must come out as expected.

use std::io;

use crate::{
    codec::{DecodeError, Reader, Writer},
    digest::Digest,
    path::RelPath,
    tree::{BlockError, DirBlock, Manifest, ManifestBuilder, ManifestError},
};

/// Half of what is compressed is digests, which no level shrinks.
const ZSTD_LEVEL: i32 = 1;

#[derive(Debug, thiserror::Error)]
pub enum ManifestFileError {
    #[error("manifest does not decompress")]
    Compression(#[source] io::Error),
    #[error("manifest is malformed")]
    Malformed(#[from] DecodeError),
    #[error("directory {path} of the manifest")]
    Block {
        path: RelPath,
        #[source]
        source: BlockError,
    },
    #[error("manifest does not hold together")]
    Tree(#[from] ManifestError),
}

pub fn encode(manifest: &Manifest) -> io::Result<Vec<u8>> {
    compress(&encode_plain(manifest))
}

/// The manifest whose root digest is `expected`.
pub fn decode(bytes: &[u8], expected: Digest) -> Result<Manifest, ManifestFileError> {
    let manifest = decode_plain(&decompress(bytes).map_err(ManifestFileError::Compression)?)?;
    check_root(manifest, expected)
}

pub(super) fn compress(plain: &[u8]) -> io::Result<Vec<u8>> {
    zstd::stream::encode_all(plain, ZSTD_LEVEL)
}

pub(super) fn decompress(bytes: &[u8]) -> io::Result<Vec<u8>> {
    zstd::stream::decode_all(bytes)
}

pub(super) fn encode_plain(manifest: &Manifest) -> Vec<u8> {
    let mut w = Writer::new();
    w.bytes(&manifest.encode_root()).uint(manifest.blocks().count() as u64);
    let mut last: &[u8] = b"";
    for (path, block) in manifest.blocks() {
        let path = path.as_bytes();
        let shared = path.iter().zip(last).take_while(|(a, b)| a == b).count();
        w.uint(shared as u64).bytes(&path[shared..]).bytes(block.as_bytes());
        last = path;
    }
    w.into_bytes()
}

/// Checked against the digest of its own root entry.
pub(super) fn decode_plain(plain: &[u8]) -> Result<Manifest, ManifestFileError> {
    let mut r = Reader::new(plain);
    let (root, expected) = Manifest::decode_root(r.bytes()?)?;
    let mut builder = ManifestBuilder::new();
    let mut path = Vec::new();
    for _ in 0..r.count(3)? {
        let shared = usize::try_from(r.uint()?).map_err(|_| DecodeError::Overflow)?;
        path.truncate(shared);
        if path.len() != shared {
            return Err(DecodeError::Truncated.into());
        }
        path.extend_from_slice(r.bytes()?);
        let directory = RelPath::new(&path).map_err(DecodeError::from)?;
        if builder.contains(&directory) {
            return Err(DecodeError::Unsorted { what: "directories" }.into());
        }
        let block = DirBlock::parse(r.bytes()?, None)
            .map_err(|source| ManifestFileError::Block { path: directory.clone(), source })?;
        builder.block(directory, block);
    }
    r.end()?;
    check_root(builder.finish(root.meta)?, expected)
}

fn check_root(manifest: Manifest, expected: Digest) -> Result<Manifest, ManifestFileError> {
    let actual = manifest.root_digest();
    if actual != expected {
        return Err(ManifestError::Root { expected, actual }.into());
    }
    Ok(manifest)
}
