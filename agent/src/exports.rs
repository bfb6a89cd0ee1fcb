//! The clients of this host's NFS server, by volumes: fenced when asked, and when a copy is superseded (R8).

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use drover_engine::{
    id::VolumeId,
    point::{Role, VolumeKind},
    volume::Shutter,
};
use drover_nfs::{Asked, Cause, Fence, Fences, Holder, NfsError, Owner, Shut, Whole, probe::Program};

use crate::{
    config::{Config, OnSuperseded},
    volumes::{Held, Volumes},
};

/// Shared by all services.
pub type SharedExports = Arc<Exports>;

#[derive(Debug)]
pub struct Exports {
    pub fences: Fences,
    on_superseded: OnSuperseded,
    /// When it was last tried to shut a superseded copy's clients out, and why that failed.
    tried: Mutex<BTreeMap<VolumeId, (Instant, Option<String>)>>,
}

/// What could not be shut is tried again.
const AGAIN: Duration = Duration::from_secs(60);

impl Shutter for Exports {
    fn shut(&self, volume: VolumeId) -> Option<u64> {
        self.fences.is_shut(&Holder::Volume(volume))
    }
}

/// The directory or file of a volume that an NFS server may serve.
pub fn path_of(held: &Held) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt as _;
    let path = held.volume.path();
    let beneath = std::ffi::OsStr::from_bytes(path.as_bytes());
    (held.volume.state().kind != VolumeKind::BlockDevice).then(|| held.volume.root().path().join(beneath))
}

fn owner(held: &Arc<Held>) -> Option<Owner> {
    let state = held.volume.state();
    let is_used = state.role == Role::Primary && state.superseded.is_none();
    Some(Owner { name: held.volume.id().to_string(), path: path_of(held)?, is_used })
}

impl Exports {
    pub fn open(config: &Config) -> std::io::Result<Self> {
        // The file that runs, also when another one was installed in its place meanwhile.
        let program = Program { path: "/proc/self/exe".into(), arguments: vec!["nfs-probe".to_owned()] };
        let nfs = config.nfs.as_ref();
        let (server, probe) = (nfs.map(|nfs| nfs.server()), nfs.map(|nfs| nfs.probe.clone()).unwrap_or_default());
        let fences = Fences::open(server.as_ref(), &config.state_dir, probe, program)?;
        let on_superseded = nfs.map(|nfs| nfs.on_superseded).unwrap_or_default();
        Ok(Self { fences, on_superseded, tried: Mutex::default() })
    }

    pub fn owners(volumes: &Volumes) -> Vec<Owner> {
        volumes.all().iter().filter_map(owner).collect()
    }

    pub fn fences_superseded(&self) -> bool {
        self.fences.is_configured() && self.on_superseded == OnSuperseded::Fence
    }

    pub fn of(&self, volume: VolumeId) -> Option<Fence> {
        self.fences.of(&Holder::Volume(volume))
    }

    /// Once; what stands is kept up by `settle`.
    pub fn fence_superseded(&self, volumes: &Volumes, held: &Held) {
        let id = held.volume.id();
        let Some((by, path)) = held.volume.state().superseded.zip(path_of(held)) else { return };
        if !self.fences_superseded() || self.of(id).is_some() {
            return;
        }
        let is_due = {
            let tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
            tried.get(&id).is_none_or(|(at, _)| at.elapsed() >= AGAIN)
        };
        if !is_due {
            return;
        }
        let (holder, cause) = (Holder::Volume(id), Cause::Superseded { by: by.by, epoch: by.epoch });
        let asked = Asked { holder, path, shut: Shut::ReadOnly, cause, whole: Whole::IfUnused };
        let fenced = self.fences.fence(&asked, &Self::owners(volumes));
        let problem = match fenced {
            Ok(_) => None,
            Err(NfsError::NotExported { .. }) => {
                tracing::debug!(volume = %id, "a superseded copy is not exported");
                None
            }
            Err(error) => {
                let problem = crate::rpc::status::chain(&error);
                tracing::error!(volume = %id, "the clients of a superseded copy are not shut out: {problem}");
                Some(problem)
            }
        };
        self.tried.lock().unwrap_or_else(PoisonError::into_inner).insert(id, (Instant::now(), problem));
    }

    /// Why the clients of a superseded copy write on.
    pub fn not_shut(&self, held: &Held) -> Option<String> {
        let id = held.volume.id();
        if held.volume.state().superseded.is_none() || self.of(id).is_some() {
            return None;
        }
        self.tried.lock().unwrap_or_else(PoisonError::into_inner).get(&id).and_then(|(_, problem)| problem.clone())
    }

    /// For what else exports that lead to a volume are shut.
    pub fn shut_for(&self, held: &Held) -> Vec<String> {
        let (id, Some(path)) = (held.volume.id(), path_of(held)) else { return Vec::new() };
        let leads = |fence: &&Fence| {
            fence.holder != Holder::Volume(id)
                && fence.exports.iter().any(|export| path.starts_with(export) || export.starts_with(&path))
        };
        let fences = self.fences.all().unwrap_or_default();
        fences.iter().filter(leads).map(|fence| fence.holder.to_string()).collect()
    }

    /// What R8 shut is opened again by the promotion of the copy.
    pub fn lift_superseded(&self, held: &Held) {
        let (id, state) = (held.volume.id(), held.volume.state());
        let is_ours = |fence: &Fence| matches!(fence.cause, Cause::Superseded { .. });
        if state.role != Role::Primary
            || state.superseded.is_some()
            || !self.of(id).is_some_and(|fence| is_ours(&fence))
        {
            return;
        }
        match self.fences.lift(&Holder::Volume(id)) {
            Ok(wanted) if wanted.still.is_empty() => {}
            Ok(wanted) => {
                let still = wanted.still.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                tracing::warn!(volume = %id, "promoted, and its clients are shut out still, with those of {still}");
            }
            Err(error) => {
                tracing::error!(volume = %id, "clients are not let in again after a promotion: {}", crate::rpc::status::chain(&error));
            }
        }
    }

    /// Files and server are as the journal of fences says, and that as the copies are. Blocks.
    pub fn settle(&self, volumes: &Volumes) {
        if !self.fences.is_configured() {
            return;
        }
        match self.fences.settle() {
            Ok(found) => {
                for (holder, problem) in found {
                    tracing::error!(fence = %holder, "a fence does not hold: {problem}");
                }
            }
            Err(error) => tracing::warn!("fences can't be looked at: {}", crate::rpc::status::chain(&error)),
        }
        for held in volumes.all() {
            self.fence_superseded(volumes, &held);
            self.lift_superseded(&held);
        }
    }
}
