//! Whose turn it is to change an image: one verb at a time, of all agents of its cluster.
//!
//! A record in the image's pool says who it is, what for, and through which worker the next change goes. It is exchanged for the next
//! one before each change, so that whoever has lost it changes nothing more; once for all changes of a worker that holds the image. An agent that dies leaves its record: the next that wants the
//! image shuts the worker out first and finishes what the record says is left to do.

mod record;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use drover_engine::{image::stream::Totals, session::SessionError};

pub(crate) use record::view;
pub use record::{Aside, Disabling, ForcedFrom, Half, Left};
use record::{Record, text};

use crate::{
    crew::{CallError, Crew, Lane, Unmoved, Worker},
    data::{Content, DataRequest},
    image::{Image, VerbError},
    request::{Reply, Request},
    view::{ImagePlace, TurnView, Verb},
};

/// Of a pool or namespace. Keys are names of images.
pub(crate) const OBJECT: &str = "drover.turns";
/// Of a pool or namespace, by names of images too: who has a turn for long writes there that it lives. It is no right to anything, and what it
/// says counts only beside a record of the same process.
const BEATS: &str = "drover.alive";
/// Another agent whose record and beat have not changed for so long is dead: a call with the fencing of its worker takes 150 s at most, and
/// its questions to the peer 15 s.
const SILENT: Duration = Duration::from_secs(200);
/// What another agent has not settled by then, any agent does.
const ORPHANED: Duration = Duration::from_secs(900);
/// For a verb of this agent.
const OWN: Duration = Duration::from_secs(20);
/// How often who has a turn for long says that it lives.
const ALIVE: Duration = Duration::from_secs(45);
/// Others may be faster.
const TRIES: usize = 3;

/// Of one agent.
#[derive(Debug)]
pub struct Turns {
    agent: String,
    incarnation: String,
    images: Mutex<BTreeMap<ImagePlace, Arc<Slot>>>,
}

/// Of one image in this agent.
#[derive(Debug, Default)]
struct Slot {
    known: Mutex<Known>,
    freed: Condvar,
}

/// What this agent knows of an image's record.
#[derive(Debug, Default)]
struct Known {
    /// A verb of this agent has it.
    is_held: bool,
    /// Another agent's and its beat, and since when they are the same.
    seen: Option<((String, Option<String>), Instant)>,
    /// A worker of this process that was lost and could not be blocklisted.
    not_shut_out: Option<String>,
}

/// Held by the verb that may change the image.
#[derive(Debug)]
pub struct Turn<'a> {
    pub(crate) image: Image<'a>,
    record: Record,
    /// The record as it was written last.
    written: String,
    not_shut_out: Option<String>,
    /// Whose address is on record, and through which all changes go while it is there.
    held: Option<Worker<'a>>,
    /// Others are kept out by that one, so that nothing may be changed by another.
    is_alone: bool,
}

impl Turns {
    /// `incarnation` is another one after each start of the agent.
    pub fn new(agent: String, incarnation: String) -> Self {
        Self { agent, incarnation, images: Mutex::default() }
    }

    /// Waits some seconds for this agent's verb of the image that is under way; another agent's is an error.
    pub fn with<'a, T, E: From<VerbError>>(
        &self,
        image: Image<'a>,
        verb: Verb,
        now_unix_secs: i64,
        what: impl FnOnce(&mut Turn<'a>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut begun = self.begin(image, verb, now_unix_secs)?;
        let done = what(&mut begun.turn);
        begun.end();
        done
    }

    /// As `with`, for what may take hours or wait for another site: other agents see that it goes on.
    pub fn with_beat<'a, T, E: From<VerbError>>(
        &self,
        image: Image<'a>,
        verb: Verb,
        now_unix_secs: i64,
        what: impl FnOnce(&mut Turn<'a>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.with(image, verb, now_unix_secs, |turn| {
            thread::scope(|scope| {
                let (ends, ended) = mpsc::channel::<()>();
                scope.spawn(move || {
                    let mut beats = 0_u64;
                    while ended.recv_timeout(ALIVE) == Err(RecvTimeoutError::Timeout) {
                        beats += 1;
                        beat(image, Some(format!("{} {beats}", self.incarnation)));
                    }
                    if beats > 0 {
                        beat(image, None);
                    }
                });
                let done = what(turn);
                drop(ends);
                done
            })
        })
    }

    /// As `with`, for what ends its turns itself.
    pub(crate) fn begin<'a>(&self, image: Image<'a>, verb: Verb, now_unix_secs: i64) -> Result<Begun<'a>, VerbError> {
        let slot = Arc::clone(lock(&self.images).entry(image.place.clone()).or_default());
        let held = Held::take(slot).ok_or_else(|| VerbError::InVerb(image.place.clone()))?;
        let record = Record {
            agent: self.agent.clone(),
            incarnation: self.incarnation.clone(),
            verb,
            since_unix_secs: now_unix_secs,
            step: 0,
            worker: None,
            has_ended: false,
            left: Left::default(),
        };
        Ok(Begun { turn: self.take(image, record, &held)?, held })
    }

    /// What this agent was doing when it ended, or could not end, is taken over: its workers are shut out, and nobody waits for it.
    pub fn sweep(&self, crew: &Crew, pool: &str, namespace: &str, now_unix_secs: i64) -> Result<(), VerbError> {
        let (pool, namespace) = (pool.to_owned(), namespace.to_owned());
        let request =
            Request::ReadRecord { pool: pool.clone(), namespace: namespace.clone(), object: OBJECT.to_owned() };
        let Reply::Record(records) = crew.call(&request)? else { return Err(VerbError::Confused) };
        let records = records.into_iter().filter_map(|(name, text)| {
            let place = ImagePlace { pool: pool.clone(), namespace: namespace.clone(), image: name };
            Some((place, serde_json::from_str::<Record>(&text).ok()?))
        });
        let records: Vec<_> = records.filter(|(place, _)| !self.is_busy(place)).collect();
        // A record of this process is left where its end could not be written.
        for (place, record) in records.iter().filter(|(_, it)| it.agent == self.agent && !it.has_ended) {
            let taken = self.with(Image { crew, place }, record.verb, now_unix_secs, |turn| turn.undo_half().map(drop));
            if let Err(error) = taken {
                tracing::warn!(image = %place, "a verb that was interrupted can't be taken over: {error}");
            }
        }
        for (place, record) in &records {
            let is_orphan = record.since_unix_secs + ORPHANED.as_secs().cast_signed() < now_unix_secs;
            if let Some(half) = record.left.half.as_ref().filter(|_| record.agent == self.agent || is_orphan) {
                self.settle(Image { crew, place }, half, now_unix_secs);
            }
            let is_idle = record.has_ended && (record.agent == self.agent || is_orphan);
            if is_idle && !record.left.clones.is_empty() {
                self.clear_away(Image { crew, place }, &record.left, now_unix_secs);
            }
        }
        Ok(())
    }

    /// The long part of taking another image's place, outside of any turn: others may change the image meanwhile.
    fn settle(&self, image: Image<'_>, half: &Half, now_unix_secs: i64) {
        let settled =
            image.settle(half).and_then(|()| self.with(image, Verb::Promote, now_unix_secs, |turn| turn.settle()));
        if let Err(error) = settled {
            tracing::warn!(image = %image.place, "an image that took another one's place is not mirrored yet: {error}");
        }
    }

    /// Clones of verbs that had ended when the record was read, outside of any turn: a verb that has begun since makes others.
    fn clear_away(&self, image: Image<'_>, left: &Left, now_unix_secs: i64) {
        let is_used = |name: &&String| left.half.as_ref().is_some_and(|half| half.new == **name);
        let mut gone = Vec::new();
        for name in left.clones.iter().filter(|name| !is_used(name)) {
            match image.remove_clone(name) {
                Ok(()) => gone.push(name),
                Err(error) => {
                    tracing::info!(image = %image.place, clone = name, "a clone that nobody needs stays for now: {error}");
                }
            }
        }
        if gone.is_empty() {
            return;
        }
        let forget = |turn: &mut Turn<'_>| {
            turn.left().clones.retain(|name| !gone.contains(&name));
            Ok::<_, VerbError>(())
        };
        // It is looked for once more.
        if let Err(error) = self.with(image, Verb::Promote, now_unix_secs, forget) {
            tracing::info!(image = %image.place, "that clones are gone is not written yet: {error}");
        }
    }

    fn is_busy(&self, place: &ImagePlace) -> bool {
        lock(&self.images).get(place).is_some_and(|slot| lock(&slot.known).is_held)
    }

    fn take<'a>(&self, image: Image<'a>, new: Record, held: &Held) -> Result<Turn<'a>, VerbError> {
        for _ in 0..TRIES {
            let found = read(image)?;
            let left = match &found {
                None => Left::default(),
                Some(text) => self.take_over(image, text, held)?,
            };
            let record = Record { left, ..new.clone() };
            let written = text(&record);
            match image.crew.call(&exchange(image, found.as_ref(), Some(&written)))? {
                Reply::Exchanged(true) => {
                    return Ok(Turn { image, record, written, not_shut_out: None, held: None, is_alone: false });
                }
                Reply::Exchanged(false) => {}
                _ => return Err(VerbError::Confused),
            }
        }
        Err(VerbError::TurnLost(image.place.clone()))
    }

    /// Once this returns nothing that was begun under the record arrives any more.
    fn take_over(&self, image: Image<'_>, found: &str, held: &Held) -> Result<Left, VerbError> {
        let record: Record = serde_json::from_str(found).map_err(|_| VerbError::TurnUnknown(image.place.clone()))?;
        if record.incarnation == self.incarnation {
            // Its calls have ended: the image is held.
            let not_shut_out = lock(&held.0.known).not_shut_out.clone();
            if let Some(worker) = not_shut_out {
                image.crew.shut_out(&worker, image.place)?;
            }
            lock(&held.0.known).not_shut_out = None;
            return Ok(record.left);
        }
        if record.has_ended {
            return Ok(record.left);
        }
        if record.agent != self.agent {
            let beat = heard(image)?.filter(|beat| beat.starts_with(&record.incarnation));
            let told = (found.to_owned(), beat);
            let since = match &mut lock(&held.0.known).seen {
                Some((seen, since)) if *seen == told => *since,
                seen => seen.insert((told, Instant::now())).1,
            };
            if let Some(wait) = SILENT.checked_sub(since.elapsed()) {
                let Record { agent, verb, .. } = record;
                return Err(VerbError::Taken { place: image.place.clone(), agent, verb, wait });
            }
        }
        if let Some(worker) = &record.worker {
            image.crew.shut_out(worker, image.place)?;
        }
        tracing::warn!(image = %image.place, agent = record.agent, verb = %record.verb, "a verb that was interrupted is taken over");
        Ok(record.left)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The right of one verb of this agent to an image.
#[derive(Debug)]
struct Held(Arc<Slot>);

impl Held {
    /// Waits, but not for ever: who waits keeps others from the few calls that an agent makes at once.
    fn take(slot: Arc<Slot>) -> Option<Self> {
        let known = lock(&slot.known);
        let waited = slot.freed.wait_timeout_while(known, OWN, |known| known.is_held);
        let (mut known, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out() && known.is_held {
            return None;
        }
        known.is_held = true;
        drop(known);
        Some(Self(slot))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        lock(&self.0.known).is_held = false;
        self.0.freed.notify_one();
    }
}

/// A turn that is to be ended. One that is dropped leaves its record, which the next verb takes over.
#[derive(Debug)]
pub(crate) struct Begun<'a> {
    pub(crate) turn: Turn<'a>,
    held: Held,
}

impl Begun<'_> {
    pub(crate) fn end(self) {
        let not_shut_out = self.turn.end();
        lock(&self.held.0.known).not_shut_out = not_shut_out;
    }
}

impl Image<'_> {
    /// What an agent is doing with an image that is not there under its name.
    pub fn turn(&self) -> Result<Option<TurnView>, VerbError> {
        Ok(read(*self)?.map(|record| view(&record)))
    }
}

fn read(image: Image<'_>) -> Result<Option<String>, VerbError> {
    let ImagePlace { pool, namespace, image: name } = image.place.clone();
    match image.crew.call(&Request::ReadRecord { pool, namespace, object: OBJECT.to_owned() })? {
        Reply::Record(record) => Ok(record.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)),
        _ => Err(VerbError::Confused),
    }
}

/// Of who has the image's turn.
fn heard(image: Image<'_>) -> Result<Option<String>, VerbError> {
    let ImagePlace { pool, namespace, image: key } = image.place.clone();
    match image.crew.call(&Request::ReadKey { pool, namespace, object: BEATS.to_owned(), key })? {
        Reply::Record(record) => Ok(record.into_iter().next().map(|(_, value)| value)),
        _ => Err(VerbError::Confused),
    }
}

fn beat(image: Image<'_>, value: Option<String>) {
    let ImagePlace { pool, namespace, image: key } = image.place.clone();
    let request = Request::WriteRecord { pool, namespace, object: BEATS.to_owned(), key, value };
    if let Err(error) = image.crew.hold(Lane::Status).and_then(|mut worker| worker.call(&request)) {
        tracing::info!(image = %image.place, "that a verb goes on is not written: {error}");
    }
}

fn exchange(image: Image<'_>, expected: Option<&String>, value: Option<&String>) -> Request {
    let (place, object) = (image.place.clone(), OBJECT.to_owned());
    Request::ExchangeRecord { place, object, expected: expected.cloned(), value: value.cloned() }
}

impl<'a> Turn<'a> {
    /// Written with the next change, or with the end.
    pub(crate) fn left(&mut self) -> &mut Left {
        &mut self.record.left
    }

    fn crew(&self) -> &Crew {
        self.image.crew
    }

    /// The image stays open until the turn ends, in a worker through which all that follows goes.
    pub(crate) fn hold(&mut self) -> Result<(), VerbError> {
        if self.held.is_some() {
            return Ok(());
        }
        let mut worker = self.recorded(Lane::Session)?;
        self.carry_out(&mut worker, &Request::Hold(self.image.place.clone()))?;
        worker.set_holding(Some(self.image.place.clone()));
        self.held = Some(worker);
        Ok(())
    }

    /// Nobody else can write to the image until the turn ends.
    pub(crate) fn keep_others_out(&mut self) -> Result<(), VerbError> {
        self.hold()?;
        self.change(&Request::KeepOthersOut(self.image.place.clone()))?;
        self.is_alone = true;
        Ok(())
    }

    /// A look, by the worker that holds the image if there is one.
    pub(crate) fn ask(&mut self, request: &Request) -> Result<Reply, CallError> {
        match self.held.take() {
            Some(mut worker) => {
                let told = worker.call(request);
                self.held = Some(worker).filter(|worker| !worker.is_lost());
                told
            }
            None => self.image.crew.call(request),
        }
    }

    /// One change, from an address that is on record before it.
    pub(crate) fn change(&mut self, request: &Request) -> Result<Reply, VerbError> {
        let mut worker = self.worker(Lane::Verbs)?;
        let done = self.carry_out(&mut worker, request);
        self.give_back(worker);
        done
    }

    /// The one that holds the image, whose address is on record: whoever takes the turn over shuts it out first. Or another one, which has to be put
    /// on record.
    fn worker(&mut self, lane: Lane) -> Result<Worker<'a>, VerbError> {
        match self.held.take() {
            Some(worker) => Ok(worker),
            None => self.recorded(lane),
        }
    }

    /// Of a turn that has kept others out there is no second one: they may have come in since the first was lost. And none while the last
    /// operations of a lost one may still arrive: the record has room for one address.
    fn recorded(&mut self, lane: Lane) -> Result<Worker<'a>, VerbError> {
        if self.is_alone {
            return Err(VerbError::LockLost(self.image.place.clone()));
        }
        if let Some(lost) = &self.not_shut_out {
            self.image.crew.shut_out(lost, self.image.place)?;
            self.not_shut_out = None;
        }
        let mut worker = self.image.crew.hold(lane)?;
        let address = worker.address().to_owned();
        self.put_on_record(&mut worker, Some(address))?;
        Ok(worker)
    }

    fn give_back(&mut self, worker: Worker<'a>) {
        self.held = Some(worker).filter(|worker| worker.is_holding() && !worker.is_lost());
    }

    fn carry_out(&mut self, worker: &mut Worker<'_>, request: &Request) -> Result<Reply, VerbError> {
        let address = worker.address().to_owned();
        worker.call(request).map_err(|error| {
            if matches!(error, CallError::Unknown { is_fenced: false, .. }) {
                self.not_shut_out = Some(address);
            }
            error.into()
        })
    }

    fn put_on_record(&mut self, by: &mut Worker<'_>, address: Option<String>) -> Result<(), VerbError> {
        let next = Record { step: self.record.step + 1, worker: address, ..self.record.clone() };
        let written = text(&next);
        match by.call(&exchange(self.image, Some(&self.written), Some(&written)))? {
            Reply::Exchanged(true) => (self.record, self.written) = (next, written),
            Reply::Exchanged(false) => return Err(VerbError::TurnLost(self.image.place.clone())),
            _ => return Err(VerbError::Confused),
        }
        Ok(())
    }

    /// Content of the image is changed, for as long as it takes.
    pub(crate) fn move_content(
        &mut self,
        request: &DataRequest,
        content: &mut dyn Content,
    ) -> Result<Totals, SessionError> {
        let mut worker = self.worker(Lane::Data)?;
        let address = worker.address().to_owned();
        let moved = worker.move_content(request, content);
        self.give_back(worker);
        match moved {
            Ok(totals) => Ok(totals),
            Err(Unmoved::Caller { error, is_shut_out }) => {
                self.not_shut_out = (!is_shut_out).then_some(address);
                Err(error)
            }
            Err(Unmoved::Call(error)) => {
                if matches!(error, CallError::Unknown { is_fenced: false, .. }) {
                    self.not_shut_out = Some(address);
                }
                Err(VerbError::from(error).into())
            }
        }
    }

    /// Leaves a record where something is left to do. Returns the worker that could not be shut out. A cluster that hangs is not waited for as
    /// long as in a verb: the record then stays, and is taken over.
    fn end(mut self) -> Option<String> {
        if let Some(mut worker) = self.held.take() {
            match self.carry_out(&mut worker, &Request::LetGo) {
                Ok(_) => worker.set_holding(None),
                Err(error) => tracing::warn!(image = %self.image.place, "an image stays open: {error}"),
            }
        }
        // Who comes next shuts that worker out, also another agent.
        let has_ended = self.not_shut_out.is_none();
        let is_left = !has_ended || self.record.left != Left::default();
        let kept = is_left.then(|| text(&Record { has_ended, ..self.record.clone() }));
        if kept.as_ref() != Some(&self.written) {
            let exchange = exchange(self.image, Some(&self.written), kept.as_ref());
            match self.crew().hold(Lane::Status).and_then(|mut worker| worker.call(&exchange)) {
                Ok(Reply::Exchanged(true)) => {}
                Ok(_) => tracing::warn!(image = %self.image.place, "another agent has taken over"),
                // The next verb of this agent takes it over.
                Err(error) => tracing::warn!(image = %self.image.place, "a record of a verb stays: {error}"),
            }
        }
        self.not_shut_out
    }
}
