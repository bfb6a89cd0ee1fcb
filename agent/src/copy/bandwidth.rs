//! `--bwlimit`, in rsync's own syntax.

use std::str::FromStr;

/// Bytes a second; 0 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bandwidth(pub(super) u64);

impl FromStr for Bandwidth {
    type Err = String;

    /// A number with an optional fraction, then `B`, or `K`, `M`, `G`, `T` (1024), `KB`, `MB`, … (1000) or `KiB`, ….
    /// Without a suffix the unit is KiB.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no rate: write one like 5000 (KiB a second), 1.5m or 2GB");
        let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(unit_at);
        let number: f64 = number.parse().map_err(|_| wrong())?;
        let unit = unit.to_ascii_lowercase();
        let (letter, rest) = unit.split_at(unit.len().min(1));
        let power = match letter {
            "" | "k" => 1,
            "b" => 0,
            "m" => 2,
            "g" => 3,
            "t" => 4,
            _ => return Err(wrong()),
        };
        let base: f64 = match rest {
            "" | "ib" => 1024.0,
            "b" if power > 0 => 1000.0,
            _ => return Err(wrong()),
        };
        Ok(Self((number * base.powi(power)) as u64))
    }
}
