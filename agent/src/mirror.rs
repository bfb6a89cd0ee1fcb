//! RBD images as volumes: which ones this agent serves, and their verbs. What an image is, its cluster says; which images are
//! volumes is a record in their pool, so that a lost state directory loses none, and every agent of the cluster sees the same. All
//! calls block.

mod error;
mod info;
mod registry;

use std::{collections::BTreeMap, sync::Arc};

use drover_engine::id::VolumeId;
use drover_proto::v1;
use drover_rbd::{
    crew::{Crew, Program},
    image::{self, Demoted, Image, Promoted, VerbError},
    point::PointName,
    request::Connect,
    turn::{Turn, Turns},
    view::{ImagePlace, ImageView, UserView, Verb},
};

use uuid::Uuid;

use crate::{config::CephConfig, job::unix_now};
pub use error::MirrorError;
pub use info::{Peer, view_of};
use registry::{Record, Registry};

/// A volume that is an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirrored {
    pub id: VolumeId,
    /// Of the configuration.
    pub cluster: String,
    pub place: ImagePlace,
    pub peer: Option<String>,
}

/// What Enable says of one.
#[derive(Clone, Debug)]
pub struct NewMirrored {
    pub mirrored: Mirrored,
    pub is_primary: bool,
}

#[derive(Debug)]
struct Ceph {
    crew: Crew,
    turns: Turns,
    registries: Vec<Registry>,
}

#[derive(Debug)]
pub struct Mirrors {
    clusters: BTreeMap<String, Ceph>,
    /// Points that are kept besides the newest.
    retain: usize,
}

/// What CreateMirrorSnapshot did.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    pub point: PointName,
    pub mirror_snapshot: u64,
}

impl Mirrors {
    /// Starts nothing: workers are started by the first call. `agent` is this agent's name among those of the clusters.
    pub fn new(agent: &str, configured: &[CephConfig], retain: u32, program: &Program) -> Self {
        let incarnation = Uuid::new_v4().to_string();
        let clusters = configured.iter().map(|ceph| {
            let connect = Connect {
                conf: ceph.conf.clone(),
                user: ceph.user.clone(),
                keyring: ceph.keyring.clone(),
                timeout: std::time::Duration::ZERO,
            };
            let crew = Crew::new(ceph.name.clone(), program.clone(), connect);
            let registries = ceph.pools.iter().map(|pool| Registry::of(pool)).collect();
            let turns = Turns::new(agent.to_owned(), incarnation.clone());
            (ceph.name.clone(), Ceph { crew, turns, registries })
        });
        Self { clusters: clusters.collect(), retain: retain as usize }
    }

    pub fn is_empty(&self) -> bool {
        self.clusters.is_empty()
    }

    /// Each cluster, whether it answers, and its volumes.
    pub fn clusters(&self) -> Vec<v1::CephInfo> {
        let told = |(name, ceph): (&String, &Ceph)| {
            let info = v1::CephInfo { name: name.clone(), ..v1::CephInfo::default() };
            match ceph.crew.connected() {
                Ok(connected) => v1::CephInfo {
                    fsid: connected.fsid,
                    librbd_version: connected.rbd_version,
                    volume_ids: volumes(name, ceph).iter().map(|mirrored| mirrored.id.to_string()).collect(),
                    ..info
                },
                Err(error) => v1::CephInfo { problem: error.to_string(), ..info },
            }
        };
        self.clusters.iter().map(told).collect()
    }

    fn ceph(&self, name: &str) -> Result<&Ceph, MirrorError> {
        self.clusters.get(name).ok_or_else(|| MirrorError::NoSuchCluster {
            name: name.to_owned(),
            known: self.clusters.keys().map(String::as_str).collect::<Vec<_>>().join(", "),
        })
    }

    /// `None` where no cluster that answers has it. A cluster that does not is an error only if none has it.
    pub fn find(&self, id: VolumeId) -> Result<Option<Mirrored>, MirrorError> {
        let mut failed = None;
        for (name, ceph) in &self.clusters {
            for registry in &ceph.registries {
                match registry.find(&ceph.crew, id) {
                    Ok(Some(record)) => return Ok(Some(record.mirrored(id, name, registry))),
                    Ok(None) => {}
                    Err(error) => failed = Some(error),
                }
            }
        }
        failed.map_or(Ok(None), |error| Err(error.into()))
    }

    /// Of all clusters that answer.
    pub fn all(&self) -> Vec<Mirrored> {
        self.clusters.iter().flat_map(|(name, ceph)| volumes(name, ceph)).collect()
    }

    /// On the primary the image is mirrored from now on; on the secondary it may not have arrived yet.
    pub fn enable(&self, new: &NewMirrored) -> Result<(), MirrorError> {
        let mirrored = &new.mirrored;
        let ceph = self.ceph(&mirrored.cluster)?;
        let registry = ceph.registries.iter().find(|registry| registry.has(&mirrored.place)).ok_or_else(|| {
            MirrorError::PoolNotConfigured { cluster: mirrored.cluster.clone(), place: mirrored.place.clone() }
        })?;
        for (id, record) in registry.all(&ceph.crew)? {
            let is_same_image = record.image == mirrored.place.image;
            if is_same_image != (id == mirrored.id) {
                let image = ImagePlace { image: record.image, ..mirrored.place.clone() };
                return Err(MirrorError::Other { id, image });
            }
        }
        let image = Image { crew: &ceph.crew, place: &mirrored.place };
        if new.is_primary {
            let (view, schedules) = self.change(mirrored, Verb::Enable, |turn| turn.enable())?;
            if !view.is_primary {
                return Err(VerbError::NotPrimary(mirrored.place.clone()).into());
            }
            for schedule in schedules {
                tracing::warn!(
                    volume = %mirrored.id, level = schedule.level, interval = schedule.interval,
                    "a schedule of the mgr takes mirror snapshots of this image without sync points before them"
                );
            }
        } else if image.look().is_ok_and(|view| view.is_primary) {
            return Err(MirrorError::IsPrimary(mirrored.place.clone()));
        }
        registry.write(&ceph.crew, mirrored.id, Some(&Record::of(mirrored)))?;
        Ok(())
    }

    /// What this agent was doing when it ended last; clusters that don't answer are passed over, and their images are taken up by the
    /// next verb.
    pub fn sweep(&self) {
        for (name, ceph) in &self.clusters {
            for registry in &ceph.registries {
                let (pool, namespace) = registry.pool();
                if let Err(error) = ceph.turns.sweep(&ceph.crew, pool, namespace, unix_now()) {
                    tracing::warn!(cluster = name, pool, "verbs that were interrupted can't be looked for: {error}");
                }
            }
        }
    }

    /// Forgets it; the image and its mirroring stay, and so do the points.
    pub fn forget(&self, mirrored: &Mirrored) -> Result<(), MirrorError> {
        let ceph = self.ceph(&mirrored.cluster)?;
        for registry in ceph.registries.iter().filter(|registry| registry.has(&mirrored.place)) {
            registry.write(&ceph.crew, mirrored.id, None)?;
        }
        Ok(())
    }

    fn with<T>(
        &self,
        mirrored: &Mirrored,
        verb: impl FnOnce(Image<'_>) -> Result<T, VerbError>,
    ) -> Result<T, MirrorError> {
        let ceph = self.ceph(&mirrored.cluster)?;
        Ok(verb(Image { crew: &ceph.crew, place: &mirrored.place })?)
    }

    /// One verb of an image at a time, of all agents of its cluster.
    fn change<T>(
        &self,
        mirrored: &Mirrored,
        verb: Verb,
        what: impl FnOnce(&mut Turn<'_>) -> Result<T, VerbError>,
    ) -> Result<T, MirrorError> {
        let ceph = self.ceph(&mirrored.cluster)?;
        let image = Image { crew: &ceph.crew, place: &mirrored.place };
        Ok(ceph.turns.with(image, verb, unix_now(), what)?)
    }

    /// Of the older ones so many are kept besides as the configuration says, and what the peer needs.
    pub fn take_point(&self, mirrored: &Mirrored, peer: image::Peer<'_>) -> Result<Taken, MirrorError> {
        self.change(mirrored, Verb::Point, |turn| {
            let (point, mirror_snapshot) = turn.take_point(unix_now())?;
            let gone = turn.prune(peer, self.retain + 1);
            tracing::info!(volume = %mirrored.id, %point, gone, "sync point taken");
            Ok(Taken { point, mirror_snapshot })
        })
    }

    pub fn promote(
        &self,
        mirrored: &Mirrored,
        peer: image::Peer<'_>,
        force: bool,
        accepted: Option<u64>,
    ) -> Result<Promoted, MirrorError> {
        let promoted = self.change(mirrored, Verb::Promote, |turn| turn.promote(peer, force, accepted))?;
        match &promoted {
            Promoted::Already => tracing::info!(volume = %mirrored.id, "image is primary already"),
            Promoted::Planned => tracing::info!(volume = %mirrored.id, "image is promoted; nothing was lost"),
            Promoted::Forced(point) => {
                let point = point.map_or_else(|| "none of Drover's".to_owned(), |point| point.name.to_string());
                tracing::warn!(volume = %mirrored.id, point, "image is promoted by force; what came after the point is lost");
            }
        }
        Ok(promoted)
    }

    pub fn demote(&self, mirrored: &Mirrored, peer: image::Peer<'_>) -> Result<(), MirrorError> {
        match self.change(mirrored, Verb::Demote, |turn| turn.demote(peer))? {
            Demoted::Already => tracing::info!(volume = %mirrored.id, "image is secondary already"),
            Demoted::Now => tracing::info!(volume = %mirrored.id, "image is demoted"),
        }
        Ok(())
    }

    pub fn resync(&self, mirrored: &Mirrored, peer: image::Peer<'_>) -> Result<(), MirrorError> {
        match self.change(mirrored, Verb::Resync, |turn| turn.resync(peer, unix_now()))? {
            None => tracing::info!(volume = %mirrored.id, "image follows its peer already"),
            Some(kept) => {
                tracing::warn!(volume = %mirrored.id, kept, "image is kept under another name; the peer's is copied anew")
            }
        }
        Ok(())
    }

    fn look(&self, mirrored: &Mirrored) -> Result<Option<ImageView>, MirrorError> {
        match self.with(mirrored, |image| image.look()) {
            Ok(view) => Ok(Some(view)),
            Err(MirrorError::Verb(VerbError::NoImage { .. })) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub fn info(&self, mirrored: &Mirrored, peer: Option<&Peer>) -> Result<v1::VolumeInfo, MirrorError> {
        let view = self.look(mirrored)?;
        let sites = match &view {
            Some(view) if view.global_id.is_empty() => Vec::new(),
            Some(_) => self.with(mirrored, |image| image.sites())?,
            None => Vec::new(),
        };
        // Who has it open matters to those who decide, and they ask both sites.
        let users: Vec<UserView> = match (&view, peer) {
            (Some(_), Some(_)) => match self.with(mirrored, |image| image.users()) {
                Err(MirrorError::Verb(VerbError::NoLock(_))) => Vec::new(),
                users => users?,
            },
            _ => Vec::new(),
        };
        let turn_of_missing = match view {
            Some(_) => None,
            None => self.with(mirrored, |image| image.turn())?.filter(|turn| !turn.has_ended),
        };
        Ok(info::info(mirrored, view.as_ref(), sites, users, peer, turn_of_missing))
    }
}

fn volumes(name: &str, ceph: &Ceph) -> Vec<Mirrored> {
    let mut all = Vec::new();
    for registry in &ceph.registries {
        match registry.all(&ceph.crew) {
            Ok(found) => all.extend(found.into_iter().map(|(id, record)| record.mirrored(id, name, registry))),
            Err(error) => tracing::warn!(cluster = name, "volumes of a pool can't be listed: {error}"),
        }
    }
    all
}

/// The agent's own binary, as a worker.
pub fn program() -> std::io::Result<Program> {
    // The file that runs, also when another one was installed in its place meanwhile.
    std::env::current_exe()?;
    Ok(Program { path: "/proc/self/exe".into(), arguments: vec!["rbd-worker".to_owned()] })
}

/// Shared by all services.
pub type SharedMirrors = Arc<Mirrors>;
