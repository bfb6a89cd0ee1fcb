//! One process of a cluster.

use std::{
    fs::OpenOptions,
    io,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        LazyLock, Mutex, MutexGuard,
        mpsc::{SyncSender, sync_channel},
    },
    thread,
};

use rustix::process::{Pid, Signal, kill_process};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Mon,
    Mgr,
    Osd,
    RbdMirror,
}

impl Kind {
    /// Of the storage itself.
    pub const STORAGE: [Self; 3] = [Self::Mon, Self::Mgr, Self::Osd];

    pub(super) fn program(self) -> &'static str {
        match self {
            Self::Mon => "ceph-mon",
            Self::Mgr => "ceph-mgr",
            Self::Osd => "ceph-osd",
            Self::RbdMirror => "rbd-mirror",
        }
    }

    pub(super) fn id(self) -> &'static str {
        match self {
            Self::Mon => "a",
            Self::Mgr => "x",
            Self::Osd => "0",
            Self::RbdMirror => "rbd-mirror.x",
        }
    }
}

/// Killed when it goes.
#[derive(Debug)]
pub(super) struct Daemon {
    kind: Kind,
    child: Mutex<Option<Child>>,
}

impl Daemon {
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, child: Mutex::default() }
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// What it says besides its log goes to `errors`.
    #[track_caller]
    pub(super) fn start(&self, mut command: Command, errors: &Path) {
        let mut child = self.lock();
        assert!(child.is_none(), "{} runs already", self.kind.program());
        let errors = OpenOptions::new().create(true).append(true).open(errors).expect("a log file");
        command.args(["-f", "--id", self.kind.id()]);
        command.stdin(Stdio::null()).stdout(errors.try_clone().expect("a log file")).stderr(errors);
        *child = Some(spawn(command).unwrap_or_else(|error| panic!("{}: {error}", self.kind.program())));
    }

    /// SIGKILL; nothing when it does not run.
    pub(super) fn kill(&self) {
        if let Some(mut child) = self.lock().take() {
            child.kill().expect("kill a daemon");
            child.wait().expect("wait for a daemon");
        }
    }

    /// Nothing when it does not run.
    pub(super) fn signal(&self, signal: Signal) {
        if let Some(child) = self.lock().as_ref() {
            kill_process(Pid::from_child(child), signal).expect("signal a daemon");
        }
    }

    /// Whether it was started and has not ended by itself.
    pub(super) fn is_running(&self) -> bool {
        self.lock().as_mut().is_some_and(|child| child.try_wait().expect("wait for a daemon").is_none())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Child>> {
        // A panic of another thread leaves the child as it is.
        self.child.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

type Request = (Command, SyncSender<io::Result<Child>>);

/// The kernel sends the signal of the parent's death when the *thread* ends that started the child. Tests move between
/// threads; this one lives as long as the process.
fn spawn(command: Command) -> io::Result<Child> {
    static STARTER: LazyLock<SyncSender<Request>> = LazyLock::new(|| {
        let (sender, receiver) = sync_channel::<Request>(0);
        thread::spawn(move || {
            for (mut command, answer) in receiver {
                // Who asked waits for the answer.
                let _ = answer.send(command.spawn());
            }
        });
        sender
    });
    let (answer, child) = sync_channel(1);
    STARTER.send((command, answer)).expect("the starter lives");
    child.recv().expect("the starter answers")
}
