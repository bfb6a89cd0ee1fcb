//! What files hold, and where two that hold still differ: by their extent maps first, then by what is read.

use std::{fs::File, io};

use drover_linux::{Extents, file};

use crate::{
    content::{extents, part::is_zero},
    image::{
        LEAF_BYTES, Range,
        narrow::{Coarse, GRAIN, How, leaves_of},
    },
};

/// Of a file that is looked at; one with more is compared as a whole.
const EXTENTS_MAX: usize = 1 << 20;
/// Of one read.
const CHUNK: u64 = 1 << 20;

/// Of one read each.
pub(super) fn parts(range: Range) -> impl Iterator<Item = Range> {
    range.parts(CHUNK)
}

pub(super) fn size_of(file: &File) -> io::Result<u64> {
    Ok(file::stat(file)?.size)
}

/// Zeros beyond the file's end.
pub(super) fn read(file: &File, range: Range) -> io::Result<Vec<u8>> {
    let mut content = vec![0; usize::try_from(range.length).map_err(|_| io::ErrorKind::InvalidInput)?];
    let mut done = 0;
    while done < content.len() {
        match file::read_at(file, &mut content[done..], range.offset + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    content[done..].fill(0);
    Ok(content)
}

/// Where two files that hold still may differ, up to the end of the longer one.
pub(super) fn differing(old: &File, new: &File) -> io::Result<Vec<Range>> {
    let size = size_of(old)?.max(size_of(new)?);
    let maps = [old, new].map(|file| Extents::synced(file, 0..size));
    let [old, new] = maps;
    let whole = 0..size;
    let ranges = match extents::differing(old, new, size, EXTENTS_MAX)? {
        Ok(ranges) => ranges,
        Err(extents::TooMany) => vec![whole],
    };
    Ok(ranges.into_iter().map(|range| Range { offset: range.start, length: range.end - range.start }).collect())
}

/// Neighbours are joined; of too many the whole file is one.
pub(super) fn data_of(file: &File) -> io::Result<Vec<Range>> {
    let size = size_of(file)?;
    let mut ranges: Vec<Range> = Vec::new();
    for extent in Extents::synced(file, 0..size) {
        let extent = extent?;
        let range =
            Range { offset: extent.logical.min(size), length: extent.end().min(size) - extent.logical.min(size) };
        match ranges.last_mut() {
            _ if extent.is_reserved_only() || range.length == 0 => {}
            Some(last) if range.offset <= last.end().saturating_add(GRAIN) => last.length = range.end() - last.offset,
            _ => ranges.push(range),
        }
        if ranges.len() > EXTENTS_MAX {
            return Ok(vec![Range { offset: 0, length: size }]);
        }
    }
    Ok(ranges)
}

/// What differs indeed, in steps of a [`GRAIN`]; from zeros without `old`.
pub(super) fn narrowed(ranges: &[Range], old: Option<&File>, new: &File) -> io::Result<Vec<Range>> {
    let mut found = Coarse::default();
    for range in ranges.iter().copied().flat_map(parts) {
        let content = read(new, range)?;
        let before = old.map(|old| read(old, range)).transpose()?;
        for (n, part) in content.chunks(GRAIN as usize).enumerate() {
            let at = n * GRAIN as usize;
            let is_same = match &before {
                Some(before) => before[at..at + part.len()] == *part,
                None => is_zero(part),
            };
            if !is_same {
                found.push(Range { offset: range.offset + at as u64, length: part.len() as u64 });
            }
        }
    }
    Ok(found.into_ranges())
}

/// Of leaves that may hold something, and the file's size.
pub(super) fn leaf_numbers(file: &File) -> io::Result<(Vec<u64>, u64)> {
    let pieces: Vec<_> = data_of(file)?.into_iter().map(|range| (range, How::Whole)).collect();
    let size = size_of(file)?;
    Ok((leaves_of(&pieces, size, &[]).into_iter().map(|(range, _)| range.offset / LEAF_BYTES).collect(), size))
}
