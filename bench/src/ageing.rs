//! What age does to an image: every sync clones it, so that each overwritten page gets a block of its own elsewhere, and
//! one that was a few extents is scattered after some hundred syncs. Told are the syncs themselves, and what the owner
//! of the image feels: reads, clones, and the longest that a write had to wait.

pub mod aged;
mod stall;
pub mod table;

use std::{
    fs::File,
    path::{Path, PathBuf},
    thread,
};

use anyhow::Result;
use serde_json::{Value, json};

use crate::{
    agents::{Agents, Pair},
    round::AGE,
    rsync::same_content,
    site::Site,
    workload::image,
};
use aged::{Aged, Row, SyncRow};

const BYTES: u64 = 1 << 30;
const CHUNK: u64 = 1 << 20;
/// Syncs that are looked at; the last one is as well.
const SHOWN: [u64; 6] = [1, 10, 20, 50, 100, 200];
/// With limits so low that the maps must be given up.
const SYNCS_BELOW: u64 = 3;
const DIRECTORY: &str = "aged";

/// Tells each row as it comes; returns all, as JSON.
pub fn run(site: &Site, binary: &Path, syncs: u64) -> Result<Value> {
    let agents = Agents::start(site, binary)?;
    let mut ageing = Ageing::begin(site, &agents)?;
    print!("{}", table::head());
    for sync in 1..=syncs {
        ageing.sync(&agents, sync, SHOWN.contains(&sync) || sync == syncs)?;
    }
    print!("{}", table::fallbacks(&ageing.aged));
    let fell_back_by_default = ageing.aged.has_fallen_back();
    let agents = match ageing.aged.has_maps() && !fell_back_by_default {
        false => agents,
        true => ageing.go_on_below(site, binary, agents, syncs)?,
    };
    // The writer's last page may have missed the last sync.
    agents.timed_sync(&ageing.pair)?;
    same_content(&ageing.image(), &ageing.replica())?;
    println!("cmp: the replica is the same as the source");
    let Aged { syncs, rows } = &ageing.aged;
    Ok(json!({ "rows": rows, "syncs": syncs, "fell_back_by_default": fell_back_by_default }))
}

struct Ageing {
    source: PathBuf,
    pair: Pair,
    aged: Aged,
}

impl Ageing {
    /// With the first copy made.
    fn begin(site: &Site, agents: &Agents) -> Result<Self> {
        let source = site.sources().join(DIRECTORY);
        eprintln!("ageing: making the image and its first copy");
        image::create(&source, site.size.of(BYTES) / CHUNK * CHUNK)?;
        let pair = agents.enable(site, DIRECTORY, DIRECTORY, Some(image::NAME))?;
        agents.timed_sync(&pair)?;
        Ok(Self { source, pair, aged: Aged::default() })
    }

    fn sync(&mut self, agents: &Agents, sync: u64, is_shown: bool) -> Result<()> {
        eprintln!("ageing: sync {sync}");
        image::overwrite(&self.source, sync)?;
        if is_shown {
            thread::sleep(AGE);
        }
        // What was left dirty is not this sync's to write.
        rustix::fs::syncfs(File::open(&self.source)?)?;
        let (stall, (wall, report)) = stall::longest_during(&self.image(), || agents.timed_sync(&self.pair))?;
        self.aged.syncs.push(SyncRow::new(sync, wall, stall, &report));
        if is_shown {
            let row = Row::look(&self.aged, &self.image(), &self.replica())?;
            println!("{}", table::row(&row));
            self.aged.rows.push(row);
        }
        Ok(())
    }

    /// With a limit of half the extents that there are, so that what did not happen by itself is seen to happen.
    fn go_on_below(&mut self, site: &Site, binary: &Path, agents: Agents, syncs: u64) -> Result<Agents> {
        let extents = aged::extents(&self.image())? / 2;
        println!("both agents start again with limits.base_extents = {extents}");
        let agents = agents.restart(site, binary, &format!("[limits]\nbase_extents = {extents}\n"))?;
        (syncs + 1..=syncs + SYNCS_BELOW).try_for_each(|sync| self.sync(&agents, sync, true))?;
        print!("{}", table::fallbacks(&self.aged));
        Ok(agents)
    }

    fn image(&self) -> PathBuf {
        self.source.join(image::NAME)
    }

    fn replica(&self) -> PathBuf {
        self.pair.replica.join(image::NAME)
    }
}
