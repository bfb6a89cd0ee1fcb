//! Numbers as people read them.

use std::{fmt, time::Duration};

/// `1.5 MiB`; whole below 1 KiB.
#[derive(Clone, Copy, Debug)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let mut value = self.0 as f64 / 1024.0;
        let mut unit = 0;
        // 1023.95 and more would be shown as 1024.0.
        while value >= 1023.95 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        write!(f, "{value:.1} {}", UNITS[unit])
    }
}

/// Bytes a second.
#[derive(Clone, Copy, Debug)]
pub struct Rate(pub u64);

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", Bytes(self.0))
    }
}

/// `12,345`.
#[derive(Clone, Copy, Debug)]
pub struct Count(pub u64);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        let mut text = String::new();
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                text.push(',');
            }
            text.push(digit);
        }
        f.pad(&text)
    }
}

/// How long something took: `850 ms`, `12.3 s`, `4m10s`, `3h02m`.
#[derive(Clone, Copy, Debug)]
pub struct Time(pub Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (millis, secs) = (self.0.as_millis(), self.0.as_secs());
        match secs {
            0 => write!(f, "{millis} ms"),
            1..60 => write!(f, "{:.1} s", self.0.as_secs_f64()),
            60..3600 => write!(f, "{}m{:02}s", secs / 60, secs % 60),
            _ => write!(f, "{}h{:02}m", secs / 3600, secs / 60 % 60),
        }
    }
}

/// How old something is, in whole units: `42s`, `17m`, `5h03m`, `12d`.
#[derive(Clone, Copy, Debug)]
pub struct Ago(pub Duration);

impl fmt::Display for Ago {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secs = self.0.as_secs();
        let text = match secs {
            0..60 => format!("{secs}s"),
            60..3600 => format!("{}m", secs / 60),
            3600..172_800 => format!("{}h{:02}m", secs / 3600, secs / 60 % 60),
            _ => format!("{}d", secs / 86_400),
        };
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_never_show_four_digits_and_a_point() {
        let shown = [0, 1023, 1024, 1536, 1 << 20, (1 << 20) - 1, 5 << 30, u64::MAX].map(|n| Bytes(n).to_string());
        assert_eq!(shown, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "1.0 MiB", "5.0 GiB", "16.0 EiB"]);
    }

    #[test]
    fn counts_are_grouped() {
        assert_eq!([0, 999, 1000, 1_234_567].map(|n| Count(n).to_string()), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn times_and_ages() {
        let time = |millis| Time(Duration::from_millis(millis)).to_string();
        assert_eq!([850, 12_340, 250_000, 10_920_000].map(time), ["850 ms", "12.3 s", "4m10s", "3h02m"]);
        let ago = |secs| Ago(Duration::from_secs(secs)).to_string();
        assert_eq!([42, 1_050, 18_180, 1_036_800].map(ago), ["42s", "17m", "5h03m", "12d"]);
    }
}
