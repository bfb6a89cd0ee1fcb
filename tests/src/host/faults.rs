//! What a process is told to suffer: the environment of the product's failpoints.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// For processes that are built with the feature `faults`.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// `name[#n]=action` joined by `;`.
    rules: Vec<String>,
    log: Option<PathBuf>,
    off: Option<&'static str>,
}

impl Faults {
    pub fn none() -> Self {
        Self::default()
    }

    /// SIGKILL at the n-th hit.
    pub fn kill(name: &str, at: u64) -> Self {
        Self::none().and(format!("{name}#{at}=kill"))
    }

    /// An I/O error at the n-th hit.
    pub fn error(name: &str, at: u64) -> Self {
        Self::none().and(format!("{name}#{at}=error"))
    }

    /// At the first hit `flag` is created, and the process waits until it is gone.
    pub fn pause(name: &str, flag: &Path) -> Self {
        Self::none().and(format!("{name}=pause:{}", flag.display()))
    }

    /// The n-th message to a peer is another one, with a checksum that is right.
    pub fn forge(at: u64, seed: u64) -> Self {
        Self::none().and(format!("wire.send#{at}=forge:{seed}"))
    }

    pub fn and(mut self, rule: String) -> Self {
        self.rules.push(rule);
        self
    }

    /// Notes each hit in `log`.
    pub fn noted_in(mut self, log: &Path) -> Self {
        self.log = Some(log.to_owned());
        self
    }

    /// Without a mechanism, to show that a test would notice: `fsync` or `recovery`.
    pub fn without(mut self, mechanism: &'static str) -> Self {
        self.off = Some(mechanism);
        self
    }

    pub fn apply(&self, command: &mut Command) {
        let rules = self.rules.join(";");
        for (name, value) in [
            ("DROVER_FAULT", (!rules.is_empty()).then(|| rules.into())),
            ("DROVER_FAULT_LOG", self.log.as_ref().map(|log| log.clone().into_os_string())),
            ("DROVER_FAULT_OFF", self.off.map(Into::into)),
        ] {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
    }

    /// Failpoints that a run passed, with the number of hits of each. Empty when the program has none built in.
    pub fn hits(log: &Path) -> BTreeMap<String, u64> {
        let text = fs::read_to_string(log).unwrap_or_default();
        let mut hits = BTreeMap::new();
        for name in text.lines() {
            *hits.entry(name.to_owned()).or_default() += 1;
        }
        hits
    }
}
