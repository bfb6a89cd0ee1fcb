//! Buffers that C fills: grown when the reply says that they were too small, in one place and within bounds.

use crate::{Error, error::checked, ffi::Plain};

/// More than this in one reply is refused (ERANGE): entries of a list, or bytes of text.
pub(crate) const ENTRIES_MAX: usize = 1 << 20;

/// A list may grow between two calls; after so many tries it is refused.
const TRIES_MAX: u32 = 12;

/// `N` buffers that one call filled, each as long as the call said, and the call's code.
pub(crate) struct Filled<T, const N: usize> {
    pub(crate) buffers: [Vec<T>; N],
    pub(crate) code: u64,
}

/// Calls `attempt(pointers, lengths)` with `N` zeroed buffers of `lengths` entries until it returns something else than -ERANGE, which
/// means that they were too small: those lengths that it raised are the next ones; where it raised none, all are doubled.
pub(crate) fn filled<T: Plain, const N: usize>(
    call: &'static str,
    first: usize,
    mut attempt: impl FnMut([*mut T; N], &mut [usize; N]) -> i64,
) -> Result<Filled<T, N>, Error> {
    let mut capacities = [first; N];
    for _ in 0..TRIES_MAX {
        let mut buffers = capacities.map(|capacity| vec![T::zeroed(); capacity]);
        let mut lengths = capacities;
        let code = attempt(buffers.each_mut().map(|buffer| buffer.as_mut_ptr()), &mut lengths);
        if code != -i64::from(libc::ERANGE) {
            let code = checked(call, code)?;
            for (buffer, length) in buffers.iter_mut().zip(lengths) {
                buffer.truncate(length);
            }
            return Ok(Filled { buffers, code });
        }
        capacities = grown(capacities, lengths);
        if capacities.iter().any(|capacity| *capacity > ENTRIES_MAX) {
            break;
        }
    }
    Err(Error::new(call, libc::ERANGE))
}

fn grown<const N: usize>(had: [usize; N], asked: [usize; N]) -> [usize; N] {
    let mut next = had;
    for (next, asked) in next.iter_mut().zip(asked) {
        *next = (*next).max(asked);
    }
    if next == had { had.map(|capacity| capacity.saturating_mul(2).max(16)) } else { next }
}

/// One buffer.
pub(crate) fn filled_one<T: Plain>(
    call: &'static str,
    first: usize,
    mut attempt: impl FnMut(*mut T, &mut usize) -> i64,
) -> Result<Vec<T>, Error> {
    let Filled { buffers: [buffer], .. } =
        filled(call, first, |[pointer], [length]: &mut [usize; 1]| attempt(pointer, length))?;
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ERANGE: i64 = -(libc::ERANGE as i64);

    #[test]
    fn a_named_length_is_taken_at_once() {
        let mut calls = Vec::new();
        let buffer = filled_one::<u8>("c", 4, |_, length| {
            calls.push(*length);
            if *length < 100 {
                *length = 100;
                return ERANGE;
            }
            *length = 99;
            0
        });
        assert_eq!(buffer.unwrap().len(), 99);
        assert_eq!(calls, [4, 100]);
    }

    #[test]
    fn without_a_named_length_buffers_double() {
        let mut calls = Vec::new();
        let filled = filled::<u8, 2>("c", 10, |_, lengths| {
            calls.push(*lengths);
            if lengths[1] < 40 { ERANGE } else { 7 }
        })
        .unwrap();
        assert_eq!(calls, [[10, 10], [20, 20], [40, 40]]);
        assert_eq!((filled.code, filled.buffers[0].len()), (7, 40));
    }

    #[test]
    fn one_of_two_buffers_grows_alone() {
        let mut calls = Vec::new();
        let result = filled::<u8, 2>("c", 10, |_, lengths| {
            calls.push(*lengths);
            lengths[1] = 50;
            if calls.len() == 1 { ERANGE } else { 0 }
        });
        assert!(result.is_ok());
        assert_eq!(calls, [[10, 10], [10, 50]]);
    }

    #[test]
    fn growth_is_bounded() {
        let mut tries = 0;
        let result = filled_one::<u8>("c", 16, |_, length| {
            tries += 1;
            *length = ENTRIES_MAX + 1;
            ERANGE
        });
        assert_eq!((result, tries), (Err(Error::new("c", libc::ERANGE)), 1));
        let mut tries = 0;
        let result = filled_one::<u8>("c", 1, |_, length| {
            tries += 1;
            *length += 1;
            ERANGE
        });
        assert_eq!((result, tries), (Err(Error::new("c", libc::ERANGE)), TRIES_MAX));
    }

    #[test]
    fn other_errors_and_lengths_beyond_the_buffer() {
        assert_eq!(filled_one::<u8>("c", 1, |_, _| -2), Err(Error::new("c", 2)));
        let longer = filled_one::<u8>("c", 8, |_, length| {
            *length = 4000;
            0
        });
        assert_eq!(longer.unwrap().len(), 8);
    }
}
