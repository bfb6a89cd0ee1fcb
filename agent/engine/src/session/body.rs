//! Moving the content of files inside a session.
//!
//! The sink asks, the source answers; each request has exactly one answer, and at most `REQUESTS_MAX` are open. That
//! bound is why nobody blocks for ever: the source can always take a request in, so its loop always receives, and the
//! sink's receiving thread does nothing else, so answers always drain.
//!
//! ```text
//! sink                                   source
//!   WantSmall(files) ->                                            whole small files, many in one frame
//!                                      <- Small(bodies)
//!   WantRange(file, range, basis) ->                               a segment, and what the sink's base holds there
//!                                      <- Range(parts)             or Proved(parts, …): and so the new leaves are known;
//!                                                                  or Differs(leaves): the sink asks again, in detail;
//!                                                                  or Unknown: the basis was only named, and is told now;
//!                                                                  or Run: a hole, or the same as the base, and how far it goes
//!   Recheck(file) ->                                               what came is not what was wanted
//!                                      <- Changed(meta, body, …)   as the file is now
//! ```
//! Each answer may be that the file is gone; `Failed` ends the session. A file is named by its path and the body
//! that the source's scan recorded. The source does not check what it reads against that body: the sink does, before it
//! keeps a small file and once a big one is complete, and asks for a recheck when they differ.

mod dirs;
mod error;
mod sink;
mod small;
mod source;
#[cfg(test)]
mod tests;

use bytes::Bytes;

use crate::{
    codec::{DecodeError, Reader, Writer},
    content::{
        Part, SEGMENT_BYTES,
        block::{LeafDigest, Leaves, PageDigest},
        part, shift,
    },
    digest::Digest,
    pages::KnownPages,
    path::RelPath,
    tree::{Body, Meta},
};

pub use error::BodyError;
pub use sink::{Dest, Fetch, Fetched, Leftovers, Replica, Way, fetch};
pub use small::{SmallBatch, SmallBody};
pub use source::Server;

/// Files up to this size travel whole.
pub const SMALL_BYTES_MAX: u64 = 256 << 10;
/// Content that one `WantSmall` asks for, and so about what a `Small` carries.
pub const BATCH_BYTES_MAX: u64 = 1 << 20;
pub const BATCH_FILES_MAX: usize = 512;
/// Requests without an answer.
pub const REQUESTS_MAX: usize = 128;

/// What a side may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Content that is asked for and not yet written.
    pub in_flight_bytes: u64,
    /// Threads that read or write.
    pub threads: usize,
}

impl Default for Limits {
    fn default() -> Self {
        // They wait for the disk or the link most of the time.
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Self { in_flight_bytes: crate::control::IN_FLIGHT_BYTES, threads: (cores * 2).clamp(4, 16) }
    }
}

/// A file at the source, with the body that is expected there. The sink chooses `id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    pub id: u32,
    pub path: RelPath,
    pub body: Body,
}

/// What the sink's base holds where the range is expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Basis {
    /// In the base, of the range's first byte; of the window for a signature.
    pub offset: u64,
    pub blocks: Blocks,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blocks {
    Leaves(Vec<LeafDigest>),
    /// Not told: all of this content, which the source may know.
    Known(Known),
    /// Of the leaves named; all others are known to be the same.
    Pages {
        leaves: Leaves,
        digests: Vec<PageDigest>,
    },
    Signature(Bytes),
}

/// What holds for a long stretch, so that nobody asks for its segments one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    Hole,
    /// What the base holds there, which was named.
    Same,
}

/// A whole content, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    pub digest: Digest,
    pub size: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantRange {
    pub want: Want,
    pub offset: u64,
    pub length: usize,
    pub basis: Option<Basis>,
}

/// A file as the source finds it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    pub id: u32,
    pub meta: Meta,
    pub body: Body,
    pub settled: Settled,
    /// For small files: all of it, and exactly what `body` says.
    pub content: Option<Vec<Part>>,
}

/// Whether a file held still while it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    Still,
    Moving,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyMessage {
    WantSmall(Vec<Want>),
    WantRange(WantRange),
    Recheck(Want),
    Small(SmallBatch),
    Range {
        id: u32,
        offset: u64,
        parts: Vec<Part>,
    },
    /// A range of whole leaves against a base that was named, with what the base has of the leaves that differ: the
    /// digests of the new leaves follow from that and from the data.
    Proved {
        id: u32,
        offset: u64,
        parts: Vec<Part>,
        pages: KnownPages,
    },
    /// More than was asked for: everything from the offset on, `length` bytes.
    Run {
        id: u32,
        offset: u64,
        length: u64,
        what: Run,
    },
    /// Leaves that the basis does not have.
    Differs {
        id: u32,
        offset: u64,
        leaves: Leaves,
    },
    /// Answers a basis that only names a content: the source does not know it.
    Unknown {
        id: u32,
        offset: u64,
    },
    Changed(Box<Changed>),
    /// Answers a recheck.
    Gone {
        id: u32,
    },
    /// Answers a range: the file is gone.
    GoneRange {
        id: u32,
        offset: u64,
    },
    /// The source can't read the file: the sync is over.
    Failed {
        id: u32,
        message: String,
    },
}

const FAILED_MESSAGE_BYTES_MAX: usize = 4096;

impl BodyMessage {
    pub fn encode(&self, w: &mut Writer) {
        match self {
            Self::WantSmall(wants) => {
                w.u8(1).uint(wants.len() as u64);
                wants.iter().for_each(|want| want.encode(w));
            }
            Self::WantRange(range) => range.encode(w.u8(2)),
            Self::Recheck(want) => want.encode(w.u8(3)),
            Self::Small(batch) => batch.encode(w.u8(4)),
            Self::Range { id, offset, parts } => part::encode(parts, w.u8(5).uint((*id).into()).uint(*offset)),
            Self::Proved { id, offset, parts, pages } => {
                w.u8(13).uint((*id).into()).uint(*offset).uint(pages.leaves).bytes(pages.values.as_flattened());
                part::encode(parts, w);
            }
            Self::Differs { id, offset, leaves } => {
                w.u8(6).uint((*id).into()).uint(*offset).uint(*leaves);
            }
            Self::Changed(changed) => changed.encode(w.u8(7)),
            Self::Gone { id } => {
                w.u8(8).uint((*id).into());
            }
            Self::GoneRange { id, offset } => {
                w.u8(10).uint((*id).into()).uint(*offset);
            }
            Self::Run { id, offset, length, what } => {
                let what = match what {
                    Run::Hole => 1,
                    Run::Same => 2,
                };
                w.u8(12).uint((*id).into()).uint(*offset).uint(*length).u8(what);
            }
            Self::Unknown { id, offset } => {
                w.u8(11).uint((*id).into()).uint(*offset);
            }
            Self::Failed { id, message } => {
                w.u8(9).uint((*id).into()).bytes(message.as_bytes());
            }
        }
    }

    /// Content is shared with `payload`, not copied.
    pub fn decode(payload: Bytes) -> Result<Self, DecodeError> {
        let mut r = Reader::new(&payload);
        let message = match r.u8()? {
            1 => Self::WantSmall(decode_small_wants(&mut r)?),
            2 => Self::WantRange(WantRange::decode(&payload, &mut r)?),
            3 => Self::Recheck(Want::decode(&mut r)?),
            4 => return SmallBatch::decode(payload.slice(1..)).map(Self::Small),
            5 => {
                let (id, offset) = (r.u32()?, r.uint()?);
                Self::Range { id, offset, parts: part::decode(&payload, &mut r, SEGMENT_BYTES as u64)? }
            }
            6 => Self::Differs { id: r.u32()?, offset: r.uint()?, leaves: r.uint()? },
            7 => Self::Changed(Box::new(Changed::decode(&payload, &mut r)?)),
            8 => Self::Gone { id: r.u32()? },
            9 => {
                let (id, text) = (r.u32()?, r.bytes()?);
                at_most("length of a reason", text.len() as u64, FAILED_MESSAGE_BYTES_MAX as u64)?;
                Self::Failed { id, message: String::from_utf8_lossy(text).into_owned() }
            }
            10 => Self::GoneRange { id: r.u32()?, offset: r.uint()? },
            11 => Self::Unknown { id: r.u32()?, offset: r.uint()? },
            12 => {
                let (id, offset, length) = (r.u32()?, r.uint()?, r.uint()?);
                let what = match r.u8()? {
                    1 => Run::Hole,
                    2 => Run::Same,
                    other => return Err(DecodeError::Unknown { what: "run", value: other.into() }),
                };
                Self::Run { id, offset, length, what }
            }
            13 => {
                let (id, offset) = (r.u32()?, r.uint()?);
                let pages = KnownPages { leaves: r.uint()?, values: digests(&mut r)? };
                Self::Proved { id, offset, parts: part::decode(&payload, &mut r, SEGMENT_BYTES as u64)?, pages }
            }
            other => {
                return Err(DecodeError::Unknown { what: "body message", value: other.into() });
            }
        };
        r.end()?;
        Ok(message)
    }

    /// The file, or the first of a batch.
    fn id(&self) -> u32 {
        match self {
            Self::WantSmall(wants) => wants.first().map_or(0, |want| want.id),
            Self::WantRange(range) => range.want.id,
            Self::Recheck(want) => want.id,
            Self::Small(batch) => batch.bodies().find_map(Result::ok).map_or(0, |body| body.id),
            Self::Changed(changed) => changed.id,
            Self::Range { id, .. }
            | Self::Proved { id, .. }
            | Self::Differs { id, .. }
            | Self::Gone { id }
            | Self::GoneRange { id, .. }
            | Self::Unknown { id, .. }
            | Self::Run { id, .. }
            | Self::Failed { id, .. } => *id,
        }
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::WantSmall(_) => "want-small",
            Self::WantRange(_) => "want-range",
            Self::Recheck(_) => "recheck",
            Self::Small(_) => "small",
            Self::Range { .. } => "range",
            Self::Proved { .. } => "proved",
            Self::Differs { .. } => "differs",
            Self::Changed(_) => "changed",
            Self::Gone { .. } => "gone",
            Self::GoneRange { .. } => "gone-range",
            Self::Unknown { .. } => "unknown",
            Self::Run { .. } => "run",
            Self::Failed { .. } => "failed",
        }
    }
}

fn at_most(what: &'static str, value: u64, limit: u64) -> Result<(), DecodeError> {
    if value > limit { Err(DecodeError::TooLarge { what, value, limit }) } else { Ok(()) }
}

fn decode_small_wants(r: &mut Reader<'_>) -> Result<Vec<Want>, DecodeError> {
    // id, path, size, digest, holes
    let count = r.count(1 + 1 + 1 + 32 + 1)?;
    at_most("number of small files", count as u64, BATCH_FILES_MAX as u64)?;
    let wants = (0..count).map(|_| Want::decode(r)).collect::<Result<Vec<_>, _>>()?;
    wants.iter().try_for_each(|want| at_most("size of a small file", want.body.size, SMALL_BYTES_MAX))?;
    let total = wants.iter().map(|want| want.body.size).sum();
    at_most("size of small files", total, BATCH_BYTES_MAX)?;
    Ok(wants)
}

impl Want {
    fn encode(&self, w: &mut Writer) {
        w.uint(self.id.into()).path(&self.path);
        self.body.encode(w);
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { id: r.u32()?, path: r.path()?, body: Body::decode(r)? })
    }
}

impl WantRange {
    fn encode(&self, w: &mut Writer) {
        self.want.encode(w);
        w.uint(self.offset).uint(self.length as u64);
        let Some(Basis { offset, blocks }) = &self.basis else {
            w.u8(0);
            return;
        };
        match blocks {
            Blocks::Leaves(digests) => w.u8(1).uint(*offset).bytes(digests.as_flattened()),
            Blocks::Pages { leaves, digests } => w.u8(2).uint(*offset).uint(*leaves).bytes(digests.as_flattened()),
            Blocks::Signature(signature) => w.u8(3).uint(*offset).bytes(signature),
            Blocks::Known(known) => w.u8(4).uint(*offset).digest(&known.digest).uint(known.size),
        };
    }

    fn decode(frame: &Bytes, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (want, offset, length) = (Want::decode(r)?, r.uint()?, r.uint()?);
        at_most("length of a range", length, SEGMENT_BYTES as u64)?;
        at_most("end of a range", offset.saturating_add(length), want.body.size)?;
        let basis = match r.u8()? {
            0 => None,
            kind => Some(Basis::decode(kind, frame, r)?),
        };
        Ok(Self { want, offset, length: length as usize, basis })
    }
}

impl Basis {
    fn decode(kind: u8, frame: &Bytes, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let offset = r.uint()?;
        at_most("offset of a basis", offset, i64::MAX as u64)?;
        let blocks = match kind {
            1 => Blocks::Leaves(digests(r)?),
            2 => Blocks::Pages { leaves: r.uint()?, digests: digests(r)? },
            3 => {
                let signature = frame.slice_ref(r.bytes()?);
                at_most("size of a signature", signature.len() as u64, shift::SIGNATURE_BYTES_MAX as u64)?;
                Blocks::Signature(signature)
            }
            4 => Blocks::Known(Known { digest: r.digest()?, size: r.uint()? }),
            other => {
                return Err(DecodeError::Unknown { what: "basis", value: other.into() });
            }
        };
        Ok(Self { offset, blocks })
    }
}

fn digests<const N: usize>(r: &mut Reader<'_>) -> Result<Vec<[u8; N]>, DecodeError> {
    let (digests, rest) = r.bytes()?.as_chunks::<N>();
    at_most("number of digests", digests.len() as u64, (SEGMENT_BYTES / crate::content::PAGE_BYTES) as u64)?;
    if rest.is_empty() { Ok(digests.to_vec()) } else { Err(DecodeError::Trailing { left: rest.len() }) }
}

impl Changed {
    fn encode(&self, w: &mut Writer) {
        w.uint(self.id.into());
        self.meta.encode(w);
        self.body.encode(w);
        w.u8(u8::from(self.settled == Settled::Moving));
        match &self.content {
            None => {
                w.u8(0);
            }
            Some(parts) => part::encode(parts, w.u8(1)),
        }
    }

    fn decode(frame: &Bytes, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (id, meta, body) = (r.u32()?, Meta::decode(r)?, Body::decode(r)?);
        let settled = match r.u8()? {
            0 => Settled::Still,
            1 => Settled::Moving,
            other => {
                return Err(DecodeError::Unknown { what: "state of a file", value: other.into() });
            }
        };
        let content = match r.u8()? {
            0 => None,
            1 => Some(part::decode(frame, r, SMALL_BYTES_MAX)?),
            other => {
                return Err(DecodeError::Unknown { what: "content", value: other.into() });
            }
        };
        Ok(Self { id, meta, body, settled, content })
    }
}
