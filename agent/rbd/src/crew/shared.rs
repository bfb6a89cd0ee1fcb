//! A look that many callers want at the same time is had once for all of them.
//!
//! What a caller is told was looked up after it asked: a look that is under way is no answer to who comes later, not even that the cluster
//! hangs. Those gather for the next one, which begins a moment later, beside it.

use std::{
    collections::HashMap,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use super::CallError;
use crate::request::Reply;

/// For so long callers gather while the same look is under way.
const GATHER: Duration = Duration::from_millis(50);

type Answer = Result<Reply, CallError>;

/// By what is looked at.
#[derive(Debug, Default)]
pub(super) struct Shared(Mutex<HashMap<String, Looks>>);

#[derive(Debug, Default)]
struct Looks {
    under_way: usize,
    gathering: Option<Arc<Look>>,
}

#[derive(Debug, Default)]
struct Look {
    answer: Mutex<Option<Answer>>,
    told: Condvar,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Look {
    fn wait(&self) -> Answer {
        let answer = self.told.wait_while(lock(&self.answer), |answer| answer.is_none());
        answer.unwrap_or_else(PoisonError::into_inner).clone().expect("it was waited for")
    }

    fn tell(&self, answer: Answer) {
        lock(&self.answer).get_or_insert(answer);
        self.told.notify_all();
    }
}

/// One look, to its end, also where that is a panic.
struct UnderWay<'a> {
    shared: &'a Shared,
    key: String,
    look: Option<Arc<Look>>,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut all = lock(&self.shared.0);
        if let Some(looks) = all.get_mut(&self.key) {
            looks.under_way -= 1;
            if looks.under_way == 0 && looks.gathering.is_none() {
                all.remove(&self.key);
            }
        }
        drop(all);
        if let Some(look) = &self.look {
            let why = "the look that was waited for did not end".to_owned();
            look.tell(Err(CallError::Ended { cluster: String::new(), why }));
        }
    }
}

impl Shared {
    pub(super) fn call(&self, key: String, what: impl FnOnce() -> Answer) -> Answer {
        let mut all = lock(&self.0);
        let looks = all.entry(key.clone()).or_default();
        if let Some(look) = &looks.gathering {
            let look = Arc::clone(look);
            drop(all);
            return look.wait();
        }
        let mut look = None;
        if looks.under_way > 0 {
            look = Some(Arc::clone(looks.gathering.insert(Arc::default())));
            drop(all);
            thread::sleep(GATHER);
            all = lock(&self.0);
        }
        let looks = all.entry(key.clone()).or_default();
        if look.is_some() {
            // Who comes from here on comes too late for this one.
            looks.gathering = None;
        }
        looks.under_way += 1;
        drop(all);
        let under_way = UnderWay { shared: self, key, look };
        let answer = what();
        if let Some(look) = &under_way.look {
            look.tell(answer.clone());
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicU64, Ordering},
        time::Instant,
    };

    use super::*;

    const LOOK: Duration = Duration::from_millis(400);

    #[test]
    fn many_callers_have_few_looks_and_none_is_told_what_is_older_than_its_call() {
        const CALLERS: u64 = 50;
        let (shared, looks, changes) = (Shared::default(), AtomicU64::new(0), AtomicU64::new(0));
        let begun = Instant::now();
        thread::scope(|scope| {
            for caller in 0..CALLERS {
                let (shared, looks, changes) = (&shared, &looks, &changes);
                scope.spawn(move || {
                    thread::sleep(Duration::from_millis(caller * 10));
                    // What it knows when it asks.
                    let known = changes.fetch_add(1, Ordering::SeqCst) + 1;
                    let answer = shared.call("key".to_owned(), || {
                        looks.fetch_add(1, Ordering::SeqCst);
                        let seen = changes.load(Ordering::SeqCst);
                        thread::sleep(LOOK);
                        Ok(Reply::Size(seen))
                    });
                    assert!(matches!(answer, Ok(Reply::Size(seen)) if seen >= known), "{answer:?}, not {known}");
                });
            }
        });
        let looks = looks.into_inner();
        assert!((2..CALLERS / 2).contains(&looks), "{looks} looks");
        assert!(begun.elapsed() < LOOK * 4, "{:?}", begun.elapsed());
        assert!(lock(&shared.0).is_empty());
    }

    #[test]
    fn a_look_that_panics_keeps_nobody_waiting() {
        let shared = Shared::default();
        thread::scope(|scope| {
            let first = scope.spawn(|| {
                shared.call("key".to_owned(), || {
                    thread::sleep(LOOK);
                    Ok(Reply::Done)
                })
            });
            thread::sleep(LOOK / 4);
            let second = scope.spawn(|| shared.call("key".to_owned(), || panic!("told to")));
            thread::sleep(GATHER / 5);
            let third = shared.call("key".to_owned(), || Ok(Reply::Done));
            assert!(matches!(third, Err(CallError::Ended { .. })), "{third:?}");
            assert!(second.join().is_err() && first.join().is_ok());
        });
        assert!(lock(&shared.0).is_empty());
    }
}
