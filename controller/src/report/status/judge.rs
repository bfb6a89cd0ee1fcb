//! Is a volume healthy? Pure: each rule is a sentence that says what to do.

use super::CopyStatus;

const PRIMARY: &str = "primary";

/// Both copies take writes: they diverge until one is given up.
pub(super) fn is_split(copies: &[CopyStatus]) -> bool {
    copies.iter().filter(|copy| copy.role == PRIMARY).count() > 1
}

/// Why the volume is not healthy. With an agent missing, what its copy says is unknown and not held against the volume:
/// the missing agent is a reason of its own.
pub(super) fn volume(copies: &[CopyStatus], every_agent_answered: bool) -> Vec<String> {
    let mut because = Vec::new();
    let primaries: Vec<&CopyStatus> = copies.iter().filter(|copy| copy.role == PRIMARY).collect();
    if let [first, rest @ ..] = primaries.as_slice()
        && !rest.is_empty()
    {
        because.push(split(first, rest));
    }
    if every_agent_answered {
        because.extend(lonely(copies, primaries.len()));
    }
    because.extend(superseded(copies, &primaries));
    because.extend(copies.iter().flat_map(of_copy));
    because
}

fn split(first: &CopyStatus, rest: &[&CopyStatus]) -> String {
    let others: Vec<&str> = rest.iter().map(|copy| copy.agent.as_str()).collect();
    let others = others.join(" and ");
    format!(
        "split-brain: {} and {others} are both primary; demote the one to be given up, then resync it (what it holds is \
         kept as a restore point)",
        first.agent
    )
}

fn lonely(copies: &[CopyStatus], primaries: usize) -> Option<String> {
    match (primaries, copies) {
        (0, _) => Some("no copy is primary; promote one".to_owned()),
        (1, [only]) => Some(format!("has no replica: only {} has a copy; enable it at another agent", only.agent)),
        _ => None,
    }
}

fn superseded(copies: &[CopyStatus], primaries: &[&CopyStatus]) -> Option<String> {
    let [primary] = primaries else { return None };
    let newer = copies.iter().find(|copy| copy.epoch > primary.epoch)?;
    Some(format!(
        "the primary at {} (epoch {}) was superseded by {} (epoch {})",
        primary.agent, primary.epoch, newer.agent, newer.epoch
    ))
}

fn of_copy(copy: &CopyStatus) -> Vec<String> {
    let mut because = Vec::new();
    if copy.role != PRIMARY && copy.newest_point.is_none() {
        because.push(format!("the replica at {} was never synced; run `drover sync`", copy.agent));
    }
    if copy.paused {
        because.push(format!(
            "the replica at {} was rolled back and is not synced; run `drover rollback VOLUME --release`",
            copy.agent
        ));
    }
    if copy.health != "ok" {
        let reasons = copy.health_because.join("; ");
        let reasons = if reasons.is_empty() { String::new() } else { format!(": {reasons}") };
        because.push(format!("the copy at {} is {}{reasons}", copy.agent, copy.health));
    }
    because
}
