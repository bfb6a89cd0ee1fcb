//! What an agent said. ERROR pages a human and WARN went on: a test must have listed them, or it fails.

use std::{fs, path::Path};

/// Lines of level WARN or ERROR in which none of `listed` occurs.
pub(super) fn unlisted(log: &Path, listed: &[&str]) -> Vec<String> {
    let text = String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned();
    let is_alarm = |line: &&str| {
        // Text lines have the level as a word near their start, JSON lines as a field.
        line.split_whitespace().take(3).any(|word| matches!(word, "WARN" | "ERROR"))
            || line.contains("\"level\":\"WARN\"")
            || line.contains("\"level\":\"ERROR\"")
            || line.contains("panicked at")
    };
    let alarms = text.lines().filter(is_alarm);
    alarms.filter(|line| !listed.iter().any(|part| line.contains(part))).map(str::to_owned).collect()
}
