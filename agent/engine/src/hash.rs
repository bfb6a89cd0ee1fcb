//! Digest of a file's content, on all cores, in bounded memory, without reading holes.
//!
//! The digest is plain BLAKE3 of all bytes. BLAKE3 is a tree over 1024-byte chunks in which every left subtree is a
//! power of two, so aligned segments are hashed on their own and their chaining values merged (`blake3::hazmat`).
//! Each thread holds one read buffer; zeros of holes are hashed (a chunk's value depends on where it lies) but not read.

use std::{cell::RefCell, fs::File, io, os::unix::fs::FileExt};

use blake3::{
    Hasher,
    hazmat::{ChainingValue, HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root},
};
use drover_linux::file::data_ranges;

use crate::{codec::Writer, control::Control, digest::Digest, tree::Body};

/// What one thread hashes in one go; files up to this size are not split. A power of two.
const SEGMENT_BYTES: u64 = 1 << 20;
/// Stays within a core's second-level cache between the read and the hash.
const READ_BYTES: usize = 128 << 10;

static ZEROS: [u8; READ_BYTES] = [0; READ_BYTES];

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// Digest and hole map of the first `size` bytes. What a file that shrinks meanwhile no longer has counts as zeros: the
/// caller compares the file's times before and after. Fails with `Cancelled` inside when `control` says so.
pub fn hash_file(file: &File, size: u64, control: &Control) -> io::Result<Body> {
    let data = data_ranges(file, size)?;
    let content = Content { file, data: &data, segment_bytes: SEGMENT_BYTES, control };
    Ok(Body { size, digest: content.digest(size)?, holes: hole_fingerprint(&data, size) })
}

struct Content<'a> {
    file: &'a File,
    /// Offset and length of what is not a hole, in order.
    data: &'a [(u64, u64)],
    segment_bytes: u64,
    control: &'a Control,
}

impl Content<'_> {
    fn digest(&self, size: u64) -> io::Result<Digest> {
        if size <= self.segment_bytes {
            return Ok(self.segment(0, size)?.finalize().into());
        }
        let (left, right) = self.halves(0, size)?;
        Ok(merge_subtrees_root(&left, &right, Mode::Hash).into())
    }

    fn halves(&self, offset: u64, len: u64) -> io::Result<(ChainingValue, ChainingValue)> {
        let left = left_subtree_len(len);
        let (a, b) = rayon::join(|| self.subtree(offset, left), || self.subtree(offset + left, len - left));
        Ok((a?, b?))
    }

    fn subtree(&self, offset: u64, len: u64) -> io::Result<ChainingValue> {
        if len <= self.segment_bytes {
            return Ok(self.segment(offset, len)?.finalize_non_root());
        }
        let (left, right) = self.halves(offset, len)?;
        Ok(merge_subtrees_non_root(&left, &right, Mode::Hash))
    }

    /// Hashes `len` bytes at `offset`, alternating between holes and data.
    fn segment(&self, offset: u64, len: u64) -> io::Result<Hasher> {
        self.control.check().map_err(io::Error::other)?;
        let mut hasher = Hasher::new();
        hasher.set_input_offset(offset);
        let end = offset + len;
        let mut at = offset;
        let first = self.data.partition_point(|(start, len)| start + len <= offset);
        for (start, len) in &self.data[first..] {
            if *start >= end {
                break;
            }
            let (from, to) = ((*start).max(offset), (start + len).min(end));
            update_zeros(&mut hasher, from - at);
            self.update_data(&mut hasher, from, to)?;
            at = to;
        }
        update_zeros(&mut hasher, end - at);
        self.control.progress.bytes_done.add(len);
        Ok(hasher)
    }

    fn update_data(&self, hasher: &mut Hasher, from: u64, to: u64) -> io::Result<()> {
        BUFFER.with_borrow_mut(|buffer| {
            let mut at = from;
            while at < to {
                let want = buffer.len().min(usize::try_from(to - at).unwrap_or(usize::MAX));
                match self.file.read_at(&mut buffer[..want], at) {
                    Ok(0) => break,
                    Ok(n) => {
                        hasher.update(&buffer[..n]);
                        at += n as u64;
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            update_zeros(hasher, to - at);
            Ok(())
        })
    }
}

fn update_zeros(hasher: &mut Hasher, mut len: u64) {
    while len > 0 {
        let n = ZEROS.len().min(usize::try_from(len).unwrap_or(usize::MAX));
        hasher.update(&ZEROS[..n]);
        len -= n as u64;
    }
}

/// 0 without holes; else the first 8 bytes, little-endian, of BLAKE3 over offset and length (LEB128) of each hole, with
/// 0 replaced by 1.
fn hole_fingerprint(data: &[(u64, u64)], size: u64) -> u64 {
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file_with(content: &[u8]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(content, 0).unwrap();
        file
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_split_is_plain_blake3(size in 0usize..40_000, segment in 10u32..15, hole in 0usize..30_000) {
            let hole_end = (hole + 5000).min(size);
            let mut content: Vec<u8> = (0..size).map(|n| (n % 251) as u8 + 1).collect();
            let mut data = vec![(0, size as u64)];
            if hole < hole_end {
                content[hole..hole_end].fill(0);
                data = vec![(0, hole as u64), (hole_end as u64, (size - hole_end) as u64)];
            }
            // A read of the hole would differ from the zeros that it stands for.
            let file = file_with(&content.iter().map(|b| (*b).max(1)).collect::<Vec<_>>());
            let control = Control::default();
            let split = Content { file: &file, data: &data, segment_bytes: 1 << segment, control: &control };
            prop_assert_eq!(split.digest(size as u64).unwrap(), Digest::of(&content));
        }
    }

    #[test]
    fn big_sparse_file() {
        let file = tempfile::tempfile().unwrap();
        let size = 9 * SEGMENT_BYTES + 12_345;
        file.set_len(size).unwrap();
        file.write_all_at(&[7; 100_000], 3 * SEGMENT_BYTES - 5000).unwrap();
        let mut plain = vec![0; size as usize];
        file.read_exact_at(&mut plain, 0).unwrap();
        let control = Control::default();
        let body = hash_file(&file, size, &control).unwrap();
        assert_eq!(body.digest, Digest::of(&plain));
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
        let content = Content { file: &file, data: &[(0, 5)], segment_bytes: SEGMENT_BYTES, control: &control };
        assert_eq!(content.digest(5).unwrap(), Digest::of(b"abc\0\0"));
    }
}
