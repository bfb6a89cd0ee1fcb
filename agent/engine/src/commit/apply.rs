//! Steps forward. Each one first looks which inodes are where, so that a step that was done before a crash is seen and
//! not done twice: replay recognises files by inode, not by name.

use std::{fs::File, io};

use drover_linux::{Dir, FileId, file, is_gone};

use super::{Leased, Site};
use crate::{
    error::Kind,
    fault, meta,
    patch::{Patch, REDO},
    path::RelPath,
    plan::{Place, Step},
    stage::{Dirs, storage_kind, storage_reason},
};

#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("apply to {path}")]
    Step {
        path: RelPath,
        #[source]
        source: io::Error,
    },
    #[error("{path} is not what the plan was made for: another process changed it")]
    Unexpected { path: RelPath },
    #[error("sync what was applied")]
    Sync(#[source] io::Error),
    #[error("an undo that was interrupted was finished")]
    Resumed,
    #[error("role or epoch changed while the point was on its way")]
    Superseded,
}

impl ApplyError {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Step { source, .. } | Self::Sync(source) => storage_kind(source),
            Self::Unexpected { .. } | Self::Resumed => Kind::Conflict,
            Self::Superseded => Kind::Precondition,
        }
    }

    pub fn reason(&self) -> &'static str {
        match self {
            Self::Step { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => "apply-not-permitted",
            Self::Step { source, .. } | Self::Sync(source) => storage_reason(source),
            Self::Unexpected { .. } => "replica-changed",
            Self::Resumed => "apply-undone",
            Self::Superseded => "role-changed",
        }
    }
}

/// What one step found when it looked.
pub(super) enum Found {
    Done,
    NotYet,
    Neither,
}

pub(super) fn id_at(dir: &Dir, name: &[u8]) -> io::Result<Option<FileId>> {
    match dir.stat(name) {
        Ok(stat) => Ok(Some(stat.id)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn forward(site: &Site<'_>, steps: &[Step]) -> Result<(), ApplyError> {
    let mut hands = Hands::new(site);
    let mut phase = "";
    for step in steps.iter().filter(|step| !matches!(step, Step::Lock { .. })) {
        let (entering, each) = failpoints(step);
        let hit = |name| fault::hit(name).map_err(|source| ApplyError::Step { path: step.path().clone(), source });
        if phase != entering {
            hit(entering)?;
            phase = entering;
        }
        let at = |source| ApplyError::Step { path: step.path().clone(), source };
        match hands.forward(step).map_err(at)? {
            true => hit(each)?,
            false => {
                return Err(ApplyError::Unexpected { path: step.path().clone() });
            }
        }
    }
    Ok(())
}

/// The last steps, after everything old was retired: names of a locked inode can't be taken away.
pub(super) fn lock(site: &Site<'_>, steps: &[Step]) -> io::Result<()> {
    let mut hands = Hands::new(site);
    for step in steps.iter().filter(|step| matches!(step, Step::Lock { .. })) {
        fault::hit("apply.lock")?;
        hands.forward(step)?;
    }
    Ok(())
}

/// Where a test may stop: at the begin of each kind of step, and after each step.
fn failpoints(step: &Step) -> (&'static str, &'static str) {
    match step {
        Step::Unlock { .. } => ("apply.unlock", "apply.unlocked"),
        Step::Out { .. } => ("apply.out", "apply.outed"),
        Step::In { .. } => ("apply.enter", "apply.entered"),
        Step::Exchange { .. } => ("apply.exchange", "apply.exchanged"),
        Step::Link { .. } => ("apply.link", "apply.linked"),
        Step::Patch { .. } => ("apply.patch", "apply.patched"),
        Step::Meta { .. } => ("apply.meta", "apply.meta-set"),
        Step::Times { .. } => ("apply.times", "apply.times-set"),
        Step::Lock { .. } => ("apply.lock", "apply.lock"),
    }
}

/// Opens what steps work on.
pub(super) struct Hands<'a> {
    pub(super) site: &'a Site<'a>,
    pub(super) live: Dirs<'a>,
    staged: Dirs<'a>,
}

impl<'a> Hands<'a> {
    pub(super) fn new(site: &'a Site<'a>) -> Self {
        Self { site, live: Dirs::new(site.live), staged: Dirs::new(site.staging.tree()) }
    }

    pub(super) fn place(&mut self, place: &Place) -> io::Result<(std::sync::Arc<Dir>, Vec<u8>)> {
        match place {
            Place::Tree(path) => self.staged.locate(path),
            Place::Out(_) => self.site.staging.locate(place).map(|(dir, name)| (std::sync::Arc::new(dir), name)),
        }
    }

    /// The file with this inode, if it is leased.
    pub(super) fn leased(&self, id: FileId) -> io::Result<Option<&'a File>> {
        let Some(Leased { lease, .. }) = self.site.leased else { return Ok(None) };
        Ok((file::stat(lease.file())?.id == id).then(|| lease.file()))
    }

    /// Whether a leased file is not what it was when it was leased: an NFS server sets sizes without opening a file.
    fn has_moved(&self, id: FileId, size: u64) -> io::Result<bool> {
        let Some(Leased { lease, ctime }) = self.site.leased else { return Ok(false) };
        let stat = file::stat(lease.file())?;
        Ok(stat.id == id && (stat.size != size || stat.ctime != ctime))
    }

    pub(super) fn open_patched(&self, dir: &Dir, name: &[u8], id: FileId) -> io::Result<File> {
        self.leased(id)?.map_or_else(|| dir.open_write(name), File::try_clone)
    }

    /// True when the step is done now; false when it found what it can't explain.
    fn forward(&mut self, step: &Step) -> io::Result<bool> {
        let (dir, name) = match (self.live.locate(step.path()), step) {
            // Replayed after the directory it was in went out as well.
            (Err(error), Step::Unlock { .. }) if is_gone(&error) => return Ok(true),
            (Err(error), Step::Out { id, place, onward, .. }) if is_gone(&error) => {
                let (to, to_name) = self.place(place)?;
                return Ok(*onward || id_at(&to, &to_name)? == Some(*id));
            }
            (_, Step::Times { new: None, .. }) => return Ok(true),
            (located, _) => located?,
        };
        let here = id_at(&dir, &name)?;
        match step {
            Step::Unlock { id, .. } => {
                if here == Some(*id) {
                    meta::clear_locking_flags(&dir, &name)?;
                }
                // Replayed after the inode went on: unlocked it is.
                Ok(true)
            }
            Step::Out { id, place, onward, .. } => {
                let (to, to_name) = self.place(place)?;
                if here == Some(*id) {
                    dir.rename_noreplace(&name, &to, &to_name)?;
                    self.live.forget();
                    return Ok(true);
                }
                // Not here: it is where it was put, or has entered the tree again since.
                Ok(*onward || id_at(&to, &to_name)? == Some(*id))
            }
            Step::In { place, id, .. } => {
                if here.is_some() {
                    return Ok(here == *id);
                }
                let (from, from_name) = self.place(place)?;
                if id_at(&from, &from_name)? != *id {
                    return Ok(false);
                }
                from.rename_noreplace(&from_name, &dir, &name)?;
                self.staged.forget();
                Ok(true)
            }
            Step::Exchange { place, id, old, .. } => {
                let (from, from_name) = self.place(place)?;
                match exchanged(here, id_at(&from, &from_name)?, *id, *old) {
                    Found::Done => Ok(true),
                    Found::NotYet => from.exchange(&from_name, &dir, &name).map(|()| true),
                    Found::Neither => Ok(false),
                }
            }
            Step::Link { from, place, id, replaced, .. } => {
                if here.is_some() && here == *id {
                    return Ok(true);
                }
                let (source, source_name) = self.live.locate(from)?;
                if id_at(&source, &source_name)? != *id || here != *replaced {
                    return Ok(false);
                }
                let (via, via_name) = self.place(place)?;
                if id_at(&via, &via_name)?.is_none() {
                    source.link(&source_name, &via, &via_name)?;
                }
                match replaced {
                    Some(_) => via.exchange(&via_name, &dir, &name)?,
                    None => via.rename_noreplace(&via_name, &dir, &name)?,
                }
                Ok(true)
            }
            Step::Patch { id, .. } => {
                if here != Some(*id) {
                    return Ok(false);
                }
                let (staged, staged_name) = self.place(&Place::Tree(step.path().clone()))?;
                let redo = Patch::expect(self.site.staging.patches(), REDO)?;
                if self.has_moved(*id, redo.from.size)? {
                    return Ok(false);
                }
                let live = self.open_patched(&dir, &name, *id)?;
                redo.apply(&staged.open_file(&staged_name)?, &live, "apply.patch-range").map(|()| true)
            }
            Step::Meta { id, old, new, .. } => {
                if here != Some(*id) {
                    return Ok(false);
                }
                meta::apply_open(&dir, &name, self.leased(*id)?, &old.node, new).map(|()| true)
            }
            Step::Times { new, .. } => new.map_or(Ok(()), |new| dir.set_mtime(&name, new)).map(|()| true),
            Step::Lock { flags, .. } => {
                let meta = crate::tree::Meta { flags: *flags, ..Default::default() };
                meta::apply_locking_flags(&dir, &name, &meta).map(|()| true)
            }
        }
    }
}

pub(super) fn exchanged(here: Option<FileId>, there: Option<FileId>, new: Option<FileId>, old: FileId) -> Found {
    if here == new && there == Some(old) {
        Found::Done
    } else if here == Some(old) && there == new {
        Found::NotYet
    } else {
        Found::Neither
    }
}
