//! NFS-Ganesha with the VFS FSAL in user space, on a port of its own, with a bus of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{ports::free_port, process, scratch::Scratch, skip};

const START: Duration = Duration::from_secs(30);
const STOP: Duration = Duration::from_secs(20);

/// Says so when it is not there.
pub fn is_installed(test: &str) -> bool {
    let there = ["ganesha.nfsd", "dbus-daemon"].iter().all(|name| find(name).is_some());
    if !there {
        skip::skipped(test, "NFS-Ganesha or dbus-daemon is not installed");
    }
    there
}

fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

#[derive(Debug)]
pub struct Ganesha {
    bus: Child,
    server: Option<Child>,
    port: u16,
    scratch: Scratch,
}

impl Ganesha {
    /// `exports` are its blocks, as they stand in its configuration.
    #[track_caller]
    pub fn start(exports: &str) -> Self {
        let scratch = Scratch::new("ganesha");
        let socket = scratch.join("bus");
        let bus_config = format!(
            "<busconfig><type>system</type><listen>unix:path={}</listen><auth>EXTERNAL</auth>\
             <policy context=\"default\"><allow user=\"*\"/><allow own=\"*\"/><allow send_destination=\"*\"/>\
             <allow receive_sender=\"*\"/></policy></busconfig>",
            socket.display()
        );
        fs::write(scratch.join("bus.conf"), bus_config).expect("write the bus's configuration");
        let mut command = Command::new("dbus-daemon");
        command.arg("--nofork").arg(format!("--config-file={}", scratch.join("bus.conf").display()));
        let bus = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("start dbus-daemon");
        process::until("the bus is there", START, || socket.exists().then_some(()));
        let mut server = Self { bus, server: None, port: free_port(), scratch };
        server.write(exports);
        server.run();
        server
    }

    fn write(&self, exports: &str) {
        let text = format!(
            "NFS_CORE_PARAM {{ Bind_addr = 127.0.0.1; NFS_Port = {}; Protocols = 4; Enable_NLM = false; Enable_RQUOTA = false; }}\n\
             NFSv4 {{ Graceless = true; Grace_Period = 5; Lease_Lifetime = 5; RecoveryRoot = {}; }}\n{exports}",
            self.port,
            self.scratch.join("recovery").display()
        );
        fs::create_dir_all(self.scratch.join("recovery")).expect("a directory for recovery");
        fs::write(self.config(), text).expect("write the configuration");
    }

    pub fn run(&mut self) {
        // What an earlier one said is not said of this one.
        let _ = fs::remove_file(self.log());
        let mut command = Command::new("ganesha.nfsd");
        command.arg("-F").arg("-f").arg(self.config()).arg("-p").arg(self.pid_file()).arg("-L").arg(self.log());
        command.args(["-N", "NIV_EVENT"]).env("DBUS_SYSTEM_BUS_ADDRESS", self.bus());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.server = Some(child.expect("start ganesha.nfsd"));
        process::until("NFS-Ganesha serves", START, || {
            let log = fs::read_to_string(self.log()).unwrap_or_default();
            log.contains("NFS SERVER INITIALIZED").then_some(())
        });
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.server.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_file(self.pid_file());
    }

    pub fn config(&self) -> PathBuf {
        self.scratch.join("ganesha.conf")
    }

    pub fn config_text(&self) -> String {
        fs::read_to_string(self.config()).expect("read the configuration")
    }

    fn pid_file(&self) -> PathBuf {
        self.scratch.join("pid")
    }

    pub fn log(&self) -> PathBuf {
        self.scratch.join("log")
    }

    pub fn bus(&self) -> String {
        format!("unix:path={}", self.scratch.join("bus").display())
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Lines of an agent's configuration by which it finds this server.
    pub fn agent_config(&self, more: &str) -> String {
        let (bus, config, pid_file) = (self.bus(), self.config(), self.pid_file());
        format!(
            "[nfs]\nserver = \"ganesha\"\n{more}\n[nfs.probe]\nport = {}\ntimeout_secs = 3\n\
             [nfs.ganesha]\nconfig = {config:?}\nbus = {bus:?}\npid_file = {pid_file:?}\n",
            self.port
        )
    }

    /// As it reloads by a signal alone.
    pub fn agent_config_by_signal(&self) -> String {
        self.agent_config("").replace("[nfs.ganesha]", "[nfs.ganesha]\nreload = \"sighup\"")
    }
}

/// A block that exports `path` to this host, read-write, the owner of files as it is.
pub fn export(id: u16, path: &Path, pseudo: &str, squash: &str) -> String {
    format!(
        "EXPORT {{\n  Export_Id = {id}; # number {id}\n  Path = \"{}\";\n  Pseudo = {pseudo};\n  Access_Type = NONE;\n  \
         Squash = {squash};\n  SecType = sys;\n  Protocols = 4;\n  Transports = TCP;\n  FSAL {{ Name = VFS; }}\n  \
         CLIENT {{ Clients = 127.0.0.1; Access_Type = RW; Squash = {squash}; }}\n  \
         CLIENT {{ Clients = 10.0.0.0/24, *.example.org; Access_Type = RW; }}\n}}\n",
        path.display()
    )
}

impl Drop for Ganesha {
    fn drop(&mut self) {
        if let Some(mut child) = self.server.take() {
            // It has removed its exports when it ends by itself; a hang of it is no failure of the test.
            let _ = kill_process(Pid::from_child(&child), Signal::TERM);
            if process::wait(&mut child, STOP).is_err() {
                let _ = child.kill();
            }
        }
        let _ = self.bus.kill();
        let _ = self.bus.wait();
    }
}
