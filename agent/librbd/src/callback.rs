//! Closures that C calls. A panic must not unwind into C: it is kept, and resumed when the call is over.

use std::{
    any::Any,
    ffi::{c_int, c_void},
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{Extent, ffi::librbd_progress_fn_t};

/// Gets (done, total), in objects or in bytes by the call; comes from threads of librbd. It can't stop the call.
pub type Progress<'a> = dyn FnMut(u64, u64) + Send + 'a;

/// What a diff calls for each extent.
pub(crate) type Collector<'a> = dyn FnMut(Extent) -> ControlFlow<()> + Send + 'a;

/// librbd calls from several threads, one after another as far as is known; the lock makes it certain.
pub(crate) struct Callback<F>(Mutex<Guarded<F>>);

struct Guarded<F> {
    closure: F,
    panic: Option<Box<dyn Any + Send>>,
}

impl<F> Callback<F> {
    pub(crate) fn new(closure: F) -> Self {
        Self(Mutex::new(Guarded { closure, panic: None }))
    }

    /// What C hands back to the callback: valid as long as `self` is neither moved nor dropped.
    pub(crate) fn argument(&self) -> *mut c_void {
        std::ptr::from_ref(self).cast_mut().cast()
    }

    /// `None` when the closure panics, now or before.
    fn invoke<R>(&self, with: impl FnOnce(&mut F) -> R) -> Option<R> {
        let mut guarded: MutexGuard<'_, Guarded<F>> = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if guarded.panic.is_some() {
            return None;
        }
        match catch_unwind(AssertUnwindSafe(|| with(&mut guarded.closure))) {
            Ok(result) => Some(result),
            Err(panic) => {
                guarded.panic = Some(panic);
                None
            }
        }
    }

    /// The call is over: a panic goes on.
    pub(crate) fn finish(self) {
        if let Some(panic) = self.0.into_inner().unwrap_or_else(PoisonError::into_inner).panic {
            resume_unwind(panic);
        }
    }
}

/// Makes a call that takes a progress callback, which must never be NULL: librbd calls it unasked.
pub(crate) fn with_progress<R>(
    progress: &mut Progress<'_>,
    call: impl FnOnce(librbd_progress_fn_t, *mut c_void) -> R,
) -> R {
    let callback = Callback::new(progress);
    let result = call(on_progress, callback.argument());
    callback.finish();
    result
}

unsafe extern "C" fn on_progress(done: u64, total: u64, argument: *mut c_void) -> c_int {
    // SAFETY: `with_progress` handed over such a callback, which outlives the call.
    let callback = unsafe { &*argument.cast::<Callback<&mut Progress<'_>>>() };
    let _ = callback.invoke(|progress| progress(done, total));
    // Anything else would end some calls in the middle.
    0
}

/// Makes a call that takes a diff callback. `Break` where the collector asked for the end; the call's own error is then -ECANCELED.
pub(crate) fn with_collector<R>(
    collector: &mut Collector<'_>,
    call: impl FnOnce(DiffCallback, *mut c_void) -> R,
) -> (R, ControlFlow<()>) {
    let mut flow = ControlFlow::Continue(());
    let mut noted = |extent| {
        if flow.is_continue() {
            flow = collector(extent);
        }
        flow
    };
    let noted: &mut Collector<'_> = &mut noted;
    let callback = Callback::new(noted);
    let result = call(on_extent, callback.argument());
    callback.finish();
    (result, flow)
}

pub(crate) type DiffCallback = unsafe extern "C" fn(u64, usize, c_int, *mut c_void) -> c_int;

unsafe extern "C" fn on_extent(offset: u64, length: usize, exists: c_int, argument: *mut c_void) -> c_int {
    // SAFETY: `with_collector` handed over such a callback, which outlives the call.
    let callback = unsafe { &*argument.cast::<Callback<&mut Collector<'_>>>() };
    let extent = Extent { offset, length: length as u64, exists: exists != 0 };
    match callback.invoke(|collector| collector(extent)) {
        Some(ControlFlow::Continue(())) => 0,
        Some(ControlFlow::Break(())) | None => -libc::ECANCELED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As C would: calls three times whatever comes back.
    fn three_times(callback: DiffCallback, argument: *mut c_void) -> Vec<c_int> {
        // SAFETY: the callback gets the argument it came with.
        (0..3).map(|index| unsafe { callback(index * 10, 5, 1, argument) }).collect()
    }

    #[test]
    fn a_panic_goes_on_after_the_call() {
        let mut seen = 0;
        let mut returned = Vec::new();
        let result = catch_unwind(AssertUnwindSafe(|| {
            with_collector(
                &mut |_| {
                    seen += 1;
                    panic!("planted");
                },
                |callback, argument| returned = three_times(callback, argument),
            )
        }));
        assert_eq!(*result.unwrap_err().downcast::<&str>().unwrap(), "planted");
        assert_eq!((seen, returned), (1, vec![-libc::ECANCELED; 3]));
    }

    #[test]
    fn a_panic_in_progress_lets_the_call_end() {
        let mut ended = false;
        let result = catch_unwind(AssertUnwindSafe(|| {
            with_progress(&mut |_, _| panic!("planted"), |callback, argument| {
                // SAFETY: the callback gets the argument it came with.
                let code = unsafe { callback(1, 2, argument) };
                ended = code == 0;
            });
        }));
        assert!(result.is_err() && ended);
    }

    #[test]
    fn a_collector_that_has_enough_is_not_called_again() {
        let mut extents = Vec::new();
        let mut collector = |extent| {
            extents.push(extent);
            if extents.len() == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let (codes, flow) = with_collector(&mut collector, three_times);
        assert_eq!((codes, flow), (vec![0, -libc::ECANCELED, -libc::ECANCELED], ControlFlow::Break(())));
        assert_eq!(extents[1], Extent { offset: 10, length: 5, exists: true });
        assert_eq!(extents.len(), 2);
    }
}
