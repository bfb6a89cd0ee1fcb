//! Random numbers that are the same on every machine and in every release: a workload is named by its seed.

/// SplitMix64 (Steele, Lea, Flood 2014): one multiplication chain a number, no state worth losing.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// An independent sequence for a part of the workload, so that one part's draws don't move another's.
    pub fn of(seed: u64, part: u64) -> Self {
        Self(Self(seed ^ part.wrapping_mul(0xA24B_AED4_963E_E407)).draw())
    }

    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// 0 to `end`, `end` excluded.
    pub fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.draw()) * u128::from(end)) >> 64) as u64
    }

    /// 0 to 1.
    fn unit(&mut self) -> f64 {
        (self.draw() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Lognormal around `median`, drawn again until it lies within `min..=max`.
    pub fn lognormal(&mut self, median: f64, sigma: f64, min: u64, max: u64) -> u64 {
        loop {
            // Box-Muller; 1 - unit keeps the logarithm finite.
            let (u, v) = (1.0 - self.unit(), self.unit());
            let normal = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
            let size = (median * (sigma * normal).exp()) as u64;
            if (min..=max).contains(&size) {
                return size;
            }
        }
    }

    /// Bytes that don't compress.
    pub fn noise(&mut self, bytes: usize) -> Vec<u8> {
        let mut noise = Vec::with_capacity(bytes + 8);
        while noise.len() < bytes {
            noise.extend_from_slice(&self.draw().to_le_bytes());
        }
        noise.truncate(bytes);
        noise
    }

    /// Bytes that compress about as well as prose or logs.
    pub fn text(&mut self, bytes: usize) -> Vec<u8> {
        const WORDS: [&str; 16] = [
            "replica ",
            "volume ",
            "the ",
            "of ",
            "sync ",
            "point ",
            "is ",
            "site ",
            "0x7f3a ",
            "warn ",
            "2031-04-05 ",
            "storage ",
            "and ",
            "node-17 ",
            "took ",
            "ms\n",
        ];
        let mut text = Vec::with_capacity(bytes + 16);
        while text.len() < bytes {
            let mut bits = self.draw();
            for _ in 0..16 {
                text.extend_from_slice(WORDS[(bits & 15) as usize].as_bytes());
                bits >>= 4;
            }
        }
        text.truncate(bytes);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_same_for_ever() {
        // First numbers of the published reference for seed 0.
        let mut random = Random::new(0);
        assert_eq!([random.draw(), random.draw()], [0xE220_A839_7B1D_CDAF, 0x6E78_9E6A_A1B9_65F4]);
    }

    #[test]
    fn sizes_stay_within_bounds_and_near_the_mean() {
        let mut random = Random::new(1);
        let sizes: Vec<u64> = (0..10_000).map(|_| random.lognormal(10_240.0, 0.85, 1024, 65_536)).collect();
        assert!(sizes.iter().all(|size| (1024..=65_536).contains(size)));
        let mean = sizes.iter().sum::<u64>() / 10_000;
        assert!((12_500..15_000).contains(&mean), "{mean}");
    }
}
