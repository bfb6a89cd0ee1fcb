//! A client of an NFS server that writes all the time, from a thread of its own.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use drover_libnfs::{Libnfs, Protocol, Server};

use crate::process;

/// What came of its writes.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Writes that succeeded, each durable at the server.
    pub written: u64,
    pub last_written: Option<Instant>,
    /// Of the last write that failed, since one succeeded.
    pub errno: Option<i32>,
    pub failed_at: Option<Instant>,
}

#[derive(Debug)]
pub struct Writer {
    told: Arc<Mutex<Told>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// On loopback, NFSv4.
pub fn server(port: u16, uid: u32) -> Server {
    let patience = Duration::from_secs(3);
    Server { host: "127.0.0.1".to_owned(), port, mount_port: 0, protocol: Protocol::V4, uid, gid: uid, patience }
}

impl Writer {
    /// Makes the file `name` in the export, and writes 512 bytes with the number of the write at its offset, every two milliseconds, through
    /// one handle that stays open.
    #[track_caller]
    pub fn start(port: u16, export: &str, name: &str, uid: u32) -> Self {
        let library = Libnfs::load().expect("load libnfs");
        let mount = library.mount(&server(port, uid), export).expect("mount");
        let path = format!("/{name}");
        mount.create(&path, 0o644).map(drop).expect("make the file");
        let (told, stop) = (Arc::new(Mutex::new(Told::default())), Arc::new(AtomicBool::new(false)));
        let (telling, stopping) = (told.clone(), stop.clone());
        let thread = thread::spawn(move || {
            let file = mount.open(&path).expect("open the file");
            let mut number = 0u64;
            while !stopping.load(Ordering::SeqCst) {
                let block: Vec<u8> = number.to_le_bytes().into_iter().cycle().take(512).collect();
                let done = file.write(&block, (number % 128) * 512).and_then(|()| file.sync());
                let mut told = telling.lock().expect("no panic");
                match done {
                    Ok(()) => {
                        number += 1;
                        let last_written = Some(Instant::now());
                        *told = Told { written: number, last_written, errno: None, failed_at: None };
                    }
                    Err(error) => {
                        told.errno = Some(error.errno.raw_os_error());
                        told.failed_at = Some(told.failed_at.unwrap_or_else(Instant::now));
                    }
                }
                drop(told);
                thread::sleep(Duration::from_millis(2));
            }
        });
        let writer = Self { told, stop, thread: Some(thread) };
        writer.wait_written();
        writer
    }

    pub fn told(&self) -> Told {
        self.told.lock().expect("no panic").clone()
    }

    /// Something was written after this call.
    #[track_caller]
    pub fn wait_written(&self) {
        let before = self.told().written;
        process::until("a client writes", Duration::from_secs(20), || (self.told().written > before + 1).then_some(()));
    }

    /// Its writes fail; with which error, and after how long.
    #[track_caller]
    pub fn wait_refused(&self, deadline: Duration) -> (i32, Duration) {
        let begin = Instant::now();
        let errno = process::until("a client's writes fail", deadline, || self.told().errno);
        (errno, begin.elapsed())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
