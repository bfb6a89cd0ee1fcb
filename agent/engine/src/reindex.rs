//! The index after a commit: what the plan did not touch is known already, the rest is statted once.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
};

use drover_linux::{Dir, FileId, Time};
use rayon::prelude::*;

use crate::{
    index::{Index, Local},
    path::RelPath,
    plan::{Plan, Step},
    tree::{DirBlock, Manifest},
};

/// An inode that is known to be what was written to it.
#[derive(Debug, PartialEq)]
pub(crate) struct Settled {
    pub(crate) path: RelPath,
    pub(crate) id: FileId,
    pub(crate) ctime: Time,
}

/// Identities of what is at each path now. What the plan touched counts as racy (R9): nobody
/// has read it since, so the next scan does. But for `settled`: nobody but the plan wrote there, and the clock has moved
/// on from this change time.
pub(crate) fn reindex(
    live: &Dir,
    before: &Index,
    target: &Manifest,
    plan: &Plan,
    settled: Option<Settled>,
    clock: Time,
) -> io::Result<Index> {
    let touched = Touched { settled, ..Touched::of(plan) };
    let blocks: Vec<_> = target.blocks().collect();
    let locals = blocks.par_iter().map(|(path, block)| {
        let locals = match touched.known(path, before) {
            Some(locals) => locals,
            None => touched.look(live, path, block, before, clock)?,
        };
        Ok(((*path).clone(), locals))
    });
    let locals = locals.collect::<io::Result<BTreeMap<_, _>>>()?;
    let root = Local::new(&live.stat_self()?, clock);
    Ok(Index { manifest: target.clone(), locals, root, mark: before.mark, complete: true })
}

struct Touched {
    /// Inodes at these paths moved, came or changed; of a new directory, all beneath it.
    paths: BTreeSet<RelPath>,
    directories: BTreeSet<RelPath>,
    settled: Option<Settled>,
}

impl Touched {
    fn of(plan: &Plan) -> Self {
        let stepped = plan.steps.iter().flat_map(|step| match step {
            // The link count and the change time of the other name move as well.
            Step::Link { path, from, .. } => vec![path.clone(), from.clone()],
            step => vec![step.path().clone()],
        });
        let paths: BTreeSet<RelPath> = stepped.chain(plan.staged.iter().map(|staged| staged.path.clone())).collect();
        let directories = paths.iter().filter_map(RelPath::parent).collect();
        Self { paths, directories, settled: None }
    }

    fn known(&self, path: &RelPath, before: &Index) -> Option<Arc<[Local]>> {
        if self.directories.contains(path) { None } else { before.locals.get(path).cloned() }
    }

    fn look(
        &self,
        live: &Dir,
        path: &RelPath,
        block: &DirBlock,
        before: &Index,
        clock: Time,
    ) -> io::Result<Arc<[Local]>> {
        let dir = live.open_beneath(path.as_bytes())?;
        let old = before.manifest.block(path).zip(before.locals.get(path));
        let old: BTreeMap<_, _> = old.map_or_else(BTreeMap::new, |(block, locals)| {
            block.entries().map(|entry| entry.name).zip(locals.iter().copied()).collect()
        });
        let look = |entry: crate::tree::Entry| {
            let known = old.get(&entry.name);
            let at = path.join(&entry.name);
            let is_stepped = self.paths.contains(&at);
            if let Some(local) = known.filter(|local| local.nlink == 1 && !is_stepped) {
                return Ok(*local);
            }
            let now = Local::new(&dir.stat(entry.name.as_bytes())?, clock);
            if let Some(local) = known.filter(|local| (local.id, local.ctime) == (now.id, now.ctime)) {
                return Ok(Local { nlink: now.nlink, ..*local });
            }
            let read_at = known.filter(|local| local.id == now.id).map_or(now.read_at, |local| local.read_at);
            let here = Settled { path: at, id: now.id, ctime: now.ctime };
            let is_settled = self.settled.as_ref() == Some(&here);
            Ok(Local { racy: !is_settled, read_at, ..now })
        };
        block.entries().map(look).collect()
    }
}
