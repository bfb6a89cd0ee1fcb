//! Making, moving and removing names.

use std::io;

use rustix::fs::{AtFlags, FileType, Mode, RenameFlags};

use super::{Dir, invalid};
use crate::{DeviceKind, Kind};

impl Dir {
    /// `mode` is subject to the umask.
    pub fn mkdir(&self, name: &[u8], mode: u32) -> io::Result<()> {
        Ok(rustix::fs::mkdirat(self, self.real(name)?, Mode::from_raw_mode(mode))?)
    }

    pub fn symlink(&self, target: &[u8], name: &[u8]) -> io::Result<()> {
        Ok(rustix::fs::symlinkat(target, self, self.real(name)?)?)
    }

    /// A device node, fifo or socket (`mknod(2)`); other kinds are `InvalidInput`. `mode` is subject to the umask;
    /// `major` and `minor` mean something for devices only.
    pub fn mknod(&self, name: &[u8], kind: Kind, mode: u32, major: u32, minor: u32) -> io::Result<()> {
        let file_type = match kind {
            Kind::Device(DeviceKind::Block) => FileType::BlockDevice,
            Kind::Device(DeviceKind::Char) => FileType::CharacterDevice,
            Kind::Fifo => FileType::Fifo,
            Kind::Socket => FileType::Socket,
            Kind::File | Kind::Directory | Kind::Symlink => {
                return Err(invalid("mknod makes no such kind"));
            }
        };
        let device = rustix::fs::makedev(major, minor);
        Ok(rustix::fs::mknodat(self, self.real(name)?, file_type, Mode::from_raw_mode(mode), device)?)
    }

    /// A further name of the entry itself, also when it is a symlink (`linkat(2)`).
    pub fn link(&self, name: &[u8], to: &Self, to_name: &[u8]) -> io::Result<()> {
        Ok(rustix::fs::linkat(self, self.real(name)?, to, to.real(to_name)?, AtFlags::empty())?)
    }

    pub fn unlink(&self, name: &[u8]) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(self, self.real(name)?, AtFlags::empty())?)
    }

    pub fn rmdir(&self, name: &[u8]) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(self, self.real(name)?, AtFlags::REMOVEDIR)?)
    }

    /// EEXIST when `to_name` is taken (`renameat2(2)`, `RENAME_NOREPLACE`).
    pub fn rename_noreplace(&self, name: &[u8], to: &Self, to_name: &[u8]) -> io::Result<()> {
        self.rename(name, to, to_name, RenameFlags::NOREPLACE)
    }

    /// Both names must exist; each gets the other's inode, at one instant (`RENAME_EXCHANGE`).
    pub fn exchange(&self, name: &[u8], to: &Self, to_name: &[u8]) -> io::Result<()> {
        self.rename(name, to, to_name, RenameFlags::EXCHANGE)
    }

    /// Whatever had `to_name` loses it.
    pub fn rename_replace(&self, name: &[u8], to: &Self, to_name: &[u8]) -> io::Result<()> {
        self.rename(name, to, to_name, RenameFlags::empty())
    }

    fn rename(&self, name: &[u8], to: &Self, to_name: &[u8], flags: RenameFlags) -> io::Result<()> {
        Ok(rustix::fs::renameat_with(self, self.real(name)?, to, to.real(to_name)?, flags)?)
    }

    pub fn readlink(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        Ok(rustix::fs::readlinkat(self, self.real(name)?, Vec::new())?.into_bytes())
    }
}
