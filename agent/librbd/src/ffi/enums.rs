//! Enums of `librbd.h`. A cluster of 16.2.15 was seen to answer with a value that its own header lacks, hence `Other`.
#![expect(non_camel_case_types, reason = "the names of C")]

enums! {
    /// How a pool mirrors.
    pub enum MirrorMode: rbd_mirror_mode_t {
        Disabled = RBD_MIRROR_MODE_DISABLED 0,
        /// Images that were enabled one by one; what Drover uses.
        Image = RBD_MIRROR_MODE_IMAGE 1,
        /// Every image with the journaling feature.
        Pool = RBD_MIRROR_MODE_POOL 2,
    }

    /// Seen from the cluster that has the peer entry.
    pub enum PeerDirection: rbd_mirror_peer_direction_t {
        /// This site receives from the peer.
        Receive = RBD_MIRROR_PEER_DIRECTION_RX 0,
        /// The peer receives from here.
        Send = RBD_MIRROR_PEER_DIRECTION_TX 1,
        Both = RBD_MIRROR_PEER_DIRECTION_RX_TX 2,
    }

    /// How an image mirrors.
    pub enum ImageMode: rbd_mirror_image_mode_t {
        Journal = RBD_MIRROR_IMAGE_MODE_JOURNAL 0,
        Snapshot = RBD_MIRROR_IMAGE_MODE_SNAPSHOT 1,
    }

    /// Whether an image mirrors.
    pub enum ImageState: rbd_mirror_image_state_t {
        Disabling = RBD_MIRROR_IMAGE_DISABLING 0,
        Enabled = RBD_MIRROR_IMAGE_ENABLED 1,
        Disabled = RBD_MIRROR_IMAGE_DISABLED 2,
    }

    /// What an rbd-mirror daemon says of an image; up to 30 s old.
    pub enum StatusState: rbd_mirror_image_status_state_t {
        Unknown = MIRROR_IMAGE_STATUS_STATE_UNKNOWN 0,
        Error = MIRROR_IMAGE_STATUS_STATE_ERROR 1,
        Syncing = MIRROR_IMAGE_STATUS_STATE_SYNCING 2,
        StartingReplay = MIRROR_IMAGE_STATUS_STATE_STARTING_REPLAY 3,
        Replaying = MIRROR_IMAGE_STATUS_STATE_REPLAYING 4,
        StoppingReplay = MIRROR_IMAGE_STATUS_STATE_STOPPING_REPLAY 5,
        Stopped = MIRROR_IMAGE_STATUS_STATE_STOPPED 6,
    }

    /// Whose a snapshot is.
    pub enum SnapshotNamespace: rbd_snap_namespace_type_t {
        User = RBD_SNAP_NAMESPACE_TYPE_USER 0,
        Group = RBD_SNAP_NAMESPACE_TYPE_GROUP 1,
        /// Removed while clones still need it.
        Trash = RBD_SNAP_NAMESPACE_TYPE_TRASH 2,
        Mirror = RBD_SNAP_NAMESPACE_TYPE_MIRROR 3,
    }

    /// What a mirror snapshot says of its image at that time.
    pub enum SnapshotMirrorState: rbd_snap_mirror_state_t {
        Primary = RBD_SNAP_MIRROR_STATE_PRIMARY 0,
        PrimaryDemoted = RBD_SNAP_MIRROR_STATE_PRIMARY_DEMOTED 1,
        NonPrimary = RBD_SNAP_MIRROR_STATE_NON_PRIMARY 2,
        NonPrimaryDemoted = RBD_SNAP_MIRROR_STATE_NON_PRIMARY_DEMOTED 3,
    }

    /// Whether a group snapshot has one of every image.
    pub enum GroupSnapshotState: rbd_group_snap_state_t {
        Incomplete = RBD_GROUP_SNAP_STATE_INCOMPLETE 0,
        Complete = RBD_GROUP_SNAP_STATE_COMPLETE 1,
    }

    /// Whether an image has fully joined a group.
    pub(crate) enum GroupImageState: rbd_group_image_state_t {
        Attached = RBD_GROUP_IMAGE_STATE_ATTACHED 0,
        Incomplete = RBD_GROUP_IMAGE_STATE_INCOMPLETE 1,
    }

    /// Who put an image into the trash.
    pub enum TrashSource: rbd_trash_image_source_t {
        User = RBD_TRASH_IMAGE_SOURCE_USER 0,
        /// rbd-mirror, because the primary was removed or disabled.
        Mirroring = RBD_TRASH_IMAGE_SOURCE_MIRRORING 1,
        Migration = RBD_TRASH_IMAGE_SOURCE_MIGRATION 2,
        Removing = RBD_TRASH_IMAGE_SOURCE_REMOVING 3,
        UserParent = RBD_TRASH_IMAGE_SOURCE_USER_PARENT 4,
    }

    /// Of the managed lock.
    pub(crate) enum LockMode: rbd_lock_mode_t {
        Exclusive = RBD_LOCK_MODE_EXCLUSIVE 0,
        Shared = RBD_LOCK_MODE_SHARED 1,
    }
}
