//! Figures that the acceptance asks for: one line each, which `tests/accept` collects.

use std::fmt::Display;

use crate::rounds::Rounds;

/// Which side of the goal is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    AtLeast(u64),
    AtMost(u64),
}

/// Prints `FIGURE name | figure unit | goal | PASS, MISSED or SMALL` and says whether the goal was met.
pub fn report(name: &str, figure: u64, unit: impl Display, goal: Goal) -> bool {
    let (is_met, wanted) = match goal {
        Goal::AtLeast(least) => (figure >= least, format!(">= {least}")),
        Goal::AtMost(most) => (figure <= most, format!("<= {most}")),
    };
    // Few rounds are no failure of a run that was meant to be short.
    let is_short = matches!(goal, Goal::AtLeast(_)) && !Rounds::chosen().is_full();
    let verdict = match (is_met, is_short) {
        (true, _) => "PASS",
        (false, true) => "SMALL",
        (false, false) => "MISSED",
    };
    println!("FIGURE {name} | {figure} {unit} | {wanted} | {verdict}");
    is_met
}
