//! What a sync did.

use std::time::Duration;

use drover_engine::{
    bases::{FoundBy, FoundByCounts},
    report::{Changes, Durations, FoundOn, SyncReport},
};

use crate::{
    moment::Moment,
    paths,
    units::{Bytes, Count, Time},
};

pub(crate) fn text(report: &SyncReport, subject: &str) -> String {
    let mut out = headline(report, subject);
    if !report.changes.is_empty() {
        out.push_str(&format!("  changes  {}\n", changes(&report.changes)));
    }
    out.push_str(&format!("  moved    {}\n", moved(report)));
    out.push_str(&format!("  time     {}\n", durations(&report.durations)));
    if let Some(point) = &report.point {
        out.push_str(&format!("  root     {}\n", point.root));
    }
    out.push_str(&found_by(&report.found_by));
    if let Some(kept) = report.kept_as {
        out.push_str(&format!("  kept     what the replica held before is restore point {kept}\n"));
    }
    paths(&mut out, "changed while they were read (the point is fuzzy)", &report.fuzzy);
    paths(&mut out, "had been changed on the replica by someone else, repaired", &report.repaired);
    paths(&mut out, "moved during the scan, not deleted", &report.not_deleted);
    out
}

/// How the change of big files was found; nothing where there was none to find.
pub(crate) fn found_by(found: &FoundOn) -> String {
    let side = |counts: &FoundByCounts| {
        let shown = counts.iter().map(|(how, files)| {
            let how = match how {
                FoundBy::ExtentMap => "by extent map",
                FoundBy::ReadFrozen => "read from a clone",
                FoundBy::ReadLive => "read as a whole",
                FoundBy::Snapshot => "read from a snapshot",
            };
            format!("{} {how}", Count(*files))
        });
        shown.collect::<Vec<_>>().join(", ")
    };
    let sides = [("source", &found.source), ("replica", &found.replica)];
    let sides = sides.iter().filter(|(_, counts)| !counts.is_empty());
    let sides: Vec<String> = sides.map(|(name, counts)| format!("{name} {}", side(counts))).collect();
    if sides.is_empty() { String::new() } else { format!("  big files  {}\n", sides.join("; ")) }
}

fn headline(report: &SyncReport, subject: &str) -> String {
    match &report.point {
        None => format!("{subject}: nothing to sync\n"),
        Some(point) => {
            let what = if report.unchanged { "unchanged, still at" } else { "synced to" };
            let (entries, bytes) = (Count(point.totals.entries), Bytes(point.totals.bytes));
            let taken = Moment(point.taken_at);
            format!("{subject}: {what} point {} ({}, {taken}): {entries} entries, {bytes}\n", point.id, point.label)
        }
    }
}

/// Only what is not zero.
pub(crate) fn changes(changes: &Changes) -> String {
    let kinds = [
        (changes.created, "created"),
        (changes.updated, "updated"),
        (changes.deleted, "deleted"),
        (changes.renamed, "renamed"),
        (changes.metadata, "metadata only"),
    ];
    let parts: Vec<String> =
        kinds.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{} {what}", Count(*n))).collect();
    if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
}

fn moved(report: &SyncReport) -> String {
    let wire = report.wire_sent + report.wire_received;
    let mut line = format!("{} over the link", Bytes(wire));
    if report.changes.bytes_changed > 0 {
        line.push_str(&format!(" for {} of new or changed content", Bytes(report.changes.bytes_changed)));
    }
    let total = report.point.as_ref().map_or(0, |point| point.totals.bytes);
    if wire < total {
        let saved = total - wire;
        let percent = saved as f64 * 100.0 / total as f64;
        line.push_str(&format!("; a full copy would be {} more ({percent:.1} % saved)", Bytes(saved)));
    }
    line
}

fn durations(durations: &Durations) -> String {
    let Durations { scan, compare, transfer, commit, apply, retain } = *durations;
    let time = |millis| Time(Duration::from_millis(millis));
    let parts = [
        ("scan", scan),
        ("compare", compare),
        ("transfer", transfer),
        ("commit", commit),
        ("apply", apply),
        ("retain", retain),
    ];
    let shown: Vec<String> =
        parts.iter().filter(|(_, n)| *n > 0).map(|(what, n)| format!("{what} {}", time(*n))).collect();
    let total = time(scan + compare + transfer + commit + apply + retain);
    if shown.is_empty() { total.to_string() } else { format!("{total}: {}", shown.join(", ")) }
}
