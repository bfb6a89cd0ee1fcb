//! Temporary directories that can hold what an ordinary one can't be rid of: immutable files, paths beyond `PATH_MAX`.

use std::{
    env,
    path::{Path, PathBuf},
};

use crate::tree::remove_tree;

#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Beneath `DROVER_SCRATCH`, or the system's temporary directory.
    pub fn new(name: &str) -> Self {
        let parent = env::var_os("DROVER_SCRATCH").map_or_else(env::temp_dir, PathBuf::from);
        Self::beneath(&parent, name)
    }

    pub fn beneath(parent: &Path, name: &str) -> Self {
        let made = tempfile::Builder::new().prefix(&format!("drover-{name}-")).tempdir_in(parent);
        let path = made.unwrap_or_else(|error| panic!("directory in {}: {error}", parent.display())).keep();
        Self { path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if env::var_os("DROVER_KEEP").is_some() {
            eprintln!("kept: {}", self.path.display());
        } else if let Err(error) = remove_tree(&self.path) {
            eprintln!("can't remove {}: {error}", self.path.display());
        }
    }
}
