//! An image as one cluster shows it at one instant.

use serde::{Deserialize, Serialize};

/// Where an image is. An empty namespace is the pool's default one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ImagePlace {
    pub pool: String,
    #[serde(default)]
    pub namespace: String,
    pub image: String,
}

impl std::fmt::Display for ImagePlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { pool, namespace, image } = self;
        if namespace.is_empty() { write!(f, "{pool}/{image}") } else { write!(f, "{pool}/{namespace}/{image}") }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageView {
    /// Another one after a resync.
    pub id: String,
    pub size_bytes: u64,
    pub objects: u64,
    pub mirroring: Mirroring,
    pub is_primary: bool,
    /// Primary, and nobody can write to it: librbd was interrupted in the middle of a promotion or a demotion.
    pub is_half_primary: bool,
    /// The same on both sites; empty where the image is not mirrored.
    pub global_id: String,
    /// Of this site's pool, also of an image in a namespace of it; what the peer's mirror snapshots name as the primary.
    pub site_uuid: String,
    /// By id.
    pub snapshots: Vec<SnapshotView>,
    /// Id of the image that it is a clone of.
    pub parent_id: Option<String>,
    pub stands_in_for: Option<StandIn>,
    /// Its content lies in a pool of its own, so that a clone can't take its place. Not told of a peer's.
    pub has_data_pool: bool,
    /// Points go on from there: of what the image, or the one that it is a copy of, stands in for.
    pub number_floor: u64,
    /// What an agent of this cluster is doing with the image, or was when it died.
    pub turn: Option<TurnView>,
}

/// An image as a sync of its content sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentView {
    pub size_bytes: u64,
    /// Objects of 2^order bytes.
    pub order: u8,
    pub is_mirrored: bool,
    /// By users, Drover's and others', and what the image has of snapshots of its groups.
    pub snapshots: Vec<ContentSnapshot>,
    /// A cut of its group has left something that is of no use.
    pub has_half_cut: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentSnapshot {
    pub id: u64,
    pub name: String,
    pub size_bytes: u64,
    /// Of a group's: the user's snapshot that changes since it are told from.
    pub before: Option<u64>,
}

/// An image that took another one's place under its name: a clone of that one's newest whole point. It is primary, and mirrored as soon as it is
/// independent of what it was cloned from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandIn {
    /// Its own: copies and clones of it have the mark, too, and stand in for nothing.
    pub image_id: String,
    /// Of the image that was replaced, on both sites.
    pub global_id: String,
    /// Of the point that this is a clone of: its own go on from there.
    pub number: u64,
}

impl StandIn {
    /// Of the image's metadata, which its copies and their copies have, too.
    pub const KEY: &'static str = "drover.stands-in-for";
}

/// Written before anything is decided, so that of two sites that want opposite things at least one sees the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnView {
    pub agent: String,
    pub verb: Verb,
    pub since_unix_secs: i64,
    /// The verb has ended; what it could not do is left.
    pub has_ended: bool,
    /// Ids of snapshots that look whole, and are not.
    pub unwhole: Vec<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    Enable,
    Point,
    Promote,
    Demote,
    Resync,
    Fence,
    Disable,
    /// Of an image that is synced by its changes.
    Sync,
    Rollback,
}

impl std::fmt::Display for Verb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Enable => "start of mirroring",
            Self::Point => "sync point",
            Self::Promote => "promotion",
            Self::Demote => "demotion",
            Self::Resync => "resync",
            Self::Fence => "fencing",
            Self::Disable => "end of mirroring",
            Self::Sync => "sync",
            Self::Rollback => "rollback",
        })
    }
}

impl std::fmt::Display for TurnView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a {} by agent {}", self.verb, self.agent)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mirroring {
    Off,
    Snapshot,
    Journal,
    /// Being enabled or disabled, or a state that this release does not know.
    Changing,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SnapshotView {
    /// Grows with each snapshot.
    pub id: u64,
    pub name: String,
    /// By the clock of the cluster that it was made on: on a secondary the time of the sync.
    pub made_at_unix_secs: i64,
    pub kind: SnapshotKind,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SnapshotKind {
    User,
    Mirror(MirrorSnapshot),
    /// Of a group, in the trash, or unknown.
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorSnapshot {
    pub state: MirrorState,
    /// All of it has arrived. True of a primary's own.
    pub is_complete: bool,
    /// On a secondary: whose snapshot it is a copy of, and its id there.
    pub primary_uuid: String,
    pub primary_id: Option<u64>,
    pub objects_copied: u64,
}

impl MirrorSnapshot {
    /// Left by a promotion by force: nobody's copy.
    pub fn is_orphan(&self) -> bool {
        matches!(self.state, MirrorState::NonPrimary | MirrorState::NonPrimaryDemoted) && self.primary_id.is_none()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MirrorState {
    Primary,
    PrimaryDemoted,
    NonPrimary,
    NonPrimaryDemoted,
    Unknown,
}

impl ImageView {
    /// The same image at two sites, or one that took the other's place.
    pub fn is_same_image(&self, other: &Self) -> bool {
        let replaced = |by: &Self, of: &Self| by.stands_in_for.as_ref().is_some_and(|it| it.global_id == of.global_id);
        self.global_id == other.global_id || replaced(self, other) || replaced(other, self)
    }

    /// It took another one's place, and is not mirrored yet.
    pub fn is_settling(&self) -> bool {
        self.stands_in_for.is_some() && matches!(self.mirroring, Mirroring::Off | Mirroring::Changing)
    }

    /// With their ids, oldest first.
    pub fn mirror_snapshots(&self) -> impl DoubleEndedIterator<Item = (u64, &MirrorSnapshot)> {
        self.snapshots.iter().filter_map(|snapshot| match &snapshot.kind {
            SnapshotKind::Mirror(mirror) => Some((snapshot.id, mirror)),
            SnapshotKind::User | SnapshotKind::Other => None,
        })
    }

    pub fn newest_mirror_snapshot(&self) -> Option<(u64, &MirrorSnapshot)> {
        self.mirror_snapshots().next_back()
    }

    /// Without what a promotion by force leaves when it does not end, which says nothing of the content.
    pub fn newest_not_orphan(&self) -> Option<(u64, &MirrorSnapshot)> {
        self.mirror_snapshots().rfind(|(_, mirror)| !mirror.is_orphan())
    }
}

/// What the daemons say of an image: to be shown, never decided by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SiteView {
    /// Empty for the site that was asked.
    pub site_uuid: String,
    pub state: String,
    pub description: String,
    pub updated_at_unix_secs: i64,
    pub is_up: bool,
}

/// Who has the image open for writing, other than the process that looks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserView {
    pub address: String,
    /// It has the exclusive lock: it writes.
    pub is_lock_owner: bool,
    /// The cluster hears of it. One that has the lock and is not heard of is dead, or comes back and writes on.
    pub is_heard_of: bool,
}

impl UserView {
    /// Now. librbd takes the lock from one that is not heard of, and blocklists it for an hour.
    pub(crate) fn writes(&self) -> bool {
        self.is_lock_owner && self.is_heard_of
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn user(id: u64, name: &str) -> SnapshotView {
        SnapshotView { id, name: name.to_owned(), made_at_unix_secs: 0, kind: SnapshotKind::User }
    }

    pub(crate) fn mirror(id: u64, state: MirrorState, is_complete: bool) -> SnapshotView {
        mirror_of(id, state, is_complete, 0)
    }

    pub(crate) fn mirror_of(id: u64, state: MirrorState, is_complete: bool, primary_id: u64) -> SnapshotView {
        let (primary_uuid, primary_id, objects_copied) = ("uuid-of-a".to_owned(), Some(primary_id), 0);
        let mirror = MirrorSnapshot { state, is_complete, primary_uuid, primary_id, objects_copied };
        let name = format!(".mirror.{id}");
        SnapshotView { id, name, made_at_unix_secs: 0, kind: SnapshotKind::Mirror(mirror) }
    }

    pub(crate) fn secondary(snapshots: Vec<SnapshotView>) -> ImageView {
        ImageView {
            id: "1".to_owned(),
            size_bytes: 1 << 30,
            objects: 256,
            mirroring: Mirroring::Snapshot,
            is_primary: false,
            is_half_primary: false,
            global_id: "global".to_owned(),
            site_uuid: "uuid-of-b".to_owned(),
            snapshots,
            parent_id: None,
            stands_in_for: None,
            has_data_pool: false,
            number_floor: 0,
            turn: None,
        }
    }

    #[test]
    fn what_stands_in_for_an_image_is_that_image_until_it_is_another_ones() {
        let old = primary(Vec::new(), true);
        let mut new = ImageView { global_id: String::new(), mirroring: Mirroring::Off, ..secondary(Vec::new()) };
        assert!(!new.is_same_image(&old) && !new.is_settling());
        let image_id = new.id.clone();
        new.stands_in_for = Some(StandIn { image_id, global_id: old.global_id.clone(), number: 7 });
        new.number_floor = 7;
        assert!(new.is_same_image(&old) && old.is_same_image(&new) && new.is_settling());
        assert_eq!(crate::point::next_number(&new), 8);
        (new.global_id, new.mirroring) = ("another".to_owned(), Mirroring::Snapshot);
        assert!(new.is_same_image(&old) && !new.is_settling());
        assert!(!new.is_same_image(&ImageView { global_id: "a third".to_owned(), ..old }));
    }

    pub(crate) fn primary(snapshots: Vec<SnapshotView>, is_primary: bool) -> ImageView {
        ImageView { is_primary, site_uuid: "uuid-of-a".to_owned(), ..secondary(snapshots) }
    }
}
