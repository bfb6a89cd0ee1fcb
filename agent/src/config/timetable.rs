//! Bandwidth by the time of the day. Times are the host's local time (`/etc/localtime`), because that is what office
//! hours are; when the clocks change, a slot starts and ends by the new time.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, de::Error as _};

#[derive(Debug, thiserror::Error)]
pub enum TimetableError {
    #[error("{0:?} is not a time of the day: HH:MM, 00:00 to 24:00")]
    NotATime(String),
    #[error("limits.timetable: {first} and {second} overlap")]
    Overlap { first: Slot, second: Slot },
    #[error("limits.timetable: {0} has no length")]
    Empty(Slot),
}

/// Minutes since midnight; 24:00 is an end only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Clock(u16);

impl Clock {
    const DAY: u16 = 24 * 60;

    pub fn new(hour: u16, minute: u16) -> Option<Self> {
        let minutes = hour.checked_mul(60)?.checked_add(minute)?;
        (minute < 60 && minutes <= Self::DAY).then_some(Self(minutes))
    }
}

impl FromStr for Clock {
    type Err = TimetableError;

    fn from_str(text: &str) -> Result<Self, TimetableError> {
        let two = |part: &str| (part.len() == 2).then(|| part.parse().ok()).flatten();
        let clock = text.split_once(':').and_then(|(hour, minute)| Self::new(two(hour)?, two(minute)?));
        clock.ok_or_else(|| TimetableError::NotATime(text.to_owned()))
    }
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

impl<'de> Deserialize<'de> for Clock {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// From `from` until just before `to`; a slot whose end is not after its start goes over midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slot {
    pub from: Clock,
    pub to: Clock,
    /// MiB a second; 0 is no limit.
    pub bandwidth_mib: u64,
}

impl Slot {
    fn holds(&self, now: Clock) -> bool {
        if self.from < self.to { (self.from..self.to).contains(&now) } else { now >= self.from || now < self.to }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.from, self.to)
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(transparent)]
pub struct Timetable(Vec<Slot>);

impl Timetable {
    pub fn slots(&self) -> &[Slot] {
        &self.0
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bandwidth at a time of the day, when a slot says one.
    pub fn bandwidth_mib(&self, now: Clock) -> Option<u64> {
        self.0.iter().find(|slot| slot.holds(now)).map(|slot| slot.bandwidth_mib)
    }

    pub(super) fn validate(&self) -> Result<(), TimetableError> {
        if let Some(slot) = self.0.iter().find(|slot| slot.from == slot.to) {
            return Err(TimetableError::Empty(*slot));
        }
        // Slots overlap if and only if one holds the start of the other.
        for (at, first) in self.0.iter().enumerate() {
            for second in &self.0[at + 1..] {
                if first.holds(second.from) || second.holds(first.from) {
                    return Err(TimetableError::Overlap { first: *first, second: *second });
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(slots: &[(&str, &str, u64)]) -> Timetable {
        let slot = |&(from, to, bandwidth_mib): &(&str, &str, u64)| Slot {
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
            bandwidth_mib,
        };
        Timetable(slots.iter().map(slot).collect())
    }

    #[test]
    fn a_slot_holds_its_start_and_not_its_end() {
        let table = table(&[("08:00", "18:00", 10), ("22:00", "06:00", 0)]);
        table.validate().unwrap();
        for (now, want) in [
            ("07:59", None),
            ("08:00", Some(10)),
            ("17:59", Some(10)),
            ("18:00", None),
            ("23:00", Some(0)),
            ("05:59", Some(0)),
            ("06:00", None),
        ] {
            assert_eq!(table.bandwidth_mib(now.parse().unwrap()), want, "{now}");
        }
    }

    #[test]
    fn overlaps_and_nonsense_are_refused() {
        assert!(matches!(
            table(&[("08:00", "18:00", 1), ("17:00", "19:00", 2)]).validate(),
            Err(TimetableError::Overlap { .. })
        ));
        assert!(matches!(
            table(&[("22:00", "06:00", 1), ("05:00", "07:00", 2)]).validate(),
            Err(TimetableError::Overlap { .. })
        ));
        assert!(matches!(table(&[("08:00", "08:00", 1)]).validate(), Err(TimetableError::Empty(_))));
        assert!(["24:01", "8:00", "08:60", "", "noon"].iter().all(|text| text.parse::<Clock>().is_err()));
    }
}
