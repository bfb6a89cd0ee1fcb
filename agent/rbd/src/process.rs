//! One worker process, as the agent holds it.

use std::{
    io,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::{
    request::{Connect, Connected, Failure, FailureKind, Reply, Request},
    wire::{self, Until},
    worker::CONNECTING,
};

/// To load the library and to connect, on top of the time that connecting may take.
const STARTING: Duration = Duration::from_secs(5);

/// What a worker is started as: the agent's own binary, and the arguments that make it one.
#[derive(Clone, Debug)]
pub struct Program {
    pub path: PathBuf,
    pub arguments: Vec<String>,
}

/// Killed when it goes.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    socket: UnixStream,
    pub(crate) connected: Connected,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ProcessError {
    #[error("a worker process can't be started")]
    Start(#[source] io::Error),
    /// It said why and is gone.
    #[error(transparent)]
    Refused(Failure),
    /// It is as good as new for the next call.
    #[error(transparent)]
    Failed(Failure),
    #[error("no answer within {} s", .0.as_secs())]
    Deadline(Duration),
    /// It crashed, or was killed by another hand.
    #[error("the worker process ended in the middle of the call: {0}")]
    Ended(String),
}

impl ProcessError {
    /// The cluster did not answer in time.
    pub(crate) fn is_late(&self) -> bool {
        match self {
            Self::Deadline(_) => true,
            Self::Refused(failure) | Self::Failed(failure) => failure.kind == FailureKind::TimedOut,
            Self::Start(_) | Self::Ended(_) => false,
        }
    }
}

impl Process {
    pub(crate) fn start(program: &Program, connect: &Connect) -> Result<Self, ProcessError> {
        let (socket, theirs) = UnixStream::pair().map_err(ProcessError::Start)?;
        let mut command = Command::new(&program.path);
        // What librados logs goes where the agent's log goes.
        command.args(&program.arguments).stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null());
        let child = command.spawn().map_err(ProcessError::Start)?;
        // The command holds the other end, which must go for the worker's death to be seen.
        drop(command);
        let patience = connect.timeout.min(CONNECTING) + STARTING;
        let mut process = Self { child, socket, connected: Connected::default() };
        let sent = wire::send(&mut process.socket, connect);
        let deadline = Instant::now() + patience;
        let answer = sent.and_then(|()| wire::receive(&mut Until { stream: &process.socket, deadline }));
        match answer {
            Ok(Ok(connected)) => process.connected = connected,
            Ok(Err(failure)) => return Err(ProcessError::Refused(failure)),
            Err(error) => return Err(ended(&mut process.child, &error, patience)),
        }
        Ok(process)
    }

    /// Another hand may have killed it while it was idle.
    pub(crate) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// After any error but `Failed` it is of no more use.
    pub(crate) fn call(&mut self, request: &Request, patience: Duration) -> Result<Reply, ProcessError> {
        let deadline = Instant::now() + patience;
        let sent = wire::send(&mut self.socket, request);
        let answer =
            sent.and_then(|()| wire::receive::<Result<Reply, Failure>>(&mut Until { stream: &self.socket, deadline }));
        match answer {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(failure)) => Err(ProcessError::Failed(failure)),
            Err(error) => Err(ended(&mut self.child, &error, patience)),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn end(child: &mut Child) {
    // It may have gone by itself.
    let _ = child.kill();
    let _ = child.wait();
}

fn ended(child: &mut Child, error: &io::Error, patience: Duration) -> ProcessError {
    if error.kind() == io::ErrorKind::TimedOut {
        return ProcessError::Deadline(patience);
    }
    let _ = child.kill();
    ProcessError::Ended(child.wait().map_or_else(|error| error.to_string(), |status| status.to_string()))
}
