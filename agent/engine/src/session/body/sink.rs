//! The sink's side: asks for bodies and stages them. The calling thread only receives; threads of its own ask, verify
//! and write, because they wait for the disk and the link.
//!
//! Nothing here changes the live tree, and what is staged is neither durable nor has its metadata yet. A file that is
//! found under its staging name was left by an interrupted run: its content is kept where it is still right, which is
//! why a big file is built in place under its final name.

mod ask;
mod dest;
mod large;
mod recheck;
mod schedule;
mod store;
mod whole;

use std::{io, sync::Arc, thread};

use drover_linux::Dir;

use super::{BodyError, BodyMessage, Limits, Settled, dirs::Dirs, error::is_cancelled};
use crate::{
    bases::Bases,
    content::Part,
    control::{Cancelled, Control},
    path::{Name, RelPath},
    session::{Message, Wire},
    tree::{Body, Meta},
};
use schedule::{Asked, Key, Schedule, Task, Wait};

/// Where a body is staged, beneath the staging directory; the directory exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dest {
    pub dir: RelPath,
    pub name: Name,
}

/// One file to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// At the source.
    pub path: RelPath,
    pub body: Body,
    /// A file of the live tree that probably has much of the content.
    pub base: Option<RelPath>,
    /// What that file held when the replica was scanned.
    pub base_body: Option<Body>,
    pub dest: Dest,
    pub way: Way,
}

/// How a body is to get where it belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Staged as a file, which takes the place of the old one.
    Whole,
    /// Staged as a patch of the base, which is a big file and stays.
    Patch,
    /// Written to the base at once, which is a device whose content is nobody's.
    AtOnce,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetched {
    AsWanted,
    /// The file changed since the source's scan; this is what was staged. `Moving`: it never held still, so the content
    /// may mix several states, but `body` is what is staged.
    Changed {
        meta: Meta,
        body: Body,
        settled: Settled,
    },
    /// Nothing is staged.
    Gone,
}

/// Whether an earlier run may have left files in the staging directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftovers {
    None,
    Possible,
}

/// Where files are staged, and what of the replica may be at hand for them.
#[derive(Clone, Copy, Debug)]
pub struct Replica<'a> {
    /// Only read.
    pub live: &'a Dir,
    pub staging: &'a Dir,
    /// Where the ranges of patches lie.
    pub patches: &'a Dir,
    pub bases: Option<&'a Bases>,
}

/// Stages all of `fetches`; results are in their order.
pub fn fetch(
    wire: &Wire<'_>,
    fetches: &[Fetch],
    replica: Replica<'_>,
    leftovers: Leftovers,
    limits: &Limits,
) -> Result<Vec<Fetched>, BodyError> {
    let schedule = Schedule::new(fetches, limits.in_flight_bytes);
    let (live, staging) = (Dirs::new(replica.live), Dirs::new(replica.staging));
    let Replica { patches, bases, .. } = replica;
    let sink = Sink { wire, fetches, live, staging, patches, bases, leftovers, schedule };
    thread::scope(|scope| {
        for _ in 0..limits.threads.max(1) {
            scope.spawn(|| sink.work());
        }
        let received = sink.receive();
        sink.schedule.stop(&received);
        received
    })?;
    sink.schedule.into_results()
}

struct Sink<'a> {
    wire: &'a Wire<'a>,
    fetches: &'a [Fetch],
    live: Dirs<'a>,
    staging: Dirs<'a>,
    patches: &'a Dir,
    bases: Option<&'a Bases>,
    leftovers: Leftovers,
    schedule: Schedule<'a>,
}

/// That they take in memory.
fn bytes_of(parts: &[Part]) -> u64 {
    let content = |part: &Part| match part {
        Part::Data(data) => data.len(),
        Part::Zeros(_) | Part::Hole(_) | Part::Copy { .. } => 0,
    };
    parts.iter().map(|part| (size_of::<Part>() + content(part)) as u64).sum()
}

impl Sink<'_> {
    fn receive(&self) -> Result<(), BodyError> {
        loop {
            match self.schedule.wait() {
                Wait::Answer => match self.wire.receive()? {
                    Message::Body(answer) => self.accept(answer)?,
                    Message::Failure(failure) => return Err(BodyError::Peer(failure)),
                    other => return Err(BodyError::Unexpected { got: other.name() }),
                },
                Wait::Done => return Ok(()),
                Wait::Failed(failure) => return Err(failure),
            }
        }
    }

    /// Matches an answer with its request and leaves the work to the threads.
    fn accept(&self, answer: BodyMessage) -> Result<(), BodyError> {
        let got = answer.name();
        let key = match &answer {
            BodyMessage::Small(batch) => match batch.bodies().next() {
                Some(first) => Key::Batch(first?.id),
                None => return Err(BodyError::Unasked { got }),
            },
            BodyMessage::Range { id, offset, .. }
            | BodyMessage::Proved { id, offset, .. }
            | BodyMessage::Differs { id, offset, .. }
            | BodyMessage::GoneRange { id, offset }
            | BodyMessage::Unknown { id, offset }
            | BodyMessage::Run { id, offset, .. } => Key::Range(*id, *offset),
            BodyMessage::Changed(changed) => Key::Recheck(changed.id),
            BodyMessage::Gone { id } => Key::Recheck(*id),
            BodyMessage::Failed { id, message } => {
                let path = self.fetches.get(*id as usize).map_or_else(RelPath::root, |fetch| fetch.path.clone());
                return Err(BodyError::SourceFailed { path, message: message.clone() });
            }
            BodyMessage::WantSmall(_) | BodyMessage::WantRange(_) | BodyMessage::Recheck(_) => {
                return Err(BodyError::Unexpected { got });
            }
        };
        let asked = self.schedule.answered(key).ok_or(BodyError::Unasked { got })?;
        self.schedule.push(match (asked, answer) {
            (Asked::Batch { ids, slot }, BodyMessage::Small(batch)) => Task::StoreBatch { ids, slot, batch },
            (Asked::Range(large, mut ask), BodyMessage::Range { parts, .. }) => {
                self.schedule.received(&large, &mut ask.slot, bytes_of(&parts));
                Task::StoreRange { large, ask, parts, pages: None }
            }
            (Asked::Range(large, mut ask), BodyMessage::Proved { parts, pages, .. }) => {
                self.schedule.received(&large, &mut ask.slot, bytes_of(&parts));
                Task::StoreRange { large, ask, parts, pages: Some(pages) }
            }
            (Asked::Range(large, ask), BodyMessage::Differs { leaves, .. }) => Task::Refine { large, ask, leaves },
            (Asked::Range(large, ask), BodyMessage::GoneRange { .. }) => Task::GoneRange { large, ask },
            (Asked::Range(large, ask), BodyMessage::Run { length, what, .. }) => {
                Task::StoreRun { large, ask, length, what }
            }
            (Asked::Range(large, ask), BodyMessage::Unknown { .. }) => Task::TellRange { large, ask },
            (Asked::Recheck { large, slot }, BodyMessage::Changed(changed)) => Task::Changed { large, slot, changed },
            (Asked::Recheck { large, slot }, BodyMessage::Gone { id }) => Task::Gone { id, large, slot },
            _ => return Err(BodyError::Unasked { got }),
        });
        Ok(())
    }

    fn work(&self) {
        // Says so when this thread panics, or the receiving one would wait for ever.
        let guard = schedule::PanicGuard(&self.schedule);
        while let Some(task) = self.schedule.take() {
            if let Err(failure) = self.control().check().map_err(BodyError::from).and_then(|()| self.perform(task)) {
                self.schedule.fail(failure);
            }
        }
        drop(guard);
    }

    fn perform(&self, task: Task) -> Result<(), BodyError> {
        match task {
            Task::AskBatch { ids, slot } => self.ask_batch(ids, slot),
            Task::StoreBatch { ids, slot, batch } => self.store_batch(&ids, slot, &batch),
            Task::Open { id, target } => self.open_large(id, *target),
            Task::AskRange { large, ask } => self.ask_range(large, ask),
            Task::TellRange { large, ask } => self.tell_range(large, ask),
            Task::Refine { large, ask, leaves } => self.refine(large, ask, leaves),
            Task::StoreRange { large, ask, parts, pages } => self.store_range(&large, ask, &parts, pages.as_ref()),
            Task::StoreRun { large, ask, length, what } => self.store_run(&large, ask, length, what),
            Task::GoneRange { large, ask } => self.gone_range(&large, ask),
            Task::Recheck { id, large, slot } => self.ask_recheck(id, large, slot),
            Task::Changed { large, slot, changed } => self.changed(large, slot, *changed),
            Task::Gone { id, large, slot } => self.gone(id, large.as_deref(), slot),
        }
    }

    fn request(&self, key: Key, asked: Asked, request: BodyMessage) -> Result<(), BodyError> {
        self.schedule.asking(key, asked);
        self.wire.send(&Message::Body(request))?;
        self.schedule.asked();
        Ok(())
    }

    fn control(&self) -> &Control {
        self.wire.control()
    }

    /// Counts nothing: what is read to be proved has been counted when it arrived.
    fn quiet(&self) -> Control {
        let mut control = self.control().clone();
        control.progress = Arc::default();
        control
    }

    fn fetch(&self, id: u32) -> &Fetch {
        &self.fetches[id as usize]
    }

    fn stage_error(&self, id: u32) -> impl Fn(io::Error) -> BodyError {
        let path = &self.fetch(id).path;
        move |source| match is_cancelled(&source) {
            true => BodyError::Cancelled(Cancelled),
            false => BodyError::Stage { path: path.clone(), source },
        }
    }
}
