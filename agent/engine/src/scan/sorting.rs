//! Sorts one directory's entries: what the index or an earlier pass vouches for, what has to be read, what is walked.

use std::{collections::HashMap, io, iter::Peekable};

use drover_linux::{Dir, FileId, Kind, Stat, Time, is_gone};
use rayon::prelude::*;

use super::{
    Scanner,
    listing::{Files, Found, Listed, Pending},
    previous::KnownDirectory,
    walk::{ListError, Task, Walk},
};
use crate::{
    index::Local,
    path::{NAME_BYTES_MAX, Name, PATH_BYTES_MAX, RelPath},
    tree::{Entry, Meta},
};

/// Entries that one thread stats before another is asked to help; a statx takes about a microsecond.
const STATS_EACH: usize = 512;

type Known<'a> = Box<dyn Iterator<Item = (Entry, Local)> + 'a>;

pub(super) struct Sorting<'w> {
    walk: &'w Walk<'w>,
    path: &'w RelPath,
    /// Where the index had this directory, and what it held then, in name order.
    known_path: Option<&'w RelPath>,
    known: Peekable<Known<'w>>,
    /// What an earlier pass of this scan read here.
    earlier: HashMap<&'w [u8], &'w Found>,
    /// So far everything is as the index has it at this path.
    as_before: bool,
    found: Vec<Found>,
    sorted: Sorted,
}

pub(super) struct Sorted {
    pub(super) subdirectories: Vec<(Name, FileId)>,
    pub(super) files: Files,
    pub(super) pending: Vec<Pending>,
    pub(super) children: Vec<Task>,
    pub(super) mount_points: Vec<(RelPath, Listed)>,
}

impl<'w> Sorting<'w> {
    pub(super) fn new(walk: &'w Walk<'w>, path: &'w RelPath, known: Option<&'w KnownDirectory>) -> Self {
        let entries: Known<'w> = match (&walk.scanner.previous, known) {
            (Some(previous), Some(known)) => Box::new(previous.entries(&known.path)),
            _ => Box::new(std::iter::empty()),
        };
        let earlier = walk.earlier.0.get(path).map_or(&[][..], Listed::found);
        Self {
            walk,
            path,
            known_path: known.map(|known| &known.path),
            known: entries.peekable(),
            earlier: earlier.iter().map(|found| (found.entry.name.as_bytes(), found)).collect(),
            as_before: known.is_some_and(|known| known.path == *path),
            found: Vec::new(),
            sorted: Sorted {
                subdirectories: Vec::new(),
                files: Files::AsBefore,
                pending: Vec::new(),
                children: Vec::new(),
                mount_points: Vec::new(),
            },
        }
    }

    pub(super) fn sort(mut self, dir: &Dir) -> Result<Sorted, ListError> {
        let mut names = dir.list()?;
        names.sort_unstable();
        let stats: Vec<_> = names.par_iter().with_min_len(STATS_EACH).map(|(name, _)| dir.stat(name)).collect();
        for ((name, _), stat) in names.iter().zip(stats) {
            let known = self.known_as(name);
            match stat {
                Ok(stat) => self.entry(name, stat, known)?,
                // The directory's own times tell that it changed.
                Err(error) if is_gone(&error) => self.as_before = false,
                Err(error) => self.refuse(name, error),
            }
        }
        self.walk.scanner.control.progress.entries_done.add(names.len() as u64);
        self.as_before &= self.known.peek().is_none();
        if !self.as_before {
            self.sorted.files = Files::Found(self.found);
        }
        Ok(self.sorted)
    }

    /// The index's entry of that name; names are asked for in order.
    fn known_as(&mut self, name: &[u8]) -> Option<(Entry, Local)> {
        while self.known.next_if(|(entry, _)| entry.name.as_bytes() < name).is_some() {
            self.as_before = false;
        }
        self.known.next_if(|(entry, _)| entry.name.as_bytes() == name)
    }

    fn entry(&mut self, name: &[u8], stat: Stat, known: Option<(Entry, Local)>) -> Result<(), ListError> {
        let scanner = self.walk.scanner;
        if scanner.is_foreign(&stat) {
            return self.mount_point(name, &stat, known);
        }
        if stat.kind == Kind::Directory {
            self.directory(name, stat.id, known);
            return Ok(());
        }
        if let Some((entry, local)) = known {
            if scanner.vouches_for_file(&entry, &local, &stat) {
                self.found.push(Found { entry, local });
                return Ok(());
            }
            self.file(name, stat, scanner.is_unchanged(&entry.meta, &local, &stat).then_some(entry));
        } else {
            self.file(name, stat, None);
        }
        Ok(())
    }

    /// A file that the index can't vouch for.
    fn file(&mut self, name: &[u8], stat: Stat, expected: Option<Entry>) {
        self.as_before = false;
        if let Some(found) = self.earlier.get(name)
            && is_same(&found.entry.meta, &found.local, &stat)
        {
            self.found.push((*found).clone());
        } else if let Some(name) = self.accept(name) {
            self.sorted.pending.push(Pending { directory: self.path.clone(), name, stat, expected });
        }
    }

    fn directory(&mut self, name: &[u8], id: FileId, known: Option<(Entry, Local)>) {
        let known = known.filter(|(entry, local)| entry.node.is_directory() && local.id == id);
        self.as_before &= known.is_some();
        let Some(name) = self.accept(name) else {
            return;
        };
        let path = self.path.join(&name);
        if !self.walk.earlier.is_listed(&path, id) && !self.walk.starts.contains(&path) {
            let known = self.known_path.zip(known).map(|(parent, (entry, local))| KnownDirectory {
                path: parent.join(&entry.name),
                meta: entry.meta,
                local,
            });
            self.sorted.children.push(Task { path, known });
        }
        self.sorted.subdirectories.push((name, id));
    }

    fn mount_point(&mut self, name: &[u8], stat: &Stat, known: Option<(Entry, Local)>) -> Result<(), ListError> {
        let Some(name) = self.accept(name) else {
            return Ok(());
        };
        let path = self.path.join(&name);
        if !self.walk.scanner.options.waive_mount_points {
            return Err(ListError::Scan(super::ScanError::MountPoint { path }));
        }
        if stat.kind != Kind::Directory {
            self.as_before &= known.is_none();
            return Ok(());
        }
        let listed = covered_directory(stat.id, known);
        self.as_before &= listed.as_before;
        self.sorted.subdirectories.push((name, stat.id));
        self.sorted.mount_points.push((path, listed));
        Ok(())
    }

    /// `None`, and the entry is reported, when Drover can't carry such a name or path.
    fn accept(&self, name: &[u8]) -> Option<Name> {
        let too_long = self.path.as_bytes().len() + 1 + NAME_BYTES_MAX > PATH_BYTES_MAX;
        match Name::new(name) {
            Ok(name) if !too_long => Some(name),
            Ok(_) => {
                self.walk.scanner.unreadable(self.path.clone(), io::ErrorKind::InvalidFilename.into());
                None
            }
            Err(error) => {
                self.walk.scanner.unreadable(self.path.clone(), io::Error::new(io::ErrorKind::InvalidData, error));
                None
            }
        }
    }

    fn refuse(&mut self, name: &[u8], error: io::Error) {
        self.as_before = false;
        if let Some(name) = self.accept(name) {
            self.walk.scanner.unreadable(self.path.join(&name), error);
        }
    }
}

/// What stands for a mount point: what it covers can't be seen, so its metadata are root's and nobody's in particular.
fn covered_directory(id: FileId, known: Option<(Entry, Local)>) -> Listed {
    let meta = Meta { mode: 0o755, ..Meta::default() };
    let local = Local { id, nlink: 1, ..Local::default() };
    let as_before = known.is_some_and(|(entry, known)| entry.meta == meta && known == local);
    Listed {
        meta,
        local,
        subdirectories: Vec::new(),
        files: if as_before { Files::AsBefore } else { Files::Found(Vec::new()) },
        as_before,
        listed_at: Time::default(),
        is_mount_point: true,
    }
}

/// Identity and times are those of the entry. Times are only ever compared for equality.
fn is_same(meta: &Meta, local: &Local, stat: &Stat) -> bool {
    local.id == stat.id && local.ctime == stat.ctime && meta.mtime == stat.mtime
}

impl Scanner<'_> {
    /// The index says that this is what it read, at a time when times prove something.
    fn is_unchanged(&self, meta: &Meta, local: &Local, stat: &Stat) -> bool {
        !local.racy && is_same(meta, local, stat)
    }

    pub(super) fn vouches(&self, meta: &Meta, local: &Local, stat: &Stat) -> bool {
        !self.options.deep && self.is_recent(local) && self.is_unchanged(meta, local, stat)
    }

    /// Its content need not be read again yet.
    pub(super) fn is_recent(&self, local: &Local) -> bool {
        self.options.reread_before.is_none_or(|before| local.read_at >= before)
    }

    fn vouches_for_file(&self, entry: &Entry, local: &Local, stat: &Stat) -> bool {
        self.vouches(&entry.meta, local, stat) && entry.node.body().is_none_or(|body| body.size == stat.size)
    }

    /// On another mount, or (directories only, since overlayfs gives files the numbers of its layers) another device.
    fn is_foreign(&self, stat: &Stat) -> bool {
        stat.mount_id != self.root_stat.mount_id || stat.kind == Kind::Directory && stat.dev != self.root_stat.dev
    }
}
