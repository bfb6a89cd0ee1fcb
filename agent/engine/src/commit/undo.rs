//! Steps backward, last first. Nothing stops it: what can't be put back is named and left to the next sync, which finds
//! it as a change behind our back.

use std::io;

use drover_linux::is_gone;

use super::{
    Site,
    apply::{Found, Hands, exchanged, id_at},
};
use crate::{
    fault, meta,
    patch::{Patch, SAVED, UNDO},
    path::RelPath,
    plan::Step,
};

/// Paths that could not be put back.
pub(super) fn backward(site: &Site<'_>, steps: &[Step]) -> Vec<RelPath> {
    let mut hands = Hands::new(site);
    let mut left = Vec::new();
    // Putting names back sets the times of directories, and what was locked would not let itself be put back: so first
    // everything else, then times, then locks.
    let (locks, rest): (Vec<_>, Vec<_>) = steps.iter().rev().partition(|step| matches!(step, Step::Unlock { .. }));
    let (times, rest): (Vec<_>, Vec<_>) = rest.into_iter().partition(|step| matches!(step, Step::Times { .. }));
    // Writing moves times that metadata then sets.
    let (patches, rest): (Vec<_>, Vec<_>) = rest.into_iter().partition(|step| matches!(step, Step::Patch { .. }));
    for step in patches.into_iter().chain(rest).chain(times).chain(locks) {
        let undone = fault::hit("undo.step").and_then(|()| hands.backward(step));
        if let Err(error) = undone {
            tracing::error!(path = %step.path(), error = &error as &dyn std::error::Error, "step can't be undone");
            left.push(step.path().clone());
        }
    }
    left
}

impl Hands<'_> {
    fn backward(&mut self, step: &Step) -> io::Result<()> {
        let (dir, name) = match self.live.locate(step.path()) {
            // Beneath a directory that never entered the tree.
            Err(error) if is_gone(&error) => return Ok(()),
            result => result?,
        };
        let here = id_at(&dir, &name)?;
        match step {
            Step::Lock { .. } if here.is_some() => meta::clear_locking_flags(&dir, &name),
            Step::Times { old: Some(old), .. } if here.is_some() => dir.set_mtime(&name, *old),
            Step::Lock { .. } | Step::Times { .. } => Ok(()),
            Step::Patch { id, .. } if here == Some(*id) => {
                let patches = self.site.staging.patches();
                let (undo, saved) = (Patch::expect(patches, UNDO)?, patches.open_file(SAVED)?);
                undo.apply(&saved, &self.open_patched(&dir, &name, *id)?, "undo.patch-range")
            }
            Step::Meta { id, old, .. } if here == Some(*id) => {
                meta::apply_open(&dir, &name, self.leased(*id)?, &old.node, &old.meta)
            }
            Step::Unlock { id, flags, .. } if here == Some(*id) => {
                let meta = crate::tree::Meta { flags: *flags, ..Default::default() };
                meta::apply_locking_flags(&dir, &name, &meta)
            }
            Step::Patch { .. } | Step::Meta { .. } | Step::Unlock { .. } => Ok(()),
            Step::Link { place, id, replaced, .. } => {
                let (via, via_name) = self.place(place)?;
                let there = id_at(&via, &via_name)?;
                match replaced {
                    Some(old) if here.is_some() && here == *id && there == Some(*old) => {
                        via.exchange(&via_name, &dir, &name)?;
                        via.unlink(&via_name)
                    }
                    None if here.is_some() && here == *id => dir.unlink(&name),
                    _ if there.is_some() && there == *id => via.unlink(&via_name),
                    _ => Ok(()),
                }
            }
            Step::Exchange { place, id, old, .. } => {
                let (from, from_name) = self.place(place)?;
                match exchanged(here, id_at(&from, &from_name)?, *id, *old) {
                    Found::Done => from.exchange(&from_name, &dir, &name),
                    Found::NotYet | Found::Neither => Ok(()),
                }
            }
            Step::In { place, id, .. } => {
                if here.is_none() || here != *id {
                    return Ok(());
                }
                let (from, from_name) = self.place(place)?;
                self.live.forget();
                dir.rename_noreplace(&name, &from, &from_name)
            }
            Step::Out { id, place, .. } => {
                let (from, from_name) = self.place(place)?;
                if here.is_none() && id_at(&from, &from_name)? == Some(*id) {
                    from.rename_noreplace(&from_name, &dir, &name)?;
                }
                Ok(())
            }
        }
    }
}
