//! The omap of an object: sorted keys with values, changed as one.

use std::{
    collections::BTreeMap,
    ffi::{c_char, c_int},
};

use super::Object;
use crate::{
    Error,
    error::{call, checked},
    ffi::{
        Functions, LIBRADOS_CMPXATTR_OP_EQ, LIBRADOS_CREATE_EXCLUSIVE, Octet, Plain, rados_omap_iter_t,
        rados_read_op_t, rados_write_op_t,
    },
    text::to_c,
};

/// More keys in one object are refused (ERANGE).
const KEYS_MAX: usize = 1 << 16;
/// Keys asked for at once; OSDs give 1000 at most by default (`osd_max_omap_entries_per_request`).
const PAGE: u64 = 1000;

/// What is true of the object when a change is made; both are one step of the OSD.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition<'a> {
    /// Nothing; a missing object is created.
    Always,
    /// It does not exist, and is created.
    New,
    /// It exists and each of these keys has this value. A key that is missing counts as the empty value.
    Equal(&'a [(&'a str, &'a [u8])]),
}

/// Keys to set and to remove.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OmapChange<'a> {
    pub set: &'a [(&'a str, &'a [u8])],
    pub remove: &'a [&'a str],
}

/// Whether a change was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Written {
    Done,
    /// The condition was not true, and nothing was changed.
    Refused,
}

impl Object {
    /// All keys and values. NotFound where there is no object.
    pub fn omap(&self) -> Result<BTreeMap<String, Vec<u8>>, Error> {
        let mut all = BTreeMap::new();
        let mut after = c"".to_owned();
        loop {
            let mut more = Octet(0);
            let page = self.read(|functions, operation, iterator, result| {
                // SAFETY: an operation that is being built; C strings; places for the answers, which outlive it.
                unsafe {
                    (functions.rados_read_op_omap_get_vals2)(
                        operation,
                        after.as_ptr(),
                        c"".as_ptr(),
                        PAGE,
                        iterator,
                        &raw mut more,
                        result,
                    );
                }
            })?;
            let last = page.last_key_value().map(|(key, _)| key.clone());
            all.extend(page);
            match last {
                Some(_) if all.len() > KEYS_MAX => {
                    return Err(Error::new("rados_read_op_omap_get_vals2", libc::ERANGE));
                }
                Some(key) if more.0 != 0 => after = to_c("rados_read_op_omap_get_vals2", &key)?,
                _ => return Ok(all),
            }
        }
    }

    /// Those of `keys` that there are, with their values. NotFound where there is no object.
    pub fn omap_values(&self, keys: &[&str]) -> Result<BTreeMap<String, Vec<u8>>, Error> {
        let keys = Texts::new(keys.iter().map(|key| key.as_bytes()));
        self.read(|functions, operation, iterator, result| {
            // SAFETY: an operation that is being built; as many texts with their lengths; places for the answers, which outlive it.
            unsafe {
                (functions.rados_read_op_omap_get_vals_by_keys2)(
                    operation,
                    keys.pointers.as_ptr(),
                    keys.pointers.len(),
                    keys.lengths.as_ptr(),
                    iterator,
                    result,
                );
            }
        })
    }

    fn read(
        &self,
        build: impl FnOnce(&Functions, rados_read_op_t, *mut rados_omap_iter_t, *mut c_int),
    ) -> Result<BTreeMap<String, Vec<u8>>, Error> {
        let functions = self.functions();
        // SAFETY: makes a new operation.
        let operation = unsafe { (functions.rados_create_read_op)() };
        let mut iterator = rados_omap_iter_t::zeroed();
        let mut result = 0;
        build(functions, operation, &raw mut iterator, &raw mut result);
        // SAFETY: the operation that was built, a pool, a C string.
        let done =
            unsafe { call!(functions, rados_read_op_operate(operation, self.pool.0.raw, self.name.as_ptr(), 0)) };
        // SAFETY: made above, released once.
        unsafe { (functions.rados_release_read_op)(operation) };
        let pairs = match done.and_then(|_| checked("rados_read_op_omap_get_vals", result)) {
            Ok(_) => pairs_of(functions, iterator),
            Err(error) => Err(error),
        };
        if !iterator.0.is_null() {
            // SAFETY: made by the building of the operation, ended once, also when that failed.
            unsafe { (functions.rados_omap_get_end)(iterator) };
        }
        pairs
    }

    /// Changes keys as one step of the OSD, if the condition is true. NotFound: [`Condition::Equal`] and no such object.
    pub fn change_omap(&self, condition: Condition<'_>, change: OmapChange<'_>) -> Result<Written, Error> {
        let operation = WriteOperation::new(self.functions());
        operation.require(condition)?;
        operation.change(change);
        match operation.run(self) {
            Ok(_) => Ok(Written::Done),
            Err(error) if [libc::ECANCELED, libc::EEXIST].contains(&error.errno.raw()) => Ok(Written::Refused),
            Err(error) => Err(error),
        }
    }
}

/// Texts as C takes them with their lengths.
struct Texts {
    pointers: Vec<*const c_char>,
    lengths: Vec<usize>,
}

impl Texts {
    /// The texts must outlive it.
    fn new<'a>(texts: impl Iterator<Item = &'a [u8]>) -> Self {
        let (pointers, lengths) = texts.map(|text| (text.as_ptr().cast(), text.len())).unzip();
        Self { pointers, lengths }
    }
}

fn pairs_of(functions: &Functions, iterator: rados_omap_iter_t) -> Result<BTreeMap<String, Vec<u8>>, Error> {
    let mut pairs = BTreeMap::new();
    loop {
        let (mut key, mut value) = (std::ptr::null_mut(), std::ptr::null_mut());
        let (mut key_length, mut value_length) = (0, 0);
        // SAFETY: an iterator of a read that is done; places for two buffers that belong to it.
        unsafe {
            call!(
                functions,
                rados_omap_get_next2(
                    iterator,
                    &raw mut key,
                    &raw mut value,
                    &raw mut key_length,
                    &raw mut value_length
                )
            )
        }?;
        if key.is_null() {
            return Ok(pairs);
        }
        // SAFETY: the key's buffer, which stays until the iterator is ended.
        let key = unsafe { copied(key, key_length) };
        // SAFETY: the value's buffer, as above.
        let value = unsafe { copied(value, value_length) };
        pairs.insert(String::from_utf8_lossy(&key).into_owned(), value);
    }
}

/// # Safety
/// NULL, or a buffer of that length.
unsafe fn copied(buffer: *const c_char, length: usize) -> Vec<u8> {
    if buffer.is_null() {
        return Vec::new();
    }
    // SAFETY: what the caller promised.
    unsafe { std::slice::from_raw_parts(buffer.cast::<u8>(), length) }.to_vec()
}

struct WriteOperation<'a> {
    functions: &'a Functions,
    raw: rados_write_op_t,
}

impl<'a> WriteOperation<'a> {
    fn new(functions: &'a Functions) -> Self {
        // SAFETY: makes a new operation.
        let raw = unsafe { (functions.rados_create_write_op)() };
        Self { functions, raw }
    }

    fn require(&self, condition: Condition<'_>) -> Result<(), Error> {
        match condition {
            Condition::Always => (),
            // SAFETY: an operation that is being built.
            Condition::New => unsafe {
                (self.functions.rados_write_op_create)(self.raw, LIBRADOS_CREATE_EXCLUSIVE, std::ptr::null());
            },
            Condition::Equal(pairs) => {
                // SAFETY: an operation that is being built.
                unsafe { (self.functions.rados_write_op_assert_exists)(self.raw) };
                pairs.iter().try_for_each(|(key, value)| self.require_equal(key, value))?;
            }
        }
        Ok(())
    }

    fn require_equal(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        let length = key.len();
        let key = to_c("rados_write_op_omap_cmp2", key)?;
        // SAFETY: an operation that is being built, which copies both texts; no place for a result.
        unsafe {
            (self.functions.rados_write_op_omap_cmp2)(
                self.raw,
                key.as_ptr(),
                Octet(LIBRADOS_CMPXATTR_OP_EQ),
                value.as_ptr().cast(),
                length,
                value.len(),
                std::ptr::null_mut(),
            );
        }
        Ok(())
    }

    fn change(&self, change: OmapChange<'_>) {
        let keys = Texts::new(change.set.iter().map(|(key, _)| key.as_bytes()));
        let values = Texts::new(change.set.iter().map(|(_, value)| *value));
        // SAFETY: an operation that is being built, which copies as many keys and values with their lengths.
        unsafe {
            (self.functions.rados_write_op_omap_set2)(
                self.raw,
                keys.pointers.as_ptr(),
                values.pointers.as_ptr(),
                keys.lengths.as_ptr(),
                values.lengths.as_ptr(),
                keys.pointers.len(),
            );
        }
        if change.remove.is_empty() {
            return;
        }
        let keys = Texts::new(change.remove.iter().map(|key| key.as_bytes()));
        // SAFETY: an operation that is being built, which copies as many keys with their lengths.
        unsafe {
            (self.functions.rados_write_op_omap_rm_keys2)(
                self.raw,
                keys.pointers.as_ptr(),
                keys.lengths.as_ptr(),
                keys.pointers.len(),
            );
        }
    }

    fn run(&self, object: &Object) -> Result<u64, Error> {
        // SAFETY: the operation that was built, a pool, a C string; the OSD's own time.
        unsafe {
            call!(
                self.functions,
                rados_write_op_operate2(self.raw, object.pool.0.raw, object.name.as_ptr(), std::ptr::null_mut(), 0)
            )
        }
    }
}

impl Drop for WriteOperation<'_> {
    fn drop(&mut self) {
        // SAFETY: made by rados_create_write_op, released once.
        unsafe { (self.functions.rados_release_write_op)(self.raw) };
    }
}
