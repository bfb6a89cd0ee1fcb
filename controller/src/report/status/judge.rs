//! Is a volume healthy? Pure: each rule is a sentence that says what to do.

use super::CopyStatus;

const PRIMARY: &str = "primary";

/// Both copies take writes: they diverge until one is given up.
pub(super) fn is_split(copies: &[CopyStatus]) -> bool {
    copies.iter().filter(|copy| copy.role == PRIMARY).count() > 1
}

/// Whether a copy that was not seen can be said not to exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Everyone,
    /// An agent is away, which is a reason of its own, or only one was asked.
    Some,
}

/// Why the volume is not healthy.
pub(super) fn volume(copies: &[CopyStatus], asked: Asked) -> Vec<String> {
    let mut because = Vec::new();
    let primaries: Vec<&CopyStatus> = copies.iter().filter(|copy| copy.role == PRIMARY).collect();
    if let [first, rest @ ..] = primaries.as_slice()
        && !rest.is_empty()
    {
        because.push(split(first, rest));
    }
    if asked == Asked::Everyone {
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
        // Of `drover-agent copy`: nobody promised another side.
        (_, [only]) if only.peer.is_none() => None,
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
    // What stands above already, with what to do about it, is not said again in the agent's words.
    let is_news = |why: &&String| {
        let said = copy.newest_point.is_none() && why.starts_with("never synced")
            || copy.paused && why.starts_with("rolled back");
        !said
    };
    let reasons: Vec<&str> = copy.health_because.iter().filter(is_news).map(String::as_str).collect();
    if !reasons.is_empty() {
        because.push(format!("the copy at {} is {}: {}", copy.agent, copy.health, reasons.join("; ")));
    } else if copy.health != "ok" && copy.health_because.is_empty() {
        because.push(format!("the copy at {} is {}", copy.agent, copy.health));
    }
    because
}
