//! The command line.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, ValueEnum};
use serde_json::json;

use crate::{
    ageing,
    agents::Agents,
    delta,
    goal::{Conditions, Ground, verdicts},
    images,
    machine::Machine,
    mount::{self, Mounted},
    network::Network,
    round::Arena,
    rsync::Rsync,
    site::Site,
    table,
    wan::Wan,
    workload::{SEED, Size, Workload},
};

/// Runs Drover and rsync in turn on the same data and prints both, with ratios.
///
/// Goals are of a later release: PASS or MISSED is printed and never the exit code. A replica that is not faithful is
/// an error.
#[derive(Debug, Parser)]
#[command(name = "drover-bench")]
pub struct Arguments {
    /// What to measure; everything by default
    #[arg(value_enum, ignore_case = true)]
    workloads: Vec<Workload>,
    /// Rounds that count; one more is run first
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    #[arg(long, value_enum, default_value_t = Size::Full)]
    size: Size,
    /// Where everything is copied; needs about 12 GB at full size and 5 rounds
    #[arg(long, default_value = "target/bench")]
    dir: PathBuf,
    /// Copies on a file system of their own, made in a loop-mounted image of 40 GiB, or (W4 to W6) on loop devices
    #[arg(long, value_enum)]
    on: Option<On>,
    /// Leave the copies there
    #[arg(long)]
    keep: bool,
    /// Agent to run; by default the one beside this program
    #[arg(long)]
    agent: Option<PathBuf>,
    /// Only rsync in its variants, without Drover
    #[arg(long)]
    rivals_only: bool,
    /// Only Drover, for a profile of it
    #[arg(long, conflicts_with = "rivals_only")]
    drover_only: bool,
    /// The ends are 40 ms and 1 Gbit/s apart, each in a network namespace of its own
    #[arg(long)]
    wan: bool,
    /// What the agents remember of an image (its index, digests, clones) is lost before each sync of W5
    #[arg(long, conflicts_with_all = ["rivals_only", "wan"])]
    without_index: bool,
    /// Only say what the link of `--wan` does
    #[arg(long, hide = true)]
    wan_check: bool,
    /// Instead of workloads: Drover alone with an image of 1 GiB that is synced again and again
    #[arg(long, conflicts_with_all = ["workloads", "rounds", "rivals_only", "drover_only", "wan", "without_index"])]
    ageing: bool,
    /// Syncs of an image that ages
    #[arg(long, default_value_t = 200, requires = "ageing", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    syncs: u64,
    /// Instead of workloads: so many RBD images promoted as one, beside `rbd` in a shell loop and by xargs, on two Ceph clusters
    #[arg(long, value_name = "N", conflicts_with_all = ["workloads", "rivals_only", "drover_only", "wan", "without_index", "ageing", "on"],
        value_parser = clap::value_parser!(u16).range(1..=128))]
    images: Option<u16>,
    /// Instead of workloads: an RBD image that the agents sync, beside `rbd export-diff | rbd import-diff`, on two Ceph clusters
    #[arg(long, conflicts_with_all = ["workloads", "rivals_only", "drover_only", "wan", "without_index", "ageing", "on", "images"])]
    delta: bool,
    /// Where the numbers of every round go
    #[arg(long, default_value = "target/bench.json")]
    json: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum On {
    Ext4,
    Xfs,
    Btrfs,
    Device,
}

impl On {
    fn filesystem(self) -> Option<mount::Kind> {
        match self {
            Self::Ext4 => Some(mount::Kind::Ext4),
            Self::Xfs => Some(mount::Kind::Xfs),
            Self::Btrfs => Some(mount::Kind::Btrfs),
            Self::Device => None,
        }
    }
}

impl Arguments {
    pub fn run(self) -> Result<()> {
        ensure!(rustix::process::geteuid().is_root(), "the workloads have owners and xattrs that only root can copy");
        if self.wan_check {
            println!("{}", Wan::start()?.link()?);
            return Ok(());
        }
        if let Some(images) = self.images {
            let measured = images::run(images.into(), self.rounds)?;
            print!("{}", measured.table());
            return self.write(&json!({ "images": measured }));
        }
        if self.delta {
            let measured = delta::run(self.rounds)?;
            print!("{}", measured.table());
            return self.write(&json!({ "delta": measured }));
        }
        let workloads = self.workloads()?;
        ensure!(
            !self.without_index || workloads == [Workload::ImageChanged],
            "--without-index is measured by W5 alone"
        );
        let is_on_device = self.on == Some(On::Device);
        ensure!(!(self.wan && is_on_device), "devices are not measured over a WAN: leave out --wan or --on device");
        ensure!(!(self.ageing && is_on_device), "a device has no extents that age: choose --on xfs, btrfs or ext4");
        let base = self.dir.join("run");
        remove(&base)?;
        let mounted = self.on.and_then(On::filesystem).map(|kind| Mounted::create(kind, &self.dir)).transpose()?;
        let base = mounted.as_ref().map_or(base, |mounted| mounted.at.join("run"));
        let outcome = if self.ageing { self.age(&base) } else { self.measure(&base, workloads) };
        match outcome {
            Ok(()) if !self.keep => remove(&base),
            Err(error) => Err(error.context(format!("left for inspection: {}", base.display()))),
            Ok(()) => Ok(()),
        }
    }

    fn measure(&self, base: &Path, measured: Vec<Workload>) -> Result<()> {
        let network = if self.wan { Network::Wan(Wan::start()?) } else { Network::Loopback };
        let site = Site::create(base, self.size, network, self.on == Some(On::Device))?;
        let machine = Machine::describe(&site);
        let ground = Ground::of(&machine.filesystem, site.is_on_devices());
        let link = site.network.link()?;
        print!("{}", table::header(&machine, self.size, self.rounds, link.as_ref()));
        let rsync = Rsync::start(&site)?;
        let agents = if self.rivals_only { None } else { Some(Agents::start(&site, &self.agent()?)?) };
        let mut arena = Arena::new(&site, &rsync, agents.as_ref(), self.rounds, !self.drover_only);
        arena.is_without_index = self.without_index;
        let conditions = Conditions { ground, is_wan: site.network.is_wan(), is_without_index: self.without_index };
        let mut workloads = Vec::new();
        for workload in measured {
            let outcome = arena.run(workload).with_context(|| format!("measure {}", workload.name()))?;
            let verdicts = verdicts(&outcome, conditions);
            print!("{}", table::table(&outcome, &verdicts));
            let losses = site.network.take_losses();
            losses.iter().for_each(|losses| println!("WAN link: {losses}"));
            workloads.push(json!({ "outcome": outcome, "goals": verdicts, "link": losses }));
            // After each workload, so that a later failure loses nothing.
            let report =
                json!({ "machine": machine, "link": link, "seed": SEED, "size": self.size, "workloads": workloads });
            self.write(&report)?;
        }
        println!("\nevery round: {}", self.json.display());
        Ok(())
    }

    fn age(&self, base: &Path) -> Result<()> {
        let site = Site::create(base, self.size, Network::Loopback, false)?;
        let machine = Machine::describe(&site);
        print!("{}", table::place(&machine, self.size));
        let aged = ageing::run(&site, &self.agent()?, self.syncs)?;
        self.write(&json!({ "machine": machine, "seed": SEED, "size": self.size, "aged": aged }))?;
        println!("\nevery sync: {}", self.json.display());
        Ok(())
    }

    fn write(&self, report: &serde_json::Value) -> Result<()> {
        fs::write(&self.json, serde_json::to_vec_pretty(report)?)
            .with_context(|| format!("write {}", self.json.display()))
    }

    fn workloads(&self) -> Result<Vec<Workload>> {
        let on_devices = self.on == Some(On::Device);
        let all = Workload::ALL.into_iter().filter(|workload| !on_devices || workload.image().is_some());
        if self.workloads.is_empty() {
            return Ok(all.collect());
        }
        if let Some(files) = self.workloads.iter().find(|workload| on_devices && workload.image().is_none()) {
            bail!("{} copies files, and a device holds one image: name W4, W5 or W6 with --on device", files.name());
        }
        Ok(self.workloads.clone())
    }

    fn agent(&self) -> Result<PathBuf> {
        let beside = std::env::current_exe().context("find this program")?.with_file_name("drover-agent");
        let agent = self.agent.clone().unwrap_or(beside);
        ensure!(agent.exists(), "{} does not exist: build it, or name another with --agent", agent.display());
        Ok(agent)
    }
}

fn remove(base: &Path) -> Result<()> {
    match fs::remove_dir_all(base) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", base.display()))
        }
        _ => Ok(()),
    }
}
