//! What can't run here says so aloud, where it can be counted; nothing is skipped in silence.

/// Prints the line that `tests/run` counts.
pub fn skipped(test: &str, why: &str) {
    println!("SKIPPED {test}: {why}");
    eprintln!("SKIPPED {test}: {why}");
}

/// Whether this process is root; says so when it is not.
pub fn needs_root(test: &str) -> bool {
    let is_root = crate::tree::is_root();
    if !is_root {
        skipped(test, "needs root");
    }
    is_root
}
