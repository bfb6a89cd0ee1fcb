//! Figures that the acceptance asks for: one line each, which `tests/accept` collects.

use std::fmt::Display;

/// Which side of the goal is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    AtLeast(u64),
    AtMost(u64),
}

/// Prints `FIGURE name | figure unit | goal | PASS or MISSED` and says whether the goal was met.
pub fn report(name: &str, figure: u64, unit: impl Display, goal: Goal) -> bool {
    let (is_met, wanted) = match goal {
        Goal::AtLeast(least) => (figure >= least, format!(">= {least}")),
        Goal::AtMost(most) => (figure <= most, format!("<= {most}")),
    };
    println!(
        "FIGURE {name} | {figure} {unit} | {wanted} | {}",
        if is_met { "PASS" } else { "MISSED" }
    );
    is_met
}
