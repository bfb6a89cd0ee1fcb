//! The life of one job as one table. Pure: what the table says is journalled first and done afterwards, by `book` and
//! `keeper`.
//!
//! ```text
//!            Admitted            Succeeded
//!   Queued ------------> Running ----------> Done
//!     ^  ^--Restarted------| | |  Failed
//!     |                    | | +-----------> Failed
//!     |  RetryDue     Lost | | Cancel
//!     +------- Retrying <--+ +-> Stopping -> Cancelled   (or Done, when it was faster than the cancel)
//! ```
//! An event that does not fit is one that was late, doubled or out of order: it changes nothing.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Waits for a free place and for its volume.
    Queued,
    Running,
    /// Waits for the time of its next attempt.
    Retrying,
    /// Was told to stop; shown as running.
    Stopping,
    Done,
    Failed,
    Cancelled,
}

impl State {
    pub const ALL: [Self; 7] =
        [Self::Queued, Self::Running, Self::Retrying, Self::Stopping, Self::Done, Self::Failed, Self::Cancelled];

    pub fn has_ended(self) -> bool {
        match self {
            Self::Queued | Self::Running | Self::Retrying | Self::Stopping => false,
            Self::Done | Self::Failed | Self::Cancelled => true,
        }
    }

    /// An attempt is under way.
    pub fn is_active(self) -> bool {
        match self {
            Self::Running | Self::Stopping => true,
            Self::Queued | Self::Retrying | Self::Done | Self::Failed | Self::Cancelled => false,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Stopping => "stopping",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// There is a place, and the volume is free.
    Admitted,
    Succeeded,
    /// The attempt was lost and another may be made.
    Lost,
    /// It failed for good, or too many attempts were lost.
    Failed,
    Cancel,
    RetryDue,
    /// The agent started, and the journal says that the job is in this state.
    Restarted,
}

impl Event {
    #[cfg(test)]
    pub(super) const ALL: [Self; 7] =
        [Self::Admitted, Self::Succeeded, Self::Lost, Self::Failed, Self::Cancel, Self::RetryDue, Self::Restarted];
}

/// What is to be done once the new state is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Nothing,
    /// Stand in the queue.
    Enqueue,
    /// Begin an attempt.
    Launch,
    /// Tell the running attempt to stop.
    Stop,
    RetryLater,
    /// It has ended: free its place, count it.
    Finish,
}

pub(super) fn step(state: State, event: Event) -> (State, Effect) {
    use Effect::*;
    use Event as E;
    use State as S;
    match (state, event) {
        (S::Queued, E::Admitted) => (S::Running, Launch),
        (S::Queued, E::Cancel) => (S::Cancelled, Finish),
        (S::Queued, E::Restarted) => (S::Queued, Enqueue),
        (S::Queued, E::Succeeded | E::Lost | E::Failed | E::RetryDue) => (S::Queued, Nothing),

        (S::Running, E::Succeeded) => (S::Done, Finish),
        (S::Running, E::Lost) => (S::Retrying, RetryLater),
        (S::Running, E::Failed) => (S::Failed, Finish),
        (S::Running, E::Cancel) => (S::Stopping, Stop),
        // The attempt died with the process; the engine's staging lets the next one go on where it was.
        (S::Running, E::Restarted) => (S::Queued, Enqueue),
        (S::Running, E::Admitted | E::RetryDue) => (S::Running, Nothing),

        (S::Retrying, E::RetryDue | E::Restarted) => (S::Queued, Enqueue),
        (S::Retrying, E::Cancel) => (S::Cancelled, Finish),
        (S::Retrying, E::Admitted | E::Succeeded | E::Lost | E::Failed) => (S::Retrying, Nothing),

        (S::Stopping, E::Succeeded) => (S::Done, Finish),
        (S::Stopping, E::Lost | E::Failed | E::Restarted) => (S::Cancelled, Finish),
        (S::Stopping, E::Admitted | E::Cancel | E::RetryDue) => (S::Stopping, Nothing),

        (
            ended @ (S::Done | S::Failed | S::Cancelled),
            E::Admitted | E::Succeeded | E::Lost | E::Failed | E::Cancel | E::RetryDue | E::Restarted,
        ) => (ended, Nothing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_ended_stays_ended() {
        for state in State::ALL.into_iter().filter(|state| state.has_ended()) {
            for event in Event::ALL {
                assert_eq!(step(state, event), (state, Effect::Nothing));
            }
        }
    }

    #[test]
    fn every_event_may_come_twice() {
        for state in State::ALL {
            for event in Event::ALL {
                let (once, _) = step(state, event);
                let (twice, effect) = step(once, event);
                // A cancel, a result or a timer that comes again starts nothing anew. Restarts are not doubled: the
                // process that sees one has forgotten everything else.
                if event != Event::Restarted {
                    assert_eq!((twice, effect), (once, Effect::Nothing), "{state:?} {event:?}");
                }
            }
        }
    }

    #[test]
    fn after_a_restart_nothing_claims_to_run() {
        for state in State::ALL {
            let (next, effect) = step(state, Event::Restarted);
            assert!(!next.is_active() && next != State::Retrying, "{state:?} -> {next:?}");
            assert_eq!(effect == Effect::Enqueue, next == State::Queued);
        }
    }

    #[test]
    fn effects_fit_the_states_they_lead_to() {
        for state in State::ALL {
            for event in Event::ALL {
                let (next, effect) = step(state, event);
                let fits = match effect {
                    Effect::Nothing => next == state,
                    Effect::Enqueue => next == State::Queued,
                    Effect::Launch => next == State::Running,
                    Effect::Stop => next == State::Stopping,
                    Effect::RetryLater => next == State::Retrying,
                    Effect::Finish => next.has_ended() && !state.has_ended(),
                };
                assert!(fits, "{state:?} {event:?} -> {next:?} {effect:?}");
            }
        }
    }
}
