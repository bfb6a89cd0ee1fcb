//! Makes the server's files, and the server, be as the book says.

use std::path::Path;

use drover_engine::{error::chain as told, fault};

use super::{Fences, LACKING_MAX, close, faulted, mounts, now, probing, random, reaching, without_before};
use crate::{
    book::{Book, Fence, Holder, Proof},
    edit::{self, Change},
    error::NfsError,
    place::Reach,
    server::Load,
};

impl Fences {
    /// What will be changed is in the book before it is changed. Whether anything was.
    pub(super) fn carry_out(&self, book: &mut Book, load: Load) -> Result<bool, NfsError> {
        let server = self.server()?;
        let mounts = mounts()?;
        let exported = server.exported()?;
        for fence in &mut book.fences {
            // Whatever leads there since; what leads to more as well was not agreed to.
            if let Ok(place) = mounts.place(&fence.path) {
                let mut found = reaching(&exported, &mounts, &place);
                found.retain(|(_, reach)| fence.whole_export || *reach != Reach::Around);
                fence.exports.extend(found.into_iter().map(|(export, _)| export));
            }
        }
        let fences: Vec<Fence> = book.fences.iter().filter(|fence| !fence.is_lifting).cloned().collect();
        let wish =
            |export: &Path| fences.iter().filter(|fence| fence.exports.contains(export)).map(|fence| fence.shut).max();
        let (known, former) = (book.changes.clone(), book.former.clone());
        let mut plan = server.plan(&known, &former, &wish)?;
        // Of a file that is gone for good, and of no fence any more.
        let gone = plan.changes.extract_if(.., |change| !change.file.exists() && wish(&change.export).is_none());
        plan.abandoned.extend(gone);
        for change in &plan.abandoned {
            if !book.abandoned.contains(change) {
                let was = edit::shown(&change.original);
                tracing::warn!(file = %change.file.display(), "an entry was edited while its clients were shut out; it was: {was}");
                book.abandoned.push(change.clone());
            }
        }
        let is_changed = !plan.files.is_empty() || plan.changes != known || plan.former != former;
        if is_changed {
            // Both: a crash may come before or after each file. And whatever fails from here on, the caller's book knows of both.
            let is_new = |change: &&Change| !known.contains(change);
            book.changes.extend(plan.changes.iter().filter(is_new).cloned());
            book.former.extend(plan.former.iter().filter(|it| !former.iter().any(|old| old.is(it))).cloned());
            book.is_unloaded = true;
            self.store(book)?;
            fault::hit("fence.planned").map_err(faulted)?;
            for (file, before, text) in &plan.files {
                edit::replace(file, before, text)?;
                fault::hit("fence.file").map_err(faulted)?;
            }
        }
        let load = if book.is_unloaded { Load::Always } else { load };
        let loaded = server.load(&known, &former, &mut plan, &wish, load);
        if loaded.is_err() {
            // What was taken out of the table is known even so.
            for entry in &mut book.former {
                let now = plan.former.iter().find(|it| it.is(entry));
                entry.is_refused |= now.is_some_and(|it| it.is_refused);
            }
            self.store(book)?;
            loaded?;
        }
        fault::hit("fence.loaded").map_err(faulted)?;
        if book.is_unloaded || plan.changes != book.changes || plan.former != book.former {
            (book.changes, book.former, book.is_unloaded) = (plan.changes, plan.former, false);
            self.store(book)?;
        }
        Ok(is_changed)
    }

    /// Whatever others did to it, the server is as the book says; what was begun before a crash is finished. Returns the fences that did not
    /// hold, or of which nobody can tell.
    pub fn settle(&self) -> Result<Vec<(Holder, String)>, NfsError> {
        let _turn = self.turn()?;
        let mut book = self.open_book()?;
        let begun = book.clone();
        if self.server.is_none() || book == Book::default() {
            return Ok(Vec::new());
        }
        let (server, mounts) = (self.server()?, mounts()?);
        let is_interrupted = |fence: &Fence| fence.is_lifting || fence.proof.at == 0;
        let open = match server.table() {
            Ok(table) => {
                let open = |fence: &Fence| (fence.holder.clone(), self.entries(&table, fence, &mounts).open);
                book.fences.iter().filter(|fence| !is_interrupted(fence)).map(open).collect()
            }
            // What can't be asked is said below.
            Err(_) => Vec::new(),
        };
        let is_open = open.iter().any(|(_, entries)| !entries.is_empty());
        let load = if is_open || book.fences.iter().any(is_interrupted) { Load::Always } else { Load::IfPlanned };
        let lifting: Vec<_> = book.fences.iter().filter(|it| it.is_lifting).map(|it| it.holder.clone()).collect();
        let carried = self.carry_out(&mut book, load);
        let mut found = Vec::new();
        if carried.is_ok() {
            close(&mut book);
            for holder in &lifting {
                tracing::warn!(fence = %holder, "clients are let in again, as was begun before");
            }
        }
        let table = server.table();
        for fence in &mut book.fences {
            let was_open = open.iter().find(|(holder, entries)| *holder == fence.holder && !entries.is_empty());
            let is_changed = carried.as_ref().is_ok_and(|changed| *changed);
            if was_open.is_some() || is_changed {
                // Writers may have been there meanwhile: what is read over that time is not fenced.
                (fence.generation, fence.since) = (random(), now());
            }
            if let Some((holder, entries)) = was_open {
                found.push((holder.clone(), format!("others had opened it: {}", entries.join(", "))));
            }
            let mut proof = match (&carried, &table) {
                // Begun and not ended, or opened by others since: what was shown before that is shown anew.
                (Ok(_), Ok(table)) if fence.proof.at == 0 || was_open.is_some() => {
                    let mut proof = self.look(table, fence, &mounts, &mut []);
                    without_before(fence, &mut proof);
                    proof.before = fence.before.clone();
                    fence.proof = proof;
                    continue;
                }
                (Ok(_), Ok(table)) => self.entries(table, fence, &mounts).into_proof(),
                (Err(error), _) | (Ok(_), Err(error)) => Proof { lacking: vec![told(error)], ..Proof::default() },
            };
            proof.lacking.retain(|why| !fence.proof.lacking.contains(why));
            if !proof.lacking.is_empty() {
                found.push((fence.holder.clone(), proof.lacking.join("; ")));
                // It does not hold, or nobody can tell: that stands until somebody asks for a whole look.
                fence.proof.lacking.extend(proof.lacking);
                fence.proof.lacking.truncate(LACKING_MAX);
            }
        }
        probing::sweep(&mut book);
        if book != begun {
            self.store(&mut book)?;
        }
        carried.map(|_| found)
    }
}
