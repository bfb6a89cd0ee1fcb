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
    /// The same on both sites; empty where the image is not mirrored.
    pub global_id: String,
    /// Of this site's pool; what the peer's mirror snapshots name as the primary.
    pub site_uuid: String,
    /// By id.
    pub snapshots: Vec<SnapshotView>,
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
            global_id: "global".to_owned(),
            site_uuid: "uuid-of-b".to_owned(),
            snapshots,
        }
    }

    pub(crate) fn primary(snapshots: Vec<SnapshotView>, is_primary: bool) -> ImageView {
        ImageView { is_primary, site_uuid: "uuid-of-a".to_owned(), ..secondary(snapshots) }
    }
}
