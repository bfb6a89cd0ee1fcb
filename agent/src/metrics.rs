//! Prometheus metrics on a port of their own. Labels are bounded: states, methods, codes, and ids of volumes that the
//! configuration's roots hold; never names, paths or texts.

mod serve;

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicI64, AtomicU64},
    time::Duration,
};

use drover_engine::report::Report;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Registry, Unit},
};

pub use serve::{ServeError, serve};

use crate::{exports::Exports, job::State, volumes::Volumes};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DirectionLabel {
    direction: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RpcLabel {
    method: &'static str,
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VolumeLabel {
    volume: String,
    role: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VolumeIdLabel {
    volume: String,
}

type Ints<L> = Family<L, Gauge<i64, AtomicI64>>;

#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    jobs: Ints<StateLabel>,
    sync_seconds: Histogram,
    bytes_moved: Family<DirectionLabel, Counter<u64, AtomicU64>>,
    sessions: Gauge<i64, AtomicI64>,
    rpcs: Family<RpcLabel, Counter<u64, AtomicU64>>,
    volume_role: Ints<VolumeLabel>,
    volume_epoch: Ints<VolumeIdLabel>,
    volume_rpo_age: Ints<VolumeIdLabel>,
    volume_damaged: Ints<VolumeIdLabel>,
    volume_superseded: Ints<VolumeIdLabel>,
    volume_fenced: Ints<VolumeIdLabel>,
    scrubbed: Counter<u64, AtomicU64>,
    peak_rss: Gauge<i64, AtomicI64>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("drover");
        let sync_seconds = Histogram::new([0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10_000.0]);
        registry.register("build", "Release of the agent", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        let r = &mut registry;
        let jobs = register(r, "jobs", "Jobs of this agent by state");
        r.register_with_unit("sync_duration", "Syncs that succeeded", Unit::Seconds, sync_seconds.clone());
        let bytes_moved = register(r, "session_bytes", "Bytes of the engine's messages, by direction");
        let sessions = register(r, "sessions", "Sessions that peers run with this agent");
        let rpcs = register(r, "rpcs", "Calls by method and code; of a stream the code it began with");
        let volume_role = register(r, "volume_role", "1 for the role that the copy has");
        let volume_epoch = register(r, "volume_epoch", "Epoch of the copy");
        let volume_rpo_age = register(r, "volume_rpo_age_seconds", "Seconds since both copies were last seen equal");
        let volume_damaged = register(r, "volume_damaged_bytes", "Bytes that a scrub found to differ from the point");
        let volume_superseded =
            register(r, "volume_superseded", "1: this primary is one no more since a promotion elsewhere");
        let volume_fenced = register(
            r,
            "volume_fenced",
            "The clients of its exports are or should be shut out: 1 if that is proved, 0 if it is not",
        );
        let scrubbed = register(r, "scrubbed_bytes", "Bytes that scrubs have read");
        let peak_rss = register(r, "peak_rss_bytes", "Highest resident memory of the process");
        Self {
            registry,
            jobs,
            sync_seconds,
            bytes_moved,
            sessions,
            rpcs,
            volume_role,
            volume_epoch,
            volume_rpo_age,
            volume_damaged,
            volume_superseded,
            volume_fenced,
            scrubbed,
            peak_rss,
        }
    }

    pub fn jobs(&self, states: impl Iterator<Item = State>) {
        let mut counts = [0i64; State::ALL.len()];
        states.for_each(|state| counts[state as usize] += 1);
        for state in State::ALL {
            self.jobs.get_or_create(&StateLabel { state: state.as_str() }).set(counts[state as usize]);
        }
    }

    pub fn finished(&self, report: &Report, took: Duration) {
        if let Report::Sync(_) = report {
            self.sync_seconds.observe(took.as_secs_f64());
        }
    }

    pub fn moved(&self, sent: u64, received: u64) {
        self.bytes_moved.get_or_create(&DirectionLabel { direction: "sent" }).inc_by(sent);
        self.bytes_moved.get_or_create(&DirectionLabel { direction: "received" }).inc_by(received);
    }

    pub fn scrubbed(&self, bytes: u64) {
        self.scrubbed.inc_by(bytes);
    }

    /// `method` is a row of the access table or "unknown".
    pub fn rpc(&self, method: &'static str, code: &'static str) {
        self.rpcs.get_or_create(&RpcLabel { method, code }).inc();
    }

    /// What is only looked at when someone asks.
    pub fn refresh(&self, volumes: &Volumes, exports: &Exports, sessions: usize) {
        self.sessions.set(i64::try_from(sessions).unwrap_or(i64::MAX));
        let peak = drover_linux::process_peak_rss_bytes().unwrap_or(0);
        self.peak_rss.set(i64::try_from(peak).unwrap_or(i64::MAX));
        // A role that a volume no longer has, and a volume that is gone, leave no series behind.
        self.volume_role.clear();
        self.volume_epoch.clear();
        self.volume_rpo_age.clear();
        self.volume_damaged.clear();
        self.volume_superseded.clear();
        self.volume_fenced.clear();
        for held in volumes.all() {
            let (state, volume) = (held.volume.state(), held.volume.id().to_string());
            let role = state.role.to_string();
            self.volume_role.get_or_create(&VolumeLabel { volume: volume.clone(), role }).set(1);
            let label = VolumeIdLabel { volume };
            self.volume_epoch.get_or_create(&label).set(i64::try_from(state.epoch).unwrap_or(i64::MAX));
            self.volume_superseded.get_or_create(&label).set(state.superseded.is_some().into());
            if let Some(fence) = exports.of(held.volume.id()) {
                self.volume_fenced.get_or_create(&label).set(fence.proof.is_proved().into());
            } else if exports.not_shut(&held).is_some() {
                self.volume_fenced.get_or_create(&label).set(0);
            }
            if let Some(scrub) = held.volume.scrub_state() {
                let damaged = i64::try_from(scrub.damaged_bytes()).unwrap_or(i64::MAX);
                self.volume_damaged.get_or_create(&label).set(damaged);
            }
            if let Some(age) = crate::rpc::convert::rpo_age_seconds(&state) {
                self.volume_rpo_age.get_or_create(&label).set(i64::try_from(age).unwrap_or(i64::MAX));
            }
        }
    }

    /// The text format of OpenMetrics.
    pub fn text(&self) -> String {
        let mut text = String::new();
        if encode(&mut text, &self.registry).is_err() {
            // Writing into a String can't fail; an encoder that says so has no text to show.
            text.clear();
            let _ = writeln!(text, "# EOF");
        }
        text
    }
}

fn register<M: Clone + Default + prometheus_client::registry::Metric>(
    registry: &mut Registry,
    name: &str,
    help: &str,
) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}
