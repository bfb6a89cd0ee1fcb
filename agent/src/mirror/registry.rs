//! Which images of a pool are volumes: keys of one omap object in the pool.

use std::num::NonZeroU64;

use drover_engine::id::VolumeId;
use drover_rbd::{
    crew::{CallError, Crew},
    request::{Reply, Request},
    view::ImagePlace,
};
use serde::{Deserialize, Serialize};

use super::Mirrored;

const OBJECT: &str = "drover.volumes";

/// Of one pool, or of a namespace of one.
#[derive(Debug)]
pub(super) struct Registry {
    pool: String,
    namespace: String,
}

/// The value of a volume's key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) image: String,
    pub(super) peer: Option<String>,
    #[serde(default)]
    pub(super) group: Option<String>,
    #[serde(default)]
    pub(super) point_every_secs: Option<NonZeroU64>,
    #[serde(default)]
    pub(super) is_delta: bool,
}

impl Record {
    pub(super) fn of(mirrored: &Mirrored) -> Self {
        let Mirrored { place, peer, group, point_every_secs, is_delta, .. } = mirrored.clone();
        Self { image: place.image, peer, group, point_every_secs, is_delta }
    }

    pub(super) fn mirrored(self, id: VolumeId, cluster: &str, registry: &Registry) -> Mirrored {
        let Self { image, peer, group, point_every_secs, is_delta } = self;
        let (pool, namespace) = (registry.pool.clone(), registry.namespace.clone());
        let (cluster, place) = (cluster.to_owned(), ImagePlace { pool, namespace, image });
        Mirrored { id, cluster, place, peer, group, point_every_secs, is_delta }
    }
}

impl Registry {
    /// `POOL` or `POOL/NAMESPACE`.
    pub(super) fn of(configured: &str) -> Self {
        let (pool, namespace) = configured.split_once('/').unwrap_or((configured, ""));
        Self { pool: pool.to_owned(), namespace: namespace.to_owned() }
    }

    /// And its namespace.
    pub(super) fn pool(&self) -> (&str, &str) {
        (&self.pool, &self.namespace)
    }

    pub(super) fn has(&self, place: &ImagePlace) -> bool {
        (&self.pool, &self.namespace) == (&place.pool, &place.namespace)
    }

    pub(super) fn all(&self, crew: &Crew) -> Result<Vec<(VolumeId, Record)>, CallError> {
        let (pool, namespace) = (self.pool.clone(), self.namespace.clone());
        let read = crew.call(&Request::ReadRecord { pool, namespace, object: OBJECT.to_owned() })?;
        let Reply::Record(record) = read else { return Ok(Vec::new()) };
        let known = |(key, value): (String, String)| match (key.parse(), serde_json::from_str(&value)) {
            (Ok(id), Ok(record)) => Some((id, record)),
            _ => {
                tracing::warn!(pool = self.pool, key, "a record of a volume is not understood: left as it is");
                None
            }
        };
        Ok(record.into_iter().filter_map(known).collect())
    }

    /// As volumes of `cluster`.
    pub(super) fn mirrored(&self, crew: &Crew, cluster: &str) -> Result<Vec<Mirrored>, CallError> {
        Ok(self.all(crew)?.into_iter().map(|(id, record)| record.mirrored(id, cluster, self)).collect())
    }

    pub(super) fn find(&self, crew: &Crew, id: VolumeId) -> Result<Option<Record>, CallError> {
        Ok(self.all(crew)?.into_iter().find(|(known, _)| *known == id).map(|(_, record)| record))
    }

    pub(super) fn write(&self, crew: &Crew, id: VolumeId, record: Option<&Record>) -> Result<(), CallError> {
        let value = record.map(|record| serde_json::to_string(record).expect("a record is JSON"));
        crew.call(&Request::WriteRecord {
            pool: self.pool.clone(),
            namespace: self.namespace.clone(),
            object: OBJECT.to_owned(),
            key: id.to_string(),
            value,
        })
        .map(drop)
    }
}
