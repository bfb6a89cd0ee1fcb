//! Connections to the peers of the configuration.

use std::{collections::BTreeMap, time::Duration};

use drover_engine::error::Kind;
use tonic::transport::{Channel, Endpoint};

use crate::{
    config::{Config, PeerConfig},
    tls::Credentials,
    transfer::{
        CONNECTION_WINDOW_BYTES, HTTP2_FRAME_BYTES, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, STREAM_WINDOW_BYTES,
    },
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    #[error("no peer {name:?} in the configuration; there are: {known}")]
    Unknown { name: String, known: String },
    #[error("peer {name} at {address} does not answer")]
    Unreachable {
        name: String,
        address: String,
        #[source]
        source: tonic::transport::Error,
    },
}

impl PeerError {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Unknown { .. } => Kind::Invalid,
            Self::Unreachable { .. } => Kind::Unavailable,
        }
    }

    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unknown { .. } => "unknown-peer",
            Self::Unreachable { .. } => "peer-unreachable",
        }
    }
}

#[derive(Debug)]
pub struct Peers {
    by_name: BTreeMap<String, PeerConfig>,
    credentials: Credentials,
}

impl Peers {
    pub fn new(config: &Config, credentials: Credentials) -> Self {
        let by_name = config.peers.iter().map(|peer| (peer.name.clone(), peer.clone())).collect();
        Self { by_name, credentials }
    }

    pub fn get(&self, name: &str) -> Result<&PeerConfig, PeerError> {
        self.by_name.get(name).ok_or_else(|| PeerError::Unknown {
            name: name.to_owned(),
            known: self.by_name.keys().map(String::as_str).collect::<Vec<_>>().join(", "),
        })
    }

    pub fn names(&self) -> Vec<String> {
        self.by_name.keys().cloned().collect()
    }

    /// Name in the configuration of the peer that has one of these names in its certificate.
    pub fn name_of(&self, names: &[String]) -> Option<String> {
        self.by_name.values().find(|peer| names.contains(&peer.server_name())).map(|peer| peer.name.clone())
    }

    /// A connection of its own for each session: a cut or a slow one takes no other with it.
    pub async fn connect(&self, name: &str) -> Result<Channel, PeerError> {
        let peer = self.get(name)?;
        let unreachable =
            |source| PeerError::Unreachable { name: name.to_owned(), address: peer.address.clone(), source };
        let endpoint = Endpoint::from_shared(peer.address.clone()).map_err(unreachable)?;
        let endpoint = tuned(endpoint).tls_config(self.credentials.client(peer.server_name())).map_err(unreachable)?;
        endpoint.connect().await.map_err(unreachable)
    }
}

fn tuned(endpoint: Endpoint) -> Endpoint {
    endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(HTTP2_FRAME_BYTES)
}
