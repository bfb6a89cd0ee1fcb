//! Agents that meet compare their copies (R8): a primary that was promoted elsewhere meanwhile is one no more.
//!
//! Every agent asks its peers every few seconds, and is asked by them, so one direction of a link is enough. What is learned is
//! durable before anything is done about it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use drover_engine::{id::VolumeId, point::Role};
use drover_proto::v1::{self, CompareCopiesRequest, CopyRole, transfer_client::TransferClient};
use tokio::{sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::{
    exports::SharedExports,
    peers::Peers,
    rpc::status::chain,
    tls::Caller,
    volumes::{Held, Volumes},
    work::{Lane, Lanes},
};

/// Between two looks: an old primary's clients are shut out soon after it is back.
const LOOK: Duration = Duration::from_secs(5);
/// An answer takes milliseconds; a peer that hangs is asked again later.
const PATIENCE: Duration = Duration::from_secs(10);
/// Copies that one request may tell.
pub const COPIES_MAX: usize = 10_000;

#[derive(Debug)]
pub struct Superseding {
    volumes: Arc<Volumes>,
    peers: Arc<Peers>,
    exports: SharedExports,
    lanes: Arc<Lanes>,
    /// A copy of this agent was superseded just now.
    news: Notify,
    /// Both copies are primary and neither has the higher epoch.
    rivals: Mutex<BTreeMap<VolumeId, String>>,
    /// Peers that did not answer the last time.
    silent: Mutex<BTreeSet<String>>,
}

impl Superseding {
    pub fn new(volumes: Arc<Volumes>, peers: Arc<Peers>, exports: SharedExports, lanes: Arc<Lanes>) -> Self {
        Self { volumes, peers, exports, lanes, news: Notify::new(), rivals: Mutex::default(), silent: Mutex::default() }
    }

    /// Keeps fences up, for as long as the agent runs. An NFS server that hangs keeps no copies from being compared.
    pub async fn settle_always(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let (exports, volumes) = (self.exports.clone(), self.volumes.clone());
            let settled = self.lanes.run(Lane::Exports, move || exports.settle(&volumes));
            tokio::select! {
                () = stop.cancelled() => return,
                settled = settled => if let Err(panicked) = settled {
                    tracing::error!("fences were not looked at: {panicked}");
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.news.notified() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// For as long as the agent runs.
    pub async fn compare_always(self: Arc<Self>, stop: CancellationToken) {
        let mut channels = BTreeMap::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.ask_all(&mut channels) => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    async fn ask_all(self: &Arc<Self>, channels: &mut BTreeMap<String, Channel>) {
        let mut asking = JoinSet::new();
        for peer in self.peers.names() {
            let (all, known) = (self.clone(), channels.remove(&peer));
            asking.spawn(async move {
                let asked = tokio::time::timeout(PATIENCE, all.ask(&peer, known)).await;
                let asked = asked.unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs())));
                (peer, asked)
            });
        }
        while let Some(asked) = asking.join_next().await {
            let Ok((peer, asked)) = asked else { continue };
            let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
            match asked {
                Ok(channel) => {
                    silent.remove(&peer);
                    channels.extend(channel.map(|channel| (peer, channel)));
                }
                Err(error) => {
                    if silent.insert(peer.clone()) {
                        tracing::info!(
                            peer,
                            "copies are not compared, so a primary may not learn that it is superseded: {error}"
                        );
                    }
                }
            }
        }
    }

    /// Tells a peer this agent's copies and compares what it tells of them. `None`: there is nothing to ask it.
    async fn ask(self: &Arc<Self>, peer: &str, known: Option<Channel>) -> Result<Option<Channel>, String> {
        let copies = self.copies_of(peer);
        if copies.is_empty() {
            return Ok(None);
        }
        let channel = match known {
            Some(channel) => channel,
            None => self.peers.connect(peer).await.map_err(|error| chain(&error))?,
        };
        for copies in copies.chunks(COPIES_MAX) {
            let request = CompareCopiesRequest { copies: copies.to_vec() };
            let told = TransferClient::new(channel.clone()).compare_copies(request).await;
            let told = told.map_err(|status| status.message().to_owned())?.into_inner().copies;
            let (all, peer) = (self.clone(), peer.to_owned());
            let compared = self.lanes.run(Lane::Calls, move || all.compare(&peer, &told)).await;
            compared.map_err(|error| error.to_string())?;
        }
        Ok(Some(channel))
    }

    /// Those that name `peer`, or nobody.
    fn copies_of(&self, peer: &str) -> Vec<CopyRole> {
        let is_theirs = |held: &&Arc<Held>| held.volume.state().peer.is_none_or(|name| name == peer);
        self.volumes.all().iter().filter(is_theirs).map(|held| role_of(held)).collect()
    }

    /// What the other side says, against what is here. Blocks.
    fn compare(&self, peer: &str, copies: &[CopyRole]) {
        for copy in copies {
            let Ok(id) = copy.volume_id.parse::<VolumeId>() else { continue };
            let Ok(held) = self.volumes.get(id) else { continue };
            let state = held.volume.state();
            // Another site's agent has no business with it.
            if state.peer.as_deref().is_some_and(|name| name != peer) {
                continue;
            }
            let is_rival = copy.primary
                && state.role == Role::Primary
                && copy.epoch == state.epoch
                && copy.lineage != state.lineage.to_string();
            self.rival(id, is_rival.then_some(peer));
            if !copy.primary {
                if let Err(error) = held.volume.see_epoch(copy.epoch) {
                    tracing::warn!(volume = %id, peer, "its peer's epoch can't be noted: {}", chain(&error));
                }
                continue;
            }
            match held.volume.supersede(peer, copy.epoch) {
                Ok(true) => {
                    tracing::error!(volume = %id, peer, epoch = copy.epoch, "this primary is superseded: the peer was promoted");
                    self.news.notify_one();
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(volume = %id, peer, "that it is superseded can't be noted: {}", chain(&error))
                }
            }
        }
    }

    fn rival(&self, id: VolumeId, peer: Option<&str>) {
        let mut rivals = self.rivals.lock().unwrap_or_else(PoisonError::into_inner);
        match peer {
            Some(peer) => {
                if rivals.insert(id, peer.to_owned()).is_none() {
                    tracing::error!(volume = %id, peer, "both copies are primary, and neither has the higher epoch: demote one");
                }
            }
            None => drop(rivals.remove(&id)),
        }
    }

    /// The peer whose copy is primary under the same epoch.
    pub fn rival_of(&self, id: VolumeId) -> Option<String> {
        self.rivals.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// A peer tells its copies and is told the same ones of this agent. Blocks.
    pub fn answer(&self, caller: &Caller, copies: &[CopyRole]) -> Vec<CopyRole> {
        let Some(peer) = self.peers.name_of(&caller.names) else { return Vec::new() };
        self.compare(&peer, copies);
        let asked: BTreeSet<&str> = copies.iter().map(|copy| copy.volume_id.as_str()).collect();
        let mut ours = self.copies_of(&peer);
        ours.retain(|copy| asked.contains(copy.volume_id.as_str()));
        ours
    }
}

fn role_of(held: &Held) -> CopyRole {
    let state = held.volume.state();
    v1::CopyRole {
        volume_id: held.volume.id().to_string(),
        primary: state.role == Role::Primary,
        epoch: state.epoch,
        lineage: state.lineage.to_string(),
    }
}
