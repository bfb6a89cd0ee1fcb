//! Contestants in turn: every round changes the source once, then each brings its own replica up to date. The order
//! turns from round to round, and the first round, which meets cold memory and cold indexes, is not counted.

use std::{collections::HashMap, path::Path, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::{
    agents::{Agents, Pair},
    blocksync,
    meter::{Cost, median_cost},
    rsync::{Rsync, Variant, differences, same_content},
    site::Site,
    workload::Workload,
};

/// Files younger than 5 s are read again by the next sync (rule R9), so each round lets them age first. Whoever syncs
/// every second pays for that; whoever syncs every minute does not.
pub const AGE: Duration = Duration::from_secs(6);

#[derive(Debug, Serialize)]
pub struct Outcome {
    pub workload: Workload,
    pub contestants: Vec<Contestant>,
    /// Bytes of content that are new in each counted round.
    pub changed_bytes: Vec<u64>,
}

#[derive(Debug, Serialize)]
pub struct Contestant {
    pub name: &'static str,
    pub median: Cost,
    pub rounds: Vec<Cost>,
    /// What Drover says of its last round.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<serde_json::Value>,
}

pub const DROVER: &str = "drover";

impl Outcome {
    pub fn drover(&self) -> Option<&Contestant> {
        self.rival(DROVER)
    }

    pub fn rival(&self, name: &str) -> Option<&Contestant> {
        self.contestants.iter().find(|contestant| contestant.name == name)
    }

    pub fn changed_bytes_median(&self) -> f64 {
        crate::meter::median(self.changed_bytes.iter().map(|bytes| *bytes as f64).collect())
    }
}

pub struct Arena<'a> {
    pub site: &'a Site,
    pub rsync: &'a Rsync,
    /// None: rivals among themselves.
    pub agents: Option<&'a Agents>,
    pub rounds: u64,
    /// Drover's is lost before each round.
    pub is_without_index: bool,
    with_rivals: bool,
    /// Volumes by their source: workloads on one source share them.
    pairs: HashMap<&'static str, Pair>,
    round: u64,
}

#[derive(Clone, Copy)]
enum Entrant {
    Drover,
    Rival(&'static Variant),
    Blocksync,
}

impl Entrant {
    fn name(self) -> &'static str {
        match self {
            Self::Drover => DROVER,
            Self::Rival(variant) => variant.name,
            Self::Blocksync => blocksync::NAME,
        }
    }
}

#[derive(Clone, Copy)]
enum Purpose {
    /// Makes every replica equal to the source, however long that takes.
    CatchUp,
    Measure,
}

struct Series {
    entrant: Entrant,
    costs: Vec<Cost>,
    report: Option<serde_json::Value>,
}

impl<'a> Arena<'a> {
    pub fn new(site: &'a Site, rsync: &'a Rsync, agents: Option<&'a Agents>, rounds: u64, with_rivals: bool) -> Self {
        Self { site, rsync, agents, rounds, is_without_index: false, with_rivals, pairs: HashMap::new(), round: 0 }
    }

    pub fn run(&mut self, workload: Workload) -> Result<Outcome> {
        let source = self.site.source_ready(workload)?;
        let mut series = self.entrants(workload);
        let mut changed_bytes = Vec::new();
        // Replicas that exist are of an earlier round or workload: this makes them equal to the source.
        if !workload.is_first_copy() {
            eprintln!("{}: first copies, not measured", workload.name());
            self.round(workload, &source, &mut series, Purpose::CatchUp)?;
            series.iter_mut().for_each(|series| series.costs.clear());
        }
        for round in 0..=self.rounds {
            eprintln!("{}: round {round} of {}", workload.name(), self.rounds);
            self.round += 1;
            changed_bytes.push(workload.change(&source, self.round, self.site.size)?);
            thread::sleep(AGE);
            self.round(workload, &source, &mut series, Purpose::Measure)?;
            if round == self.rounds {
                self.judge(workload, &source, &series)?;
            }
            if workload.is_first_copy() && workload.image().is_some() {
                self.rsync.forget(self.site, &self.replica(workload))?;
            }
            series.rotate_left(1);
        }
        let order = self.entrants(workload);
        series.sort_by_key(|series| order.iter().position(|placed| placed.entrant.name() == series.entrant.name()));
        let contestants = series.into_iter().map(Series::finish).collect();
        Ok(Outcome { workload, contestants, changed_bytes: changed_bytes.split_off(1) })
    }

    /// As the table lists them.
    fn entrants(&self, workload: Workload) -> Vec<Series> {
        let drover = self.agents.map(|_| Entrant::Drover);
        let rivals = Variant::of(workload, self.site).iter().filter(|_| self.with_rivals).map(Entrant::Rival);
        let has_local_files = !self.site.is_on_devices() && !self.site.network.is_wan();
        let is_its_own = workload == Workload::ImageChanged && has_local_files;
        let blocksync = is_its_own && self.with_rivals && blocksync::is_on_path();
        let entrants = drover.into_iter().chain(rivals).chain(blocksync.then_some(Entrant::Blocksync));
        entrants.map(|entrant| Series { entrant, costs: Vec::new(), report: None }).collect()
    }

    fn round(&mut self, workload: Workload, source: &Path, series: &mut [Series], purpose: Purpose) -> Result<()> {
        for series in series {
            let cost = match (series.entrant, self.agents) {
                (Entrant::Drover, Some(agents)) => {
                    let pair = self.pair(agents, workload)?;
                    if self.is_without_index {
                        pair.lose_index(self.site)?;
                    }
                    let (cost, report) = match purpose {
                        Purpose::Measure if workload.is_verification() => agents.verify_deep(self.site, &pair)?,
                        _ => agents.sync(self.site, &pair)?,
                    };
                    series.report = Some(report);
                    cost
                }
                (Entrant::Drover, None) => continue,
                (Entrant::Blocksync, _) => blocksync::copy(self.site, source, &self.replica(workload))?,
                (Entrant::Rival(variant), _) => self.rsync.copy(self.site, variant, source, &self.replica(workload))?,
            };
            series.costs.push(cost);
        }
        Ok(())
    }

    /// Name of the replica: a first copy needs a new one each time. No tree is deleted during the run, because ext4
    /// creates files more slowly for minutes after a large deletion; images are, because they would fill the disk.
    fn replica(&self, workload: Workload) -> String {
        match workload.is_first_copy() {
            true => format!("{}-{}", workload.source(), self.round),
            false => workload.source().to_owned(),
        }
    }

    fn pair(&mut self, agents: &Agents, workload: Workload) -> Result<Pair> {
        let replica = self.replica(workload);
        let known = self.pairs.get(workload.source()).cloned();
        if let Some(pair) = known {
            if !workload.is_first_copy() {
                return Ok(pair);
            }
            agents.disable(&pair)?;
            if workload.image().is_some() {
                self.site.forget(&pair.replica)?;
            }
        }
        let pair = agents.enable(self.site, workload.source(), &replica, workload.image())?;
        self.pairs.insert(workload.source(), pair.clone());
        Ok(pair)
    }

    /// A fast copy that is wrong is no result, a rival's neither.
    fn judge(&self, workload: Workload, source: &Path, series: &[Series]) -> Result<()> {
        for series in series {
            let replica = match series.entrant {
                Entrant::Drover => continue,
                Entrant::Rival(variant) => self.rsync.replica(self.site, variant, &self.replica(workload)),
                Entrant::Blocksync => blocksync::replica(self.site, &self.replica(workload)),
            };
            if let Some(image) = workload.image() {
                same_content(&source.join(image), &replica.join(image)).context(series.entrant.name())?;
            }
        }
        if let Some(pair) = self.pairs.get(workload.source()) {
            if let Some(image) = workload.image() {
                return same_content(&source.join(image), &pair.replica.join(image));
            }
            let differences = differences(source, &pair.replica)?;
            ensure!(differences.is_empty(), "{}: Drover's replica differs:\n{differences}", workload.name());
        }
        Ok(())
    }
}

impl Series {
    fn finish(self) -> Contestant {
        let name = self.entrant.name();
        let rounds = self.costs.get(1..).unwrap_or_default().to_vec();
        Contestant { name, median: median_cost(&rounds), rounds, report: self.report }
    }
}
