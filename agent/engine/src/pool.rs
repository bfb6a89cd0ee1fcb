//! The pool: contents that restore points need and the tree no longer has, one inode for each, named by digest.
//!
//! Invariant: for every restorable point and every content in its manifest there is an inode with that content in the
//! tree or here. An inode here is never in the tree as well, except while a commit is on its way (R4).
//!
//! A content that was patched in place is here as the patch that takes the change back: `<digest>.delta` names the content
//! that it is laid over, which is in the tree or here itself. Following these names always leads to the tree or to a whole
//! content: when a content enters the tree its own patch goes, and when it leaves it gets one over what replaced it.

use std::{collections::HashSet, fs::File, io};

use drover_linux::Dir;

use crate::{
    beside::subdirectory,
    control::Control,
    digest::Digest,
    error::Kind,
    patch::{Named, Patch, SAVED, UNDO},
    record::{self, RecordError},
};

#[derive(Debug)]
pub struct Pool {
    dir: Dir,
}

/// A content that is another one with a patch over it.
#[derive(Debug)]
pub(crate) struct Delta {
    pub(crate) patch: Patch,
    pub(crate) data: File,
    pub(crate) ranges_name: Vec<u8>,
    pub(crate) data_name: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) base: Named,
    pub(crate) deltas: Vec<Delta>,
}

fn delta_names(digest: &Digest) -> (Vec<u8>, Vec<u8>) {
    (format!("{digest}.delta").into_bytes(), format!("{digest}.data").into_bytes())
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
                    from.unlink(name)?;
                } else {
                    from.rename_replace(name, &shard, &pooled)?;
                }
            }
            result => result?,
        }
        self.drop_delta(digest)
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
        if let Some((dir, name)) = self.find(digest)? {
            dir.unlink(&name)?;
        }
        self.drop_delta(digest)
    }

    fn drop_delta(&self, digest: &Digest) -> io::Result<()> {
        let Some(shard) = self.shard(digest)? else { return Ok(()) };
        let (ranges, data) = delta_names(digest);
        // The data without its ranges is nothing.
        for name in [ranges, data] {
            match shard.unlink(&name) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn shard(&self, digest: &Digest) -> io::Result<Option<Dir>> {
        match self.dir.open_beneath(&names(digest).0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => opened.map(Some),
        }
    }

    /// Takes in the undo patch of a commit: what it makes is the content `digest`. May be done again.
    pub(crate) fn take_delta(&self, patches: &Dir, digest: &Digest) -> io::Result<()> {
        let is_there = |dir: &Dir, name: &[u8]| match dir.stat(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            found => found.map(|_| true),
        };
        if self.find(digest)?.is_some() || !is_there(patches, UNDO)? {
            return Ok(());
        }
        let shard = subdirectory(&self.dir, &names(digest).0)?;
        let (ranges, data) = delta_names(digest);
        if is_there(patches, SAVED)? {
            // An older patch that made the same content of another one.
            self.drop_delta(digest)?;
            patches.rename_replace(SAVED, &shard, &data)?;
        }
        patches.rename_replace(UNDO, &shard, &ranges)
    }

    /// The patch that makes a content, if it is here in that form.
    fn delta(&self, digest: &Digest) -> io::Result<Option<Delta>> {
        let Some(shard) = self.shard(digest)? else { return Ok(None) };
        let (ranges, data) = delta_names(digest);
        // What is damaged is not here: it can be fetched again, or its point is lost, and nothing else waits for it.
        let is_lost = |error: &RecordError| error.kind() == Kind::DataLoss;
        let patch = match Patch::load(&shard, &ranges) {
            Err(error) if is_lost(&error) => {
                tracing::warn!(%digest, error = &error as &dyn std::error::Error, "a patch in history is damaged");
                return Ok(None);
            }
            loaded => loaded.map_err(io::Error::other)?,
        };
        let (Some(patch), Some(file)) = (patch, shard.open_file_if_there(&data)?) else { return Ok(None) };
        Ok(Some(Delta { patch, data: file, data_name: data, ranges_name: ranges }))
    }

    /// How to make a content that is here as patches: of what, and what has to be laid over it, in order. `None` when it
    /// is not here in that form.
    pub(crate) fn chain(&self, digest: &Digest) -> io::Result<Option<Chain>> {
        let Some(last) = self.delta(digest)? else { return Ok(None) };
        let (mut base, mut deltas) = (last.patch.from, vec![last]);
        let mut seen = HashSet::from([*digest]);
        while self.find(&base.digest)?.is_none() && seen.insert(base.digest) {
            let Some(delta) = self.delta(&base.digest)? else { break };
            base = delta.patch.from;
            deltas.push(delta);
        }
        deltas.reverse();
        Ok(Some(Chain { base, deltas }))
    }

    /// What a content that is here as a patch is made of.
    pub(crate) fn base_of(&self, digest: &Digest) -> io::Result<Option<Digest>> {
        Ok(self.delta(digest)?.map(|delta| delta.patch.from.digest))
    }

    /// Everything that is here.
    pub(crate) fn contents(&self) -> io::Result<HashSet<Digest>> {
        let mut digests = HashSet::new();
        for (shard, _) in self.dir.list()? {
            for (name, _) in self.dir.open_beneath(&shard)?.list()? {
                let text = std::str::from_utf8(&name).ok();
                let text = text.map(|text| text.strip_suffix(".delta").unwrap_or(text));
                digests.extend(text.and_then(|text| text.parse::<Digest>().ok()));
            }
        }
        Ok(digests)
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        record::sync_filesystem(&self.dir)
    }
}
