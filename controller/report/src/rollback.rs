//! What a rollback did.

use std::time::Duration;

use drover_engine::report::RollbackReport;

use crate::{sync::changes, units::Time};

pub(crate) fn text(report: &RollbackReport, subject: &str) -> String {
    let from = report.from.map_or_else(String::new, |from| format!(" (was at {from})"));
    let mut out = format!("{subject}: now at point {}{from}\n", report.to);
    out.push_str(&format!("  changes  {}\n", changes(&report.changes)));
    out.push_str(&format!("  apply    {}\n", Time(Duration::from_millis(report.apply_millis))));
    if let Some(kept) = report.kept_as {
        out.push_str(&format!("  kept     what the tree held before is restore point {kept}\n"));
    }
    out
}
