//! A plan that replaces one big file, made into one that writes to it: where nothing can be exchanged for it, or only at
//! the price of a whole copy.

use drover_linux::FileId;

use super::{Place, Plan, Provider, Retire, Retired, Staged, Step};
use crate::{
    bases::BASE_BYTES_MIN,
    index::Index,
    path::RelPath,
    tree::{Body, Entry, Node},
};

/// The file that a plan patches.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Patched {
    pub(crate) path: RelPath,
    pub(crate) from: Body,
    pub(crate) to: Body,
    pub(crate) writing: Writing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writing {
    /// Staged, and applied by the commit.
    Patch,
    /// As it arrives: what is overwritten is nobody's.
    AtOnce,
}

impl Plan {
    /// The same outcome by a patch, if this is what the plan is about: one file of one name that changes and stays big.
    pub(crate) fn patching(&self, actual: &Index) -> Option<Self> {
        let [Staged { path, entry, provider: Provider::Body { base: Some(base), .. } }] = &self.staged[..] else {
            return None;
        };
        let (old, Node::File(to)) = (actual.manifest.find(path)?, &entry.node) else { return None };
        let from = *old.node.body()?;
        let is_big = from.size >= BASE_BYTES_MIN && to.size >= BASE_BYTES_MIN;
        let id = self.exchanged(path)?;
        // R4: nothing is written to an inode that has a name elsewhere.
        if base != path || !is_big || actual.local(path)?.nlink != 1 {
            return None;
        }
        let mut steps = Vec::new();
        for step in &self.steps {
            match step {
                // Writing moves the times, so the metadata is set in any case.
                Step::Exchange { .. } => {
                    steps.extend([Step::Patch { path: path.clone(), id }, meta(path, id, &old, entry)]);
                }
                Step::Unlock { .. } | Step::Lock { .. } => steps.push(step.clone()),
                // The names in the directory stay, and so do its times.
                Step::Times { .. } => {}
                Step::Out { .. } | Step::In { .. } | Step::Link { .. } | Step::Patch { .. } | Step::Meta { .. } => {
                    return None;
                }
            }
        }
        let delta = Retired { place: Place::Tree(path.clone()), what: Retire::Delta(from.digest) };
        let patched = Patched { path: path.clone(), from, to: *to, writing: Writing::Patch };
        Some(Self {
            staged: self.staged.clone(),
            steps,
            // The same content with other holes is no history.
            retired: if from.digest == to.digest { Vec::new() } else { vec![delta] },
            changes: self.changes.clone(),
            patched: Some(patched),
        })
    }

    fn exchanged(&self, at: &RelPath) -> Option<FileId> {
        self.steps.iter().find_map(|step| match step {
            Step::Exchange { path, old, .. } if path == at => Some(*old),
            _ => None,
        })
    }
}

fn meta(path: &RelPath, id: FileId, old: &Entry, new: &Entry) -> Step {
    let was = Entry { node: new.node.clone(), ..old.clone() };
    Step::Meta { path: path.clone(), id, old: Box::new(was), new: Box::new(new.meta.clone()) }
}
