//! Sync points of a primary.

use super::{Peer, VerbError};
use crate::{
    point::{self, Point, PointName},
    request::{FailureKind, Request},
    turn::Turn,
    verdict,
    view::ImageView,
};

impl Turn<'_> {
    /// A sync point: the snapshot, then the mirror snapshot that carries it to the peer. Returns its name and the id of the latter.
    pub fn take_point(&mut self, now_unix_secs: i64) -> Result<(PointName, u64), VerbError> {
        let name = PointName { number: self.next_number()?, taken_at_unix_secs: now_unix_secs };
        let own = self.take_snapshot(name)?;
        Ok((name, self.take_mirror_snapshot(own)?))
    }

    /// That the next point may have: above all before it. Nothing is taken where no point can be.
    pub(crate) fn next_number(&mut self) -> Result<u64, VerbError> {
        let view = self.image.primary()?;
        self.ended_well(&view)?;
        self.remove_unwhole();
        Ok(point::next_number(&view))
    }

    /// Returns its id.
    pub(crate) fn take_snapshot(&mut self, name: PointName) -> Result<u64, VerbError> {
        let (place, text) = (self.image.place.clone(), name.to_string());
        let taken = self.until(&Request::TakeSnapshot { place, name: text.clone() }, |view| {
            view.snapshots.iter().any(|snapshot| snapshot.name == text)
        })?;
        let own = taken.snapshots.iter().find(|snapshot| snapshot.name == text);
        own.map(|snapshot| snapshot.id).ok_or(VerbError::Confused)
    }

    /// Carries what was taken before it, `own`, to the peer.
    pub(crate) fn take_mirror_snapshot(&mut self, own: u64) -> Result<u64, VerbError> {
        let after = |view: &ImageView| view.newest_mirror_snapshot().map(|(id, _)| id).filter(|id| *id > own);
        let taken = self.until(&Request::TakeMirrorSnapshot(self.image.place.clone()), |view| after(view).is_some());
        let mirrored = match taken {
            Err(error) if error.is(FailureKind::Invalid) => {
                return Err(VerbError::NoPeer { pool: self.image.place.pool.clone() });
            }
            taken => taken?,
        };
        after(&mirrored).ok_or(VerbError::Confused)
    }

    /// Removes points that are not kept any more and that the peer does not need. What can't be removed now is tried again after the next
    /// point. Returns how many are gone.
    pub fn prune(&mut self, peer: Peer<'_>, keep: usize) -> usize {
        match peer() {
            Ok(there) => self.prune_below(&there, keep, u64::MAX),
            Err(why) => {
                let (image, cluster) = (self.image.place, self.image.crew.name());
                tracing::info!(%image, cluster, "old points stay, since the peer can't be asked: {why}");
                0
            }
        }
    }

    /// Of points below this number.
    pub(crate) fn prune_below(&mut self, there: &ImageView, keep: usize, number: u64) -> usize {
        let place = self.image.place.clone();
        let view = match self.image.primary() {
            Ok(view) if verdict::follows(there, &view) => view,
            _ => return 0,
        };
        let mut gone = 0;
        let old = point::prunable(&view, there, keep);
        for Point { name, snapshot_id: id, .. } in old.into_iter().filter(|point| point.name.number < number) {
            match self.change(&Request::RemoveSnapshot { place: place.clone(), id }) {
                Ok(_) => gone += 1,
                Err(error) => tracing::warn!(image = %place, point = %name, "an old point stays: {error}"),
            }
        }
        gone
    }
}
