//! What one agent knows of its own copy of a volume: the manifest of what is there, and for each entry the identity and
//! times it had when it was read, so that the next scan reads only what moved (R9).
//!
//! ```text
//! record  = magic "DRVX", version 1; its payload is one zstd frame of
//! index   = complete:u8 mark:file-id root:local manifest:bytes { local, one for each entry, in the manifest's order }*
//! local   = id:file-id ctime:time nlink:uint racy:u8 read-at:int
//! file-id = ino:int born:time          time = secs:int nanos:uint
//! ```
//! Of inode numbers and seconds only the difference from the local before is written. The index is a cache: it can be
//! built again by reading everything, so it is not synced, and one that is damaged counts as absent.

mod local;
pub mod manifest_file;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, io, sync::Arc};

use drover_linux::{Dir, FileId};

use crate::{
    codec::{DecodeError, Reader, Writer},
    path::RelPath,
    record::{self, RecordKind},
    tree::{Entry, Manifest, ManifestBuilder, ManifestError},
};

pub use local::Local;
use local::{LocalReader, LocalWriter};
use manifest_file::ManifestFileError;

const RECORD: RecordKind = RecordKind { magic: *b"DRVX", version: 1 };

#[derive(Clone, Debug, PartialEq)]
pub struct Index {
    pub manifest: Manifest,
    /// By directory; parallel to the entries of the directory's block.
    pub locals: BTreeMap<RelPath, Arc<[Local]>>,
    pub root: Local,
    /// The file beside the volume that names it. An index that was made beside another one is not trusted: the volume
    /// was copied or restored, and inode numbers mean other files now.
    pub mark: FileId,
    /// Everything could be read.
    pub complete: bool,
}

#[derive(Debug, thiserror::Error)]
enum IndexError {
    #[error("index does not decompress")]
    Compression(#[source] io::Error),
    #[error("index is malformed")]
    Malformed(#[from] DecodeError),
    #[error("index holds no valid manifest")]
    Manifest(#[from] ManifestFileError),
}

impl Index {
    /// `None` when there is none that can be used; why is logged, since a full read of the volume follows.
    pub fn load(dir: &Dir, name: &[u8]) -> Option<Self> {
        let payload = match record::load(dir, name, RECORD) {
            Ok(record) => record?.1,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "index is not used, the volume is read anew");
                return None;
            }
        };
        Self::decode(&payload)
            .inspect_err(|error| {
                tracing::warn!(error = error as &dyn std::error::Error, "index is not used, the volume is read anew");
            })
            .ok()
    }

    pub fn store(&self, dir: &Dir, name: &[u8]) -> io::Result<()> {
        record::replace_cache(dir, name, RECORD, &self.encode()?)
    }

    /// Of an entry; of nothing when the path names none.
    pub fn local(&self, path: &RelPath) -> Option<&Local> {
        let Some((parent, name)) = path.split() else {
            return Some(&self.root);
        };
        let at = self.manifest.block(&parent)?.entries().position(|entry| entry.name == name)?;
        self.locals.get(&parent)?.get(at)
    }

    /// Changes entries, but neither their names nor their order.
    pub fn edit(&mut self, mut change: impl FnMut(&mut Entry)) -> Result<(), ManifestError> {
        let mut builder = ManifestBuilder::new();
        for (path, block) in self.manifest.blocks() {
            let mut entries: Vec<_> = block.entries().collect();
            entries.iter_mut().for_each(&mut change);
            builder.directory(path.clone(), entries);
        }
        self.manifest = builder.finish(self.manifest.root().meta.clone())?;
        Ok(())
    }

    fn encode(&self) -> io::Result<Vec<u8>> {
        let mut w = Writer::new();
        w.u8(self.complete.into());
        let mut locals = LocalWriter::default();
        locals.file_id(&mut w, self.mark);
        locals.local(&mut w, &self.root);
        w.bytes(&manifest_file::encode_plain(&self.manifest));
        for local in self.locals.values().flat_map(|locals| locals.iter()) {
            locals.local(&mut w, local);
        }
        manifest_file::compress(&w.into_bytes())
    }

    fn decode(payload: &[u8]) -> Result<Self, IndexError> {
        let plain = manifest_file::decompress(payload).map_err(IndexError::Compression)?;
        let mut r = Reader::new(&plain);
        let complete = r.u8()? != 0;
        let mut reader = LocalReader::default();
        let mark = reader.file_id(&mut r)?;
        let root = reader.local(&mut r)?;
        let manifest = manifest_file::decode_plain(r.bytes()?)?;
        let mut locals = BTreeMap::new();
        for (path, block) in manifest.blocks() {
            let of_block = block.entries().map(|_| reader.local(&mut r)).collect::<Result<Arc<[_]>, _>>()?;
            locals.insert(path.clone(), of_block);
        }
        r.end()?;
        Ok(Self { manifest, locals, root, mark, complete })
    }
}
