//! Calls on one image. It is opened for each one: a handle that outlives a resync reads zeros.

use std::time::{SystemTime, UNIX_EPOCH};

use drover_librbd::{
    Access, Cluster, Error, ErrorKind, Image, ImageMode, ImageRef, ImageState, Pool, Quiesce, Snapshot,
    SnapshotMirrorState, SnapshotNamespace,
};

use crate::view::{
    ImagePlace, ImageView, MirrorSnapshot, MirrorState, Mirroring, SiteView, SnapshotKind, SnapshotView,
};

pub(super) fn pool(cluster: &Cluster, pool: &str, namespace: &str) -> Result<Pool, Error> {
    let pool = cluster.pool(pool)?;
    if namespace.is_empty() { Ok(pool) } else { pool.with_namespace(namespace) }
}

fn open(cluster: &Cluster, place: &ImagePlace, access: Access) -> Result<Image, Error> {
    pool(cluster, &place.pool, &place.namespace)?.open(ImageRef::Name(&place.image), access)
}

/// Opens for writing, does one thing, and closes: whose error counts, since it says that something was not written.
fn with_image<T>(
    cluster: &Cluster,
    place: &ImagePlace,
    what: impl FnOnce(&Image) -> Result<T, Error>,
) -> Result<T, Error> {
    let image = open(cluster, place, Access::ReadWrite)?;
    let done = what(&image)?;
    image.close()?;
    Ok(done)
}

pub(super) fn look(cluster: &Cluster, place: &ImagePlace) -> Result<ImageView, Error> {
    let image = open(cluster, place, Access::ReadOnly)?;
    let (stat, info) = (image.stat()?, image.mirror_info()?);
    let mirroring = match info.state {
        ImageState::Disabled => Mirroring::Off,
        ImageState::Enabled => match image.mirror_mode()? {
            ImageMode::Snapshot => Mirroring::Snapshot,
            ImageMode::Journal => Mirroring::Journal,
            _ => Mirroring::Changing,
        },
        _ => Mirroring::Changing,
    };
    let snapshots = image.snapshots()?.into_iter().map(|snapshot| snapshot_view(&image, snapshot));
    Ok(ImageView {
        id: image.id()?,
        size_bytes: stat.size_bytes,
        objects: stat.objects,
        mirroring,
        is_primary: info.is_primary,
        global_id: info.global_id,
        site_uuid: match image.pool().mirror_uuid() {
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            uuid => uuid?,
        },
        snapshots: snapshots.collect::<Result<_, _>>()?,
    })
}

fn snapshot_view(image: &Image, snapshot: Snapshot) -> Result<SnapshotView, Error> {
    let kind = match snapshot.namespace {
        SnapshotNamespace::User => SnapshotKind::User,
        SnapshotNamespace::Mirror => {
            let mirror = image.mirror_namespace(snapshot.id)?;
            SnapshotKind::Mirror(MirrorSnapshot {
                state: match mirror.state {
                    SnapshotMirrorState::Primary => MirrorState::Primary,
                    SnapshotMirrorState::PrimaryDemoted => MirrorState::PrimaryDemoted,
                    SnapshotMirrorState::NonPrimary => MirrorState::NonPrimary,
                    SnapshotMirrorState::NonPrimaryDemoted => MirrorState::NonPrimaryDemoted,
                    _ => MirrorState::Unknown,
                },
                is_complete: mirror.is_complete,
                primary_uuid: mirror.primary_mirror_uuid,
                primary_id: mirror.primary_snapshot_id,
                objects_copied: mirror.last_copied_object,
            })
        }
        _ => SnapshotKind::Other,
    };
    Ok(SnapshotView { id: snapshot.id, name: snapshot.name, made_at_unix_secs: unix_secs(snapshot.created), kind })
}

fn unix_secs(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |secs| -secs),
    }
}

pub(super) fn sites(cluster: &Cluster, place: &ImagePlace) -> Result<Vec<SiteView>, Error> {
    let status = open(cluster, place, Access::ReadOnly)?.mirror_status()?;
    let view = |site: drover_librbd::SiteStatus| SiteView {
        site_uuid: site.mirror_uuid,
        state: format!("{:?}", site.state),
        description: site.description,
        updated_at_unix_secs: unix_secs(site.last_update),
        is_up: site.is_up,
    };
    Ok(status.sites.into_iter().map(view).collect())
}

pub(super) fn enable(cluster: &Cluster, place: &ImagePlace) -> Result<(), Error> {
    with_image(cluster, place, |image| image.mirror_enable(ImageMode::Snapshot))
}

pub(super) fn take_snapshot(cluster: &Cluster, place: &ImagePlace, name: &str) -> Result<(), Error> {
    with_image(cluster, place, |image| image.create_snapshot(name, Quiesce::Try))
}

pub(super) fn take_mirror_snapshot(cluster: &Cluster, place: &ImagePlace) -> Result<u64, Error> {
    with_image(cluster, place, |image| image.mirror_snapshot(Quiesce::Skip))
}
