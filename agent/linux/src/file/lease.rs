//! Being the only one who has a file open (`F_SETLEASE`, fcntl(2)).
#![expect(unsafe_code, reason = "neither rustix nor libc wraps leases")]

use std::{fs::File, io, os::fd::AsRawFd};

use crate::FilesystemType;

/// linux/fcntl.h
const F_SETSIG: libc::c_int = 10;

/// As long as it is held nobody else has the file open, or has it mapped: it is granted only then, and whoever opens the file
/// afterwards waits until it is given back (with `O_NONBLOCK`: is refused). This process must not open the file again,
/// either. The kernel takes it back from one who keeps another waiting for long (`/proc/sys/fs/lease-break-time`).
#[derive(Debug)]
pub struct WriteLease(File);

impl WriteLease {
    /// `None` when somebody else has the file open, or where there are no leases that could be relied on.
    pub fn take(file: File) -> io::Result<Option<Self>> {
        match attempt(&file, libc::F_WRLCK)? {
            Attempt::Granted => Ok(Some(Self(file))),
            Attempt::Refused | Attempt::Impossible => Ok(None),
        }
    }

    pub fn file(&self) -> &File {
        &self.0
    }

    /// Whether nobody has opened the file, or waits to, since it was taken.
    pub fn is_whole(&self) -> io::Result<bool> {
        Ok(call(&self.0, libc::F_GETLEASE, 0)? == libc::F_WRLCK)
    }
}

/// Whether somebody has the file, which is open here for reading only, open for writing: a program, a loop device, a mapping. `None`
/// where there are no leases that could be relied on.
pub fn is_open_for_writing(file: &File) -> io::Result<Option<bool>> {
    Ok(match attempt(file, libc::F_RDLCK)? {
        Attempt::Granted => call(file, libc::F_SETLEASE, libc::F_UNLCK).map(|_| Some(false))?,
        Attempt::Refused => Some(true),
        Attempt::Impossible => None,
    })
}

enum Attempt {
    Granted,
    /// Open elsewhere.
    Refused,
    /// Leases of this file system can't be relied on; not the owner, without CAP_LEASE; not supported.
    Impossible,
}

fn attempt(file: &File, kind: libc::c_int) -> io::Result<Attempt> {
    let is_local =
        matches!(FilesystemType::of(file)?, FilesystemType::Ext | FilesystemType::Xfs | FilesystemType::Btrfs);
    if !is_local {
        return Ok(Attempt::Impossible);
    }
    // The usual signal to a holder that somebody waits, SIGIO, would end the process; this one is ignored.
    call(file, F_SETSIG, libc::SIGURG)?;
    match call(file, libc::F_SETLEASE, kind) {
        Ok(_) => Ok(Attempt::Granted),
        Err(error) => match error.raw_os_error() {
            Some(libc::EAGAIN) => Ok(Attempt::Refused),
            Some(libc::EACCES | libc::EPERM | libc::EINVAL | libc::ENOLCK) => Ok(Attempt::Impossible),
            _ => Err(error),
        },
    }
}

impl Drop for WriteLease {
    fn drop(&mut self) {
        // Closing would give it back, too, but not while a second descriptor is open.
        let _ = call(&self.0, libc::F_SETLEASE, libc::F_UNLCK);
    }
}

fn call(file: &File, command: libc::c_int, argument: libc::c_int) -> io::Result<libc::c_int> {
    // SAFETY: the descriptor is open, and these commands take an integer.
    match unsafe { libc::fcntl(file.as_raw_fd(), command, argument) } {
        -1 => Err(io::Error::last_os_error()),
        result => Ok(result),
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::OpenOptionsExt, thread, time::Duration};

    use super::*;

    fn open(path: &std::path::Path) -> File {
        File::options().read(true).write(true).open(path).unwrap()
    }

    #[test]
    fn whoever_opens_the_file_waits_or_is_refused_and_is_noticed() {
        let temp = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = temp.path().join("file");
        std::fs::write(&path, b"content").unwrap();
        let other = File::open(&path).unwrap();
        assert!(WriteLease::take(open(&path)).unwrap().is_none(), "somebody reads the file");
        drop(other);

        let lease = WriteLease::take(open(&path)).unwrap().expect("nobody else has the file open");
        assert!(lease.is_whole().unwrap());
        let refused = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&path);
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert!(!lease.is_whole().unwrap());
        drop(lease);

        let lease = WriteLease::take(open(&path)).unwrap().expect("nobody else has the file open");
        thread::scope(|scope| {
            let waiting = scope.spawn(|| File::open(&path).map(drop));
            while lease.is_whole().unwrap() {
                thread::sleep(Duration::from_millis(1));
            }
            assert!(!waiting.is_finished(), "it waits");
            drop(lease);
            waiting.join().unwrap().unwrap();
        });
    }

    #[test]
    fn a_directory_waits_for_the_lease_of_a_file_that_it_opens() {
        let temp = tempfile::tempdir_in("/var/tmp").unwrap();
        let dir = crate::Dir::open(temp.path()).unwrap();
        drop(dir.create_file(b"file", 0o600).unwrap());
        let lease = WriteLease::take(dir.open_write(b"file").unwrap()).unwrap().expect("nobody else has the file open");
        thread::scope(|scope| {
            let waiting =
                [scope.spawn(|| dir.open_file(b"file").map(drop)), scope.spawn(|| dir.inode_flags(b"file").map(drop))];
            thread::sleep(Duration::from_millis(100));
            assert!(waiting.iter().all(|waiting| !waiting.is_finished()), "they wait");
            drop(lease);
            waiting.into_iter().for_each(|waiting| waiting.join().unwrap().unwrap());
        });
    }

    #[test]
    fn who_writes_is_told_from_who_reads() {
        let temp = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = temp.path().join("file");
        std::fs::write(&path, b"content").unwrap();
        let (ours, other) = (File::open(&path).unwrap(), File::open(&path).unwrap());
        assert_eq!(is_open_for_writing(&ours).unwrap(), Some(false));
        drop(other);
        let writer = open(&path);
        assert_eq!(is_open_for_writing(&ours).unwrap(), Some(true));
        drop(writer);
        assert_eq!(is_open_for_writing(&ours).unwrap(), Some(false));
        open(&path).set_len(0).unwrap();
    }

    #[test]
    fn a_mapping_counts_as_open() {
        let temp = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = temp.path().join("file");
        std::fs::write(&path, [0; 4096]).unwrap();
        let file = open(&path);
        // SAFETY: a fresh mapping of an open file, not touched.
        let mapped =
            unsafe { libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        assert_ne!(mapped, libc::MAP_FAILED);
        drop(file);
        assert!(WriteLease::take(open(&path)).unwrap().is_none());
        // SAFETY: what was mapped above.
        assert_eq!(unsafe { libc::munmap(mapped, 4096) }, 0);
        assert!(WriteLease::take(open(&path)).unwrap().is_some());
    }
}
