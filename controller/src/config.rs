//! Where the agents are and who we are: `drover.toml`, flags and environment variables. A flag wins over its
//! environment variable, which wins over the file.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::Deserialize;

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    #[serde(default)]
    pub agents: Vec<AgentConfig>,
    pub tls: Option<TlsConfig>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AgentConfig {
    pub name: String,
    /// `https://HOST:PORT`, or `unix:///…/drover.sock` on the agent's own host.
    pub address: String,
    /// DNS name that the agent's certificate must have; `NAME.drover` by default.
    pub server_name: Option<String>,
}

/// PEM files.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TlsConfig {
    pub ca: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("can't read configuration {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("configuration {} is wrong:\n{}", path.display(), source.to_string().trim_end())]
    Parse { path: PathBuf, source: toml::de::Error },
    #[error("two agents are called {0}; each needs a name of its own")]
    SameName(String),
    #[error("no agent is configured: write them to drover.toml, or name one with --agent NAME=https://HOST:PORT")]
    NoAgents,
    #[error("no agent is called {name}; configured are {known}. Use --agent NAME=URL for one that is not configured")]
    UnknownAgent { name: String, known: String },
    #[error("--ca, --cert and --key belong together: {0} is missing")]
    HalfTls(&'static str),
    #[error("agent {agent}: address {address} needs TLS: give --ca, --cert and --key, or [tls] in drover.toml")]
    NoTls { agent: String, address: String },
    #[error("agent {agent}: address {address} must begin with https:// or unix:// (plain http:// only to loopback)")]
    Address { agent: String, address: String },
}

/// Of `--agent`: an agent of the configuration, or one that is given in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AgentChoice {
    Named(String),
    Given { name: String, address: String },
}

impl FromStr for AgentChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            _ if text.is_empty() || text.starts_with('=') => Err("an agent has a name: NAME or NAME=URL".to_owned()),
            None if text.contains("://") => Err(format!("give the agent a name: --agent NAME={text}")),
            None => Ok(Self::Named(text.to_owned())),
            Some((name, address)) => Ok(Self::Given { name: name.to_owned(), address: address.to_owned() }),
        }
    }
}

/// What flags and environment say.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Connect {
    /// Agents and TLS files [default: drover.toml here, else /etc/drover/drover.toml]
    #[arg(long, value_name = "FILE", env = "DROVER_CONFIG", global = true, help_heading = "Connection")]
    pub config: Option<PathBuf>,
    /// Only this agent: a name of the configuration, or NAME=URL for one that is not in it; can be repeated
    #[arg(
        long = "agent",
        value_name = "NAME[=URL]",
        env = "DROVER_AGENT",
        value_delimiter = ',',
        global = true,
        help_heading = "Connection"
    )]
    pub agents: Vec<AgentChoice>,
    /// CA certificates that the agents' certificates must come from (PEM)
    #[arg(long, value_name = "FILE", env = "DROVER_CA", global = true, help_heading = "Connection")]
    pub ca: Option<PathBuf>,
    /// Our certificate (PEM)
    #[arg(long, value_name = "FILE", env = "DROVER_CERT", global = true, help_heading = "Connection")]
    pub cert: Option<PathBuf>,
    /// Our private key (PEM)
    #[arg(long, value_name = "FILE", env = "DROVER_KEY", global = true, help_heading = "Connection")]
    pub key: Option<PathBuf>,
}

impl Connect {
    const PLACES: [&str; 2] = ["drover.toml", "/etc/drover/drover.toml"];

    /// The agents to talk to, and how.
    pub(crate) fn resolve(&self) -> Result<Config, ConfigError> {
        let mut config = match self.file() {
            Some(path) => Config::load(&path)?,
            None => Config::default(),
        };
        if let Some(tls) = self.tls()? {
            config.tls = Some(tls);
        }
        if !self.agents.is_empty() {
            config.agents = self.agents.iter().map(|choice| config.choose(choice)).collect::<Result<_, _>>()?;
        }
        config.check()?;
        Ok(config)
    }

    fn file(&self) -> Option<PathBuf> {
        let default = || Self::PLACES.iter().map(PathBuf::from).find(|path| path.exists());
        self.config.clone().or_else(default)
    }

    fn tls(&self) -> Result<Option<TlsConfig>, ConfigError> {
        match (&self.ca, &self.cert, &self.key) {
            (None, None, None) => Ok(None),
            (Some(ca), Some(cert), Some(key)) => {
                Ok(Some(TlsConfig { ca: ca.clone(), certificate: cert.clone(), key: key.clone() }))
            }
            (None, _, _) => Err(ConfigError::HalfTls("--ca")),
            (_, None, _) => Err(ConfigError::HalfTls("--cert")),
            (_, _, None) => Err(ConfigError::HalfTls("--key")),
        }
    }
}

impl Config {
    fn load(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let mut config: Self =
            toml::from_str(&text).map_err(|source| ConfigError::Parse { path: path.to_owned(), source })?;
        // Files are named as seen from the configuration, wherever drover is started.
        if let (Some(tls), Some(place)) = (&mut config.tls, path.parent()) {
            for file in [&mut tls.ca, &mut tls.certificate, &mut tls.key] {
                *file = place.join(&*file);
            }
        }
        Ok(config)
    }

    fn choose(&self, choice: &AgentChoice) -> Result<AgentConfig, ConfigError> {
        match choice {
            AgentChoice::Given { name, address } => {
                Ok(AgentConfig { name: name.clone(), address: address.clone(), server_name: None })
            }
            AgentChoice::Named(name) => {
                self.agents.iter().find(|agent| agent.name == *name).cloned().ok_or_else(|| {
                    let known: Vec<&str> = self.agents.iter().map(|agent| agent.name.as_str()).collect();
                    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                    ConfigError::UnknownAgent { name: name.clone(), known }
                })
            }
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.agents.is_empty() {
            return Err(ConfigError::NoAgents);
        }
        let mut names = BTreeSet::new();
        for agent in &self.agents {
            if !names.insert(&agent.name) {
                return Err(ConfigError::SameName(agent.name.clone()));
            }
            self.check_address(agent)?;
        }
        Ok(())
    }

    fn check_address(&self, agent: &AgentConfig) -> Result<(), ConfigError> {
        let (name, address) = (agent.name.clone(), agent.address.clone());
        match agent.transport() {
            Some(Transport::Tls) if self.tls.is_none() => Err(ConfigError::NoTls { agent: name, address }),
            Some(Transport::Tls | Transport::Plain) => Ok(()),
            None => Err(ConfigError::Address { agent: name, address }),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Tls,
    /// Never leaves this host.
    Plain,
}

impl AgentConfig {
    pub(crate) fn server_name(&self) -> String {
        self.server_name.clone().unwrap_or_else(|| format!("{}.drover", self.name))
    }

    pub(crate) fn transport(&self) -> Option<Transport> {
        let address = self.address.as_str();
        if address.starts_with("https://") {
            return Some(Transport::Tls);
        }
        let loopback = ["http://127.0.0.1:", "http://[::1]:", "http://localhost:"];
        let local = address.starts_with("unix:") || loopback.iter().any(|prefix| address.starts_with(prefix));
        local.then_some(Transport::Plain)
    }
}

#[cfg(test)]
mod tests;
