//! What Drover wants to reach. Goals of a later release: they are printed, never enforced here.

use serde::Serialize;

use crate::{
    blocksync,
    meter::Cost,
    round::{Contestant, DROVER, Outcome},
    rsync::DEVICE_NAME,
    workload::Workload,
};

#[derive(Clone, Copy, Debug)]
enum Goal {
    /// Time of the rival with `sync -f` of its destination.
    Wall {
        rival: &'static str,
        ratio: f64,
    },
    /// As `Wall`, of a rival that has to be installed first: without it the goal is missed.
    WallOfBlocksync {
        ratio: f64,
    },
    Wire {
        bytes: f64,
    },
    Millis(f64),
    /// A multiple of the bytes that changed, and something for the rest.
    WirePerChange {
        ratio: f64,
        plus_bytes: f64,
    },
    PeakMib(f64),
    /// Of the rival across the network that needs the fewest CPU seconds, both ends together.
    Cpu {
        ratio: f64,
    },
}

const PEAK: Goal = Goal::PeakMib(128.0);
const CPU: Goal = Goal::Cpu { ratio: 1.0 };
const BLOCKSYNC: Goal = Goal::WallOfBlocksync { ratio: 0.6 };
/// Of W5 without extent maps, with the digests of the pages of about 14,000 changed leaves.
const WIRE_OF_LEAVES: Goal = Goal::WirePerChange { ratio: 1.15, plus_bytes: 14_000.0 * 128.0 };

/// What the images are, which decides what can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ground {
    Reflinks,
    NoReflinks,
    Devices,
}

impl Ground {
    pub fn of(filesystem: &str, is_on_devices: bool) -> Self {
        match filesystem {
            _ if is_on_devices => Self::Devices,
            "xfs" | "btrfs" => Self::Reflinks,
            _ => Self::NoReflinks,
        }
    }
}

fn goals(workload: Workload, ground: Ground) -> &'static [Goal] {
    const PLAIN: &str = "rsync -aHAX";
    const TUNED: &str = "rsync -aHAX tuned";
    const INPLACE: &str = "rsync --inplace";
    let has_reflinks = ground == Ground::Reflinks;
    match workload {
        Workload::Image if ground == Ground::Devices => &[Goal::Wall { rival: DEVICE_NAME, ratio: 0.45 }, CPU, PEAK],
        Workload::ImageChanged if ground == Ground::Devices => {
            &[Goal::Wall { rival: DEVICE_NAME, ratio: 1.0 / 12.0 }, WIRE_OF_LEAVES, CPU, PEAK]
        }
        Workload::ImageTouched if ground == Ground::Devices => {
            &[Goal::Wall { rival: DEVICE_NAME, ratio: 0.4 }, CPU, PEAK]
        }
        Workload::ImageDeep if ground == Ground::Devices => &[Goal::Wall { rival: DEVICE_NAME, ratio: 0.65 }, PEAK],
        Workload::ImageDeep => &[Goal::Wall { rival: "rsync -aHAXc", ratio: 0.65 }, PEAK],
        Workload::FirstCopy => &[Goal::Wall { rival: PLAIN, ratio: 0.5 }, CPU, PEAK],
        Workload::Unchanged => &[Goal::Wall { rival: TUNED, ratio: 0.34 }, Goal::Wire { bytes: 16e3 }, CPU, PEAK],
        Workload::Changed => {
            &[Goal::Wall { rival: TUNED, ratio: 0.45 }, Goal::WirePerChange { ratio: 1.1, plus_bytes: 50e3 }, CPU, PEAK]
        }
        Workload::Deep => &[Goal::Wall { rival: "rsync -aHAXc", ratio: 0.5 }, PEAK],
        Workload::Image => &[Goal::Wall { rival: "rsync -aS", ratio: 0.45 }, CPU, PEAK],
        Workload::ImageChanged if has_reflinks => &[
            Goal::Wall { rival: INPLACE, ratio: 1.0 / 12.0 },
            BLOCKSYNC,
            Goal::WirePerChange { ratio: 1.1, plus_bytes: 0.0 },
            CPU,
            PEAK,
        ],
        Workload::ImageChanged => {
            &[Goal::Wall { rival: INPLACE, ratio: 1.0 / 12.0 }, BLOCKSYNC, WIRE_OF_LEAVES, CPU, PEAK]
        }
        Workload::ImageTouched if has_reflinks => &[Goal::Millis(60.0), CPU, PEAK],
        Workload::ImageTouched => &[Goal::Wall { rival: "rsync -aHAXc", ratio: 0.4 }, CPU, PEAK],
        Workload::Inserted => &[Goal::Wall { rival: PLAIN, ratio: 0.4 }, Goal::Wire { bytes: 2e6 }, CPU, PEAK],
        Workload::Appended => {
            &[Goal::Wall { rival: PLAIN, ratio: 0.4 }, Goal::Wall { rival: "rsync --inplace", ratio: 1.0 }, CPU, PEAK]
        }
    }
}

/// Of a WAN of 40 ms and 1 Gbit/s, where only the wall clock counts.
fn wan_goals(workload: Workload) -> &'static [Goal] {
    const TUNED: &str = "rsync -aHAX tuned";
    match workload {
        Workload::FirstCopy => &[Goal::Wall { rival: "rsync -aHAX -z", ratio: 0.45 }],
        Workload::Unchanged => &[Goal::Wall { rival: TUNED, ratio: 0.36 }],
        Workload::Changed => &[Goal::Wall { rival: TUNED, ratio: 0.6 }],
        Workload::ImageChanged => &[Goal::Wall { rival: "rsync --inplace -z", ratio: 0.15 }],
        _ => &[],
    }
}

#[derive(Debug, Serialize)]
pub struct Verdict {
    pub goal: String,
    /// None where there was nothing to compare with.
    pub value: Option<f64>,
    pub limit: f64,
    pub is_met: bool,
}

/// Of images whose digests are lost: both sides read all of them.
fn goals_without_index(workload: Workload, ground: Ground) -> &'static [Goal] {
    match (workload, ground) {
        (Workload::ImageChanged, Ground::Devices) => &[Goal::Wall { rival: DEVICE_NAME, ratio: 0.15 }, PEAK],
        (Workload::ImageChanged, _) => &[Goal::Wall { rival: "rsync --inplace", ratio: 0.15 }, PEAK],
        _ => &[],
    }
}

/// Under which a workload was run.
#[derive(Clone, Copy, Debug)]
pub struct Conditions {
    pub ground: Ground,
    pub is_wan: bool,
    pub is_without_index: bool,
}

pub fn verdicts(outcome: &Outcome, conditions: Conditions) -> Vec<Verdict> {
    let Some(drover) = outcome.drover() else {
        return Vec::new();
    };
    let goals = match conditions {
        Conditions { is_wan: true, .. } => wan_goals(outcome.workload),
        Conditions { is_without_index: true, ground, .. } => goals_without_index(outcome.workload, ground),
        Conditions { ground, .. } => goals(outcome.workload, ground),
    };
    goals.iter().filter_map(|goal| goal.verdict(outcome, drover)).collect()
}

impl Goal {
    /// None where the rivals were left out.
    fn verdict(self, outcome: &Outcome, drover: &Contestant) -> Option<Verdict> {
        let drover = &drover.median;
        let (goal, value, limit) = match self {
            Self::Wall { rival, ratio } => wall(drover, outcome.rival(rival)?, ratio),
            Self::WallOfBlocksync { ratio } => match outcome.rival(blocksync::NAME) {
                Some(rival) => wall(drover, rival, ratio),
                None if outcome.contestants.len() == 1 => return None,
                None => {
                    let goal = format!("{}: not on the PATH, its goal is", blocksync::NAME);
                    return Some(Verdict { goal, value: None, limit: ratio, is_met: false });
                }
            },
            Self::Wire { bytes } => ("wire, KB".to_owned(), drover.wire_bytes as f64 / 1e3, bytes / 1e3),
            Self::WirePerChange { ratio, plus_bytes } => {
                let limit = outcome.changed_bytes_median() * ratio + plus_bytes;
                let goal = format!("wire, KB (limit {ratio} x changed + {} KB)", plus_bytes / 1e3);
                (goal, drover.wire_bytes as f64 / 1e3, limit / 1e3)
            }
            Self::Millis(limit) => ("wall, ms".to_owned(), drover.wall_seconds * 1e3, limit),
            Self::PeakMib(limit) => ("peak of one agent, MiB".to_owned(), mib(drover.peak_rss_bytes), limit),
            Self::Cpu { ratio } => {
                // Without a network between them, nothing is spent on one.
                let is_asked = |rival: &&Contestant| ![DROVER, blocksync::NAME].contains(&rival.name);
                let rivals = outcome.contestants.iter().filter(is_asked);
                let least = rivals.map(|rival| rival.median.cpu_seconds).min_by(f64::total_cmp)?;
                ("CPU / thriftiest rival".to_owned(), drover.cpu_seconds / least, ratio)
            }
        };
        Some(Verdict { goal, value: Some(value), limit, is_met: value <= limit })
    }
}

fn wall(drover: &Cost, rival: &Contestant, ratio: f64) -> (String, f64, f64) {
    let value = drover.wall_seconds / rival.median.flushed_seconds;
    (format!("wall / {} flushed", rival.name), value, ratio)
}

pub fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
