//! Reading and writing content, many operations at a time.

mod digests;
mod head;
mod read;
mod write;

use std::{io, ops::ControlFlow};

use bytes::Bytes;
use drover_engine::image::{Range, stream::Totals};
use drover_librbd::{Access, Cluster, DiffFrom, Error, ErrorKind, Extent, Image, ImageRef, ObjectDetail, Pool};

use super::{Held, cut};
use crate::{
    data::{DataRequest, RANGES_MAX, decode_leaves, decode_ranges, encode_ranges},
    request::{Failure, FailureKind},
    view::ImagePlace,
};

/// A range of one read or write at most, and what none goes beyond a multiple of: an object of the usual size.
const CHUNK: u64 = 4 << 20;
/// So much of an image is looked through at a time, which bounds what is known of it.
const WINDOW: u64 = 1 << 30;
/// On their way at the same time: of large ones a few keep a cluster busy, and small ones share its commits.
const OPERATIONS_MAX: usize = 128;
const BYTES_MAX: usize = 32 << 20;

/// The agent's frames, and where the worker's go.
pub(super) trait Agent {
    /// `None`: there are no more.
    fn frame(&mut self) -> io::Result<Option<Bytes>>;
    /// An empty one says that it goes on.
    fn send(&mut self, frame: Vec<u8>) -> io::Result<()>;
}

pub(super) fn carry_out(
    cluster: &Cluster,
    held: &Held,
    request: DataRequest,
    agent: &mut dyn Agent,
) -> Result<Totals, Failure> {
    match request {
        DataRequest::Head { place, since } => {
            let _ = agent.frame().map_err(lost)?;
            let ranges = head::head(cluster, &place, since.as_deref(), agent)?;
            for ranges in ranges.chunks(RANGES_MAX) {
                agent.send(encode_ranges(ranges)).map_err(lost)?;
            }
            Ok(Totals::default())
        }
        DataRequest::Read { place, from, to } => {
            let (mut asked, mut leaves, mut is_of_leaves) = (Vec::new(), Vec::new(), false);
            while let Some(frame) = agent.frame().map_err(lost)? {
                match is_of_leaves {
                    _ if frame.is_empty() => is_of_leaves = true,
                    false => asked.extend(decode_ranges(&frame)),
                    true => leaves.extend(decode_leaves(&frame)),
                }
            }
            read::Wanted { place: &place, from: from.as_deref(), to: &to, asked: &asked, leaves: &leaves }
                .read(cluster, agent)
        }
        DataRequest::Digests { place, of } => {
            let _ = agent.frame().map_err(lost)?;
            digests::digests(cluster, &place, of.as_deref(), agent)
        }
        DataRequest::Write { place, size_bytes } => write::write(held.alone(&place)?, size_bytes, agent),
        DataRequest::Restore { place, to } => {
            let _ = agent.frame().map_err(lost)?;
            write::restore(held.alone(&place)?, cluster, &place, &to, agent)
        }
    }
}

fn lost(error: io::Error) -> Failure {
    failure("socket", format!("the agent is gone: {error}"))
}

fn failure(call: &str, message: String) -> Failure {
    Failure { call: call.to_owned(), kind: FailureKind::Other, message }
}

fn open(pool: &Pool, place: &ImagePlace, snapshot: Option<&str>) -> Result<Image, Error> {
    let image = ImageRef::Name(&place.image);
    let Some(snapshot) = snapshot else { return pool.open(image, Access::ReadOnly) };
    match pool.open_at(image, snapshot) {
        Err(error) if error.kind() == ErrorKind::NotFound => cut::open_cut(pool, &place.image, snapshot)?.ok_or(error),
        opened => opened,
    }
}

/// Of the window, in order. `from`: as [`cut::begin_of`] says.
fn changed(image: &Image, from: Option<&str>, window: Range) -> Result<Vec<Extent>, Error> {
    let mut extents = Vec::new();
    let from = from.map_or(DiffFrom::Nothing, DiffFrom::Name);
    let window = (window.offset, window.length);
    let _ = image.diff(from, window, ObjectDetail::Ranges, &mut |extent| {
        extents.push(extent);
        ControlFlow::Continue(())
    })?;
    extents.sort_by_key(|extent| extent.offset);
    Ok(extents)
}

fn windows(size_bytes: u64) -> impl Iterator<Item = Range> {
    let starts = (0..size_bytes).step_by(WINDOW as usize);
    starts.map(move |offset| Range { offset, length: WINDOW.min(size_bytes - offset) })
}

/// At multiples of the length of one operation.
fn chunks(range: Range) -> impl Iterator<Item = Range> {
    range.parts(CHUNK)
}

/// A read of a snapshot that ends early would be told as content.
fn full(content: Vec<u8>, range: Range) -> Result<Vec<u8>, Failure> {
    if content.len() as u64 == range.length {
        return Ok(content);
    }
    let message = format!("{} bytes of {} at {}", content.len(), range.length, range.offset);
    Err(failure("rbd_aio_read", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_end_where_objects_may() {
        let range = |offset, length| Range { offset, length };
        let found: Vec<_> = chunks(range(CHUNK - 5, CHUNK + 10)).collect();
        assert_eq!(found, [range(CHUNK - 5, 5), range(CHUNK, CHUNK), range(2 * CHUNK, 5)]);
        assert_eq!(chunks(range(7, 0)).count(), 0);
    }
}
