//! The source: scans, offers, and from then on answers what the sink asks.

use std::{collections::HashMap, io, thread};

use drover_linux::{Dir, FileHandle, WINDOW_NAME, device};

use super::{
    FRAME_BYTES_MAX, Intent, Message, Offer, Piece, SessionError, Wire,
    body::{Known, Limits, Server},
};
use crate::{
    bases::{FoundBy, FoundByCounts},
    control::Phase,
    fault,
    index::Index,
    path::RelPath,
    point::{Label, Point, VolumeKind},
    report::{PATHS_SHOWN, Report},
    scan::Scan,
    volume::{Volume, unix_now},
};

pub(super) fn run(wire: &Wire<'_>, volume: &Volume, intent: &Intent) -> Result<Report, SessionError> {
    let deep = matches!(intent, Intent::Verify { deep: true });
    if matches!(intent, Intent::Sync(_)) {
        volume.check_source()?;
    }
    wire.control().progress.enter(Phase::Scanning, 0, 0);
    // Before the first look, and after the last one.
    let shut = if matches!(intent, Intent::Sync(_)) { volume.shut() } else { None };
    // Until the last answer is given.
    let frozen = volume.freeze()?;
    let tree = frozen.as_ref().map_or(volume.live(), |frozen| &frozen.dir);
    let mut scan = whole(volume.scan_of(tree, deep, wire.control())?)?;
    if frozen.is_some() {
        let count = scan.found_by.values().sum();
        scan.found_by = FoundByCounts::from([(FoundBy::Snapshot, count)]);
    }
    if scan.rotten.is_empty() {
        volume.keep_index(&scan.index);
    }
    let mut offer = offer(volume, &scan, frozen.is_some());
    if offer.label != Label::Fuzzy && shut.is_some() && volume.shut() == shut {
        offer.label = Label::Fenced;
    }
    wire.send(&Message::Offer(offer))?;
    wire.control().progress.enter(Phase::Comparing, 0, 0);
    fault::hit("source.offered").map_err(storage(volume))?;
    let handles = handles(tree, &scan);
    thread::scope(|scope| {
        let bodies = Server::new(scope, tree, Some(volume.bases()), &handles, wire, &Limits::default());
        let answered = Source { wire, volume, tree, index: &scan.index }.answer(&bodies);
        // A worker's own failure explains more than the closed link that followed from it.
        let finished = bodies.finish().map_err(SessionError::from);
        match (answered, finished) {
            (Err(SessionError::Body(error)), _) | (_, Err(SessionError::Body(error))) => Err(error.into()),
            (answered, Ok(())) => answered,
            (Err(error), _) | (_, Err(error)) => Err(error),
        }
    })
}

fn storage(volume: &Volume) -> impl Fn(io::Error) -> SessionError {
    let id = volume.id();
    move |source| crate::volume::VolumeError::Storage { volume: id, source }.into()
}

/// R5: with an I/O error at the source nothing is deleted, and nothing else is decided either.
fn whole(mut scan: Scan) -> Result<Scan, SessionError> {
    let unreadable = scan.unreadable.len();
    let first = scan.unreadable.drain(..).next();
    match first {
        Some((path, source)) => Err(SessionError::SourceUnreadable { path, unreadable, source }),
        None => Ok(scan),
    }
}

fn offer(volume: &Volume, scan: &Scan, is_snapshot: bool) -> Offer {
    let flux = &scan.flux;
    let fuzzy = flux.unstable.iter().chain(&flux.unsettled_directories).chain(&flux.kept);
    let root = scan.index.manifest.encode_root().iter().map(|byte| format!("{byte:02x}")).collect();
    Offer {
        state: volume.state(),
        root,
        label: label(volume, scan, is_snapshot),
        fuzzy: fuzzy.take(PATHS_SHOWN).cloned().collect(),
        taken_at: unix_now(),
        rotten: scan.rotten.clone(),
        found_by: scan.found_by.clone(),
    }
}

fn label(volume: &Volume, scan: &Scan, is_snapshot: bool) -> Label {
    if !scan.flux.is_quiet() {
        return Label::Fuzzy;
    }
    if is_snapshot {
        return Label::CrashConsistent;
    }
    // One file, and frozen: one instant.
    let mut bodies = scan.index.manifest.entries().filter_map(|(_, entry)| entry.node.body().copied());
    // A device that nobody wrote to while it was read is at one instant, too.
    let is_counted = || volume.live().stat(WINDOW_NAME).is_ok_and(|stat| stat.ctime != device::UNCOUNTED);
    let is_device = volume.state().kind == VolumeKind::BlockDevice && is_counted();
    let is_frozen = is_device
        || volume.state().kind == VolumeKind::BlockFile
            && bodies.all(|body| matches!(volume.bases().clone_of(&body.digest), Ok(Some(_))));
    if is_frozen { Label::CrashConsistent } else { Label::PerFile }
}

/// Files that may be renamed before the sink asks for them: those that were just seen to change. Only while directories
/// are in motion, since it costs a system call each.
fn handles(tree: &Dir, scan: &Scan) -> HashMap<RelPath, FileHandle> {
    if scan.flux.is_quiet() {
        return HashMap::new();
    }
    let racy = scan.index.locals.iter().flat_map(|(dir, locals)| {
        let block = scan.index.manifest.block(dir);
        let entries = block.into_iter().flat_map(|block| block.entries());
        entries.zip(locals.iter()).filter(|(_, local)| local.racy).map(move |(entry, _)| dir.join(&entry.name))
    });
    let handle = |path: RelPath| {
        let (dir, name) = crate::stage::locate(tree, &path).ok()?;
        Some((path, dir.handle(&name).ok()?))
    };
    racy.filter_map(handle).collect()
}

struct Source<'a> {
    wire: &'a Wire<'a>,
    volume: &'a Volume,
    /// The volume's own, or its snapshot's.
    tree: &'a Dir,
    index: &'a Index,
}

impl Source<'_> {
    fn answer(&self, bodies: &Server<'_>) -> Result<Report, SessionError> {
        loop {
            match self.wire.receive()? {
                Message::List(paths) => self.list(&paths)?,
                Message::LookAgain(paths) => {
                    let there = paths.into_iter().filter(|path| self.is_there(path)).collect();
                    self.wire.send(&Message::StillThere(there))?;
                }
                Message::Allocated(paths) => {
                    let bytes = paths.iter().map(|path| self.allocated(path)).collect();
                    self.wire.send(&Message::AllocatedAre(bytes))?;
                }
                Message::Differing { path, from } => {
                    let differing = self.differing(&path, &from).map_err(storage(self.volume))?;
                    self.wire.send(&Message::DifferingIs(differing))?;
                }
                Message::Body(request) => {
                    if self.wire.control().progress.phase() != Phase::Transferring {
                        self.wire.control().progress.enter(Phase::Transferring, 0, 0);
                    }
                    bodies.handle(request)?;
                }
                Message::Propose(point) => self.proceed(*point)?,
                Message::Finished(report) => return self.finished(&report),
                Message::Failure(failure) => return Err(SessionError::Peer(failure)),
                other => {
                    return Err(SessionError::Unexpected { expected: "a question", got: other.name() });
                }
            }
        }
    }

    /// Blocks of directories, many small ones in a frame, a big one over several.
    fn list(&self, paths: &[RelPath]) -> Result<(), SessionError> {
        const PIECE_BYTES: usize = FRAME_BYTES_MAX / 4;
        let (mut pieces, mut bytes) = (Vec::new(), 0);
        for path in paths {
            let block =
                self.index.manifest.block(path).ok_or(SessionError::Protocol("asked for an unknown directory"))?;
            let all = block.as_bytes();
            let starts = (0..all.len().max(1)).step_by(PIECE_BYTES);
            for start in starts {
                let end = all.len().min(start + PIECE_BYTES);
                let piece = bytes::Bytes::copy_from_slice(&all[start..end]);
                bytes += piece.len() + path.as_bytes().len() + 16;
                pieces.push(Piece { path: path.clone(), is_last: end == all.len(), bytes: piece });
                if bytes >= PIECE_BYTES {
                    self.wire.send(&Message::Listing(std::mem::take(&mut pieces)))?;
                    bytes = 0;
                }
            }
        }
        if !pieces.is_empty() {
            self.wire.send(&Message::Listing(pieces))?;
        }
        Ok(())
    }

    /// `st_blocks`, at most the size: blocks may be reserved beyond the end.
    fn allocated(&self, path: &RelPath) -> u64 {
        let stat = crate::stage::locate(self.tree, path).and_then(|(dir, name)| dir.stat(&name));
        stat.map_or(0, |stat| (stat.blocks * 512).min(stat.size))
    }

    fn differing(&self, path: &RelPath, from: &Known) -> io::Result<Option<u64>> {
        let entry = self.index.manifest.find(path);
        let Some(to) = entry.and_then(|entry| entry.node.body().copied()) else { return Ok(None) };
        let (old, new) = ((&from.digest, from.size), (&to.digest, to.size));
        match self.volume.bases().delta(old, new, self.wire.control())? {
            Some(delta) => delta.bytes().map(Some),
            None => Ok(None),
        }
    }

    /// R5: the second look. Only what is certainly gone is gone.
    fn is_there(&self, path: &RelPath) -> bool {
        match crate::stage::locate(self.tree, path).and_then(|(dir, name)| dir.stat(&name)) {
            Ok(_) => true,
            Err(error) => !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
        }
    }

    /// Journals the point before the sink commits it: if its answer is lost, the next session still knows it.
    fn proceed(&self, point: Point) -> Result<(), SessionError> {
        if point.id.number != point.id.number.min(1 << 62) {
            return Err(SessionError::Protocol("proposed a point beyond any that can be counted to"));
        }
        fault::hit("source.proposed").map_err(storage(self.volume))?;
        // It may have been superseded meanwhile.
        self.volume.check_source()?;
        self.volume.update_state(|state| {
            if let Some(offered) = state.offered.take()
                && Some(offered.id) == point.parent
            {
                state.current = Some(offered.id);
                state.append(offered);
            }
            state.offered = Some(point);
        })?;
        self.wire.control().progress.enter(Phase::Committing, 0, 0);
        Ok(self.wire.send(&Message::Proceed)?)
    }

    fn finished(&self, report: &str) -> Result<Report, SessionError> {
        fault::hit("source.finished").map_err(storage(self.volume))?;
        let report: Report =
            serde_json::from_str(report).map_err(|_| SessionError::Protocol("sent a report that is none"))?;
        if let Report::Sync(report) = &report {
            self.volume.update_state(|state| {
                if let Some(offered) =
                    state.offered.take_if(|offered| report.point.as_ref().is_some_and(|p| p.is(offered)))
                {
                    state.current = Some(offered.id);
                    state.append(offered);
                }
                state.confirmed_at = Some(unix_now());
            })?;
            self.volume.keep_bases(&[&self.index.manifest]);
        }
        Ok(report)
    }
}
