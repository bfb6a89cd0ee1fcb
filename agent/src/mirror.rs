//! RBD images as volumes: which ones this agent serves, and their verbs. What an image is, its cluster says; which images are
//! volumes is a record in their pool, so that a lost state directory loses none, and every agent of the cluster sees the same. All
//! calls block.

mod delta;
mod error;
mod group;
mod info;
pub mod pool;
mod registry;
pub mod schedule;

use std::{collections::BTreeMap, num::NonZeroU64, path::PathBuf, sync::Arc, time::Duration};

use drover_engine::id::VolumeId;
use drover_proto::v1;
use drover_rbd::{
    crew::{Crew, Program},
    image::{self, Demoted, Force, Image, Promoted, VerbError},
    point::PointName,
    pool::PoolPlace,
    request::{Connect, Reply, Request, Schedule},
    turn::{Turn, Turns},
    view::{ImagePlace, ImageView, Mirroring, Verb},
};

use uuid::Uuid;

use crate::{
    config::{CephConfig, Defaults},
    job::unix_now,
    rpc::convert::Jobs,
};
pub use delta::{NewDelta, newest_common};
pub use error::MirrorError;
pub use group::GroupMember;
use info::Clients;
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
    /// The images that it belongs with.
    pub group: Option<String>,
    /// A primary gets a point whenever its newest is so old.
    pub point_every_secs: Option<NonZeroU64>,
    /// Synced by its changes, and not by rbd-mirror.
    pub is_delta: bool,
}

/// What Enable says of one.
#[derive(Clone, Debug)]
pub struct NewMirrored {
    pub id: VolumeId,
    pub cluster: String,
    pub place: ImagePlace,
    pub peer: Option<String>,
    pub is_primary: bool,
    /// `None`: as it is. Empty, or 0: none.
    pub group: Option<String>,
    pub point_every_secs: Option<u64>,
    /// What a clone has of its parent is copied first.
    pub flatten: bool,
}

#[derive(Debug)]
struct Ceph {
    crew: Crew,
    /// By the user for set-up, where there is one.
    setup: Option<Crew>,
    turns: Turns,
    registries: Vec<Registry>,
}

#[derive(Debug)]
pub struct Mirrors {
    clusters: BTreeMap<String, Ceph>,
    /// Another one after each start: what this agent leads by.
    incarnation: String,
    /// Points that are kept besides the newest.
    retain: usize,
    /// Of an image in the trash, until it loses Drover's snapshots.
    rest: Duration,
}

/// What CreateMirrorSnapshot did.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    pub point: PointName,
    pub mirror_snapshot: u64,
}

impl Mirrors {
    /// Starts nothing: workers are started by the first call. `agent` is this agent's name among those of the clusters.
    pub fn new(agent: &str, configured: &[CephConfig], defaults: &Defaults, program: &Program) -> Self {
        let incarnation = Uuid::new_v4().to_string();
        let clusters = configured.iter().map(|ceph| {
            let crew = |user: &str, keyring: &Option<PathBuf>| {
                let (conf, user, keyring) = (ceph.conf.clone(), user.to_owned(), keyring.clone());
                let connect = Connect { conf, user, keyring, timeout: Duration::ZERO };
                Crew::new(ceph.name.clone(), program.clone(), connect)
            };
            let setup = ceph.setup_user.as_ref().map(|user| crew(user, &ceph.setup_keyring));
            let crew = crew(&ceph.user, &ceph.keyring);
            let registries = ceph.pools.iter().map(|pool| Registry::of(pool)).collect();
            let turns = Turns::new(agent.to_owned(), incarnation.clone());
            (ceph.name.clone(), Ceph { crew, setup, turns, registries })
        });
        let rest = Duration::from_secs(u64::from(defaults.trash_days) * 24 * 3600);
        let retain = defaults.retain as usize;
        Self { clusters: clusters.collect(), incarnation: incarnation.clone(), retain, rest }
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

    /// What a clone that is not mirrored has of its parent is copied, which may take an hour.
    pub fn flatten(&self, new: &NewMirrored) -> Result<(), MirrorError> {
        let image = Image { crew: &self.ceph(&new.cluster)?.crew, place: &new.place };
        if image.look()?.mirroring == Mirroring::Off { Ok(image.flatten()?) } else { Ok(()) }
    }

    /// On the primary the image is mirrored from now on; on the secondary it may not have arrived yet. Returns the volume and the mgr's
    /// schedules that still reach it: one of the image itself gives way to Drover's.
    pub fn enable(&self, new: &NewMirrored) -> Result<(Mirrored, Vec<Schedule>), MirrorError> {
        let ceph = self.ceph(&new.cluster)?;
        let registry = ceph.registry(&new.cluster, &new.place)?;
        let known = known(ceph, registry, new.id, &new.place)?;
        if known.as_ref().is_some_and(|known| known.is_delta) {
            return Err(MirrorError::IsDelta(new.place.clone()));
        }
        let (known_peer, group, point_every_secs) =
            known.map_or((None, None, None), |known| (known.peer, known.group, known.point_every_secs));
        let mirrored = Mirrored {
            id: new.id,
            cluster: new.cluster.clone(),
            place: new.place.clone(),
            peer: new.peer.clone().or(known_peer),
            group: new.group.clone().or(group).filter(|group| !group.is_empty()),
            point_every_secs: new.point_every_secs.map_or(point_every_secs, NonZeroU64::new),
            is_delta: false,
        };
        self.may_join(&mirrored)?;
        let image = Image { crew: &ceph.crew, place: &mirrored.place };
        let mut schedules = Vec::new();
        if new.is_primary {
            let is_scheduled = mirrored.point_every_secs.is_some();
            let (view, found) = self.change(&mirrored, Verb::Enable, |turn| turn.enable(is_scheduled))?;
            if !view.is_primary {
                return Err(VerbError::NotPrimary(mirrored.place.clone()).into());
            }
            schedules = found;
        } else if image.look().is_ok_and(|view| view.is_primary) {
            return Err(MirrorError::IsPrimary(mirrored.place.clone()));
        }
        registry.write(&ceph.crew, mirrored.id, Some(&Record::of(&mirrored)))?;
        Ok((mirrored, schedules))
    }

    /// What this agent was doing when it ended last, and what keeps images in the trash; clusters that don't answer are passed over, and their images are taken up by the
    /// next verb.
    pub fn sweep(&self) {
        for (name, ceph) in &self.clusters {
            for registry in &ceph.registries {
                let (pool, namespace) = registry.pool();
                if let Err(error) = ceph.turns.sweep(&ceph.crew, pool, namespace, unix_now()) {
                    tracing::warn!(cluster = name, pool, "verbs that were interrupted can't be looked for: {error}");
                    continue;
                }
                let place = PoolPlace { pool: pool.to_owned(), namespace: namespace.to_owned() };
                match ceph.crew.call(&Request::PruneTrash { place, rest: self.rest }) {
                    Ok(Reply::Gone(gone)) if gone > 0 => {
                        tracing::info!(
                            cluster = name,
                            pool,
                            gone,
                            "images in the trash lost their sync points, so that they can be purged"
                        );
                    }
                    Ok(_) => {}
                    Err(error) => {
                        tracing::warn!(cluster = name, pool, "the pool's trash can't be looked through: {error}")
                    }
                }
            }
        }
    }

    /// An image of a configured pool, volume or not, in each cluster where it may be. It need not be there.
    pub fn at(&self, id: VolumeId, cluster: &str, place: &ImagePlace) -> Vec<Mirrored> {
        let has = |ceph: &Ceph| ceph.registries.iter().any(|registry| registry.has(place));
        let clusters =
            self.clusters.iter().filter(|(name, ceph)| (cluster.is_empty() || cluster == *name) && has(ceph));
        let mirrored = |(name, _): (&String, _)| Mirrored {
            id,
            cluster: name.clone(),
            place: place.clone(),
            peer: None,
            group: None,
            point_every_secs: None,
            is_delta: false,
        };
        clusters.map(mirrored).collect()
    }

    /// Ends its mirroring and forgets it. Without `force` no copy is deleted by that.
    pub fn disable(&self, mirrored: &Mirrored, copy: image::Copy<'_>, force: bool) -> Result<(), MirrorError> {
        self.change(mirrored, Verb::Disable, |turn| turn.disable(copy, force))?;
        self.forget(mirrored)
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
            // What the others of its group are at, the group's points know.
            let gone = if mirrored.group.is_none() { turn.prune(peer, self.retain + 1) } else { 0 };
            tracing::info!(volume = %mirrored.id, %point, gone, "sync point taken");
            Ok(Taken { point, mirror_snapshot })
        })
    }

    pub fn promote(
        &self,
        mirrored: &Mirrored,
        peer: image::Peer<'_>,
        force: Force,
        accepted: Option<u64>,
    ) -> Result<Promoted, MirrorError> {
        let promoted = self.change(mirrored, Verb::Promote, |turn| turn.promote(peer, force, accepted))?;
        self.with(mirrored, |image| {
            image.repair_csi();
            Ok(())
        })?;
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

    /// A client that has images open besides those of the volume's group is left alone, unless `whole_client`.
    pub fn fence(&self, mirrored: &Mirrored, whole_client: bool) -> Result<Vec<String>, MirrorError> {
        let ceph = self.ceph(&mirrored.cluster)?;
        let group = match &mirrored.group {
            Some(name) if !whole_client => self.group(name)?,
            Some(_) | None => vec![mirrored.clone()],
        };
        let is_of_group = |place: &ImagePlace| {
            group.iter().any(|member| (&member.cluster, &member.place) == (&mirrored.cluster, place))
        };
        let bystanders = |address: &str| -> Result<Vec<ImagePlace>, VerbError> {
            let mut others = Vec::new();
            for registry in ceph.registries.iter().filter(|_| !whole_client) {
                let (pool, namespace) = registry.pool();
                let place = ImagePlace { pool: pool.into(), namespace: namespace.into(), image: String::new() };
                others.extend(Image { crew: &ceph.crew, place: &place }.images_of(address)?);
            }
            Ok(others.into_iter().filter(|place| !is_of_group(place)).collect())
        };
        let fenced = self.change(mirrored, Verb::Fence, |turn| turn.fence(&bystanders))?;
        tracing::warn!(volume = %mirrored.id, clients = ?fenced, "image is fenced: these clients are shut out of the cluster");
        Ok(fenced)
    }

    pub fn unfence(&self, mirrored: &Mirrored) -> Result<Vec<String>, MirrorError> {
        let unfenced = self.change(mirrored, Verb::Fence, |turn| turn.unfence())?;
        tracing::info!(volume = %mirrored.id, clients = ?unfenced, "clients may use the cluster again");
        Ok(unfenced)
    }

    fn look(&self, mirrored: &Mirrored) -> Result<Option<ImageView>, MirrorError> {
        match self.with(mirrored, |image| image.look()) {
            Ok(view) => Ok(Some(view)),
            Err(MirrorError::Verb(VerbError::NoImage { .. })) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub fn info(&self, mirrored: &Mirrored, peer: Option<&Peer>) -> Result<v1::VolumeInfo, MirrorError> {
        if mirrored.is_delta {
            return self.delta_info(mirrored, Jobs::default());
        }
        let view = self.look(mirrored)?;
        let sites = match &view {
            Some(view) if view.global_id.is_empty() => Vec::new(),
            Some(_) => self.with(mirrored, |image| image.sites())?,
            None => Vec::new(),
        };
        // Who has it open matters to those who decide, and they ask both sites.
        let clients = match (&view, peer) {
            (Some(_), Some(_)) => Clients {
                users: match self.with(mirrored, |image| image.users()) {
                    Err(MirrorError::Verb(VerbError::NoLock(_) | VerbError::LockedByHand(_))) => Vec::new(),
                    users => users?,
                },
                fenced: self.with(mirrored, |image| image.fenced())?,
            },
            _ => Clients::default(),
        };
        let turn_of_missing = match view {
            Some(_) => None,
            None => self.with(mirrored, |image| image.turn())?.filter(|turn| !turn.has_ended),
        };
        Ok(info::info(mirrored, view.as_ref(), sites, clients, peer, turn_of_missing))
    }
}

impl Ceph {
    fn registry(&self, cluster: &str, place: &ImagePlace) -> Result<&Registry, MirrorError> {
        let missing = || MirrorError::PoolNotConfigured { cluster: cluster.to_owned(), place: place.clone() };
        self.registries.iter().find(|registry| registry.has(place)).ok_or_else(missing)
    }
}

/// What is known of a volume; an image is of one volume, and a volume of one image.
fn known(ceph: &Ceph, registry: &Registry, id: VolumeId, place: &ImagePlace) -> Result<Option<Record>, MirrorError> {
    let mut found = None;
    for (known, record) in registry.all(&ceph.crew)? {
        let is_same_image = record.image == place.image;
        if is_same_image != (known == id) {
            let image = ImagePlace { image: record.image, ..place.clone() };
            return Err(MirrorError::Other { id: known, image });
        }
        found = found.or(is_same_image.then_some(record));
    }
    Ok(found)
}

fn volumes(name: &str, ceph: &Ceph) -> Vec<Mirrored> {
    let mut all = Vec::new();
    for registry in &ceph.registries {
        match registry.mirrored(&ceph.crew, name) {
            Ok(found) => all.extend(found),
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
