//! Mirroring of a pool: its mode, the name of this site, and who its peers are. Each verb is safe to repeat.

use serde::{Deserialize, Serialize};

use crate::{
    crew::{CallError, Crew},
    request::{Reply, Request, Schedule},
};

/// A pool, or a namespace of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolPlace {
    pub pool: String,
    /// Empty: the default one.
    pub namespace: String,
}

impl std::fmt::Display for PoolPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { pool, namespace } = self;
        if namespace.is_empty() { f.write_str(pool) } else { write!(f, "{pool}/{namespace}") }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PoolMode {
    Disabled,
    /// Images are mirrored one by one.
    Image,
    /// All images with a journal are.
    Pool,
    /// Of a later release.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Traffic {
    Receive,
    Send,
    Both,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerView {
    pub uuid: String,
    pub site_name: String,
    pub traffic: Option<Traffic>,
    /// Of the other pool; empty before its daemon has called for the first time.
    pub mirror_uuid: String,
}

/// An rbd-mirror process that the mgr knows of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonView {
    pub id: String,
    pub hostname: String,
    pub version: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolView {
    pub mode: PoolMode,
    /// `None` where it has no name, or the user may not read it.
    pub site_name: Option<String>,
    /// Empty where mirroring was never enabled.
    pub mirror_uuid: String,
    pub peers: Vec<PeerView>,
    pub daemons: Vec<DaemonView>,
    /// Of all namespaces, where the place is the default one.
    pub mirrored_images: usize,
    /// Of the mgr, that reach every image of the pool.
    pub schedules: Vec<Schedule>,
    /// Why daemons and schedules are not known.
    pub mgr_problem: Option<String>,
}

/// A bootstrap token. Neither `Debug` nor an error shows it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(pub String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(
        "pool {0} mirrors all of its images by their journals (mode pool), and Drover's are mirrored one by one by snapshots"
    )]
    ModePool(PoolPlace),
    #[error("this site is called {known:?} already; its peers know it by that name")]
    SiteName { known: String },
    #[error("mirroring of pool {0} is disabled: enable it first")]
    Disabled(PoolPlace),
    #[error("{images} images of pool {place} are mirrored: end that first")]
    Mirrored { place: PoolPlace, images: usize },
    #[error("pool {place} has {peers} peers: remove them first")]
    Peers { place: PoolPlace, peers: usize },
    #[error("peers belong to the whole pool: leave out namespace {0}")]
    NoPeersOfNamespace(String),
    #[error("a worker's answer is not that of its question")]
    Confused,
}

/// Of a cluster. Looks need the user for daily work, changes the one for set-up.
#[derive(Clone, Copy, Debug)]
pub struct Pool<'a> {
    pub crew: &'a Crew,
    pub setup: &'a Crew,
    pub place: &'a PoolPlace,
}

impl Pool<'_> {
    pub fn look(&self) -> Result<PoolView, PoolError> {
        match self.crew.call(&Request::LookAtPool(self.place.clone()))? {
            Reply::Pool(view) => Ok(*view),
            _ => Err(PoolError::Confused),
        }
    }

    fn change(&self, request: &Request) -> Result<(), PoolError> {
        Ok(self.setup.call(request).map(drop)?)
    }

    /// `site_name`: what peers call this site from now on, if it has no name yet.
    pub fn enable(&self, site_name: Option<&str>) -> Result<(), PoolError> {
        let view = self.look()?;
        if view.mode == PoolMode::Pool {
            return Err(PoolError::ModePool(self.place.clone()));
        }
        match (site_name, view.site_name) {
            (Some(wanted), Some(known)) if wanted != known => return Err(PoolError::SiteName { known }),
            (Some(wanted), None) => self.change(&Request::SetSiteName(wanted.to_owned()))?,
            _ => {}
        }
        if view.mode != PoolMode::Image {
            self.change(&Request::SetPoolMode { place: self.place.clone(), is_enabled: true })?;
        }
        Ok(())
    }

    pub fn disable(&self) -> Result<(), PoolError> {
        let view = self.look()?;
        if view.mode == PoolMode::Disabled {
            return Ok(());
        }
        self.unused(&view)?;
        if !view.peers.is_empty() && self.place.namespace.is_empty() {
            return Err(PoolError::Peers { place: self.place.clone(), peers: view.peers.len() });
        }
        self.change(&Request::SetPoolMode { place: self.place.clone(), is_enabled: false })
    }

    fn unused(&self, view: &PoolView) -> Result<(), PoolError> {
        match view.mirrored_images {
            0 => Ok(()),
            images => Err(PoolError::Mirrored { place: self.place.clone(), images }),
        }
    }

    fn with_peers(&self) -> Result<PoolView, PoolError> {
        if !self.place.namespace.is_empty() {
            return Err(PoolError::NoPeersOfNamespace(self.place.namespace.clone()));
        }
        self.look()
    }

    fn enabled(&self) -> Result<(), PoolError> {
        match self.with_peers()?.mode {
            PoolMode::Disabled => Err(PoolError::Disabled(self.place.clone())),
            PoolMode::Image | PoolMode::Pool | PoolMode::Unknown => Ok(()),
        }
    }

    pub fn create_token(&self) -> Result<Token, PoolError> {
        self.enabled()?;
        match self.setup.call(&Request::CreatePeerToken(self.place.clone()))? {
            Reply::Token(token) => Ok(token),
            _ => Err(PoolError::Confused),
        }
    }

    pub fn import_token(&self, token: Token, is_both: bool) -> Result<(), PoolError> {
        self.enabled()?;
        self.change(&Request::ImportPeerToken { place: self.place.clone(), token, is_both })
    }

    pub fn remove_peer(&self, uuid: &str) -> Result<(), PoolError> {
        let view = self.with_peers()?;
        if !view.peers.iter().any(|peer| peer.uuid == uuid) {
            return Ok(());
        }
        self.unused(&view)?;
        self.change(&Request::RemovePeer { place: self.place.clone(), uuid: uuid.to_owned() })
    }
}

impl PoolView {
    /// Each reason why images of the pool would not be mirrored.
    pub fn troubles(&self) -> Vec<String> {
        let mut because = Vec::new();
        match self.mode {
            PoolMode::Image => {}
            PoolMode::Disabled => because.push("mirroring is disabled".to_owned()),
            PoolMode::Pool => because.push("it mirrors all images by their journals (mode pool)".to_owned()),
            PoolMode::Unknown => because.push("its mode is none that this release knows".to_owned()),
        }
        if let Some(problem) = &self.mgr_problem {
            because.push(format!("the mgr can't be asked whether rbd-mirror runs: {problem}"));
        } else if self.daemons.is_empty() {
            because.push("no rbd-mirror runs at this site, as far as the mgr has heard".to_owned());
        }
        if self.peers.is_empty() {
            because.push("it has no peer".to_owned());
        }
        for peer in &self.peers {
            if peer.traffic == Some(Traffic::Receive) {
                because.push(format!("{} receives nothing from this site: it can't be failed back to", peer.site_name));
            }
            if peer.mirror_uuid.is_empty() {
                because.push(format!("the daemon of {} has not called yet", peer.site_name));
            }
        }
        because
    }
}
