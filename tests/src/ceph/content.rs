//! The content of an image at one time, as digests: what judges compare.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use blake3::{Hash, Hasher};

/// What a difference is told by.
const LEAF_BYTES: u64 = 64 << 10;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    pub bytes: u64,
    /// Of everything.
    pub digest: Hash,
    leaves: Vec<Hash>,
}

impl Content {
    /// Of a file.
    pub fn of(path: &Path) -> io::Result<Self> {
        let (mut file, mut whole, mut leaves, mut bytes) = (File::open(path)?, Hasher::new(), Vec::new(), 0);
        let mut leaf = Vec::new();
        loop {
            leaf.clear();
            bytes += file.by_ref().take(LEAF_BYTES).read_to_end(&mut leaf)? as u64;
            if leaf.is_empty() {
                return Ok(Self { bytes, digest: whole.finalize(), leaves });
            }
            whole.update(&leaf);
            leaves.push(blake3::hash(&leaf));
        }
    }

    /// Nothing when they are equal.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut all = Vec::new();
        if self.bytes != other.bytes {
            all.push(format!("{} bytes, and {} bytes", self.bytes, other.bytes));
        }
        let pairs = self.leaves.iter().zip(&other.leaves).zip(0_u64..);
        let differ = pairs.filter(|((left, right), _)| left != right).map(|(_, index)| index * LEAF_BYTES);
        all.extend(differ.map(|offset| format!("{LEAF_BYTES} bytes at {offset} differ")));
        assert_eq!(all.is_empty(), self.digest == other.digest, "the digests of the parts and of the whole disagree");
        all
    }

    #[track_caller]
    pub fn assert_is(&self, other: &Self, why: &str) {
        let all = self.differences(other);
        assert!(all.is_empty(), "{why}:\n{}", crate::judge::shown(&all));
    }
}
