//! Real agents on loopback: their certificates, configuration, processes and clients.
//!
//! Everything has a deadline, and everything ends with the fixture: agents are killed by their own process id, trees are
//! deleted whatever flags they have.

mod agent;
mod binary;
mod certificates;
mod client;
mod config;
mod faults;
mod job;
mod log;
mod one_shot;
mod pair;

pub use agent::{Agent, Setup};
pub use binary::{agent_binary, binary, controller_binary};
pub use certificates::Certificates;
pub use client::{Access, Client, status_reason};
pub use faults::Faults;
pub use job::Outcome;
pub use one_shot::{OneShot, recover};
pub use pair::{Pair, PairSetup, SYNC};
