//! The copy of an image in a regular file: what an RBD image is synced to, and from, where a site has no Ceph.
//!
//! ```text
//! <root>/<path>                       the head
//! <beside>/images/<volume id>/state   the volume's state, with the path
//! <beside>/images/<volume id>/points/<point>.<taken at>   a clone of the head, which shares its blocks (XFS, btrfs)
//! ```
//! Two frozen files are compared by their extent maps first, then by what they hold. While a secondary is changed a lease keeps everybody else
//! from opening it (`F_SETLEASE`, fcntl(2)).

mod compare;

use std::{cell::RefCell, collections::BTreeSet, fs::File, io, os::unix::fs::FileExt, sync::Arc};

use bytes::Bytes;
use compare::{data_of, differing, leaf_numbers, narrowed, parts, read, size_of};
use drover_linux::{Dir, file};

use super::{
    Basis, ImageCopy, LEAF_BYTES, Leaf, Look, Range, SnapshotName,
    narrow::{Changed, How, Out, leaves_of, pieces},
    stream::{Change, Decoder, Totals},
};
use crate::{
    bases::BaseLimits,
    beside::Root,
    content::part::is_zero,
    digest::Digest,
    error::Kind,
    id::VolumeId,
    path::{Name, RelPath},
    point::{PointId, Role, VolumeState},
    record::{self, RecordKind},
    session::{Failure, SessionError},
};

const STATE: RecordKind = RecordKind { magic: *b"DRVI", version: 1 };
const POINTS: &[u8] = b"points";
const LEAVES_OF_A_CALL: usize = 256;

/// Held by one session or verb at a time.
pub struct FileCopy {
    root: Arc<Root>,
    path: RelPath,
    shown: String,
    beside: Dir,
    points: Dir,
    /// Of the head, open for this process alone.
    lease: RefCell<Option<file::WriteLease>>,
}

impl FileCopy {
    /// `None`: no such volume beneath this root.
    pub fn open(root: &Arc<Root>, volume: VolumeId) -> Result<Option<Self>, Failure> {
        let Some(path) = path_of(root, volume)? else { return Ok(None) };
        let beside = root.image_dir(volume).map_err(failed("open what lies beside the volume"))?;
        Self::at(root, &path, beside).map(Some)
    }

    /// Of a volume that is to be enabled; it is one once it has a state.
    pub fn create(root: &Arc<Root>, volume: VolumeId, path: &RelPath) -> Result<Self, Failure> {
        let beside = root.create_image_dir(volume).map_err(failed("make a directory beside the volume"))?;
        Self::at(root, path, beside)
    }

    fn at(root: &Arc<Root>, path: &RelPath, beside: Dir) -> Result<Self, Failure> {
        let shown = format!("{}/{path}", root.path().display());
        if path.is_root() {
            return Err(refused(Kind::Invalid, "unsuitable-path", format!("{shown} is no file")));
        }
        let points = crate::beside::subdirectory(&beside, POINTS).map_err(failed("open the directory of points"))?;
        Ok(Self { root: root.clone(), path: path.clone(), shown, beside, points, lease: RefCell::new(None) })
    }

    /// Where the head is, and its name there.
    fn place(&self) -> io::Result<(Dir, Name)> {
        let (parent, name) = self.path.split().ok_or(io::ErrorKind::InvalidInput)?;
        Ok((self.root.dir().open_beneath(parent.as_bytes())?, name))
    }

    /// `None`: there is none.
    fn with_head<T>(&self, what: impl FnOnce(&File) -> io::Result<T>) -> Result<Option<T>, Failure> {
        if let Some(lease) = &*self.lease.borrow() {
            return what(lease.file()).map(Some).map_err(failed(&self.shown));
        }
        match self.place().and_then(|(parent, name)| parent.open_file(name.as_bytes())) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => opened.and_then(|head| what(&head)).map(Some).map_err(failed(&self.shown)),
        }
    }

    /// A secondary's points outlive its head, which is what its newest one holds then.
    fn revive(&self) -> Result<bool, Failure> {
        const NEW: &[u8] = b"revived";
        let state = self.state()?;
        let Some(current) = state.current_point().filter(|_| state.role == Role::Secondary) else { return Ok(false) };
        let point = self.point(current.into())?;
        let revive = || {
            self.clone_anew(&point, NEW)?;
            let (parent, name) = self.place()?;
            self.points.rename_noreplace(NEW, &parent, name.as_bytes())?;
            record::sync_dir(&parent)
        };
        revive().map_err(failed(&self.shown))?;
        tracing::warn!(file = self.shown, point = %current.id, "the replica's file was gone, and is its newest point again");
        Ok(true)
    }

    /// Durable under a name of its own among the points, at one instant, whoever writes to `from`. Returns its size in bytes.
    fn clone_anew(&self, from: &File, name: &[u8]) -> io::Result<u64> {
        let new = scratch(&self.points, name)?;
        if !clone(from, &new)? {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "the file system can't clone it"));
        }
        new.sync_all()?;
        size_of(&new)
    }

    /// To change it.
    fn with_lease<T>(&self, what: impl FnOnce(&File) -> io::Result<T>) -> Result<T, Failure> {
        let lease = self.lease.borrow();
        let lease = lease.as_ref().ok_or_else(|| self.lost())?;
        what(lease.file()).map_err(failed(&self.shown))
    }

    /// Nobody has come in since.
    fn check_lease(&self) -> Result<(), Failure> {
        match &*self.lease.borrow() {
            Some(lease) if !lease.is_whole().map_err(failed(&self.shown))? => Err(self.lost()),
            Some(_) | None => Ok(()),
        }
    }

    fn lost(&self) -> Failure {
        Failure {
            kind: Kind::Unavailable,
            reason: "image-lock-lost".to_owned(),
            message: format!("somebody opened {} while it was changed: begin again", self.shown),
        }
    }

    fn point(&self, name: SnapshotName) -> Result<File, Failure> {
        self.points.open_file(&text(name)).map_err(failed(&format!("the clone of point {}", name.id)))
    }

    fn is_blank(&self) -> Result<bool, Failure> {
        let is_blank = |head: &File| -> io::Result<bool> {
            for range in data_of(head)?.into_iter().flat_map(parts) {
                if !is_zero(&read(head, range)?) {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        Ok(self.with_head(is_blank)?.unwrap_or(true))
    }

    /// What a volume begins with, and has to be written. A secondary's file need not be there; one that is there must be blank, unless it is adopted.
    pub fn begin(&self, state: &VolumeState, adopt: bool) -> Result<(), Failure> {
        let found = self.with_head(file::stat)?;
        match (state.role, &found) {
            (Role::Primary, None) => {
                return Err(precondition("no-image", format!("{} does not exist: a primary has to", self.shown)));
            }
            (_, Some(found)) if found.nlink > 1 => {
                let message =
                    format!("{} has {} names: it would be written to under the others, too", self.shown, found.nlink);
                return Err(refused(Kind::Invalid, "unsuitable-path", message));
            }
            (Role::Secondary, Some(_)) if !adopt && !self.is_blank()? => {
                let message = format!(
                    "{} has content already: give an empty one, or adopt it (what it holds is kept as a restore point, and overwritten where it \
                     differs)",
                    self.shown
                );
                return Err(precondition("replica-not-empty", message));
            }
            _ => {}
        }
        self.can_clone()
    }

    /// Tried with the head itself where there is one: its attributes matter.
    fn can_clone(&self) -> Result<(), Failure> {
        let (from, to) = (b"probe-from".as_slice(), b"probe-to".as_slice());
        let probe = || {
            let probe = scratch(&self.points, from)?;
            probe.write_all_at(&[1; 4096], 0)?;
            clone(&probe, &scratch(&self.points, to)?)
        };
        let with_head = self.with_head(|head| clone(head, &scratch(&self.points, to)?))?;
        let can = with_head.map_or_else(probe, Ok).map_err(failed("try a clone"))?;
        for name in [from, to] {
            match self.points.unlink(name) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("remove a trial")(error)),
                _ => {}
            }
        }
        if can {
            return Ok(());
        }
        let message =
            format!("the file system of {} can't clone files, which its points are: use XFS or btrfs", self.shown);
        Err(precondition("no-reflink", message))
    }

    /// Of a primary: overwriting what a point holds takes new blocks, and its users need them more (R10).
    fn check_space(&self) -> Result<(), Failure> {
        let space = self.beside.space().map_err(failed("look at the free space"))?;
        let least = space.total_bytes / 100 * u64::from(BaseLimits::default().free_percent_min);
        if space.free_bytes >= least {
            return Ok(());
        }
        let message = format!(
            "the file system of {} has {} of {} bytes left: a point would take what its users need",
            self.shown, space.free_bytes, space.total_bytes
        );
        Err(refused(Kind::Exhausted, "no-space", message))
    }
}

fn refused(kind: Kind, reason: &str, message: String) -> Failure {
    Failure { kind, reason: reason.to_owned(), message }
}

fn precondition(reason: &str, message: String) -> Failure {
    refused(Kind::Precondition, reason, message)
}

/// `dst` is empty. On btrfs both are copied on write, or neither is (`FS_NOCOW_FL`, ioctl_iflags(2)). `false` where the file system can't.
fn clone(src: &File, dst: &File) -> io::Result<bool> {
    const NOCOW: u32 = 0x0080_0000;
    let flags = file::inode_flags(src)?.unwrap_or(0) & NOCOW;
    file::set_inode_flags(dst, flags, NOCOW)?;
    file::reflink(src, dst)
}

/// A new empty file, whatever an interrupted try has left.
fn scratch(dir: &Dir, name: &[u8]) -> io::Result<File> {
    match dir.unlink(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    dir.create_file(name, 0o600)
}

/// Of the file beneath its root. `None`: there is no such volume.
pub(crate) fn path_of(root: &Root, volume: VolumeId) -> Result<Option<RelPath>, Failure> {
    match root.image_dir(volume) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => Ok(load(&opened.map_err(failed("open what lies beside the volume"))?)?.map(|state| state.path)),
    }
}

pub(crate) fn load(beside: &Dir) -> Result<Option<VolumeState>, Failure> {
    let told = |message: String| Failure { kind: Kind::DataLoss, reason: "state-unknown".to_owned(), message };
    let Some((_, state)) = record::load(beside, b"state", STATE).map_err(|error| told(error.to_string()))? else {
        return Ok(None);
    };
    serde_json::from_slice(&state).map(Some).map_err(|error| told(error.to_string()))
}

fn failed(what: &str) -> impl FnOnce(io::Error) -> Failure + '_ {
    move |error| {
        let is_full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        let (kind, reason) = if is_full { (Kind::Exhausted, "no-space") } else { (Kind::Storage, "io-error") };
        Failure { kind, reason: reason.to_owned(), message: format!("{what}: {error}") }
    }
}

fn text(name: SnapshotName) -> Vec<u8> {
    format!("{}.{}", name.id, name.taken_at).into_bytes()
}

fn parse(name: &[u8]) -> Option<SnapshotName> {
    let (id, taken_at) = std::str::from_utf8(name).ok()?.split_once('.')?;
    let found = SnapshotName { id: id.parse::<PointId>().ok()?, taken_at: taken_at.parse().ok()? };
    (text(found) == name).then_some(found)
}

impl ImageCopy for FileCopy {
    fn state(&self) -> Result<VolumeState, Failure> {
        load(&self.beside)?.ok_or_else(|| Failure {
            kind: Kind::NotFound,
            reason: "no-such-volume".to_owned(),
            message: format!("{} is no volume any more", self.shown),
        })
    }

    fn check_unused(&self) -> Result<(), Failure> {
        let in_use = || {
            precondition(
                "image-in-use",
                format!("somebody has {} open for writing: stop what uses it first", self.shown),
            )
        };
        if self.lease.borrow().is_some() {
            return self.check_lease();
        }
        match self.with_head(file::is_open_for_writing)? {
            None | Some(Some(false)) => Ok(()),
            Some(Some(true)) => Err(in_use()),
            Some(None) => Err(Failure {
                kind: Kind::Precondition,
                reason: "image-without-lock".to_owned(),
                message: format!(
                    "whether somebody uses {} can't be told: the agent needs CAP_LEASE, or has to own the file",
                    self.shown
                ),
            }),
        }
    }

    fn open(&self) -> Result<bool, Failure> {
        Ok(self.with_head(|_| Ok(()))?.is_some() || self.revive()?)
    }

    fn keep_others_out(&self) -> Result<(), Failure> {
        self.check_unused()?;
        if self.lease.borrow().is_some() {
            return Ok(());
        }
        let open = || self.place().and_then(|(parent, name)| parent.open_write(name.as_bytes()));
        let head = open().map_err(failed(&self.shown))?;
        let lease = file::WriteLease::take(head).map_err(failed(&self.shown))?;
        let lease = lease.ok_or_else(|| {
            precondition("image-in-use", format!("somebody has {} open: stop what uses it first", self.shown))
        })?;
        self.lease.replace(Some(lease));
        Ok(())
    }

    fn set_state(&self, state: &VolumeState) -> Result<(), Failure> {
        let state = serde_json::to_vec(state).expect("a state is JSON");
        record::replace(&self.beside, b"state", STATE, &state).map_err(failed("write the volume's state"))
    }

    fn look(&self) -> Result<Option<Look>, Failure> {
        if !self.open()? {
            return Ok(None);
        }
        let size_bytes = self.with_head(size_of)?.unwrap_or(0);
        let names = self.points.list().map_err(failed("list points"))?;
        let mut snapshots = std::collections::BTreeMap::new();
        for name in names.iter().filter_map(|(name, _)| parse(name)) {
            match self.point(name).and_then(|point| size_of(&point).map_err(failed("look at a point"))) {
                Ok(size_bytes) => drop(snapshots.insert(name, size_bytes)),
                // One that can't be read keeps nobody from the others.
                Err(failure) => {
                    tracing::error!(file = self.shown, point = %name.id, "a point can't be used: {}", failure.message)
                }
            }
        }
        // Objects of 4 MiB, as an image is made by default.
        Ok(Some(Look { size_bytes, order: 22, snapshots, cuts: BTreeSet::new() }))
    }

    fn create(&self, size_bytes: u64, _order: u8) -> Result<(), Failure> {
        let create = || {
            let (parent, name) = self.place()?;
            let head = parent.create_file(name.as_bytes(), 0o600)?;
            file::set_len(&head, size_bytes)?;
            head.sync_all()?;
            record::sync_dir(&parent)
        };
        create().map_err(failed(&self.shown))
    }

    fn take(&self, snapshot: SnapshotName) -> Result<u64, Failure> {
        const NEW: &[u8] = b"new";
        let name = text(snapshot);
        if let Some(there) = self.points.open_file_if_there(&name).map_err(failed("look for a point"))? {
            return size_of(&there).map_err(failed("look at a point"));
        }
        if self.state()?.role == Role::Primary {
            self.check_space()?;
        }
        self.check_lease()?;
        let size_bytes = self.with_head(|head| self.clone_anew(head, NEW))?.ok_or_else(super::verbs::no_image)?;
        self.check_lease()?;
        let keep = || {
            self.points.rename_noreplace(NEW, &self.points, &name)?;
            record::sync_dir(&self.points)
        };
        keep().map_err(failed("keep a point"))?;
        Ok(size_bytes)
    }

    fn remove(&self, snapshot: SnapshotName) -> Result<(), Failure> {
        match self.points.unlink(&text(snapshot)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.and_then(|()| record::sync_dir(&self.points)).map_err(failed("remove a point")),
        }
    }

    fn head_changes(&self, since: Option<SnapshotName>) -> Result<Vec<Range>, Failure> {
        let since = since.map(|since| self.point(since)).transpose()?;
        let compare = |head: &File| match &since {
            Some(since) => narrowed(&differing(since, head)?, Some(since), head),
            None => narrowed(&data_of(head)?, None, head),
        };
        let changes = self.with_head(compare)?.unwrap_or_default();
        // Who came in meanwhile may have written to what was compared before.
        self.check_lease()?;
        Ok(changes)
    }

    fn read(
        &self,
        from: &Basis<'_>,
        to: SnapshotName,
        asked: &[Range],
        frame: &mut dyn FnMut(Bytes) -> Result<(), SessionError>,
    ) -> Result<Totals, SessionError> {
        let failed = || failed("read a point");
        let new = self.point(to)?;
        let size = size_of(&new).map_err(failed())?;
        let old = match from {
            Basis::Snapshot(from) => Some(self.point(*from)?),
            Basis::Leaves(_) => None,
        };
        let changed = match &old {
            Some(old) => differing(old, &new),
            None => data_of(&new),
        };
        let changed = changed.map_err(failed())?.into_iter().map(|range| Changed { range, exists: true });
        let pieces = pieces(Range { offset: 0, length: size }, &changed.collect::<Vec<_>>(), asked);
        let mut frame = |content: Vec<u8>| frame(content.into());
        let mut out = Out::new(&mut frame);
        if let Basis::Leaves(leaves) = from
            && !leaves.is_empty()
        {
            for (range, known) in leaves_of(&pieces, size, leaves) {
                let content = read(&new, range).map_err(failed())?;
                if known.is_none_or(|known| known != Digest::of(&content)) {
                    out.content(range.offset, &content, None)?;
                }
            }
            return out.finish();
        }
        for (range, how) in pieces {
            for range in parts(range) {
                let content = read(&new, range).map_err(failed())?;
                let before = old.as_ref().filter(|_| how == How::Changed).map(|old| read(old, range)).transpose();
                out.content(range.offset, &content, before.map_err(failed())?.as_deref())?;
            }
        }
        out.finish()
    }

    fn write(
        &self,
        size_bytes: u64,
        frames: &mut dyn FnMut() -> Result<Option<Bytes>, SessionError>,
    ) -> Result<Totals, SessionError> {
        let mut decoder = Decoder::new(size_bytes);
        self.check_lease()?;
        self.with_lease(|head| if size_of(head)? == size_bytes { Ok(()) } else { file::set_len(head, size_bytes) })?;
        while let Some(frame) = frames()? {
            let changes = decoder.changes(&frame).map_err(|_| SessionError::Protocol("sent a malformed frame"))?;
            self.check_lease()?;
            self.with_lease(|head| {
                changes.into_iter().try_for_each(|change| match change {
                    Change::Data { offset, data } => head.write_all_at(data, offset),
                    Change::Zeros(range) => file::make_hole(head, range.offset, range.length),
                })
            })?;
        }
        self.with_lease(File::sync_all)?;
        self.check_lease()?;
        Ok(decoder.totals())
    }

    fn digests(
        &self,
        of: Option<SnapshotName>,
        leaves: &mut dyn FnMut(&[Leaf]) -> Result<(), SessionError>,
    ) -> Result<(), SessionError> {
        let point = of.map(|of| self.point(of)).transpose()?;
        let (numbers, size) = match &point {
            Some(point) => leaf_numbers(point).map(Some).map_err(failed("read a point"))?,
            None => self.with_head(leaf_numbers)?,
        }
        .unwrap_or_default();
        for some in numbers.chunks(LEAVES_OF_A_CALL) {
            let digest = |file: &File| {
                let mut found = Vec::with_capacity(some.len());
                for number in some {
                    let offset = number * LEAF_BYTES;
                    let content = read(file, Range { offset, length: LEAF_BYTES.min(size - offset) })?;
                    if !is_zero(&content) {
                        found.push(Leaf { number: *number, digest: Digest::of(&content) });
                    }
                }
                Ok(found)
            };
            let found = match &point {
                Some(point) => digest(point).map(Some).map_err(failed("read a point"))?,
                None => self.with_head(digest)?,
            };
            leaves(&found.unwrap_or_default())?;
        }
        Ok(())
    }

    fn restore(&self, to: SnapshotName) -> Result<(), Failure> {
        let changed = self.head_changes(Some(to))?;
        let point = self.point(to)?;
        let size = size_of(&point).map_err(failed("look at a point"))?;
        self.with_lease(|head| file::set_len(head, size))?;
        for range in changed.into_iter().filter(|range| range.offset < size).flat_map(parts) {
            let within = Range { length: range.length.min(size.saturating_sub(range.offset)), ..range };
            let content = read(&point, within).map_err(failed("read a point"))?;
            // Not over what somebody writes who has come in.
            self.check_lease()?;
            self.with_lease(|head| match is_zero(&content) {
                true if content.is_empty() => Ok(()),
                true => file::make_hole(head, range.offset, content.len() as u64),
                false => head.write_all_at(&content, range.offset),
            })?;
        }
        self.with_lease(File::sync_all)?;
        self.check_lease()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_was_written_and_no_other_way() {
        for kept in [0, 3] {
            let name = SnapshotName { id: PointId { number: 12, kept }, taken_at: 1_763_862_900 };
            assert_eq!(parse(&text(name)), Some(name));
        }
        for other in ["12.+5", "012.5", "12", "new", "probe-from"] {
            assert_eq!(parse(other.as_bytes()), None, "{other}");
        }
    }
}
