//! What is noted of every sync, and what is looked at after some.

use std::{
    fs::{self, File},
    io::Read,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use drover_linux::{Extents, file};
use serde::Serialize;
use serde_json::Value;

use crate::goal::mib;

const EXTENT_MAP: &str = "extent-map";

#[derive(Debug, Default)]
pub struct Aged {
    pub syncs: Vec<SyncRow>,
    pub rows: Vec<Row>,
}

#[derive(Clone, Debug, Serialize)]
pub struct SyncRow {
    pub sync: u64,
    pub wall_ms: f64,
    /// The longest that a write of one page took meanwhile.
    pub stall_ms: f64,
    pub durations: Value,
    /// Names of `FoundBy`; none where the times of the file vouched for it.
    pub source: Vec<String>,
    pub replica: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Row {
    #[serde(flatten)]
    pub sync: SyncRow,
    /// Of all syncs since the row before.
    pub worst_stall_ms: f64,
    pub source_extents: u32,
    pub replica_extents: u32,
    /// None where the file system can't clone.
    pub clone_ms: Option<f64>,
    pub cold_mib_per_second: f64,
}

impl SyncRow {
    pub fn new(sync: u64, wall: Duration, stall: Duration, report: &Value) -> Self {
        let found = |side: &str| {
            let counts = report["found_by"][side].as_object();
            counts.map(|counts| counts.keys().cloned().collect()).unwrap_or_default()
        };
        let (source, replica) = (found("source"), found("replica"));
        let durations = report["durations"].clone();
        Self { sync, wall_ms: millis(wall), stall_ms: millis(stall), durations, source, replica }
    }
}

impl Aged {
    /// The sync at which a side stopped to find changes by the extent maps that it had, and what it did instead.
    pub fn fell_back(&self, side: fn(&SyncRow) -> &[String]) -> Option<(u64, &str)> {
        let by_maps = self.syncs.iter().position(|sync| side(sync).iter().any(|by| by == EXTENT_MAP))?;
        let mut after = self.syncs[by_maps..].iter();
        after.find_map(|sync| Some((sync.sync, side(sync).iter().find(|by| *by != EXTENT_MAP)?.as_str())))
    }

    /// Of the source: a replica that is patched in place has limits of its own besides.
    pub fn has_fallen_back(&self) -> bool {
        self.fell_back(|sync| &sync.source).is_some()
    }

    /// Whether any sync was spared reading by extent maps, as none is on ext4.
    pub fn has_maps(&self) -> bool {
        self.syncs.iter().any(|sync| sync.source.iter().any(|by| by == EXTENT_MAP))
    }
}

impl Row {
    /// After the last sync that was noted.
    pub fn look(aged: &Aged, source: &Path, replica: &Path) -> Result<Self> {
        let sync = aged.syncs.last().context("no sync has been noted")?.clone();
        let before = aged.rows.last().map_or(0, |row| row.sync.sync);
        let since = aged.syncs.iter().filter(|sync| sync.sync > before);
        Ok(Self {
            worst_stall_ms: since.map(|sync| sync.stall_ms).fold(0.0, f64::max),
            source_extents: extents(source)?,
            replica_extents: extents(replica)?,
            clone_ms: clone_ms(source)?,
            cold_mib_per_second: cold_mib_per_second(source)?,
            sync,
        })
    }
}

/// With nothing dirty, which would have no blocks yet.
pub fn extents(image: &Path) -> Result<u32> {
    let image = File::open(image).with_context(|| format!("open {}", image.display()))?;
    rustix::fs::fsync(&image)?;
    Extents::count(&image).context("count extents")
}

/// As `cp --reflink=always` does.
fn clone_ms(image: &Path) -> Result<Option<f64>> {
    let path = image.with_extension("clone");
    let (from, to) = (File::open(image)?, File::create(&path)?);
    let start = Instant::now();
    let is_cloned = file::reflink(&from, &to).context("clone the image")?;
    let took = start.elapsed();
    fs::remove_file(&path)?;
    Ok(is_cloned.then(|| millis(took)))
}

fn cold_mib_per_second(image: &Path) -> Result<f64> {
    let mut image = File::open(image)?;
    file::drop_cache(&image).context("drop the image's page cache")?;
    let mut buffer = vec![0; 1 << 20];
    let (start, mut bytes) = (Instant::now(), 0);
    loop {
        match image.read(&mut buffer).context("read the image")? {
            0 => return Ok(mib(bytes) / start.elapsed().as_secs_f64()),
            read => bytes += read as u64,
        }
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
