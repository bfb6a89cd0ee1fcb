//! Removing what is in staging and no longer wanted.

use std::io;

use drover_linux::{Dir, Kind};

use crate::path::{Name, RelPath};

/// Removes a file or a whole tree of Drover's own; absent is fine. An explicit stack, since trees may be very deep.
pub(crate) fn remove_tree(dir: &Dir, name: &[u8]) -> io::Result<()> {
    let Some(kind) = kind_of(dir, name)? else {
        return Ok(());
    };
    if kind != Kind::Directory {
        return unlink(dir, name, kind);
    }
    let mut stack = vec![(dir.try_clone()?, name.to_vec())];
    while let Some((parent, name)) = stack.last() {
        dir_unlock(parent, name);
        let this = parent.open_beneath(name)?;
        let mut subdirectory = None;
        for (child, _) in this.list()? {
            match kind_of(&this, &child)? {
                Some(Kind::Directory) => {
                    subdirectory = Some(child);
                    break;
                }
                Some(kind) => unlink(&this, &child, kind)?,
                None => {}
            }
        }
        match subdirectory {
            Some(child) => stack.push((this, child)),
            None => {
                parent.rmdir(name)?;
                stack.pop();
            }
        }
    }
    Ok(())
}

fn dir_unlock(parent: &Dir, name: &[u8]) {
    // Best effort: if it stays locked, removing tells.
    let _ = crate::meta::clear_locking_flags(parent, name);
}

fn unlink(dir: &Dir, name: &[u8], kind: Kind) -> io::Result<()> {
    match dir.unlink(name) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && kind == Kind::File => {
            crate::meta::clear_locking_flags(dir, name)?;
            dir.unlink(name)
        }
        result => result,
    }
}

fn kind_of(dir: &Dir, name: &[u8]) -> io::Result<Option<Kind>> {
    match dir.stat(name) {
        Ok(stat) => Ok(Some(stat.kind)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What may stay of an interrupted run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// A staged directory, or the way to something staged.
    Directory,
    /// A regular file, whole or in part: its digest will tell.
    File,
    Nothing,
}

/// Removes everything from a staging tree that `wanted` does not want. Regular files with several names go as well:
/// they may share their inode with history, so nothing may be written to them.
pub(crate) fn discard_others(tree: &Dir, wanted: &dyn Fn(&RelPath) -> Wanted) -> io::Result<()> {
    let mut open = vec![RelPath::root()];
    while let Some(path) = open.pop() {
        let dir = tree.open_beneath(path.as_bytes())?;
        for (bytes, _) in dir.list()? {
            let Ok(name) = Name::new(&bytes) else {
                continue;
            };
            let child = path.join(&name);
            let stat = dir.stat(&bytes)?;
            match (wanted(&child), stat.kind) {
                (Wanted::Directory, Kind::Directory) => open.push(child),
                (Wanted::File, Kind::File) if stat.nlink == 1 => {}
                _ => remove_tree(&dir, &bytes)?,
            }
        }
    }
    Ok(())
}
