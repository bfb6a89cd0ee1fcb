//! Differences of two manifests, for people.

use std::{cmp::Ordering, collections::BTreeMap};

use crate::{
    path::RelPath,
    report::{Difference, PATHS_SHOWN, What},
    tree::{Entry, Manifest},
};

/// What `copy` has otherwise than `original`: the first paths, and how many in all.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Differences {
    pub(super) shown: Vec<Difference>,
    pub(super) total: u64,
}

impl Differences {
    fn push(&mut self, path: RelPath, what: What) {
        self.total += 1;
        if self.shown.len() < PATHS_SHOWN {
            self.shown.push(Difference { path, what });
        }
    }
}

pub(super) fn compare(original: &Manifest, copy: &Manifest) -> Differences {
    let mut differences = Differences::default();
    if original.root().meta != copy.root().meta {
        differences.push(RelPath::root(), What::Metadata);
    }
    // By path, so that what is shown is what comes first.
    let mut open = BTreeMap::from([(RelPath::root(), ())]);
    while let Some((path, ())) = open.pop_first() {
        let (Some(a), Some(b)) = (original.block(&path), copy.block(&path)) else {
            continue;
        };
        if a.digest() != b.digest() {
            merge(&path, a.entries(), b.entries(), &mut open, &mut differences);
        }
    }
    differences
}

fn merge(
    parent: &RelPath,
    original: impl Iterator<Item = Entry>,
    copy: impl Iterator<Item = Entry>,
    open: &mut BTreeMap<RelPath, ()>,
    differences: &mut Differences,
) {
    let (mut original, mut copy) = (original.peekable(), copy.peekable());
    loop {
        let order = match (original.peek(), copy.peek()) {
            (None, None) => return,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(a), Some(b)) => a.name.cmp(&b.name),
        };
        let a = if order.is_le() { original.next() } else { None };
        let b = if order.is_ge() { copy.next() } else { None };
        match (a, b) {
            (Some(a), Some(b)) => {
                let path = parent.join(&a.name);
                if a.node.is_directory() && b.node.is_directory() {
                    open.insert(path.clone(), ());
                }
                if std::mem::discriminant(&a.node) != std::mem::discriminant(&b.node) {
                    differences.push(path, What::Kind);
                } else if !a.node.same_kind_and_content(&b.node) {
                    differences.push(path, What::Content);
                } else if a.meta != b.meta {
                    differences.push(path, What::Metadata);
                }
            }
            (Some(a), None) => differences.push(parent.join(&a.name), What::Missing),
            (None, Some(b)) => differences.push(parent.join(&b.name), What::Extra),
            (None, None) => return,
        }
    }
}
