//! What is to be done next, within the limits. One lock; what is done happens outside it.
//!
//! A *slot* is the right to one request without an answer, and to its bytes. It is taken when a batch or a segment is
//! begun and given back when that is on the disk, so bytes in flight, waiting tasks and requests are all bounded by it.
//!
//! A segment of a file that has a base mostly brings a small part of itself. It is begun with what those before it brought, so that many
//! are on their way over a long link, and has the right to what it brought once that is there. While more than the limit is there and not
//! on the disk, no further answer is received: the estimate bounds the time, not the memory.

use std::{
    collections::{HashMap, VecDeque},
    ops::Range,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

use super::{
    Fetch, Fetched, Way,
    large::{Ask, Large, Target},
};
use crate::{
    content::{Part, SEGMENT_BYTES, block::Leaves},
    error::Kind,
    pages::KnownPages,
    session::body::{
        BATCH_BYTES_MAX, BATCH_FILES_MAX, BodyError, Changed, REQUESTS_MAX, Run, SMALL_BYTES_MAX, SmallBatch,
    },
};

/// Big files that are built at the same time: up to three descriptors each.
const LARGE_MAX: usize = 64;
/// Content of one batch. Half of what may be asked for: more batches keep more threads busy.
const BATCH_BYTES: u64 = BATCH_BYTES_MAX / 2;
/// Of a segment, whatever those before it brought.
const EXPECTED_BYTES_MIN: u64 = 16 << 10;
/// A file with a base whose leaves can be compared is not sent whole.
const WHOLE_WITH_BASE_BYTES_MAX: u64 = crate::content::LEAF_BYTES as u64;

#[derive(Debug)]
pub(super) struct Slot {
    bytes: u64,
    /// Those of them that are here.
    received: u64,
}

#[derive(Debug)]
pub(super) enum Task {
    AskBatch {
        ids: Range<u32>,
        slot: Slot,
    },
    StoreBatch {
        ids: Vec<u32>,
        slot: Slot,
        batch: SmallBatch,
    },
    Open {
        id: u32,
        target: Box<Target>,
    },
    AskRange {
        large: Arc<Large>,
        ask: Ask,
    },
    /// The source does not know the base by its name.
    TellRange {
        large: Arc<Large>,
        ask: Ask,
    },
    Refine {
        large: Arc<Large>,
        ask: Ask,
        leaves: Leaves,
    },
    StoreRange {
        large: Arc<Large>,
        ask: Ask,
        parts: Vec<Part>,
        pages: Option<KnownPages>,
    },
    StoreRun {
        large: Arc<Large>,
        ask: Ask,
        length: u64,
        what: Run,
    },
    GoneRange {
        large: Arc<Large>,
        ask: Ask,
    },
    Recheck {
        id: u32,
        large: Option<Arc<Large>>,
        slot: Slot,
    },
    Changed {
        large: Option<Arc<Large>>,
        slot: Slot,
        changed: Box<Changed>,
    },
    Gone {
        id: u32,
        large: Option<Arc<Large>>,
        slot: Slot,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// By the first file of a batch.
    Batch(u32),
    Range(u32, u64),
    Recheck(u32),
}

#[derive(Debug)]
pub(super) enum Asked {
    Batch { ids: Vec<u32>, slot: Slot },
    Range(Arc<Large>, Ask),
    Recheck { large: Option<Arc<Large>>, slot: Slot },
}

pub(super) enum Wait {
    Answer,
    Done,
    Failed(BodyError),
}

#[derive(Debug)]
pub(super) struct Schedule<'a> {
    fetches: &'a [Fetch],
    in_flight_bytes_max: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// First fetch that was not begun.
    next: usize,
    tasks: VecDeque<Task>,
    /// Big files with segments that were not asked for.
    ready: VecDeque<Arc<Large>>,
    rechecks: VecDeque<(u32, Option<Arc<Large>>)>,
    large: usize,
    slots: usize,
    in_flight_bytes: u64,
    /// Here, and not on the disk yet.
    received_bytes: u64,
    /// What a segment with a base brings, by those before it.
    expected_bytes: u64,
    asked: HashMap<Key, Asked>,
    /// Requests that went out and have no answer. Counted after sending, so that a request which could not be sent
    /// leaves nobody waiting for its answer.
    unanswered: i64,
    results: Vec<Option<Fetched>>,
    unfinished: usize,
    failure: Option<BodyError>,
    end: Option<End>,
}

/// What becomes of tasks that wait when nothing more is begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Drop,
    /// The link is lost: content that has arrived is staged, so that it need not travel again.
    StoreReceived,
}

impl End {
    fn after(failure: &BodyError) -> Self {
        if failure.kind() == Kind::Unavailable { Self::StoreReceived } else { Self::Drop }
    }
}

impl<'a> Schedule<'a> {
    pub(super) fn new(fetches: &'a [Fetch], in_flight_bytes_max: u64) -> Self {
        let results = vec![None; fetches.len()];
        let expected_bytes = SEGMENT_BYTES as u64;
        let state = State { unfinished: fetches.len(), results, expected_bytes, ..State::default() };
        Self { fetches, in_flight_bytes_max, state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and wakes whoever waits for it.
    fn update<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.lock());
        self.changed.notify_all();
        changed
    }

    /// The next task of a thread; `None` when there will be none.
    pub(super) fn take(&self) -> Option<Task> {
        let mut state = self.lock();
        loop {
            match state.end {
                Some(End::Drop) => return None,
                Some(End::StoreReceived) => return state.received(),
                None => {}
            }
            let task = state.tasks.pop_front();
            if let Some(task) = task.or_else(|| self.begin(&mut state)) {
                return Some(task);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Something new, when the limits allow it.
    fn begin(&self, state: &mut State) -> Option<Task> {
        if state.slots >= REQUESTS_MAX || state.in_flight_bytes >= self.in_flight_bytes_max {
            return None;
        }
        if let Some((id, large)) = state.rechecks.pop_front() {
            return Some(Task::Recheck { id, large, slot: state.slot(SMALL_BYTES_MAX) });
        }
        while let Some(large) = state.ready.front() {
            let large = Arc::clone(large);
            match large.next_segment() {
                Some((offset, length)) => {
                    let bytes = if large.base.is_some() { state.expected_bytes } else { SEGMENT_BYTES as u64 };
                    let ask = Ask::new(offset, length, state.slot(bytes));
                    return Some(Task::AskRange { large, ask });
                }
                None => drop(state.ready.pop_front()),
            }
        }
        self.begin_fetch(state)
    }

    fn begin_fetch(&self, state: &mut State) -> Option<Task> {
        let first = state.next;
        if !travels_whole(self.fetches.get(first)?) {
            if state.large >= LARGE_MAX {
                return None;
            }
            (state.large, state.next) = (state.large + 1, first + 1);
            let target = Box::new(Target::wanted(&self.fetches[first]));
            return Some(Task::Open { id: first as u32, target });
        }
        let mut bytes = 0;
        let batch = self.fetches[first..].iter().take(BATCH_FILES_MAX).take_while(|fetch| {
            bytes += fetch.body.size;
            travels_whole(fetch) && bytes <= BATCH_BYTES
        });
        let ids = first as u32..(first + batch.count()) as u32;
        state.next = ids.end as usize;
        let bytes = self.fetches[first..state.next].iter().map(|fetch| fetch.body.size).sum();
        Some(Task::AskBatch { ids, slot: state.slot(bytes) })
    }

    pub(super) fn push(&self, task: Task) {
        self.update(|state| state.tasks.push_back(task));
    }

    /// Big files come in by this, and again for each further pass.
    pub(super) fn ready(&self, large: Arc<Large>) {
        self.update(|state| state.ready.push_back(large));
    }

    pub(super) fn recheck(&self, id: u32, large: Option<Arc<Large>>) {
        self.update(|state| state.rechecks.push_back((id, large)));
    }

    /// A small file turned out to be big.
    pub(super) fn grown(&self, id: u32, target: Target) {
        self.update(|state| {
            state.large += 1;
            state.tasks.push_back(Task::Open { id, target: Box::new(target) });
        });
    }

    pub(super) fn large_closed(&self) {
        self.update(|state| state.large -= 1);
    }

    /// Before a request is sent: its answer may be there before `asked`.
    pub(super) fn asking(&self, key: Key, asked: Asked) {
        self.lock().asked.insert(key, asked);
    }

    pub(super) fn asked(&self) {
        self.update(|state| state.unanswered += 1);
    }

    pub(super) fn answered(&self, key: Key) -> Option<Asked> {
        let mut state = self.lock();
        state.unanswered -= 1;
        state.asked.remove(&key)
    }

    /// What a segment brought.
    pub(super) fn received(&self, large: &Large, slot: &mut Slot, bytes: u64) {
        self.update(|state| {
            state.in_flight_bytes = state.in_flight_bytes - slot.bytes + bytes;
            state.received_bytes += bytes;
            *slot = Slot { bytes, received: bytes };
            if large.base.is_some() {
                state.expected_bytes = ((state.expected_bytes * 7 + bytes) / 8).max(EXPECTED_BYTES_MIN);
            }
        });
    }

    pub(super) fn release(&self, slot: Slot) {
        self.update(|state| {
            state.slots -= 1;
            state.in_flight_bytes -= slot.bytes;
            state.received_bytes -= slot.received;
        });
    }

    pub(super) fn finish(&self, finished: Vec<(u32, Fetched)>) {
        self.update(|state| {
            state.unfinished -= finished.len();
            for (id, fetched) in finished {
                state.results[id as usize] = Some(fetched);
            }
        });
    }

    /// The first failure counts.
    pub(super) fn fail(&self, failure: BodyError) {
        self.update(|state| {
            state.end(End::after(&failure));
            state.failure.get_or_insert(failure);
        });
    }

    pub(super) fn stop(&self, received: &Result<(), BodyError>) {
        self.update(|state| state.end(received.as_ref().err().map_or(End::Drop, End::after)));
    }

    /// Until there is an answer to receive, or none will come.
    pub(super) fn wait(&self) -> Wait {
        let mut state = self.lock();
        loop {
            if let Some(failure) = state.failure.take() {
                return Wait::Failed(failure);
            }
            if state.unfinished == 0 {
                return Wait::Done;
            }
            if state.unanswered > 0 && state.received_bytes < self.in_flight_bytes_max {
                return Wait::Answer;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(super) fn into_results(self) -> Result<Vec<Fetched>, BodyError> {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        state.results.into_iter().collect::<Option<_>>().ok_or(BodyError::Panicked)
    }
}

impl State {
    fn slot(&mut self, bytes: u64) -> Slot {
        self.slots += 1;
        self.in_flight_bytes += bytes;
        Slot { bytes, received: 0 }
    }

    /// Losing the link ends less than anything else does.
    fn end(&mut self, end: End) {
        self.end = if self.end == Some(End::Drop) { self.end } else { Some(end) };
    }

    fn received(&mut self) -> Option<Task> {
        let is_content =
            |task: &Task| matches!(task, Task::StoreBatch { .. } | Task::StoreRange { .. } | Task::StoreRun { .. });
        let at = self.tasks.iter().position(is_content)?;
        self.tasks.remove(at)
    }
}

fn travels_whole(fetch: &Fetch) -> bool {
    if fetch.way != Way::Whole {
        return false;
    }
    let limit = if fetch.base.is_some() { WHOLE_WITH_BASE_BYTES_MAX } else { SMALL_BYTES_MAX };
    fetch.body.size <= limit
}

/// Turns a thread's panic into a failure of the fetch.
pub(super) struct PanicGuard<'a>(pub(super) &'a Schedule<'a>);

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.fail(BodyError::Panicked);
        }
    }
}
