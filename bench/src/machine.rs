//! What a number means nothing without: the machine, the tools, the command line.

use std::{fs, path::Path, process::Command, thread};

use serde::Serialize;

use crate::site::Site;

#[derive(Debug, Serialize)]
pub struct Machine {
    pub processor: String,
    pub cores: usize,
    pub memory_gib: u64,
    pub kernel: String,
    /// Of the directory that everything is copied in.
    pub filesystem: String,
    /// What the images of W4 to W6 are.
    pub images: &'static str,
    pub rsync: String,
    pub command: String,
    /// Bytes on the wire are ours alone only in a network namespace of our own.
    pub has_own_network: bool,
}

impl Machine {
    pub fn describe(site: &Site) -> Self {
        Self {
            processor: field("/proc/cpuinfo", "model name"),
            cores: thread::available_parallelism().map_or(0, usize::from),
            memory_gib: field("/proc/meminfo", "MemTotal").trim_end_matches(" kB").parse::<u64>().unwrap_or(0) >> 20,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            filesystem: filesystem(&site.base),
            images: if site.is_on_devices() { "loop devices" } else { "files" },
            rsync: first_line(Command::new("rsync").arg("--version")),
            command: std::env::args().collect::<Vec<_>>().join(" "),
            has_own_network: fs::read_link("/proc/self/ns/net").ok() != fs::read_link("/proc/1/ns/net").ok(),
        }
    }
}

fn field(file: &str, name: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let value = text.lines().find(|line| line.starts_with(name)).and_then(|line| line.split_once(':'));
    value.map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
}

fn first_line(command: &mut Command) -> String {
    let output = command.output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).lines().next().unwrap_or_default().to_owned()
}

/// Type of the mount that is the longest prefix of `base`.
fn filesystem(base: &Path) -> String {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let of = |line: &str| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?.to_owned(), fields.next()?.to_owned()))
    };
    let mounts = mounts.lines().filter_map(of).filter(|(point, _)| base.starts_with(point));
    mounts.max_by_key(|(point, _)| point.len()).map(|(_, kind)| kind).unwrap_or_default()
}
