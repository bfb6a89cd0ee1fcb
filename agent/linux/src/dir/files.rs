//! Opening and creating regular files.

use std::{
    fs::File,
    io, thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};

use super::{Dir, invalid};
use crate::{Kind, file};

impl Dir {
    /// A regular file to read, without touching its access time where this process may ask for that. Anything else is
    /// `InvalidInput`: a fifo or device that took the file's place is neither waited for nor read.
    pub fn open_file(&self, name: &[u8]) -> io::Result<File> {
        if let Some(device) = self.open_window_device(name, OFlags::RDONLY)? {
            return Ok(device);
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let name = self.real(name)?;
        let file = match self.open_unleased(name, flags | OFlags::NOATIME) {
            // O_NOATIME is for the owner and for CAP_FOWNER (open(2)).
            Err(Errno::PERM) => self.open_unleased(name, flags),
            done => done,
        }?;
        regular(file)
    }

    /// As [`Self::open_file`]; `None` when there is no such entry.
    pub fn open_file_if_there(&self, name: &[u8]) -> io::Result<Option<File>> {
        match self.open_file(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => opened.map(Some),
        }
    }

    /// An existing regular file to read and write; anything else is `InvalidInput`. A device is opened for this process
    /// alone (`O_EXCL`, open(2)): `ResourceBusy` while it is mounted or used by another driver.
    pub fn open_write(&self, name: &[u8]) -> io::Result<File> {
        if let Some(device) = self.open_window_device(name, OFlags::RDWR | OFlags::EXCL)? {
            return Ok(device);
        }
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        regular(self.open_unleased(self.real(name)?, flags)?)
    }

    /// With `O_NONBLOCK`, because it may be a fifo. That also refuses a file that somebody has leased (an SMB server, an agent that
    /// patches it) and only tells the holder, who gives it back soon; for one who does not nobody waits
    /// long, or any user could hold up a scan.
    pub(super) fn open_unleased(&self, name: &[u8], flags: OFlags) -> Result<File, Errno> {
        const PAUSE: Duration = Duration::from_millis(5);
        const LIMIT: Duration = Duration::from_secs(2);
        let begin = Instant::now();
        loop {
            match rustix::fs::openat(self, name, flags, Mode::empty()) {
                Err(Errno::AGAIN) if begin.elapsed() < LIMIT => thread::sleep(PAUSE),
                opened => return opened.map(File::from),
            }
        }
    }

    /// A new regular file to read and write; EEXIST when the name is taken. `mode` is subject to the umask.
    pub fn create_file(&self, name: &[u8], mode: u32) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(self, self.real(name)?, flags, Mode::from_raw_mode(mode))?))
    }
}

fn regular(file: File) -> io::Result<File> {
    match file::stat(&file)?.kind {
        Kind::File => Ok(file),
        _ => Err(invalid("not a regular file")),
    }
}
