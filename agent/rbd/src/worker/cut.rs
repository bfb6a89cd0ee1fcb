//! A snapshot of several images at one moment.
//!
//! A group of librbd has that: it takes the locks of all its images and keeps them until each has its snapshot, so that writers wait and none
//! fails. But librbd tells changes (`rbd_diff_iterate2`) only from snapshots of users on, and a group's is none. So each image gets one
//! of those just before, `NAME.before`. What changed since the group's snapshot is among what changed since that one, and is found by reading both.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::resume_unwind,
    thread,
    time::{Duration, Instant},
};

use drover_engine::{image::SnapshotName, point::PointId};
use drover_librbd::{
    Access, Cluster, Error, ErrorKind, Features, GroupSnapshot, GroupSnapshotState, Image, ImageRef, Lock, Object,
    Pool, Quiesce, Renewal, SnapshotNamespace,
};

use super::image::{content, content_of, open, pool, same_client};
use crate::{
    delta,
    request::{Cut, Failure, FailureKind, Reply},
    view::{ContentSnapshot, ContentView, ImagePlace},
};

/// Of the user's snapshot that changes are told from.
pub(super) const BEFORE: &str = ".before";
/// Its locks are the groups that are being cut.
const OBJECT: &str = "drover.cuts";
/// Longer than a worker may take, so that nobody comes between.
const LOCKED: Duration = Duration::from_secs(150);
const WAIT: Duration = Duration::from_secs(30);
/// Cuts on an image after the newest that all images have: clients of the kernel open no image with more than 510 snapshots.
const BEYOND_MAX: usize = 32;
/// Of the group's snapshots that no image has, so many are removed with a cut.
const REMOVED_AT_ONCE: usize = 4;
/// Group snapshots that no image of the group has.
const UNUSED_MAX: usize = 256;
const STEP: Duration = Duration::from_millis(200);

/// As librbd knows it: by this name nobody else has one.
fn rbd_name(group: &str) -> String {
    format!("drover.{group}")
}

/// The snapshots of the image's groups that are whole, by name, and the user's snapshot before each.
pub(super) fn cuts_of(image: &Image) -> Result<Vec<ContentSnapshot>, Error> {
    let all = image.snapshots()?;
    if !all.iter().any(|snapshot| snapshot.name.ends_with(BEFORE)) {
        return Ok(Vec::new());
    }
    let users: BTreeMap<_, _> = all
        .iter()
        .filter(|snapshot| snapshot.namespace == SnapshotNamespace::User)
        .map(|snapshot| (snapshot.name.as_str(), snapshot.id))
        .collect();
    let mut cuts = Vec::new();
    for snapshot in all.iter().filter(|snapshot| snapshot.namespace == SnapshotNamespace::Group) {
        let name = match image.group_namespace(snapshot.id) {
            // It is being removed, or of a group in a pool that is none of ours.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Permission) => continue,
            namespace => namespace?.snapshot,
        };
        let before = users.get(format!("{name}{BEFORE}").as_str()).copied();
        if before.is_some() {
            cuts.push(ContentSnapshot { id: snapshot.id, name, size_bytes: snapshot.size_bytes, before });
        }
    }
    Ok(cuts)
}

/// Where changes since a snapshot are told from: a snapshot of users.
pub(super) fn begin_of(image: &Image, snapshot: &str) -> Result<String, Error> {
    let is_user = |it: &drover_librbd::Snapshot| it.namespace == SnapshotNamespace::User && it.name == snapshot;
    let is_plain = image.snapshots()?.iter().any(is_user);
    Ok(if is_plain { snapshot.to_owned() } else { format!("{snapshot}{BEFORE}") })
}

/// Once more is known than the image's name: what reads see is the snapshot of a group. NotFound: there is none of that name.
pub(super) fn open_cut(pool: &Pool, image: &str, snapshot: &str) -> Result<Option<Image>, Error> {
    let mut image = pool.open(ImageRef::Name(image), Access::ReadOnly)?;
    match cuts_of(&image)?.into_iter().find(|cut| cut.name == snapshot) {
        Some(cut) => {
            image.set_snapshot_by_id(cut.id)?;
            Ok(Some(image))
        }
        None => Ok(None),
    }
}

struct Members<'a> {
    cluster: &'a Cluster,
    cut: &'a Cut,
    /// Where the group is.
    home: Pool,
    name: String,
}

/// The snapshot that all images have.
pub(super) fn cut(cluster: &Cluster, cut: &Cut) -> Result<Reply, Failure> {
    let Some(first) = cut.members.first() else { return Err(failure(FailureKind::Invalid, "no images".to_owned())) };
    let found = || home(cluster, &cut.group, &cut.homes, &first.namespace);
    let lock = Lock { name: &cut.group, cookie: "cut" };
    loop {
        let home = match found()? {
            Some(home) => home,
            None => pool(cluster, &first.pool, &first.namespace)?,
        };
        let object = home.object(OBJECT)?;
        if !is_had(cluster, &object, lock)? {
            return Ok(Reply::Contended);
        }
        // Another agent may have made the group meanwhile, elsewhere.
        let is_there = found().map(|found| found.is_none_or(|found| found.id() == home.id()));
        let done = match is_there {
            Ok(true) => Members { cluster, cut, home, name: rbd_name(&cut.group) }.cut().map(Some),
            Ok(false) => Ok(None),
            Err(error) => Err(error.into()),
        };
        match object.unlock(lock) {
            Err(error) if error.kind() != ErrorKind::NotFound => return done.and(Err(error.into())),
            _ => {}
        }
        if let Some(reply) = done? {
            return Ok(reply);
        }
    }
}

/// Waits for it, but not for ever.
fn is_had(cluster: &Cluster, object: &Object, lock: Lock<'_>) -> Result<bool, Failure> {
    let begun = Instant::now();
    while let Err(error) = object.lock(lock, "drover", Some(LOCKED), Renewal::May) {
        if error.kind() != ErrorKind::Busy {
            return Err(error.into());
        }
        if begun.elapsed() > WAIT {
            return Ok(false);
        }
        if !break_of_dead(cluster, object, lock)? {
            thread::sleep(STEP);
        }
    }
    Ok(true)
}

/// Of a holder that was shut out of the cluster, as a worker is whose agent died.
fn break_of_dead(cluster: &Cluster, object: &Object, lock: Lock<'_>) -> Result<bool, Failure> {
    let lockers = object.lockers(lock.name)?.lockers;
    let shut_out = super::pool::blocklisted(cluster)?;
    let mut is_broken = false;
    for locker in lockers.iter().filter(|locker| shut_out.iter().any(|(it, _)| same_client(it, &locker.address))) {
        match object.break_lock(lock.name, locker) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            broken => broken?,
        }
        is_broken = true;
    }
    Ok(is_broken)
}

/// The pool that has the group.
fn home(cluster: &Cluster, group: &str, homes: &[String], namespace: &str) -> Result<Option<Pool>, Error> {
    for name in homes {
        let pool = pool(cluster, name, namespace)?;
        if pool.groups()?.contains(&rbd_name(group)) {
            return Ok(Some(pool));
        }
    }
    Ok(None)
}

impl Members<'_> {
    fn cut(&self) -> Result<Reply, Failure> {
        self.join()?;
        let mut contents = Vec::new();
        for member in &self.cut.members {
            contents.push((member, content(self.cluster, member)?));
        }
        self.sweep(&contents)?;
        let named = |content: &ContentView| -> Vec<_> {
            let names = content.snapshots.iter();
            names.filter_map(|it| Some((delta::parse(&it.name)?, it.before.is_some()))).collect()
        };
        let whole = self.whole()?;
        let is_pending = |(name, is_cut): &(SnapshotName, bool)| {
            *is_cut && name.id.number >= self.cut.serves && whole.contains(&delta::text(*name))
        };
        let of = contents.iter().find(|(member, _)| **member == self.cut.of).map(|(_, content)| named(content));
        if let Some((name, _)) = of.into_iter().flatten().filter(is_pending).max() {
            return Ok(Reply::Taken(delta::text(name)));
        }
        let beyond =
            |content| named(content).iter().filter(|(it, is_cut)| *is_cut && it.id.number > self.cut.common).count();
        if contents.iter().any(|(_, content)| beyond(content) >= BEYOND_MAX) {
            let last = self.cut.members.iter().zip(&self.cut.known).min_by_key(|(_, known)| **known);
            return Ok(Reply::Behind(last.map_or(&self.cut.of, |(member, _)| member).clone()));
        }
        let highest = contents.iter().flat_map(|(_, content)| named(content)).map(|(name, _)| name.id.number).max();
        let number = self.cut.number.max(highest.unwrap_or(0).saturating_add(1));
        let name = delta::text(SnapshotName { id: PointId::sync(number), taken_at: self.cut.now_unix_secs });
        self.take(&name).inspect_err(|_| self.take_back(&name))?;
        Ok(Reply::Taken(name))
    }

    /// The group has these images and no others.
    fn join(&self) -> Result<(), Failure> {
        match self.home.group_create(&self.name) {
            Err(error) if error.kind() == ErrorKind::Exists => {}
            created => created?,
        }
        let mut there = BTreeSet::new();
        for image in self.home.group_images(&self.name)? {
            let pool = self.cluster.pool_name(image.pool)?;
            let is_member = |member: &ImagePlace| member.pool == pool && member.image == image.name;
            match self.cut.members.iter().any(is_member) {
                true if image.is_attached => drop(there.insert((pool, image.name))),
                true => {}
                false => {
                    let pool = super::image::pool(self.cluster, &pool, self.home.namespace())?;
                    self.home.group_image_remove(&self.name, &pool, &image.name)?;
                }
            }
        }
        for member in &self.cut.members {
            if there.contains(&(member.pool.clone(), member.image.clone())) {
                continue;
            }
            let pool = pool(self.cluster, &member.pool, &member.namespace)?;
            self.home.group_image_add(&self.name, &pool, &member.image).map_err(|error| match error.kind() {
                ErrorKind::Exists => failure(
                    FailureKind::Exists,
                    format!(
                        "image {member} is in another group of RBD: take it out (`rbd group image remove`), or leave it out of group {}",
                        self.cut.group
                    ),
                ),
                _ => error.into(),
            })?;
        }
        Ok(())
    }

    /// Those that all images have.
    fn whole(&self) -> Result<BTreeSet<String>, Failure> {
        let all = self.home.group_snapshots(&self.name)?;
        let whole = all.into_iter().filter(|snapshot| snapshot.state == GroupSnapshotState::Complete);
        Ok(whole.map(|snapshot| snapshot.name).collect())
    }

    /// What cuts that were interrupted have left, and what no image has any more.
    fn sweep(&self, contents: &[(&ImagePlace, ContentView)]) -> Result<(), Failure> {
        let snapshots = contents.iter().flat_map(|(_, content)| &content.snapshots);
        let used: BTreeSet<_> = snapshots.filter(|it| it.before.is_some()).map(|it| it.name.as_str()).collect();
        let mut is_half = false;
        let mut unused = Vec::new();
        let ours = |it: &GroupSnapshot| delta::parse(&it.name).is_some();
        for GroupSnapshot { name, state } in self.home.group_snapshots(&self.name)?.into_iter().filter(ours) {
            if state != GroupSnapshotState::Complete {
                is_half = true;
                // One of an image that was removed since can't be removed. It is no point of anybody.
                let _ = self.home.group_snapshot_remove(&self.name, &name);
            } else if let Some(point) = delta::parse(&name).filter(|_| !used.contains(name.as_str())) {
                unused.push((point, name));
            }
        }
        // Images that have left the group may have them still.
        unused.sort();
        let surplus = unused.len().saturating_sub(UNUSED_MAX);
        // Those of images that were removed since can't be, and are no reason to leave out the others.
        let first = usize::try_from(self.cut.now_unix_secs).unwrap_or(0) % surplus.max(1);
        for (_, name) in unused[..surplus].iter().cycle().skip(first).take(surplus.min(REMOVED_AT_ONCE)) {
            let _ = self.home.group_snapshot_remove(&self.name, name);
        }
        let halves = contents.iter().filter(|(_, content)| is_half || content.has_half_cut);
        halves.into_iter().try_for_each(|(member, _)| remove_halves(self.cluster, member))
    }

    fn take(&self, name: &str) -> Result<(), Failure> {
        let before = format!("{name}{BEFORE}");
        // A cluster gives out ids of snapshots once a second, so they are asked for at the same time.
        thread::scope(|scope| {
            let take = |member| {
                let image = open(self.cluster, member, Access::ReadWrite)?;
                if !image.features()?.contains(Features::EXCLUSIVE_LOCK) {
                    let message =
                        format!("image {member} has no exclusive lock, so that its writers can't be made to wait");
                    return Err(failure(FailureKind::Invalid, message));
                }
                image.create_snapshot(&before, Quiesce::Skip)?;
                Ok(image.close()?)
            };
            let takes: Vec<_> = self.cut.members.iter().map(|member| scope.spawn(move || take(member))).collect();
            let taken: Vec<_> =
                takes.into_iter().map(|take| take.join().unwrap_or_else(|panic| resume_unwind(panic))).collect();
            taken.into_iter().collect::<Result<(), Failure>>()
        })?;
        self.home.group_snapshot_create(&self.name, name, Quiesce::Try).map_err(|error| match error.kind() {
            ErrorKind::ReadOnly => failure(
                FailureKind::ReadOnly,
                format!(
                    "a client holds the lock of an image of group {} and gives it to nobody, so that the group can't be cut at one moment: {error}",
                    self.cut.group
                ),
            ),
            _ => error.into(),
        })
    }

    /// What can't be removed now is swept by the next cut.
    fn take_back(&self, name: &str) {
        let _ = self.home.group_snapshot_remove(&self.name, name);
        for member in &self.cut.members {
            let _ = remove_halves(self.cluster, member);
        }
    }
}

/// What a user's snapshot was taken for is not there.
pub(super) fn has_half_cut(image: &Image, snapshots: &[ContentSnapshot]) -> Result<bool, Error> {
    Ok(halves(image, snapshots)?.next().is_some())
}

fn halves(image: &Image, snapshots: &[ContentSnapshot]) -> Result<impl Iterator<Item = u64>, Error> {
    let whole: BTreeSet<_> = snapshots.iter().filter_map(|snapshot| snapshot.before).collect();
    let is_half = move |it: &drover_librbd::Snapshot| {
        let is_ours = it.name.strip_suffix(BEFORE).is_some_and(|name| delta::parse(name).is_some());
        it.namespace == SnapshotNamespace::User && is_ours && !whole.contains(&it.id)
    };
    Ok(image.snapshots()?.into_iter().filter(is_half).map(|snapshot| snapshot.id))
}

fn remove_halves(cluster: &Cluster, place: &ImagePlace) -> Result<(), Failure> {
    let image = open(cluster, place, Access::ReadWrite)?;
    for id in halves(&image, &content_of(&image)?.snapshots)? {
        match image.remove_snapshot_by_id(id) {
            // By a sync that had removed the other half.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            removed => removed?,
        }
    }
    Ok(image.close()?)
}

/// The image is in the group no more; its snapshots stay. Without images the group goes, too. `homes`: where it may be.
pub(super) fn leave(cluster: &Cluster, group: &str, place: &ImagePlace, homes: &[String]) -> Result<(), Failure> {
    let own = pool(cluster, &place.pool, &place.namespace)?;
    let name = rbd_name(group);
    for home in homes {
        let home = pool(cluster, home, &place.namespace)?;
        if !home.groups()?.contains(&name) {
            continue;
        }
        match home.group_image_remove(&name, &own, &place.image) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            removed => removed?,
        }
        // An image with points of the group does not leave it, so that its snapshots are of no use any more. Those of an image that was removed since
        // can't be removed, and the group stays.
        if home.group_images(&name)?.is_empty() {
            let _ = home.group_remove(&name);
        }
    }
    remove_halves(cluster, place)
}

fn failure(kind: FailureKind, message: String) -> Failure {
    Failure { call: "rbd_group_snap_create2".to_owned(), kind, message }
}
