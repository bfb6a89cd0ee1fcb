//! Exit codes: what a script may decide by. They are the same for `drover` and `drover-agent copy`, and part of the
//! interface.

use std::process::ExitCode;

use drover_engine::error::Kind;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Ok = 0,
    Failure = 1,
    /// The command line or the configuration is wrong. clap exits with the same code.
    Usage = 2,
    /// A guard, a lineage rule or the volume's state forbids it; nothing was changed.
    Refused = 3,
    /// Verify found that a copy is not what its point says.
    Discrepancy = 4,
    Unreachable = 5,
    /// 128 + SIGINT, as shells expect it.
    Cancelled = 130,
}

impl Exit {
    /// For `--help` and the README.
    pub const HELP: &str = "\
Exit codes:
  0    done (status: every volume is healthy)
  1    failed
  2    the command line or the configuration is wrong
  3    refused by a guard, by lineage or by the state of the volume; nothing was changed
  4    verify found a discrepancy
  5    an agent can't be reached
  130  cancelled";

    /// Of several ends, the one that a script should see: the further from done, the worse.
    pub fn worse(self, other: Self) -> Self {
        let rank = |exit| match exit {
            Self::Ok => 0,
            Self::Refused => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::Failure => 4,
            Self::Discrepancy => 5,
            Self::Cancelled => 6,
        };
        if rank(other) > rank(self) { other } else { self }
    }

    pub fn of(kind: Kind, reason: &str) -> Self {
        match kind {
            Kind::Precondition | Kind::Exists => Self::Refused,
            // A guard as well, though trying again later may help.
            Kind::Exhausted if reason == "no-space" => Self::Refused,
            // Reached, but busy.
            Kind::Unavailable if matches!(reason, "root-locked" | "volume-busy") => Self::Failure,
            Kind::Invalid => Self::Usage,
            Kind::Unavailable | Kind::TimedOut => Self::Unreachable,
            Kind::Cancelled => Self::Cancelled,
            Kind::NotFound
            | Kind::Conflict
            | Kind::Exhausted
            | Kind::DataLoss
            | Kind::Denied
            | Kind::Storage
            | Kind::Internal => Self::Failure,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
