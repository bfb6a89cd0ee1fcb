//! What people read: one table for each workload, every ratio beside its goal.

use std::fmt::Write;

use crate::{
    goal::{Verdict, mib},
    machine::Machine,
    meter::Cost,
    round::{DROVER, Outcome},
    wan::Link,
    workload::{Size, Workload},
};

pub fn header(machine: &Machine, size: Size, rounds: u64, link: Option<&Link>) -> String {
    let link = link.map(|link| format!("{link}\n")).unwrap_or_default();
    place(machine, size) + &link + &format!("medians of {rounds} rounds after one that is not counted\n")
}

/// What was run where.
pub fn place(machine: &Machine, size: Size) -> String {
    let Machine { processor, cores, memory_gib, kernel, filesystem, images, rsync, command, has_own_network } = machine;
    let mut text = format!(
        "{processor}, {cores} cores, {memory_gib} GiB, Linux {kernel}, {images} on {filesystem}, warm page cache\n\
         {rsync}\n{command}\n\
         both ends on this machine\n"
    );
    if size == Size::Small {
        text.push_str("small size: only shows that the run works, the ratios mean nothing\n");
    }
    if !has_own_network {
        text.push_str("shared network namespace: bytes on the wire include everybody's loopback traffic\n");
    }
    text
}

pub fn table(outcome: &Outcome, verdicts: &[Verdict]) -> String {
    let mut text = format!("\n{}  {}\n", outcome.workload.name(), description(outcome.workload));
    if outcome.changed_bytes_median() > 0.0 {
        // Writing to a String can't fail.
        let _ = writeln!(text, "changed content: {:.0} bytes", outcome.changed_bytes_median());
    }
    let _ = writeln!(
        text,
        "{:40}{:>9}{:>10}{:>8}{:>10}{:>12}   drover / it:{:>7}{:>9}{:>7}",
        "", "wall s", "+ sync -f", "CPU s", "peak MiB", "wire KB", "wall", "+ sync", "CPU"
    );
    let drover = outcome.drover().map(|drover| drover.median);
    for contestant in &outcome.contestants {
        let rival = drover.filter(|_| contestant.name != DROVER);
        let _ = writeln!(text, "{}", row(contestant.name, &contestant.median, rival.as_ref()));
    }
    if let Some(durations) = outcome.drover().and_then(|d| d.report.as_ref()).and_then(|r| r.get("durations")) {
        let _ = writeln!(text, "phases of the last round, ms: {durations}");
    }
    for verdict in verdicts {
        let Verdict { goal, value, limit, is_met } = verdict;
        let mark = if *is_met { "PASS" } else { "MISSED" };
        let _ = match value {
            Some(value) => writeln!(text, "goal of a later release: {goal:48}{value:>10.2} <= {limit:<10.2}{mark}"),
            None => writeln!(text, "{goal} {mark}"),
        };
    }
    text
}

fn row(name: &str, cost: &Cost, drover: Option<&Cost>) -> String {
    let mut row = format!(
        "{name:40}{:>9.3}{:>10.3}{:>8.2}{:>10.1}{:>12.1}",
        cost.wall_seconds,
        cost.flushed_seconds,
        cost.cpu_seconds,
        mib(cost.peak_rss_bytes),
        cost.wire_bytes as f64 / 1e3
    );
    if let Some(drover) = drover {
        let _ = write!(
            row,
            "{:>22.2}{:>9.2}{:>7.2}",
            drover.wall_seconds / cost.wall_seconds,
            drover.wall_seconds / cost.flushed_seconds,
            drover.cpu_seconds / cost.cpu_seconds
        );
    }
    row
}

fn description(workload: Workload) -> String {
    use clap::ValueEnum;
    let value = workload.to_possible_value();
    value.and_then(|value| value.get_help().map(ToString::to_string)).unwrap_or_default()
}
