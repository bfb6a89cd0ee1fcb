//! An agent of the tests: its own directory, certificates, ports and process; killed when dropped.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::LazyLock,
    time::{Duration, Instant},
};

use drover_tests::ports::free_port;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_drover-agent");

/// Certificates of one CA for all tests: site-a, site-b, stranger, controller and viewer.
static CERTS: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a directory");
    let names = ["--name", "site-a", "--name", "site-b", "--name", "stranger"];
    let made = Command::new(BINARY).args(["certs", "init"]).arg(dir.path()).args(names).stdout(Stdio::null()).status();
    assert!(made.expect("drover-agent runs").success());
    dir
});

pub(crate) fn certs() -> &'static Path {
    CERTS.path()
}

/// What two agents need to know of each other before either runs.
pub(crate) struct Site {
    pub(crate) name: &'static str,
    pub(crate) port: u16,
    pub(crate) metrics_port: u16,
    dir: tempfile::TempDir,
}

impl Site {
    pub(crate) fn new(name: &'static str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("root")).expect("a root");
        Self { name, port: free_port(), metrics_port: free_port(), dir }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    pub(crate) fn config_path(&self) -> PathBuf {
        self.dir.path().join("agent.toml")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("state/drover.sock")
    }

    pub(crate) fn write_config(&self, peer: &Site, more: &str) {
        let (name, port, metrics, certs) = (self.name, self.port, self.metrics_port, certs().display());
        let (root, state) = (self.root(), self.dir.path().join("state"));
        let text = format!(
            "name = \"{name}\"\nlisten = \"127.0.0.1:{port}\"\nmetrics_listen = \"127.0.0.1:{metrics}\"\n\
             state_dir = {state:?}\n\
             [tls]\nca = \"{certs}/ca.pem\"\ncertificate = \"{certs}/{name}.pem\"\nkey = \"{certs}/{name}.key\"\n\
             [roles]\ncontroller = [\"controller.drover\"]\nviewer = [\"viewer.drover\"]\npeer = [\"{}.drover\"]\n\
             [[root]]\nname = \"data\"\npath = {root:?}\n\
             [[peer]]\nname = \"{}\"\naddress = \"https://127.0.0.1:{}\"\n{more}\n",
            peer.name, peer.name, peer.port
        );
        fs::write(self.config_path(), text).expect("a configuration");
    }

    pub(crate) fn start(&self) -> Agent {
        let mut child = Command::new(BINARY)
            .args(["serve", "--log-format", "json", "--config"])
            .arg(self.config_path())
            .stderr(Stdio::piped())
            .spawn()
            .expect("drover-agent runs");
        let stderr = child.stderr.take().expect("it was piped");
        let name = self.name;
        std::thread::spawn(move || {
            // Captured by the harness and shown when a test fails.
            BufReader::new(stderr).lines().map_while(Result::ok).for_each(|line| println!("{name}: {line}"));
        });
        Agent { child }
    }

    /// A connection with the certificate of `who`, once the agent answers.
    pub(crate) async fn connect(&self, who: &str) -> Channel {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match self.endpoint(Some(who)).connect().await {
                Ok(channel) => return channel,
                Err(error) if Instant::now() > deadline => {
                    panic!("{} does not answer: {error:?}", self.name)
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    pub(crate) fn endpoint(&self, who: Option<&str>) -> Endpoint {
        let read = |name: &str| fs::read(certs().join(name)).expect("a PEM file");
        let mut tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(read("ca.pem")))
            .domain_name(format!("{}.drover", self.name));
        if let Some(who) = who {
            tls = tls.identity(Identity::from_pem(read(&format!("{who}.pem")), read(&format!("{who}.key"))));
        }
        let endpoint = Endpoint::from_shared(format!("https://127.0.0.1:{}", self.port)).expect("an address");
        endpoint.tls_config(tls).expect("certificates")
    }
}

pub(crate) struct Agent {
    child: Child,
}

impl Agent {
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it ran");
        self.child.wait().expect("it ended");
    }

    /// Lives, but does nothing any more.
    pub(crate) fn freeze(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).expect("it ran");
    }

    pub(crate) fn terminate(mut self) -> std::process::ExitStatus {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it ran");
        self.child.wait().expect("it ended")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Gone already when `kill` or `terminate` ended it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
