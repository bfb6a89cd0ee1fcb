//! What all agents together know of each volume, and which volume a user means.

use std::collections::BTreeMap;

use drover_proto::v1::{self, VolumeInfo, VolumeRole};
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::{
    agents::{self, Agent},
    config::Config,
    failure::Failure,
};

/// Questions to one agent at a time; a host may hold thousands of volumes.
const QUESTIONS: usize = 16;
/// As `status` shows ids. Fewer characters may be a slip, or an empty variable of a script.
const ID_CHARS_MIN: usize = 8;

#[derive(Debug)]
pub(crate) struct Fleet {
    pub agents: Vec<Agent>,
    /// Agents that do not answer, and why.
    pub unreachable: Vec<(String, Failure)>,
    roots: Vec<Root>,
}

/// A root of an agent, with the volumes in it.
#[derive(Debug)]
struct Root {
    agent: usize,
    name: String,
    path: String,
    volumes: Vec<String>,
    problems: Vec<String>,
}

/// One copy of a volume, at one agent.
#[derive(Clone, Debug)]
pub(crate) struct Replica {
    pub agent: Agent,
    /// Full path on the agent's host.
    pub path: String,
    /// `root/path`, as the agent's configuration names it.
    pub name: String,
    pub info: VolumeInfo,
}

#[derive(Clone, Debug)]
pub(crate) struct Volume {
    pub id: String,
    pub copies: Vec<Replica>,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum LookupError {
    #[error(
        "no agent has a volume {wanted} that it syncs; `drover status` lists them, and an image that rbd-mirror mirrors is not among them \
         (`drover-agent volume info` on its host){}",
        unasked(.unreachable)
    )]
    NotFound { wanted: String, unreachable: Vec<String> },
    #[error("{wanted} may be any of these volumes; name one by its id:\n  {}", .found.join("\n  "))]
    Ambiguous { wanted: String, found: Vec<String> },
}

/// Such an image is rbd-mirror's to sync.
fn is_mirrored(info: &VolumeInfo) -> bool {
    match info.spec.as_ref().and_then(|spec| spec.kind.as_ref()) {
        Some(v1::volume_spec::Kind::RbdImage(image)) => image.replication() != v1::RbdReplication::Delta,
        _ => false,
    }
}

fn unasked(reasons: &[String]) -> String {
    reasons.iter().map(|reason| format!("\n  not asked: {reason}")).collect()
}

impl Fleet {
    /// An agent that can't be asked is noted, not an error: the others may be all that is needed.
    pub(crate) async fn connect(config: &Config) -> Result<Self, Failure> {
        let connected = agents::connect(config).await?;
        let unreachable = connected.unreachable.into_iter().map(|(name, error)| (name, error.into())).collect();
        let mut fleet = Self { agents: Vec::new(), unreachable, roots: Vec::new() };
        for agent in connected.agents {
            match agent.node().get_info(v1::NodeGetInfoRequest {}).await {
                Ok(node) => fleet.add(agent, node.into_inner()),
                Err(status) => fleet.unreachable.push((agent.name.clone(), Failure::told(&agent.name, &status))),
            }
        }
        Ok(fleet)
    }

    fn add(&mut self, agent: Agent, node: v1::NodeGetInfoResponse) {
        let at = self.agents.len();
        self.agents.push(agent);
        self.roots.extend(node.ceph.into_iter().map(|ceph| Root {
            agent: at,
            path: ceph.name.clone(),
            name: ceph.name,
            volumes: ceph.volume_ids,
            problems: Some(ceph.problem).filter(|problem| !problem.is_empty()).into_iter().collect(),
        }));
        self.roots.extend(node.roots.into_iter().map(|root| Root {
            agent: at,
            name: root.name,
            path: root.path,
            volumes: root.volume_ids,
            problems: root.problems,
        }));
    }

    /// Every volume, in the order of its first path.
    pub(crate) async fn volumes(&self) -> Result<Vec<Volume>, Failure> {
        self.load(|_| true).await
    }

    /// By id, by 8 or more characters of its beginning, by path on its host, or by `root/path`.
    pub(crate) async fn find(&self, wanted: &str) -> Result<Volume, Failure> {
        let by_id = self.load(|id| wanted.len() >= ID_CHARS_MIN && id.starts_with(wanted)).await?;
        let found = if by_id.is_empty() { self.find_path(wanted).await? } else { by_id };
        if found.is_empty() {
            let unreachable = self.unreachable.iter().map(|(_, why)| why.to_string()).collect();
            return Err(LookupError::NotFound { wanted: wanted.to_owned(), unreachable }.into());
        }
        let [volume] = <[Volume; 1]>::try_from(found).map_err(|found| LookupError::Ambiguous {
            wanted: wanted.to_owned(),
            found: found.iter().map(|volume| format!("{}  {}", volume.id, volume.label())).collect(),
        })?;
        Ok(volume)
    }

    async fn find_path(&self, wanted: &str) -> Result<Vec<Volume>, Failure> {
        let wanted = wanted.trim_end_matches('/');
        let is_it = |copy: &Replica| copy.path == wanted || copy.name == wanted;
        let mut all = self.load(|_| true).await?;
        all.retain(|volume| volume.copies.iter().any(is_it));
        Ok(all)
    }

    async fn load(&self, wanted: impl Fn(&str) -> bool) -> Result<Vec<Volume>, Failure> {
        let questions = self.roots.iter().flat_map(|root| {
            root.volumes.iter().filter(|id| wanted(id)).map(|id| self.ask(root, id.clone())).collect::<Vec<_>>()
        });
        let mut copies: Vec<Replica> = stream::iter(questions).buffered(QUESTIONS).try_collect().await?;
        copies.retain(|copy| !is_mirrored(&copy.info));
        let mut volumes: BTreeMap<String, Vec<Replica>> = BTreeMap::new();
        for copy in copies {
            volumes.entry(copy.info.volume_id.clone()).or_default().push(copy);
        }
        let mut volumes: Vec<Volume> = volumes.into_iter().map(|(id, copies)| Volume { id, copies }).collect();
        volumes.sort_by_cached_key(Volume::label);
        Ok(volumes)
    }

    async fn ask(&self, root: &Root, volume_id: String) -> Result<Replica, Failure> {
        let agent = self.agents[root.agent].clone();
        let asked = agent
            .replication()
            .get_info(v1::GetInfoRequest { volume_id: volume_id.clone(), local_only: false, spec: None })
            .await;
        let answer = asked.map_err(|status| Failure::told(&agent.name, &status))?.into_inner();
        let info = answer.volume.unwrap_or(VolumeInfo { volume_id, ..VolumeInfo::default() });
        let beneath = match info.spec.as_ref().and_then(|spec| spec.kind.as_ref()) {
            Some(v1::volume_spec::Kind::Directory(directory)) => directory.path.as_str(),
            Some(v1::volume_spec::Kind::BlockFile(file)) => file.path.as_str(),
            Some(v1::volume_spec::Kind::ImageFile(file)) => file.path.as_str(),
            Some(v1::volume_spec::Kind::RbdImage(image)) => {
                let parts = [image.pool.as_str(), &image.namespace, &image.image];
                &parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
            }
            None => ".",
        };
        let join = |top: &str| {
            if beneath == "." { top.to_owned() } else { format!("{top}/{beneath}") }
        };
        Ok(Replica { path: join(root.path.trim_end_matches('/')), name: join(&root.name), agent, info })
    }

    /// What can't be asked, in words.
    pub(crate) fn absent(&self) -> impl Iterator<Item = String> {
        let silent = self.unreachable.iter().map(|(_, why)| why.to_string());
        silent.chain(self.problems().map(|(agent, root, problem)| format!("agent {agent}, root {root}: {problem}")))
    }

    /// Agent, root and problem.
    pub(crate) fn problems(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.roots.iter().flat_map(|root| {
            let agent = self.agents[root.agent].name.as_str();
            root.problems.iter().map(move |problem| (agent, root.name.as_str(), problem.as_str()))
        })
    }
}

impl Replica {
    pub(crate) fn is_primary(&self) -> bool {
        self.info.role() == VolumeRole::Primary
    }
}

impl Volume {
    pub(crate) fn primaries(&self) -> impl Iterator<Item = &Replica> {
        self.copies.iter().filter(|copy| copy.is_primary())
    }

    pub(crate) fn secondaries(&self) -> impl Iterator<Item = &Replica> {
        self.copies.iter().filter(|copy| !copy.is_primary())
    }

    /// Whether any copy says where syncs go to or come from.
    pub(crate) fn has_peer(&self) -> bool {
        self.copies.iter().any(|copy| copy.info.peer.is_some())
    }

    /// How people call it: the name of its primary, or of any copy.
    pub(crate) fn label(&self) -> String {
        let copy = self.primaries().next().or(self.copies.first());
        copy.map_or_else(|| self.id.clone(), |copy| copy.name.clone())
    }
}
