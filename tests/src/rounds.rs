//! How much of each campaign is run: a little on every submission, the counts that the product promises with
//! `tests/run --full` (which sets `DROVER_FULL=1`).

use std::{env, time::Duration};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rounds {
    /// Chains of the property test, each begun with a new tree.
    pub chains: u64,
    /// Edit-and-sync rounds of each chain.
    pub chain_rounds: u64,
    /// Kills at random moments while a job runs.
    pub random_kills: u64,
    /// Hits of one failpoint at which a kill is tried (its first, its last, some between).
    pub kills_per_failpoint: u64,
    /// Power cuts on each file system.
    pub power_cuts: u64,
    /// Syncs while a writer renames files to and fro.
    pub mover_syncs: u64,
    /// Chains of ten sync points whose restore points are compared with saved copies.
    pub rollback_chains: u64,
    /// Size of the transfer of the resume test: large against what may be in flight, which a kill always loses.
    pub resume_bytes: u64,
    /// Syncs of each kind of target in which a peer lies once.
    pub lies: u64,
    /// Edit-and-sync rounds of an image on each file system.
    pub image_rounds: u64,
    /// Promotions by force of an RBD image that is half copied, each of new clusters.
    pub half_way: u64,
    /// Points of a group of RBD images that is written to, each of one moment.
    pub cuts: u64,
    /// Records of the catalogue of snapshots.
    pub records: usize,
    /// Kills of an agent while it shuts clients of an NFS server out, or lets them in.
    pub fence_kills: u64,
    /// RBD images that are promoted as one.
    pub many_images: usize,
    /// Entries of a random tree, and edits of one round: not fewer in the small run, or it would prove another thing.
    pub entries: usize,
    pub edits: usize,
    full: bool,
}

impl Rounds {
    pub const SMALL: Self = Self {
        chains: 6,
        chain_rounds: 4,
        random_kills: 10,
        kills_per_failpoint: 1,
        power_cuts: 8,
        mover_syncs: 10,
        rollback_chains: 1,
        resume_bytes: 1 << 30,
        lies: 12,
        image_rounds: 20,
        half_way: 1,
        cuts: 4,
        records: 5000,
        fence_kills: 8,
        many_images: 12,
        entries: 200,
        edits: 20,
        full: false,
    };

    pub const FULL: Self = Self {
        chains: 100,
        chain_rounds: 5,
        random_kills: 100,
        kills_per_failpoint: 3,
        power_cuts: 200,
        mover_syncs: 50,
        rollback_chains: 5,
        resume_bytes: 2 << 30,
        lies: 200,
        image_rounds: 200,
        half_way: 20,
        cuts: 20,
        records: 100_000,
        fence_kills: 20,
        many_images: 50,
        entries: 200,
        edits: 20,
        full: true,
    };

    pub fn chosen() -> Self {
        if env::var_os("DROVER_FULL").is_some_and(|value| value == "1") { Self::FULL } else { Self::SMALL }
    }

    pub fn with_edits(self, edits: usize) -> Self {
        Self { edits, ..self }
    }

    pub fn is_full(&self) -> bool {
        self.full
    }

    /// Says aloud what this run does and what a full one would do.
    pub fn announce(&self, test: &str, what: &str, pick: fn(&Self) -> u64) {
        println!("{test}: {} {what} (a full run: {})", pick(self), pick(&Self::FULL));
    }

    /// For one long campaign as a whole.
    pub fn deadline(&self) -> Duration {
        if self.full { Duration::from_secs(4 * 3600) } else { Duration::from_secs(600) }
    }
}
