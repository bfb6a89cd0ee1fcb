//! What a sync would do.

use drover_engine::report::{Action, PlanItem, PlanReport};

use crate::{
    advice, paths,
    sync::{changes, found_by},
    units::{Bytes, Count},
};

pub(crate) fn text(report: &PlanReport, subject: &str) -> String {
    let mut out = if report.changes.is_empty() {
        format!("{subject}: a sync would change nothing\n")
    } else {
        format!("{subject}: a sync would change {}\n", changes(&report.changes))
    };
    if !report.changes.is_empty() {
        let Sizes { write, local, needed } = Sizes::of(report);
        out.push_str(&format!("  content  {write} to write, of which {local} are on the replica already\n"));
        out.push_str(&format!("  space    {needed} of new blocks on the replica in the worst case\n"));
    }
    out.push_str(&found_by(&report.found_by));
    for (reason, message) in &report.refused_by {
        out.push_str(&format!("  REFUSED  {reason}: {message}\n"));
        if let Some(advice) = advice(reason) {
            out.push_str(&format!("           {advice}\n"));
        }
    }
    paths(&mut out, "changed on the replica by someone else, would be repaired", &report.repaired);
    for item in &report.items {
        out.push_str(&line(item));
    }
    if report.items_left_out > 0 {
        out.push_str(&format!("  … and {} more\n", Count(report.items_left_out)));
    }
    out
}

struct Sizes {
    write: Bytes,
    local: Bytes,
    needed: Bytes,
}

impl Sizes {
    fn of(report: &PlanReport) -> Self {
        let changes = &report.changes;
        Self {
            write: Bytes(changes.bytes_changed),
            local: Bytes(changes.bytes_local),
            needed: Bytes(changes.bytes_needed),
        }
    }
}

fn line(item: &PlanItem) -> String {
    let action = match item.action {
        Action::Create => "create",
        Action::Update => "update",
        Action::Delete => "delete",
        Action::Rename => "rename",
        Action::Metadata => "metadata",
    };
    if let Some(from) = &item.from {
        return format!("  {action:<8} {from} -> {}\n", item.path);
    }
    match item.bytes {
        0 => format!("  {action:<8} {}\n", item.path),
        bytes => format!("  {action:<8} {} ({})\n", item.path, Bytes(bytes)),
    }
}
