//! Owner, mode and modification time. The empty name means the directory itself.

use std::{io, os::fd::AsRawFd};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid};

use super::Dir;
use crate::Time;

impl Dir {
    /// Clears setuid, setgid and file capabilities of a file (`chown(2)`), so it comes before them.
    pub fn chown(&self, name: &[u8], uid: u32, gid: u32) -> io::Result<()> {
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        if name.is_empty() {
            self.refuse_window()?;
            return Ok(rustix::fs::fchown(self, uid, gid)?);
        }
        Ok(rustix::fs::chownat(self, self.real(name)?, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// A symlink has no mode of its own: EOPNOTSUPP.
    pub fn chmod(&self, name: &[u8], mode: u32) -> io::Result<()> {
        let mode = Mode::from_raw_mode(mode);
        if name.is_empty() {
            self.refuse_window()?;
            return Ok(rustix::fs::fchmod(self, mode)?);
        }
        // fchmodat(2) follows symlinks and fchmodat2 needs Linux 6.6; what O_PATH holds can't be swapped for a link.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let entry = rustix::fs::openat(self, self.real(name)?, flags, Mode::empty())?;
        Ok(rustix::fs::chmod(format!("/proc/self/fd/{}", entry.as_raw_fd()), mode)?)
    }

    /// Leaves the access time alone (`utimensat(2)`). The directory behind a window keeps its own.
    pub fn set_mtime(&self, name: &[u8], mtime: Time) -> io::Result<()> {
        let times = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            last_modification: Timespec { tv_sec: mtime.secs, tv_nsec: mtime.nanos.into() },
        };
        if name.is_empty() && self.is_window() {
            return Ok(());
        }
        if name.is_empty() {
            return Ok(rustix::fs::futimens(self, &times)?);
        }
        Ok(rustix::fs::utimensat(self, self.real(name)?, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }
}
