//! Programs that the tests run. None may outlive its deadline or its test.

use std::{
    io::{self, Read},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

#[derive(Debug)]
pub struct Done {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

impl Done {
    /// For programs that must succeed.
    #[track_caller]
    pub fn expect(self, what: &str) -> Self {
        assert!(self.status.success(), "{what}: {}\n{}{}", self.status, self.stdout, self.stderr);
        self
    }

    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }
}

/// Runs a program to its end; panics when it can't be started or takes longer than `deadline`.
#[track_caller]
pub fn run(command: Command, deadline: Duration) -> Done {
    let name = format!("{command:?}");
    try_run(command, deadline).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// As `run`, but says what went wrong.
pub fn try_run(mut command: Command, deadline: Duration) -> io::Result<Done> {
    let start = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let status = wait(&mut child, deadline)?;
    let text = |reader: thread::JoinHandle<String>| reader.join().expect("reader does not panic");
    Ok(Done { status, stdout: text(stdout), stderr: text(stderr), took: start.elapsed() })
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What was read before an error is still worth showing.
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Waits for the child's end; kills it at the deadline.
pub fn wait(child: &mut Child, deadline: Duration) -> io::Result<ExitStatus> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() >= end {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("still running after {deadline:?}")));
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until `ready` gives something; panics with `what` at the deadline.
#[track_caller]
pub fn until<T>(what: &str, deadline: Duration, mut ready: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(Instant::now() < end, "{what}: not after {deadline:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A program with these arguments, which must succeed.
#[track_caller]
pub fn must(program: &str, arguments: &[&dyn AsRef<std::ffi::OsStr>], deadline: Duration) -> String {
    let mut command = Command::new(program);
    command.args(arguments.iter().map(|argument| argument.as_ref()));
    run(command, deadline).expect(program).stdout
}

/// The children of a process that have not ended (`proc_pid_task(5)`).
pub fn children(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the threads of a process");
    let of_task = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
    let texts: Vec<_> = tasks.flatten().map(of_task).collect();
    texts.iter().flat_map(|text| text.split_whitespace()).map(|pid| pid.parse().expect("a process")).collect()
}

/// Is the program there?
pub fn has(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}
