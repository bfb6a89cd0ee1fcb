//! Calls that move content: while one is under way, agent and worker send each other frames over the socket that requests and replies take.
//!
//! ```text
//! agent                    worker
//!   Request::Data(…) ->                     what is asked for
//!   Frame(…)* End ->                        ranges that are asked for besides (Read), or the change (Write)
//!                          <- Frame(…)*     ranges (Head), the change (Read), or leaves (Digests)
//!                          <- End(Done)     or Failed
//! ```

use bytes::Bytes;
use drover_engine::{
    digest::Digest,
    image::{Leaf, Range, stream::Totals},
    session::SessionError,
};
use serde::{Deserialize, Serialize};

use crate::{request::Failure, view::ImagePlace};

/// Snapshots are named as the image's are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DataRequest {
    /// Where the head may differ from a snapshot, or from zeros. Answered with frames of ranges.
    Head { place: ImagePlace, since: Option<String> },
    /// The change from one snapshot, or from leaves that follow, to another one; and all that the latter has in the ranges that follow: frames of
    /// ranges, an empty one, frames of leaves. Answered with frames of `image::stream`.
    Read { place: ImagePlace, from: Option<String>, to: String },
    /// Of the leaves of a snapshot, or of the head. Answered with frames of leaves.
    Digests { place: ImagePlace, of: Option<String> },
    /// Makes the head so large, and writes what follows to it.
    Write { place: ImagePlace, size_bytes: u64 },
    /// Makes the head what the snapshot is.
    Restore { place: ImagePlace, to: String },
}

impl DataRequest {
    pub fn place(&self) -> &ImagePlace {
        match self {
            Self::Head { place, .. }
            | Self::Read { place, .. }
            | Self::Digests { place, .. }
            | Self::Write { place, .. }
            | Self::Restore { place, .. } => place,
        }
    }

    /// Whether a worker that is killed over it may have changed something.
    pub fn changes(&self) -> bool {
        match self {
            Self::Head { .. } | Self::Read { .. } | Self::Digests { .. } => false,
            Self::Write { .. } | Self::Restore { .. } => true,
        }
    }
}

/// The last word of a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    Done(Totals),
    Failed(Failure),
}

/// What is moved, as the agent has it.
pub(crate) trait Content {
    /// What the worker gets next. `None`: there is no more.
    fn give(&mut self) -> Result<Option<Bytes>, SessionError> {
        Ok(None)
    }

    /// What comes from the worker, which comes after all that it gets. An empty frame only says that it goes on.
    fn take(&mut self, _frame: Bytes) -> Result<(), SessionError> {
        Ok(())
    }
}

const FRAME: u8 = 0;
const END: u8 = 1;

/// What the first byte of a message says.
pub(crate) enum Part {
    Frame(Bytes),
    /// Of the agent it is empty.
    End(Bytes),
}

impl Part {
    pub(crate) fn parse(message: Vec<u8>) -> Option<Self> {
        let kind = *message.first()?;
        let rest = Bytes::from(message).slice(1..);
        match kind {
            FRAME => Some(Self::Frame(rest)),
            END => Some(Self::End(rest)),
            _ => None,
        }
    }

    pub(crate) fn send(&self, to: &mut impl std::io::Write) -> std::io::Result<()> {
        match self {
            Self::Frame(frame) => crate::wire::send_bytes(to, &[&[FRAME], frame]),
            Self::End(end) => crate::wire::send_bytes(to, &[&[END], end]),
        }
    }
}

/// In one frame.
pub(crate) const RANGES_MAX: usize = 1 << 16;
pub(crate) const LEAVES_MAX: usize = 1 << 14;

/// 16 bytes each, little-endian.
pub(crate) fn encode_ranges(ranges: &[Range]) -> Vec<u8> {
    ranges.iter().flat_map(|range| [range.offset.to_le_bytes(), range.length.to_le_bytes()]).flatten().collect()
}

pub(crate) fn decode_ranges(frame: &[u8]) -> Vec<Range> {
    let (numbers, _) = frame.as_chunks::<8>();
    let (pairs, _) = numbers.as_chunks::<2>();
    let number = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
    pairs.iter().map(|[offset, length]| Range { offset: number(offset), length: number(length) }).collect()
}

/// 40 bytes each: the number, little-endian, and the digest.
pub(crate) fn encode_leaves(leaves: &[Leaf]) -> Vec<u8> {
    leaves.iter().flat_map(|leaf| leaf.number.to_le_bytes().into_iter().chain(*leaf.digest.as_bytes())).collect()
}

pub(crate) fn decode_leaves(frame: &[u8]) -> Vec<Leaf> {
    let (leaves, _) = frame.as_chunks::<{ 8 + Digest::BYTES }>();
    let leaf = |bytes: &[u8; 8 + Digest::BYTES]| {
        let (number, digest) = bytes.split_first_chunk().expect("eight bytes");
        let digest = digest.try_into().expect("the rest of a leaf");
        Leaf { number: u64::from_le_bytes(*number), digest: Digest::from_bytes(digest) }
    };
    leaves.iter().map(leaf).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_they_were_written() {
        let ranges = [Range { offset: 5, length: 1 << 40 }, Range { offset: u64::MAX, length: 0 }];
        assert_eq!(decode_ranges(&encode_ranges(&ranges)), ranges);
        let leaves = [3, 1 << 50].map(|number| Leaf { number, digest: Digest::of(&number.to_le_bytes()) });
        assert_eq!(decode_leaves(&encode_leaves(&leaves)), leaves);
    }
}
