//! Reads what the index can't vouch for: stat, read, stat, and again if something changed in between (R9).

use std::{fs::File, io};

use drover_linux::{Dir, FileId, Kind, Stat, Time, file, is_gone};
use rayon::prelude::*;

use super::{
    ScanError, Scanner,
    listing::{Found, Listings, Pending},
};
use crate::{
    bases::{BASE_BYTES_MIN, FoundBy},
    fault,
    hash::hash_file,
    index::Local,
    meta,
    path::RelPath,
    tree::{Body, Entry, Node},
};

const TRIES_MAX: u32 = 3;

/// Entries that one thread reads in one go.
pub(super) enum Lot {
    /// Of one directory.
    Entries(Vec<Pending>),
    /// Names of one inode: its content is read once.
    Links(Vec<Pending>),
}

struct Read {
    found: Found,
    is_stable: bool,
    found_by: Option<FoundBy>,
}

impl Scanner<'_> {
    /// Adds what it reads to `listings`. An entry that has vanished is left out: its directory is listed again.
    pub(super) fn read(&self, lots: Vec<Lot>, clock: Time, listings: &mut Listings) -> Result<(), ScanError> {
        let read: Vec<_> = lots.into_par_iter().map(|lot| self.read_lot(lot, clock)).collect::<Result<_, _>>()?;
        for (directory, found) in read.into_iter().flatten() {
            if let Some(listed) = listings.0.get_mut(&directory) {
                listed.found_mut().push(found);
            }
        }
        Ok(())
    }

    fn read_lot(&self, lot: Lot, clock: Time) -> Result<Vec<(RelPath, Found)>, ScanError> {
        let mut read: Vec<(RelPath, Found)> = Vec::new();
        match lot {
            Lot::Entries(entries) => {
                let Some(dir) = entries.first().and_then(|first| self.open(&first.directory)) else {
                    return Ok(read);
                };
                for pending in entries {
                    let found = self.read_entry(&dir, &pending, clock)?;
                    read.extend(found.map(|found| (pending.directory, found)));
                }
            }
            Lot::Links(names) => {
                for pending in names {
                    let found = match read.first() {
                        Some((_, first)) => Some(renamed(first, &pending)),
                        None => self.read_link(&pending, clock)?,
                    };
                    read.extend(found.map(|found| (pending.directory, found)));
                }
            }
        }
        Ok(read)
    }

    fn open(&self, directory: &RelPath) -> Option<Dir> {
        match self.root.open_beneath(directory.as_bytes()) {
            Ok(dir) => Some(dir),
            Err(error) => {
                if !is_gone(&error) {
                    self.unreadable(directory.clone(), error);
                }
                None
            }
        }
    }

    fn read_link(&self, pending: &Pending, clock: Time) -> Result<Option<Found>, ScanError> {
        match self.open(&pending.directory) {
            Some(dir) => self.read_entry(&dir, pending, clock),
            None => Ok(None),
        }
    }

    /// `None` when the name has lost the inode that it had, or when reading fails, which is reported.
    fn read_entry(&self, dir: &Dir, pending: &Pending, clock: Time) -> Result<Option<Found>, ScanError> {
        self.control.check()?;
        let mut read = match self.read_until_stable(dir, pending, clock) {
            Ok(read) => read,
            Err(error) => {
                self.control.check()?;
                if !is_gone(&error) && still_has(dir, pending) {
                    self.unreadable(pending.path(), error);
                }
                return Ok(None);
            }
        };
        keep_holes(&mut read.found.entry.node, pending.expected.as_ref());
        self.count(pending, &read);
        Ok(Some(read.found))
    }

    fn read_until_stable(&self, dir: &Dir, pending: &Pending, clock: Time) -> io::Result<Read> {
        fault::hit("scan.file")?;
        for _ in 1..TRIES_MAX {
            let read = self.read_once(dir, pending, clock)?;
            if read.is_stable {
                return Ok(read);
            }
        }
        let last = self.read_once(dir, pending, clock)?;
        if last.is_stable {
            return Ok(last);
        }
        let local = last.found.local.distrusted();
        Ok(Read { found: Found { local, ..last.found }, ..last })
    }

    fn read_once(&self, dir: &Dir, pending: &Pending, clock: Time) -> io::Result<Read> {
        let name = pending.name.as_bytes();
        let before = inode(dir, name, pending.stat.id)?;
        let (node, found_by) = self.node(dir, pending, &before)?;
        let meta = meta::read(dir, name, &before)?;
        let after = inode(dir, name, pending.stat.id)?;
        let entry = Entry { name: pending.name.clone(), meta, node };
        let is_still = (before.ctime, before.mtime, before.size) == (after.ctime, after.mtime, after.size);
        let mut local = Local::new(&before, clock);
        // Of a file that moves on, a clone is one instant all the same; what it holds now is for the next scan.
        let is_frozen = found_by.is_some_and(FoundBy::is_frozen);
        if is_frozen && !is_still {
            local = local.distrusted();
        }
        if found_by == Some(FoundBy::ExtentMap)
            && let Some(known) = self.previous.as_ref().and_then(|previous| previous.index.local(&pending.path()))
        {
            local.read_at = known.read_at;
        }
        Ok(Read { found: Found { entry, local }, is_stable: is_still || is_frozen, found_by })
    }

    fn node(&self, dir: &Dir, pending: &Pending, stat: &Stat) -> io::Result<(Node, Option<FoundBy>)> {
        let name = pending.name.as_bytes();
        let node = match stat.kind {
            Kind::File => {
                let file = dir.open_file(name)?;
                if file::stat(&file)?.id != stat.id {
                    return Err(io::ErrorKind::NotFound.into());
                }
                return self.body(&file, pending, stat).map(|(body, found_by)| (Node::File(body), found_by));
            }
            Kind::Symlink => Node::Symlink { target: dir.readlink(name)?.into() },
            Kind::Device(kind) => Node::Device { kind, major: stat.rdev.0, minor: stat.rdev.1 },
            Kind::Fifo => Node::Fifo,
            Kind::Socket => Node::Socket,
            Kind::Directory => return Err(io::ErrorKind::IsADirectory.into()),
        };
        Ok((node, None))
    }

    fn body(&self, file: &File, pending: &Pending, stat: &Stat) -> io::Result<(Body, Option<FoundBy>)> {
        let Some(bases) = self.options.bases.filter(|_| stat.size >= BASE_BYTES_MIN) else {
            return Ok((hash_file(file, stat.size, self.control)?, None));
        };
        // What is due to be read again is read: a map says nothing of rot.
        let known = self.previous.as_ref().filter(|_| pending.expected.is_none() && !self.options.deep);
        let path = pending.path();
        let known = known.filter(|previous| previous.index.local(&path).is_some_and(|local| self.is_recent(local)));
        let before = known.and_then(|previous| Some(previous.index.manifest.find(&path)?.node.body()?.digest));
        let read = bases.read(file, stat.size, before, self.control)?;
        Ok((read.body, Some(read.found_by)))
    }

    fn count(&self, pending: &Pending, read: &Read) {
        let digest = |node: &Node| node.body().map(|body| body.digest);
        let now = digest(&read.found.entry.node);
        let then = pending.expected.as_ref().and_then(|expected| digest(&expected.node));
        let mut findings = self.findings();
        findings.changed.entries += 1;
        if let Some(found_by) = read.found_by {
            *findings.found_by.entry(found_by).or_default() += 1;
        }
        findings.changed.bytes += read.found.entry.node.body().map_or(0, |body| body.size);
        if !read.is_stable {
            findings.unstable.insert(pending.path());
        } else if then.is_some() && then != now {
            findings.rotten.push(pending.path());
        }
    }
}

/// A file whose times did not move has the hole map that it had: what `SEEK_HOLE` tells also depends on what of the file
/// is in the page cache, and on blocks that XFS holds ready for writes.
fn keep_holes(node: &mut Node, expected: Option<&Entry>) {
    if let (Node::File(now), Some(then)) = (node, expected.and_then(|entry| entry.node.body()))
        && (now.size, now.digest) == (then.size, then.digest)
    {
        now.holes = then.holes;
    }
}

/// The entry as it is now, which must still be the inode that was listed.
fn inode(dir: &Dir, name: &[u8], id: FileId) -> io::Result<Stat> {
    let stat = dir.stat(name)?;
    if stat.id == id { Ok(stat) } else { Err(io::ErrorKind::NotFound.into()) }
}

fn still_has(dir: &Dir, pending: &Pending) -> bool {
    dir.stat(pending.name.as_bytes()).is_ok_and(|stat| stat.id == pending.stat.id)
}

fn renamed(found: &Found, pending: &Pending) -> Found {
    Found { entry: Entry { name: pending.name.clone(), ..found.entry.clone() }, local: found.local }
}
