//! Two agents tell each other what has changed in a volume's records since they did so last. The one that dialled the sync asks and tells; it
//! remembers how far they are. Both may do it at the same time, and again: what is no news changes nothing.

use std::sync::Arc;

use drover_engine::id::VolumeId;
use drover_proto::v1::{ChangedSnapshotsRequest, MergeSnapshotsRequest, snapshots_client::SnapshotsClient};
use tonic::{Code, Status, transport::Channel};

use super::{Catalogue, CatalogueError, Watermark};
use crate::{
    job::unix_now,
    rpc::snapshots::{entry_of, told},
    work::{Lane, Lanes, Panicked},
};

#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    #[error("{}", .0.message())]
    Peer(Status),
    #[error("the peer told a record that is none: {0}")]
    Malformed(String),
    #[error(transparent)]
    Panicked(#[from] Panicked),
}

impl From<Status> for ExchangeError {
    fn from(status: Status) -> Self {
        Self::Peer(status)
    }
}

pub struct Exchange<'a> {
    pub catalogue: &'a Arc<Catalogue>,
    pub lanes: &'a Lanes,
    pub peer: &'a str,
    pub volume: VolumeId,
}

pub fn unix_millis() -> i64 {
    unix_now().saturating_mul(1000)
}

impl Exchange<'_> {
    async fn with<T: Send + 'static>(
        &self,
        what: impl FnOnce(&Catalogue) -> Result<T, CatalogueError> + Send + 'static,
    ) -> Result<T, ExchangeError> {
        let catalogue = Arc::clone(self.catalogue);
        Ok(self.lanes.run(Lane::Calls, move || what(&catalogue)).await??)
    }

    /// An exchange that is cut off goes on from here.
    async fn remember(&self, mark: &Watermark) -> Result<(), ExchangeError> {
        let (peer, volume, mark) = (self.peer.to_owned(), self.volume, mark.clone());
        self.with(move |catalogue| catalogue.set_watermark(&peer, volume, &mark)).await
    }

    /// Returns how many records were news, here and there. An agent without a catalogue has none.
    pub async fn run(&self, channel: Channel) -> Result<(u64, u64), ExchangeError> {
        let mut client = SnapshotsClient::new(channel);
        let (volume, peer) = (self.volume, self.peer.to_owned());
        let mut mark = self.with(move |catalogue| catalogue.watermark(&peer, volume)).await?;
        let (mut here, mut there) = (0, 0);
        loop {
            let request = ChangedSnapshotsRequest { volume_id: volume.to_string(), since: mark.pulled };
            let changes = match client.changes(request).await {
                Err(status) if status.code() == Code::Unimplemented => return Ok((0, 0)),
                changes => changes?.into_inner(),
            };
            if changes.incarnation != mark.incarnation || changes.last < mark.pulled {
                // Another life of the peer's catalogue, or the first; or it went back to a backup.
                let is_new = mark.pulled == 0;
                mark = Watermark { incarnation: changes.incarnation, ..Watermark::default() };
                if !is_new {
                    continue;
                }
            }
            let entries = changes.snapshots.into_iter().map(entry_of).collect::<Result<Vec<_>, _>>();
            let entries = entries.map_err(|error| ExchangeError::Malformed(error.to_string()))?;
            if entries.iter().any(|entry| entry.record.volume != volume) {
                return Err(ExchangeError::Malformed("it is of another volume".to_owned()));
            }
            here += self.with(move |catalogue| catalogue.merge(&entries, unix_millis())).await? as u64;
            mark.pulled = changes.next;
            self.remember(&mark).await?;
            if !changes.has_more {
                break;
            }
        }
        loop {
            let since = mark.pushed;
            let changes = self.with(move |catalogue| catalogue.changes(volume, since)).await?;
            if !changes.entries.is_empty() {
                let snapshots = changes.entries.into_iter().map(told).collect();
                let request = MergeSnapshotsRequest { volume_id: volume.to_string(), snapshots };
                there += client.merge(request).await?.into_inner().changed;
            }
            if changes.next != mark.pushed {
                mark.pushed = changes.next;
                self.remember(&mark).await?;
            }
            if !changes.has_more {
                return Ok((here, there));
            }
        }
    }
}
