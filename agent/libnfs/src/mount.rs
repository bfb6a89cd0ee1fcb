//! A mounted export, and the files that are open on it.

use std::{
    ffi::{CStr, CString, c_int},
    fmt,
    ptr::NonNull,
    time::Duration,
};

use rustix::io::Errno;

use crate::{
    Error, Libnfs,
    ffi::{Write, nfs_context, nfsfh},
};

const O_RDWR: c_int = 0o2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    V3,
    V4,
}

/// Where and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Name or address.
    pub host: String,
    pub port: u16,
    /// Of the mount protocol, which NFSv4 has none of; 0: as rpcbind says.
    pub mount_port: u16,
    pub protocol: Protocol,
    pub uid: u32,
    pub gid: u32,
    /// How long a call waits for an answer.
    pub patience: Duration,
}

/// Unmounted when it goes.
pub struct Mount {
    library: Libnfs,
    context: NonNull<nfs_context>,
}

/// Closed when it goes.
pub struct File<'a> {
    mount: &'a Mount,
    handle: NonNull<nfsfh>,
}

// SAFETY: a context belongs to no thread; `Mount` is not `Sync`, so that one thread at a time uses it.
unsafe impl Send for Mount {}

impl fmt::Debug for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("mounted export")
    }
}

impl fmt::Debug for File<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("open file of an export")
    }
}

impl Libnfs {
    /// `export` is the path as the server's clients call it.
    pub fn mount(&self, server: &Server, export: &str) -> Result<Mount, Error> {
        let invalid =
            |call| move |_| Error { call, errno: Errno::INVAL, message: "a path with a zero byte".to_owned() };
        let (host, path) = (
            CString::new(server.host.clone()).map_err(invalid("nfs_mount"))?,
            CString::new(export).map_err(invalid("nfs_mount"))?,
        );
        // SAFETY: no arguments.
        let context = NonNull::new(unsafe { (self.0.nfs_init_context)() });
        let context = context.ok_or(Error { call: "nfs_init_context", errno: Errno::NOMEM, message: String::new() })?;
        let mount = Mount { library: self.clone(), context };
        mount.configure(server)?;
        // SAFETY: two strings that live as long as the call.
        let mounted = unsafe { (self.0.nfs_mount)(context.as_ptr(), host.as_ptr(), path.as_ptr()) };
        mount.done("nfs_mount", mounted)?;
        Ok(mount)
    }
}

impl Mount {
    fn configure(&self, server: &Server) -> Result<(), Error> {
        let (functions, context) = (&self.library.0, self.context.as_ptr());
        let number = |value: u32| c_int::from_ne_bytes(value.to_ne_bytes());
        let version = match server.protocol {
            Protocol::V3 => 3,
            Protocol::V4 => 4,
        };
        // SAFETY: a context and a number.
        self.done("nfs_set_version", unsafe { (functions.nfs_set_version)(context, version) })?;
        // SAFETY: a context and a number.
        unsafe { (functions.nfs_set_uid)(context, number(server.uid)) };
        // SAFETY: a context and a number.
        unsafe { (functions.nfs_set_gid)(context, number(server.gid)) };
        let millis = c_int::try_from(server.patience.as_millis()).unwrap_or(c_int::MAX);
        // SAFETY: a context and a number.
        unsafe { (functions.nfs_set_timeout)(context, millis) };
        // A server that is gone is an answer.
        // SAFETY: a context and a number.
        unsafe { (functions.nfs_set_autoreconnect)(context, 0) };
        self.set_ports(server)
    }

    /// libnfs 4.0 has no functions for them: they are options of a URL, which parsing one sets.
    fn set_ports(&self, server: &Server) -> Result<(), Error> {
        let mount_port = match server.mount_port {
            0 => String::new(),
            port => format!("&mountport={port}"),
        };
        let url = self.path("nfs_parse_url_dir", &format!("nfs://localhost/x?nfsport={}{mount_port}", server.port))?;
        let (functions, context) = (&self.library.0, self.context.as_ptr());
        // SAFETY: a string that lives as long as the call.
        let parsed = unsafe { (functions.nfs_parse_url_dir)(context, url.as_ptr()) };
        let parsed = NonNull::new(parsed).ok_or_else(|| self.error("nfs_parse_url_dir", Errno::INVAL))?;
        // SAFETY: what parsing made, once.
        unsafe { (functions.nfs_destroy_url)(parsed.as_ptr()) };
        Ok(())
    }

    /// A new file, open for writing.
    pub fn create(&self, path: &str, mode: u32) -> Result<File<'_>, Error> {
        let path = self.path("nfs_creat", path)?;
        let mode = c_int::try_from(mode & 0o7777).unwrap_or(0o600);
        let mut handle: *mut nfsfh = std::ptr::null_mut();
        // SAFETY: a string and a place for the handle, which live as long as the call.
        let created =
            unsafe { (self.library.0.nfs_creat)(self.context.as_ptr(), path.as_ptr(), mode, &raw mut handle) };
        self.done("nfs_creat", created)?;
        self.file("nfs_creat", handle)
    }

    /// A file that is there, for reading and writing.
    pub fn open(&self, path: &str) -> Result<File<'_>, Error> {
        let path = self.path("nfs_open", path)?;
        let mut handle: *mut nfsfh = std::ptr::null_mut();
        // SAFETY: a string and a place for the handle, which live as long as the call.
        let opened =
            unsafe { (self.library.0.nfs_open)(self.context.as_ptr(), path.as_ptr(), O_RDWR, &raw mut handle) };
        self.done("nfs_open", opened)?;
        self.file("nfs_open", handle)
    }

    pub fn remove(&self, path: &str) -> Result<(), Error> {
        let path = self.path("nfs_unlink", path)?;
        // SAFETY: a string that lives as long as the call.
        let removed = unsafe { (self.library.0.nfs_unlink)(self.context.as_ptr(), path.as_ptr()) };
        self.done("nfs_unlink", removed)
    }

    fn path(&self, call: &'static str, path: &str) -> Result<CString, Error> {
        let message = "a path with a zero byte".to_owned();
        CString::new(path).map_err(|_| Error { call, errno: Errno::INVAL, message })
    }

    fn file(&self, call: &'static str, handle: *mut nfsfh) -> Result<File<'_>, Error> {
        let handle = NonNull::new(handle).ok_or_else(|| self.error(call, Errno::IO))?;
        Ok(File { mount: self, handle })
    }

    fn done(&self, call: &'static str, result: c_int) -> Result<(), Error> {
        if result >= 0 { Ok(()) } else { Err(self.error(call, Errno::from_raw_os_error(-result))) }
    }

    fn error(&self, call: &'static str, errno: Errno) -> Error {
        // SAFETY: a context; the text belongs to it.
        let text = unsafe { (self.library.0.nfs_get_error)(self.context.as_ptr()) };
        let message = match NonNull::new(text) {
            // SAFETY: a text that ends with a zero byte, and stays until the next call.
            Some(text) => unsafe { CStr::from_ptr(text.as_ptr()) }.to_string_lossy().into_owned(),
            None => String::new(),
        };
        Error { call, errno, message }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // SAFETY: files borrow the mount, so none is open.
        unsafe { (self.library.0.nfs_destroy_context)(self.context.as_ptr()) };
    }
}

impl File<'_> {
    /// All of it, or an error.
    pub fn write(&self, bytes: &[u8], offset: u64) -> Result<(), Error> {
        let (context, handle) = (self.mount.context.as_ptr(), self.handle.as_ptr());
        let buffer = bytes.as_ptr().cast();
        let written = match &self.mount.library.0.write {
            // SAFETY: the buffer has so many bytes, and lives as long as the call.
            Write::OffsetFirst(write) => unsafe { write(context, handle, offset, bytes.len() as u64, buffer) },
            // SAFETY: the buffer has so many bytes, and lives as long as the call.
            Write::BufferFirst(write) => unsafe { write(context, handle, buffer, bytes.len(), offset) },
        };
        self.mount.done("nfs_pwrite", written)?;
        match usize::try_from(written) == Ok(bytes.len()) {
            true => Ok(()),
            false => Err(self.mount.error("nfs_pwrite", Errno::IO)),
        }
    }

    /// Durable at the server when it returns.
    pub fn sync(&self) -> Result<(), Error> {
        // SAFETY: a context and a handle of it.
        let synced = unsafe { (self.mount.library.0.nfs_fsync)(self.mount.context.as_ptr(), self.handle.as_ptr()) };
        self.mount.done("nfs_fsync", synced)
    }
}

impl Drop for File<'_> {
    fn drop(&mut self) {
        // What closing says is of no use any more: `sync` has told.
        // SAFETY: a handle that nothing uses afterwards.
        let _ = unsafe { (self.mount.library.0.nfs_close)(self.mount.context.as_ptr(), self.handle.as_ptr()) };
    }
}
