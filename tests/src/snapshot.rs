//! A tree saved aside, to be compared with a restore point later.

use std::{path::Path, process::Command, time::Duration};

use crate::{
    judge::{self, Portrait},
    process,
    scratch::Scratch,
    tree::DEEP,
};

/// A copy made by rsync, and a portrait of the original for what rsync does not carry (inode flags, deep paths).
#[derive(Debug)]
pub struct Snapshot {
    copy: Scratch,
    portrait: Portrait,
}

impl Snapshot {
    pub fn of(tree: &Path) -> Self {
        let copy = Scratch::new("snapshot");
        // The first run of rsync 3.5.0 may leave `group::---` in the ACL of a setgid directory; the second mends it.
        for _ in 0..2 {
            let mut command = Command::new("rsync");
            command.args(["-aHAX", "--sparse"]).arg(format!("--exclude=/{DEEP}"));
            command.arg(format!("{}/", tree.display())).arg(format!("{}/", copy.path().display()));
            process::run(command, Duration::from_secs(300)).expect("save a tree aside");
        }
        Self { copy, portrait: Portrait::of(tree) }
    }

    pub fn path(&self) -> &Path {
        self.copy.path()
    }

    pub fn portrait(&self) -> &Portrait {
        &self.portrait
    }

    /// What differs between the tree as it was and `tree`.
    pub fn differences(&self, tree: &Path) -> Vec<String> {
        let mut all = judge::rsync_differences(self.copy.path(), tree);
        let own = judge::compare(&self.portrait, &Portrait::of(tree));
        all.extend(own.iter().map(ToString::to_string));
        all
    }

    #[track_caller]
    pub fn assert_is(&self, tree: &Path, why: &str) {
        let all = self.differences(tree);
        assert!(all.is_empty(), "{why}: {} is not the saved tree:\n{}", tree.display(), judge::shown(&all));
    }
}
