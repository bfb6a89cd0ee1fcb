//! Finding a file again: by its path, or by its handle when it was renamed since the scan.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::ffi::OsStrExt,
    },
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use drover_linux::{Dir, file};

use super::Source;
use crate::{
    content::Allocation,
    hash::PLAIN_BYTES_MAX,
    leaves::LeafFile,
    path::{Name, RelPath},
    session::body::{Want, error::is_no_file},
};

/// Files that requests come for at the same time; each holds a descriptor and, when sparse, its list of data ranges.
const OPEN_MAX: usize = 64;

/// A file whose content travels in ranges.
#[derive(Debug)]
pub(super) struct OpenFile {
    pub(super) file: File,
    pub(super) allocation: Allocation,
    /// Of the content that is wanted, when they are known.
    pub(super) leaves: Option<LeafFile>,
    /// The file that `file` is a clone of: it is in the page cache where the clone is not, and it may have moved on.
    pub(super) warm: Option<File>,
}

/// Kept by path until others push it out, so that a big file is opened once and is one inode from start to end.
#[derive(Debug, Default)]
pub(super) struct OpenFiles(Mutex<VecDeque<(RelPath, Place)>>);

/// Locked while its file is opened: a scattered one's map takes long, and many requests come for it at once.
type Place = Arc<Mutex<Option<Arc<OpenFile>>>>;

impl OpenFiles {
    fn place(&self, path: &RelPath) -> Place {
        let mut files = lock(&self.0);
        if let Some((_, place)) = files.iter().find(|(known, _)| known == path) {
            return Arc::clone(place);
        }
        if files.len() >= OPEN_MAX {
            files.pop_front();
        }
        let place = Place::default();
        files.push_back((path.clone(), Arc::clone(&place)));
        place
    }

    pub(super) fn forget(&self, path: &RelPath) {
        lock(&self.0).retain(|(known, _)| known != path);
    }

    pub(super) fn put(&self, path: &RelPath, file: Arc<OpenFile>) {
        self.forget(path);
        *lock(&self.place(path)) = Some(file);
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl OpenFile {
    pub(super) fn new(file: File, holes: u64) -> io::Result<Self> {
        let allocation = match holes {
            0 => Allocation::Full,
            _ => Allocation::of(&file)?,
        };
        Ok(Self { file, allocation, leaves: None, warm: None })
    }
}

impl Source<'_> {
    /// `None` when it is gone, or is no regular file any more.
    pub(super) fn open(&self, path: &RelPath) -> io::Result<Option<File>> {
        match self.open_by_path(path)? {
            Some(file) => Ok(Some(file)),
            None => self.open_by_handle(path),
        }
    }

    pub(super) fn open_large(&self, want: &Want) -> io::Result<Option<Arc<OpenFile>>> {
        let place = self.files.place(&want.path);
        let mut place = lock(&place);
        if let Some(open) = &*place {
            return Ok(Some(Arc::clone(open)));
        }
        let frozen = self.frozen(want)?;
        let live = if frozen.is_some() { self.open(&want.path).unwrap_or(None) } else { self.open(&want.path)? };
        let (file, warm) = match (frozen, live) {
            (Some(frozen), live) => (frozen, live),
            (None, Some(live)) => (live, None),
            (None, None) => return Ok(None),
        };
        if warm.is_some() {
            file::expect_random(&file)?;
        }
        let mut open = OpenFile::new(file, want.body.holes)?;
        if let Some(bases) = self.bases.filter(|_| want.body.size > PLAIN_BYTES_MAX) {
            open.leaves = bases.leaves_of(&want.body.digest, want.body.size)?;
            open.warm = warm;
        }
        Ok(Some(Arc::clone(place.insert(Arc::new(open)))))
    }

    /// The content itself, whatever the file holds by now.
    pub(super) fn frozen(&self, want: &Want) -> io::Result<Option<File>> {
        self.bases.map_or(Ok(None), |bases| bases.clone_of(&want.body.digest))
    }

    /// As the scan saw it: the same inode when its handle is known, wherever it is now.
    pub(super) fn open_again(&self, path: &RelPath) -> io::Result<Option<File>> {
        match self.open_by_handle(path)? {
            Some(file) => Ok(Some(file)),
            None => self.open_by_path(path),
        }
    }

    fn open_by_path(&self, path: &RelPath) -> io::Result<Option<File>> {
        let Some((parent, name)) = path.split() else {
            return Ok(None);
        };
        let open = || self.dirs.get(&parent)?.open_file(name.as_bytes());
        let opened = match open() {
            // The directory may be a new one since it was opened.
            Err(error) if is_no_file(&error) => {
                self.dirs.forget(&parent);
                open()
            }
            opened => opened,
        };
        match opened {
            Err(error) if is_no_file(&error) => Ok(None),
            opened => opened.map(Some),
        }
    }

    fn open_by_handle(&self, path: &RelPath) -> io::Result<Option<File>> {
        let Some(handle) = self.handles.get(path) else {
            return Ok(None);
        };
        match self.dirs.root().open_by_handle(handle) {
            // Without the capability for it a renamed file counts as gone.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(None),
            opened => opened,
        }
    }

    /// The directory and name where an open file is now, inside the volume; `None` when it has none.
    pub(super) fn locate(&self, file: &File) -> io::Result<Option<(Arc<Dir>, Name)>> {
        let (root, now) = (path_of(self.dirs.root().as_fd())?, path_of(file.as_fd())?);
        let Ok(rel) = now.strip_prefix(&root) else {
            return Ok(None);
        };
        let path = self.dirs.root().shown(rel.as_os_str().as_bytes());
        let Some((parent, name)) = path.and_then(|path| RelPath::new(path).ok()?.split()) else {
            return Ok(None);
        };
        let there = self.dirs.get(&parent).and_then(|dir| Ok((dir.stat(name.as_bytes())?, dir)));
        let (found, dir) = match there {
            Ok(found) => found,
            Err(error) if is_no_file(&error) => {
                self.dirs.forget(&parent);
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        Ok((found.id == file::stat(file)?.id).then_some((dir, name)))
    }
}

fn path_of(fd: BorrowedFd<'_>) -> io::Result<PathBuf> {
    fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}
