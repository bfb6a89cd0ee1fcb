//! A development CA with a certificate for each role, as `drover-agent certs init` makes it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use super::agent_binary;
use crate::process;

#[derive(Clone, Debug)]
pub struct Certificates {
    dir: PathBuf,
}

impl Certificates {
    /// For the agents named, a controller and a viewer.
    pub fn init(dir: &Path, agents: &[&str]) -> Self {
        let mut command = Command::new(agent_binary());
        command.args(["certs", "init"]).arg(dir);
        for name in agents {
            command.args(["--name", name]);
        }
        process::run(command, Duration::from_secs(30)).expect("drover-agent certs init");
        Self { dir: dir.to_owned() }
    }

    pub fn ca(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    pub fn certificate(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.pem"))
    }

    pub fn key(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.key"))
    }

    pub fn read(&self, path: &Path) -> Vec<u8> {
        fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}
