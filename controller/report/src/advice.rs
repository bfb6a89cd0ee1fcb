//! What to do about an error, by its stable reason. The README's table of reasons is checked against this one.

/// Reason and what to do. `VOLUME` and the like stand for what the user knows.
pub const REASONS: &[(&str, &str)] = &[
    (
        "empty-source",
        "check that the source is mounted; if it is meant to be empty, sync with --allow-empty-source",
    ),
    (
        "mass-delete",
        "look at the plan with --dry-run; if the deletes are meant, raise the limit with --max-delete",
    ),
    (
        "no-space",
        "free space on the replica's file system, or lower the number of restore points that are kept",
    ),
];

pub fn advice(reason: &str) -> Option<&'static str> {
    REASONS
        .iter()
        .find(|(known, _)| *known == reason)
        .map(|(_, advice)| *advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_sorted_and_unique() {
        assert!(REASONS.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn the_readme_explains_every_reason() {
        let readme = include_str!("../../../README.md");
        for (reason, _) in REASONS {
            assert!(
                readme.contains(&format!("| `{reason}` |")),
                "README.md has no row for {reason}"
            );
        }
    }
}
