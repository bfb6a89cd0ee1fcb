//! What a comparison of both copies found.

use drover_engine::{
    image::Range,
    report::{Difference, VerifyReport, What},
};

use crate::{
    paths,
    units::{Bytes, Count},
};

pub(crate) fn text(report: &VerifyReport, subject: &str) -> String {
    let mut out = format!("{subject}: {}\n", verdict(report));
    let how = if report.deep { "all content was read again on both sides" } else { "by roots and metadata" };
    out.push_str(&format!("  compared {} entries, {}: {how}\n", Count(report.entries), Bytes(report.bytes)));
    out.push_str(&format!("  replica  {}\n  source   {}\n", report.replica_root, report.source_root));
    let (replica, source) = (&report.replica_differs, &report.source_differs);
    match report.differs_at.as_slice() {
        [] => differences(&mut out, "the replica differs from its point", replica, report.replica_differs_total),
        ranges => differing(&mut out, ranges, report.replica_differs_total),
    }
    let rotten = "content on the source changed though its times did not (bit rot, or a write that hid itself)";
    paths(&mut out, rotten, &report.source_rotten);
    differences(
        &mut out,
        "the source differs from the replica, which is no discrepancy,",
        source,
        report.source_differs_total,
    );
    out
}

/// Of an image.
fn differing(out: &mut String, ranges: &[Range], leaves: u64) {
    const SHOWN: usize = 20;
    out.push_str(&format!("  the copies of the point differ in {} MiB, which the next sync mends:\n", Count(leaves)));
    for range in ranges.iter().take(SHOWN) {
        out.push_str(&format!("    {} at byte {}\n", Bytes(range.length), Count(range.offset)));
    }
    if ranges.len() > SHOWN {
        out.push_str("    … and others\n");
    }
}

fn verdict(report: &VerifyReport) -> String {
    let Some(point) = report.point.map(|id| format!("point {id}")) else {
        return "NOTHING TO VERIFY: the replica was never synced".to_owned();
    };
    if report.is_discrepancy() {
        return match report.replica_is_point {
            false => format!("DISCREPANCY: the replica is not what {point} says"),
            true => "DISCREPANCY: the source lost content that it should still have".to_owned(),
        };
    }
    match report.source_is_point {
        true => format!("verified: both copies are {point}"),
        false => format!(
            "verified: the replica is {point}; the source holds something else (written since, or another point)"
        ),
    }
}

fn differences(out: &mut String, heading: &str, list: &[Difference], total: u64) {
    const SHOWN: usize = 20;
    if total == 0 {
        return;
    }
    out.push_str(&format!("  {heading} at {} {}:\n", Count(total), if total == 1 { "path" } else { "paths" }));
    for difference in list.iter().take(SHOWN) {
        let what = match difference.what {
            What::Missing => "missing",
            What::Extra => "extra",
            What::Content => "content",
            What::Metadata => "metadata",
            What::Kind => "kind",
        };
        out.push_str(&format!("    {what:<8} {}\n", difference.path));
    }
    if total > SHOWN.min(list.len()) as u64 {
        out.push_str(&format!("    … and {} more\n", Count(total - SHOWN.min(list.len()) as u64)));
    }
}
