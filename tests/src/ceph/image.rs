//! One image, made, written and read with the command line tools.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::Path,
    process::{Child, Stdio},
    time::Duration,
};

use super::{Cluster, Content, Snapshot};
use crate::{process, scratch::Scratch};

/// Until a snapshot of some 100 MiB is at the other site; rbd-mirror may need 30 s to see a new image.
const SYNCED: Duration = Duration::from_secs(120);

#[derive(Clone, Debug)]
pub struct Image<'a> {
    cluster: &'a Cluster,
    /// `pool/name` or `pool/namespace/name`.
    spec: String,
}

/// Killed when it goes.
#[derive(Debug)]
pub struct Writer(Child);

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl<'a> Image<'a> {
    pub(super) fn new(cluster: &'a Cluster, name: &str) -> Self {
        Self { cluster, spec: format!("{}/{name}", cluster.pool()) }
    }

    pub fn spec(&self) -> &str {
        &self.spec
    }

    /// Without content.
    #[track_caller]
    pub fn create(&self, bytes: u64) {
        self.cluster.rbd(&["create", "--size", &format!("{bytes}B"), &self.spec]);
    }

    /// It has no feature that needs the exclusive lock, and not that, as where a storage class has asked for layering alone.
    #[track_caller]
    pub fn disable_lock(&self) {
        self.cluster.rbd(&["feature", "disable", &self.spec, "fast-diff", "object-map", "exclusive-lock"]);
    }

    /// Bytes at offsets, in one call: as a difference that `rbd import-diff` applies to the head. The image stays open
    /// for its time only.
    #[track_caller]
    pub fn write(&self, parts: &[(u64, &[u8])]) {
        self.change(self.bytes(), parts, &[]);
    }

    /// To so many bytes, then as [`Image::write`]; `zeros` are offsets and lengths that are given back.
    #[track_caller]
    pub fn change(&self, bytes: u64, parts: &[(u64, &[u8])], zeros: &[(u64, u64)]) {
        let scratch = self.scratch();
        let path = scratch.join("diff");
        write_difference(&path, bytes, parts, zeros).expect("write a difference");
        self.cluster.rbd(&["import-diff", "--no-progress", utf8(&path), &self.spec]);
    }

    /// Of the head.
    #[track_caller]
    pub fn content(&self) -> Content {
        self.exported(&self.spec)
    }

    #[track_caller]
    pub fn content_at(&self, snapshot: &str) -> Content {
        self.exported(&format!("{}@{snapshot}", self.spec))
    }

    #[track_caller]
    pub fn bytes(&self) -> u64 {
        self.cluster.rbd_json(&["info", &self.spec])["size"].as_u64().expect("the size of an image")
    }

    #[track_caller]
    pub fn id(&self) -> String {
        self.cluster.rbd_json(&["info", &self.spec])["id"].as_str().expect("the id of an image").to_owned()
    }

    pub fn exists(&self) -> bool {
        self.cluster.try_rbd(&["info", &self.spec], SYNCED).is_ok_and(|done| done.status.success())
    }

    /// All of them, oldest first.
    #[track_caller]
    pub fn snapshots(&self) -> Vec<Snapshot> {
        Snapshot::list(&self.cluster.rbd_json(&["snap", "ls", "--all", &self.spec]))
    }

    #[track_caller]
    pub fn snapshot(&self, name: &str) {
        self.cluster.rbd(&["snap", "create", "--no-progress", &format!("{}@{name}", self.spec)]);
    }

    /// The byte at this offset becomes another one in the object that holds it, of the head and of each snapshot that shares the object: neither
    /// the image nor its snapshots are told. Something other than zeros was written to the object before.
    #[track_caller]
    pub fn rot(&self, offset: u64) {
        let info = self.cluster.rbd_json(&["info", &self.spec]);
        let prefix = info["block_name_prefix"].as_str().expect("the name of an image's objects");
        let object_bytes = info["object_size"].as_u64().expect("the size of an image's objects");
        let object = format!("{prefix}.{:016x}", offset / object_bytes);
        let scratch = self.scratch();
        let path = scratch.join("object");
        self.cluster.rados(&["get", &object, utf8(&path)]);
        let mut content = fs::read(&path).expect("read an object");
        content[usize::try_from(offset % object_bytes).expect("it fits")] ^= 0x55;
        fs::write(&path, content).expect("write an object");
        self.cluster.rados(&["put", &object, utf8(&path)]);
    }

    /// A client that has it open and writes all the time.
    #[track_caller]
    pub fn writer(&self) -> Writer {
        let mut command = self.cluster.tool("rbd");
        command.args([
            "bench",
            "--io-type",
            "write",
            "--io-size",
            "4K",
            "--io-threads",
            "1",
            "--io-total",
            "1T",
            &self.spec,
        ]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Writer(command.spawn().expect("rbd runs"))
    }

    /// Of the pool.
    #[track_caller]
    pub fn neighbours(&self) -> Vec<String> {
        let listed = self.cluster.rbd_json(&["ls", self.cluster.pool()]);
        listed.as_array().into_iter().flatten().filter_map(|name| Some(name.as_str()?.to_owned())).collect()
    }

    // === Mirroring, as an operator does it without Drover ===

    /// By snapshots.
    #[track_caller]
    pub fn enable(&self) {
        self.cluster.rbd(&["mirror", "image", "enable", &self.spec, "snapshot"]);
    }

    #[track_caller]
    pub fn mirror_snapshot(&self) {
        self.cluster.rbd(&["mirror", "image", "snapshot", &self.spec]);
    }

    /// Whether the newest mirror snapshot of this image is there, whole, on the other side.
    #[track_caller]
    pub fn is_synced(&self, other: &Self) -> bool {
        let newest = |image: &Self| image.snapshots().into_iter().rfind(|snapshot| snapshot.mirror().is_some());
        if !other.exists() {
            return false;
        }
        let (Some(here), Some(there)) = (newest(self), newest(other)) else { return false };
        there.mirror().is_some_and(|copy| copy.is_complete && copy.primary_snap_id == Some(here.id))
    }

    #[track_caller]
    pub fn wait_synced(&self, other: &Self) {
        process::until("the newest mirror snapshot is at the other site", SYNCED, || {
            self.is_synced(other).then_some(())
        });
    }

    #[track_caller]
    fn exported(&self, spec: &str) -> Content {
        let scratch = self.scratch();
        let path = scratch.join("export");
        self.cluster.rbd(&["export", "--no-progress", spec, utf8(&path)]);
        Content::of(&path).expect("read an exported image")
    }

    /// Where the tools of a chroot see it too.
    fn scratch(&self) -> Scratch {
        Scratch::beneath(self.cluster.dir(), "image")
    }
}

fn utf8(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// In the format of `rbd export-diff` version 1: all numbers are little-endian.
fn write_difference(path: &Path, bytes: u64, parts: &[(u64, &[u8])], zeros: &[(u64, u64)]) -> std::io::Result<()> {
    let mut file = BufWriter::new(File::create_new(path)?);
    file.write_all(b"rbd diff v1\ns")?;
    file.write_all(&bytes.to_le_bytes())?;
    for (offset, part) in parts {
        file.write_all(b"w")?;
        file.write_all(&offset.to_le_bytes())?;
        file.write_all(&(part.len() as u64).to_le_bytes())?;
        file.write_all(part)?;
    }
    for (offset, length) in zeros {
        file.write_all(b"z")?;
        file.write_all(&offset.to_le_bytes())?;
        file.write_all(&length.to_le_bytes())?;
    }
    file.write_all(b"e")?;
    file.flush()
}
