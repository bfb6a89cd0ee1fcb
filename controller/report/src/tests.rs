//! What people see, word by word.

use drover_engine::{
    digest::Digest,
    id::LineageId,
    image::Range,
    path::RelPath,
    point::{Label, Origin, Point, PointId, PointTotals},
    report::{
        Action, Changes, Difference, Durations, FoundOn, PlanItem, PlanReport, RollbackReport, SyncReport,
        VerifyReport, What,
    },
};

use super::*;

fn path(text: &str) -> RelPath {
    text.parse().unwrap()
}

fn changes() -> Changes {
    Changes {
        created: 1_200,
        updated: 2,
        deleted: 1,
        bytes_changed: 10 << 20,
        bytes_needed: 11 << 20,
        ..Changes::default()
    }
}

fn synced() -> SyncReport {
    SyncReport {
        point: Some(Point {
            id: PointId::sync(12),
            origin: Origin::Sync,
            lineage: LineageId::from_bytes([7; 16]),
            epoch: 1,
            parent: Some(PointId::sync(11)),
            taken_at: 1_795_257_000,
            root: Digest::from_bytes([0xab; 32]),
            totals: PointTotals { entries: 5_000, bytes: 1 << 30 },
            label: Label::PerFile,
            bytes_moved: 1 << 20,
            lost: Vec::new(),
            is_cut: false,
        }),
        unchanged: false,
        changes: changes(),
        wire_sent: 512 << 10,
        wire_received: 512 << 10,
        durations: Durations { scan: 300, transfer: 1_500, ..Durations::default() },
        fuzzy: Vec::new(),
        not_deleted: Vec::new(),
        repaired: Vec::new(),
        kept_as: None,
        found_by: FoundOn::default(),
    }
}

#[test]
fn a_sync() {
    assert_eq!(
        text(&Report::Sync(synced()), "nfs/pvc-1"),
        "\
nfs/pvc-1: synced to point 12 (per-file, 2026-11-21 10:30:00 UTC): 5,000 entries, 1.0 GiB
  changes  1,200 created, 2 updated, 1 deleted
  moved    1.0 MiB over the link for 10.0 MiB of new or changed content; a full copy would be 1023.0 MiB more (99.9 % saved)
  time     1.8 s: scan 300 ms, transfer 1.5 s
  root     abababababababababababababababababababababababababababababababab
"
    );
}

#[test]
fn a_sync_of_nothing_and_one_with_everything_to_say() {
    let report = SyncReport { unchanged: true, changes: Changes::default(), ..synced() };
    let shown = text(&Report::Sync(report), "v");
    assert!(shown.starts_with("v: unchanged, still at point 12 (per-file, "), "{shown}");

    let report = SyncReport {
        fuzzy: (0..12).map(|n| path(&format!("log/{n}"))).collect(),
        repaired: vec![path("a\\x0ab")],
        kept_as: Some(PointId { number: 11, kept: 1 }),
        ..synced()
    };
    let shown = text(&Report::Sync(report), "v");
    let (_, told) = shown.split_once("  kept ").unwrap();
    assert_eq!(
        told,
        "    what the replica held before is restore point 11+1
  changed while they were read (the point is fuzzy):
    log/0
    log/1
    log/2
    log/3
    log/4
    log/5
    log/6
    log/7
    log/8
    log/9
    … and 2 more in --output json
  had been changed on the replica by someone else, repaired:
    a\\x0ab
"
    );
}

#[test]
fn a_plan_that_a_guard_refuses() {
    let report = Report::Plan(PlanReport {
        changes: changes(),
        items: vec![
            PlanItem { action: Action::Create, path: path("new"), from: None, bytes: 2048 },
            PlanItem { action: Action::Delete, path: path("old"), from: None, bytes: 0 },
        ],
        items_left_out: 1_201,
        refused_by: vec![("mass-delete".to_owned(), "9 of 10 entries would be deleted".to_owned())],
        repaired: Vec::new(),
        found_by: FoundOn::default(),
    });
    assert_eq!(exit(&report), Exit::Refused);
    assert_eq!(
        text(&report, "v"),
        "\
v: a sync would change 1,200 created, 2 updated, 1 deleted
  content  10.0 MiB to write, of which 0 B are on the replica already
  space    11.0 MiB of new blocks on the replica in the worst case
  REFUSED  mass-delete: 9 of 10 entries would be deleted
           if the deletes in the plan (--dry-run) are meant, raise the limit with --max-delete
  create   new (2.0 KiB)
  delete   old
  … and 1,201 more
"
    );
}

#[test]
fn verifications() {
    let good = VerifyReport {
        deep: true,
        replica_is_point: true,
        source_is_point: false,
        replica_differs: Vec::new(),
        differs_at: Vec::new(),
        replica_differs_total: 0,
        source_differs: vec![Difference { path: path("f"), what: What::Content }],
        source_differs_total: 1,
        source_rotten: Vec::new(),
        point: Some(PointId::sync(3)),
        replica_root: "aa".to_owned(),
        source_root: "bb".to_owned(),
        entries: 10,
        bytes: 1024,
    };
    assert_eq!(exit(&Report::Verify(good.clone())), Exit::Ok);
    assert_eq!(
        text(&Report::Verify(good.clone()), "v"),
        "\
v: verified: the replica is point 3; the source holds something else (written since, or another point)
  compared 10 entries, 1.0 KiB: all content was read again on both sides
  replica  aa
  source   bb
  the source differs from the replica, which is no discrepancy, at 1 path:
    content  f
"
    );

    let bad = VerifyReport { replica_is_point: false, deep: false, source_differs_total: 300, ..good };
    assert_eq!(exit(&Report::Verify(bad.clone())), Exit::Discrepancy);
    let shown = text(&Report::Verify(bad.clone()), "v");
    assert!(shown.starts_with("v: DISCREPANCY: the replica is not what point 3 says\n"), "{shown}");
    let at = Range { offset: 5 << 20, length: 2 << 20 };
    let rotten = VerifyReport { differs_at: vec![at], replica_differs_total: 2, ..bad.clone() };
    let named =
        "  the copies of the point differ in 2 MiB, which the next sync mends:\n    2.0 MiB at byte 5,242,880\n";
    assert!(text(&Report::Verify(rotten), "v").contains(named));
    assert!(
        shown.ends_with("  the source differs from the replica, which is no discrepancy, at 300 paths:\n    content  f\n    … and 299 more\n"),
        "{shown}"
    );
}

#[test]
fn a_rollback() {
    let report = Report::Rollback(RollbackReport {
        from: Some(PointId::sync(3)),
        to: PointId::sync(2),
        changes: Changes { updated: 4, ..Changes::default() },
        apply_millis: 20,
        kept_as: None,
    });
    assert_eq!(text(&report, "v"), "v: now at point 2 (was at 3)\n  changes  4 updated\n  apply    20 ms\n");
}

#[test]
fn the_worst_end_is_the_exit_code() {
    let all = [Exit::Ok, Exit::Refused, Exit::Failure, Exit::Unreachable];
    assert_eq!(all.into_iter().fold(Exit::Ok, Exit::worse), Exit::Failure);
    assert_eq!(Exit::Discrepancy.worse(Exit::Cancelled) as u8, 130);
}
