//! The NFS server of the host.

use drover_nfs::{GaneshaConfig, KernelConfig, ProbeConfig, ServerConfig};
use serde::Deserialize;

use super::{ConfigError, absolute};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    Kernel,
    Ganesha,
}

/// What an agent does about a copy of its own that is primary elsewhere since (R8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnSuperseded {
    /// Its exports become read-only.
    #[default]
    Fence,
    /// It is no source any more, and that is all.
    Warn,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NfsConfig {
    server: Kind,
    #[serde(default)]
    pub on_superseded: OnSuperseded,
    #[serde(default)]
    pub probe: ProbeConfig,
    kernel: Option<KernelConfig>,
    ganesha: Option<GaneshaConfig>,
}

impl NfsConfig {
    pub fn server(&self) -> ServerConfig {
        match self.server {
            Kind::Kernel => ServerConfig::Kernel(self.kernel.clone().unwrap_or_default()),
            Kind::Ganesha => ServerConfig::Ganesha(self.ganesha.clone().unwrap_or_default()),
        }
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let wrong = |problem: &str| Err(ConfigError::Nfs(problem.to_owned()));
        match (self.server, &self.kernel, &self.ganesha) {
            (Kind::Kernel, _, Some(_)) => return wrong("server is \"kernel\" and there is a section nfs.ganesha"),
            (Kind::Ganesha, Some(_), _) => return wrong("server is \"ganesha\" and there is a section nfs.kernel"),
            _ => {}
        }
        if !matches!(self.probe.version, 3 | 4) {
            return wrong("probe.version is 3 or 4");
        }
        if !(1..=60).contains(&self.probe.timeout_secs) {
            return wrong("probe.timeout_secs is 1 to 60");
        }
        if self.probe.server.is_empty() || self.probe.port == 0 {
            return wrong("probe.server and probe.port say where this host's NFS server answers");
        }
        let paths = match self.server() {
            ServerConfig::Kernel(it) => vec![it.exportfs, it.exports, it.exports_d, it.etab, it.kernel_table],
            ServerConfig::Ganesha(it) => vec![it.config, it.pid_file],
        };
        paths.iter().try_for_each(|path| absolute("nfs path", path))
    }
}
