//! One cluster: its files, its processes and its command line tools.

use std::{
    io,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use rustix::process::Signal;
use serde_json::Value;
use uuid::Uuid;

use super::{Image, Kind, Release, Slowed, config, daemon::Daemon, ports::Ports, site};
use crate::{
    process::{self, Done},
    scratch::Scratch,
};

/// The pool that every cluster has.
pub(super) const POOL: &str = "rbd";
/// For one call of a tool on a cluster that is well. A monitor's or OSD's restart is within it.
const CALL: Duration = Duration::from_secs(120);

/// Killed and deleted when it goes. All methods work from several threads at a time.
#[derive(Debug)]
pub struct Cluster {
    name: &'static str,
    release: Release,
    fsid: String,
    /// Before the directory: they are killed before it is deleted.
    daemons: [Arc<Daemon>; 4],
    scratch: Scratch,
    /// Claimed while the cluster lives.
    ports: Ports,
}

impl Cluster {
    /// A new one with an empty pool, serving.
    #[track_caller]
    pub(super) fn start_new(name: &'static str, release: Release) -> Self {
        let (ports, scratch) = (Ports::claim(), Scratch::new(&format!("ceph-{name}")));
        let fsid = Uuid::new_v4().to_string();
        config::write(scratch.path(), &fsid, &ports);
        let daemons = [Kind::Mon, Kind::Mgr, Kind::Osd, Kind::RbdMirror].map(|kind| Arc::new(Daemon::new(kind)));
        let cluster = Self { name, release, fsid, daemons, scratch, ports };
        site::make(&cluster, &cluster.ports);
        cluster.wait_serving();
        cluster
    }

    // === What an agent is told ===

    /// Of the site.
    pub fn name(&self) -> &'static str {
        self.name
    }

    pub fn release(&self) -> Release {
        self.release
    }

    pub fn fsid(&self) -> &str {
        &self.fsid
    }

    pub fn pool(&self) -> &'static str {
        POOL
    }

    pub fn conf(&self) -> PathBuf {
        self.scratch.join("ceph.conf")
    }

    /// Everything of the cluster lies here, for programs in a chroot (`Release::command`).
    pub fn dir(&self) -> &Path {
        self.scratch.path()
    }

    /// Creates `client.NAME` with these capabilities (`mon`, `mgr` or `osd`, and what is allowed); the path of its keyring,
    /// which the configuration names too.
    #[track_caller]
    pub fn user(&self, name: &str, caps: &[(String, String)]) -> PathBuf {
        let entity = format!("client.{name}");
        let keyring = self.scratch.join(format!("ceph.{entity}.keyring"));
        let mut arguments = vec!["auth", "get-or-create", &entity];
        arguments.extend(caps.iter().flat_map(|(daemon, cap)| [daemon.as_str(), cap.as_str()]));
        arguments.extend(["-o", keyring.to_str().expect("a path in UTF-8")]);
        self.ceph(&arguments);
        keyring
    }

    pub fn image(&self, name: &str) -> Image<'_> {
        Image::new(self, name)
    }

    // === The tools ===

    /// A program of the cluster's release with its configuration, as `client.admin`.
    pub fn tool(&self, program: &str) -> Command {
        let mut command = self.release.command(program, &[self.dir()]);
        command.env("CEPH_CONF", self.conf());
        command
    }

    /// What the call printed; it must succeed.
    #[track_caller]
    pub(super) fn must(&self, command: Command) -> String {
        let name = format!("{command:?}");
        process::run(command, CALL).expect(&name).stdout
    }

    /// Of a call of `rbd` that must succeed.
    #[track_caller]
    pub fn rbd(&self, arguments: &[&str]) -> String {
        let done = self.try_rbd(arguments, CALL).unwrap_or_else(|error| panic!("{}: {error}", self.name));
        done.expect(&format!("{}: rbd {arguments:?}", self.name)).stdout
    }

    /// Of an omap object of the pool; made where it is missing.
    #[track_caller]
    pub fn set_omap(&self, object: &str, key: &str, value: &str) {
        self.rados(&["setomapval", object, key, value]);
    }

    #[track_caller]
    pub fn omap(&self, object: &str, key: &str) -> String {
        let value = self.dir().join("omap-value");
        let path = value.to_str().expect("a path in UTF-8");
        self.rados(&["getomapval", object, key, path]);
        std::fs::read_to_string(&value).expect("read a value")
    }

    #[track_caller]
    pub(super) fn rados(&self, arguments: &[&str]) {
        let mut command = self.tool("rados");
        command.args(["--pool", self.pool()]).args(arguments);
        process::run(command, CALL).expect(&format!("{}: rados {arguments:?}", self.name));
    }

    /// Also when it fails; an error of the kind `TimedOut` when it is killed at the deadline.
    pub fn try_rbd(&self, arguments: &[&str], deadline: Duration) -> io::Result<Done> {
        let mut command = self.tool("rbd");
        command.args(arguments);
        process::try_run(command, deadline)
    }

    #[track_caller]
    pub fn rbd_json(&self, arguments: &[&str]) -> Value {
        let text = self.rbd(&[arguments, &["--format", "json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("rbd {arguments:?}: {error}: {text}"))
    }

    #[track_caller]
    pub fn ceph(&self, arguments: &[&str]) -> String {
        let mut command = self.tool("ceph");
        command.args(arguments);
        process::run(command, CALL).expect(&format!("{}: ceph {arguments:?}", self.name)).stdout
    }

    #[track_caller]
    pub fn ceph_json(&self, arguments: &[&str]) -> Value {
        let text = self.ceph(&[arguments, &["--format", "json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("ceph {arguments:?}: {error}: {text}"))
    }

    // === Its processes ===

    /// SIGKILL of monitor, manager and OSD at once, as when the site is lost. rbd-mirror, which often runs on other
    /// hosts, goes on.
    pub fn kill(&self) {
        Kind::STORAGE.into_iter().for_each(|kind| self.kill_daemon(kind));
    }

    pub fn kill_daemon(&self, kind: Kind) {
        self.daemon(kind).kill();
    }

    /// After `kill`, with the same data; waits until it serves.
    #[track_caller]
    pub fn start(&self) {
        Kind::STORAGE.into_iter().for_each(|kind| self.start_daemon(kind));
        self.wait_serving();
    }

    #[track_caller]
    pub fn start_daemon(&self, kind: Kind) {
        let errors = self.scratch.join("log").join(kind.program()).with_extension("err");
        self.daemon(kind).start(self.tool(kind.program()), &errors);
    }

    /// Whether it was started and has not ended by itself.
    pub fn is_running(&self, kind: Kind) -> bool {
        self.daemon(kind).is_running()
    }

    pub fn kill_rbd_mirror(&self) {
        self.kill_daemon(Kind::RbdMirror);
    }

    /// After a kill it takes a minute until it replays: the old one's watches and locks must run out first.
    pub fn start_rbd_mirror(&self) {
        self.start_daemon(Kind::RbdMirror);
    }

    /// SIGSTOP: calls of clients hang, as when the site is cut off.
    pub fn stop_processes(&self, kinds: &[Kind]) {
        kinds.iter().for_each(|kind| self.daemon(*kind).signal(Signal::STOP));
    }

    /// SIGCONT.
    pub fn cont(&self, kinds: &[Kind]) {
        kinds.iter().for_each(|kind| self.daemon(*kind).signal(Signal::CONT));
    }

    /// Lets a process run for this share of the time (0 to 1), until the guard is dropped: a sync takes long enough to be
    /// met half way.
    pub fn slow_down(&self, kind: Kind, share: f64) -> Slowed {
        Slowed::start(self.daemon(kind), share)
    }

    /// An object of the pool can be read, and the manager answers.
    #[track_caller]
    pub fn wait_serving(&self) {
        self.rbd(&["ls", POOL]);
        process::until("the manager is active", CALL, || {
            self.ceph_json(&["mgr", "stat"])["available"].as_bool().filter(|available| *available)
        });
    }

    fn daemon(&self, kind: Kind) -> &Arc<Daemon> {
        self.daemons.iter().find(|daemon| daemon.kind() == kind).expect("one of each kind")
    }
}
