//! What is known of one inode on this host, and its bytes in the index.

use drover_linux::{FileId, Kind, Stat, Time, device};

use crate::codec::{DecodeError, Reader, Writer};

/// A change this close to the file system's clock may be followed by another one that leaves the same times (R9).
const RACY_SECS: i64 = 5;

/// Identity and times of an entry when it was read; its modification time is in the manifest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Local {
    pub id: FileId,
    pub ctime: Time,
    /// 1 for a directory, whose links are its own and its children's dots.
    pub nlink: u32,
    /// Changed so shortly before it was read, or in the future, that its times prove nothing: it is read again.
    pub racy: bool,
    /// Seconds since 1970 when the content was last read and hashed.
    pub read_at: i64,
}

impl Local {
    /// Of an inode whose content was read at or after `clock`, a reading of the file system's own clock.
    pub fn new(stat: &Stat, clock: Time) -> Self {
        Self {
            id: stat.id,
            ctime: stat.ctime,
            nlink: if stat.kind == Kind::Directory { 1 } else { stat.nlink },
            racy: stat.ctime == device::UNCOUNTED
                || stat.ctime.max(stat.mtime).secs.saturating_add(RACY_SECS) >= clock.secs,
            read_at: clock.secs,
        }
    }

    /// With times that no inode has, so that it is read again.
    pub(crate) fn distrusted(self) -> Self {
        Self { ctime: Time::default(), racy: true, ..self }
    }

    pub(crate) fn is_distrusted(&self) -> bool {
        self.ctime == Time::default()
    }
}

#[derive(Default)]
pub(super) struct LocalWriter {
    last: Local,
}

impl LocalWriter {
    pub(super) fn file_id(&mut self, w: &mut Writer, id: FileId) {
        w.int(id.ino.wrapping_sub(self.last.id.ino).cast_signed());
        time(w, id.born, self.last.id.born);
        self.last.id = id;
    }

    pub(super) fn local(&mut self, w: &mut Writer, local: &Local) {
        self.file_id(w, local.id);
        time(w, local.ctime, self.last.ctime);
        w.uint(local.nlink.into()).u8(local.racy.into()).int(local.read_at.wrapping_sub(self.last.read_at));
        self.last = *local;
    }
}

fn time(w: &mut Writer, time: Time, last: Time) {
    w.int(time.secs.wrapping_sub(last.secs)).uint(time.nanos.into());
}

#[derive(Default)]
pub(super) struct LocalReader {
    last: Local,
}

impl LocalReader {
    pub(super) fn file_id(&mut self, r: &mut Reader<'_>) -> Result<FileId, DecodeError> {
        let ino = self.last.id.ino.wrapping_add(r.int()?.cast_unsigned());
        self.last.id = FileId { ino, born: read_time(r, self.last.id.born)? };
        Ok(self.last.id)
    }

    pub(super) fn local(&mut self, r: &mut Reader<'_>) -> Result<Local, DecodeError> {
        let id = self.file_id(r)?;
        let ctime = read_time(r, self.last.ctime)?;
        let (nlink, racy) = (r.u32()?, r.u8()? != 0);
        let read_at = self.last.read_at.wrapping_add(r.int()?);
        self.last = Local { id, ctime, nlink, racy, read_at };
        Ok(self.last)
    }
}

fn read_time(r: &mut Reader<'_>, last: Time) -> Result<Time, DecodeError> {
    Ok(Time { secs: last.secs.wrapping_add(r.int()?), nanos: r.u32()? })
}
