//! What a run costs, seen from outside the contestants: time, CPU seconds, memory and bytes on the wire.
//!
//! * CPU: `/proc/<pid>/stat` of both ends before and after, children included, in ticks of 10 ms. Children of a daemon
//!   count once it has reaped them, so the end of a run waits until it has none.
//! * Memory: the kernel's own high-water mark (`VmHWM`), reset before each run of a long-lived process; short-lived
//!   children are looked at every 20 ms. An end is the sum of its processes; the larger end is reported.
//! * Wire: the byte counters of the interface between the ends, headers and acknowledgements included. The run has a
//!   network namespace of its own, so nobody else is counted.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::FileTypeExt,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::network::Network;

/// `USER_HZ`, which is 100 on every Linux that user space sees.
const TICK_SECONDS: f64 = 0.01;
const SAMPLE_EVERY: Duration = Duration::from_millis(20);
const SETTLE_LIMIT: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Cost {
    pub wall_seconds: f64,
    /// With `sync -f` of the destination.
    pub flushed_seconds: f64,
    /// Both ends together.
    pub cpu_seconds: f64,
    pub peak_rss_bytes: u64,
    /// Both directions.
    pub wire_bytes: u64,
}

/// Runs `job` between the long-lived processes `ends` and children that it starts and waits for.
pub fn measure<T>(
    network: &Network,
    ends: &[u32],
    destination: &Path,
    job: impl FnOnce(&Sampler) -> Result<T>,
) -> Result<(Cost, T)> {
    // What others left dirty is not this run's to write.
    rustix::fs::sync();
    ends.iter().try_for_each(|pid| reset_peak(*pid))?;
    let (ticks, wire) = (ticks_of_all(ends)?, network.carried_bytes()?);
    let sampler = Sampler::start(ends);
    let start = Instant::now();
    let outcome = job(&sampler)?;
    let wall = start.elapsed();
    flush(destination)?;
    let flushed = start.elapsed();
    let wire_bytes = network.carried_bytes()? - wire;
    let peak_rss_bytes = sampler.finish();
    ends.iter().try_for_each(|pid| settle(*pid))?;
    let cost = Cost {
        wall_seconds: wall.as_secs_f64(),
        flushed_seconds: flushed.as_secs_f64(),
        cpu_seconds: (ticks_of_all(ends)? - ticks) as f64 * TICK_SECONDS,
        peak_rss_bytes,
        wire_bytes,
    };
    Ok((cost, outcome))
}

/// A device, or the file system of anything else.
fn flush(destination: &Path) -> Result<()> {
    let file = fs::File::open(destination).context("open destination to flush it")?;
    if file.metadata()?.file_type().is_block_device() {
        return file.sync_all().context("flush the device");
    }
    rustix::fs::syncfs(&file).context("flush destination")
}

/// The ends with all their children, and the children that this process waited for.
fn ticks_of_all(ends: &[u32]) -> Result<u64> {
    let [_, _, user, system] = stat_ticks(std::process::id())?;
    let ends = ends.iter().flat_map(|pid| family(*pid)).map(|pid| Ok(stat_ticks(pid)?.iter().sum::<u64>()));
    Ok(user + system + ends.sum::<Result<u64>>()?)
}

/// utime, stime, cutime, cstime of proc_pid_stat(5).
fn stat_ticks(pid: u32) -> Result<[u64; 4]> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid} is gone"))?;
    // The command's name may hold anything but ends with the last parenthesis; utime is the 12th field after it.
    let (_, fields) = stat.rsplit_once(") ").context("/proc/PID/stat has no name")?;
    let ticks: Vec<u64> = fields.split(' ').skip(11).take(4).map_while(|field| field.parse().ok()).collect();
    ticks.try_into().ok().context("/proc/PID/stat is short")
}

/// A process and all that descend from it and live.
fn family(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let mut next = 0;
    while let Some(pid) = all.get(next) {
        for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            all.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
        next += 1;
    }
    all
}

/// Waits until a daemon has reaped its children: before that their CPU seconds are not in its count.
fn settle(pid: u32) -> Result<()> {
    let start = Instant::now();
    while family(pid).len() > 1 {
        if start.elapsed() > SETTLE_LIMIT {
            bail!("process {pid} still has children after {SETTLE_LIMIT:?}");
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// `proc_pid_clear_refs(5)`: 5 resets the high-water mark.
fn reset_peak(pid: u32) -> Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").context("reset the peak of resident memory")
}

fn peak_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Looks at the processes of each end now and then.
pub struct Sampler {
    ends: Arc<Mutex<Vec<u32>>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<BTreeMap<u32, u64>>,
}

impl Sampler {
    fn start(ends: &[u32]) -> Self {
        let ends = Arc::new(Mutex::new(ends.to_vec()));
        let stop = Arc::<AtomicBool>::default();
        let thread = thread::spawn({
            let (ends, stop) = (ends.clone(), stop.clone());
            move || sample(&ends, &stop)
        });
        Self { ends, stop, thread }
    }

    /// Another end that has just been started.
    pub fn watch(&self, pid: u32) {
        self.ends.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(pid);
    }

    fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
        let peaks = self.thread.join().unwrap_or_default();
        peaks.into_values().max().unwrap_or_default()
    }
}

/// Peak of each end: the sum over its processes of the highest that each was seen at.
fn sample(ends: &Mutex<Vec<u32>>, stop: &AtomicBool) -> BTreeMap<u32, u64> {
    let mut peaks: BTreeMap<u32, BTreeMap<u32, u64>> = BTreeMap::new();
    loop {
        let last = stop.load(Ordering::Relaxed);
        let ends = ends.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        for end in ends {
            for pid in family(end) {
                let highest = peaks.entry(end).or_default().entry(pid).or_default();
                *highest = (*highest).max(peak_bytes(pid).unwrap_or_default());
            }
        }
        if last {
            return peaks.into_iter().map(|(end, processes)| (end, processes.into_values().sum())).collect();
        }
        thread::park_timeout(SAMPLE_EVERY);
    }
}

/// Of an odd number of runs the middle one; of an even number the mean of both middle ones.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

/// Median of each number on its own.
pub fn median_cost(costs: &[Cost]) -> Cost {
    let of = |number: fn(&Cost) -> f64| median(costs.iter().map(number).collect());
    Cost {
        wall_seconds: of(|cost| cost.wall_seconds),
        flushed_seconds: of(|cost| cost.flushed_seconds),
        cpu_seconds: of(|cost| cost.cpu_seconds),
        peak_rss_bytes: of(|cost| cost.peak_rss_bytes as f64) as u64,
        wire_bytes: of(|cost| cost.wire_bytes as f64) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn sees_this_process() {
        assert!(stat_ticks(std::process::id()).is_ok());
        assert!(peak_bytes(std::process::id()).is_some_and(|bytes| bytes > 0));
        assert_eq!(family(std::process::id())[0], std::process::id());
    }
}
