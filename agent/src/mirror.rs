//! RBD images as volumes: which ones this agent serves, and their verbs. What an image is, its cluster says; which images are
//! volumes is a record in their pool, so that a lost state directory loses none, and every agent of the cluster sees the same. All
//! calls block.

mod error;
mod info;
mod registry;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use drover_engine::id::VolumeId;
use drover_proto::v1;
use drover_rbd::{
    crew::{Crew, Program},
    image::{Image, VerbError},
    point::PointName,
    request::Connect,
    view::{ImagePlace, ImageView},
};

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
    registries: Vec<Registry>,
}

#[derive(Debug)]
pub struct Mirrors {
    clusters: BTreeMap<String, Ceph>,
    /// One for each volume of which a point was taken.
    turns: Mutex<BTreeMap<VolumeId, Arc<Mutex<()>>>>,
}

/// What CreateMirrorSnapshot did.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    pub point: PointName,
    pub mirror_snapshot: u64,
}

impl Mirrors {
    /// Starts nothing: workers are started by the first call.
    pub fn new(configured: &[CephConfig], program: &Program) -> Self {
        let clusters = configured.iter().map(|ceph| {
            let connect = Connect {
                conf: ceph.conf.clone(),
                user: ceph.user.clone(),
                keyring: ceph.keyring.clone(),
                timeout: std::time::Duration::ZERO,
            };
            let crew = Crew::new(ceph.name.clone(), program.clone(), connect);
            let registries = ceph.pools.iter().map(|pool| Registry::of(pool)).collect();
            (ceph.name.clone(), Ceph { crew, registries })
        });
        Self { clusters: clusters.collect(), turns: Mutex::default() }
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
            let (view, schedules) = image.enable()?;
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

    /// One at a time of an image: each has its own number.
    pub fn take_point(&self, mirrored: &Mirrored) -> Result<Taken, MirrorError> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = Arc::clone(turns.entry(mirrored.id).or_default());
        drop(turns);
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        let (point, mirror_snapshot) = self.with(mirrored, |image| image.take_point(unix_now()))?;
        tracing::info!(volume = %mirrored.id, %point, "sync point taken");
        Ok(Taken { point, mirror_snapshot })
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
        Ok(info::info(mirrored, view.as_ref(), sites, peer))
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
