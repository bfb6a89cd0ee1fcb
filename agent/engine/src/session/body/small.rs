//! Many small files in one frame.
//!
//! ```text
//! batch = { id:uint (0 gone | 1 parts) }*
//! ```
//! The source reads files straight into the batch, so that it is built without a copy.

use std::io;

use bytes::Bytes;

use super::{BATCH_BYTES_MAX, BATCH_FILES_MAX, SMALL_BYTES_MAX, at_most};
use crate::{
    codec::{DecodeError, Reader, Writer},
    content::{Part, part},
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmallBody {
    pub id: u32,
    /// `None` when the source has no such file any more.
    pub parts: Option<Vec<Part>>,
}

/// Bodies as they travel, checked when they were received.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SmallBatch {
    records: Bytes,
}

impl SmallBatch {
    pub fn builder(bytes: usize) -> SmallBatchBuilder {
        SmallBatchBuilder(Vec::with_capacity(bytes))
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        w.raw(&self.records);
    }

    pub(super) fn decode(records: Bytes) -> Result<Self, DecodeError> {
        let batch = Self { records };
        let (mut count, mut bytes) = (0, 0);
        for body in batch.bodies() {
            count += 1;
            bytes += body?.parts.iter().flatten().map(Part::len).sum::<u64>();
        }
        at_most("number of small files", count, BATCH_FILES_MAX as u64)?;
        at_most("size of small files", bytes, BATCH_BYTES_MAX)?;
        Ok(batch)
    }

    pub fn bodies(&self) -> impl Iterator<Item = Result<SmallBody, DecodeError>> {
        let mut r = Reader::new(&self.records);
        std::iter::from_fn(move || (!r.is_empty()).then(|| self.body(&mut r)))
            .scan(false, |failed, body| (!std::mem::replace(failed, body.is_err())).then_some(body))
    }

    fn body(&self, r: &mut Reader<'_>) -> Result<SmallBody, DecodeError> {
        let id = r.u32()?;
        let parts = match r.u8()? {
            0 => None,
            1 => Some(part::decode(&self.records, r, SMALL_BYTES_MAX)?),
            other => {
                return Err(DecodeError::Unknown { what: "small body", value: other.into() });
            }
        };
        Ok(SmallBody { id, parts })
    }
}

#[derive(Debug)]
pub struct SmallBatchBuilder(Vec<u8>);

impl SmallBatchBuilder {
    pub fn gone(&mut self, id: u32) {
        let mut w = Writer::new();
        w.uint(id.into()).u8(0);
        self.0.extend_from_slice(&w.into_bytes());
    }

    pub fn parts(&mut self, id: u32, parts: &[Part]) {
        let mut w = Writer::new();
        part::encode(parts, w.uint(id.into()).u8(1));
        self.0.extend_from_slice(&w.into_bytes());
    }

    /// One data part of `size` bytes, which `read` fills.
    pub fn data(&mut self, id: u32, size: usize, read: impl FnOnce(&mut [u8]) -> io::Result<()>) -> io::Result<()> {
        if size == 0 {
            self.parts(id, &[]);
            return Ok(());
        }
        let mut head = Writer::new();
        head.uint(id.into()).u8(1).uint(1).u8(1).uint(size as u64);
        self.0.extend_from_slice(&head.into_bytes());
        let start = self.0.len();
        self.0.resize(start + size, 0);
        read(&mut self.0[start..])
    }

    pub fn finish(self) -> SmallBatch {
        SmallBatch { records: self.0.into() }
    }
}
