//! Threads that wait for a disk. The pool that hashes has one for each core; a disk serves many requests at the same time.

use std::{
    io,
    panic::resume_unwind,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

/// More bring nothing: single disks and arrays alike are at their rate with so many requests of 64 KiB and more.
const THREADS: usize = 8;

/// Does `work` with each item, in no order; with none that was not begun after one has failed. Returns when nothing is being done any
/// more. With fewer threads where no more can be had, the caller's at least.
pub(crate) fn each<T: Send>(
    items: impl Iterator<Item = T> + Send,
    work: impl Fn(T) -> io::Result<()> + Sync,
) -> io::Result<()> {
    let items = Items(Mutex::new(Some(items)));
    let run = || {
        // For the others, too: there are no items left, one has failed, or this panics.
        let _end = End(&items);
        while let Some(item) = items.next() {
            work(item)?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let spawn = || thread::Builder::new().spawn_scoped(scope, run);
        let threads: Vec<_> = (1..THREADS).map_while(|_| spawn().ok()).collect();
        let here = run();
        let ended = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
        ended.fold(here, io::Result::and)
    })
}

struct Items<I>(Mutex<Option<I>>);

impl<I: Iterator> Items<I> {
    fn next(&self) -> Option<I::Item> {
        self.lock().as_mut().and_then(Iterator::next)
    }
}

impl<I> Items<I> {
    fn lock(&self) -> MutexGuard<'_, Option<I>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Leaves no items.
struct End<'a, I>(&'a Items<I>);

impl<I> Drop for End<'_, I> {
    fn drop(&mut self) {
        *self.0.lock() = None;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn every_item_is_worked_on_once() {
        let sum = AtomicU64::new(0);
        let add = |n| {
            sum.fetch_add(n, Ordering::Relaxed);
            Ok(())
        };
        each(1..=1000, add).unwrap();
        assert_eq!(sum.into_inner(), 500_500);
    }

    #[test]
    fn a_failure_ends_it() {
        let done = AtomicU64::new(0);
        let fail_at_ten = |n: u64| match n {
            10 => Err(io::ErrorKind::StorageFull.into()),
            _ => {
                done.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
        };
        assert_eq!(each(0.., fail_at_ten).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert!(done.into_inner() >= 10);
    }
}
