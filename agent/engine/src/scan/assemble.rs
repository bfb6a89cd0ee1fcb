//! Makes an index of what was found. What is as before is taken over as it is: blocks and locals are shared.

use std::{collections::BTreeMap, io, sync::Arc};

use super::{
    ScanError, Scanner, links,
    listing::{Files, Found, Listed, Listings},
    previous::Previous,
};
use crate::{
    digest::Digest,
    index::{Index, Local},
    path::{Name, RelPath},
    tree::{Entry, ManifestBuilder, ManifestError, Node, Totals},
};

impl Scanner<'_> {
    pub(super) fn assemble(&self, mut listings: Listings) -> Result<Index, ScanError> {
        if let Some(index) = self.unchanged(&listings) {
            return Ok(index);
        }
        if let Some(previous) = &self.previous {
            listings.thaw(previous, |locals| locals.iter().any(|local| local.nlink > 1));
        }
        for orphan in links::join(&mut listings, self.previous.as_ref()) {
            self.unreadable(orphan, io::Error::new(io::ErrorKind::InvalidData, "the index lacks this link's content"));
        }
        let root = listings.0.get(&RelPath::root()).ok_or_else(|| ManifestError::Missing(RelPath::root()))?;
        let (meta, local) = (root.meta.clone(), root.local);
        let mut tree = Tree { previous: self.previous.as_ref(), ..Tree::default() };
        let files: Vec<_> = listings.0.iter_mut().map(|(path, listed)| (path.clone(), listed.files.take())).collect();
        for (path, files) in files {
            tree.directory(path, files, &listings);
        }
        let manifest = tree.builder.finish(meta)?;
        Ok(Index { manifest, locals: tree.locals, root: local, mark: self.options.mark, complete: true })
    }

    /// The previous index, when everything is as it says.
    fn unchanged(&self, listings: &Listings) -> Option<Index> {
        let index = self.previous.as_ref()?.index;
        let is_as_before = |listed: &Listed| listed.as_before && matches!(listed.files, Files::AsBefore);
        (listings.0.len() == index.manifest.blocks().count() && listings.0.values().all(is_as_before))
            .then(|| index.clone())
    }
}

#[derive(Default)]
struct Tree<'a> {
    previous: Option<&'a Previous<'a>>,
    builder: ManifestBuilder,
    locals: BTreeMap<RelPath, Arc<[Local]>>,
}

impl Tree<'_> {
    fn directory(&mut self, path: RelPath, files: Files, listings: &Listings) {
        if matches!(files, Files::AsBefore)
            && subdirectories(&path, listings).all(|(_, listed)| listed.is_some_and(|listed| listed.as_before))
            && let Some((block, locals)) = self.previous.and_then(|previous| previous.block(&path))
        {
            self.builder.block(path.clone(), block.clone());
            self.locals.insert(path, locals.clone());
            return;
        }
        let mut found = match files {
            Files::Found(found) => found,
            Files::AsBefore => self.previous.map_or_else(Vec::new, |previous| previous.files(&path).collect()),
        };
        // A subdirectory that vanished before it could be listed is no entry.
        found.extend(subdirectories(&path, listings).filter_map(|(name, listed)| Some(directory_entry(name, listed?))));
        found.sort_unstable_by(|a, b| a.entry.name.cmp(&b.entry.name));
        self.locals.insert(path.clone(), found.iter().map(|found| found.local).collect());
        self.builder.directory(path, found.into_iter().map(|found| found.entry).collect());
    }
}

fn subdirectories<'a>(
    path: &'a RelPath,
    listings: &'a Listings,
) -> impl Iterator<Item = (&'a Name, Option<&'a Listed>)> {
    let names = listings.0.get(path).into_iter().flat_map(|listed| &listed.subdirectories);
    names.map(|(name, _)| (name, listings.0.get(&path.join(name))))
}

/// The builder fills in what lies beneath.
fn directory_entry(name: &Name, listed: &Listed) -> Found {
    let node = Node::Directory { digest: Digest::default(), totals: Totals::default() };
    Found { entry: Entry { name: name.clone(), meta: listed.meta.clone(), node }, local: listed.local }
}
