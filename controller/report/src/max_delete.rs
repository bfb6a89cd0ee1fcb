//! How much a sync may delete, as it is written on a command line.

use std::str::FromStr;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxDelete {
    Entries(u64),
    /// Of the replica's entries, 0 to 100.
    Percent(u8),
}

impl FromStr for MaxDelete {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let limit = match text.strip_suffix('%') {
            Some(percent) => percent.parse().ok().filter(|percent| *percent <= 100).map(Self::Percent),
            None => text.parse().ok().map(Self::Entries),
        };
        limit.ok_or_else(|| "a number of entries like 100, or a share like 5%".to_owned())
    }
}
