//! The verbs of one mirrored image, each safe to repeat: it looks first, does what is missing, and looks again when a worker was lost.

use std::{thread, time::Duration};

use crate::{
    crew::{CallError, Crew},
    point::{self, PointName},
    request::{FailureKind, Reply, Request, Schedule},
    view::{ImagePlace, ImageView, Mirroring, SiteView},
};

/// How often a worker may be lost over the same thing.
const TRIES: usize = 3;
/// What a call did shows at the next look, or some states later.
const LOOKS: usize = 25;
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);

#[derive(Debug, thiserror::Error)]
pub enum VerbError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("there is no image {place} in cluster {cluster}: create it, or wait for rbd-mirror to copy it here")]
    NoImage { cluster: String, place: ImagePlace },
    #[error(
        "image {0} is mirrored by its journal, for which there are no sync points: disable mirroring and enable it again by snapshots"
    )]
    Journal(ImagePlace),
    #[error("image {0} is not mirrored: enable it first")]
    NotMirrored(ImagePlace),
    #[error("image {0} is not primary here")]
    NotPrimary(ImagePlace),
    #[error(
        "mirroring of pool {pool} can't be used for single images: set its mode to `image` on both sites and add the peer"
    )]
    PoolMode { pool: String },
    #[error("librbd said that it changed image {0}, and the image does not show it; look at the cluster's health")]
    NotSeen(ImagePlace),
    #[error("a worker answered something else than was asked")]
    Confused,
}

/// An image of a cluster.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    pub crew: &'a Crew,
    pub place: &'a ImagePlace,
}

impl Image<'_> {
    pub fn look(&self) -> Result<ImageView, VerbError> {
        match self.crew.call(&Request::Look(self.place.clone())) {
            Ok(Reply::Image(view)) => Ok(*view),
            Ok(_) => Err(VerbError::Confused),
            Err(error) if error.is(FailureKind::NotFound) => {
                Err(VerbError::NoImage { cluster: self.crew.name().to_owned(), place: self.place.clone() })
            }
            Err(error) => Err(error.into()),
        }
    }

    pub fn sites(&self) -> Result<Vec<SiteView>, VerbError> {
        match self.crew.call(&Request::LookAtSites(self.place.clone()))? {
            Reply::Sites(sites) => Ok(sites),
            _ => Err(VerbError::Confused),
        }
    }

    fn mirrored(&self) -> Result<ImageView, VerbError> {
        let view = self.look()?;
        match view.mirroring {
            Mirroring::Snapshot => Ok(view),
            Mirroring::Journal => Err(VerbError::Journal(self.place.clone())),
            Mirroring::Off | Mirroring::Changing => Err(VerbError::NotMirrored(self.place.clone())),
        }
    }

    fn primary(&self) -> Result<ImageView, VerbError> {
        let view = self.mirrored()?;
        if view.is_primary { Ok(view) } else { Err(VerbError::NotPrimary(self.place.clone())) }
    }

    /// Does one thing, and looks whether it is done. A worker that was lost over it leaves that to the look, and only what was not
    /// carried out is asked for again.
    fn until(&self, request: &Request, is_done: impl Fn(&ImageView) -> bool) -> Result<ImageView, VerbError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.crew.call(request) {
                Ok(_) => return self.seen(is_done),
                // What is fenced is not carried out behind the look; what its lock's owner does for it shows in one of them.
                Err(error @ CallError::Unknown { is_fenced: true, .. }) => match self.look()? {
                    view if is_done(&view) => return Ok(view),
                    _ if tries == TRIES => return Err(error.into()),
                    _ => {}
                },
                // A try before this one did it.
                Err(error) if error.is(FailureKind::Exists) && tries > 1 => return self.seen(is_done),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn seen(&self, is_done: impl Fn(&ImageView) -> bool) -> Result<ImageView, VerbError> {
        for _ in 0..LOOKS {
            let view = self.look()?;
            if is_done(&view) {
                return Ok(view);
            }
            thread::sleep(BETWEEN_LOOKS);
        }
        Err(VerbError::NotSeen(self.place.clone()))
    }

    /// Mirrors the image by snapshots. Done before: nothing. Returns the mgr's schedules that reach it: they stay, and make mirror
    /// snapshots without a sync point before them.
    pub fn enable(&self) -> Result<(ImageView, Vec<Schedule>), VerbError> {
        let view = self.look()?;
        let view = match view.mirroring {
            Mirroring::Journal => return Err(VerbError::Journal(self.place.clone())),
            Mirroring::Snapshot => view,
            Mirroring::Off | Mirroring::Changing => {
                let enabled = self
                    .until(&Request::EnableMirroring(self.place.clone()), |view| view.mirroring == Mirroring::Snapshot);
                match enabled {
                    Err(VerbError::Call(error)) if error.is(FailureKind::Invalid) => {
                        return Err(VerbError::PoolMode { pool: self.place.pool.clone() });
                    }
                    enabled => enabled?,
                }
            }
        };
        if !view.is_primary {
            return Ok((view, Vec::new()));
        }
        match self.crew.call(&Request::Schedules(self.place.clone()))? {
            Reply::Schedules(found) => Ok((view, found)),
            _ => Err(VerbError::Confused),
        }
    }

    /// A sync point: the snapshot, then the mirror snapshot that carries it to the peer. Returns its name and the id of the latter.
    pub fn take_point(&self, now_unix_secs: i64) -> Result<(PointName, u64), VerbError> {
        let view = self.primary()?;
        let name = PointName { number: point::next_number(&view), taken_at_unix_secs: now_unix_secs };
        let (place, text) = (self.place.clone(), name.to_string());
        let taken = self.until(&Request::TakeSnapshot { place, name: text.clone() }, |view| {
            view.snapshots.iter().any(|snapshot| snapshot.name == text)
        })?;
        let own = taken.snapshots.iter().find(|snapshot| snapshot.name == text).map_or(0, |snapshot| snapshot.id);
        let after = |view: &ImageView| view.newest_mirror_snapshot().map(|(id, _)| id).filter(|id| *id > own);
        let mirrored = self.until(&Request::TakeMirrorSnapshot(self.place.clone()), |view| after(view).is_some())?;
        Ok((name, after(&mirrored).ok_or(VerbError::Confused)?))
    }
}
