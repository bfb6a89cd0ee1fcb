//! The verbs of volumes that are RBD images.

use drover_engine::{error::Kind, id::VolumeId, volume::Disposal};
use drover_proto::v1;
use drover_rbd::{
    image::{self, Force},
    request::Schedule,
    view::{ImagePlace, ImageView},
};
use tokio::runtime::Handle;
use tonic::Status;

use super::ReplicationService;
use crate::{
    mirror::{self, MirrorError, Mirrored, Mirrors, NewMirrored, Peer, Taken},
    rpc::{
        convert::{self, ConvertError},
        status::{ToStatus as _, status},
    },
    work::Lane,
};

const GROUP_BYTES_MAX: usize = 200;

/// Whose image an answer is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    Local,
    BothSites,
}

pub(super) fn no_image(volume: &str) -> Status {
    let message = format!("volume {volume} is no RBD image of this agent; other volumes are synced by Sync.Start");
    status(Kind::NotFound, "no-such-image", message)
}

pub(super) fn no_trash() -> Status {
    let message = "an RBD image is not moved to the trash: disable it without, and the image stays";
    status(Kind::Precondition, "rbd-trash", message.to_owned())
}

/// What only an image has that rbd-mirror mirrors; `what` says what there is instead.
pub(super) fn not_delta(mirrored: &Mirrored, what: &'static str) -> Result<(), Status> {
    if mirrored.is_delta { Err(MirrorError::NotOfDelta(what).to_status()) } else { Ok(()) }
}

impl ReplicationService {
    pub(super) async fn ceph<T: Send + 'static>(
        &self,
        lane: Lane,
        call: impl FnOnce(&Mirrors) -> Result<T, MirrorError> + Send + 'static,
    ) -> Result<T, Status> {
        let mirrors = self.mirrors.clone();
        let called = self.lanes.run(lane, move || call(&mirrors)).await;
        called.map_err(|error| error.to_status())?.map_err(|error| error.to_status())
    }

    /// `None` for a volume of a root, which needs no cluster to be found.
    pub(super) async fn mirrored(&self, id: Option<VolumeId>) -> Result<Option<Mirrored>, Status> {
        match id {
            Some(id) if !self.mirrors.is_empty() && !self.volumes.knows(id) => {
                self.ceph(Lane::Ceph, move |mirrors| mirrors.find(id)).await
            }
            _ => Ok(None),
        }
    }

    pub(super) async fn mirrored_by(&self, id: &str) -> Result<Option<Mirrored>, Status> {
        self.mirrored(Some(convert::volume_id(id).map_err(|error| error.to_status())?)).await
    }

    /// The image at the other site, from the agent there.
    pub(super) async fn peer_of(&self, mirrored: &Mirrored) -> Peer {
        let info = self.ask_peer(mirrored.peer.as_deref(), mirrored.id).await?;
        mirror::view_of(&info).ok_or_else(|| "the peer has no such image".to_owned())
    }

    pub(super) async fn mirrored_info(&self, mirrored: Mirrored, scope: Scope) -> Result<v1::VolumeInfo, Status> {
        if mirrored.is_delta {
            return self.delta_info(mirrored).await;
        }
        let peer = match scope {
            Scope::Local => None,
            Scope::BothSites => Some(self.peer_of(&mirrored).await),
        };
        self.ceph(Lane::Ceph, move |mirrors| mirrors.info(&mirrored, peer.as_ref())).await
    }

    pub(super) async fn all_mirrored(&self) -> Result<Vec<v1::VolumeInfo>, Status> {
        if self.mirrors.is_empty() {
            return Ok(Vec::new());
        }
        self.ceph(Lane::Ceph, |mirrors| {
            // One that can't be looked at hides no other.
            let told = |mirrored: Mirrored| {
                mirrors.info(&mirrored, None).inspect_err(|error| tracing::warn!(volume = %mirrored.id, "{error}")).ok()
            };
            Ok(mirrors.all().into_iter().filter_map(told).collect())
        })
        .await
    }

    pub(super) async fn enable_mirrored(
        &self,
        request: &v1::EnableRequest,
        image: v1::RbdImage,
        peer: Option<String>,
    ) -> Result<v1::EnableResponse, Status> {
        for (what, is_given) in [
            ("`[defaults] retain` of the agent says how many points are kept: leave it out", request.retain.is_some()),
            (
                "`[defaults] retain` of the agent says how long points are kept: leave it out",
                request.retain_seconds.is_some(),
            ),
            ("its copy is made by rbd-mirror, and no other one is taken over: leave --adopt out", request.adopt),
        ] {
            if is_given {
                return Err(MirrorError::NotOfMirrored(what).to_status());
            }
        }
        let new = new_mirrored(request, image, peer).map_err(|error| error.to_status())?;
        self.of_no_root(new.id)?;
        if new.flatten && new.is_primary {
            let new = new.clone();
            self.ceph(Lane::CephCopies, move |mirrors| mirrors.flatten(&new)).await?;
        }
        let (mirrored, schedules) = self.ceph(Lane::CephVerbs, move |mirrors| mirrors.enable(&new)).await?;
        tracing::info!(volume = %mirrored.id, cluster = mirrored.cluster, image = %mirrored.place, "image is enabled");
        let of_mgr = |Schedule { level, interval }: Schedule| v1::MgrSchedule { level, interval };
        let mgr_schedules = schedules.into_iter().map(of_mgr).collect();
        Ok(v1::EnableResponse { volume: Some(self.mirrored_info(mirrored, Scope::Local).await?), mgr_schedules })
    }

    pub(super) fn of_no_root(&self, id: VolumeId) -> Result<(), Status> {
        if !self.volumes.knows(id) {
            return Ok(());
        }
        let message = format!("volume {id} is on a root of this agent already");
        Err(status(Kind::Exists, "volume-on-other-root", message))
    }

    pub(super) async fn image_at(&self, id: VolumeId, image: v1::RbdImage) -> Result<v1::VolumeInfo, Status> {
        let (cluster, place) = (image.cluster.clone(), place(image).map_err(|error| error.to_status())?);
        let mut told = Vec::new();
        for mirrored in self.mirrors.at(id, &cluster, &place) {
            told.push(self.mirrored_info(mirrored, Scope::Local).await?);
        }
        // In one cluster at most: which of several is meant nobody knows.
        told.sort_by_key(|info| info.mirror.is_none());
        match told.as_slice() {
            [] => Err(no_image(&id.to_string())),
            [one, other, ..] if one.mirror.is_some() && other.mirror.is_some() => {
                let message = format!("{place} is in several clusters of this agent");
                Err(status(Kind::Precondition, "image-in-two-clusters", message))
            }
            [one, ..] => Ok(one.clone()),
        }
    }

    /// What the other site has by the image's name, volume or not.
    async fn copy_of(&self, mirrored: &Mirrored) -> Result<Option<ImageView>, String> {
        let ImagePlace { pool, namespace, image } = mirrored.place.clone();
        let image = v1::RbdImage { pool, namespace, image, ..v1::RbdImage::default() };
        let spec = Some(v1::VolumeSpec { kind: Some(v1::volume_spec::Kind::RbdImage(image)) });
        let request = v1::GetInfoRequest { volume_id: mirrored.id.to_string(), local_only: true, spec };
        let info = self.ask_peer_about(mirrored.peer.as_deref(), request).await?;
        let at = info.spec.as_ref().and_then(|spec| spec.kind.clone());
        let is_asked_for = |at: &v1::RbdImage| {
            (&at.pool, &at.namespace, &at.image)
                == (&mirrored.place.pool, &mirrored.place.namespace, &mirrored.place.image)
        };
        match at {
            Some(v1::volume_spec::Kind::RbdImage(at)) if is_asked_for(&at) => {}
            _ => return Err("it has something else under the volume's id".to_owned()),
        }
        if info.mirror.is_none() && info.health() == v1::Health::Error {
            return Err(info.health_because.join("; "));
        }
        Ok(mirror::view_of(&info))
    }

    pub(super) async fn forget_mirrored(&self, mirrored: Mirrored) -> Result<(), Status> {
        let id = mirrored.id;
        self.ceph(Lane::CephVerbs, move |mirrors| mirrors.forget(&mirrored)).await?;
        tracing::info!(volume = %id, "image is no volume any more; it is mirrored as before");
        Ok(())
    }

    pub(super) async fn disable_mirrored(
        &self,
        mirrored: Mirrored,
        disposal: Disposal,
        force: bool,
    ) -> Result<(), Status> {
        if mirrored.is_delta {
            return self.disable_delta(mirrored, disposal).await;
        }
        if disposal == Disposal::Trash {
            return Err(no_trash());
        }
        let (service, runtime, id) = (self.clone(), Handle::current(), mirrored.id);
        self.ceph(Lane::CephVerbs, move |mirrors| {
            let copy = || runtime.block_on(service.copy_of(&mirrored));
            mirrors.disable(&mirrored, &copy, force)
        })
        .await?;
        tracing::info!(volume = %id, "image is disabled; it is not mirrored any more");
        Ok(())
    }

    /// One verb, which asks the peer when it must, then what the image is.
    async fn mirrored_verb<T: Send + 'static>(
        &self,
        mirrored: Mirrored,
        verb: impl FnOnce(&Mirrors, &Mirrored, image::Peer<'_>) -> Result<T, MirrorError> + Send + 'static,
    ) -> Result<(v1::VolumeInfo, T), Status> {
        let (service, runtime, image) = (self.clone(), Handle::current(), mirrored.clone());
        let done = self
            .ceph(Lane::CephVerbs, move |mirrors| {
                let peer = || runtime.block_on(service.peer_of(&image));
                verb(mirrors, &image, &peer)
            })
            .await?;
        Ok((self.mirrored_info(mirrored, Scope::BothSites).await?, done))
    }

    pub(super) async fn promote_mirrored(
        &self,
        mirrored: Mirrored,
        request: &v1::PromoteRequest,
    ) -> Result<v1::VolumeInfo, Status> {
        of_no_group(&mirrored, request.alone)?;
        if mirrored.is_delta {
            return self.promote_delta(mirrored, request.force).await;
        }
        let force = if request.force { Force::Yes } else { Force::No };
        let accepted = request.accept_point;
        let verb = move |mirrors: &Mirrors, image: &Mirrored, peer: image::Peer<'_>| {
            mirrors.promote(image, peer, force, accepted)
        };
        self.mirrored_verb(mirrored, verb).await.map(|(volume, _)| volume)
    }

    pub(super) async fn demote_mirrored(&self, mirrored: Mirrored, alone: bool) -> Result<v1::VolumeInfo, Status> {
        of_no_group(&mirrored, alone)?;
        self.mirrored_verb(mirrored, Mirrors::demote).await.map(|(volume, ())| volume)
    }

    pub(super) async fn resync_mirrored(&self, mirrored: Mirrored) -> Result<v1::VolumeInfo, Status> {
        if mirrored.is_delta {
            return self.resync_delta(mirrored).await;
        }
        self.mirrored_verb(mirrored, Mirrors::resync).await.map(|(volume, ())| volume)
    }

    pub(super) async fn point_of(&self, mirrored: Mirrored) -> Result<(v1::VolumeInfo, Taken), Status> {
        self.mirrored_verb(mirrored, Mirrors::take_point).await
    }

    pub(super) async fn take_point(&self, mirrored: Mirrored) -> Result<v1::CreateMirrorSnapshotResponse, Status> {
        let (volume, taken) = self.point_of(mirrored).await?;
        let points = volume.mirror.as_ref().map(|mirror| mirror.points.as_slice()).unwrap_or_default();
        let point = points.iter().find(|point| point.number == taken.point.number).copied();
        let mirror_snapshot_id = taken.mirror_snapshot;
        Ok(v1::CreateMirrorSnapshotResponse { volume: Some(volume), point, mirror_snapshot_id })
    }
}

pub(super) fn place(image: v1::RbdImage) -> Result<ImagePlace, ConvertError> {
    let v1::RbdImage { cluster, pool, namespace, image, replication: _ } = image;
    for (field, text) in [("spec.pool", &pool), ("spec.image", &image)] {
        if text.is_empty() {
            return Err(ConvertError::Missing { field });
        }
    }
    let parts = [("cluster", &cluster), ("pool", &pool), ("namespace", &namespace), ("image", &image)];
    // A slash would name another pool or namespace.
    if let Some((_, text)) = parts.into_iter().find(|(_, text)| text.contains(['/', '@'])) {
        let (field, expected) = ("spec", "names without / and @");
        return Err(ConvertError::Malformed { field, text: text.chars().take(200).collect(), expected });
    }
    Ok(ImagePlace { pool, namespace, image })
}

fn new_mirrored(
    request: &v1::EnableRequest,
    image: v1::RbdImage,
    peer: Option<String>,
) -> Result<NewMirrored, ConvertError> {
    if image.cluster.is_empty() {
        return Err(ConvertError::Missing { field: "spec.cluster" });
    }
    let cluster = image.cluster.clone();
    let place = place(image)?;
    let id = convert::volume_id(&request.volume_id)?;
    let is_primary = convert::role(request.role)? == drover_engine::point::Role::Primary;
    let (group, point_every_secs) = (request.group.clone(), request.point_every_seconds);
    group.iter().try_for_each(|name| check_group("group", name))?;
    Ok(NewMirrored { id, cluster, place, peer, is_primary, group, point_every_secs, flatten: request.flatten })
}

pub(super) fn check_group(field: &'static str, name: &str) -> Result<(), ConvertError> {
    if name.len() <= GROUP_BYTES_MAX && !name.contains(char::is_control) {
        return Ok(());
    }
    let (text, expected) = (name.chars().take(GROUP_BYTES_MAX).collect(), "a name of at most 200 bytes, in one line");
    Err(ConvertError::Malformed { field, text, expected })
}

pub(super) fn of_no_group(mirrored: &Mirrored, alone: bool) -> Result<(), Status> {
    match &mirrored.group {
        Some(group) if !alone => {
            let (place, group) = (mirrored.place.clone(), group.clone());
            Err(MirrorError::InGroup { place, group }.to_status())
        }
        Some(_) | None => Ok(()),
    }
}
