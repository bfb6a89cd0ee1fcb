//! One worker process, as the agent holds it.

use std::{
    io,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use bytes::Bytes;
use drover_engine::{image::stream::Totals, session::SessionError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{
    data::{Content, DataRequest, Ended, Part},
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

/// Nothing came or went for so long, though librados gives a call up much sooner, and long work says that it goes on.
const STALLED: Duration = Duration::from_secs(900);

/// Why content was not moved to its end.
pub(crate) enum Stopped {
    Process(ProcessError),
    /// By who gives and takes it. `is_settled`: the worker has carried out all that it was given, and is as good as new.
    Caller {
        error: SessionError,
        is_settled: bool,
    },
}

impl From<ProcessError> for Stopped {
    fn from(error: ProcessError) -> Self {
        Self::Process(error)
    }
}

impl Process {
    /// A worker that answers at the end reads all before, and one that answers with frames has read all.
    pub(crate) fn move_content(&mut self, request: &DataRequest, content: &mut dyn Content) -> Result<Totals, Stopped> {
        self.socket.set_write_timeout(Some(STALLED)).map_err(ProcessError::Start)?;
        self.put(|socket| wire::send(socket, &Request::Data(request.clone())))?;
        let given = self.give(content)?;
        self.put(|socket| Part::End(Bytes::new()).send(socket))?;
        let mut error = given.err();
        loop {
            let deadline = Instant::now() + STALLED;
            let message = wire::receive_bytes(&mut Until { stream: &self.socket, deadline })
                .map_err(|error| ended(&mut self.child, &error, STALLED))?;
            match (Part::parse(message), error) {
                (Some(Part::Frame(_)), Some(error)) => return Err(Stopped::Caller { error, is_settled: false }),
                (Some(Part::Frame(frame)), None) => error = content.take(frame).err(),
                (Some(Part::End(end)), waiting) => {
                    let done = self.done(&end)?;
                    return match waiting {
                        Some(error) => Err(Stopped::Caller { error, is_settled: true }),
                        None => Ok(done),
                    };
                }
                (None, _) => return Err(ended(&mut self.child, &io::ErrorKind::InvalidData.into(), STALLED).into()),
            }
        }
    }

    fn give(&mut self, content: &mut dyn Content) -> Result<Result<(), SessionError>, ProcessError> {
        loop {
            match content.give() {
                Err(error) => return Ok(Err(error)),
                Ok(None) => return Ok(Ok(())),
                Ok(Some(frame)) => self.put(|socket| Part::Frame(frame).send(socket))?,
            }
            // It has failed, and reads no more.
            if self.has_answered() {
                return Ok(Ok(()));
            }
        }
    }

    fn put(&mut self, put: impl FnOnce(&mut UnixStream) -> io::Result<()>) -> Result<(), ProcessError> {
        put(&mut self.socket).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => ProcessError::Deadline(STALLED),
            _ => ended(&mut self.child, &error, STALLED),
        })
    }

    fn done(&mut self, end: &[u8]) -> Result<Totals, ProcessError> {
        match serde_json::from_slice(end) {
            Ok(Ended::Done(totals)) => Ok(totals),
            Ok(Ended::Failed(failure)) => Err(ProcessError::Failed(failure)),
            Err(error) => Err(ended(&mut self.child, &error.into(), STALLED)),
        }
    }

    fn has_answered(&self) -> bool {
        let mut ready = [PollFd::new(&self.socket, PollFlags::IN)];
        poll(&mut ready, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
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
