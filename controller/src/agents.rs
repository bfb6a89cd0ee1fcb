//! Connections to agents: mutual TLS over TCP, or plain over the agent's own Unix socket.

use std::{io, path::PathBuf, time::Duration};

use drover_proto::v1::{node_client::NodeClient, replication_client::ReplicationClient, sync_client::SyncClient};
use drover_report::{Exit, causes};
use futures_util::future::join_all;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::config::{AgentConfig, Config, TlsConfig, Transport};

/// Long enough for a slow link, short enough for an operator who waits for `status`.
const CONNECT_SECONDS: u64 = 5;
/// A call that starts or asks something; a stream has no deadline once its first answer came.
const CALL_SECONDS: u64 = 30;
/// How soon a cut link is noticed while a job is watched.
const KEEP_ALIVE_SECONDS: u64 = 10;
/// A report lists at most a few hundred paths, each at most 128 KiB.
const ANSWER_BYTES_MAX: usize = 64 << 20;

#[derive(Debug, thiserror::Error)]
pub(crate) enum AgentError {
    #[error("can't read {what} {}: {source}", path.display())]
    Credentials { what: &'static str, path: PathBuf, source: io::Error },
    #[error("agent {agent}: address {address} or the certificates for it can't be used: {}", causes(source))]
    Address { agent: String, address: String, source: tonic::transport::Error },
    #[error("agent {agent} at {address} can't be reached: {}", causes(source))]
    Unreachable { agent: String, address: String, source: tonic::transport::Error },
}

impl AgentError {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Credentials { .. } | Self::Address { .. } => Exit::Usage,
            Self::Unreachable { .. } => Exit::Unreachable,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Agent {
    pub name: String,
    channel: Channel,
}

impl Agent {
    pub(crate) fn sync(&self) -> SyncClient<Channel> {
        SyncClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub(crate) fn replication(&self) -> ReplicationClient<Channel> {
        ReplicationClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub(crate) fn node(&self) -> NodeClient<Channel> {
        NodeClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }
}

/// Those that answer and those that don't.
#[derive(Debug)]
pub(crate) struct Connected {
    pub agents: Vec<Agent>,
    pub unreachable: Vec<(String, AgentError)>,
}

/// Connects to all at once. Errors of our own files end it; an agent that doesn't answer is only noted.
pub(crate) async fn connect(config: &Config) -> Result<Connected, AgentError> {
    let tls = config.tls.as_ref().map(load).transpose()?;
    let attempts = config.agents.iter().map(|agent| dial(agent, tls.clone()));
    let mut connected = Connected { agents: Vec::new(), unreachable: Vec::new() };
    for (agent, attempt) in config.agents.iter().zip(join_all(attempts).await) {
        match attempt {
            Ok(channel) => connected.agents.push(Agent { name: agent.name.clone(), channel }),
            Err(error @ AgentError::Unreachable { .. }) => connected.unreachable.push((agent.name.clone(), error)),
            Err(error) => return Err(error),
        }
    }
    Ok(connected)
}

fn load(files: &TlsConfig) -> Result<ClientTlsConfig, AgentError> {
    let read = |what, path: &PathBuf| {
        std::fs::read(path).map_err(|source| AgentError::Credentials { what, path: path.clone(), source })
    };
    let ca = read("the CA certificate", &files.ca)?;
    let certificate = read("our certificate", &files.certificate)?;
    let key = read("our private key", &files.key)?;
    Ok(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)).identity(Identity::from_pem(certificate, key)))
}

async fn dial(agent: &AgentConfig, tls: Option<ClientTlsConfig>) -> Result<Channel, AgentError> {
    let bad = |source| AgentError::Address { agent: agent.name.clone(), address: agent.address.clone(), source };
    let mut endpoint = Endpoint::from_shared(agent.address.clone())
        .map_err(bad)?
        .connect_timeout(Duration::from_secs(CONNECT_SECONDS))
        .timeout(Duration::from_secs(CALL_SECONDS))
        .http2_keep_alive_interval(Duration::from_secs(KEEP_ALIVE_SECONDS))
        .keep_alive_timeout(Duration::from_secs(KEEP_ALIVE_SECONDS));
    if let (Some(Transport::Tls), Some(tls)) = (agent.transport(), tls) {
        // Without its own deadline a handshake waits for ever for a host that took the connection and died.
        let tls = tls.domain_name(agent.server_name()).timeout(Duration::from_secs(CONNECT_SECONDS));
        endpoint = endpoint.tls_config(tls).map_err(bad)?;
    }
    endpoint.connect().await.map_err(|source| AgentError::Unreachable {
        agent: agent.name.clone(),
        address: agent.address.clone(),
        source,
    })
}
