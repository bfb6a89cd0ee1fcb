//! The first judge: what rsync would still have to do.

use std::{path::Path, process::Command, time::Duration};

use crate::{process, tree::DEEP};

const DEADLINE: Duration = Duration::from_secs(300);

/// Lines that rsync prints and its complaints: none when the trees are the same. Paths longer than `PATH_MAX` are left
/// to the other judge, because rsync can't follow them.
pub fn rsync_differences(source: &Path, replica: &Path) -> Vec<String> {
    let mut command = Command::new("rsync");
    command.args(["-aHAXni", "--checksum", "--delete"]).arg(format!("--exclude=/{DEEP}"));
    command.arg(slashed(source)).arg(slashed(replica)).env("LC_ALL", "C");
    let done = process::run(command, DEADLINE);
    let mut lines: Vec<String> = done.stdout.lines().map(|line| format!("rsync: {line}")).collect();
    lines.extend(done.stderr.lines().map(|line| format!("rsync complains: {line}")));
    if !done.status.success() {
        lines.push(format!("rsync: {}", done.status));
    }
    lines
}

/// With a slash at its end rsync means what is in the directory.
fn slashed(path: &Path) -> std::ffi::OsString {
    let mut path = path.as_os_str().to_owned();
    path.push("/");
    path
}
