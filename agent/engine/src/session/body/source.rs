//! The source's side: answers requests for content from threads of its own, because they wait for disk, link and
//! bandwidth, and the pool that hashes must not.
//!
//! Memory: each thread holds one answer (about 1 MiB) at a time; what waits is requests, at most `REQUESTS_MAX`.

mod open;
mod range;
mod recheck;
mod whole;

use std::{
    collections::HashMap,
    io,
    panic::{self, AssertUnwindSafe},
    sync::{Arc, Mutex, PoisonError},
    thread::{Scope, ScopedJoinHandle},
};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use drover_linux::{Dir, FileHandle};

use super::{BodyError, BodyMessage, Limits, REQUESTS_MAX, Want, dirs::Dirs, error::is_cancelled};
use crate::{
    bases::Bases,
    control::Control,
    path::RelPath,
    session::{Message, Wire},
};
use open::OpenFiles;

/// Answers the body requests of one session. The session's loop hands them in; `finish` waits for the answers.
pub struct Server<'scope> {
    requests: Sender<BodyMessage>,
    source: Arc<Source<'scope>>,
    threads: Vec<ScopedJoinHandle<'scope, ()>>,
}

struct Source<'a> {
    bases: Option<&'a Bases>,
    dirs: Dirs<'a>,
    handles: &'a HashMap<RelPath, FileHandle>,
    wire: &'a Wire<'a>,
    /// Big files that requests still come for.
    files: OpenFiles,
    failure: Mutex<Option<BodyError>>,
}

impl<'scope> Server<'scope> {
    /// Content that `bases` has frozen is sent as it was then. `handles` finds files that were renamed since the scan.
    pub fn new<'env>(
        scope: &'scope Scope<'scope, 'env>,
        root: &'scope Dir,
        bases: Option<&'scope Bases>,
        handles: &'scope HashMap<RelPath, FileHandle>,
        wire: &'scope Wire<'scope>,
        limits: &Limits,
    ) -> Self {
        let (requests, queue) = bounded(REQUESTS_MAX);
        let (dirs, files, failure) = (Dirs::new(root), OpenFiles::default(), Mutex::default());
        let source = Arc::new(Source { bases, dirs, handles, wire, files, failure });
        let threads = (0..limits.threads.max(1)).map(|_| {
            let (source, queue) = (Arc::clone(&source), queue.clone());
            scope.spawn(move || source.work(&queue))
        });
        let threads = threads.collect();
        Self { requests, source, threads }
    }

    /// Never waits. Fails when an earlier request failed, too.
    pub fn handle(&self, request: BodyMessage) -> Result<(), BodyError> {
        match request {
            BodyMessage::WantSmall(_) | BodyMessage::WantRange(_) | BodyMessage::Recheck(_) => {}
            other => return Err(BodyError::Unexpected { got: other.name() }),
        }
        if let Some(failure) = self.source.take_failure() {
            return Err(failure);
        }
        self.requests.try_send(request).map_err(|refused| match refused {
            TrySendError::Full(_) => BodyError::TooManyRequests,
            TrySendError::Disconnected(_) => self.source.take_failure().unwrap_or(BodyError::Panicked),
        })
    }

    pub fn finish(self) -> Result<(), BodyError> {
        drop(self.requests);
        let panicked = self.threads.into_iter().fold(false, |panicked, thread| thread.join().is_err() | panicked);
        match self.source.take_failure() {
            Some(failure) => Err(failure),
            None if panicked => Err(BodyError::Panicked),
            None => Ok(()),
        }
    }
}

impl Source<'_> {
    fn work(&self, queue: &Receiver<BodyMessage>) {
        for request in queue {
            let id = request.id();
            let answered = panic::catch_unwind(AssertUnwindSafe(|| self.answer(request)));
            if let Err(failure) = answered.unwrap_or_else(|_| Err(self.panicked(id))) {
                self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
                return;
            }
        }
    }

    /// The other side must not wait for an answer that will never come.
    fn panicked(&self, id: u32) -> BodyError {
        let told = self.send(BodyMessage::Failed { id, message: BodyError::Panicked.to_string() });
        told.err().unwrap_or(BodyError::Panicked)
    }

    fn take_failure(&self) -> Option<BodyError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn answer(&self, request: BodyMessage) -> Result<(), BodyError> {
        self.control().check()?;
        match request {
            BodyMessage::WantSmall(wants) => self.send_whole(&wants),
            BodyMessage::WantRange(range) => self.send_range(&range),
            BodyMessage::Recheck(want) => self.recheck(&want),
            other => Err(BodyError::Unexpected { got: other.name() }),
        }
    }

    fn control(&self) -> &Control {
        self.wire.control()
    }

    fn send(&self, answer: BodyMessage) -> Result<(), BodyError> {
        Ok(self.wire.send(&Message::Body(answer))?)
    }

    /// A file that can't be read ends the sync on both sides: what is missing must never look deleted.
    fn fail(&self, want: &Want, error: io::Error) -> BodyError {
        if is_cancelled(&error) {
            return BodyError::Cancelled(crate::control::Cancelled);
        }
        match self.send(BodyMessage::Failed { id: want.id, message: error.to_string() }) {
            Ok(()) => BodyError::Read { path: want.path.clone(), source: error },
            Err(lost) => lost,
        }
    }
}
