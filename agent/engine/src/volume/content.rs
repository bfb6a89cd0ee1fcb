//! Where the content of a file of a restore point lies, for whoever wants to read it without moving the replica.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::PathBuf};

use drover_linux::WINDOW_NAME;

use super::{Volume, VolumeError};
use crate::{
    digest::Digest,
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

/// Where the tree has a content: at the path itself, most of the time.
fn with_content(tree: &Manifest, path: &RelPath, wanted: &Digest) -> Option<RelPath> {
    if body(tree, path).is_some_and(|body| body.digest == *wanted) {
        return Some(path.clone());
    }
    let mut entries = tree.entries();
    entries.find(|(_, entry)| entry.node.body().is_some_and(|body| body.digest == *wanted)).map(|(path, _)| path)
}
