//! The advisory lock of an object, held by a connection and a cookie. The OSD forgets it when its time is over.

use std::{ffi::CString, time::Duration};

use super::Object;
use crate::{
    Error,
    error::call,
    ffi::{LIBRADOS_LOCK_FLAG_MAY_RENEW, LIBRADOS_LOCK_FLAG_MUST_RENEW, Octet},
    reply::{Filled, filled},
    text::{first_of, parts_of, to_c},
};

/// Which lock of an object, and whose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lock<'a> {
    pub name: &'a str,
    /// Tells holders on one connection apart.
    pub cookie: &'a str,
}

/// What taking a lock does when this holder has it already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// Exists.
    Never,
    /// Its time begins anew.
    May,
    /// Its time begins anew; NotFound where it is not held any more.
    Must,
}

/// A holder of a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Locker {
    /// As `client.4123`: [`crate::Cluster::instance_id`].
    pub client: String,
    pub cookie: String,
    /// As [`crate::Cluster::address`].
    pub address: String,
}

/// Who holds a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lockers {
    pub is_exclusive: bool,
    /// Of a shared lock.
    pub tag: String,
    pub lockers: Vec<Locker>,
}

impl Object {
    /// Takes the lock for `time`, or for ever; a missing object is created. After `time` anybody may take it, without a word to this
    /// holder, so what is done under it must be done by conditions, too.
    ///
    /// Busy: held by another connection or cookie. Exists, NotFound: see [`Renewal`].
    pub fn lock(
        &self,
        lock: Lock<'_>,
        description: &str,
        time: Option<Duration>,
        renewal: Renewal,
    ) -> Result<(), Error> {
        const CALL: &str = "rados_lock_exclusive";
        let (name, cookie, description) = (to_c(CALL, lock.name)?, to_c(CALL, lock.cookie)?, to_c(CALL, description)?);
        let mut time = time.map(|time| libc::timeval {
            tv_sec: libc::time_t::try_from(time.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_usec: libc::suseconds_t::from(time.subsec_micros().cast_signed()),
        });
        let time = time.as_mut().map_or(std::ptr::null_mut(), std::ptr::from_mut);
        let flags = Octet(match renewal {
            Renewal::Never => 0,
            Renewal::May => LIBRADOS_LOCK_FLAG_MAY_RENEW,
            Renewal::Must => LIBRADOS_LOCK_FLAG_MUST_RENEW,
        });
        let object = self.name.as_ptr();
        // SAFETY: a pool, C strings, a time of our own or NULL.
        unsafe {
            call!(
                self.functions(),
                rados_lock_exclusive(
                    self.pool.0.raw,
                    object,
                    name.as_ptr(),
                    cookie.as_ptr(),
                    description.as_ptr(),
                    time,
                    flags
                )
            )
        }
        .map(drop)
    }

    /// NotFound: this connection and cookie do not hold it.
    pub fn unlock(&self, lock: Lock<'_>) -> Result<(), Error> {
        let (name, cookie) = (to_c("rados_unlock", lock.name)?, to_c("rados_unlock", lock.cookie)?);
        // SAFETY: a pool, C strings.
        unsafe {
            call!(self.functions(), rados_unlock(self.pool.0.raw, self.name.as_ptr(), name.as_ptr(), cookie.as_ptr()))
        }
        .map(drop)
    }

    /// Takes the lock from its holder, who is not told and not blocklisted. NotFound: `locker` does not hold it. Invalid:
    /// [`Locker::client`] has another form.
    pub fn break_lock(&self, name: &str, locker: &Locker) -> Result<(), Error> {
        let c = |text: &str| to_c("rados_break_lock", text);
        let (name, client, cookie) = (c(name)?, c(&locker.client)?, c(&locker.cookie)?);
        // SAFETY: a pool, C strings.
        unsafe {
            call!(
                self.functions(),
                rados_break_lock(self.pool.0.raw, self.name.as_ptr(), name.as_ptr(), client.as_ptr(), cookie.as_ptr())
            )
        }
        .map(drop)
    }

    /// Who holds the lock of that name. No lockers where nobody does; NotFound where there is no object.
    pub fn lockers(&self, name: &str) -> Result<Lockers, Error> {
        let name = to_c("rados_list_lockers", name)?;
        let mut exclusive = 0;
        let Filled { buffers: [tag, clients, cookies, addresses], code } =
            filled::<u8, 4>("rados_list_lockers", 1024, |buffers, lengths| {
                self.list(&name, &mut exclusive, buffers, lengths)
            })?;
        let count = usize::try_from(code).unwrap_or_default();
        let each =
            parts_of(&clients, count).into_iter().zip(parts_of(&cookies, count)).zip(parts_of(&addresses, count));
        let lockers = each
            .map(|((client, cookie), address)| Locker { client, cookie, address: without_protocol(&address) })
            .collect();
        Ok(Lockers { is_exclusive: exclusive != 0, tag: first_of(&tag), lockers })
    }

    fn list(&self, name: &CString, exclusive: &mut i32, buffers: [*mut u8; 4], lengths: &mut [usize; 4]) -> i64 {
        let [tag, clients, cookies, addresses] = buffers.map(<*mut u8>::cast);
        let [tag_length, clients_length, cookies_length, addresses_length] = lengths;
        // SAFETY: a pool, C strings; four buffers of those lengths.
        let code = unsafe {
            (self.functions().rados_list_lockers)(
                self.pool.0.raw,
                self.name.as_ptr(),
                name.as_ptr(),
                exclusive,
                tag,
                tag_length,
                clients,
                clients_length,
                cookies,
                cookies_length,
                addresses,
                addresses_length,
            )
        };
        i64::try_from(code).unwrap_or(i64::MAX)
    }
}

/// Lockers are told as `v1:10.0.0.5:0/3710147553`; all others leave out the protocol.
fn without_protocol(address: &str) -> String {
    let protocols = ["v1:", "v2:", "any:"];
    protocols.iter().find_map(|protocol| address.strip_prefix(protocol)).unwrap_or(address).to_owned()
}

#[test]
fn addresses_have_one_form() {
    assert_eq!(without_protocol("v1:127.0.0.1:0/42"), "127.0.0.1:0/42");
    assert_eq!(without_protocol("[::1]:0/42"), "[::1]:0/42");
}
