//! The change from one snapshot to another, as bytes.
//!
//! ```text
//! frame  := change*
//! change := uint(bytes since the end of the change before, in this frame or an earlier one)  uint(2 * length + 1)  data
//!         | uint(the same)                                                                    uint(2 * length)             zeros
//! ```
//! Changes come in order of their offset and don't overlap. `uint` is LEB128, as in [`crate::codec`].

use serde::{Deserialize, Serialize};

use super::Range;
use crate::{
    codec::{DecodeError, Reader, Writer},
    digest::Digest,
};

/// A frame is sent once it has so much; one change of data is no longer.
pub const FRAME_BYTES: usize = 1 << 20;
/// Of a frame that came from somewhere: with the data that made it full, and the numbers between.
pub const FRAME_BYTES_MAX: usize = 4 << 20;

/// What a stream was in all. Equal on both sides, or something was lost on the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// BLAKE3 of all frames, one after another.
    pub digest: Digest,
    pub data_bytes: u64,
    pub zero_bytes: u64,
}

impl Totals {
    pub fn is_empty(&self) -> bool {
        self.data_bytes == 0 && self.zero_bytes == 0
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    Data { offset: u64, data: &'a [u8] },
    Zeros(Range),
}

/// Counts and hashes what passes.
#[derive(Debug, Default)]
struct Sum {
    hasher: blake3::Hasher,
    data_bytes: u64,
    zero_bytes: u64,
}

impl Sum {
    fn totals(&self) -> Totals {
        let Self { hasher, data_bytes, zero_bytes } = self;
        Totals { digest: hasher.finalize().into(), data_bytes: *data_bytes, zero_bytes: *zero_bytes }
    }
}

#[derive(Debug, Default)]
pub struct Encoder {
    frame: Writer,
    /// End of the last change.
    end: u64,
    /// Zeros that may go on.
    zeros: Option<Range>,
    sum: Sum,
}

impl Encoder {
    /// # Panics
    /// When `offset` is before the end of what came before it.
    pub fn data(&mut self, offset: u64, data: &[u8]) {
        self.put_zeros();
        for (n, part) in data.chunks(FRAME_BYTES).enumerate() {
            let offset = offset + (n * FRAME_BYTES) as u64;
            self.head(Range { offset, length: part.len() as u64 }, 1);
            self.frame.raw(part);
            self.sum.data_bytes += part.len() as u64;
        }
    }

    /// # Panics
    /// As [`Encoder::data`].
    pub fn zeros(&mut self, range: Range) {
        match &mut self.zeros {
            Some(zeros) if zeros.end() == range.offset => zeros.length += range.length,
            _ => {
                self.put_zeros();
                self.zeros = Some(range);
            }
        }
    }

    fn put_zeros(&mut self) {
        if let Some(zeros) = self.zeros.take().filter(|zeros| zeros.length > 0) {
            self.head(zeros, 0);
            self.sum.zero_bytes += zeros.length;
        }
    }

    fn head(&mut self, range: Range, is_data: u64) {
        let gap = range.offset.checked_sub(self.end).expect("changes come in order of their offset");
        self.frame.uint(gap).uint(2 * range.length + is_data);
        self.end = range.end();
    }

    /// A frame that is long enough to be sent.
    pub fn full_frame(&mut self) -> Option<Vec<u8>> {
        if self.frame.len() >= FRAME_BYTES { self.take_frame() } else { None }
    }

    fn take_frame(&mut self) -> Option<Vec<u8>> {
        let frame = std::mem::replace(&mut self.frame, Writer::with_capacity(2 * FRAME_BYTES)).into_bytes();
        self.sum.hasher.update(&frame);
        Some(frame).filter(|frame| !frame.is_empty())
    }

    /// The rest.
    pub fn finish(mut self) -> (Option<Vec<u8>>, Totals) {
        self.put_zeros();
        let frame = self.take_frame();
        (frame, self.sum.totals())
    }
}

/// Never trusts a frame.
#[derive(Debug)]
pub struct Decoder {
    size_bytes: u64,
    end: u64,
    sum: Sum,
}

impl Decoder {
    /// Of an image of this size.
    pub fn new(size_bytes: u64) -> Self {
        Self { size_bytes, end: 0, sum: Sum::default() }
    }

    pub fn changes<'a>(&mut self, frame: &'a [u8]) -> Result<Vec<Change<'a>>, DecodeError> {
        let too_large = |what, value: usize, limit: usize| {
            Err(DecodeError::TooLarge { what, value: value as u64, limit: limit as u64 })
        };
        if frame.len() > FRAME_BYTES_MAX {
            return too_large("length of a frame", frame.len(), FRAME_BYTES_MAX);
        }
        let (mut reader, mut changes) = (Reader::new(frame), Vec::new());
        while !reader.is_empty() {
            let (gap, coded) = (reader.uint()?, reader.uint()?);
            let (length, is_data) = (coded / 2, coded % 2 == 1);
            let offset = self.end.checked_add(gap).ok_or(DecodeError::Overflow)?;
            let end = offset.checked_add(length).ok_or(DecodeError::Overflow)?;
            if end > self.size_bytes || length == 0 {
                return Err(DecodeError::TooLarge { what: "end of a change", value: end, limit: self.size_bytes });
            }
            self.end = end;
            if is_data {
                let data = reader.raw(usize::try_from(length).map_err(|_| DecodeError::Overflow)?)?;
                changes.push(Change::Data { offset, data });
                self.sum.data_bytes += length;
            } else {
                changes.push(Change::Zeros(Range { offset, length }));
                self.sum.zero_bytes += length;
            }
        }
        self.sum.hasher.update(frame);
        Ok(changes)
    }

    pub fn totals(&self) -> Totals {
        self.sum.totals()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Offset, length, and whether it is data.
    fn changes() -> impl Strategy<Value = Vec<(u64, usize, bool)>> {
        let change = (0..3 * FRAME_BYTES as u64, 1..FRAME_BYTES + 5, any::<bool>());
        proptest::collection::vec(change, 0..12).prop_map(|gaps| {
            let mut end = 0;
            let placed = gaps.into_iter().map(|(gap, length, is_data)| {
                let offset = end + gap;
                end = offset + length as u64;
                (offset, length, is_data)
            });
            placed.collect()
        })
    }

    fn apply(image: &mut [u8], change: Change<'_>) {
        match change {
            Change::Data { offset, data } => image[offset as usize..][..data.len()].copy_from_slice(data),
            Change::Zeros(range) => image[range.offset as usize..][..range.length as usize].fill(0),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn what_is_written_is_read(changes in changes(), seed in any::<u8>()) {
            let size = changes.last().map_or(0, |(offset, length, _)| offset + *length as u64);
            let (mut expected, mut found) = (vec![7; size as usize], vec![7; size as usize]);
            let (mut encoder, mut frames) = (Encoder::default(), Vec::new());
            for (offset, length, is_data) in changes {
                let data: Vec<u8> = (0..length).map(|n| (n as u8).wrapping_mul(31) ^ seed).collect();
                if is_data {
                    encoder.data(offset, &data);
                    apply(&mut expected, Change::Data { offset, data: &data });
                } else {
                    let range = Range { offset, length: length as u64 };
                    encoder.zeros(range);
                    apply(&mut expected, Change::Zeros(range));
                }
                frames.extend(encoder.full_frame());
            }
            let (last, totals) = encoder.finish();
            frames.extend(last);
            let mut decoder = Decoder::new(size);
            for frame in &frames {
                for change in decoder.changes(frame).unwrap() {
                    apply(&mut found, change);
                }
            }
            prop_assert!(found == expected);
            prop_assert_eq!(decoder.totals(), totals);
        }

        #[test]
        fn no_frame_panics(frame in any::<Vec<u8>>()) {
            let _ = Decoder::new(1 << 40).changes(&frame);
        }
    }

    #[test]
    fn what_lies_beyond_the_image_is_refused() {
        let mut encoder = Encoder::default();
        encoder.data(100, b"data");
        let (frame, _) = encoder.finish();
        let frame = frame.unwrap();
        assert!(Decoder::new(104).changes(&frame).is_ok());
        assert!(matches!(Decoder::new(103).changes(&frame), Err(DecodeError::TooLarge { limit: 103, .. })));
    }

    #[test]
    fn zeros_that_go_on_are_one_change() {
        let mut encoder = Encoder::default();
        encoder.zeros(Range { offset: 0, length: 10 });
        encoder.zeros(Range { offset: 10, length: 20 });
        let (frame, totals) = encoder.finish();
        let mut decoder = Decoder::new(30);
        assert_eq!(decoder.changes(&frame.unwrap()).unwrap(), [Change::Zeros(Range { offset: 0, length: 30 })]);
        assert_eq!((totals.zero_bytes, totals.data_bytes), (30, 0));
        assert!(!totals.is_empty() && Totals::default().is_empty());
    }
}
