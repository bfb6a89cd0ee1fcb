//! Where a file has data and where it has holes.

use std::{fs::File, io, ops::Range};

use drover_linux::file;

/// Grows with the number of a file's data ranges, so it is only asked for where there are holes at all.
#[derive(Clone, Debug, Default)]
pub enum Allocation {
    /// No holes.
    #[default]
    Full,
    /// Offset and length of each range with data, in order.
    Data(Vec<(u64, u64)>),
}

impl Allocation {
    /// Asks the file system. The number of blocks would not tell: it counts metadata, too.
    pub fn of(file: &File) -> io::Result<Self> {
        let size = file::stat(file)?.size;
        let data = crate::hash::allocated(file, size)?;
        Ok(if data == [(0, size)] { Self::Full } else { Self::Data(data) })
    }

    /// The holes in a range, relative to its offset.
    pub fn holes_within(&self, offset: u64, len: usize) -> Vec<Range<usize>> {
        let Self::Data(data) = self else {
            return Vec::new();
        };
        let end = offset + len as u64;
        let mut holes = Vec::new();
        let mut at = offset;
        let first = data.partition_point(|(start, len)| start + len <= offset);
        for (start, len) in &data[first..] {
            if *start >= end {
                break;
            }
            push_range(&mut holes, at - offset, start.saturating_sub(offset));
            at = (start + len).min(end);
        }
        push_range(&mut holes, at - offset, end - offset);
        holes
    }

    /// Where the hole that an offset lies in ends; `size` when nothing follows.
    pub fn hole_end(&self, offset: u64, size: u64) -> u64 {
        match self {
            Self::Full => offset,
            Self::Data(data) => {
                let next = data.partition_point(|(start, len)| start + len <= offset);
                data.get(next).map_or(size, |(start, _)| (*start).clamp(offset, size))
            }
        }
    }

    pub fn is_hole(&self, offset: u64, len: usize) -> bool {
        self.holes_within(offset, len).first() == Some(&(0..len))
    }
}

fn push_range(holes: &mut Vec<Range<usize>>, from: u64, to: u64) {
    if from < to {
        holes.push(from as usize..to as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_the_complement_of_data() {
        let allocation = Allocation::Data(vec![(10, 10), (30, 5), (100, 1)]);
        let holes = |offset, len| -> Vec<(usize, usize)> {
            allocation.holes_within(offset, len).iter().map(|hole| (hole.start, hole.end)).collect()
        };
        assert_eq!(holes(0, 10), [(0, 10)]);
        assert_eq!(holes(0, 40), [(0, 10), (20, 30), (35, 40)]);
        assert_eq!(holes(12, 4), []);
        assert_eq!(holes(15, 20), [(5, 15)]);
        assert_eq!(holes(200, 7), [(0, 7)]);
        assert!(allocation.is_hole(40, 60) && !allocation.is_hole(40, 61) && !allocation.is_hole(34, 2));
        assert!(!Allocation::Full.is_hole(0, 5));
    }
}
