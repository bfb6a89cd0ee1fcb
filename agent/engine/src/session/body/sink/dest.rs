//! What a big body is staged as: a file of its own, or what shall be written over the live one.

use std::{fs::File, io, os::unix::fs::FileExt};

use drover_linux::file::{self, DirectWriter};

use super::ask::read_up_to;
use crate::{
    content::Allocation,
    hash::{ReadContent, allocated, read_padded},
    patch::Overlay,
};

#[derive(Debug)]
pub(super) enum Dest {
    File {
        file: File,
        /// For long writes, where all of the file is written.
        direct: Option<DirectWriter>,
    },
    Overlay(Overlay),
    /// Written to as it is, and read from the disk.
    Device {
        device: File,
        read: File,
    },
}

impl Dest {
    pub(super) fn set_len(&self, size: u64) -> io::Result<()> {
        match self {
            Self::File { file, .. } => file::set_len(file, size),
            Self::Device { device, .. } if file::stat(device)?.size == size => Ok(()),
            Self::Device { .. } => Err(io::Error::other("a device keeps its size")),
            Self::Overlay(overlay) => overlay.set_len(size),
        }
    }

    pub(super) fn write_all_at(&self, data: &[u8], at: u64) -> io::Result<()> {
        match self {
            Self::File { file, direct } => {
                let done = direct.as_ref().map_or(Ok(0), |direct| direct.write_blocks_at(data, at))?;
                file.write_all_at(&data[done..], at + done as u64)
            }
            Self::Device { device, .. } => device.write_all_at(data, at),
            Self::Overlay(overlay) => overlay.write_all_at(data, at),
        }
    }

    /// What was written there goes to the disk while more arrives.
    pub(super) fn begin_writeback(&self, at: u64, len: u64) -> io::Result<()> {
        match self {
            Self::File { file, .. } | Self::Device { device: file, .. } => file::begin_writeback(file, at, len),
            Self::Overlay(overlay) => overlay.begin_writeback(at, len),
        }
    }

    pub(super) fn write_zeros(&self, at: u64, len: u64) -> io::Result<()> {
        match self {
            Self::File { file, .. } | Self::Device { device: file, .. } => file::write_zeros(file, at, len),
            Self::Overlay(overlay) => overlay.write_zeros(at, len),
        }
    }

    pub(super) fn make_hole(&self, at: u64, len: u64) -> io::Result<()> {
        match self {
            Self::File { file, .. } | Self::Device { device: file, .. } => file::make_hole(file, at, len),
            Self::Overlay(overlay) => overlay.make_hole(at, len),
        }
    }

    /// What `base` has at the same place; nothing beyond its end.
    pub(super) fn copy_from(&self, base: &File, at: u64, len: u64) -> io::Result<()> {
        match self {
            Self::File { file, .. } | Self::Device { device: file, .. } => {
                file::copy_range(base, file, at, len).map(drop)
            }
            // It is the base until something is written over it.
            Self::Overlay(_) => Ok(()),
        }
    }

    pub(super) fn allocation(&self) -> io::Result<Allocation> {
        match self {
            Self::File { file, .. } | Self::Device { read: file, .. } => Allocation::of(file),
            Self::Overlay(overlay) => Ok(overlay.allocation()),
        }
    }

    /// Less when it ends.
    pub(super) fn read_up_to(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        match self {
            Self::File { file, .. } | Self::Device { read: file, .. } => read_up_to(file, offset, len),
            Self::Overlay(overlay) => {
                let mut content = vec![0; overlay.size().saturating_sub(offset).min(len as u64) as usize];
                overlay.read_padded(&mut content, offset)?;
                Ok(content)
            }
        }
    }
}

impl ReadContent for Dest {
    fn read_padded(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        match self {
            Self::File { file, .. } | Self::Device { read: file, .. } => read_padded(file, buffer, offset),
            Self::Overlay(overlay) => overlay.read_padded(buffer, offset),
        }
    }

    fn allocated(&self, size: u64) -> io::Result<Vec<(u64, u64)>> {
        match self {
            Self::File { file, .. } | Self::Device { read: file, .. } => allocated(file, size),
            Self::Overlay(overlay) => overlay.allocated(size),
        }
    }
}
