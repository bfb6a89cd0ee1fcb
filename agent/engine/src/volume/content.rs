//! Where the content of a file of a restore point lies, for whoever wants to read it without moving the replica.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::PathBuf};

use drover_linux::WINDOW_NAME;

use super::{Volume, VolumeError};
use crate::{
    digest::Digest,
    index::Index,
    path::RelPath,
    point::{PointId, VolumeKind},
    transaction::load_manifest,
    tree::{Body, Manifest, Node},
};

/// Content that lies in the tree may change, and a retention may take what lies in history: read it, then prove it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    pub file: PathBuf,
    pub body: Body,
    /// What has to be laid over the file's content to make the body, in order: ranges and data of each patch.
    pub deltas: Vec<(PathBuf, PathBuf)>,
    /// A directory of the same file system as the volume's own ones, for copies.
    pub scratch: PathBuf,
}

impl Volume {
    /// `path` is the file in a directory volume; a block file is its own.
    pub fn locate(&self, id: PointId, path: Option<&RelPath>) -> Result<Located, VolumeError> {
        let storage = |source| VolumeError::Storage { volume: self.id, source };
        let state = self.state();
        let point = state.restorable(id).map_err(|source| VolumeError::Refused { volume: self.id, source })?;
        let manifest = load_manifest(self, point)?;
        let path = match (state.kind, path) {
            (VolumeKind::Directory, Some(path)) => path.clone(),
            (VolumeKind::BlockFile | VolumeKind::BlockDevice, None) => {
                RelPath::new(WINDOW_NAME).expect("a window's name is a path")
            }
            (VolumeKind::Directory, None) => return Err(VolumeError::NoFileNamed(self.id)),
            (VolumeKind::BlockFile | VolumeKind::BlockDevice, Some(path)) => {
                return Err(VolumeError::NoSuchFile { point: id, path: path.clone() });
            }
        };
        let body = body(&manifest, &path).ok_or_else(|| VolumeError::NoSuchFile { point: id, path: path.clone() })?;
        let scratch = self.root.beside_path().join("volumes").join(self.id.to_string());
        let pooled = |name: &[u8]| {
            let (shard, name) = (OsStr::from_bytes(&name[..2]), OsStr::from_bytes(name));
            scratch.join("pool").join(shard).join(name)
        };
        let chain = self.pool.chain(&body.digest).map_err(storage)?;
        let (base, deltas) = chain.map_or((body.digest, Vec::new()), |chain| (chain.base.digest, chain.deltas));
        let deltas = deltas.iter().map(|delta| (pooled(&delta.ranges_name), pooled(&delta.data_name))).collect();
        if let Some((_, name)) = self.pool.find(&base).map_err(storage)? {
            return Ok(Located { file: pooled(&name), body, deltas, scratch });
        }
        let current = state.current_point().filter(|current| state.restorable(current.id).is_ok());
        let current = current.map(|current| load_manifest(self, current)).transpose()?;
        let in_tree = current.as_ref().and_then(|current| with_content(current, &path, &base));
        // What a promoted copy is at is no restore point of its own; the index knows what was found in its tree last.
        let in_tree = in_tree.or_else(|| with_content(&Index::load(&self.beside, b"index")?.manifest, &path, &base));
        let in_tree = in_tree.ok_or(VolumeError::Incomplete { point: id, path, others: 0 })?;
        let live = self.root.path().join(OsStr::from_bytes(self.path.as_bytes()));
        let file = match state.kind {
            VolumeKind::BlockFile | VolumeKind::BlockDevice => live,
            VolumeKind::Directory => live.join(OsStr::from_bytes(in_tree.as_bytes())),
        };
        Ok(Located { file, body, deltas, scratch })
    }
}

fn body(manifest: &Manifest, path: &RelPath) -> Option<Body> {
    match manifest.find(path)?.node {
        Node::File(body) => Some(body),
        Node::Hardlink { leader } => manifest.find(&leader)?.node.body().copied(),
        _ => None,
    }
}

/// What a restore point of a block volume needs to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It stands for itself.
    Whole,
    /// It is kept as a difference from the copy, and ends with the first write of others to that: the first one that a promoted
    /// copy's users make.
    OnCopy,
    /// The copy that it is a difference from was written to.
    Lost,
}

impl Volume {
    /// Points other than the one that the copy is at; nothing of a directory, whose points stand for themselves.
    pub fn standings(&self) -> Result<Vec<(PointId, Standing)>, VolumeError> {
        let storage = |source| VolumeError::Storage { volume: self.id, source };
        let state = self.state();
        if !state.kind.is_block() {
            return Ok(Vec::new());
        }
        let path = RelPath::new(WINDOW_NAME).expect("a window's name is a path");
        let live = self.known_content(&path);
        let mut standings = Vec::new();
        for point in state.restorable.iter().filter(|point| Some(point.id) != state.current) {
            let Some(body) = body(&load_manifest(self, point)?, &path) else { continue };
            let base = self.pool.chain(&body.digest).map_err(storage)?.map_or(body.digest, |chain| chain.base.digest);
            let is_whole = self.pool.find(&base).map_err(storage)?.is_some();
            let standing = match (is_whole, live == Some(base)) {
                (true, _) => Standing::Whole,
                (false, true) => Standing::OnCopy,
                (false, false) => Standing::Lost,
            };
            standings.push((point.id, standing));
        }
        Ok(standings)
    }

    /// What the index vouches for, while nobody has written to it since.
    fn known_content(&self, path: &RelPath) -> Option<Digest> {
        let index = Index::load(&self.beside, b"index")?;
        let (local, stat) = (index.local(path)?, self.live.stat(WINDOW_NAME).ok()?);
        let is_same = (stat.id, stat.ctime) == (local.id, local.ctime);
        is_same.then_some(index.manifest.find(path)?.node.body()?.digest)
    }
}

/// Where the tree has a content: at the path itself, most of the time.
fn with_content(tree: &Manifest, path: &RelPath, wanted: &Digest) -> Option<RelPath> {
    if body(tree, path).is_some_and(|body| body.digest == *wanted) {
        return Some(path.clone());
    }
    let mut entries = tree.entries();
    entries.find(|(_, entry)| entry.node.body().is_some_and(|body| body.digest == *wanted)).map(|(path, _)| path)
}
