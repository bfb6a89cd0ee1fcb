//! A connection to one cluster.

use std::{
    ffi::{CString, c_char},
    fmt,
    path::Path,
    sync::Arc,
    time::Duration,
};

use crate::{
    Ceph, Error, Pool,
    error::{call, checked},
    ffi::{Functions, Plain, rados_t},
    pool::PoolHandle,
    reply::filled_one,
    text::{first_of, from_c, names_of, to_c},
};

/// How long calls wait for a cluster that does not answer; after that they fail with TimedOut. Ceph's own defaults are 300 s to
/// connect and for ever for the rest. Whole seconds; a part of one counts as one.
///
/// A call makes several round trips: `rbd_close` takes up to three times `osd`. Promote, demote and disable legitimately need
/// 30 s while a dead client holds the lock, so a connection for those takes 90 s or more, one for status 5 to 10 s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// `client_mount_timeout`: connecting.
    pub connect: Duration,
    /// `rados_mon_op_timeout`: commands to monitors and managers.
    pub monitor: Duration,
    /// `rados_osd_op_timeout`: everything on images and objects.
    pub osd: Duration,
}

/// A handle that is not connected. Later settings replace earlier ones, so the configuration file comes first.
pub struct Configuration {
    handle: ClusterHandle,
}

/// A connection. Cheap to clone; it ends with the last clone, pool, object, image and completion.
#[derive(Clone)]
pub struct Cluster(pub(crate) Arc<ClusterHandle>);

/// A pool's name and number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolEntry {
    pub id: i64,
    pub name: String,
}

pub(crate) struct ClusterHandle {
    pub(crate) functions: Arc<Functions>,
    pub(crate) raw: rados_t,
}

// SAFETY: librados locks what belongs to a handle; the calls of this crate may come from any thread (librados.h: "thread-safe").
unsafe impl Send for ClusterHandle {}
// SAFETY: as above.
unsafe impl Sync for ClusterHandle {}

impl Drop for ClusterHandle {
    fn drop(&mut self) {
        // SAFETY: made by rados_create2, connected or not; whatever used it held this handle and is gone.
        unsafe { (self.functions.rados_shutdown)(self.raw) };
    }
}

impl Configuration {
    pub(crate) fn new(ceph: &Ceph, user: &str) -> Result<Self, Error> {
        let user = to_c("rados_create2", user)?;
        let mut raw = rados_t::zeroed();
        // SAFETY: C strings, and a place for the handle.
        unsafe { call!(ceph.0, rados_create2(&raw mut raw, c"ceph".as_ptr(), user.as_ptr(), 0)) }?;
        Ok(Self { handle: ClusterHandle { functions: Arc::clone(&ceph.0), raw } })
    }

    /// Reads a `ceph.conf`. NotFound where there is none.
    pub fn conf_file(&mut self, path: &Path) -> Result<&mut Self, Error> {
        let path = CString::new(path.as_os_str().as_encoded_bytes())
            .map_err(|_| Error::new("rados_conf_read_file", libc::EINVAL))?;
        // SAFETY: the handle is not connected; a C string.
        unsafe { call!(self.handle.functions, rados_conf_read_file(self.handle.raw, path.as_ptr())) }?;
        Ok(self)
    }

    /// Addresses of the monitors, as in `mon_host`.
    pub fn mon_host(&mut self, addresses: &str) -> Result<&mut Self, Error> {
        self.option("mon_host", addresses)
    }

    /// The file with the user's key. Read when connecting: NotFound there where it is missing.
    pub fn keyring(&mut self, path: &Path) -> Result<&mut Self, Error> {
        let path = path.to_str().ok_or_else(|| Error::new("rados_conf_set", libc::EINVAL))?;
        self.option("keyring", path)
    }

    pub fn timeouts(&mut self, timeouts: Timeouts) -> Result<&mut Self, Error> {
        let seconds = |time: Duration| time.as_nanos().div_ceil(1_000_000_000).to_string();
        self.option("client_mount_timeout", &seconds(timeouts.connect))?;
        self.option("rados_mon_op_timeout", &seconds(timeouts.monitor))?;
        self.option("rados_osd_op_timeout", &seconds(timeouts.osd))
    }

    /// Any other option of Ceph. NotFound for one that this release does not know, Invalid for a value that it does not take.
    pub fn option(&mut self, name: &str, value: &str) -> Result<&mut Self, Error> {
        let name = to_c("rados_conf_set", name)?;
        let value = to_c("rados_conf_set", value)?;
        // SAFETY: the handle is not connected; C strings.
        unsafe { call!(self.handle.functions, rados_conf_set(self.handle.raw, name.as_ptr(), value.as_ptr())) }?;
        Ok(self)
    }

    /// Connects (`rados_connect`). The cache of librbd is off, whatever the file says: with it, a write to a hung cluster succeeds.
    ///
    /// Permission: unknown user or wrong key. NotFound: no keyring. TimedOut: no monitor answers.
    pub fn connect(mut self) -> Result<Cluster, Error> {
        self.option("rbd_cache", "false")?;
        // SAFETY: configured, not yet connected.
        unsafe { call!(self.handle.functions, rados_connect(self.handle.raw)) }?;
        Ok(Cluster(Arc::new(self.handle)))
    }
}

impl Cluster {
    fn functions(&self) -> &Functions {
        &self.0.functions
    }

    /// The cluster's UUID, as the monitors said when connecting.
    pub fn fsid(&self) -> Result<String, Error> {
        let buffer = filled_one::<u8>("rados_cluster_fsid", 64, |buffer, length| {
            // SAFETY: a connected handle; a buffer of that length.
            unsafe { (self.functions().rados_cluster_fsid)(self.0.raw, buffer.cast(), *length) }.into()
        })?;
        Ok(first_of(&buffer))
    }

    /// The number of this connection: the id of its watchers, and of `client.ID` among lockers.
    pub fn instance_id(&self) -> u64 {
        // SAFETY: a connected handle.
        unsafe { (self.functions().rados_get_instance_id)(self.0.raw) }
    }

    /// This connection's addresses in the form that [`Cluster::blocklist_add`] takes (`rados_getaddrs`), e.g. `10.0.0.5:0/3710147553`.
    pub fn address(&self) -> Result<String, Error> {
        let mut text: *mut c_char = std::ptr::null_mut();
        // SAFETY: a connected handle; a place for the pointer.
        unsafe { call!(self.functions(), rados_getaddrs(self.0.raw, &raw mut text)) }?;
        // SAFETY: a C string that librados allocated.
        let address = unsafe { from_c(text) };
        // SAFETY: allocated by librados, and not used any more.
        unsafe { (self.functions().rados_buffer_free)(text) };
        Ok(address)
    }

    /// One round trip to a monitor: whether the cluster answers. TimedOut within [`Timeouts::monitor`].
    pub fn check(&self) -> Result<(), Error> {
        match self.mon_command(r#"{"prefix":"fsid","format":"json"}"#) {
            Ok(_) => Ok(()),
            Err(error) => Err(error.error),
        }
    }

    /// Keeps a client out for at least `time` (0: Ceph's own hour): its next request fails with Blocklisted (108). It hits every image
    /// of that client. Needs `mon 'profile rbd'`.
    ///
    /// Comes back when this connection knows the new map. An OSD that has not heard of it yet **still takes a write** (seen): it hears by
    /// the next request of this connection that goes to it, or from the monitors within moments.
    ///
    /// Invalid: no such address.
    pub fn blocklist_add(&self, address: &str, time: Duration) -> Result<(), Error> {
        let address = to_c("rados_blocklist_add", address)?.into_raw();
        let seconds = u32::try_from(time.as_nanos().div_ceil(1_000_000_000)).unwrap_or(u32::MAX);
        // SAFETY: a connected handle; a C string of our own, which C may write to but not lengthen.
        let result = unsafe { call!(self.functions(), rados_blocklist_add(self.0.raw, address, seconds)) };
        // SAFETY: it came from into_raw.
        drop(unsafe { CString::from_raw(address) });
        result.map(drop)
    }

    /// All pools that this connection has heard of: one that was made a moment ago may be missing, [`Cluster::pool_id`] looks again.
    /// For pools that don't exist that asks the monitors, without a timeout.
    pub fn pools(&self) -> Result<Vec<PoolEntry>, Error> {
        let names = filled_one::<u8>("rados_pool_list", 4096, |buffer, length| {
            // SAFETY: a connected handle; a buffer of that length.
            let needed = unsafe { (self.functions().rados_pool_list)(self.0.raw, buffer.cast(), *length) };
            if usize::try_from(needed).is_ok_and(|needed| needed > *length) {
                *length = needed.unsigned_abs() as usize;
                return -i64::from(libc::ERANGE);
            }
            needed.into()
        })?;
        let found = names_of(&names).into_iter().map(|name| match self.pool_id(&name) {
            Ok(id) => Ok(Some(PoolEntry { id, name })),
            // Deleted meanwhile.
            Err(error) if error.kind() == crate::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        });
        found.filter_map(Result::transpose).collect()
    }

    /// NotFound where there is no such pool.
    pub fn pool_id(&self, name: &str) -> Result<i64, Error> {
        let name = to_c("rados_pool_lookup", name)?;
        // SAFETY: a connected handle; a C string.
        let id = unsafe { (self.functions().rados_pool_lookup)(self.0.raw, name.as_ptr()) };
        checked("rados_pool_lookup", id)?;
        Ok(id)
    }

    /// NotFound where there is no such pool.
    pub fn pool_name(&self, id: i64) -> Result<String, Error> {
        let buffer = filled_one::<u8>("rados_pool_reverse_lookup", 256, |buffer, length| {
            // SAFETY: a connected handle; a buffer of that length.
            unsafe { (self.functions().rados_pool_reverse_lookup)(self.0.raw, id, buffer.cast(), *length) }.into()
        })?;
        Ok(first_of(&buffer))
    }

    /// The pool of that name, in its default namespace. NotFound where there is none.
    pub fn pool(&self, name: &str) -> Result<Pool, Error> {
        self.pool_by_id(self.pool_id(name)?)
    }

    /// NotFound where there is none.
    pub fn pool_by_id(&self, id: i64) -> Result<Pool, Error> {
        PoolHandle::new(&self.0, id, "").map(Pool)
    }

    /// What this site calls itself to its peers. The cluster's **fsid** where none was set, and where the user lacks
    /// `mon 'profile rbd-mirror'`.
    pub fn site_name(&self) -> Result<String, Error> {
        let buffer = filled_one::<u8>("rbd_mirror_site_name_get", 128, |buffer, length| {
            // SAFETY: a connected handle; a buffer of that length.
            unsafe { (self.functions().rbd_mirror_site_name_get)(self.0.raw, buffer.cast(), length) }.into()
        })?;
        Ok(first_of(&buffer))
    }

    /// Needs an administrator's key (Permission).
    pub fn set_site_name(&self, name: &str) -> Result<(), Error> {
        let name = to_c("rbd_mirror_site_name_set", name)?;
        // SAFETY: a connected handle; a C string.
        unsafe { call!(self.functions(), rbd_mirror_site_name_set(self.0.raw, name.as_ptr())) }.map(drop)
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cluster(client.{})", self.instance_id())
    }
}
