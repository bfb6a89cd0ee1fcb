//! The rival: an rsync client that pushes to an rsync daemon.
//!
//! Two daemons serve the same directory, because TCP_NODELAY has to be asked for at both ends to be worth anything.

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    meter::{Cost, measure},
    network::Place,
    site::Site,
    workload::Workload,
};

const PORT: u16 = 8730;
const PORT_TUNED: u16 = 8731;

/// One way to call rsync.
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    pub name: &'static str,
    /// Variants with different replicas don't disturb each other.
    replica: &'static str,
    arguments: &'static [&'static str],
    is_tuned: bool,
}

const PLAIN: Variant = Variant { name: "rsync -aHAX", replica: "plain", arguments: &[], is_tuned: false };
const TUNED: Variant = Variant { name: "rsync -aHAX tuned", replica: "tuned", arguments: &[], is_tuned: true };
const CHECKSUM: Variant = Variant { name: "rsync -aHAXc", arguments: &["--checksum"], ..PLAIN };
const CHECKSUM_TUNED: Variant = Variant { name: "rsync -aHAXc tuned", arguments: &["--checksum"], ..TUNED };
const INPLACE: Variant =
    Variant { name: "rsync --inplace", replica: "inplace", arguments: &["--inplace"], is_tuned: false };
const INPLACE_TUNED: Variant =
    Variant { name: "rsync --inplace tuned", replica: "inplace-tuned", arguments: &["--inplace"], is_tuned: true };

const SPARSE: Variant = Variant { name: "rsync -aS", replica: "sparse", arguments: &["--sparse"], is_tuned: false };
const WHOLE: Variant = Variant { name: "rsync -aW", replica: "whole", arguments: &["--whole-file"], is_tuned: false };

/// Writes to a device do not move the times of its node, by which rsync would skip it: it has to be told to compare.
const DEVICE: Variant = Variant {
    name: DEVICE_NAME,
    replica: "inplace",
    arguments: &["--inplace", "--copy-devices", "--write-devices", "--ignore-times"],
    is_tuned: false,
};
pub const DEVICE_NAME: &str = "rsync --write-devices, always compares";
const DEVICE_WHOLE: Variant = Variant {
    name: "rsync --write-devices -W",
    replica: "whole",
    arguments: &["--inplace", "--copy-devices", "--write-devices", "--ignore-times", "--whole-file"],
    ..DEVICE
};

/// Whole file lists first: with a round trip of 40 ms, rsync waits less than when it reads the tree as it goes.
const WAN_TUNED: Variant = Variant { arguments: &["--no-inc-recursive"], ..TUNED };
const WAN_CHECKSUM_TUNED: Variant = Variant { arguments: &["--checksum", "--no-inc-recursive"], ..CHECKSUM_TUNED };
const ZSTD: Variant = Variant {
    name: "rsync -aHAX -z",
    replica: "zstd",
    arguments: &["--compress", "--compress-choice=zstd"],
    is_tuned: false,
};
const ZSTD_INPLACE: Variant = Variant {
    name: "rsync --inplace -z",
    replica: "zstd-inplace",
    arguments: &["--inplace", "--compress", "--compress-choice=zstd"],
    is_tuned: false,
};

impl Variant {
    pub fn of(workload: Workload, site: &Site) -> &'static [Self] {
        match site.network.is_wan() {
            true => Self::over_wan(workload),
            false => Self::over_loopback(workload, site.is_on_devices()),
        }
    }

    fn over_wan(workload: Workload) -> &'static [Self] {
        match workload {
            Workload::Deep => &[CHECKSUM, WAN_CHECKSUM_TUNED],
            Workload::Appended => &[PLAIN, WAN_TUNED, ZSTD, ZSTD_INPLACE],
            Workload::Image => &[SPARSE, ZSTD],
            Workload::ImageChanged => &[INPLACE, ZSTD_INPLACE],
            Workload::ImageTouched | Workload::ImageDeep => &[CHECKSUM],
            Workload::FirstCopy | Workload::Unchanged | Workload::Changed | Workload::Inserted => {
                &[PLAIN, WAN_TUNED, ZSTD]
            }
        }
    }

    fn over_loopback(workload: Workload, on_devices: bool) -> &'static [Self] {
        match workload {
            Workload::Image | Workload::ImageChanged if on_devices => &[DEVICE, DEVICE_WHOLE],
            Workload::ImageTouched | Workload::ImageDeep if on_devices => &[DEVICE],
            Workload::Deep => &[CHECKSUM, CHECKSUM_TUNED],
            Workload::Appended => &[PLAIN, TUNED, INPLACE, INPLACE_TUNED],
            Workload::Image => &[SPARSE, PLAIN],
            Workload::ImageChanged => &[INPLACE, WHOLE],
            Workload::ImageTouched | Workload::ImageDeep => &[CHECKSUM],
            Workload::FirstCopy | Workload::Unchanged | Workload::Changed | Workload::Inserted => &[PLAIN, TUNED],
        }
    }
}

/// Both daemons; they end with the run.
pub struct Rsync {
    plain: Child,
    tuned: Child,
}

impl Rsync {
    pub fn start(site: &Site) -> Result<Self> {
        Ok(Self { plain: daemon(site, PORT, "")?, tuned: daemon(site, PORT_TUNED, "socket options = TCP_NODELAY\n")? })
    }

    /// Deletes all replicas of that name.
    pub fn forget(&self, site: &Site, replica: &str) -> Result<()> {
        for variants in fs::read_dir(site.rsync_replicas())? {
            let replica = variants?.path().join(replica);
            if replica.exists() {
                site.forget(&replica)?;
            }
        }
        Ok(())
    }

    /// Directory of a variant's replica of that name.
    pub fn replica(&self, site: &Site, variant: &Variant, replica: &str) -> PathBuf {
        site.rsync_replicas().join(variant.replica).join(replica)
    }

    /// Copies `source` to a replica of that name.
    pub fn copy(&self, site: &Site, variant: &Variant, source: &Path, replica: &str) -> Result<Cost> {
        let (daemon, port) = if variant.is_tuned { (&self.tuned, PORT_TUNED) } else { (&self.plain, PORT) };
        let destination = self.replica(site, variant, replica);
        site.make_room(&destination)?;
        let mut rsync = site.network.command("rsync");
        rsync.args(["-aHAX", "--numeric-ids", "--delete"]).args(variant.arguments);
        if variant.is_tuned {
            rsync.arg("--sockopts=TCP_NODELAY");
        }
        rsync.arg(format!("{}/", source.display()));
        let address = site.network.address(Place::Sink);
        rsync.arg(format!("rsync://{address}:{port}/rival/{}/{replica}/", variant.replica));
        let (cost, ()) = measure(&site.network, &[daemon.id()], &site.written(&destination), |sampler| {
            let mut client = rsync.spawn().context("start rsync")?;
            sampler.watch(client.id());
            let status = client.wait()?;
            ensure!(status.success(), "rsync failed: {status}");
            Ok(())
        })?;
        Ok(cost)
    }
}

fn daemon(site: &Site, port: u16, options: &str) -> Result<Child> {
    let config = site.base.join(format!("rsyncd-{port}.conf"));
    let path = site.rsync_replicas();
    let address = site.network.address(Place::Sink);
    // On a WAN there is nobody to ask for names, and the daemon's children would wait for a run that was killed.
    let wan = if site.network.is_wan() { "reverse lookup = no\ntimeout = 600\n" } else { "" };
    // A daemon refuses devices unless it is told otherwise.
    let devices = if site.is_on_devices() { "refuse options = !copy-devices !write-devices\n" } else { "" };
    let text = format!(
        "address = {address}\nport = {port}\nuse chroot = no\nuid = 0\ngid = 0\n{wan}{options}\
         [rival]\npath = {}\nread only = no\n{devices}",
        path.display()
    );
    fs::write(&config, text)?;
    let mut command = site.network.command("rsync");
    command.args(["--daemon", "--no-detach", "--config"]).arg(&config).stdin(Stdio::null());
    let spawn = || command.spawn().context("start the rsync daemon (is rsync installed?)");
    let mut daemon = site.network.at(Place::Sink, spawn)?;
    let start = Instant::now();
    while TcpStream::connect((address, port)).is_err() {
        if start.elapsed() > Duration::from_secs(10) {
            daemon.kill()?;
            bail!("the rsync daemon does not listen at port {port}");
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(daemon)
}

impl Drop for Rsync {
    fn drop(&mut self) {
        for daemon in [&mut self.plain, &mut self.tuned] {
            // It may be gone already; there is nothing else to do about it.
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

/// `cmp` as a judge of one file.
pub fn same_content(source: &Path, replica: &Path) -> Result<()> {
    let output = Command::new("cmp").args([source, replica]).output().context("start cmp as judge")?;
    ensure!(output.status.success(), "the replica differs: {}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

/// rsync as a judge of somebody else's copy: what it would still change, nothing when the copy is faithful.
pub fn differences(source: &Path, replica: &Path) -> Result<String> {
    let output = Command::new("rsync")
        .args(["-aHAXni", "--numeric-ids", "--checksum", "--delete"])
        .arg(format!("{}/", source.display()))
        .arg(format!("{}/", replica.display()))
        .output()
        .context("start rsync as judge")?;
    ensure!(output.status.success(), "the judge failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
