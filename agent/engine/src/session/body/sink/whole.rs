//! Small files: asked for in batches, proved before they are created.

use std::{fs::File, io, ops::Range, os::unix::fs::FileExt, sync::Arc};

use drover_linux::Dir;

use super::{
    Fetched, Leftovers, Sink,
    schedule::{Asked, Key, Slot},
};
use crate::{
    content::{Part, part},
    fault,
    hash::hash_file,
    session::body::{BodyError, BodyMessage, SmallBatch, Want, error::is_no_file},
    tree::Body,
};

/// Until the metadata is set, nobody but root reads what is staged.
pub(super) const STAGED_MODE: u32 = 0o600;

impl Sink<'_> {
    pub(super) fn ask_batch(&self, ids: Range<u32>, slot: Slot) -> Result<(), BodyError> {
        let mut wanted = Vec::with_capacity(ids.len());
        let mut here = Vec::new();
        for id in ids {
            match self.is_here(id).map_err(self.stage_error(id))? {
                true => here.push((id, Fetched::AsWanted)),
                false => wanted.push(id),
            }
        }
        self.finish_whole(here);
        let Some(first) = wanted.first().copied() else {
            self.schedule.release(slot);
            return Ok(());
        };
        let wants = wanted.iter().map(|id| self.want(*id, self.fetch(*id).body)).collect();
        self.request(Key::Batch(first), Asked::Batch { ids: wanted, slot }, BodyMessage::WantSmall(wants))
    }

    pub(super) fn want(&self, id: u32, body: Body) -> Want {
        Want { id, path: self.fetch(id).path.clone(), body }
    }

    /// Empty files are made right away, and what an earlier run left is used when it is right.
    fn is_here(&self, id: u32) -> io::Result<bool> {
        let fetch = self.fetch(id);
        if fetch.body.size == 0 {
            self.create(id, 0, &[])?;
            return Ok(true);
        }
        if self.leftovers == Leftovers::None {
            return Ok(false);
        }
        let dir = self.staging.get(&fetch.dest.dir)?;
        match dir.open_file(fetch.dest.name.as_bytes()) {
            Ok(file) => self.holds(&file, &fetch.body),
            Err(error) if is_no_file(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(super) fn holds(&self, file: &File, body: &Body) -> io::Result<bool> {
        let stat = drover_linux::file::stat(file)?;
        Ok(stat.size == body.size
            && stat.nlink == 1
            && hash_file(file, body.size, &self.quiet())?.digest == body.digest)
    }

    pub(super) fn store_batch(&self, ids: &[u32], slot: Slot, batch: &SmallBatch) -> Result<(), BodyError> {
        let mut finished = Vec::with_capacity(ids.len());
        let mut bodies = batch.bodies();
        for id in ids {
            let body = bodies.next().transpose()?.filter(|body| body.id == *id);
            let body = body.ok_or_else(|| BodyError::WrongAnswer { path: self.fetch(*id).path.clone() })?;
            match body.parts {
                None => finished.push((*id, Fetched::Gone)),
                Some(parts) if self.store_whole(*id, &self.fetch(*id).body, &parts)? => {
                    finished.push((*id, Fetched::AsWanted));
                }
                Some(_) => self.schedule.recheck(*id, None),
            }
        }
        if bodies.next().is_some() {
            return Err(BodyError::Unasked { got: "small" });
        }
        self.finish_whole(finished);
        self.schedule.release(slot);
        Ok(())
    }

    /// `false`, and nothing is staged, when the content is not `body`'s.
    pub(super) fn store_whole(&self, id: u32, body: &Body, parts: &[Part]) -> Result<bool, BodyError> {
        if parts.iter().any(|part| matches!(part, Part::Copy { .. })) {
            return Err(BodyError::WrongAnswer { path: self.fetch(id).path.clone() });
        }
        if part::digest(parts) != body.digest {
            return Ok(false);
        }
        self.create(id, body.size, parts).map_err(self.stage_error(id))?;
        Ok(true)
    }

    fn create(&self, id: u32, size: u64, parts: &[Part]) -> io::Result<()> {
        let dest = &self.fetch(id).dest;
        let file = create_anew(&self.staging.get(&dest.dir)?, dest.name.as_bytes())?;
        if !matches!(parts, [Part::Data(_)]) {
            file.set_len(size)?;
        }
        let mut at = 0;
        for part in parts {
            match part {
                Part::Data(data) => file.write_all_at(data, at)?,
                Part::Zeros(len) => drover_linux::file::write_zeros(&file, at, *len)?,
                Part::Hole(_) | Part::Copy { .. } => {}
            }
            at += part.len();
        }
        fault::hit("stage.small")
    }

    /// Records small files that are staged, or never will be.
    pub(super) fn finish_whole(&self, finished: Vec<(u32, Fetched)>) {
        let bytes = finished.iter().map(|(id, _)| self.fetch(*id).body.size).sum();
        self.finish(finished, bytes);
    }

    /// `bytes` have not been counted yet.
    pub(super) fn finish(&self, finished: Vec<(u32, Fetched)>, bytes: u64) {
        if !finished.is_empty() {
            let progress = &self.control().progress;
            progress.entries_done.add(finished.len() as u64);
            progress.bytes_done.add(bytes);
            self.schedule.finish(finished);
        }
    }
}

/// A new file, in the place of whatever an earlier run left there.
pub(super) fn create_anew(dir: &Arc<Dir>, name: &[u8]) -> io::Result<File> {
    match dir.create_file(name, STAGED_MODE) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            dir.unlink(name)?;
            dir.create_file(name, STAGED_MODE)
        }
        created => created,
    }
}
