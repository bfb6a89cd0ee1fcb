//! Which copy of a volume a verb addresses, when several agents have one. Pure.

use crate::{
    failure::Failure,
    fleet::{Replica, Volume},
};

/// The copy from which a sync or a verification is driven: the primary, or the only copy that can be asked.
pub(super) fn driver<'a>(volume: &'a Volume, verb: &str) -> Result<&'a Replica, Failure> {
    let primaries: Vec<&Replica> = volume.primaries().collect();
    match (primaries.as_slice(), volume.copies.as_slice()) {
        ([primary], _) => Ok(primary),
        ([], [only]) => Ok(only),
        ([], _) => Err(Failure::Refused(format!(
            "no copy of {} is primary ({}); promote one, then {verb}",
            volume.label(),
            agents(volume.copies.iter())
        ))),
        _ => Err(Failure::Refused(format!(
            "split-brain: {} copies of {} are primary ({}); demote the one to be given up, then {verb}",
            primaries.len(),
            volume.label(),
            agents(volume.primaries())
        ))),
    }
}

/// The copy that only syncs write.
pub(super) fn secondary<'a>(volume: &'a Volume, verb: &str) -> Result<&'a Replica, Failure> {
    let secondaries: Vec<&Replica> = volume.secondaries().collect();
    match secondaries.as_slice() {
        [secondary] => Ok(secondary),
        [] => Err(Failure::Refused(format!(
            "no secondary copy of {} can be reached (primary: {}); only a secondary can be the target of {verb}",
            volume.label(),
            agents(volume.primaries())
        ))),
        _ => Err(Failure::Usage(format!(
            "{} has several secondary copies ({}); choose one with --agent NAME",
            volume.label(),
            agents(volume.secondaries())
        ))),
    }
}

fn agents<'a>(copies: impl Iterator<Item = &'a Replica>) -> String {
    copies.map(|copy| copy.agent.name.as_str()).collect::<Vec<_>>().join(", ")
}
