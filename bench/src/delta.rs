//! An RBD image that the agents sync, beside `rbd export-diff | rbd import-diff`: on two real clusters that are not mirrored. The rival's bytes go
//! through a pipe of this host, the agents' over TLS.

use std::{collections::BTreeMap, process::Command, time::Instant};

use anyhow::{Context, Result, ensure};
use drover_proto::v1::{self, VolumeRole};
use drover_tests::{
    ceph::{Clusters, Image, Release},
    fleet,
    host::{Agent, SYNC},
    scratch::Scratch,
};
use serde::Serialize;

use crate::{meter::median, random::Random};

const BYTES: u64 = 1 << 30;
const PAGE: u64 = 4096;
const OBJECT: u64 = 4 << 20;
/// 1 % of the pages of the image.
const PAGES: u64 = BYTES / PAGE / 100;
const OBJECTS: u64 = 16;
/// Of the image that each contestant has at both sites.
const OF_DROVER: &str = "by-drover";
const OF_RBD: &str = "by-rbd";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Change {
    /// All of the image, to a new one.
    Full,
    /// Random pages.
    Pages,
    /// Whole objects.
    Objects,
}

impl Change {
    const ALL: [Self; 3] = [Self::Full, Self::Pages, Self::Objects];

    fn name(self) -> &'static str {
        match self {
            Self::Full => "full, 1 GiB",
            Self::Pages => "1 % of its 4 KiB pages",
            Self::Objects => "16 whole 4 MiB objects",
        }
    }

    fn bytes(self) -> u64 {
        match self {
            Self::Full => BYTES,
            Self::Pages => PAGES * PAGE,
            Self::Objects => OBJECTS * OBJECT,
        }
    }

    /// Of the rival's time.
    fn goal(self) -> f64 {
        match self {
            Self::Full => 0.6,
            Self::Pages => 0.4,
            Self::Objects => 1.0,
        }
    }
}

/// Seconds and bytes on the wire of each round.
#[derive(Debug, Default, Serialize)]
struct Row {
    drover: Vec<f64>,
    rbd: Vec<f64>,
    wire: Vec<f64>,
}

#[derive(Debug, Default, Serialize)]
pub struct Measured(BTreeMap<Change, Row>);

struct Sites {
    // Agents end before the clusters do.
    a: Agent,
    b: Agent,
    clusters: Clusters,
    random: Random,
    volume: String,
    /// Of the rival's snapshots.
    round: u64,
    _scratch: Scratch,
}

/// The agents are the `drover-agent` beside this program.
pub fn run(rounds: u64) -> Result<Measured> {
    if let Some(why) = Release::Pacific.missing() {
        anyhow::bail!("{why}");
    }
    let (clusters, scratch) = (Clusters::start(Release::Pacific), Scratch::new("delta"));
    let [a, b] = fleet::agents(&clusters, &scratch);
    let (random, volume) = (Random::new(7), String::new());
    let mut sites = Sites { a, b, clusters, random, volume, round: 0, _scratch: scratch };
    eprintln!("delta: making two images of {} MiB", BYTES >> 20);
    for name in [OF_DROVER, OF_RBD] {
        let image = sites.clusters.a.image(name);
        image.create(BYTES);
        for at in (0..BYTES).step_by(64 << 20) {
            let noise = sites.random.noise(64 << 20);
            image.write(&[(at, &noise)]);
        }
    }
    let mut measured = Measured::default();
    for change in Change::ALL {
        for round in 0..=rounds {
            eprintln!("delta: {}, round {round} of {rounds}", change.name());
            sites.prepare(change)?;
            // By turns one or the other is the first.
            let ((drover, wire), rbd) = match round % 2 {
                0 => {
                    let drover = sites.drover()?;
                    (drover, sites.rbd(change)?)
                }
                _ => {
                    let rbd = sites.rbd(change)?;
                    (sites.drover()?, rbd)
                }
            };
            // The first is not counted.
            if round > 0 {
                let row = measured.0.entry(change).or_default();
                row.drover.push(drover);
                row.rbd.push(rbd);
                row.wire.push(wire);
            }
        }
    }
    for name in [OF_DROVER, OF_RBD] {
        let contents = [&sites.clusters.a, &sites.clusters.b].map(|cluster| cluster.image(name).content());
        ensure!(contents[0].differences(&contents[1]).is_empty(), "{name}: the copy is not the same");
    }
    Ok(measured)
}

impl Sites {
    /// Both images are changed, or their copies are new.
    fn prepare(&mut self, change: Change) -> Result<()> {
        let ranges: Vec<u64> = match change {
            Change::Full => {
                self.begin_anew()?;
                return Ok(());
            }
            Change::Pages => (0..PAGES).map(|_| self.random.below(BYTES / PAGE) * PAGE).collect(),
            Change::Objects => (0..OBJECTS).map(|_| self.random.below(BYTES / OBJECT) * OBJECT).collect(),
        };
        let length = if change == Change::Pages { PAGE } else { OBJECT };
        let parts: Vec<(u64, Vec<u8>)> =
            ranges.into_iter().map(|at| (at, self.random.noise(length as usize))).collect();
        let parts: Vec<_> = parts.iter().map(|(at, content)| (*at, content.as_slice())).collect();
        for name in [OF_DROVER, OF_RBD] {
            self.clusters.a.image(name).write(&parts);
        }
        Ok(())
    }

    fn begin_anew(&mut self) -> Result<()> {
        let [a, b] = [&self.clusters.a, &self.clusters.b];
        if !self.volume.is_empty() {
            for agent in [&self.b, &self.a] {
                let client = agent.controller();
                let request = v1::DisableRequest { volume_id: self.volume.clone(), ..v1::DisableRequest::default() };
                client.call(client.replication().disable(request)).context("disable a volume")?;
            }
            for name in [OF_DROVER, OF_RBD] {
                b.rbd(&["snap", "purge", "--no-progress", b.image(name).spec()]);
                b.rbd(&["rm", "--no-progress", b.image(name).spec()]);
            }
            a.rbd(&["snap", "purge", "--no-progress", a.image(OF_RBD).spec()]);
        }
        b.image(OF_RBD).create(BYTES);
        self.volume = uuid::Uuid::new_v4().to_string();
        for (agent, role) in [(&self.a, VolumeRole::Primary), (&self.b, VolumeRole::Secondary)] {
            let replication = v1::RbdReplication::Delta.into();
            let image = v1::RbdImage { replication, ..fleet::rbd_image(a, OF_DROVER) };
            let request = fleet::enable_request(&self.volume, image, role);
            agent.controller().enable(request).context("enable a volume")?;
        }
        Ok(())
    }

    /// Seconds, and bytes on the wire.
    fn drover(&self) -> Result<(f64, f64)> {
        let client = self.a.controller();
        let begun = Instant::now();
        let request = v1::StartRequest { volume_id: self.volume.clone(), ..v1::StartRequest::default() };
        let job = client.start(request).context("start a sync")?;
        let outcome = client.outcome(&job, SYNC).context("watch a sync")?.expect_done("a sync");
        let seconds = begun.elapsed().as_secs_f64();
        eprintln!("delta: {seconds:.2} s, of which in ms: {}", outcome.report["durations"]);
        Ok((seconds, (outcome.number("/wire_sent") + outcome.number("/wire_received")) as f64))
    }

    fn rbd(&mut self, change: Change) -> Result<f64> {
        self.round += 1;
        let [a, b] = [&self.clusters.a, &self.clusters.b];
        let [from, to]: [Image<'_>; 2] = [a.image(OF_RBD), b.image(OF_RBD)];
        let (source, target, round, conf) = (from.spec(), to.spec(), self.round, b.conf());
        let since = if change == Change::Full { String::new() } else { format!("--from-snap r{}", round - 1) };
        let script = format!(
            "set -e -o pipefail; rbd snap create --no-progress {source}@r{round}
             rbd export-diff --no-progress {since} {source}@r{round} - | CEPH_CONF={} rbd import-diff --no-progress - {target}",
            conf.display()
        );
        let mut shell: Command = a.tool("bash");
        let begun = Instant::now();
        let done = shell.args(["-c", &script]).output().context("run a shell")?;
        ensure!(done.status.success(), "rbd: {}", String::from_utf8_lossy(&done.stderr));
        Ok(begun.elapsed().as_secs_f64())
    }
}

impl Measured {
    pub fn table(&self) -> String {
        use std::fmt::Write as _;
        let mut text = format!(
            "\n{:26}{:>10}{:>36}{:>10}{:>16}\n",
            "an RBD image, seconds", "drover", "rbd export-diff | rbd import-diff", "ratio", "wire / changed"
        );
        let verdict = |is_met: bool| if is_met { "PASS" } else { "MISSED" };
        for (change, row) in &self.0 {
            let (drover, rbd) = (median(row.drover.clone()), median(row.rbd.clone()));
            let wire = median(row.wire.clone()) / change.bytes() as f64;
            let (ratio, goal) = (drover / rbd, change.goal());
            let _ = writeln!(text, "{:26}{drover:>10.2}{rbd:>36.2}{ratio:>10.2}{wire:>16.2}", change.name());
            let _ = writeln!(text, "goal: it / rbd       {ratio:>8.2} <= {goal:.2}      {}", verdict(ratio <= goal));
            if *change == Change::Pages {
                let _ = writeln!(text, "goal: wire / changed {wire:>8.2} <= 1.20      {}", verdict(wire <= 1.2));
            }
        }
        text
    }
}
