//! Randomness that can be replayed: every test prints its seed; `DROVER_SEED` runs the same again.

use std::{
    env,
    time::{SystemTime, UNIX_EPOCH},
};

pub use fastrand::Rng;

/// Seeds of one test's rounds. With `DROVER_SEED` the first round is the one that was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Seeds {
    first: u64,
}

impl Seeds {
    /// Prints the seed, so that a failed run can be repeated.
    pub fn of(test: &str) -> Self {
        let given = env::var("DROVER_SEED").ok().map(|text| text.parse().expect("DROVER_SEED is a number"));
        let first = given.unwrap_or_else(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
            since.as_nanos() as u64 % 1_000_000_000_000
        });
        println!("{test}: DROVER_SEED={first}");
        Self { first }
    }

    pub fn round(&self, round: u64) -> u64 {
        self.first.wrapping_add(round)
    }

    pub fn rng(&self, round: u64) -> Rng {
        Rng::with_seed(self.round(round))
    }
}
