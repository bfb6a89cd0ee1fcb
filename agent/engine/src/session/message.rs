//! The messages of a session, and their bytes.
//!
//! What is small and grows from release to release (options, states, reports) travels as JSON inside its message; what
//! is large (blocks, bodies) in the engine's own encoding.

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    body::{BodyMessage, Known},
    image::ImageMessage,
};
use crate::{
    bases::FoundByCounts,
    codec::{DecodeError, Reader, Writer},
    content::Part,
    id::VolumeId,
    path::RelPath,
    point::{Label, Point, VolumeState},
};

/// Which end of a sync an agent is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    Source,
    Sink,
}

impl Side {
    pub fn other(self) -> Self {
        match self {
            Self::Source => Self::Sink,
            Self::Sink => Self::Source,
        }
    }
}

/// Guards and choices of one sync.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncOptions {
    /// Refuse when more than this share of the replica's entries would be deleted.
    pub delete_percent_max: u8,
    /// Refuse when more than this many entries would be deleted.
    #[serde(default)]
    pub delete_entries_max: Option<u64>,
    /// An empty source may empty the replica.
    #[serde(default)]
    pub allow_empty_source: bool,
    /// Make a new point even when nothing changed.
    #[serde(default)]
    pub always_point: bool,
}

impl Default for SyncOptions {
    fn default() -> Self {
        Self { delete_percent_max: 50, delete_entries_max: None, allow_empty_source: false, always_point: false }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Intent {
    Sync(SyncOptions),
    /// Stops at the plan.
    Plan(SyncOptions),
    /// Compares both copies with each other and with the newest point; `deep` reads all content again.
    Verify {
        deep: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub version_min: u16,
    pub version_max: u16,
    pub release: String,
    pub volume: VolumeId,
    /// What the dialer is.
    pub side: Side,
    pub intent: Intent,
    /// The job's request id, so that both sides name it the same.
    pub request: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    pub version: u16,
    pub release: String,
}

/// The source's side of the bargain, after its scan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    pub state: VolumeState,
    /// `Manifest::encode_root`, as hexadecimal digits.
    pub root: String,
    pub label: Label,
    /// Paths that changed while they were read, shortened to the first hundred.
    pub fuzzy: Vec<RelPath>,
    pub taken_at: i64,
    /// Verify only: files whose content changed though their times did not.
    #[serde(default)]
    pub rotten: Vec<RelPath>,
    /// Big files that were read, by how their change was found.
    #[serde(default)]
    pub found_by: FoundByCounts,
}

/// Why the other side stops.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub kind: crate::error::Kind,
    /// Stable, documented name.
    pub reason: String,
    pub message: String,
}

/// A directory's block, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    pub path: RelPath,
    pub is_last: bool,
    pub bytes: Bytes,
}

#[derive(Clone, Debug)]
pub enum Message {
    Hello(Hello),
    Welcome(Welcome),
    Offer(Offer),
    List(Vec<RelPath>),
    /// Blocks of the directories asked for, in the order of the question; several frames may answer one, and a block
    /// that is longer than a frame comes in pieces.
    Listing(Vec<Piece>),
    LookAgain(Vec<RelPath>),
    StillThere(Vec<RelPath>),
    /// How much of sparse files has blocks: asked when there is not room enough for all of their size.
    Allocated(Vec<RelPath>),
    /// Bytes, in the order of the question; 0 for a file that is gone.
    AllocatedAre(Vec<u64>),
    /// How much of a file, as the source's scan saw it, differs from a content that the replica has.
    Differing {
        path: RelPath,
        from: Known,
    },
    /// Bytes at most; `None` when the source does not know that content.
    DifferingIs(Option<u64>),
    Body(BodyMessage),
    Image(ImageMessage),
    Propose(Box<Point>),
    Proceed,
    /// JSON of the sink's report.
    Finished(String),
    Failure(Failure),
}

/// What most messages need, and the rest of one with content, its checksum included.
const SHORT_BYTES: usize = 128;

impl Message {
    /// Kind and payload, unsealed.
    /// What is long in a message: with room for it nothing is moved while the rest is written.
    fn content_bytes(&self) -> usize {
        match self {
            Self::Body(BodyMessage::Range { parts, .. } | BodyMessage::Proved { parts, .. }) => {
                parts.iter().map(Part::encoded_bytes).sum()
            }
            Self::Image(image) => image.content_bytes(),
            _ => 0,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(self.content_bytes() + SHORT_BYTES);
        match self {
            Self::Hello(hello) => json(w.u8(1), hello),
            Self::Welcome(welcome) => json(w.u8(2), welcome),
            Self::Offer(offer) => json(w.u8(3), offer),
            Self::List(paths) => encode_paths(w.u8(4), paths),
            Self::Listing(blocks) => {
                w.u8(5).uint(blocks.len() as u64);
                for piece in blocks {
                    w.path(&piece.path).u8(piece.is_last.into()).bytes(&piece.bytes);
                }
            }
            Self::LookAgain(paths) => encode_paths(w.u8(6), paths),
            Self::StillThere(paths) => encode_paths(w.u8(7), paths),
            Self::Allocated(paths) => encode_paths(w.u8(13), paths),
            Self::AllocatedAre(bytes) => {
                w.u8(14).uint(bytes.len() as u64);
                for bytes in bytes {
                    w.uint(*bytes);
                }
            }
            Self::Differing { path, from } => {
                w.u8(15).path(path).digest(&from.digest).uint(from.size);
            }
            Self::DifferingIs(bytes) => {
                w.u8(16).u8(bytes.is_some().into()).uint(bytes.unwrap_or(0));
            }
            Self::Body(body) => body.encode(w.u8(8)),
            Self::Image(image) => image.encode(w.u8(17)),
            Self::Propose(point) => json(w.u8(9), point),
            Self::Proceed => {
                w.u8(10);
            }
            Self::Finished(report) => {
                w.u8(11).raw(report.as_bytes());
            }
            Self::Failure(failure) => json(w.u8(12), failure),
        }
        w.into_bytes()
    }

    pub(super) fn decode(kind: u8, payload: Bytes) -> Result<Self, DecodeError> {
        let mut r = Reader::new(&payload);
        let message = match kind {
            1 => return parse(&payload).map(Self::Hello),
            2 => return parse(&payload).map(Self::Welcome),
            3 => return parse(&payload).map(Self::Offer),
            4 => Self::List(decode_paths(&mut r)?),
            5 => {
                let count = r.count(3)?;
                let pieces = (0..count).map(|_| {
                    let (path, is_last) = (r.path()?, r.u8()? != 0);
                    Ok(Piece { path, is_last, bytes: Bytes::copy_from_slice(r.bytes()?) })
                });
                Self::Listing(pieces.collect::<Result<_, DecodeError>>()?)
            }
            6 => Self::LookAgain(decode_paths(&mut r)?),
            7 => Self::StillThere(decode_paths(&mut r)?),
            8 => return BodyMessage::decode(payload).map(Self::Body),
            9 => return parse(&payload).map(Self::Propose),
            10 => Self::Proceed,
            11 => {
                let text = std::str::from_utf8(&payload).map_err(|_| DecodeError::Json)?;
                return Ok(Self::Finished(text.to_owned()));
            }
            12 => return parse(&payload).map(Self::Failure),
            13 => Self::Allocated(decode_paths(&mut r)?),
            14 => {
                let count = r.count(1)?;
                Self::AllocatedAre((0..count).map(|_| r.uint()).collect::<Result<_, _>>()?)
            }
            15 => Self::Differing { path: r.path()?, from: Known { digest: r.digest()?, size: r.uint()? } },
            16 => {
                let (is_known, bytes) = (r.u8()? != 0, r.uint()?);
                Self::DifferingIs(is_known.then_some(bytes))
            }
            17 => return ImageMessage::decode(&payload).map(Self::Image),
            other => {
                return Err(DecodeError::Unknown { what: "message", value: other.into() });
            }
        };
        r.end()?;
        Ok(message)
    }

    /// For "expected …, got …".
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "hello",
            Self::Welcome(_) => "welcome",
            Self::Offer(_) => "offer",
            Self::List(_) => "list",
            Self::Listing(_) => "listing",
            Self::LookAgain(_) => "look-again",
            Self::StillThere(_) => "still-there",
            Self::Allocated(_) => "allocated",
            Self::AllocatedAre(_) => "allocated-are",
            Self::Differing { .. } => "differing",
            Self::DifferingIs(_) => "differing-is",
            Self::Body(_) => "body",
            Self::Image(image) => image.name(),
            Self::Propose(_) => "propose",
            Self::Proceed => "proceed",
            Self::Finished(_) => "finished",
            Self::Failure(_) => "failure",
        }
    }
}

pub(super) fn json<T: Serialize>(w: &mut Writer, value: &T) {
    w.raw(&serde_json::to_vec(value).expect("messages are plain data"));
}

pub(super) fn parse<T: DeserializeOwned>(payload: &[u8]) -> Result<T, DecodeError> {
    serde_json::from_slice(payload).map_err(|_| DecodeError::Json)
}

fn encode_paths(w: &mut Writer, paths: &[RelPath]) {
    w.uint(paths.len() as u64);
    for path in paths {
        w.path(path);
    }
}

fn decode_paths(r: &mut Reader<'_>) -> Result<Vec<RelPath>, DecodeError> {
    let count = r.count(1)?;
    (0..count).map(|_| r.path()).collect()
}
