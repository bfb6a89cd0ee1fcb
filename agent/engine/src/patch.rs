//! Patches: what turns one content into another one in place, where no clone can be exchanged for it (a device, a file
//! without reflinks). The new content is staged as an overlay; before a byte of the live content changes, what the
//! overlay will replace is saved as a patch of the opposite direction: undo first (R3), and history afterwards.
//!
//! ```text
//! staging/tree/<path>   data of the redo patch, sparse: each range at its own offset
//! staging/patch/redo    its ranges                     record = magic "DRVD", version 1; payload:
//! staging/patch/undo    ranges of the undo patch                from digest[32] size:uint, to digest[32] size:uint,
//! staging/patch/saved   its data                                { gap:uint length:uint what:u8 }*   what = 0 data | 1 hole
//! ```
//! Once the new point stands, the undo patch moves to the pool as `<digest>.delta` and `<digest>.data`: the older content
//! is the newer one with this patch over it.

mod covered;
mod overlay;

use std::{
    fs::File,
    io, mem,
    ops::Range,
    os::unix::{ffi::OsStrExt as _, fs::FileExt as _},
    path::Path,
    sync::{Mutex, PoisonError},
};

use drover_linux::{
    Dir,
    file::{self, DirectWriter},
};

pub(crate) use covered::{Cover, Covered};
pub(crate) use overlay::Overlay;

use crate::{
    codec::{DecodeError, Reader, Writer},
    content::SEGMENT_BYTES,
    control::Control,
    digest::Digest,
    disk_threads, fault,
    hash::allocated,
    record::{self, RecordError, RecordKind},
};

const RECORD: RecordKind = RecordKind { magic: *b"DRVD", version: 1 };

pub(crate) const REDO: &[u8] = b"redo";
pub(crate) const UNDO: &[u8] = b"undo";
pub(crate) const SAVED: &[u8] = b"saved";

/// A content by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

impl From<&crate::tree::Body> for Named {
    fn from(body: &crate::tree::Body) -> Self {
        Self { digest: body.digest, size: body.size }
    }
}

/// Applied to `from` it makes `to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Patch {
    pub(crate) from: Named,
    pub(crate) to: Named,
    pub(crate) covered: Covered,
}

impl Patch {
    /// Durable when it returns.
    pub(crate) fn store(&self, dir: &Dir, name: &[u8]) -> io::Result<()> {
        record::replace(dir, name, RECORD, &self.encode())
    }

    pub(crate) fn load(dir: &Dir, name: &[u8]) -> Result<Option<Self>, RecordError> {
        let Some((_, payload)) = record::load(dir, name, RECORD)? else { return Ok(None) };
        let malformed = |source| RecordError::Malformed { name: String::from_utf8_lossy(name).into_owned(), source };
        Self::decode(&payload).map(Some).map_err(malformed)
    }

    /// For a step of a commit, which can't be without it.
    pub(crate) fn expect(dir: &Dir, name: &[u8]) -> io::Result<Self> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, "the ranges of a patch are missing");
        Self::load(dir, name).map_err(io::Error::other)?.ok_or_else(missing)
    }

    fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        for content in [&self.from, &self.to] {
            w.digest(&content.digest).uint(content.size);
        }
        w.uint(self.covered.len() as u64);
        let mut at = 0;
        for (range, cover) in self.covered.iter() {
            w.uint(range.start - at).uint(range.end - range.start);
            w.u8(u8::from(cover == Cover::Hole));
            at = range.end;
        }
        w.into_bytes()
    }

    fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(payload);
        let (from, to) =
            (Named { digest: r.digest()?, size: r.uint()? }, Named { digest: r.digest()?, size: r.uint()? });
        let mut covered = Covered::default();
        let mut at = 0u64;
        for _ in 0..r.count(3)? {
            let start = at.checked_add(r.uint()?).ok_or(DecodeError::Overflow)?;
            at = start.checked_add(r.uint()?).ok_or(DecodeError::Overflow)?;
            let cover = match r.u8()? {
                0 => Cover::Data,
                1 => Cover::Hole,
                value => return Err(DecodeError::Unknown { what: "cover", value: value.into() }),
            };
            covered.put(start..at, cover);
        }
        r.end()?;
        Ok(Self { from, to, covered })
    }

    /// What its inverse holds at most.
    pub(crate) fn replaced_bytes(&self) -> u64 {
        let lost = self.from.size.saturating_sub(self.to.size);
        self.covered.iter().map(|(range, _)| range.end - range.start).sum::<u64>() + lost
    }

    /// Turns `live` into `to`; may be done again after it was interrupted.
    pub(crate) fn apply(&self, data: &File, live: &File, failpoint: &'static str) -> io::Result<()> {
        let size = file::stat(live)?.size;
        if self.to.size > size {
            file::set_len(live, self.to.size)?;
        }
        let covered = self.covered.iter().flat_map(|(range, cover)| parts(range, cover));
        match DirectWriter::of_device(live)? {
            None => {
                let writeback = Writeback::of(live);
                disk_threads::each(covered, |(range, cover)| {
                    fault::hit(failpoint)?;
                    put(data, live, &range, cover)?;
                    writeback.wrote(&range)
                })?;
            }
            Some(direct) => {
                // What shares blocks with its neighbours goes through the page cache, and is on the device before these are written.
                for (range, cover) in covered.clone().filter(|part| !is_whole_blocks(part)) {
                    fault::hit(failpoint)?;
                    put(data, live, &range, cover)?;
                }
                file::write_back(live)?;
                disk_threads::each(covered.filter(is_whole_blocks), |(range, cover)| {
                    fault::hit(failpoint)?;
                    match direct.write_at(&read_whole(data, &range)?, range.start)? {
                        true => Ok(()),
                        false => put(data, live, &range, cover),
                    }
                })?;
            }
        }
        if self.to.size < size {
            live.set_len(self.to.size)?;
        }
        record::sync_file(live)
    }

    /// The same changes on content that is still being put together.
    pub(crate) fn overlay(&self, data: &File, onto: &Overlay) -> io::Result<()> {
        if onto.size() != self.to.size {
            onto.set_len(self.to.size)?;
        }
        self.covered.iter().try_for_each(|(range, cover)| match cover {
            Cover::Hole => onto.make_hole(range.start, range.end - range.start),
            Cover::Data => {
                pieces(range).try_for_each(|range| onto.write_all_at(&read_whole(data, &range)?, range.start))
            }
        })
    }

    /// The patch that takes this one back, and its data from `live`, which this one was not applied to yet.
    pub(crate) fn inverse(&self, live: &File, saved: &File, control: &Control) -> io::Result<Self> {
        let mut replaced = self.covered.clone();
        // What a shorter content loses at its end.
        replaced.put(self.to.size.min(self.from.size)..self.from.size, Cover::Data);
        let data = allocated(live, self.from.size)?;
        let mut covered = Covered::default();
        saved.set_len(self.from.size)?;
        for (range, _) in replaced.iter() {
            let range = range.start..range.end.min(self.from.size);
            covered.put(range.clone(), Cover::Hole);
            for (start, len) in within(&data, &range) {
                covered.put(start..start + len, Cover::Data);
            }
        }
        let writeback = Writeback::of(saved);
        let kept = covered.iter().filter(|(_, cover)| *cover == Cover::Data);
        disk_threads::each(kept.flat_map(|(range, _)| pieces(range)), |range| {
            control.check().map_err(io::Error::other)?;
            fault::hit("commit.save")?;
            saved.write_all_at(&read_whole(live, &range)?, range.start)?;
            writeback.wrote(&range)
        })?;
        record::sync_file(saved)?;
        Ok(Self { from: self.to, to: self.from, covered })
    }
}

/// Has what is written go to the disk in the meantime, so that the sync at the end waits for little.
struct Writeback<'a> {
    file: &'a File,
    /// Bytes that were written since, and from where to where.
    written: Mutex<(u64, Option<Range<u64>>)>,
}

impl<'a> Writeback<'a> {
    const BYTES: u64 = 4 << 20;

    fn of(file: &'a File) -> Self {
        Self { file, written: Mutex::default() }
    }

    fn wrote(&self, range: &Range<u64>) -> io::Result<()> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let (bytes, span) = &mut *written;
        *bytes += range.end - range.start;
        let (start, end) = span.as_ref().map_or((range.start, range.end), |span| (span.start, span.end));
        *span = Some(start.min(range.start)..end.max(range.end));
        if *bytes < Self::BYTES {
            return Ok(());
        }
        let (_, span) = mem::take(&mut *written);
        drop(written);
        span.map_or(Ok(()), |span| file::begin_writeback(self.file, span.start, span.end - span.start))
    }
}

/// Lays a patch of history over a copy of what it belongs on: `ranges` is its record, `data` what they hold.
pub fn lay_over(copy: &File, ranges: &Path, data: &Path) -> io::Result<()> {
    let no_name = || io::Error::from(io::ErrorKind::InvalidInput);
    let (dir, name) = ranges.parent().zip(ranges.file_name()).ok_or_else(no_name)?;
    let patch = Patch::expect(&Dir::open(dir)?, name.as_bytes())?;
    patch.apply(&File::open(data)?, copy, "points.lay-over")
}

/// Those parts of `data` that lie in a range.
fn within(data: &[(u64, u64)], range: &Range<u64>) -> impl Iterator<Item = (u64, u64)> {
    let first = data.partition_point(|(start, len)| start + len <= range.start);
    data[first..].iter().take_while(|(start, _)| *start < range.end).map(|(start, len)| {
        let (from, to) = ((*start).max(range.start), (start + len).min(range.end));
        (from, to - from)
    })
}

fn pieces(range: Range<u64>) -> impl Iterator<Item = Range<u64>> + Clone + Send {
    in_steps(range, SEGMENT_BYTES)
}

fn in_steps(range: Range<u64>, bytes: usize) -> impl Iterator<Item = Range<u64>> + Clone + Send {
    let end = range.end;
    range.step_by(bytes).map(move |at| at..at.saturating_add(bytes as u64).min(end))
}

const BLOCK: u64 = file::ALIGNMENT as u64;

/// A hole as a whole; data in pieces, with those ends apart that are no whole blocks.
fn parts(range: Range<u64>, cover: Cover) -> impl Iterator<Item = (Range<u64>, Cover)> + Clone + Send {
    let (first, last) = (range.start.next_multiple_of(BLOCK), range.end / BLOCK * BLOCK);
    let (ends, step) = match cover {
        Cover::Data if first < last => ([range.start..first, first..last, last..range.end], SEGMENT_BYTES),
        Cover::Data => ([range, 0..0, 0..0], SEGMENT_BYTES),
        Cover::Hole => ([range, 0..0, 0..0], usize::MAX),
    };
    ends.into_iter().flat_map(move |range| in_steps(range, step)).map(move |range| (range, cover))
}

fn is_whole_blocks((range, cover): &(Range<u64>, Cover)) -> bool {
    *cover == Cover::Data && range.start.is_multiple_of(BLOCK) && range.end.is_multiple_of(BLOCK)
}

/// Through the page cache of what is patched.
fn put(data: &File, live: &File, range: &Range<u64>, cover: Cover) -> io::Result<()> {
    match cover {
        Cover::Hole => file::make_hole(live, range.start, range.end - range.start),
        Cover::Data => live.write_all_at(&read_whole(data, range)?, range.start),
    }
}

/// Through memory: where two files can share blocks the kernel would copy by sharing (`copy_file_range(2)`), and scatter
/// what is patched by every page.
fn read_whole(from: &File, range: &Range<u64>) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; (range.end - range.start) as usize];
    let mut done = 0;
    while done < bytes.len() {
        match file::read_at(from, &mut bytes[done..], range.start + done as u64) {
            Ok(0) => {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a file became shorter while it was copied"));
            }
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}
