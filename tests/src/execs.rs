//! Which programs a process and its children start, as the kernel is asked for them.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{process, scratch::Scratch};

const ATTACHED: Duration = Duration::from_secs(10);

/// `strace` on a running process and all that it starts.
#[derive(Debug)]
pub struct Execs {
    strace: Child,
    out: PathBuf,
}

impl Execs {
    #[track_caller]
    pub fn watch(pid: u32, scratch: &Scratch) -> Self {
        let [out, told] = ["execs", "strace"].map(|name| scratch.join(format!("{name}.{pid}")));
        let mut command = Command::new("strace");
        command.args(["-f", "-e", "trace=execve", "-s", "200", "-o"]).arg(&out).args(["-p", &pid.to_string()]);
        let stderr = fs::File::create(&told).expect("a file for what strace says");
        let strace = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).spawn().expect("start strace");
        process::until("strace is attached", ATTACHED, || {
            fs::read_to_string(&told).ok().filter(|told| told.contains(&format!("Process {pid} attached")))
        });
        Self { strace, out }
    }

    /// What was started so far, with its arguments; `execve` may have failed.
    #[track_caller]
    pub fn stop(mut self) -> Vec<String> {
        // It detaches.
        kill_process(Pid::from_child(&self.strace), Signal::INT).expect("stop strace");
        process::wait(&mut self.strace, ATTACHED).expect("strace ends");
        let text = fs::read_to_string(&self.out).expect("read what strace saw");
        let calls = text.lines().filter_map(|line| line.split_once("execve(").map(|(_, call)| call.to_owned()));
        calls.collect()
    }
}

impl Drop for Execs {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}
