//! Probes of a directory: through which exports, as whom, and what they leave behind.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use drover_engine::error::chain as told;
use drover_linux::Dir;

use super::{Fences, now};
use crate::{
    book::{Book, Fence, ProbeOk},
    place::{Mounts, Place},
    probe::{Session, Target},
    server::Server,
    table::Export,
};

/// What begins the names of the files that probes make.
pub(super) const PREFIX: &str = ".drover-probe-";
/// More are not made for one fence.
const PROBES_MAX: usize = 100;

impl Fences {
    /// A probe through each export that reaches the directory, and why there is none through others.
    pub(super) fn begin(&self, server: &Server, fence: &Fence, mounts: &Mounts) -> (Vec<Session>, Vec<String>) {
        let table = match server.table() {
            Ok(table) => table,
            Err(error) => return (Vec::new(), vec![told(&error)]),
        };
        let (mut sessions, mut lacking) = (Vec::new(), Vec::new());
        let Ok(place) = mounts.place(&fence.path) else { return (sessions, lacking) };
        let targets = table.exports.iter().filter_map(|export| self.target(export, &place, mounts, &fence.path));
        for (number, target) in targets.take(PROBES_MAX).enumerate() {
            let begun = target.and_then(|target| {
                let url = target.url();
                let name = numbered(&fence.probe_name, number);
                Session::begin(&self.program, target, &name).map_err(|error| format!("before, {url}: {}", told(&error)))
            });
            match begun {
                Ok(session) => sessions.push(session),
                Err(why) => lacking.push(why),
            }
        }
        (sessions, lacking)
    }

    /// Where exports that lead to a directory are shut for others already, nobody can write: what was written through them before, for fences that are
    /// proved, shows that they could be written through.
    pub(super) fn shown_by_others(&self, book: &Book, fence: &Fence) -> Vec<ProbeOk> {
        let is_standing = |it: &&Fence| it.holder != fence.holder && !it.is_lifting && it.proof.is_proved();
        let shares = |it: &&Fence| it.exports.intersection(&fence.exports).next().is_some();
        let others = book.fences.iter().filter(is_standing).filter(shares);
        others.flat_map(|it| it.before.iter().map(|probe| ProbeOk { is_of_other: true, ..probe.clone() })).collect()
    }

    /// `None` when the export does not lead there; an error where nobody should write.
    pub(super) fn target(
        &self,
        export: &Export,
        place: &Place,
        mounts: &Mounts,
        path: &Path,
    ) -> Option<Result<Target, String>> {
        let at = mounts.place(&export.path).ok()?;
        mounts.reach(&at, place, export.crosses)?;
        let owner = fs::metadata(directory_of(path)).ok()?;
        // Of a file the directory that it is in; an export is never a file.
        let beneath = place.beneath(&at);
        let beneath = if path.is_dir() { beneath } else { beneath.parent().unwrap_or(Path::new("")).to_owned() };
        let mounted = if self.probe.version == 3 { &export.path } else { &export.pseudo };
        let directory = match beneath.as_os_str().is_empty() {
            true => String::new(),
            false => format!("/{}", beneath.display()),
        };
        let target = Target {
            host: self.probe.server.clone(),
            port: self.probe.port,
            mount_port: self.probe.mount_port,
            version: self.probe.version,
            uid: self.probe.uid.unwrap_or(owner.uid()),
            gid: self.probe.gid.unwrap_or(owner.gid()),
            patience_millis: self.probe.timeout_secs.saturating_mul(1000),
            export: mounted.display().to_string(),
            directory,
        };
        // Whoever may write there could put a link in the place of the probe's file.
        if target.uid == 0 && owner.mode() & 0o022 != 0 {
            return Some(Err(format!(
                "before, {}: others than root may write to the directory, so root does not: say [nfs.probe] uid and gid",
                target.url()
            )));
        }
        Some(Ok(target))
    }
}

/// Of the first probes of a fence, one for each export; later ones end in a word.
pub(super) fn numbered(name: &str, number: usize) -> String {
    format!("{name}-{number}")
}

/// Where a probe can make its file.
pub(super) fn directory_of(path: &Path) -> PathBuf {
    if path.is_dir() { path.to_owned() } else { path.parent().unwrap_or(path).to_owned() }
}

pub(super) fn succeeded(session: &Session) -> ProbeOk {
    let Target { uid, gid, .. } = session.target;
    let (url, export) = (session.target.url(), session.target.export.clone());
    ProbeOk { url, export, uid, gid, at: now(), is_of_other: false }
}

/// Files of probes, which the server would not let go: all that begin as a fence's do. Remembered while the directory is not there, and as long
/// as the fence stands, which probes again.
pub(super) fn sweep(book: &mut Book) {
    let standing: Vec<String> = book.fences.iter().map(|fence| fence.probe_name.clone()).collect();
    book.left.retain(|directory, names| {
        let Ok(dir) = Dir::open(directory) else { return true };
        let Ok(entries) = dir.list() else { return true };
        let mut is_left = false;
        for (entry, _) in entries {
            if names.iter().any(|name| entry.starts_with(name.as_bytes())) {
                let removed = dir.unlink(&entry);
                is_left |= removed.is_err_and(|error| error.kind() != io::ErrorKind::NotFound);
            }
        }
        names.retain(|name| is_left || standing.contains(name));
        !names.is_empty()
    });
}
