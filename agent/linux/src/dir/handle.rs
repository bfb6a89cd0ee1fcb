//! File handles (`open_by_handle_at(2)`): an inode by its file system's own name for it, wherever it has been moved.
#![expect(unsafe_code, reason = "neither rustix nor libc wraps the file-handle calls")]

use std::{
    ffi::CString,
    fs::File,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use super::Dir;
use crate::file;

/// Valid on its file system, across remounts and reboots, until the inode is deleted. Made and read by the kernel only.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FileHandle {
    /// `handle_type`.
    pub kind: i32,
    /// `f_handle`; at most 128 bytes (`MAX_HANDLE_SZ`, linux/exportfs.h).
    pub bytes: Vec<u8>,
}

const HANDLE_BYTES_MAX: usize = libc::MAX_HANDLE_SZ as usize;

/// `struct file_handle` of linux/fs.h with room for the largest handle.
#[repr(C)]
struct RawHandle {
    handle_bytes: u32,
    handle_type: i32,
    f_handle: [u8; HANDLE_BYTES_MAX],
}

impl Dir {
    /// Of the entry itself, also when it is a symlink. EOPNOTSUPP where the file system has no handles.
    pub fn handle(&self, name: &[u8]) -> io::Result<FileHandle> {
        let name = CString::new(self.real(name)?)?;
        let mut raw = RawHandle { handle_bytes: HANDLE_BYTES_MAX as u32, handle_type: 0, f_handle: [0; _] };
        let mut mount_id: libc::c_int = 0;
        // SAFETY: the name ends with a NUL, `raw` has the `handle_bytes` bytes it tells of, and both it and `mount_id`
        // outlive the call, which keeps none of them.
        let rc = unsafe {
            libc::syscall(
                libc::SYS_name_to_handle_at,
                self.fd.as_raw_fd(),
                name.as_ptr(),
                &raw mut raw,
                &raw mut mount_id,
                0,
            )
        };
        if rc < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(FileHandle { kind: raw.handle_type, bytes: raw.f_handle[..raw.handle_bytes as usize].to_vec() })
    }

    /// Opens the inode to read, on the file system that this directory is on; `None` once it is deleted, even if
    /// something still holds it open. Needs `CAP_DAC_READ_SEARCH`. Not for symlinks (ELOOP) and sockets (ENXIO).
    pub fn open_by_handle(&self, handle: &FileHandle) -> io::Result<Option<File>> {
        let raw = RawHandle::try_from(handle)?;
        let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
        // SAFETY: `raw` has the `handle_bytes` bytes it tells of and outlives the call, which only reads it.
        let fd = unsafe { libc::syscall(libc::SYS_open_by_handle_at, self.fd.as_raw_fd(), &raw const raw, flags) };
        if fd < 0 {
            let error = io::Error::last_os_error();
            return if error.raw_os_error() == Some(libc::ESTALE) { Ok(None) } else { Err(error) };
        }
        // SAFETY: the kernel has just opened this descriptor for us and nothing else knows of it.
        let file = File::from(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) });
        Ok((file::stat(&file)?.nlink > 0).then_some(file))
    }
}

impl TryFrom<&FileHandle> for RawHandle {
    type Error = io::Error;

    /// ESTALE, as the kernel would say, for a handle that it can't have made.
    fn try_from(handle: &FileHandle) -> io::Result<Self> {
        let mut f_handle = [0; HANDLE_BYTES_MAX];
        let room = f_handle.get_mut(..handle.bytes.len()).ok_or(io::Error::from_raw_os_error(libc::ESTALE))?;
        room.copy_from_slice(&handle.bytes);
        Ok(Self { handle_bytes: handle.bytes.len() as u32, handle_type: handle.kind, f_handle })
    }
}
