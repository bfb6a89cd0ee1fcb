//! The plan: what must happen to a replica so that its tree becomes the target's. A pure function of the replica's
//! index and the target's manifest; nothing here touches a file.
//!
//! What is new is built in staging first, under the path that it will have. Applying is then renames and metadata
//! only, in this order (each step recognises by inode whether it was done, so that the list can be replayed and undone):
//!
//! 1. `Unlock`  immutable and append-only inodes that are in the way;
//! 2. `Out`     what is deleted or moves elsewhere, deepest first;
//! 3. `In`, `Exchange`, `Link`  what is new, in path order, so that a directory comes before what enters it;
//! 4. `Patch`   what is written over a content in place (`patch`), which then gets its metadata;
//! 5. `Meta`    metadata of inodes that stay (R4: only where no name outside the plan shares the inode);
//! 6. `Times`   modification times of directories that the steps touched;
//! 7. `Lock`    immutable and append-only flags, after the old things were retired.
//!
//! A wholly new directory is staged with everything in it and enters by one rename.

mod assemble;
mod diff;
mod guard;
mod inodes;
mod links;
mod locks;
mod patch;
mod step;
#[cfg(test)]
mod tests;

pub use diff::{Change, Diff, Old, diff};
pub use guard::{GuardError, Guards};
pub(crate) use patch::{Patched, Writing};
pub use step::{Place, Provider, Retire, Retired, Staged, Step};

use crate::{index::Index, report::Changes, tree::Manifest};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// To be built in staging, in path order.
    pub staged: Vec<Staged>,
    pub steps: Vec<Step>,
    /// What the steps leave in staging of the old tree.
    pub retired: Vec<Retired>,
    pub changes: Changes,
    /// What is written to in place instead of being replaced.
    pub(crate) patched: Option<Patched>,
}

impl Plan {
    /// Of a replica that is as `actual` says, towards `target`.
    pub fn new(actual: &Index, target: &Manifest) -> Self {
        let diff = diff(actual, target);
        if diff.changes.is_empty() {
            return Self::default();
        }
        let links = links::Links::of(actual, target, &diff);
        let inodes = inodes::assign(&diff, &links);
        assemble::assemble(actual, &diff, &links, &inodes)
    }

    pub fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.staged.is_empty()
    }
}
