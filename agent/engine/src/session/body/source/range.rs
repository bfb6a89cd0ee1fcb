//! A segment of a big file: only what the sink's base does not have.

use std::io;

use super::{
    Source,
    open::{OpenFile, read_padded},
};
use bytes::Bytes;

use crate::{
    content::{Copy, Part, block, part, shift},
    fault,
    session::body::{Basis, Blocks, BodyError, BodyMessage, WantRange},
};

/// A delta that still sends this share of a segment, in percent, was not worth its copies.
const USELESS_PERCENT: usize = 75;

impl Source<'_> {
    pub(super) fn send_range(&self, range: &WantRange) -> Result<(), BodyError> {
        let answer = fault::hit("send.range").and_then(|()| self.answer_range(range));
        self.send(answer.map_err(|error| self.fail(&range.want, error))?)
    }

    fn answer_range(&self, range: &WantRange) -> io::Result<BodyMessage> {
        let id = range.want.id;
        let offset = range.offset;
        let Some(open) = self.open_large(&range.want)? else {
            return Ok(BodyMessage::GoneRange { id, offset });
        };
        Ok(match answer(&open, range)? {
            Answer::Parts(parts) => BodyMessage::Range { id, offset, parts },
            Answer::Differs(leaves) => BodyMessage::Differs { id, offset, leaves },
        })
    }
}

enum Answer {
    Parts(Vec<Part>),
    Differs(block::Leaves),
}

fn answer(open: &OpenFile, range: &WantRange) -> io::Result<Answer> {
    let holes = open.allocation.holes_within(range.offset, range.length);
    if holes.first() == Some(&(0..range.length)) {
        return Ok(Answer::Parts(vec![Part::Hole(range.length as u64)]));
    }
    let mut data = vec![0; range.length];
    read_padded(&open.file, &mut data, range.offset)?;
    let data = Bytes::from(data);
    let copies = match &range.basis {
        None => Vec::new(),
        Some(basis) => match copies(&data, basis) {
            Ok(copies) => copies,
            Err(leaves) => return Ok(Answer::Differs(leaves)),
        },
    };
    Ok(Answer::Parts(part::compose(&data, &holes, &copies)))
}

/// What the base has of `data`, or the leaves that must be looked at more closely.
fn copies(data: &[u8], basis: &Basis) -> Result<Vec<Copy>, block::Leaves> {
    match &basis.blocks {
        Blocks::Leaves(base) => match block::differing(data, base) {
            0 => Ok(block::copies(data, basis.offset, 0, &[])),
            leaves => Err(leaves),
        },
        Blocks::Pages { leaves, digests } => Ok(block::copies(data, basis.offset, *leaves, digests)),
        Blocks::Signature(signature) => {
            let copies = shift::copies(signature, basis.offset, data).unwrap_or_default();
            let copied: usize = copies.iter().map(|copy| copy.len).sum();
            let is_useful = (data.len() - copied.min(data.len())) * 100 < data.len() * USELESS_PERCENT;
            Ok(if is_useful { copies } else { Vec::new() })
        }
    }
}
