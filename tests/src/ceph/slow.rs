//! A process that runs only part of the time.

use std::{
    sync::{
        Arc,
        mpsc::{RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::process::Signal;

use super::daemon::Daemon;

/// Short against Ceph's heartbeats (6 s), long against one write of an object.
const PERIOD: Duration = Duration::from_millis(200);

/// Full speed again when it is dropped.
#[derive(Debug)]
pub struct Slowed {
    end: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Slowed {
    pub(super) fn start(daemon: &Arc<Daemon>, share: f64) -> Self {
        assert!((0.0..=1.0).contains(&share), "a share of the time: {share}");
        let (end, ended) = sync_channel::<()>(0);
        let daemon = Arc::clone(daemon);
        let thread = thread::spawn(move || {
            let rest = |signal, share: f64| {
                daemon.signal(signal);
                ended.recv_timeout(PERIOD.mul_f64(share)) == Err(RecvTimeoutError::Timeout)
            };
            while rest(Signal::STOP, 1.0 - share) && rest(Signal::CONT, share) {}
            daemon.signal(Signal::CONT);
        });
        Self { end: Some(end), thread: Some(thread) }
    }
}

impl Drop for Slowed {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("a slowed daemon could not be signalled");
        }
    }
}
