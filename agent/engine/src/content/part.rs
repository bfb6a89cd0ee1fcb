//! A range told in parts, in order and without gaps.
//!
//! ```text
//! parts = count:uint { 1 data:bytes | 2 zeros:uint | 3 hole:uint | 4 copy-from:uint copy-length:uint }*
//! ```

use std::ops::Range;

use bytes::Bytes;

use super::PAGE_BYTES;
use crate::{
    codec::{DecodeError, Reader, Writer},
    digest::Digest,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Data(Bytes),
    /// Allocated zeros.
    Zeros(u64),
    Hole(u64),
    /// What the sink's base holds at `from`.
    Copy {
        from: u64,
        len: u64,
    },
}

/// `len` bytes at `at` of a range are what the base holds at `from`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copy {
    pub at: usize,
    pub from: u64,
    pub len: usize,
}

impl Part {
    pub fn len(&self) -> u64 {
        match self {
            Self::Data(data) => data.len() as u64,
            Self::Zeros(len) | Self::Hole(len) | Self::Copy { len, .. } => *len,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What `encode` needs for it at most.
    pub fn encoded_bytes(&self) -> usize {
        const INTEGER_BYTES_MAX: usize = 10;
        let data = if let Self::Data(data) = self { data.len() } else { 0 };
        1 + 2 * INTEGER_BYTES_MAX + data
    }
}

/// Tells `data` in parts: where it has holes (relative, in order), what of it the base has, zeros, and the rest.
pub fn compose(data: &Bytes, holes: &[Range<usize>], copies: &[Copy]) -> Vec<Part> {
    let mut parts = Parts { data, list: Vec::new(), pending: 0..0 };
    let mut at = 0;
    for hole in holes {
        parts.fill(at..hole.start, copies);
        parts.push(Part::Hole(hole.len() as u64));
        at = hole.end;
    }
    parts.fill(at..data.len(), copies);
    parts.flush();
    // Of holes and copies of nothing: no part may make nothing.
    parts.list.retain(|part| !part.is_empty());
    parts.list
}

struct Parts<'a> {
    data: &'a Bytes,
    list: Vec<Part>,
    /// Data that is not in the list yet, because more may follow it directly.
    pending: Range<usize>,
}

impl Parts<'_> {
    /// A stretch without holes.
    fn fill(&mut self, range: Range<usize>, copies: &[Copy]) {
        let mut at = range.start;
        let first = copies.partition_point(|copy| copy.at + copy.len <= range.start);
        for copy in &copies[first..] {
            if copy.at >= range.end {
                break;
            }
            let (start, end) = (copy.at.max(range.start), (copy.at + copy.len).min(range.end));
            self.literal(at..start);
            self.push(Part::Copy { from: copy.from + (start - copy.at) as u64, len: (end - start) as u64 });
            at = end;
        }
        self.literal(at..range.end);
    }

    fn literal(&mut self, range: Range<usize>) {
        let mut at = range.start;
        while at < range.end {
            let end = ((at / PAGE_BYTES + 1) * PAGE_BYTES).min(range.end);
            if is_zero(&self.data[at..end]) {
                self.push(Part::Zeros((end - at) as u64));
            } else if self.pending.end == at && !self.pending.is_empty() {
                self.pending.end = end;
            } else {
                self.flush();
                self.pending = at..end;
            }
            at = end;
        }
    }

    fn flush(&mut self) {
        if !self.pending.is_empty() {
            self.list.push(Part::Data(self.data.slice(self.pending.clone())));
            self.pending = 0..0;
        }
    }

    fn push(&mut self, part: Part) {
        self.flush();
        match (self.list.last_mut(), &part) {
            (Some(Part::Zeros(last)), Part::Zeros(len)) | (Some(Part::Hole(last)), Part::Hole(len)) => *last += len,
            (Some(Part::Copy { from: base, len: last }), Part::Copy { from, len }) if *base + *last == *from => {
                *last += len;
            }
            _ => self.list.push(part),
        }
    }
}

/// Whole words at a time; a page that holds anything usually says so in its first bytes.
pub fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<32>();
    words.iter().all(|word| *word == [0; 32]) && rest.iter().all(|byte| *byte == 0)
}

static ZEROS: [u8; PAGE_BYTES] = [0; PAGE_BYTES];

/// BLAKE3 of what the parts make; of a copy, only the sink knows.
pub fn digest(parts: &[Part]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        match part {
            Part::Data(data) => {
                hasher.update(data);
            }
            Part::Zeros(len) | Part::Hole(len) | Part::Copy { len, .. } => {
                let mut left = *len;
                while left > 0 {
                    let now = left.min(PAGE_BYTES as u64);
                    hasher.update(&ZEROS[..now as usize]);
                    left -= now;
                }
            }
        }
    }
    hasher.finalize().into()
}

pub fn encode(parts: &[Part], w: &mut Writer) {
    w.uint(parts.len() as u64);
    for part in parts {
        match part {
            Part::Data(data) => w.u8(1).bytes(data),
            Part::Zeros(len) => w.u8(2).uint(*len),
            Part::Hole(len) => w.u8(3).uint(*len),
            Part::Copy { from, len } => w.u8(4).uint(*from).uint(*len),
        };
    }
}

/// `frame` is what `r` reads: data is shared with it, not copied. Refuses parts that make more than `bytes_max`.
pub fn decode(frame: &Bytes, r: &mut Reader<'_>, bytes_max: u64) -> Result<Vec<Part>, DecodeError> {
    let count = r.count(2)?;
    let mut parts = Vec::with_capacity(count);
    let mut total = 0u64;
    for _ in 0..count {
        let part = match r.u8()? {
            1 => Part::Data(frame.slice_ref(r.bytes()?)),
            2 => Part::Zeros(r.uint()?),
            3 => Part::Hole(r.uint()?),
            4 => Part::Copy { from: r.uint()?, len: r.uint()? },
            other => {
                return Err(DecodeError::Unknown { what: "part", value: other.into() });
            }
        };
        // Each takes memory: those that make nothing would take it without end.
        if part.is_empty() {
            return Err(DecodeError::Unknown { what: "length of a part", value: 0 });
        }
        total = total.saturating_add(part.len());
        if total > bytes_max {
            return Err(DecodeError::TooLarge { what: "length of parts", value: total, limit: bytes_max });
        }
        parts.push(part);
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn assembled(parts: &[Part], base: &[u8]) -> Vec<u8> {
        let mut content = Vec::new();
        for part in parts {
            match part {
                Part::Data(data) => content.extend_from_slice(data),
                Part::Zeros(len) | Part::Hole(len) => content.resize(content.len() + *len as usize, 0),
                Part::Copy { from, len } => content.extend_from_slice(&base[*from as usize..(from + len) as usize]),
            }
        }
        content
    }

    fn content() -> impl Strategy<Value = Vec<u8>> {
        let run = (any::<u8>(), 1usize..9000).prop_map(|(byte, len)| vec![if byte < 80 { 0 } else { byte }; len]);
        proptest::collection::vec(run, 0..30).prop_map(|runs| runs.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn patched_base_is_the_content(
            a in content(),
            edits in proptest::collection::vec((any::<u32>(), any::<u8>()), 0..8),
            cut in any::<u16>(),
            shift in 0usize..70_000,
        ) {
            let mut b = a.clone();
            for (at, byte) in edits {
                if !b.is_empty() {
                    let at = at as usize % b.len();
                    b[at] = byte;
                }
            }
            b.truncate(b.len().saturating_sub(cut as usize / 4));
            let base = [vec![9; shift], a].concat();
            let leaves = super::super::block::leaves(&base[shift..]);
            let differing = super::super::block::differing(&b, &leaves);
            let pages = super::super::block::pages(&base[shift..], differing);
            let copies = super::super::block::copies(&b, shift as u64, differing, &pages);
            let parts = compose(&b.clone().into(), &[], &copies);
            prop_assert_eq!(assembled(&parts, &base), b);
        }

        #[test]
        fn parts_come_back(a in content(), hole in 0usize..20_000) {
            let holes = Vec::from_iter((hole < a.len()).then_some(hole / 2..hole));
            let mut a = a;
            holes.iter().for_each(|hole| a[hole.clone()].fill(0));
            let parts = compose(&a.clone().into(), &holes, &[Copy { at: 0, from: 0, len: hole.min(a.len()) / 3 }]);
            let mut w = Writer::new();
            encode(&parts, &mut w);
            let frame = Bytes::from(w.into_bytes());
            let mut r = Reader::new(&frame);
            let decoded = decode(&frame, &mut r, a.len() as u64).unwrap();
            r.end().unwrap();
            prop_assert_eq!(assembled(&decoded, &a), a);
            prop_assert_eq!(decoded, parts);
        }
    }

    #[test]
    fn forged_length_is_refused() {
        let mut w = Writer::new();
        encode(&[Part::Hole(u64::MAX), Part::Zeros(u64::MAX)], &mut w);
        let frame = Bytes::from(w.into_bytes());
        let error = decode(&frame, &mut Reader::new(&frame), 1 << 20).unwrap_err();
        assert!(matches!(error, DecodeError::TooLarge { .. }));
    }
}
