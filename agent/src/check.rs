//! `drover-agent check`: what the agent understands, and what on this host does not fit.

use std::{
    fmt::Write as _,
    fs,
    net::{TcpStream, ToSocketAddrs as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use drover_engine::beside::RootKind;
use drover_linux::Dir;
use drover_nfs::{ServerConfig, read_table};
use drover_report::{Exit, causes};
use tonic::transport::Server;
use x509_parser::pem::Pem;

use crate::{
    config::{Config, RootConfig, TlsFiles},
    rpc::node::filesystem_name,
    tls::{Credentials, subject_alternative_names},
};

/// What was found: the agent could not start with an error, with a warning it can.
#[derive(Debug, Default)]
struct Findings {
    text: String,
    errors: u32,
    warnings: u32,
}

impl Findings {
    fn line(&mut self, line: impl AsRef<str>) {
        let _ = writeln!(self.text, "{}", line.as_ref());
    }

    fn error(&mut self, text: impl AsRef<str>) {
        self.errors += 1;
        self.line(format!("  ERROR    {}", text.as_ref()));
    }

    fn warning(&mut self, text: impl AsRef<str>) {
        self.warnings += 1;
        self.line(format!("  WARNING  {}", text.as_ref()));
    }
}

pub fn run(path: &Path) -> anyhow::Result<ExitCode> {
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("error: {}", causes(&error));
            return Ok(Exit::Usage.into());
        }
    };
    let found = check(&config);
    print!("{}", found.text);
    println!("{} errors, {} warnings", found.errors, found.warnings);
    Ok(if found.errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn check(config: &Config) -> Findings {
    let mut found = Findings::default();
    agent(config, &mut found);
    certificates(&config.tls, &mut found);
    roles(config, &mut found);
    found.line(format!("roots: {}", config.roots.len()));
    config.roots.iter().for_each(|it| root(it, &mut found));
    nfs(config, &mut found);
    ceph(config, &mut found);
    peers(config, &mut found);
    limits(config, &mut found);
    found
}

/// What the NFS server says, so that a fence finds it later.
fn nfs(config: &Config, found: &mut Findings) {
    let Some(nfs) = &config.nfs else {
        return found.line("NFS server: none configured, so no clients can be shut out");
    };
    let (server, probe) = (nfs.server(), &nfs.probe);
    match &server {
        ServerConfig::Kernel(kernel) => {
            found.line(format!(
                "NFS server: the kernel's, {} and {}",
                kernel.exports.display(),
                kernel.exports_d.display()
            ));
            if !kernel.exportfs.exists() {
                found.warning(format!(
                    "{} is not there: install nfs-kernel-server (nfs-utils)",
                    kernel.exportfs.display()
                ));
            }
        }
        ServerConfig::Ganesha(ganesha) => {
            found.line(format!("NFS server: NFS-Ganesha, {}, told by {:?}", ganesha.config.display(), ganesha.reload));
        }
    }
    match read_table(&server) {
        Ok(table) => {
            found.line(format!("  serves {} exports by {}", table.exports.len(), table.source));
            table.gaps.iter().for_each(|gap| found.warning(format!("no fence can be proved: {gap}")));
        }
        Err(error) => found.warning(format!("the NFS server can't be asked: {}", causes(&error))),
    }
    found.line(format!("  probes write to {}:{} (NFSv{})", probe.server, probe.port, probe.version));
    let addresses = (probe.server.as_str(), probe.port).to_socket_addrs();
    let is_there = |address| TcpStream::connect_timeout(&address, Duration::from_secs(2)).is_ok();
    if !addresses.is_ok_and(|mut addresses| addresses.any(is_there)) {
        found.warning(format!(
            "nothing answers at {}:{} ([nfs.probe] server, port): no fence can be proved",
            probe.server, probe.port
        ));
    }
}

fn agent(config: &Config, found: &mut Findings) {
    found.line(format!("agent {} listens on {} (gRPC, mutual TLS)", config.name, config.listen));
    match config.metrics_listen {
        Some(address) => {
            found.line(format!("metrics on http://{address}/metrics"));
            if !address.ip().is_loopback() {
                found.warning("metrics are plain HTTP without authentication: they show volume ids and states");
            }
        }
        None => found.line("metrics: off"),
    }
    found.line(format!("state in {}", config.state_dir.display()));
    match fs::metadata(&config.state_dir) {
        Ok(metadata) if !metadata.is_dir() => found.error("state_dir is not a directory"),
        Ok(metadata) if metadata.permissions().mode() & 0o077 != 0 => {
            found.warning("state_dir can be entered by others than its owner; mode 0700 is right");
        }
        Ok(_) => {}
        Err(_) => found.line("  it is made at the first start"),
    }
    if !rustix::process::geteuid().is_root() {
        found.warning("this is not root: what the agent could do as root was not checked");
    }
    match drover_linux::privileges::missing() {
        Ok(missing) if missing.is_empty() => {}
        Ok(missing) => found.warning(format!("this process lacks {}: faithful copies need them", missing.join(", "))),
        Err(error) => found.warning(format!("capabilities can't be read: {error}")),
    }
}

fn certificates(files: &TlsFiles, found: &mut Findings) {
    found.line("tls:");
    for (what, path) in [("ca", &files.ca), ("certificate", &files.certificate)] {
        match fs::read(path) {
            Ok(pem) => certificate(what, path, &pem, found),
            Err(error) => found.error(format!("{what} {}: {error}", path.display())),
        }
    }
    match fs::metadata(&files.key) {
        Ok(metadata) if metadata.permissions().mode() & 0o077 != 0 => {
            found.warning(format!("key {} can be read by others than its owner", files.key.display()));
        }
        Ok(_) => found.line(format!("  key {}", files.key.display())),
        Err(error) => found.error(format!("key {}: {error}", files.key.display())),
    }
    // As at start; files that can't be read have been told.
    if let Ok(credentials) = Credentials::load(files)
        && let Err(error) = Server::builder().tls_config(credentials.server())
    {
        found.error(format!("certificate and key can't be used together: {}", causes(&error)));
    }
}

fn certificate(what: &str, path: &Path, pem: &[u8], found: &mut Findings) {
    let Some(Ok(block)) = Pem::iter_from_buffer(pem).next() else {
        return found.error(format!("{what} {} holds no PEM block", path.display()));
    };
    let Ok(parsed) = block.parse_x509() else {
        return found.error(format!("{what} {} is no X.509 certificate", path.display()));
    };
    let names = subject_alternative_names(&block.contents);
    let (until, shown) = (parsed.validity().not_after, path.display());
    found.line(format!("  {what} {shown}, valid until {until}{}", list(", names: ", &names)));
    if !parsed.validity().is_valid() {
        found.error(format!("{what} {shown} is not valid now"));
    } else if let Some(left) = parsed.validity().time_to_expiration()
        && left.whole_days() < 30
    {
        found.warning(format!("{what} {shown} expires in {} days", left.whole_days()));
    }
    if what == "certificate" && names.is_empty() {
        found.error("the certificate has no DNS or URI names, so no peer can know this agent");
    }
}

fn list<T: AsRef<str>>(before: &str, items: &[T]) -> String {
    if items.is_empty() {
        return String::new();
    }
    format!("{before}{}", items.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", "))
}

fn roles(config: &Config, found: &mut Findings) {
    found.line("roles:");
    let roles = &config.roles;
    for (role, names) in [("controller", &roles.controller), ("peer", &roles.peer), ("viewer", &roles.viewer)] {
        let names: Vec<_> = names.iter().collect();
        let names = if names.is_empty() { "nobody".to_owned() } else { list("", &names) };
        found.line(format!("  {role}: {names}"));
    }
    if roles.controller.is_empty() {
        found.warning("no certificate has the role controller: only root on this host can start anything");
    }
    if roles.peer.is_empty() && !config.peers.is_empty() {
        found.warning("no certificate has the role peer: peers can't dial this agent");
    }
}

fn root(root: &RootConfig, found: &mut Findings) {
    let path = root.path.display();
    let looked = Dir::open(&root.path).and_then(|dir| Ok((dir.filesystem()?, dir.space()?)));
    let (filesystem, space) = match looked {
        Ok(looked) => looked,
        Err(error) => return found.error(format!("root {}: {path}: {error}", root.name)),
    };
    let is_devices = root.kind == RootKind::Devices;
    let beside = root.beside.clone().unwrap_or_else(|| root.path.join(drover_engine::beside::BESIDE_NAME));
    if is_devices {
        found.line(format!("  {} = block devices beneath {path}", root.name));
        // Or of the directory that it will be made in.
        let there = [Some(beside.as_path()), beside.parent()].into_iter().flatten().find(|dir| dir.exists());
        if let Some(space) = there.and_then(|dir| Dir::open(dir).and_then(|dir| dir.space()).ok()) {
            found.line(format!("  {} MiB free for their journal and history", space.free_bytes >> 20));
        }
    } else {
        let free = space.free_bytes >> 20;
        found.line(format!("  {} = {path} ({}, {free} MiB free)", root.name, filesystem_name(filesystem)));
    }
    if !root.exports.is_empty() {
        found.line(format!("  PersistentVolumes call it {}", root.exports.join(", ")));
    }
    if let Some(snapshot) = &root.snapshot {
        found.line(format!("  snapshots by {}, read at {}", snapshot.create.join(" "), snapshot.path));
        for program in [&snapshot.create, &snapshot.remove].into_iter().filter_map(|command| command.first()) {
            if !std::path::Path::new(program).exists() {
                found.error(format!("snapshot of root {}: {program} does not exist", root.name));
            }
        }
    }
    match (fs::metadata(&root.path), fs::metadata(&beside)) {
        (Ok(of_root), Ok(of_beside)) if !is_devices && of_root.dev() != of_beside.dev() => {
            found.error(format!("{} is on another file system than {path}", beside.display()));
        }
        (_, Ok(_)) => found.line(format!("  state beside the volumes in {}", beside.display())),
        (_, Err(_)) => found.line(format!("  no volume yet: {} is made by the first Enable", beside.display())),
    }
}

fn ceph(config: &Config, found: &mut Findings) {
    found.line(format!("ceph: {}", config.ceph.len()));
    for ceph in &config.ceph {
        let (name, conf) = (&ceph.name, ceph.conf.display());
        found.line(format!("  {name} = {conf} as {}, pools {}", ceph.user, ceph.pools.join(", ")));
        for path in [Some(&ceph.conf), ceph.keyring.as_ref()].into_iter().flatten() {
            if let Err(error) = fs::File::open(path) {
                found.warning(format!("{}: {error}", path.display()));
            }
        }
        if ceph.pools.is_empty() {
            found.warning(format!("{name} names no pools: none of its images can be a volume"));
        }
    }
}

fn peers(config: &Config, found: &mut Findings) {
    found.line(format!("peers: {}", config.peers.len()));
    for peer in &config.peers {
        let name = peer.server_name();
        found.line(format!("  {} = {}, certificate name {name}", peer.name, peer.address));
        if !config.roles.peer.contains(&name) {
            found.warning(format!("{name} has not the role peer: {} can be dialled, but can't dial", peer.name));
        }
    }
}

fn limits(config: &Config, found: &mut Findings) {
    let limits = &config.limits;
    found.line(format!(
        "limits: {} jobs, {} sessions, {} MiB in flight each, {} open files, {}",
        limits.jobs,
        limits.sessions,
        limits.in_flight_mib,
        limits.open_files,
        bandwidth(limits.bandwidth_mib)
    ));
    for slot in limits.timetable.slots() {
        found.line(format!("  {slot} (local time): {}", bandwidth(slot.bandwidth_mib)));
    }
    found.line(match config.scrub.mib_per_second {
        0 => "scrub: off".to_owned(),
        mib => format!("scrub: {mib} MiB/s, each block volume once in {} days", config.scrub.days),
    });
    let defaults = &config.defaults;
    found.line(format!(
        "defaults: {} restore points and all of the last {} hours, refuse to delete more than {} %, {} days in the trash",
        defaults.retain, defaults.retain_hours, defaults.delete_percent_max, defaults.trash_days
    ));
}

fn bandwidth(mib: u64) -> String {
    if mib == 0 { "no bandwidth limit".to_owned() } else { format!("{mib} MiB/s") }
}
