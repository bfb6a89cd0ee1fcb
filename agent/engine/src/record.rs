//! Records on disk: written whole or not at all, and recognised when they are damaged or newer than this release.
//!
//! ```text
//! record = magic[4] version:u16le length:u64le check[16] payload[length]
//! check  = the first 16 bytes of BLAKE3 of everything else
//! ```
//! `replace` writes a temporary file, syncs it, renames it over the old one and syncs the directory. After a crash
//! the name holds the old record or the new one. This is the only place where the project replaces a state file.

use std::{
    fs::File,
    io::{self, Read, Write},
};

use drover_linux::Dir;

use crate::{codec::DecodeError, error::Kind, fault};

const HEAD_BYTES: usize = 4 + 2 + 8 + 16;

#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("record {name} can't be read")]
    Io {
        name: String,
        #[source]
        source: io::Error,
    },
    #[error("record {name} is damaged: {problem}")]
    Damaged { name: String, problem: &'static str },
    #[error("record {name} has version {found}, this release reads up to {newest}; use the release that wrote it")]
    Newer { name: String, found: u16, newest: u16 },
    #[error("record {name} is malformed")]
    Malformed {
        name: String,
        #[source]
        source: DecodeError,
    },
}

impl RecordError {
    /// Only what is damaged for good is lost: the disk may answer again, another release may understand it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Io { .. } => Kind::Storage,
            Self::Newer { .. } => Kind::Precondition,
            Self::Damaged { .. } | Self::Malformed { .. } => Kind::DataLoss,
        }
    }
}

/// The kind of a record and the newest version that this release knows.
#[derive(Clone, Copy, Debug)]
pub struct RecordKind {
    pub magic: [u8; 4],
    pub version: u16,
}

fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

fn head(kind: RecordKind, payload: &[u8]) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[..4].copy_from_slice(&kind.magic);
    head[4..6].copy_from_slice(&kind.version.to_le_bytes());
    head[6..14].copy_from_slice(&(payload.len() as u64).to_le_bytes());
    let check = blake3::Hasher::new().update(&head[..14]).update(payload).finalize();
    head[14..].copy_from_slice(&check.as_bytes()[..16]);
    head
}

/// Durable when it returns.
pub fn replace(dir: &Dir, name: &[u8], kind: RecordKind, payload: &[u8]) -> io::Result<()> {
    write(dir, name, kind, payload)?;
    sync_dir(dir)
}

/// As `replace`, for what may be lost in a crash because it can be rebuilt: no syncs.
pub fn replace_cache(dir: &Dir, name: &[u8], kind: RecordKind, payload: &[u8]) -> io::Result<()> {
    let temporary = [name, b".tmp"].concat();
    write_temporary(dir, &temporary, kind, payload)?;
    dir.rename_replace(&temporary, dir, name)
}

fn write(dir: &Dir, name: &[u8], kind: RecordKind, payload: &[u8]) -> io::Result<()> {
    let temporary = [name, b".tmp"].concat();
    let file = write_temporary(dir, &temporary, kind, payload)?;
    sync_file(&file)?;
    dir.rename_replace(&temporary, dir, name)
}

fn write_temporary(dir: &Dir, temporary: &[u8], kind: RecordKind, payload: &[u8]) -> io::Result<File> {
    match dir.unlink(temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = dir.create_file(temporary, 0o600)?;
    file.write_all(&head(kind, payload))?;
    file.write_all(payload)?;
    Ok(file)
}

/// Syncs a file, unless a test switched that off to show that it notices.
pub fn sync_file(file: &File) -> io::Result<()> {
    if fault::is_off("fsync") { Ok(()) } else { file.sync_all() }
}

pub fn sync_dir(dir: &Dir) -> io::Result<()> {
    if fault::is_off("fsync") { Ok(()) } else { dir.sync() }
}

/// Everything of the file system that `dir` lies on; reports write errors since `dir` was opened (`syncfs(2)`).
pub fn sync_filesystem(dir: &Dir) -> io::Result<()> {
    if fault::is_off("fsync") { Ok(()) } else { dir.sync_filesystem() }
}

pub fn remove(dir: &Dir, name: &[u8]) -> io::Result<()> {
    match dir.unlink(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync_dir(dir),
    }
}

/// Version and payload of a record, or `None` when there is none.
pub fn load(dir: &Dir, name: &[u8], kind: RecordKind) -> Result<Option<(u16, Vec<u8>)>, RecordError> {
    let io = |source| RecordError::Io { name: text(name), source };
    let mut bytes = Vec::new();
    match dir.open_file(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
        Ok(mut file) => file.read_to_end(&mut bytes).map_err(io)?,
    };
    let damaged = |problem| RecordError::Damaged { name: text(name), problem };
    let (read_head, payload) = bytes.split_at_checked(HEAD_BYTES).ok_or_else(|| damaged("shorter than a head"))?;
    if read_head[..4] != kind.magic {
        return Err(damaged("wrong magic"));
    }
    let version = u16::from_le_bytes([read_head[4], read_head[5]]);
    if version > kind.version {
        return Err(RecordError::Newer { name: text(name), found: version, newest: kind.version });
    }
    if *read_head != head(RecordKind { version, ..kind }, payload) {
        return Err(damaged("length or checksum does not match"));
    }
    Ok(Some((version, payload.to_vec())))
}
