//! Images that the agents sync themselves: `drover_rbd::delta`.

mod group;

use drover_engine::{
    id::VolumeId,
    image::{ImageCopy as _, verbs},
    path::RelPath,
    point::{Force, PeerCopy, PointId, Role, VolumeKind, VolumeState},
    report::RollbackReport,
    session::{Failure, SessionError},
};
use drover_proto::v1;
use drover_rbd::{
    delta::{self, Delta, Group, GroupView},
    image::{Image, VerbError},
    view::{ImagePlace, TurnView, Verb},
};

use super::{MirrorError, Mirrored, Mirrors, Record, info, known};
use crate::{job::unix_now, rpc::convert};
pub(super) use group::MEMBERS_MAX;
pub use group::newest_common;

/// What Enable says of one.
#[derive(Clone, Debug)]
pub struct NewDelta {
    pub id: VolumeId,
    pub cluster: String,
    pub place: ImagePlace,
    pub peer: Option<String>,
    /// `None`: as it is.
    pub group: Option<String>,
    pub role: Role,
    /// `None`: as it is, or by default.
    pub retain: Option<u32>,
    pub retain_secs: Option<u64>,
    /// What a secondary's image holds is overwritten where it differs.
    pub adopt: bool,
}

impl Mirrors {
    /// Of one that is a volume already, what the call names is set.
    pub fn enable_delta(&self, new: &NewDelta, default_secs: u64) -> Result<Mirrored, MirrorError> {
        let ceph = self.ceph(&new.cluster)?;
        let registry = ceph.registry(&new.cluster, &new.place)?;
        let mirrored = Mirrored {
            id: new.id,
            cluster: new.cluster.clone(),
            place: new.place.clone(),
            peer: new.peer.clone(),
            group: None,
            point_every_secs: None,
            is_delta: true,
        };
        let retain = u32::try_from(self.retain).unwrap_or(u32::MAX);
        self.with_delta(&mirrored, Verb::Enable, |copy| -> Result<Mirrored, MirrorError> {
            // Of two that enable it at the same time the second sees what the first has written.
            let known = known(ceph, registry, new.id, &new.place)?;
            if known.as_ref().is_some_and(|known| !known.is_delta) {
                return Err(MirrorError::IsMirrored(new.place.clone()));
            }
            let (had, wanted) = (known.and_then(|known| known.group), new.group.clone());
            if had.is_some() && wanted.is_some() && had != wanted {
                return Err(MirrorError::NotOfDelta(
                    "its points are cut with its group, which stays: disable the volume, and enable it with the other one",
                ));
            }
            let group = wanted.or(had).filter(|group| !group.is_empty());
            let mirrored = Mirrored { group, ..mirrored.clone() };
            self.may_join(&mirrored)?;
            let image = Image { crew: &ceph.crew, place: &mirrored.place };
            let enabled = |state: VolumeState| -> Result<Mirrored, MirrorError> {
                copy.set_state(&state)?;
                let mirrored = Mirrored { peer: state.peer.clone(), ..mirrored.clone() };
                registry.write(&ceph.crew, mirrored.id, Some(&Record::of(&mirrored)))?;
                Ok(mirrored)
            };
            let Some(mut state) = delta::state(image, new.id)? else {
                let mut state = VolumeState::new(new.id, RelPath::root(), new.role, new.retain.unwrap_or(retain));
                state.kind = VolumeKind::BlockFile;
                state.retain_secs = new.retain_secs.unwrap_or(default_secs);
                (state.peer, state.blank) = (new.peer.clone(), new.role == Role::Secondary);
                return enabled(copy.begin(state, new.adopt)?);
            };
            state.retain = new.retain.unwrap_or(state.retain);
            state.retain_secs = new.retain_secs.unwrap_or(state.retain_secs);
            state.peer = new.peer.clone().or(state.peer);
            enabled(state)
        })
    }

    /// What its agents know of it.
    pub fn delta_state(&self, mirrored: &Mirrored) -> Result<VolumeState, MirrorError> {
        let image = Image { crew: &self.ceph(&mirrored.cluster)?.crew, place: &mirrored.place };
        Ok(delta::state(image, mirrored.id)?.ok_or_else(|| VerbError::NoVolume(mirrored.place.clone()))?)
    }

    pub fn delta_info(&self, mirrored: &Mirrored, jobs: convert::Jobs) -> Result<v1::VolumeInfo, MirrorError> {
        let mut state = self.delta_state(mirrored)?;
        if state.promoting {
            // One that was interrupted has no turn any more, or one that is taken over.
            let image = Image { crew: &self.ceph(&mirrored.cluster)?.crew, place: &mirrored.place };
            // A demotion of a group that is taken back says so, too.
            let is_promoting = |turn: TurnView| matches!(turn.verb, Verb::Promote | Verb::Demote);
            state.promoting = Delta::turn(image)?.is_some_and(is_promoting);
        }
        let mut because = convert::troubles_of(&state);
        because.extend(jobs.trouble);
        let health = if because.is_empty() { v1::Health::Ok } else { v1::Health::Degraded };
        Ok(convert::state_info(&state, info::spec_of(mirrored), (health, because), jobs.running))
    }

    /// Nothing else of Drover changes the copy meanwhile.
    fn with_delta<T, E: From<VerbError> + From<MirrorError>>(
        &self,
        mirrored: &Mirrored,
        verb: Verb,
        what: impl FnOnce(&Delta<'_, '_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let ceph = self.ceph(&mirrored.cluster)?;
        let image = Image { crew: &ceph.crew, place: &mirrored.place };
        let look = || {
            let members = self.belonging(mirrored)?.into_iter().map(|member| (member.id, member.place));
            Ok::<_, Failure>(GroupView { members: members.collect(), homes: self.homes(mirrored)? })
        };
        let group = mirrored.group.as_deref().map(|name| Group { name, look: &look });
        ceph.turns.with_beat(image, verb, unix_now(), |turn| what(&Delta::new(turn, mirrored.id, group)))
    }

    /// Pools that may have its group.
    fn homes(&self, mirrored: &Mirrored) -> Result<Vec<String>, MirrorError> {
        let pools = self.ceph(&mirrored.cluster)?.registries.iter().map(|registry| registry.pool());
        let same = pools.filter(|(_, namespace)| *namespace == mirrored.place.namespace);
        Ok(same.map(|(pool, _)| pool.to_owned()).collect())
    }

    /// The images of its group, by pool and name.
    fn belonging(&self, mirrored: &Mirrored) -> Result<Vec<Mirrored>, MirrorError> {
        let ceph = self.ceph(&mirrored.cluster)?;
        let mut members = Vec::new();
        for registry in &ceph.registries {
            members.extend(registry.mirrored(&ceph.crew, &mirrored.cluster)?);
        }
        members.retain(|member| member.group == mirrored.group);
        members.sort_by(|one, other| one.place.cmp(&other.place));
        Ok(members)
    }

    /// One session, from the greeting to its end.
    pub fn sync_delta<T>(
        &self,
        mirrored: &Mirrored,
        session: impl FnOnce(&Delta<'_, '_>) -> Result<T, SessionError>,
    ) -> Result<T, SessionError> {
        self.with_delta(mirrored, Verb::Sync, session)
    }

    pub fn promote_delta(
        &self,
        mirrored: &Mirrored,
        force: Force,
        ask: impl FnOnce() -> Result<PeerCopy, String>,
    ) -> Result<Option<PointId>, MirrorError> {
        let kept = self
            .with_delta(mirrored, Verb::Promote, |copy| verbs::promote(copy, force, ask).map_err(MirrorError::from))?;
        self.with(mirrored, |image| {
            image.repair_csi();
            Ok(())
        })?;
        Ok(kept)
    }

    pub fn demote_delta(&self, mirrored: &Mirrored, force: Force) -> Result<(), MirrorError> {
        self.with_delta(mirrored, Verb::Demote, |copy| Ok(verbs::demote(copy, force)?))
    }

    pub fn resync_delta(&self, mirrored: &Mirrored) -> Result<(), MirrorError> {
        self.with_delta(mirrored, Verb::Resync, |copy| Ok(verbs::request_resync(copy)?))
    }

    pub fn rollback_delta(&self, mirrored: &Mirrored, to: PointId) -> Result<RollbackReport, MirrorError> {
        self.with_delta(mirrored, Verb::Rollback, |copy| Ok(verbs::rollback(copy, to)?))
    }

    pub fn release_delta(&self, mirrored: &Mirrored) -> Result<(), MirrorError> {
        self.with_delta(mirrored, Verb::Rollback, |copy| Ok(verbs::release(copy)?))
    }

    /// The image stays.
    pub fn disable_delta(&self, mirrored: &Mirrored) -> Result<(), MirrorError> {
        self.with_delta(mirrored, Verb::Disable, |copy| -> Result<(), MirrorError> {
            verbs::retire(copy)?;
            if let Some(group) = &mirrored.group {
                copy.leave(group, self.homes(mirrored)?)?;
            }
            Ok(copy.forget()?)
        })?;
        self.forget(mirrored)
    }
}

impl From<MirrorError> for Failure {
    fn from(error: MirrorError) -> Self {
        Self { kind: error.kind(), reason: error.reason().to_owned(), message: error.to_string() }
    }
}

impl From<MirrorError> for SessionError {
    fn from(error: MirrorError) -> Self {
        Self::Image(error.into())
    }
}
