//! The pool: contents that restore points need and the tree no longer has, one inode for each, named by digest.
//!
//! Invariant: for every restorable point and every content in its manifest there is an inode with that content in the
//! tree or here. An inode here is never in the tree as well, except while a commit is on its way (R4).

use std::{collections::HashSet, io};

use drover_linux::Dir;

use crate::{beside::subdirectory, control::Control, digest::Digest, record};

#[derive(Debug)]
pub struct Pool {
    dir: Dir,
}

fn names(digest: &Digest) -> ([u8; 2], Vec<u8>) {
    let text = digest.to_string().into_bytes();
    ([text[0], text[1]], text)
}

/// What lies here left the tree by rename: a process that had it open may have written to it since.
fn is_content(dir: &Dir, name: &[u8], digest: &Digest) -> io::Result<bool> {
    let file = dir.open_file(name)?;
    let size = drover_linux::file::stat(&file)?.size;
    Ok(crate::hash::hash_file(&file, size, &Control::default())?.digest == *digest)
}

impl Pool {
    pub(crate) fn open(volume: &Dir) -> io::Result<Self> {
        Ok(Self { dir: subdirectory(volume, b"pool")? })
    }

    /// Directory and name of a content, if it is here.
    pub(crate) fn find(&self, digest: &Digest) -> io::Result<Option<(Dir, Vec<u8>)>> {
        let (shard, name) = names(digest);
        let found = self.dir.open_beneath(&shard).and_then(|dir| dir.stat(&name).map(|_| dir));
        match found {
            Ok(dir) => Ok(Some((dir, name))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes in a file that left the tree. One that is here already has the same content, so the newcomer goes.
    pub(crate) fn take(&self, from: &Dir, name: &[u8], digest: &Digest) -> io::Result<()> {
        let (shard, pooled) = names(digest);
        let shard = subdirectory(&self.dir, &shard)?;
        match from.rename_noreplace(name, &shard, &pooled) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if is_content(&shard, &pooled, digest)? {
                    from.unlink(name)
                } else {
                    from.rename_replace(name, &shard, &pooled)
                }
            }
            result => result,
        }
    }

    /// As `find`, for use: the content is proved first, and what is not what its name says goes away.
    pub(crate) fn find_proved(&self, digest: &Digest) -> io::Result<Option<(Dir, Vec<u8>)>> {
        let Some((dir, name)) = self.find(digest)? else { return Ok(None) };
        if is_content(&dir, &name, digest)? {
            return Ok(Some((dir, name)));
        }
        tracing::warn!(%digest, "a content in history was written to by another process; it is not used");
        dir.unlink(&name)?;
        Ok(None)
    }

    /// The content is in the tree (again), or no point needs it.
    pub(crate) fn drop_content(&self, digest: &Digest) -> io::Result<()> {
        match self.find(digest)? {
            Some((dir, name)) => dir.unlink(&name),
            None => Ok(()),
        }
    }

    /// Everything that is here.
    pub(crate) fn contents(&self) -> io::Result<HashSet<Digest>> {
        let mut digests = HashSet::new();
        for (shard, _) in self.dir.list()? {
            for (name, _) in self.dir.open_beneath(&shard)?.list()? {
                digests.extend(std::str::from_utf8(&name).ok().and_then(|text| text.parse::<Digest>().ok()));
            }
        }
        Ok(digests)
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        record::sync_filesystem(&self.dir)
    }
}
