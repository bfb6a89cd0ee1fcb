//! Commands to monitors and managers: JSON in, JSON out.

use std::{
    ffi::{CString, c_char, c_int},
    fmt,
};

use crate::{Cluster, Error, cluster::ClusterHandle, error::checked_zero, ffi::rados_t, text::to_c};

/// What a command answered. Its `Debug` shows no text, which may hold keys.
#[derive(Clone, PartialEq, Eq)]
pub struct CommandReply {
    /// Mostly JSON, where the command asked for `"format":"json"`.
    pub output: String,
    /// What the `ceph` command prints beside it.
    pub status: String,
}

/// A command that was refused, with the reason in words where the cluster gave one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}{}{status}", if .status.is_empty() { "" } else { ": " })]
pub struct CommandError {
    pub error: Error,
    pub status: String,
}

impl From<Error> for CommandError {
    fn from(error: Error) -> Self {
        Self { error, status: String::new() }
    }
}

type Send = unsafe extern "C" fn(
    rados_t,
    *mut *const c_char,
    usize,
    *const c_char,
    usize,
    *mut *mut c_char,
    *mut usize,
    *mut *mut c_char,
    *mut usize,
) -> c_int;

impl Cluster {
    /// One command to the monitors (`rados_mon_command`), as `{"prefix":"osd blocklist ls","format":"json"}`; those of the manager are
    /// forwarded by them. TimedOut within [`crate::Timeouts::monitor`].
    pub fn mon_command(&self, json: &str) -> Result<CommandReply, CommandError> {
        let command = to_c("rados_mon_command", json)?;
        run(&self.0, "rados_mon_command", self.0.functions.rados_mon_command, &command)
    }

    /// One command to the active manager (`rados_mgr_command`), as `{"prefix":"rbd mirror snapshot schedule list","level_spec":""}`.
    ///
    /// Invalid: e.g. no such pool or image, the status says it. EAGAIN (11): the manager's module is not ready yet.
    /// TimedOut: a positive code of C, for which every code but 0 is an error here.
    pub fn mgr_command(&self, json: &str) -> Result<CommandReply, CommandError> {
        let command = to_c("rados_mgr_command", json)?;
        run(&self.0, "rados_mgr_command", self.0.functions.rados_mgr_command, &command)
    }
}

fn run(
    cluster: &ClusterHandle,
    name: &'static str,
    send: Send,
    command: &CString,
) -> Result<CommandReply, CommandError> {
    let mut commands = [command.as_ptr()];
    let (mut output, mut output_length) = (std::ptr::null_mut(), 0);
    let (mut status, mut status_length) = (std::ptr::null_mut(), 0);
    // SAFETY: a connected handle; one C string; no input; places for two buffers.
    let code = unsafe {
        send(
            cluster.raw,
            commands.as_mut_ptr(),
            1,
            c"".as_ptr(),
            0,
            &raw mut output,
            &raw mut output_length,
            &raw mut status,
            &raw mut status_length,
        )
    };
    // SAFETY: both were filled by librados, or left NULL.
    let output = unsafe { taken(cluster, output, output_length) };
    // SAFETY: as above.
    let status = unsafe { taken(cluster, status, status_length) };
    match checked_zero(name, code) {
        Ok(()) => Ok(CommandReply { output, status }),
        Err(error) => Err(CommandError { error, status }),
    }
}

/// Copies a buffer of librados and frees it.
///
/// # Safety
/// NULL, or a buffer of that length that librados allocated and nothing else frees.
unsafe fn taken(cluster: &ClusterHandle, buffer: *mut c_char, length: usize) -> String {
    if buffer.is_null() {
        return String::new();
    }
    // SAFETY: what the caller promised.
    let bytes = unsafe { std::slice::from_raw_parts(buffer.cast::<u8>(), length) };
    let text = String::from_utf8_lossy(bytes).into_owned();
    // SAFETY: what the caller promised; the slice is not used any more.
    unsafe { (cluster.functions.rados_buffer_free)(buffer) };
    text
}

impl fmt::Debug for CommandReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CommandReply({} bytes, status {} bytes)", self.output.len(), self.status.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        let error = CommandError { error: Error::new("rados_mgr_command", 22), status: "no image x".to_owned() };
        assert_eq!(error.to_string(), "rados_mgr_command: Invalid argument (os error 22): no image x");
        let error = CommandError::from(Error::new("rados_mgr_command", 110));
        assert_eq!(error.to_string(), "rados_mgr_command: Connection timed out (os error 110)");
        let reply = CommandReply { output: "AQDkey".to_owned(), status: String::new() };
        assert_eq!(format!("{reply:?}"), "CommandReply(6 bytes, status 0 bytes)");
    }
}
