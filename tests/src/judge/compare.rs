//! The second judge: two portraits, attribute by attribute.

use std::fmt;

use super::portrait::{Entry, Portrait};

/// Allocated blocks of a sparse file may differ by so much: file systems round extents and keep xattr and extent blocks
/// in the count. The test trees' holes are larger than this.
const ALLOCATED_TOLERANCE: u64 = 64 << 10;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub path: Vec<u8>,
    pub what: &'static str,
    pub expected: String,
    pub found: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, what, expected, found } = self;
        write!(f, "{:?}: {what}: expected {expected}, found {found}", path.escape_ascii().to_string())
    }
}

/// All differences, in path order.
pub fn compare(expected: &Portrait, found: &Portrait) -> Vec<Difference> {
    let mut differences = Vec::new();
    let mut note = |path: &[u8], what, expected: String, found: String| {
        differences.push(Difference { path: path.to_vec(), what, expected, found });
    };
    for (path, entry) in &expected.entries {
        match found.entries.get(path) {
            None => note(path, "existence", "an entry".into(), "nothing".into()),
            Some(other) => compare_entry(entry, other, |what, expected, found| note(path, what, expected, found)),
        }
    }
    for path in found.entries.keys().filter(|path| !expected.entries.contains_key(*path)) {
        note(path, "existence", "nothing".into(), "an entry".into());
    }
    differences.sort_by(|a, b| a.path.cmp(&b.path));
    differences
}

fn compare_entry(a: &Entry, b: &Entry, mut note: impl FnMut(&'static str, String, String)) {
    if a.kind != b.kind {
        return note("kind", format!("{:o}", a.kind), format!("{:o}", b.kind));
    }
    let mut check = |what, same: bool, a: String, b: String| {
        if !same {
            note(what, a, b);
        }
    };
    check("mode", a.mode == b.mode, format!("{:o}", a.mode), format!("{:o}", b.mode));
    check("owner", a.owner == b.owner, format!("{:?}", a.owner), format!("{:?}", b.owner));
    check("mtime", a.mtime == b.mtime, format!("{:?}", a.mtime), format!("{:?}", b.mtime));
    check("device", a.rdev == b.rdev, a.rdev.to_string(), b.rdev.to_string());
    check("size", a.size == b.size, a.size.to_string(), b.size.to_string());
    check("content", a.content == b.content, format!("{:?}", a.content), format!("{:?}", b.content));
    let blocks = same_allocation(a, b);
    check("allocated blocks", blocks, allocation(a), allocation(b));
    check("target", a.target == b.target, text(&a.target), text(&b.target));
    check("xattrs", a.xattrs == b.xattrs, names(a, b), names(b, a));
    check("flags", a.flags == b.flags, format!("{:#x}", a.flags), format!("{:#x}", b.flags));
    let link = |entry: &Entry| entry.linked_to.as_ref().map_or("alone".into(), |first| text(first));
    check("hard links", a.linked_to == b.linked_to, link(a), link(b));
}

/// Only where one of them is sparse: how a file system lays out a full file is its own business. Blocks and data must
/// both differ, because XFS allocates ahead of a writer and gives that back only later, and because a block that is
/// compressed or in an inode counts for less.
fn same_allocation(a: &Entry, b: &Entry) -> bool {
    let is_sparse = |entry: &Entry| entry.data.min(entry.allocated) + ALLOCATED_TOLERANCE < entry.size;
    let is_near = |a: u64, b: u64| a.abs_diff(b) <= ALLOCATED_TOLERANCE + a / 8;
    (!is_sparse(a) && !is_sparse(b)) || is_near(a.allocated, b.allocated) || is_near(a.data, b.data)
}

fn allocation(entry: &Entry) -> String {
    format!("{} bytes of blocks, {} of data", entry.allocated, entry.data)
}

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// The xattrs of `a` that `b` does not have like this.
fn names(a: &Entry, b: &Entry) -> String {
    let other = a.xattrs.iter().filter(|(name, value)| b.xattrs.get(*name) != Some(*value));
    let list: Vec<String> = other.map(|(name, value)| format!("{}[{}]", text(name), value.len())).collect();
    if list.is_empty() { "no other".into() } else { list.join(" ") }
}
