//! The verbs of images that belong together.

use std::thread;

use drover_engine::point::PeerCopy;
use drover_rbd::{
    group::{self, GroupError, GroupPoint, GroupPromoted, MEMBERS_MAX, Member},
    image::{self, Image},
};

use super::{MirrorError, Mirrored, Mirrors, delta};
use crate::job::unix_now;

/// One image of a group and how its peer is asked.
pub struct GroupMember<'a> {
    pub mirrored: &'a Mirrored,
    pub peer: image::Peer<'a>,
    /// Of an image that the agents sync.
    pub copy: &'a (dyn Fn() -> Result<PeerCopy, String> + Sync),
}

impl GroupMember<'_> {
    /// A group has images of one kind.
    fn are_delta(members: &[Self]) -> bool {
        members.iter().any(|member| member.mirrored.is_delta)
    }
}

impl Mirrors {
    /// By pool and image, so that all verbs take the turns in one order. All are of one cluster: one that does not answer, and may have them, is
    /// an error only where no other one has any.
    pub fn group(&self, name: &str) -> Result<Vec<Mirrored>, MirrorError> {
        let mut failed = None;
        for (cluster, ceph) in &self.clusters {
            let found = ceph.registries.iter().map(|registry| registry.mirrored(&ceph.crew, cluster));
            match found.collect::<Result<Vec<_>, _>>() {
                Err(error) => failed = Some(error.into()),
                Ok(found) => {
                    let mut members = found.concat();
                    members.retain(|mirrored| mirrored.group.as_deref() == Some(name));
                    members.sort_by(|one, other| one.place.cmp(&other.place));
                    if !members.is_empty() {
                        return Ok(members);
                    }
                }
            }
        }
        Err(failed.unwrap_or_else(|| MirrorError::NoGroup(name.to_owned())))
    }

    /// Before it is written that it does.
    pub(super) fn may_join(&self, new: &Mirrored) -> Result<(), MirrorError> {
        let Some(name) = &new.group else { return Ok(()) };
        let members = match self.group(name) {
            Ok(members) => members,
            Err(MirrorError::NoGroup(_)) => Vec::new(),
            Err(error) => return Err(error),
        };
        let others = || members.iter().filter(|member| member.id != new.id);
        if others().any(|member| member.is_delta != new.is_delta) {
            return Err(match new.is_delta {
                true => MirrorError::NotOfDelta("its group has images that rbd-mirror mirrors: give it another group"),
                false => MirrorError::NotOfMirrored("its group has images that the agents sync: give it another group"),
            });
        }
        if new.is_delta && name.contains(['/', '@']) {
            return Err(MirrorError::NotOfDelta(
                "`rbd` can't name a group that has / or @ in its name: give it another group",
            ));
        }
        if new.is_delta && others().any(|member| member.place.namespace != new.place.namespace) {
            return Err(MirrorError::NotOfDelta(
                "its group has images of another namespace, and RBD cuts only those of one",
            ));
        }
        if let Some(other) = members.iter().find(|member| member.cluster != new.cluster) {
            let (group, cluster) = (name.clone(), other.cluster.clone());
            return Err(MirrorError::GroupElsewhere { group, cluster });
        }
        let others = others().count();
        if new.is_delta && others >= delta::MEMBERS_MAX {
            return Err(MirrorError::NotOfDelta(
                "a group of images that the agents sync has at most 32: give some another group",
            ));
        }
        if others >= MEMBERS_MAX { Err(GroupError::Members { members: others + 1 }.into()) } else { Ok(()) }
    }

    fn members<'a>(&'a self, members: &[GroupMember<'a>]) -> Result<Vec<Member<'a>>, MirrorError> {
        let member = |member: &GroupMember<'a>| {
            let ceph = self.ceph(&member.mirrored.cluster)?;
            let image = Image { crew: &ceph.crew, place: &member.mirrored.place };
            Ok(Member { turns: &ceph.turns, image, peer: member.peer })
        };
        members.iter().map(member).collect()
    }

    pub fn take_points(&self, name: &str, members: &[GroupMember<'_>]) -> Result<GroupPoint, MirrorError> {
        if GroupMember::are_delta(members) {
            let point = self.cut_deltas(members)?;
            tracing::info!(group = name, point = %point.name, images = members.len(), "images are cut at one moment");
            return Ok(point);
        }
        let point = group::take_point(&self.members(members)?, unix_now(), self.retain + 1)?;
        let GroupPoint { name: taken, spread, gone } = point;
        tracing::info!(group = name, point = %taken, images = members.len(), ?spread, gone, "sync point taken");
        Ok(point)
    }

    pub fn promote_group(
        &self,
        name: &str,
        members: &[GroupMember<'_>],
        force: bool,
    ) -> Result<GroupPromoted, MirrorError> {
        let promoted = match GroupMember::are_delta(members) {
            true => self.promote_deltas(members, force)?,
            false => {
                let members = self.members(members)?;
                let promoted = group::promote(&members, unix_now(), force)?;
                thread::scope(|scope| {
                    for member in &members {
                        scope.spawn(|| member.image.repair_csi());
                    }
                });
                promoted
            }
        };
        match promoted {
            GroupPromoted::Already => tracing::info!(group = name, "group is primary already"),
            GroupPromoted::Planned => tracing::info!(group = name, "group is promoted; nothing was lost"),
            GroupPromoted::Forced(point) => {
                tracing::warn!(group = name, %point, "group is promoted by force; what came after the point is lost");
            }
        }
        Ok(promoted)
    }

    pub fn demote_group(&self, name: &str, members: &[GroupMember<'_>]) -> Result<(), MirrorError> {
        if GroupMember::are_delta(members) {
            self.demote_deltas(members)?;
            tracing::info!(group = name, "group is demoted");
            return Ok(());
        }
        let demoted = group::demote(&self.members(members)?, unix_now())?;
        tracing::info!(group = name, ?demoted, "group is demoted");
        Ok(())
    }
}
