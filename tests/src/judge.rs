//! Are two trees the same? Two judges that share nothing with the product and nothing with each other: rsync, and one
//! of our own for what rsync does not look at (allocated blocks, inode flags, every xattr namespace).

mod compare;
mod portrait;
mod rsync;

use std::{path::Path, process::Command, time::Duration};

pub use compare::{Difference, compare};
pub use portrait::{Entry, Portrait};
pub use rsync::rsync_differences;

use crate::process;

/// How many differences a message shows.
const SHOWN: usize = 20;

/// Every difference that either judge sees, rsync's first; empty when the trees are the same.
pub fn differences(source: &Path, replica: &Path) -> Vec<String> {
    let mut all = rsync_differences(source, replica);
    let own = compare(&Portrait::of(source), &Portrait::of(replica));
    all.extend(own.iter().map(Difference::to_string));
    all
}

/// Panics with the first differences. `why` names the round and its seed.
#[track_caller]
pub fn assert_same(source: &Path, replica: &Path, why: &str) {
    let all = differences(source, replica);
    assert!(all.is_empty(), "{why}: {} and {} differ:\n{}", source.display(), replica.display(), shown(&all));
}

/// By `cmp`, byte for byte.
#[track_caller]
pub fn assert_same_file(source: &Path, replica: &Path, why: &str) {
    let mut command = Command::new("cmp");
    command.arg(source).arg(replica);
    let done = process::run(command, Duration::from_secs(300));
    assert!(done.status.success(), "{why}: cmp: {}{}", done.stdout, done.stderr);
}

/// The replica is exactly what was seen before.
#[track_caller]
pub fn assert_is(expected: &Portrait, tree: &Path, why: &str) {
    let all: Vec<String> = compare(expected, &Portrait::of(tree)).iter().map(Difference::to_string).collect();
    assert!(all.is_empty(), "{why}: {} is not what it was:\n{}", tree.display(), shown(&all));
}

pub fn shown(differences: &[String]) -> String {
    let mut text = differences.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("\n");
    if let Some(more @ 1..) = differences.len().checked_sub(SHOWN) {
        text.push_str(&format!("\n… and {more} more"));
    }
    text
}
