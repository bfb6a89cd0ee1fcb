//! The verbs of one mirrored image, each safe to repeat: it looks first, does what is missing, and looks again when a worker was lost.

mod demote;
mod error;
mod promote;
mod resync;
mod stand_in;

use std::{thread, time::Duration};

pub use self::{demote::Demoted, error::VerbError, promote::Promoted};
use crate::{
    crew::{CallError, Crew},
    point::{self, Point, PointName},
    request::{FailureKind, Reply, Request, Schedule},
    turn::Turn,
    verdict,
    view::{ImagePlace, ImageView, Mirroring, SiteView, UserView},
};

/// How often a worker may be lost over the same thing.
const TRIES: usize = 3;
/// What a call did shows at the next look, or some states later.
const LOOKS: usize = 25;
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);

/// Asks the agent at the other site what it has of the image: as fresh as the call, or why it can't be told.
pub type Peer<'a> = &'a dyn Fn() -> Result<ImageView, String>;

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

    pub fn users(&self) -> Result<Vec<UserView>, VerbError> {
        match self.crew.call(&Request::LookAtUsers(self.place.clone())) {
            Ok(Reply::Users(users)) => Ok(users),
            Ok(_) => Err(VerbError::Confused),
            Err(error) if error.is(FailureKind::Invalid) => Err(VerbError::NoLock(self.place.clone())),
            Err(error) => Err(error.into()),
        }
    }

    /// Nobody writes to it. Who has it open without its lock may be rbd-mirror, which can't be told from an idle client.
    fn unused(&self) -> Result<(), VerbError> {
        let users: Vec<_> = self.users()?.into_iter().filter(|user| user.is_lock_owner).collect();
        if users.is_empty() { Ok(()) } else { Err(VerbError::InUse { place: self.place.clone(), users }) }
    }

    fn mirrored(&self) -> Result<ImageView, VerbError> {
        let view = self.look()?;
        match view.mirroring {
            _ if view.is_settling() => Err(VerbError::Settling(self.place.clone())),
            Mirroring::Snapshot => Ok(view),
            Mirroring::Journal => Err(VerbError::Journal(self.place.clone())),
            Mirroring::Off | Mirroring::Changing => Err(VerbError::NotMirrored(self.place.clone())),
        }
    }

    fn primary(&self) -> Result<ImageView, VerbError> {
        let view = self.mirrored()?;
        if view.is_primary { Ok(view) } else { Err(VerbError::NotPrimary(self.place.clone())) }
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
}

impl Turn<'_> {
    /// Does one thing, and looks whether it is done. A worker that was lost over it leaves that to the look, and only what was not
    /// carried out is asked for again.
    fn until(&mut self, request: &Request, is_done: impl Fn(&ImageView) -> bool) -> Result<ImageView, VerbError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.change(request) {
                Ok(_) => return self.image.seen(is_done),
                // What is fenced is not carried out behind the look; what its lock's owner does for it shows in one of them.
                Err(error @ VerbError::Call(CallError::Unknown { is_fenced: true, .. })) => match self.image.look()? {
                    view if is_done(&view) => return Ok(view),
                    _ if tries == TRIES => return Err(error),
                    _ => {}
                },
                // A try before this one did it.
                Err(error) if error.is(FailureKind::Exists) && tries > 1 => return self.image.seen(is_done),
                Err(error) => return Err(error),
            }
        }
    }

    /// Mirrors the image by snapshots. Done before: nothing. Returns the mgr's schedules that reach it: they stay, and make mirror
    /// snapshots without a sync point before them.
    pub fn enable(&mut self) -> Result<(ImageView, Vec<Schedule>), VerbError> {
        let view = self.image.look()?;
        let view = match view.mirroring {
            _ if view.is_settling() && view.parent_id.is_some() => {
                return Err(VerbError::Settling(self.image.place.clone()));
            }
            Mirroring::Journal => return Err(VerbError::Journal(self.image.place.clone())),
            Mirroring::Snapshot => view,
            Mirroring::Off | Mirroring::Changing => {
                let enabled = self.until(&Request::EnableMirroring(self.image.place.clone()), |view| {
                    view.mirroring == Mirroring::Snapshot
                });
                match enabled {
                    Err(VerbError::Call(error)) if error.is(FailureKind::Invalid) => {
                        return Err(VerbError::PoolMode { pool: self.image.place.pool.clone() });
                    }
                    enabled => enabled?,
                }
            }
        };
        if !view.is_primary {
            return Ok((view, Vec::new()));
        }
        match self.image.crew.call(&Request::Schedules(self.image.place.clone()))? {
            Reply::Schedules(found) => Ok((view, found)),
            _ => Err(VerbError::Confused),
        }
    }

    /// A sync point: the snapshot, then the mirror snapshot that carries it to the peer. Returns its name and the id of the latter.
    pub fn take_point(&mut self, now_unix_secs: i64) -> Result<(PointName, u64), VerbError> {
        let view = self.image.primary()?;
        self.ended_well(&view)?;
        self.remove_unwhole();
        let name = PointName { number: point::next_number(&view), taken_at_unix_secs: now_unix_secs };
        let (place, text) = (self.image.place.clone(), name.to_string());
        let taken = self.until(&Request::TakeSnapshot { place, name: text.clone() }, |view| {
            view.snapshots.iter().any(|snapshot| snapshot.name == text)
        })?;
        let own = taken.snapshots.iter().find(|snapshot| snapshot.name == text).map_or(0, |snapshot| snapshot.id);
        let after = |view: &ImageView| view.newest_mirror_snapshot().map(|(id, _)| id).filter(|id| *id > own);
        let mirrored =
            self.until(&Request::TakeMirrorSnapshot(self.image.place.clone()), |view| after(view).is_some())?;
        Ok((name, after(&mirrored).ok_or(VerbError::Confused)?))
    }

    /// Removes points that are not kept any more and that the peer does not need. What can't be removed now is tried again after the next
    /// point. Returns how many are gone.
    pub fn prune(&mut self, peer: Peer<'_>, keep: usize) -> usize {
        let (place, crew) = (self.image.place.clone(), self.image.crew.name());
        let there = match peer() {
            Ok(there) => there,
            Err(why) => {
                tracing::info!(image = %place, cluster = crew, "old points stay, since the peer can't be asked: {why}");
                return 0;
            }
        };
        let view = match self.image.primary() {
            Ok(view) if verdict::follows(&there, &view) => view,
            _ => return 0,
        };
        let mut gone = 0;
        for Point { name, snapshot_id: id, .. } in point::prunable(&view, &there, keep) {
            match self.change(&Request::RemoveSnapshot { place: place.clone(), id }) {
                Ok(_) => gone += 1,
                Err(error) => tracing::warn!(image = %place, point = %name, "an old point stays: {error}"),
            }
        }
        gone
    }
}
