//! Many RBD images on two mirrored clusters, which two agents protect in groups.

use std::{thread, time::Duration};

use drover_proto::v1::{self, VolumeRole, volume_spec};
use tonic::Status;

use crate::{
    ceph::{Cluster, Clusters, Recipe, Release},
    host::{Access, Agent, Certificates, Client, Faults},
    process,
    scratch::Scratch,
};

/// What all images of a group have is at the other site.
const SYNCED: Duration = Duration::from_secs(300);
/// A cluster may hang in the middle of one: the agent's own deadlines are shorter.
const VERB: Duration = Duration::from_secs(600);
/// That agents enable at a time.
const AT_ONCE: usize = 8;

#[derive(Debug)]
pub struct Fleet {
    // Agents end before the clusters do.
    pub a: Agent,
    pub b: Agent,
    pub clusters: Clusters,
    /// Of each group, the names of its images.
    pub groups: Vec<Vec<String>>,
    pub scratch: Scratch,
}

/// Started, with the capabilities of daily work, an empty PATH, and a root `nfs` (`a` and `b` in `scratch`).
pub fn agents(clusters: &Clusters, scratch: &Scratch) -> [Agent; 2] {
    let certificates = Certificates::init(&scratch.join("certs"), &["site-a", "site-b"]);
    let (mut a, mut b) = (Agent::new("site-a", &certificates), Agent::new("site-b", &certificates));
    a.setup.peers = vec![("site-b".to_owned(), b.port())];
    b.setup.peers = vec![("site-a".to_owned(), a.port())];
    for (agent, cluster) in [(&mut a, &clusters.a), (&mut b, &clusters.b)] {
        agent.setup.more = section(cluster);
        agent.setup.is_without_path = true;
        let root = scratch.join(&agent.setup.name[5..]);
        std::fs::create_dir_all(&root).expect("a root");
        agent.setup.roots = vec![("nfs".to_owned(), root)];
        agent.start(&Faults::none());
    }
    [a, b]
}

/// Of an agent's configuration: the cluster, as the user for daily work.
pub fn section(cluster: &Cluster) -> String {
    let (conf, user, pool) = (cluster.conf(), Recipe::Daily.user(), cluster.pool());
    let keyring = cluster.user(&user, &Recipe::Daily.caps(pool));
    format!(
        "[[ceph]]\nname = \"ceph\"\nconf = {conf:?}\nuser = \"client.{user}\"\nkeyring = {keyring:?}\npools = [{pool:?}]\n"
    )
}

/// In the pool that [`section`] names.
pub fn rbd_image(cluster: &Cluster, name: &str) -> v1::RbdImage {
    let (pool, image) = (cluster.pool().to_owned(), name.to_owned());
    v1::RbdImage { cluster: "ceph".to_owned(), pool, image, ..v1::RbdImage::default() }
}

/// Of a volume that is primary at `site-a`: what one of [`agents`] is asked.
pub fn enable_request(volume_id: &str, image: v1::RbdImage, role: VolumeRole) -> v1::EnableRequest {
    let peer = if role == VolumeRole::Primary { "site-b" } else { "site-a" };
    v1::EnableRequest {
        volume_id: volume_id.to_owned(),
        spec: Some(v1::VolumeSpec { kind: Some(volume_spec::Kind::RbdImage(image)) }),
        role: role.into(),
        peer: Some(peer.to_owned()),
        ..v1::EnableRequest::default()
    }
}

impl Fleet {
    /// `groups` groups of `images` images each, primary at `site-a`, with `content` at the beginning of each.
    #[track_caller]
    pub fn start(release: Release, groups: usize, images: usize, bytes: u64, content: &[u8]) -> Self {
        let clusters = Clusters::start(release);
        clusters.mirror();
        let scratch = Scratch::new("fleet");
        let [a, b] = agents(&clusters, &scratch);
        let groups = (0..groups).map(|group| (0..images).map(|image| format!("vm{group}-disk{image:03}")).collect());
        let fleet = Self { a, b, clusters, groups: groups.collect(), scratch };
        let work: Vec<(usize, &String)> = fleet
            .groups
            .iter()
            .enumerate()
            .flat_map(|(group, names)| names.iter().map(move |name| (group, name)))
            .collect();
        thread::scope(|scope| {
            for share in work.chunks(work.len().div_ceil(AT_ONCE).max(1)) {
                scope.spawn(|| share.iter().for_each(|(group, name)| fleet.protect(*group, name, bytes, content)));
            }
        });
        fleet
    }

    fn protect(&self, group: usize, name: &str, bytes: u64, content: &[u8]) {
        let image = self.clusters.a.image(name);
        image.create(bytes);
        image.write(&[(0, content)]);
        let volume_id = uuid::Uuid::new_v4().to_string();
        for (agent, role) in [(&self.a, VolumeRole::Primary), (&self.b, VolumeRole::Secondary)] {
            let request = enable_request(&volume_id, rbd_image(&self.clusters.a, name), role);
            let request = v1::EnableRequest { group: Some(Self::name(group)), ..request };
            Self::client(agent).enable(request).expect("enable an image");
        }
    }

    /// Of a group.
    pub fn name(group: usize) -> String {
        format!("vm{group}")
    }

    pub fn client(agent: &Agent) -> Client {
        agent.client(Access::Controller)
    }

    /// A point on every image, which is waited for at the other site.
    #[track_caller]
    pub fn sync(&self, group: usize, from: &Agent, to: &Agent) -> u64 {
        let client = Self::client(from);
        let request = v1::CreateMirrorSnapshotsRequest { group: Self::name(group) };
        let taken = client.call(client.groups().create_mirror_snapshots(request)).expect("take points");
        process::until("the point is whole on every image at the other site", SYNCED, || {
            (self.info(group, to).ok()?.common_point == Some(taken.number)).then_some(())
        });
        taken.number
    }

    pub fn info(&self, group: usize, agent: &Agent) -> Result<v1::GroupInfo, Status> {
        let client = Self::client(agent);
        let request = v1::GetGroupRequest { group: Self::name(group), local_only: false };
        let told = client.call(client.groups().get_group(request))?;
        told.group.ok_or_else(|| Status::internal("no group in the answer"))
    }

    #[track_caller]
    pub fn wait_safe(&self, group: usize, agent: &Agent) {
        process::until("a promotion is safe", SYNCED, || {
            self.info(group, agent).ok()?.promote_unsafe.is_empty().then_some(())
        });
    }

    pub fn demote(&self, group: usize, agent: &Agent) -> Result<(), Status> {
        let client = Self::client(agent);
        let request = v1::DemoteGroupRequest { group: Self::name(group) };
        client.call_within(VERB, client.groups().demote_group(request)).map(drop)
    }

    /// Returns the number of the point that a promotion by force ended on.
    pub fn promote(&self, group: usize, agent: &Agent, force: bool) -> Result<Option<u64>, Status> {
        let client = Self::client(agent);
        let request = v1::PromoteGroupRequest { group: Self::name(group), force };
        client.call_within(VERB, client.groups().promote_group(request)).map(|promoted| promoted.ended_on)
    }
}
