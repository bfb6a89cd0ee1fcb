//! All volumes on all agents, opened by the one sentence that matters.

mod judge;

use std::time::Duration;

use drover_proto::v1::{Health, VolumeRole};
use drover_report::{Ago, Exit, Moment, Table};
use serde::Serialize;

use judge::Asked;

use super::Say;
use crate::fleet::{Fleet, Replica, Volume};

#[derive(Clone, Debug, Serialize)]
pub(crate) struct StatusReport {
    pub healthy: bool,
    /// Everything that is wrong, the worst first.
    pub because: Vec<String>,
    pub agents: Vec<AgentStatus>,
    pub volumes: Vec<VolumeStatus>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct AgentStatus {
    pub name: String,
    pub reachable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct VolumeStatus {
    pub id: String,
    pub name: String,
    pub both_primary: bool,
    pub because: Vec<String>,
    pub copies: Vec<CopyStatus>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct CopyStatus {
    pub agent: String,
    pub path: String,
    pub role: &'static str,
    /// The agent that syncs go to or come from; a volume of `drover-agent copy` has none.
    pub peer: Option<String>,
    pub epoch: u64,
    pub newest_point: Option<String>,
    pub newest_taken_at_unix_secs: Option<i64>,
    pub confirmed_at_unix_secs: Option<i64>,
    /// What a failover now would lose.
    pub rpo_age_seconds: Option<u64>,
    pub oldest_read_unix_secs: Option<i64>,
    pub health: &'static str,
    pub health_because: Vec<String>,
    pub paused: bool,
    pub resync: bool,
    pub running_job: Option<String>,
}

pub(crate) fn role(role: VolumeRole) -> &'static str {
    match role {
        VolumeRole::Unspecified => "unknown",
        VolumeRole::Primary => "primary",
        VolumeRole::Secondary => "secondary",
    }
}

fn health(health: Health) -> &'static str {
    match health {
        Health::Unspecified => "unknown",
        Health::Ok => "ok",
        Health::Degraded => "degraded",
        Health::Error => "error",
    }
}

impl StatusReport {
    pub(crate) fn new(fleet: &Fleet, volumes: &[Volume]) -> Self {
        let answering =
            fleet.agents.iter().map(|agent| AgentStatus { name: agent.name.clone(), reachable: true, error: None });
        let silent = fleet.unreachable.iter().map(|(name, error)| AgentStatus {
            name: name.clone(),
            reachable: false,
            error: Some(error.to_string()),
        });
        let problems =
            fleet.problems().map(|(agent, root, problem)| format!("{agent}, root {root}: {problem}")).collect();
        Self::judged(answering.chain(silent).collect(), volumes.iter().map(VolumeStatus::new).collect(), problems)
    }

    fn judged(agents: Vec<AgentStatus>, mut volumes: Vec<VolumeStatus>, problems: Vec<String>) -> Self {
        let is_complete = agents.len() > 1 && agents.iter().all(|agent| agent.reachable);
        let asked = if is_complete { Asked::Everyone } else { Asked::Some };
        for volume in &mut volumes {
            volume.both_primary = judge::is_split(&volume.copies);
            volume.because = judge::volume(&volume.copies, asked);
        }
        // A split brain grows with every write, so it comes first.
        let told = |split: bool| {
            let which = volumes.iter().filter(move |volume| volume.both_primary == split);
            which.flat_map(|volume| volume.because.iter().map(|why| format!("{}: {why}", volume.name)))
        };
        let silent = agents.iter().filter_map(|agent| agent.error.clone());
        let because: Vec<String> = told(true).chain(silent).chain(problems).chain(told(false)).collect();
        Self { healthy: because.is_empty(), because, agents, volumes }
    }

    pub(crate) fn exit(&self) -> Exit {
        match (self.healthy, self.agents.iter().all(|agent| agent.reachable)) {
            (true, _) => Exit::Ok,
            (false, true) => Exit::Failure,
            (false, false) => Exit::Unreachable,
        }
    }

    fn headline(&self) -> String {
        let (volumes, agents) = (self.volumes.len(), self.agents.len());
        let counted = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        match self.because.as_slice() {
            [] if volumes == 0 => format!("healthy: no volume is protected yet on {}\n", counted(agents, "agent")),
            [] => format!("healthy: {} on {}\n", counted(volumes, "volume"), counted(agents, "agent")),
            [why] => format!("NOT HEALTHY: {why}\n"),
            [why, more @ ..] => format!("NOT HEALTHY: {why} (and {} more)\n", more.len()),
        }
    }

    fn table(&self) -> Table {
        let mut table = Table::new(["VOLUME", "PATH", "AGENT", "ROLE", "EPOCH", "NEWEST", "RPO", "HEALTH", "JOB"]);
        for volume in &self.volumes {
            for (at, copy) in volume.copies.iter().enumerate() {
                let short = volume.id.get(..8).unwrap_or(&volume.id);
                table.row([
                    if at == 0 { short.to_owned() } else { String::new() },
                    copy.path.clone(),
                    copy.agent.clone(),
                    if volume.both_primary { copy.role.to_uppercase() } else { copy.role.to_owned() },
                    copy.epoch.to_string(),
                    copy.newest_point.clone().unwrap_or_else(|| "none".to_owned()),
                    copy.rpo_age_seconds.map_or_else(|| "-".to_owned(), |s| Ago(Duration::from_secs(s)).to_string()),
                    copy.shown_health(),
                    copy.running_job.clone().unwrap_or_default(),
                ]);
            }
        }
        table
    }
}

impl VolumeStatus {
    fn new(volume: &Volume) -> Self {
        Self {
            id: volume.id.clone(),
            name: volume.label(),
            both_primary: false,
            because: Vec::new(),
            copies: volume.copies.iter().map(CopyStatus::new).collect(),
        }
    }
}

impl CopyStatus {
    fn new(copy: &Replica) -> Self {
        let info = &copy.info;
        Self {
            agent: copy.agent.name.clone(),
            path: copy.path.clone(),
            role: role(info.role()),
            peer: info.peer.clone(),
            epoch: info.epoch,
            newest_point: info.newest.as_ref().map(|point| point.id.clone()),
            newest_taken_at_unix_secs: info.newest.as_ref().map(|point| point.taken_at_unix_secs),
            confirmed_at_unix_secs: info.confirmed_at_unix_secs,
            rpo_age_seconds: info.rpo_age_seconds,
            oldest_read_unix_secs: info.oldest_read_unix_secs,
            health: health(info.health()),
            health_because: info.health_because.clone(),
            paused: info.paused,
            resync: info.resync,
            running_job: info.running_job.clone(),
        }
    }

    fn shown_health(&self) -> String {
        if self.paused { format!("{}, paused", self.health) } else { self.health.to_owned() }
    }
}

impl Say for StatusReport {
    fn text(&self) -> String {
        let mut out = self.headline();
        for volume in self.volumes.iter().filter(|volume| volume.both_primary) {
            out.push_str(&format!("!!! BOTH COPIES OF {} ARE PRIMARY !!!\n", volume.name));
        }
        if self.because.len() > 1 {
            out.extend(self.because.iter().map(|why| format!("  - {why}\n")));
        }
        if !self.volumes.is_empty() {
            out.push_str(&format!("\n{}\nas of {}\n", self.table(), Moment::now()));
        }
        out
    }
}

#[cfg(test)]
mod tests;
