//! Builds a plan's staged entries: directories, nodes, contents that are at hand; then, once the rest was fetched, hard
//! links and metadata.

use std::{collections::BTreeMap, io};

use drover_linux::{Dir, Kind, Stat, file};
use rayon::prelude::*;

use super::{Dirs, Staging, clean::Wanted, discard_others};
use crate::{
    control::{Cancelled, Control},
    error::Kind as ErrorKind,
    fault, hash, meta,
    patch::{Covered, Overlay, Patch, REDO},
    path::RelPath,
    plan::{Patched, Plan, Provider, Staged, Writing},
    pool::{Chain, Pool},
    tree::{Body, Node},
};

#[derive(Debug, thiserror::Error)]
pub enum StageError {
    #[error("stage {path}")]
    Entry {
        path: RelPath,
        #[source]
        source: io::Error,
    },
    #[error("prepare staging")]
    Prepare(#[source] io::Error),
    #[error("sync staging")]
    Sync(#[source] io::Error),
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl StageError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Cancelled(_) => ErrorKind::Cancelled,
            Self::Entry { source, .. } | Self::Prepare(source) | Self::Sync(source) => storage_kind(source),
        }
    }

    pub fn reason(&self) -> &'static str {
        match self {
            Self::Cancelled(_) => "cancelled",
            Self::Entry { source, .. } | Self::Prepare(source) | Self::Sync(source) => storage_reason(source),
        }
    }
}

/// A full file system or quota is the caller's to mend; anything else is the storage's.
pub(crate) fn storage_kind(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Exhausted,
        _ => ErrorKind::Storage,
    }
}

pub(crate) fn storage_reason(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull => "no-space",
        io::ErrorKind::QuotaExceeded => "quota-exceeded",
        _ => "io-error",
    }
}

pub struct Builder<'a> {
    pub(crate) staging: &'a Staging,
    /// The replica's tree; read, never written.
    pub(crate) live: &'a Dir,
    pub(crate) pool: &'a Pool,
    pub(crate) control: &'a Control,
}

/// A body that is nowhere on the replica.
#[derive(Clone, Debug, PartialEq)]
pub struct Missing {
    pub path: RelPath,
    pub body: Body,
    pub base: Option<RelPath>,
}

impl Builder<'_> {
    /// Everything that needs no other host. Returns what has to be fetched, and which contents were taken from history.
    pub(crate) fn prepare(&self, plan: &Plan) -> Result<(Vec<Missing>, Vec<crate::digest::Digest>), StageError> {
        let wanted = wanted(plan);
        let ask = |path: &RelPath| wanted.get(path).copied().unwrap_or(Wanted::Nothing);
        discard_others(self.staging.tree(), &ask).map_err(StageError::Prepare)?;
        let mut dirs = Dirs::new(self.staging.tree());
        for (path, _) in wanted.iter().filter(|(_, wanted)| **wanted == Wanted::Directory) {
            let at = |source| StageError::Entry { path: path.clone(), source };
            let (dir, name) = dirs.locate(path).map_err(at)?;
            match dir.mkdir(&name, 0o700) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(at(error));
                }
                _ => {}
            }
        }
        let (mut missing, mut from_pool) = (Vec::new(), Vec::new());
        for staged in &plan.staged {
            self.control.check()?;
            fault::hit("stage.prepare").map_err(StageError::Prepare)?;
            self.entry(&mut dirs, staged, plan.patched.as_ref(), &mut missing, &mut from_pool)
                .map_err(|source| StageError::Entry { path: staged.path.clone(), source })?;
        }
        Ok((missing, from_pool))
    }

    fn entry(
        &self,
        dirs: &mut Dirs<'_>,
        staged: &Staged,
        patched: Option<&Patched>,
        missing: &mut Vec<Missing>,
        from_pool: &mut Vec<crate::digest::Digest>,
    ) -> io::Result<()> {
        let (dir, name) = dirs.locate(&staged.path)?;
        match (&staged.provider, &staged.entry.node) {
            (Provider::LinkTo(_), _) | (Provider::Made, Node::Directory { .. }) => Ok(()),
            (Provider::Made, node) => make(&dir, &name, node),
            (Provider::Body { copy_of, base }, Node::File(body)) => {
                let chain = self.pool.chain(&body.digest)?;
                // What enters the tree leaves history, whether it can be used for that or not.
                from_pool.extend(chain.is_some().then_some(body.digest));
                if let Some(patched) = patched {
                    if patched.writing == Writing::AtOnce || !self.patch_from_pool(&dir, &name, chain, patched)? {
                        missing.push(Missing { path: staged.path.clone(), body: *body, base: base.clone() });
                    }
                    return Ok(());
                }
                if self.link_from_pool(&dir, &name, body)? {
                    from_pool.push(body.digest);
                    return Ok(());
                }
                if self.rebuild_from_pool(&dir, &name, chain, base.as_ref(), body)? {
                    return Ok(());
                }
                if let Some(copy_of) = copy_of
                    && self.copy(&dir, &name, copy_of, body)?
                {
                    return Ok(());
                }
                missing.push(Missing { path: staged.path.clone(), body: *body, base: base.clone() });
                Ok(())
            }
            (Provider::Body { .. }, _) => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// A further name for the content that history keeps; it leaves the pool when the point stands.
    fn link_from_pool(&self, dir: &Dir, name: &[u8], body: &Body) -> io::Result<bool> {
        let Some((pool, digest)) = self.pool.find_proved(&body.digest)? else {
            return Ok(false);
        };
        let stat = pool.stat(&digest)?;
        if stat.nlink > 1 {
            // Taken by another path of this plan already: that one has the inode, this one gets a copy.
            return self.copy_file(dir, name, &pool.open_file(&digest)?, body);
        }
        unlink(dir, name)?;
        pool.link(&digest, dir, name)?;
        Ok(true)
    }

    /// The patches that lead from the live content to one of history, laid over each other.
    fn patch_from_pool(&self, dir: &Dir, name: &[u8], chain: Option<Chain>, patched: &Patched) -> io::Result<bool> {
        let Some(chain) = chain.filter(|chain| chain.base == (&patched.from).into()) else { return Ok(false) };
        let (live_dir, live_name) = super::locate(self.live, &patched.path)?;
        unlink(dir, name)?;
        let data = dir.create_file(name, 0o600)?;
        let overlay = Overlay::new(data, live_dir.open_file(&live_name)?, patched.from.size, Covered::default())?;
        chain.deltas.iter().try_for_each(|delta| delta.patch.overlay(&delta.data, &overlay))?;
        if overlay.size() != patched.to.size
            || hash::hash_content(&overlay, patched.to.size, self.control)?.digest != patched.to.digest
        {
            tracing::warn!(digest = %patched.to.digest, "a content in history is damaged; it is not used");
            dir.unlink(name)?;
            return Ok(false);
        }
        let (from, to) = ((&patched.from).into(), (&patched.to).into());
        Patch { from, to, covered: overlay.to_covered() }.store(self.staging.patches(), REDO)?;
        Ok(true)
    }

    /// A content that history has as patches, as a file of its own.
    fn rebuild_from_pool(
        &self,
        dir: &Dir,
        name: &[u8],
        chain: Option<Chain>,
        live: Option<&RelPath>,
        body: &Body,
    ) -> io::Result<bool> {
        let Some(chain) = chain else { return Ok(false) };
        let base = match (self.pool.find(&chain.base.digest)?, live) {
            (Some((pool, pooled)), _) => pool.open_file(&pooled)?,
            (None, Some(live)) => {
                let (live_dir, live_name) = super::locate(self.live, live)?;
                live_dir.open_file(&live_name)?
            }
            (None, None) => return Ok(false),
        };
        unlink(dir, name)?;
        let copy = dir.create_file(name, 0o600)?;
        file::copy_content(&base, &copy, chain.base.size)?;
        chain.deltas.iter().try_for_each(|delta| delta.patch.apply(&delta.data, &copy, "stage.prepare"))?;
        self.is_whole(dir, name, &copy, body)
    }

    /// Content that another file of the replica has, if it still has it.
    fn copy(&self, dir: &Dir, name: &[u8], from: &RelPath, body: &Body) -> io::Result<bool> {
        let (from_dir, from_name) = super::locate(self.live, from)?;
        match from_dir.open_file(&from_name) {
            Ok(source) => self.copy_file(dir, name, &source, body),
            Err(_) => Ok(false),
        }
    }

    fn copy_file(&self, dir: &Dir, name: &[u8], source: &std::fs::File, body: &Body) -> io::Result<bool> {
        unlink(dir, name)?;
        let copy = dir.create_file(name, 0o600)?;
        file::copy_content(source, &copy, body.size)?;
        self.is_whole(dir, name, &copy, body)
    }

    /// What turns out to be something else is not kept.
    fn is_whole(&self, dir: &Dir, name: &[u8], copy: &std::fs::File, body: &Body) -> io::Result<bool> {
        let is_whole = hash::hash_file(copy, body.size, self.control)?.digest == body.digest
            && file::stat(copy)?.size == body.size;
        if !is_whole {
            dir.unlink(name)?;
        }
        Ok(is_whole)
    }

    /// After all contents are there: hard links, then metadata, directories deepest first.
    pub(crate) fn finish(&self, plan: &Plan) -> Result<(), StageError> {
        let mut dirs = Dirs::new(self.staging.tree());
        for staged in &plan.staged {
            if let Provider::LinkTo(leader) = &staged.provider {
                self.link(&mut dirs, leader, &staged.path)
                    .map_err(|source| StageError::Entry { path: staged.path.clone(), source })?;
            }
        }
        fault::hit("stage.links").map_err(StageError::Prepare)?;
        // A patch has no metadata: that is set where it is applied.
        let by_parent = if plan.patched.is_some() { BTreeMap::new() } else { by_parent(plan) };
        by_parent.par_iter().try_for_each(|(parent, entries)| self.metadata(parent, entries))?;
        fault::hit("stage.metadata").map_err(StageError::Prepare)?;
        let directories = plan.staged.iter().rev().filter(|staged| staged.entry.node.is_directory());
        for staged in directories {
            let (dir, name) = dirs.locate(&staged.path).map_err(StageError::Prepare)?;
            meta::apply(&dir, &name, &staged.entry.node, &staged.entry.meta)
                .map_err(|source| StageError::Entry { path: staged.path.clone(), source })?;
        }
        fault::hit("stage.sync").map_err(StageError::Sync)?;
        crate::record::sync_filesystem(self.staging.tree()).map_err(StageError::Sync)
    }

    fn link(&self, dirs: &mut Dirs<'_>, leader: &RelPath, path: &RelPath) -> io::Result<()> {
        let (from, from_name) = dirs.locate(leader)?;
        let (to, to_name) = dirs.locate(path)?;
        from.link(&from_name, &to, &to_name)
    }

    fn metadata(&self, parent: &RelPath, entries: &[&Staged]) -> Result<(), StageError> {
        self.control.check()?;
        let dir = self.staging.tree().open_beneath(parent.as_bytes()).map_err(StageError::Prepare)?;
        for staged in entries {
            meta::apply(&dir, staged.entry.name.as_bytes(), &staged.entry.node, &staged.entry.meta)
                .map_err(|source| StageError::Entry { path: staged.path.clone(), source })?;
        }
        Ok(())
    }
}

fn unlink(dir: &Dir, name: &[u8]) -> io::Result<()> {
    match dir.unlink(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn by_parent(plan: &Plan) -> BTreeMap<RelPath, Vec<&Staged>> {
    let mut by_parent: BTreeMap<RelPath, Vec<&Staged>> = BTreeMap::new();
    for staged in &plan.staged {
        if !staged.entry.node.is_directory()
            && let Some(parent) = staged.path.parent()
        {
            by_parent.entry(parent).or_default().push(staged);
        }
    }
    by_parent
}

/// What is to lie in staging, the directories on the way to it among it.
fn wanted(plan: &Plan) -> BTreeMap<RelPath, Wanted> {
    let mut wanted = BTreeMap::new();
    for staged in &plan.staged {
        let what = match (&staged.provider, &staged.entry.node) {
            (_, Node::Directory { .. }) => Wanted::Directory,
            (Provider::Body { .. }, _) => Wanted::File,
            (Provider::Made | Provider::LinkTo(_), _) => Wanted::Nothing,
        };
        wanted.insert(staged.path.clone(), what);
        let mut above = staged.path.parent();
        while let Some(path) = above.filter(|path| !path.is_root() && !wanted.contains_key(path)) {
            above = path.parent();
            wanted.insert(path, Wanted::Directory);
        }
    }
    wanted
}

fn make(dir: &Dir, name: &[u8], node: &Node) -> io::Result<()> {
    match node {
        Node::File(_) => dir.create_file(name, 0o600).map(drop),
        Node::Symlink { target } => dir.symlink(target, name),
        Node::Device { kind, major, minor } => dir.mknod(name, Kind::Device(*kind), 0o600, *major, *minor),
        Node::Fifo => dir.mknod(name, Kind::Fifo, 0o600, 0, 0),
        Node::Socket => dir.mknod(name, Kind::Socket, 0o600, 0, 0),
        Node::Directory { .. } | Node::Hardlink { .. } => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// Where something staged lies, for the identity that its step waits for.
pub(crate) fn staged_stat(staging: &Staging, place: &crate::plan::Place) -> io::Result<Stat> {
    let (dir, name) = staging.locate(place)?;
    dir.stat(&name)
}
