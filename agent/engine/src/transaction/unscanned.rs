//! The last look before the commit record: the inodes that the steps take out or change must be as the scan found them,
//! or the index would vouch for what nobody read, and history for what nobody hashed.

use std::{
    collections::{BTreeMap, HashMap},
    io,
};

use drover_linux::{Dir, FileId};

use crate::{
    index::{Index, Local},
    path::{Name, RelPath},
    plan::Step,
    stage::Dirs,
};

/// The first path whose inode is another one or has another change time.
pub(super) fn find(live: &Dir, actual: &Index, steps: &[Step]) -> io::Result<Option<RelPath>> {
    let mut by_parent: BTreeMap<RelPath, Vec<(Name, &RelPath, FileId)>> = BTreeMap::new();
    for step in steps {
        if let Some(id) = old_inode(step)
            && let Some((parent, name)) = step.path().split()
        {
            by_parent.entry(parent).or_default().push((name, step.path(), id));
        }
    }
    let mut dirs = Dirs::new(live);
    for (parent, entries) in by_parent {
        let known = locals(actual, &parent);
        for (name, path, id) in entries {
            // A moved inode's metadata is set at its new path, where it is not yet.
            let Some(local) = known.get(&name).filter(|local| local.id == id) else { continue };
            let found = dirs.open(&parent).and_then(|dir| dir.stat(name.as_bytes()));
            match found {
                Ok(stat) if (stat.id, stat.ctime) == (local.id, local.ctime) => {}
                Err(error) if !drover_linux::is_gone(&error) => return Err(error),
                _ => return Ok(Some(path.clone())),
            }
        }
    }
    Ok(None)
}

fn old_inode(step: &Step) -> Option<FileId> {
    match step {
        Step::Out { id, .. } | Step::Patch { id, .. } | Step::Meta { id, .. } | Step::Unlock { id, .. } => Some(*id),
        Step::Exchange { old, .. } => Some(*old),
        Step::Link { replaced, .. } => *replaced,
        Step::In { .. } | Step::Times { .. } | Step::Lock { .. } => None,
    }
}

fn locals(actual: &Index, directory: &RelPath) -> HashMap<Name, Local> {
    let Some((block, locals)) = actual.manifest.block(directory).zip(actual.locals.get(directory)) else {
        return HashMap::new();
    };
    block.entries().map(|entry| entry.name).zip(locals.iter().copied()).collect()
}
