//! The verbs of images that belong together.

use std::time::Duration;

use drover_engine::point::{PeerCopy, Role, planned};
use drover_proto::v1::{self, groups_server::Groups};
use drover_rbd::{
    group::{GroupPoint, GroupPromoted},
    point,
    view::ImageView,
};
use tokio::runtime::Handle;
use tonic::{Request, Response, Status};

use super::{
    ReplicationService,
    mirrored::{self, Scope},
};
use crate::{
    mirror::{self, GroupMember, MirrorError, Mirrored, Mirrors, Peer},
    rpc::{convert, status::ToStatus as _},
    work::Lane,
};

#[derive(Clone)]
pub struct GroupsService(pub ReplicationService);

impl ReplicationService {
    async fn members(&self, group: &str) -> Result<Vec<Mirrored>, Status> {
        mirrored::check_group("group", group).map_err(|error| error.to_status())?;
        let name = group.to_owned();
        self.ceph(Lane::Ceph, move |mirrors| mirrors.group(&name)).await
    }

    async fn group_verb<T: Send + 'static>(
        &self,
        group: &str,
        verb: impl FnOnce(&Mirrors, &str, &[GroupMember<'_>]) -> Result<T, MirrorError> + Send + 'static,
    ) -> Result<T, Status> {
        let members = self.members(group).await?;
        let (service, runtime, name) = (self.clone(), Handle::current(), group.to_owned());
        self.ceph(Lane::CephVerbs, move |mirrors| {
            let ask = |mirrored: &Mirrored| -> Peer { runtime.block_on(service.peer_of(mirrored)) };
            let ask_copy = |mirrored: &Mirrored| runtime.block_on(service.peer_copy_of(mirrored));
            let peers: Vec<_> = members.iter().map(|mirrored| move || ask(mirrored)).collect();
            let copies: Vec<_> = members.iter().map(|mirrored| move || ask_copy(mirrored)).collect();
            let members = members.iter().zip(&peers).zip(&copies);
            let members = members.map(|((mirrored, peer), copy)| GroupMember { mirrored, peer, copy });
            verb(mirrors, &name, &members.collect::<Vec<_>>())
        })
        .await
    }

    pub(super) async fn group_points(&self, group: String) -> Result<GroupPoint, Status> {
        self.group_verb(&group, Mirrors::take_points).await
    }

    async fn group_info(&self, group: String, scope: Scope) -> Result<v1::GroupInfo, Status> {
        let mut told = v1::GroupInfo { group: group.clone(), ..v1::GroupInfo::default() };
        let mut asked = tokio::task::JoinSet::new();
        let members = self.members(&group).await?;
        let deltas = members.iter().any(|member| member.is_delta).then(|| members.clone());
        for (at, mirrored) in members.into_iter().enumerate() {
            let service = self.clone();
            asked.spawn(async move { (at, service.mirrored_info(mirrored, scope).await) });
        }
        let mut members = Vec::with_capacity(asked.len());
        while let Some(answer) = asked.join_next().await {
            let (at, info) = answer.map_err(|error| Status::internal(error.to_string()))?;
            members.push((at, info?));
        }
        members.sort_by_key(|(at, _)| *at);
        told.members = members.into_iter().map(|(_, info)| info).collect();
        if let Some(members) = deltas {
            return self.delta_group_info(members, told, scope).await;
        }
        let views: Option<Vec<ImageView>> = told.members.iter().map(mirror::view_of).collect();
        told.common_point = views.as_ref().and_then(point::newest_common).map(|name| name.number);
        if scope == Scope::BothSites {
            told.promote_unsafe = told.members.iter().filter_map(refusal).collect();
        }
        Ok(told)
    }
}

impl ReplicationService {
    async fn peer_copy_of(&self, mirrored: &Mirrored) -> Result<PeerCopy, String> {
        convert::peer_copy(&self.ask_peer(mirrored.peer.as_deref(), mirrored.id).await?)
    }

    async fn delta_group_info(
        &self,
        members: Vec<Mirrored>,
        mut told: v1::GroupInfo,
        scope: Scope,
    ) -> Result<v1::GroupInfo, Status> {
        let of = members.clone();
        let states = self
            .ceph(Lane::Ceph, move |mirrors| {
                of.iter().map(|member| mirrors.delta_state(member)).collect::<Result<Vec<_>, _>>()
            })
            .await?;
        told.common_point = mirror::newest_common(&states);
        if scope == Scope::BothSites {
            for (member, state) in members.iter().zip(&states).filter(|(_, state)| state.role == Role::Secondary) {
                let copy = self.peer_copy_of(member).await;
                if let Err(why) = planned(state, copy.as_ref().map_err(Clone::clone)) {
                    told.promote_unsafe.push(format!("{}: {why}", member.place));
                }
            }
        }
        Ok(told)
    }
}

fn refusal(member: &v1::VolumeInfo) -> Option<String> {
    let image = match member.spec.as_ref()?.kind.as_ref()? {
        v1::volume_spec::Kind::RbdImage(image) => format!("{}/{}", image.pool, image.image),
        v1::volume_spec::Kind::Directory(_)
        | v1::volume_spec::Kind::BlockFile(_)
        | v1::volume_spec::Kind::ImageFile(_) => return None,
    };
    match &member.mirror {
        Some(mirror) => mirror.promote_unsafe.as_ref().map(|why| format!("{image}: {why}")),
        None => Some(format!("{image}: the image is not here yet")),
    }
}

#[tonic::async_trait]
impl Groups for GroupsService {
    async fn create_mirror_snapshots(
        &self,
        request: Request<v1::CreateMirrorSnapshotsRequest>,
    ) -> Result<Response<v1::CreateMirrorSnapshotsResponse>, Status> {
        let group = request.into_inner().group;
        let GroupPoint { name, spread, .. } = self.0.group_points(group.clone()).await?;
        Ok(Response::new(v1::CreateMirrorSnapshotsResponse {
            group: Some(self.0.group_info(group, Scope::Local).await?),
            number: name.number,
            spread_millis: millis(spread),
        }))
    }

    async fn promote_group(
        &self,
        request: Request<v1::PromoteGroupRequest>,
    ) -> Result<Response<v1::PromoteGroupResponse>, Status> {
        let v1::PromoteGroupRequest { group, force } = request.into_inner();
        let promoted = self
            .0
            .group_verb(&group, move |mirrors, name, members| mirrors.promote_group(name, members, force))
            .await?;
        let ended_on = match promoted {
            GroupPromoted::Already | GroupPromoted::Planned => None,
            GroupPromoted::Forced(point) => Some(point.number),
        };
        let group = Some(self.0.group_info(group, Scope::Local).await?);
        Ok(Response::new(v1::PromoteGroupResponse { group, ended_on }))
    }

    async fn demote_group(
        &self,
        request: Request<v1::DemoteGroupRequest>,
    ) -> Result<Response<v1::DemoteGroupResponse>, Status> {
        let group = request.into_inner().group;
        self.0.group_verb(&group, Mirrors::demote_group).await?;
        let group = Some(self.0.group_info(group, Scope::Local).await?);
        Ok(Response::new(v1::DemoteGroupResponse { group }))
    }

    async fn get_group(&self, request: Request<v1::GetGroupRequest>) -> Result<Response<v1::GetGroupResponse>, Status> {
        let v1::GetGroupRequest { group, local_only } = request.into_inner();
        let scope = if local_only { Scope::Local } else { Scope::BothSites };
        Ok(Response::new(v1::GetGroupResponse { group: Some(self.0.group_info(group, scope).await?) }))
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
