//! Inode numbers of paths: given at the first look-up, kept for the life of the mount, moved along by renames.

use std::{
    collections::HashMap,
    ffi::OsStr,
    path::{Path, PathBuf},
};

use fuser::INodeNo;

#[derive(Debug)]
pub(super) struct Nodes {
    paths: Vec<PathBuf>,
    numbers: HashMap<PathBuf, usize>,
}

impl Default for Nodes {
    fn default() -> Self {
        let root = PathBuf::new();
        // Number 0 is none.
        Self { paths: vec![root.clone(), root.clone()], numbers: HashMap::from([(root, 1)]) }
    }
}

impl Nodes {
    /// From the root of the file system.
    pub(super) fn path(&self, node: INodeNo) -> PathBuf {
        self.paths[node.0 as usize].clone()
    }

    pub(super) fn child(&self, parent: INodeNo, name: &OsStr) -> PathBuf {
        self.paths[parent.0 as usize].join(name)
    }

    pub(super) fn number(&mut self, path: &Path) -> INodeNo {
        let next = self.paths.len();
        let number = *self.numbers.entry(path.to_owned()).or_insert(next);
        if number == next {
            self.paths.push(path.to_owned());
        }
        INodeNo(number as u64)
    }

    /// The name is gone; the same path gets a new number next time.
    pub(super) fn forget(&mut self, path: &Path) {
        self.numbers.remove(path);
    }

    /// The entry and all beneath it have other paths now.
    pub(super) fn rename(&mut self, from: &Path, to: &Path) {
        self.numbers.remove(to);
        let moved: Vec<(PathBuf, usize)> = self.numbers.extract_if(|path, _| path.starts_with(from)).collect();
        for (path, number) in moved {
            let rest = path.strip_prefix(from).expect("it starts with it");
            let new = if rest.as_os_str().is_empty() { to.to_owned() } else { to.join(rest) };
            self.paths[number] = new.clone();
            self.numbers.insert(new, number);
        }
    }

    pub(super) fn exchange(&mut self, a: &Path, b: &Path) {
        let aside = PathBuf::from("\0aside");
        self.rename(a, &aside);
        self.rename(b, a);
        self.rename(&aside, b);
    }
}
