//! Mirroring of a pool: mode, peers, and what is mirrored.

use std::time::SystemTime;

use crate::{
    Error, ImageMode, ImageState, MirrorMode, PeerDirection, Pool, Secret, StatusState,
    error::call,
    ffi::{
        Plain, rbd_mirror_image_info_t, rbd_mirror_image_mode_t, rbd_mirror_image_status_state_t, rbd_mirror_mode_t,
        rbd_mirror_peer_site_t,
    },
    reply::{ENTRIES_MAX, Filled, filled, filled_one},
    text::{first_of, from_c, parts_of, to_c},
    time::since_1970,
};

/// The other cluster, as this one knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Of this entry.
    pub uuid: String,
    pub direction: PeerDirection,
    pub site_name: String,
    /// The other pool's own UUID ([`Pool::mirror_uuid`] there); empty before its daemon has called for the first time.
    pub mirror_uuid: String,
    pub client_name: String,
    /// Was always 1970 on Ceph 16.
    pub last_seen: SystemTime,
}

/// How the peer is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAttributes {
    pub mon_host: String,
    pub key: Secret,
}

/// An image in the list of mirrored ones. Whether it is primary is asked of the image: this list always says no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirroredImage {
    pub id: String,
    pub global_id: String,
    pub mode: ImageMode,
    pub state: ImageState,
}

impl Pool {
    pub fn mirror_mode(&self) -> Result<MirrorMode, Error> {
        let mut mode = rbd_mirror_mode_t(0);
        // SAFETY: a pool, a number to fill in.
        unsafe { call!(self.functions(), rbd_mirror_mode_get(self.0.raw, &raw mut mode)) }?;
        Ok(mode.into())
    }

    /// Idempotent. Busy, Invalid: disabled while there are peers, or mirrored images. Invalid: pool mode with images in snapshot mode. In a
    /// namespace, it is set on both sites for that namespace.
    pub fn set_mirror_mode(&self, mode: MirrorMode) -> Result<(), Error> {
        // SAFETY: a pool.
        unsafe { call!(self.functions(), rbd_mirror_mode_set(self.0.raw, mode.into())) }.map(drop)
    }

    /// This pool's own UUID, which stands in the mirror snapshots of the peer. NotFound where mirroring was never enabled.
    pub fn mirror_uuid(&self) -> Result<String, Error> {
        let buffer = filled_one::<u8>("rbd_mirror_uuid_get", 64, |buffer, length| {
            // SAFETY: a pool; a buffer of that length.
            unsafe { (self.functions().rbd_mirror_uuid_get)(self.0.raw, buffer.cast(), length) }.into()
        })?;
        Ok(first_of(&buffer))
    }

    /// A token for [`Pool::peer_bootstrap_import`] on the other cluster; makes the user `client.rbd-mirror-peer`.
    ///
    /// Permission: needs an administrator's key. Invalid: mirroring of the pool is disabled, or this is a namespace.
    pub fn peer_bootstrap_create(&self) -> Result<Secret, Error> {
        let buffer = filled_one::<u8>("rbd_mirror_peer_bootstrap_create", 512, |buffer, length| {
            // SAFETY: a pool; a buffer of that length.
            unsafe { (self.functions().rbd_mirror_peer_bootstrap_create)(self.0.raw, buffer.cast(), length) }.into()
        })?;
        Ok(Secret::new(first_of(&buffer)))
    }

    /// Makes the cluster of the token a peer, and with [`PeerDirection::Both`] this one a peer of it. Idempotent.
    ///
    /// Invalid: a token of this same cluster, a damaged one, or [`PeerDirection::Send`]. Permission: needs an administrator's key.
    /// Connects to the other cluster: TimedOut where it does not answer.
    pub fn peer_bootstrap_import(&self, direction: PeerDirection, token: &Secret) -> Result<(), Error> {
        let token = to_c("rbd_mirror_peer_bootstrap_import", token.reveal())?;
        // SAFETY: a pool, a C string.
        unsafe {
            call!(self.functions(), rbd_mirror_peer_bootstrap_import(self.0.raw, direction.into(), token.as_ptr()))
        }
        .map(drop)
    }

    /// By its [`Peer::uuid`]. NotFound: no such peer. Permission: needs an administrator's key.
    pub fn peer_remove(&self, uuid: &str) -> Result<(), Error> {
        let uuid = to_c("rbd_mirror_peer_site_remove", uuid)?;
        // SAFETY: a pool, a C string.
        unsafe { call!(self.functions(), rbd_mirror_peer_site_remove(self.0.raw, uuid.as_ptr())) }.map(drop)
    }

    pub fn peers(&self) -> Result<Vec<Peer>, Error> {
        let mut peers = filled_one::<rbd_mirror_peer_site_t>("rbd_mirror_peer_site_list", 8, |peers, length| {
            let mut count = i32::try_from(*length).unwrap_or(i32::MAX);
            // SAFETY: a pool; an array of that many entries.
            let code = unsafe { (self.functions().rbd_mirror_peer_site_list)(self.0.raw, peers, &raw mut count) };
            *length = count.unsigned_abs() as usize;
            code.into()
        })?;
        let entry = |peer: &rbd_mirror_peer_site_t| Peer {
            // SAFETY: a C string of librbd.
            uuid: unsafe { from_c(peer.uuid) },
            direction: peer.direction.into(),
            // SAFETY: a C string of librbd.
            site_name: unsafe { from_c(peer.site_name) },
            // SAFETY: a C string of librbd.
            mirror_uuid: unsafe { from_c(peer.mirror_uuid) },
            // SAFETY: a C string of librbd.
            client_name: unsafe { from_c(peer.client_name) },
            last_seen: since_1970(peer.last_seen, 0),
        };
        let list = peers.iter().map(entry).collect();
        let count = i32::try_from(peers.len()).unwrap_or(i32::MAX);
        // SAFETY: what rbd_mirror_peer_site_list filled, freed once.
        unsafe { (self.functions().rbd_mirror_peer_site_list_cleanup)(peers.as_mut_ptr(), count) };
        Ok(list)
    }

    /// How the peer of that [`Peer::uuid`] is reached. NotFound: no such peer, or the user lacks `mon 'profile rbd-mirror'`.
    pub fn peer_attributes(&self, uuid: &str) -> Result<PeerAttributes, Error> {
        const CALL: &str = "rbd_mirror_peer_site_get_attributes";
        let uuid = to_c(CALL, uuid)?;
        let mut count = 0;
        let Filled { buffers: [keys, values], .. } =
            filled::<u8, 2>(CALL, 1024, |[keys, values], [keys_length, values_length]| {
                count = ENTRIES_MAX;
                // SAFETY: a pool, a C string; two buffers of those lengths; more entries than they can hold.
                unsafe {
                    (self.functions().rbd_mirror_peer_site_get_attributes)(
                        self.0.raw,
                        uuid.as_ptr(),
                        keys.cast(),
                        keys_length,
                        values.cast(),
                        values_length,
                        &raw mut count,
                    )
                }
                .into()
            })?;
        let pairs: Vec<_> = parts_of(&keys, count).into_iter().zip(parts_of(&values, count)).collect();
        let value =
            |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone()).unwrap_or_default();
        Ok(PeerAttributes { mon_host: value("mon_host"), key: Secret::new(value("key")) })
    }

    /// How many images are in which state by the daemons' reports, up to 30 s old.
    pub fn mirror_status_summary(&self) -> Result<Vec<(StatusState, u32)>, Error> {
        let mut counts = Vec::new();
        let states =
            filled_one::<rbd_mirror_image_status_state_t>("rbd_mirror_image_status_summary", 16, |states, length| {
                counts = vec![0; *length];
                // SAFETY: a pool; two arrays of that many entries.
                unsafe {
                    (self.functions().rbd_mirror_image_status_summary)(self.0.raw, states, counts.as_mut_ptr(), length)
                }
                .into()
            })?;
        Ok(states.into_iter().zip(counts).map(|(state, count)| (state.into(), count.unsigned_abs())).collect())
    }

    /// At most 1024 mirrored images with ids after `start_after` (empty: from the first), sorted by id; fewer are the last.
    pub fn mirrored_images(&self, start_after: &str) -> Result<Vec<MirroredImage>, Error> {
        const PAGE: usize = 1024;
        let start = to_c("rbd_mirror_image_info_list", start_after)?;
        let mut ids = vec![std::ptr::null_mut(); PAGE];
        let mut modes = vec![rbd_mirror_image_mode_t(0); PAGE];
        let mut infos = vec![rbd_mirror_image_info_t::zeroed(); PAGE];
        let mut count = PAGE;
        // SAFETY: a pool, any mode, a C string; three arrays of PAGE entries.
        unsafe {
            call!(
                self.functions(),
                rbd_mirror_image_info_list(
                    self.0.raw,
                    std::ptr::null_mut(),
                    start.as_ptr(),
                    PAGE,
                    ids.as_mut_ptr(),
                    modes.as_mut_ptr(),
                    infos.as_mut_ptr(),
                    &raw mut count
                )
            )
        }?;
        let entry = |index: usize| MirroredImage {
            // SAFETY: a C string of librbd.
            id: unsafe { from_c(ids[index]) },
            // SAFETY: a C string of librbd.
            global_id: unsafe { from_c(infos[index].global_id) },
            mode: modes[index].into(),
            state: infos[index].state.into(),
        };
        let list = (0..count.min(PAGE)).map(entry).collect();
        // SAFETY: what rbd_mirror_image_info_list filled, freed once.
        unsafe {
            (self.functions().rbd_mirror_image_info_list_cleanup)(ids.as_mut_ptr(), infos.as_mut_ptr(), count.min(PAGE))
        };
        Ok(list)
    }
}
