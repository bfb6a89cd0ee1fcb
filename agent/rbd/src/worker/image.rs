//! Calls on one image. It is opened for each one: a handle that outlives a resync reads zeros.

use std::time::{SystemTime, UNIX_EPOCH};

use drover_librbd::{
    Access, Cluster, Error, ErrorKind, Features, Force, Image, ImageEntry, ImageMode, ImageOptions, ImageRef,
    ImageState, Pool, Quiesce, Snapshot, SnapshotMirrorState, SnapshotNamespace,
};

use super::cut;
use crate::request::{Failure, FailureKind};
use crate::turn;
use crate::view::{
    ContentSnapshot, ContentView, ImagePlace, ImageView, MirrorSnapshot, MirrorState, Mirroring, SiteView,
    SnapshotKind, SnapshotView, StandIn, TurnView, UserView,
};

pub(super) fn pool(cluster: &Cluster, pool: &str, namespace: &str) -> Result<Pool, Error> {
    let pool = cluster.pool(pool)?;
    if namespace.is_empty() { Ok(pool) } else { pool.with_namespace(namespace) }
}

pub(super) fn open(cluster: &Cluster, place: &ImagePlace, access: Access) -> Result<Image, Error> {
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
    // Before the image: a verb that ends in between is seen by what it did.
    let turn = turn_of(cluster, place)?;
    let image = open(cluster, place, Access::ReadOnly)?;
    let (stat, info, features) = (image.stat()?, image.mirror_info()?, image.features()?);
    let mirroring = match info.state {
        ImageState::Disabled => Mirroring::Off,
        ImageState::Enabled => match image.mirror_mode()? {
            ImageMode::Snapshot => Mirroring::Snapshot,
            ImageMode::Journal => Mirroring::Journal,
            _ => Mirroring::Changing,
        },
        _ => Mirroring::Changing,
    };
    // Of another release: it stands in for nothing that this one knows.
    let mark: Option<StandIn> = image.metadata(StandIn::KEY)?.and_then(|text| serde_json::from_str(&text).ok());
    let (id, number_floor) = (image.id()?, mark.as_ref().map_or(0, |mark| mark.number));
    let stands_in_for = mark.filter(|mark| mark.image_id == id);
    let snapshots = image.snapshots()?.into_iter().map(|snapshot| snapshot_view(&image, snapshot));
    Ok(ImageView {
        id,
        size_bytes: stat.size_bytes,
        objects: stat.objects,
        mirroring,
        is_primary: info.is_primary || stands_in_for.is_some() && mirroring == Mirroring::Off,
        is_half_primary: info.is_primary && features.contains(Features::NON_PRIMARY),
        global_id: info.global_id,
        // A namespace has one of its own, which rbd-mirror does not use.
        site_uuid: match cluster.pool(&place.pool)?.mirror_uuid() {
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            uuid => uuid?,
        },
        snapshots: snapshots.collect::<Result<_, _>>()?,
        parent_id: image.parent()?.map(|parent| parent.image_id),
        has_data_pool: features.contains(Features::DATA_POOL),
        stands_in_for,
        number_floor,
        turn,
    })
}

pub(super) fn content(cluster: &Cluster, place: &ImagePlace) -> Result<ContentView, Error> {
    content_of(&open(cluster, place, Access::ReadOnly)?)
}

pub(super) fn content_of(image: &Image) -> Result<ContentView, Error> {
    let stat = image.stat()?;
    let users = image.snapshots()?.into_iter().filter(|snapshot| snapshot.namespace == SnapshotNamespace::User);
    let view = |Snapshot { id, name, size_bytes, .. }: Snapshot| ContentSnapshot { id, name, size_bytes, before: None };
    let cuts = cut::cuts_of(image)?;
    let has_half_cut = cut::has_half_cut(image, &cuts)?;
    Ok(ContentView {
        size_bytes: stat.size_bytes,
        order: stat.order,
        is_mirrored: image.mirror_info()?.state != ImageState::Disabled,
        snapshots: users.map(view).chain(cuts).collect(),
        has_half_cut,
    })
}

/// With what the cluster gives new images by default.
pub(super) fn create(cluster: &Cluster, place: &ImagePlace, size_bytes: u64, order: u8) -> Result<(), Error> {
    let options = ImageOptions { order: Some(order), ..ImageOptions::default() };
    pool(cluster, &place.pool, &place.namespace)?.create(&place.image, size_bytes, &options)
}

fn turn_of(cluster: &Cluster, place: &ImagePlace) -> Result<Option<TurnView>, Error> {
    match pool(cluster, &place.pool, &place.namespace)?.object(turn::OBJECT)?.omap_values(&[&place.image]) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        values => Ok(values?.values().next().map(|value| turn::view(&String::from_utf8_lossy(value)))),
    }
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

/// Invalid: an image without the feature exclusive-lock, whose writers can't be told; but not a mirrored one that nobody can write to.
pub(super) fn users(cluster: &Cluster, place: &ImagePlace) -> Result<Vec<UserView>, Error> {
    // A read-only handle knows of no lock.
    users_of(cluster, &open(cluster, place, Access::ReadWrite)?)
}

pub(super) fn users_of(cluster: &Cluster, image: &Image) -> Result<Vec<UserView>, Error> {
    let owners = match image.lock_owners() {
        // No lock is held on a mirrored secondary by anybody but rbd-mirror.
        Err(error) if error.kind() == ErrorKind::Invalid && is_mirrored_copy(image)? => Vec::new(),
        owners => owners?,
    };
    let own = cluster.address()?;
    let watchers: Vec<_> = image.watchers()?.into_iter().map(|watcher| watcher.address).collect();
    let owns = |address: &str| owners.iter().any(|owner| same_client(&owner.address, address));
    let is_silent = |address: &String| !watchers.iter().any(|watcher| same_client(watcher, address));
    let silent: Vec<_> = owners.iter().map(|owner| owner.address.clone()).filter(is_silent).collect();
    let heard_of = watchers.iter().map(|address| UserView {
        address: address.clone(),
        is_lock_owner: owns(address),
        is_heard_of: true,
    });
    let silent = silent.into_iter().map(|address| UserView { address, is_lock_owner: true, is_heard_of: false });
    Ok(heard_of.chain(silent).filter(|user| !same_client(&user.address, &own)).collect())
}

pub(super) fn images_of(cluster: &Cluster, place: &ImagePlace, address: &str) -> Result<Vec<ImagePlace>, Error> {
    let mut found = Vec::new();
    for ImageEntry { name, .. } in pool(cluster, &place.pool, &place.namespace)?.images()? {
        let place = ImagePlace { image: name, ..place.clone() };
        let watchers = match open(cluster, &place, Access::ReadOnly).and_then(|image| image.watchers()) {
            // It was removed or renamed since.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            watchers => watchers?,
        };
        if watchers.iter().any(|watcher| same_client(&watcher.address, address)) {
            found.push(place);
        }
    }
    Ok(found)
}

pub(super) fn break_lock(cluster: &Cluster, place: &ImagePlace, address: &str) -> Result<(), Error> {
    with_image(cluster, place, |image| {
        let owners = image.lock_owners()?;
        let Some(owner) = owners.iter().find(|owner| same_client(&owner.address, address)) else { return Ok(()) };
        match image.break_lock(owner) {
            // It was given up, or taken over, meanwhile.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Busy) => Ok(()),
            broken => broken,
        }
    })
}

/// A secondary, or a primary that librbd left half promoted: librbd writes to neither.
fn is_mirrored_copy(image: &Image) -> Result<bool, Error> {
    let info = image.mirror_info()?;
    let is_copy = !info.is_primary || image.features()?.contains(Features::NON_PRIMARY);
    Ok(info.state != ImageState::Disabled && is_copy)
}

/// Addresses are shown as `127.0.0.1:0/123` or `v1:127.0.0.1:0/123`.
pub(super) fn same_client(a: &str, b: &str) -> bool {
    let bare = |address: &str| address.trim_start_matches("v1:").trim_start_matches("v2:").to_owned();
    bare(a) == bare(b)
}

pub(super) fn promote(cluster: &Cluster, place: &ImagePlace, force: bool) -> Result<(), Error> {
    with_image(cluster, place, |image| image.mirror_promote(forced(force)))
}

/// Busy, before anything is done: somebody has come to write since the agent looked.
pub(super) fn demote(cluster: &Cluster, place: &ImagePlace) -> Result<(), Failure> {
    let image = open(cluster, place, Access::ReadWrite)?;
    if let Some(user) = users_of(cluster, &image)?.into_iter().find(UserView::writes) {
        let message = format!("client {} has the lock of image {place} and writes", user.address);
        return Err(Failure { call: "rbd_lock_get_owners".to_owned(), kind: FailureKind::Busy, message });
    }
    image.mirror_demote()?;
    Ok(image.close()?)
}

pub(super) fn disable(cluster: &Cluster, place: &ImagePlace, force: bool) -> Result<(), Error> {
    with_image(cluster, place, |image| image.mirror_disable(forced(force)))
}

fn forced(force: bool) -> Force {
    if force { Force::Yes } else { Force::No }
}

/// With the features that its parent has, but for those that mirroring set.
pub(super) fn clone(cluster: &Cluster, place: &ImagePlace, snapshot: &str, child: &str) -> Result<(), Failure> {
    const WANTED: [Features; 5] = [
        Features::LAYERING,
        Features::EXCLUSIVE_LOCK,
        Features::OBJECT_MAP,
        Features::FAST_DIFF,
        Features::DEEP_FLATTEN,
    ];
    const NOT_PROTECTED: u64 = 2;
    let has = open(cluster, place, Access::ReadOnly)?.features()?;
    if has.contains(Features::DATA_POOL) {
        let message = format!(
            "image {place} has a data pool of its own, which a clone would not have: clone {snapshot} by hand, with --data-pool"
        );
        return Err(Failure { call: "rbd_clone3".to_owned(), kind: FailureKind::Other, message });
    }
    let features = WANTED.into_iter().filter(|feature| has.contains(*feature)).reduce(|all, feature| all | feature);
    let options = ImageOptions { features, clone_format: Some(NOT_PROTECTED), ..ImageOptions::default() };
    let pool = pool(cluster, &place.pool, &place.namespace)?;
    Ok(pool.clone_snapshot(&place.image, snapshot, &pool, child, &options)?)
}

pub(super) fn set_metadata(cluster: &Cluster, place: &ImagePlace, key: &str, value: &str) -> Result<(), Error> {
    with_image(cluster, place, |image| image.set_metadata(key, value))
}

pub(super) fn flatten(cluster: &Cluster, place: &ImagePlace) -> Result<(), Error> {
    with_image(cluster, place, |image| image.flatten(&mut |_, _| {}))
}

pub(super) fn remove_unused(cluster: &Cluster, place: &ImagePlace) -> Result<(), Failure> {
    let image = open(cluster, place, Access::ReadOnly)?;
    if !image.snapshots()?.is_empty() || image.mirror_info()?.state != ImageState::Disabled {
        let message = format!("image {place} has a snapshot or is mirrored: somebody uses it");
        return Err(Failure { call: "rbd_remove".to_owned(), kind: FailureKind::Exists, message });
    }
    image.close()?;
    Ok(pool(cluster, &place.pool, &place.namespace)?.remove(&place.image, &mut |_, _| {})?)
}

pub(super) fn remove_snapshot(cluster: &Cluster, place: &ImagePlace, id: u64) -> Result<(), Error> {
    with_image(cluster, place, |image| image.remove_snapshot_by_id(id))
}

pub(super) fn enable(cluster: &Cluster, place: &ImagePlace) -> Result<(), Error> {
    with_image(cluster, place, |image| image.mirror_enable(ImageMode::Snapshot))
}

/// Returns the image's size at it, in bytes.
pub(super) fn take_snapshot(cluster: &Cluster, place: &ImagePlace, name: &str) -> Result<u64, Failure> {
    let image = open(cluster, place, Access::ReadWrite)?;
    let size_bytes = take_snapshot_of(&image, name)?;
    image.close()?;
    Ok(size_bytes)
}

pub(super) fn take_snapshot_of(image: &Image, name: &str) -> Result<u64, Failure> {
    image.create_snapshot(name, Quiesce::Try)?;
    let taken = image.snapshots()?.into_iter().find(|snapshot| snapshot.name == name);
    taken.map(|snapshot| snapshot.size_bytes).ok_or_else(|| Failure {
        call: "rbd_snap_create2".to_owned(),
        kind: FailureKind::NotFound,
        message: format!("snapshot {name} went as soon as it was taken"),
    })
}

pub(super) fn take_mirror_snapshot(cluster: &Cluster, place: &ImagePlace) -> Result<u64, Error> {
    with_image(cluster, place, |image| image.mirror_snapshot(Quiesce::Skip))
}
