//! The commit record: redo and undo in one self-contained file, `volumes/<id>/commit`.
//!
//! ```text
//! record  = magic "DRVC", version 1; payload:
//!           direction:u8 state:bytes(JSON) { step }* { retired }* { digest[32] }*      (each list with its count first)
//! ```

use std::io;

use drover_linux::Dir;

use crate::{
    codec::{DecodeError, Reader, Writer},
    digest::Digest,
    plan::{Retired, Step},
    point::VolumeState,
    record::{self, RecordError, RecordKind},
};

use super::codec;

const NAME: &[u8] = b"commit";
const RECORD: RecordKind = RecordKind { magic: *b"DRVC", version: 1 };

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Forward,
    Undo,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CommitRecord {
    pub(crate) direction: Direction,
    /// As it will be once the steps are done; its `transaction` tells whether that is so.
    pub(crate) state: VolumeState,
    pub(crate) steps: Vec<Step>,
    pub(crate) retired: Vec<Retired>,
    /// Contents that the tree takes from the pool.
    pub(crate) from_pool: Vec<Digest>,
}

impl CommitRecord {
    pub(super) fn reversed(&self) -> Self {
        Self { direction: Direction::Undo, ..self.clone() }
    }

    /// Durable when it returns: from here on the new point is certain, or its undoing.
    pub(crate) fn store(&self, beside: &Dir) -> io::Result<()> {
        record::replace(beside, NAME, RECORD, &self.encode()?)
    }

    pub(crate) fn remove(beside: &Dir) -> io::Result<()> {
        record::remove(beside, NAME)
    }

    pub(crate) fn load(beside: &Dir) -> Result<Option<Self>, RecordError> {
        let Some((_, payload)) = record::load(beside, NAME, RECORD)? else {
            return Ok(None);
        };
        let malformed = |source| RecordError::Malformed { name: "commit".to_owned(), source };
        Self::decode(&payload).map(Some).map_err(malformed)
    }

    fn encode(&self) -> io::Result<Vec<u8>> {
        let mut w = Writer::new();
        w.u8(match self.direction {
            Direction::Forward => 1,
            Direction::Undo => 2,
        });
        w.bytes(&serde_json::to_vec(&self.state)?);
        w.uint(self.steps.len() as u64);
        self.steps.iter().for_each(|step| codec::step(&mut w, step));
        w.uint(self.retired.len() as u64);
        self.retired.iter().for_each(|retired| codec::retired(&mut w, retired));
        w.uint(self.from_pool.len() as u64);
        for digest in &self.from_pool {
            w.digest(digest);
        }
        Ok(w.into_bytes())
    }

    fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(payload);
        let direction = match r.u8()? {
            1 => Direction::Forward,
            2 => Direction::Undo,
            value => {
                return Err(DecodeError::Unknown { what: "direction", value: value.into() });
            }
        };
        let state = serde_json::from_slice(r.bytes()?).map_err(|_| DecodeError::Json)?;
        let count = r.count(2)?;
        let steps = (0..count).map(|_| codec::read_step(&mut r)).collect::<Result<_, _>>()?;
        let count = r.count(2)?;
        let retired = (0..count).map(|_| codec::read_retired(&mut r)).collect::<Result<_, _>>()?;
        let count = r.count(32)?;
        let from_pool = (0..count).map(|_| r.digest()).collect::<Result<_, _>>()?;
        r.end()?;
        Ok(Self { direction, state, steps, retired, from_pool })
    }
}
