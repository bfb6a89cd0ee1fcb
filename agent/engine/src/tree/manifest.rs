//! A manifest: the whole tree of one sync point, as directory blocks by path.
//!
//! Blocks are shared, so that two manifests that differ in a few directories cost little more than one.
//! `root digest = BLAKE3-derive-key("drover root v1", root entry without its name)`: it covers the root's own
//! metadata, and through the blocks every name, all metadata and all content.

use std::collections::BTreeMap;

use super::{BlockError, DirBlock, Entry, Meta, Node, Totals};
use crate::{
    codec::{DecodeError, Reader, Writer},
    digest::Digest,
    path::{Name, RelPath},
};

const ROOT_CONTEXT: &str = "drover root v1";

#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("manifest is malformed")]
    Malformed(#[from] DecodeError),
    #[error("manifest lacks directory {0}")]
    Missing(RelPath),
    #[error("manifest has a directory {0} that no entry names")]
    Stray(RelPath),
    #[error("directory {path}")]
    Block {
        path: RelPath,
        #[source]
        source: BlockError,
    },
    #[error("manifest has root digest {actual}, expected {expected}")]
    Root { expected: Digest, actual: Digest },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    root: Entry,
    blocks: BTreeMap<RelPath, DirBlock>,
}

/// The root's entry has no name of its own; this stands in for it in memory and is never encoded.
fn root_name() -> Name {
    Name::new(b"root").expect("a valid name")
}

impl Manifest {
    pub fn root(&self) -> &Entry {
        &self.root
    }

    pub fn root_digest(&self) -> Digest {
        let mut w = Writer::new();
        self.root.encode_unnamed(&mut w);
        Digest::of_record(ROOT_CONTEXT, &w.into_bytes())
    }

    pub fn totals(&self) -> Totals {
        self.root.totals()
    }

    pub fn block(&self, directory: &RelPath) -> Option<&DirBlock> {
        self.blocks.get(directory)
    }

    /// All directories with their blocks, in path order.
    pub fn blocks(&self) -> impl DoubleEndedIterator<Item = (&RelPath, &DirBlock)> {
        self.blocks.iter()
    }

    /// `path` and every directory beneath it.
    pub fn blocks_beneath<'a>(&'a self, path: &'a RelPath) -> impl Iterator<Item = (&'a RelPath, &'a DirBlock)> {
        self.blocks.range(path.clone()..).take_while(move |(p, _)| p.strip(path).is_some())
    }

    pub fn find(&self, path: &RelPath) -> Option<Entry> {
        match path.split() {
            None => Some(self.root.clone()),
            Some((parent, name)) => self.blocks.get(&parent)?.find(&name),
        }
    }

    /// Every entry but the root with its path, directory by directory.
    pub fn entries(&self) -> impl Iterator<Item = (RelPath, Entry)> + '_ {
        self.blocks.iter().flat_map(|(dir, block)| block.entries().map(move |entry| (dir.join(&entry.name), entry)))
    }

    /// Encodes the root's entry for the wire: what `root_digest` is of.
    pub fn encode_root(&self) -> Vec<u8> {
        let mut w = Writer::new();
        self.root.encode_unnamed(&mut w);
        w.into_bytes()
    }

    pub fn decode_root(bytes: &[u8]) -> Result<(Entry, Digest), DecodeError> {
        let mut r = Reader::new(bytes);
        let entry = Entry::decode_unnamed(root_name(), &mut r)?;
        r.end()?;
        Ok((entry, Digest::of_record(ROOT_CONTEXT, bytes)))
    }
}

/// Collects blocks in any order, then computes the directories' digests from the leaves up.
#[derive(Debug, Default)]
pub struct ManifestBuilder {
    directories: BTreeMap<RelPath, Contents>,
}

#[derive(Debug)]
enum Contents {
    /// Digests of subdirectories are not yet filled in.
    Open(Vec<Entry>),
    Sealed(DirBlock),
}

impl ManifestBuilder {
    pub fn new() -> Self {
        Self::default()
    }

    /// Entries of one directory; what they say of subdirectories' digests and totals is ignored.
    pub fn directory(&mut self, path: RelPath, entries: Vec<Entry>) {
        self.directories.insert(path, Contents::Open(entries));
    }

    /// A block taken as it is when the subdirectories turn out as it says, and opened again otherwise.
    pub fn block(&mut self, path: RelPath, block: DirBlock) {
        self.directories.insert(path, Contents::Sealed(block));
    }

    pub fn contains(&self, path: &RelPath) -> bool {
        self.directories.contains_key(path)
    }

    /// Entries of a directory already given.
    pub fn entries_mut(&mut self, path: &RelPath) -> Option<&mut Vec<Entry>> {
        let contents = self.directories.get_mut(path)?;
        if let Contents::Sealed(block) = contents {
            *contents = Contents::Open(block.entries().collect());
        }
        match contents {
            Contents::Open(entries) => Some(entries),
            Contents::Sealed(_) => None,
        }
    }

    /// Every directory entry must have been given its block, and every block an entry.
    pub fn finish(self, root: Meta) -> Result<Manifest, ManifestError> {
        let mut blocks: BTreeMap<RelPath, DirBlock> = BTreeMap::new();
        let mut done: BTreeMap<RelPath, (Digest, Totals)> = BTreeMap::new();
        // Children sort after their parents, so the reverse order meets every child first.
        for (path, contents) in self.directories.into_iter().rev() {
            let block = match contents {
                Contents::Sealed(block) if subdirectories_match(&path, &block, &mut done)? => block,
                Contents::Sealed(block) => reseal(&path, block.entries().collect(), &mut done)?,
                Contents::Open(entries) => reseal(&path, entries, &mut done)?,
            };
            done.insert(path.clone(), (block.digest(), block.totals()));
            blocks.insert(path, block);
        }
        let (digest, totals) = done.remove(&RelPath::root()).ok_or_else(|| ManifestError::Missing(RelPath::root()))?;
        // What was taken up by a parent was removed; the rest has none.
        if let Some(stray) = done.into_keys().find(|path| {
            let Some((parent, name)) = path.split() else {
                return false;
            };
            blocks.get(&parent).and_then(|b| b.find(&name)).is_none_or(|e| !e.node.is_directory())
        }) {
            return Err(ManifestError::Stray(stray));
        }
        Ok(Manifest { root: Entry { name: root_name(), meta: root, node: Node::Directory { digest, totals } }, blocks })
    }
}

type Done = BTreeMap<RelPath, (Digest, Totals)>;

fn subdirectories_match(path: &RelPath, block: &DirBlock, done: &mut Done) -> Result<bool, ManifestError> {
    for entry in block.entries() {
        if let Node::Directory { digest, totals } = entry.node {
            let child = path.join(&entry.name);
            let actual = done.get(&child).ok_or(ManifestError::Missing(child))?;
            if *actual != (digest, totals) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

fn reseal(path: &RelPath, mut entries: Vec<Entry>, done: &mut Done) -> Result<DirBlock, ManifestError> {
    for entry in &mut entries {
        if let Node::Directory { digest, totals } = &mut entry.node {
            let child = path.join(&entry.name);
            (*digest, *totals) = *done.get(&child).ok_or(ManifestError::Missing(child))?;
        }
    }
    Ok(DirBlock::new(entries))
}
