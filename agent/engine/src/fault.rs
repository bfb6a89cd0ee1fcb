//! Failpoints: named places where a test kills, pauses or fails the process. Without the feature `faults` they are
//! nothing at all.
//!
//! `DROVER_FAULT` holds `name[#n]=action` joined by `;`: at the n-th hit (1 by default) of `name` the action runs:
//! `kill` (SIGKILL to this process), `error` (an I/O error is returned), `pause:PATH` (PATH is created, then the
//! thread waits until it is gone), `forge:SEED` (what is sent there is another thing). `name` may end in `*`. `DROVER_FAULT_LOG` names a file to which each hit appends
//! a line. `DROVER_FAULT_OFF` switches mechanisms off, to show that a test notices: `fsync`, `recovery`.

#[cfg(not(feature = "faults"))]
use std::io;

#[cfg(not(feature = "faults"))]
#[inline(always)]
pub fn hit(_name: &'static str) -> io::Result<()> {
    Ok(())
}

#[cfg(not(feature = "faults"))]
#[inline(always)]
pub fn is_off(_mechanism: &'static str) -> bool {
    false
}

#[cfg(not(feature = "faults"))]
#[inline(always)]
pub fn forge(_name: &'static str, _bytes: &mut Vec<u8>) {}

#[cfg(feature = "faults")]
pub use on::{forge, hit, is_off};

#[cfg(feature = "faults")]
mod on {
    use std::{
        collections::HashMap,
        env,
        fs::{File, OpenOptions},
        io::{self, Write},
        sync::{LazyLock, Mutex},
        time::Duration,
    };

    #[derive(Clone)]
    enum Action {
        Kill,
        Error,
        Pause(String),
        Forge(u64),
    }

    struct Rule {
        name: String,
        at: u64,
        action: Action,
    }

    struct Plan {
        rules: Vec<Rule>,
        log: Option<File>,
        hits: HashMap<String, u64>,
    }

    static PLAN: LazyLock<Mutex<Plan>> = LazyLock::new(|| {
        let spec = env::var("DROVER_FAULT").unwrap_or_default();
        let rules = spec.split(';').filter(|s| !s.is_empty()).map(parse).collect();
        let log = env::var_os("DROVER_FAULT_LOG").map(|path| {
            OpenOptions::new().create(true).append(true).open(path).expect("DROVER_FAULT_LOG can be written")
        });
        Mutex::new(Plan { rules, log, hits: HashMap::new() })
    });

    fn parse(rule: &str) -> Rule {
        let (place, action) = rule.split_once('=').unwrap_or_else(|| panic!("DROVER_FAULT: {rule} has no action"));
        let (name, at) = place.split_once('#').unwrap_or((place, "1"));
        let action = match action.split_once(':') {
            None if action == "kill" => Action::Kill,
            None if action == "error" => Action::Error,
            Some(("pause", path)) => Action::Pause(path.to_owned()),
            Some(("forge", seed)) => Action::Forge(seed.parse().expect("DROVER_FAULT: a number after forge:")),
            _ => panic!("DROVER_FAULT: unknown action {action}"),
        };
        Rule { name: name.to_owned(), at: at.parse().expect("DROVER_FAULT: a number after #"), action }
    }

    impl Rule {
        fn matches(&self, name: &str) -> bool {
            self.name.strip_suffix('*').map_or(self.name == name, |prefix| name.starts_with(prefix))
        }
    }

    fn action(name: &'static str) -> Option<Action> {
        let mut plan = PLAN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let plan = &mut *plan;
        if let Some(log) = &mut plan.log {
            // One write, so that lines of several threads do not mix.
            let _ = log.write_all(format!("{name}\n").as_bytes());
        }
        plan.rules.iter().filter(|rule| rule.matches(name)).find_map(|rule| {
            let hits = plan.hits.entry(rule.name.clone()).or_default();
            *hits += 1;
            (*hits == rule.at).then(|| rule.action.clone())
        })
    }

    pub fn hit(name: &'static str) -> io::Result<()> {
        match action(name) {
            None | Some(Action::Forge(_)) => Ok(()),
            Some(Action::Kill) => drover_linux::kill_self(),
            Some(Action::Error) => Err(io::Error::other(format!("failpoint {name}"))),
            Some(Action::Pause(path)) => {
                File::create(&path)?;
                while std::fs::exists(&path)? {
                    std::thread::park_timeout(Duration::from_millis(2));
                }
                Ok(())
            }
        }
    }

    /// A hostile peer in place of this agent: what it says is damaged before its checksum is made.
    pub fn forge(name: &'static str, bytes: &mut Vec<u8>) {
        let mut seed = match action(name) {
            Some(Action::Forge(seed)) => seed,
            Some(Action::Kill) => drover_linux::kill_self(),
            Some(Action::Error | Action::Pause(_)) | None => return,
        };
        // splitmix64
        let mut random = |below: usize| {
            seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((mixed ^ (mixed >> 31)) % below.max(1) as u64) as usize
        };
        let length = bytes.len();
        // Ids, offsets and lengths are at the beginning.
        let near = if random(2) == 0 { length.min(40) } else { length };
        let at = random(near);
        let what = random(6);
        match what {
            0 => bytes[at] ^= 1 << random(8),
            1 => bytes[at] = 0xff,
            2 => bytes.truncate(at),
            3 => bytes.extend((0..=random(64)).map(|_| 0x5a)),
            4 => drop(bytes.drain(at..(at + 1 + random(16)).min(length))),
            _ => bytes[at..(at + 8).min(length)].fill(random(256) as u8),
        }
        eprintln!(
            "failpoint {name}: a message of {length} bytes, of kind {}, forged in way {what} at {at}",
            bytes.first().copied().unwrap_or(0)
        );
    }

    pub fn is_off(mechanism: &'static str) -> bool {
        static OFF: LazyLock<String> = LazyLock::new(|| env::var("DROVER_FAULT_OFF").unwrap_or_default());
        OFF.split(',').any(|off| off == mechanism)
    }
}
