//! One agent process.

use std::{
    fs::OpenOptions,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use super::{Access, Certificates, Client, Faults, agent_binary, config, log};
use crate::{ports::free_port, process, scratch::Scratch};

const START: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(60);

/// What an agent is given.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    pub name: String,
    /// Name and path.
    pub roots: Vec<(String, PathBuf)>,
    /// Name and port on loopback, which may be a cut link's.
    pub peers: Vec<(String, u16)>,
    /// More lines of configuration.
    pub more: String,
    /// No program is found by its name.
    pub is_without_path: bool,
    /// Words before the agent's own, which end by running them in their place (exec).
    pub wrapped: Vec<String>,
}

#[derive(Debug)]
pub struct Agent {
    pub setup: Setup,
    certificates: Certificates,
    scratch: Scratch,
    port: u16,
    metrics: u16,
    child: Option<Child>,
}

impl Agent {
    /// Not started yet: its port is known, so that peers can be told.
    pub fn new(name: &str, certificates: &Certificates) -> Self {
        let setup = Setup { name: name.to_owned(), ..Setup::default() };
        let scratch = Scratch::new(name);
        let certificates = certificates.clone();
        Self { setup, certificates, scratch, port: free_port(), metrics: free_port(), child: None }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn metrics_port(&self) -> u16 {
        self.metrics
    }

    pub fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    /// Job journal and socket: what may be lost.
    pub fn state_dir(&self) -> PathBuf {
        self.scratch.join("state")
    }

    pub fn config(&self) -> PathBuf {
        self.scratch.join("agent.toml")
    }

    pub fn log(&self) -> PathBuf {
        self.scratch.join("log")
    }

    /// Starts the process and waits until it serves.
    #[track_caller]
    pub fn start(&mut self, faults: &Faults) {
        self.spawn(faults);
        self.wait_ready();
    }

    /// Without waiting: a failpoint of its start may kill it.
    #[track_caller]
    pub fn spawn(&mut self, faults: &Faults) {
        assert!(self.child.is_none(), "{} runs already", self.setup.name);
        config::write(&self.config(), &self.setup, &self.certificates, &self.state_dir(), self.port, self.metrics);
        let log = OpenOptions::new().create(true).append(true).open(self.log()).expect("log file");
        let mut command = match self.setup.wrapped.split_first() {
            Some((program, words)) => {
                let mut command = Command::new(program);
                command.args(words).arg(agent_binary());
                command
            }
            None => Command::new(agent_binary()),
        };
        command.args(["serve", "--config"]).arg(self.config());
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("log file")).stderr(log);
        command.env_remove("NOTIFY_SOCKET");
        if self.setup.is_without_path {
            command.env("PATH", "");
        }
        faults.apply(&mut command);
        self.child = Some(command.spawn().expect("start drover-agent"));
    }

    #[track_caller]
    pub fn wait_ready(&mut self) {
        let ready = process::until("agent is ready", START, || {
            if let Some(status) = self.ended() {
                return Some(Err(status));
            }
            Client::connect(self, Access::Controller).is_ok_and(|mut client| client.is_serving()).then_some(Ok(()))
        });
        if let Err(status) = ready {
            panic!("{} ended at its start: {status}\n{}", self.setup.name, self.log_text());
        }
    }

    /// As `wait_ready`, for an agent that may be killed at its start: whether it serves.
    #[track_caller]
    pub fn wait_ready_or_end(&mut self) -> bool {
        process::until("agent is ready or has ended", START, || {
            if self.ended().is_some() {
                return Some(false);
            }
            Client::connect(self, Access::Controller).is_ok_and(|mut client| client.is_serving()).then_some(true)
        })
    }

    /// For an agent that may have been killed.
    pub fn controller_if_up(&self) -> Option<Client> {
        Client::connect(self, Access::Controller).ok()
    }

    /// Its end, when it has ended by itself (a failpoint killed it).
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().expect("wait for the agent")?;
        self.child = None;
        Some(status)
    }

    pub fn is_running(&mut self) -> bool {
        self.child.is_some() && self.ended().is_none()
    }

    /// The highest that its resident memory was (`VmHWM`); 0 when it does not run.
    pub fn peak_bytes(&self) -> u64 {
        let status = self.pid().map(|pid| std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default());
        let line = status.as_deref().and_then(|status| status.lines().find_map(|line| line.strip_prefix("VmHWM:")));
        line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).map_or(0, |kib| kib << 10)
    }

    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Its processes that serve a Ceph cluster each.
    pub fn workers(&self) -> Vec<u32> {
        process::children(self.pid().expect("a running agent"))
    }

    pub fn kill_workers(&self) {
        for worker in self.workers() {
            let pid = Pid::from_raw(worker.cast_signed()).expect("a process");
            match kill_process(pid, Signal::KILL) {
                // It has ended by itself.
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(error) => panic!("kill a worker: {error}"),
            }
        }
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("kill the agent");
            child.wait().expect("wait for the agent");
        }
    }

    /// SIGTERM: it finishes or checkpoints its jobs.
    #[track_caller]
    pub fn stop(&mut self) -> Option<ExitStatus> {
        let mut child = self.child.take()?;
        kill_process(Pid::from_child(&child), Signal::TERM).expect("stop the agent");
        Some(process::wait(&mut child, STOP).unwrap_or_else(|error| panic!("{} stops: {error}", self.setup.name)))
    }

    #[track_caller]
    pub fn restart(&mut self, faults: &Faults) {
        self.kill();
        self.start(faults);
    }

    /// As its clients see it.
    #[track_caller]
    pub fn client(&self, access: Access) -> Client {
        Client::connect(self, access).unwrap_or_else(|error| panic!("connect to {}: {error}", self.setup.name))
    }

    pub fn controller(&self) -> Client {
        self.client(Access::Controller)
    }

    pub fn log_text(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.log()).unwrap_or_default()).into_owned()
    }

    /// Its log has a line with this.
    #[track_caller]
    pub fn assert_logged(&self, part: &str) {
        let log = self.log_text();
        assert!(log.contains(part), "no {part:?} in the log:\n{log}");
    }

    /// Fails the test when the agent warned of anything that is not listed (a part of the line is enough).
    #[track_caller]
    pub fn assert_quiet(&self, listed: &[&str]) {
        let lines = log::unlisted(&self.log(), listed);
        assert!(lines.is_empty(), "{} warned of what no one listed:\n{}", self.setup.name, lines.join("\n"));
    }

    /// Highest resident memory so far, from the kernel.
    pub fn peak_rss_bytes(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()?)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib << 10)
    }

    pub fn scratch(&self) -> &Path {
        self.scratch.path()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let text = self.log_text();
            let tail: Vec<&str> = text.lines().rev().take(40).collect();
            eprintln!("--- end of the log of {}", self.setup.name);
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}
