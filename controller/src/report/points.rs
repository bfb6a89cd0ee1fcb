//! The restore points of a volume's copies.

use drover_proto::v1::{Label, Origin, RestorePoint};
use drover_report::{Bytes, Count, Moment, Table};
use serde::Serialize;

use super::Say;
use crate::fleet::{Replica, Volume};

#[derive(Clone, Debug, Serialize)]
pub(crate) struct PointsReport {
    pub volume: String,
    pub copies: Vec<CopyPoints>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct CopyPoints {
    pub agent: String,
    pub path: String,
    pub role: &'static str,
    /// Rolled back: no sync until released.
    pub paused: bool,
    /// Newest first.
    pub points: Vec<PointRow>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct PointRow {
    pub id: String,
    /// The tree is at this point.
    pub current: bool,
    pub taken_at_unix_secs: i64,
    pub label: &'static str,
    pub origin: &'static str,
    pub epoch: u64,
    pub entries: u64,
    pub bytes: u64,
    pub bytes_moved: u64,
    pub root_digest: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lost_paths: Vec<String>,
}

impl PointsReport {
    pub(crate) fn new(volume: &Volume, copies: Vec<(Replica, Vec<RestorePoint>, bool)>) -> Self {
        let copies = copies.into_iter().map(|(copy, points, paused)| CopyPoints {
            agent: copy.agent.name.clone(),
            path: copy.path.clone(),
            role: super::status::role(copy.info.role()),
            paused,
            points: points.iter().map(PointRow::new).collect(),
        });
        Self { volume: volume.id.clone(), copies: copies.collect() }
    }
}

impl PointRow {
    fn new(restore: &RestorePoint) -> Self {
        let point = restore.point.clone().unwrap_or_default();
        Self {
            label: label(point.label()),
            origin: origin(point.origin()),
            id: point.id,
            current: restore.current,
            taken_at_unix_secs: point.taken_at_unix_secs,
            epoch: point.epoch,
            entries: point.entries,
            bytes: point.bytes,
            bytes_moved: point.bytes_moved,
            root_digest: point.root_digest,
            lost_paths: point.lost_paths,
        }
    }
}

fn label(label: Label) -> &'static str {
    match label {
        Label::Unspecified => "unknown",
        Label::Fuzzy => "fuzzy",
        Label::PerFile => "per-file",
        Label::CrashConsistent => "crash-consistent",
        Label::Fenced => "fenced",
        Label::Quiesced => "quiesced",
    }
}

fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Unspecified => "unknown",
        Origin::Sync => "sync",
        Origin::Kept => "kept",
    }
}

impl Say for PointsReport {
    fn text(&self) -> String {
        let mut out = format!("volume {}\n", self.volume);
        for copy in &self.copies {
            out.push_str(&format!("\n{} {} ({})\n", copy.agent, copy.path, copy.role));
            if copy.points.is_empty() {
                out.push_str("  no restore points\n");
                continue;
            }
            out.push_str(&copy.table().to_string());
            if copy.paused {
                out.push_str("rolled back: no sync until `drover rollback VOLUME --release`\n");
            }
            for point in copy.points.iter().filter(|point| !point.lost_paths.is_empty()) {
                let paths = point.lost_paths.join(", ");
                out.push_str(&format!("point {} is not whole, a write by others destroyed: {paths}\n", point.id));
            }
        }
        out
    }
}

impl CopyPoints {
    fn table(&self) -> Table {
        let mut table = Table::new(["  POINT", "TAKEN", "LABEL", "FROM", "ENTRIES", "SIZE", "MOVED", "ROOT"]);
        for point in &self.points {
            table.row([
                format!("{} {}", if point.current { "*" } else { " " }, point.id),
                Moment(point.taken_at_unix_secs).to_string(),
                point.label.to_owned(),
                point.origin.to_owned(),
                Count(point.entries).to_string(),
                Bytes(point.bytes).to_string(),
                Bytes(point.bytes_moved).to_string(),
                point.root_digest.get(..12).unwrap_or(&point.root_digest).to_owned(),
            ]);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str, current: bool) -> PointRow {
        PointRow {
            id: id.to_owned(),
            current,
            taken_at_unix_secs: 1_795_257_000,
            label: "per-file",
            origin: "sync",
            epoch: 1,
            entries: 4210,
            bytes: 5 << 30,
            bytes_moved: 3 << 20,
            root_digest: "0123456789abcdef".repeat(4),
            lost_paths: Vec::new(),
        }
    }

    #[test]
    fn the_current_point_has_a_star() {
        let copies = vec![CopyPoints {
            agent: "site-b".into(),
            path: "/srv/nfs/pvc-1".into(),
            role: "secondary",
            paused: true,
            points: vec![row("12+1", false), row("12", true)],
        }];
        let report = PointsReport { volume: "6f1c".into(), copies };
        assert_eq!(
            report.text(),
            "\
volume 6f1c

site-b /srv/nfs/pvc-1 (secondary)
  POINT  TAKEN                    LABEL     FROM  ENTRIES  SIZE     MOVED    ROOT
  12+1   2026-11-21 10:30:00 UTC  per-file  sync  4,210    5.0 GiB  3.0 MiB  0123456789ab
* 12     2026-11-21 10:30:00 UTC  per-file  sync  4,210    5.0 GiB  3.0 MiB  0123456789ab
rolled back: no sync until `drover rollback VOLUME --release`
"
        );
    }
}
