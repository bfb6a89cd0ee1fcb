//! Certificates of this agent, and whose certificate a caller showed. TLS is rustls with ring; client certificates are
//! required, and the names in them (DNS and URI SANs) are mapped to roles by the configuration.

use std::{fmt, fs, io, path::PathBuf};

use tonic::transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};
use x509_parser::{extensions::GeneralName, prelude::FromDer as _};

use crate::config::{Config, Roles, TlsFiles};

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// The agent's own PEM files, read once at start.
#[derive(Clone)]
pub struct Credentials {
    ca: Certificate,
    identity: Identity,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

impl Credentials {
    pub fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let read = |path: &PathBuf| fs::read(path).map_err(|source| TlsError::Read { path: path.clone(), source });
        Ok(Self {
            ca: Certificate::from_pem(read(&files.ca)?),
            identity: Identity::from_pem(read(&files.certificate)?, read(&files.key)?),
        })
    }

    pub fn server(&self) -> ServerTlsConfig {
        ServerTlsConfig::new().identity(self.identity.clone()).client_ca_root(self.ca.clone())
    }

    pub fn client(&self, server_name: String) -> ClientTlsConfig {
        ClientTlsConfig::new().identity(self.identity.clone()).ca_certificate(self.ca.clone()).domain_name(server_name)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    Controller,
    Peer,
    Viewer,
}

impl Role {
    pub const ALL: [Self; 3] = [Self::Controller, Self::Peer, Self::Viewer];
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Controller => "controller",
            Self::Peer => "peer",
            Self::Viewer => "viewer",
        })
    }
}

/// Who calls. Travels in the extensions of a request.
#[derive(Clone, Debug)]
pub struct Caller {
    /// DNS and URI names of the certificate, or how the caller came when there is none.
    pub names: Vec<String>,
    pub roles: Vec<Role>,
}

impl Caller {
    /// Over the Unix socket, which only root can open.
    pub fn local() -> Self {
        Self { names: vec!["local-socket".to_owned()], roles: vec![Role::Controller] }
    }

    pub fn from_certificate(der: &[u8], roles: &Roles) -> Self {
        let names = subject_alternative_names(der);
        let of = |role: &Role| match role {
            Role::Controller => &roles.controller,
            Role::Peer => &roles.peer,
            Role::Viewer => &roles.viewer,
        };
        let roles = Role::ALL.into_iter().filter(|role| names.iter().any(|name| of(role).contains(name))).collect();
        Self { names, roles }
    }

    pub fn name(&self) -> String {
        if self.names.is_empty() { "a certificate without DNS or URI names".to_owned() } else { self.names.join(", ") }
    }
}

/// rustls has verified the certificate; what can't be parsed here has no names and so no roles.
pub fn subject_alternative_names(der: &[u8]) -> Vec<String> {
    let Ok((_, certificate)) = x509_parser::certificate::X509Certificate::from_der(der) else {
        return Vec::new();
    };
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) | GeneralName::URI(name) => Some((*name).to_owned()),
        _ => None,
    };
    extension.value.general_names.iter().filter_map(name).collect()
}

impl Config {
    pub fn credentials(&self) -> Result<Credentials, TlsError> {
        Credentials::load(&self.tls)
    }
}
