//! The only bridge from async to blocking code. Each lane is bounded, so that a flood of one kind of work can't take the
//! threads of another: calls stay quick while every job runs.

use std::{num::NonZeroUsize, thread};

use tokio::{sync::Semaphore, task};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Short engine calls of an RPC.
    Calls,
    /// Opening what was not there before: a recovery may take minutes.
    Opening,
    /// Looks at a Ceph cluster, which may wait for some ten seconds.
    Ceph,
    /// Verbs of images, which may wait for minutes, and ask peers. Apart, so that a peer's look never waits for a verb that asks a peer.
    CephVerbs,
    /// Copies within a cluster, which take up to an hour.
    CephCopies,
    /// What a verb reads of a volume before it decides: as long as the scan of a sync.
    Scans,
    /// Looks at an NFS server and changes of it, which may hang.
    Exports,
    /// Own jobs: as long as a sync takes.
    Jobs,
    /// Sessions that peers dialled.
    Sessions,
}

#[derive(Debug, thiserror::Error)]
#[error("a blocking task panicked; its message is on stderr")]
pub struct Panicked;

#[derive(Debug)]
pub struct Lanes {
    calls: Semaphore,
    opening: Semaphore,
    ceph: Semaphore,
    ceph_verbs: Semaphore,
    ceph_copies: Semaphore,
    scans: Semaphore,
    exports: Semaphore,
    jobs: Semaphore,
    sessions: Semaphore,
}

impl Lanes {
    /// Calls do little but file-system work on small records: more at once would only queue in the kernel.
    const CALLS: NonZeroUsize = NonZeroUsize::new(8).unwrap();

    /// They only wait for worker processes, those of a group's images at the same time.
    const CEPH: usize = 64;
    /// As many as there are worker processes for data.
    const COPIES: usize = 2;
    const SCANS: usize = 4;
    const EXPORTS: usize = 4;

    pub fn new(jobs: usize, sessions: usize) -> Self {
        Self {
            calls: Semaphore::new(Self::CALLS.get()),
            opening: Semaphore::new(1),
            ceph: Semaphore::new(Self::CEPH),
            ceph_verbs: Semaphore::new(Self::CEPH),
            ceph_copies: Semaphore::new(Self::COPIES),
            scans: Semaphore::new(Self::SCANS),
            exports: Semaphore::new(Self::EXPORTS),
            jobs: Semaphore::new(jobs),
            sessions: Semaphore::new(sessions),
        }
    }

    /// Threads of the runtime that blocking work may take: all lanes full at once, and the runtime's own file calls.
    pub fn threads(jobs: usize, sessions: usize) -> usize {
        Self::CALLS.get() + 1 + 2 * Self::CEPH + Self::COPIES + Self::SCANS + Self::EXPORTS + jobs + sessions + 4
    }

    /// Runs `job` on a blocking thread once its lane has a place.
    pub async fn run<T: Send + 'static>(
        &self,
        lane: Lane,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Panicked> {
        let lane = match lane {
            Lane::Calls => &self.calls,
            Lane::Opening => &self.opening,
            Lane::Ceph => &self.ceph,
            Lane::CephVerbs => &self.ceph_verbs,
            Lane::CephCopies => &self.ceph_copies,
            Lane::Scans => &self.scans,
            Lane::Exports => &self.exports,
            Lane::Jobs => &self.jobs,
            Lane::Sessions => &self.sessions,
        };
        let _place = lane.acquire().await.expect("lanes are never closed");
        let span = tracing::Span::current();
        task::spawn_blocking(move || span.in_scope(job)).await.map_err(|_| Panicked)
    }
}

/// A thread that owns something for as long as the process lives.
pub fn owner_thread(name: &str, body: impl FnOnce() + Send + 'static) -> std::io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(body)
}
