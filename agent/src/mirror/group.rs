//! The verbs of images that belong together.

use std::thread;

use drover_rbd::{
    group::{self, GroupError, GroupPoint, GroupPromoted, MEMBERS_MAX, Member},
    image::{self, Image},
};

use super::{MirrorError, Mirrored, Mirrors};
use crate::job::unix_now;

/// One image of a group and how its peer is asked.
pub struct GroupMember<'a> {
    pub mirrored: &'a Mirrored,
    pub peer: image::Peer<'a>,
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
            Err(MirrorError::NoGroup(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        if let Some(other) = members.iter().find(|member| member.cluster != new.cluster) {
            let (group, cluster) = (name.clone(), other.cluster.clone());
            return Err(MirrorError::GroupElsewhere { group, cluster });
        }
        let others = members.iter().filter(|member| member.id != new.id).count();
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
        let members = self.members(members)?;
        let promoted = group::promote(&members, unix_now(), force)?;
        thread::scope(|scope| {
            for member in &members {
                scope.spawn(|| member.image.repair_csi());
            }
        });
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
        let demoted = group::demote(&self.members(members)?, unix_now())?;
        tracing::info!(group = name, ?demoted, "group is demoted");
        Ok(())
    }
}
