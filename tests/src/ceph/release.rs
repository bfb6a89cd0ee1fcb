//! The releases of Ceph that the tests run on: where their programs are, and how they are called.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{process, tree};

/// Directories of the host that hold Debian's daemons and tools.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const PROGRAMS: &[&str] =
    &["ceph", "ceph-authtool", "ceph-mgr", "ceph-mon", "ceph-osd", "monmaptool", "rbd", "rbd-mirror", "setpriv"];

/// For a program that only says its version.
const VERSION: Duration = Duration::from_secs(30);

/// Enters the chroot `$0` with a mount namespace of its own, which is gone with the process. `/dev`, `/proc` and the
/// paths before `--` are seen there under the same names; `/tmp` is a file system of its own, so that the mount points of
/// scratch directories are not left in the chroot.
const ENTER: &str = r#"set -e
mount --rbind /dev "$0/dev"
mount --bind /proc "$0/proc"
mount -t tmpfs tmpfs "$0/tmp"
while [ "$1" != -- ]; do
    mkdir -p "$0$1"
    mount --bind "$1" "$0$1"
    shift
done
shift
exec chroot "$0" "$@"
"#;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// 16.2 of Debian 12, on the host.
    Pacific,
    /// 18.2 of Debian 13, in a chroot that `tests/run` makes.
    Reef,
}

impl Release {
    /// Why clusters of this release can't run here.
    pub fn missing(self) -> Option<String> {
        if self == Self::Reef && !tree::is_root() {
            return Some("a chroot needs root".into());
        }
        let is_there = |name: &str| match self {
            Self::Pacific => process::has(name),
            Self::Reef => root().join("usr/bin").join(name).exists(),
        };
        let missing: Vec<&str> = PROGRAMS.iter().copied().filter(|name| !is_there(name)).collect();
        if !missing.is_empty() {
            return Some(format!("Ceph {} (tests/run installs it) lacks {}", self.number(), missing.join(" ")));
        }
        let mut command = self.command("ceph-mon", &[]);
        command.arg("--version");
        match process::try_run(command, VERSION) {
            Ok(done) if done.stdout.starts_with(&format!("ceph version {}.", self.number())) => None,
            Ok(done) => Some(format!("not Ceph {}: {}{}", self.number(), done.stdout.trim(), done.stderr.trim())),
            Err(error) => Some(format!("ceph-mon: {error}")),
        }
    }

    /// A program of this release. It sees the directories `visible` under their own names, and the kernel kills it when
    /// the thread ends that starts it.
    pub fn command(self, program: impl AsRef<OsStr>, visible: &[&Path]) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).env("PATH", PATH);
        if self == Self::Reef {
            command.args(["unshare", "--mount", "sh", "-c", ENTER]).arg(root()).args(visible).arg("--");
        }
        command.arg(program);
        command
    }

    /// As Ceph counts: also the lowest release whose features the monitors may use.
    pub fn number(self) -> &'static str {
        match self {
            Self::Pacific => "16",
            Self::Reef => "18",
        }
    }
}

/// Of the chroot.
fn root() -> PathBuf {
    let tools = env::var_os("DROVER_TOOLS").map_or_else(
        || PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cache/drover-tools"),
        PathBuf::from,
    );
    tools.join("ceph-reef")
}
