//! Many RBD images promoted as one, beside what a script with `rbd` does: on two real clusters, mirrored by rbd-mirror.

use std::{
    collections::BTreeMap,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use drover_tests::{
    ceph::{Cluster, Kind, Release},
    fleet::Fleet,
    host::Agent,
};
use serde::Serialize;

use crate::meter::median;

/// Of each image: what matters here is how many there are.
const BYTES: u64 = 8 << 20;
const CONTENT: usize = 64 << 10;
/// Watches and locks of a killed daemon run out (`osd_client_watch_timeout` is 30 s): waiting for them is the same for all.
const DEAD: Duration = Duration::from_secs(40);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Contestant {
    Drover,
    /// `for image in …; do rbd …; done`
    Loop,
    /// `… | xargs -P4 -n1 rbd …`
    Xargs,
}

impl Contestant {
    const ALL: [Self; 3] = [Self::Drover, Self::Loop, Self::Xargs];

    fn name(self) -> &'static str {
        match self {
            Self::Drover => "drover group",
            Self::Loop => "rbd in a loop",
            Self::Xargs => "rbd by xargs -P4",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Demote,
    Promote,
    PromoteByForce,
}

impl Verb {
    fn of_rbd(self) -> &'static str {
        match self {
            Self::Demote => "demote",
            Self::Promote => "promote",
            Self::PromoteByForce => "promote --force",
        }
    }
}

/// Seconds of each round, by what was done.
#[derive(Debug, Default, Serialize)]
pub struct Measured {
    images: usize,
    demote: BTreeMap<Contestant, Vec<f64>>,
    promote: BTreeMap<Contestant, Vec<f64>>,
    /// Each has its own images, since a promotion by force is not undone but by copying all of them again.
    promote_by_force: BTreeMap<Contestant, Vec<f64>>,
}

/// The agents are the `drover-agent` beside this program.
pub fn run(images: usize, rounds: u64) -> Result<Measured> {
    if let Some(why) = Release::Pacific.missing() {
        anyhow::bail!("{why}");
    }
    eprintln!("images: {} of them on two clusters", images * Contestant::ALL.len());
    let fleet = Fleet::start(Release::Pacific, Contestant::ALL.len(), images, BYTES, &[7; CONTENT]);
    let mut measured = Measured { images, ..Measured::default() };
    for group in 0..Contestant::ALL.len() {
        fleet.sync(group, &fleet.a, &fleet.b);
    }
    for round in 0..=rounds {
        for (group, contestant) in Contestant::ALL.into_iter().enumerate() {
            eprintln!("images: {}, round {round} of {rounds}", contestant.name());
            let sites = [(&fleet.a, &fleet.clusters.a), (&fleet.b, &fleet.clusters.b)];
            // There and back: the groups begin and end at site-a.
            for [from, to] in [[sites[0], sites[1]], [sites[1], sites[0]]] {
                let demoted = carry_out(&fleet, contestant, group, from, Verb::Demote)?;
                fleet.wait_safe(group, to.0);
                let promoted = carry_out(&fleet, contestant, group, to, Verb::Promote)?;
                fleet.sync(group, to.0, from.0);
                // The first is not counted.
                if round > 0 {
                    measured.demote.entry(contestant).or_default().push(demoted);
                    measured.promote.entry(contestant).or_default().push(promoted);
                }
            }
        }
    }
    eprintln!("images: site-a and the other site's rbd-mirror are killed");
    fleet.clusters.a.kill();
    fleet.clusters.a.kill_rbd_mirror();
    fleet.clusters.b.kill_daemon(Kind::RbdMirror);
    thread::sleep(DEAD);
    for (group, contestant) in Contestant::ALL.into_iter().enumerate() {
        eprintln!("images: {} by force", contestant.name());
        let to = (&fleet.b, &fleet.clusters.b);
        let promoted = carry_out(&fleet, contestant, group, to, Verb::PromoteByForce)?;
        measured.promote_by_force.entry(contestant).or_default().push(promoted);
    }
    Ok(measured)
}

/// Seconds until all images of the group are what they were asked to be.
fn carry_out(
    fleet: &Fleet,
    contestant: Contestant,
    group: usize,
    (agent, cluster): (&Agent, &Cluster),
    verb: Verb,
) -> Result<f64> {
    let begun = Instant::now();
    match contestant {
        Contestant::Drover => match verb {
            Verb::Demote => fleet.demote(group, agent)?,
            Verb::Promote => drop(fleet.promote(group, agent, false)?),
            Verb::PromoteByForce => drop(fleet.promote(group, agent, true)?),
        },
        Contestant::Loop | Contestant::Xargs => {
            let call = format!("rbd mirror image {}", verb.of_rbd());
            let names = fleet.groups[group].iter().map(|name| format!("{}/{name}", cluster.pool()));
            let names = names.collect::<Vec<_>>().join(" ");
            let script = match contestant {
                Contestant::Loop => format!("set -e; for image in {names}; do {call} $image; done"),
                Contestant::Drover | Contestant::Xargs => format!("printf '%s\\n' {names} | xargs -P4 -n1 {call}"),
            };
            let mut shell: Command = cluster.tool("sh");
            let done = shell.args(["-c", &script]).output().context("run a shell")?;
            ensure!(done.status.success(), "{}: {}", contestant.name(), String::from_utf8_lossy(&done.stderr));
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    eprintln!("images: {}, {} in {seconds:.2} s", contestant.name(), verb.of_rbd());
    Ok(seconds)
}

impl Measured {
    /// Medians, and the ratios to both rivals. The goals: five times as fast as the loop, and not slower than xargs.
    pub fn table(&self) -> String {
        use std::fmt::Write as _;
        let mut text = format!("\n{} images as one, seconds (medians)\n", self.images);
        let _ = writeln!(
            text,
            "{:28}{:>14}{:>16}{:>18}{:>12}{:>12}",
            "", "drover group", "rbd in a loop", "rbd by xargs -P4", "loop / it", "xargs / it"
        );
        let rows = [("demote", &self.demote), ("promote", &self.promote), ("promote by force", &self.promote_by_force)];
        for (verb, seconds) in rows {
            let [drover, looped, xargs] =
                Contestant::ALL.map(|it| median(seconds.get(&it).cloned().unwrap_or_default()));
            let _ = writeln!(
                text,
                "{verb:28}{drover:>14.2}{looped:>16.2}{xargs:>18.2}{:>12.2}{:>12.2}",
                looped / drover,
                xargs / drover
            );
            if verb != "demote" {
                let verdict = |is_met: bool| if is_met { "PASS" } else { "MISSED" };
                let _ = writeln!(
                    text,
                    "goal: loop / it      {:>8.2} >= 5.00      {}",
                    looped / drover,
                    verdict(looped / drover >= 5.0)
                );
                let _ = writeln!(
                    text,
                    "goal: it / xargs     {:>8.2} <= 1.00      {}",
                    drover / xargs,
                    verdict(drover <= xargs)
                );
            }
        }
        text
    }
}
