//! The rows of an image that ages.

use super::aged::{Aged, Row, SyncRow};

const PHASES: [&str; 6] = ["scan", "compare", "transfer", "commit", "apply", "retain"];

pub fn head() -> String {
    format!(
        "\nan image that is synced again and again, each time after 2 % of it were overwritten\n\
         {:>5}{:>10}  {:46}{:14}{:14}{:>9}{:>9}{:>10}{:>12}{:>10}{:>10}\n",
        "sync",
        "wall ms",
        format!("{} ms", PHASES.join("/")),
        "source by",
        "replica by",
        "extents",
        "replica",
        "clone ms",
        "cold MiB/s",
        "stall ms",
        "worst ms"
    )
}

pub fn row(row: &Row) -> String {
    let SyncRow { sync, wall_ms, stall_ms, durations, source, replica } = &row.sync;
    let phases = PHASES.map(|phase| durations[phase].to_string()).join("/");
    let clone = row.clone_ms.map_or("-".to_owned(), |clone| format!("{clone:.2}"));
    format!(
        "{sync:>5}{wall_ms:>10.1}  {phases:46}{:14}{:14}{:>9}{:>9}{clone:>10}{:>12.0}{stall_ms:>10.2}{:>10.2}",
        by(source),
        by(replica),
        row.source_extents,
        row.replica_extents,
        row.cold_mib_per_second,
        row.worst_stall_ms
    )
}

/// Times that vouch for a file spare looking at it.
fn by(found: &[String]) -> String {
    if found.is_empty() { "times".to_owned() } else { found.join("+") }
}

pub fn fallbacks(aged: &Aged) -> String {
    if !aged.has_maps() {
        return "no fallback: this file system has no extent maps of clones to compare\n".to_owned();
    }
    let told = |name: &str, side| match aged.fell_back(side) {
        Some((sync, by)) => format!("{name}: fallback fires at sync {sync} ({by})\n"),
        None => format!("{name}: no fallback\n"),
    };
    told("source", |sync| &sync.source) + &told("replica", |sync| &sync.replica)
}
