//! The verbs of one mirrored image, each safe to repeat: it looks first, does what is missing, and looks again when a worker was lost.

mod demote;
mod disable;
mod error;
mod fence;
mod promote;
mod resync;
mod stand_in;
mod take;

use std::{thread, time::Duration};

pub use self::{
    demote::Demoted,
    disable::Copy,
    error::VerbError,
    fence::Bystanders,
    promote::{Force, Promoted},
};
use crate::{
    crew::{CallError, Crew},
    request::{FailureKind, Reply, Request, Schedule},
    turn::Turn,
    view::{ImagePlace, ImageView, Mirroring, SiteView, UserView},
};

/// How often a worker may be lost over the same thing.
const TRIES: usize = 3;
/// What a call did shows at the next look, or some states later.
const LOOKS: usize = 25;
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);

/// Asks the agent at the other site what it has of the image: as fresh as the call, or why it can't be told.
pub type Peer<'a> = &'a (dyn Fn() -> Result<ImageView, String> + Sync);

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

    /// Ceph-CSI finds the image by its id, which a resync and a stand-in change. Best before it is used.
    pub fn repair_csi(&self) {
        let image = self.place;
        match self.crew.call(&Request::RepairCsi(image.clone())) {
            Ok(Reply::Repaired(true)) => tracing::info!(%image, "Ceph-CSI's journal names the image by its new id"),
            Ok(_) => {}
            Err(error) => tracing::warn!(%image, "Ceph-CSI's journal may name the image by an old id: {error}"),
        }
    }

    pub fn users(&self) -> Result<Vec<UserView>, VerbError> {
        self.users_by(self.crew.call(&Request::LookAtUsers(self.place.clone())))
    }

    fn users_by(&self, looked: Result<Reply, CallError>) -> Result<Vec<UserView>, VerbError> {
        match looked {
            Ok(Reply::Users(users)) => Ok(users),
            Ok(_) => Err(VerbError::Confused),
            Err(error) if error.is(FailureKind::Invalid) => Err(VerbError::NoLock(self.place.clone())),
            // librbd tells nobody by name then.
            Err(error) if error.is(FailureKind::Busy) => Err(VerbError::LockedByHand(self.place.clone())),
            Err(error) => Err(error.into()),
        }
    }

    /// Images of its pool and namespace that a client has open for writing.
    pub fn images_of(&self, address: &str) -> Result<Vec<ImagePlace>, VerbError> {
        let (place, address) = (self.place.clone(), address.to_owned());
        match self.crew.call(&Request::ImagesOf { place, address })? {
            Reply::Images(places) => Ok(places),
            _ => Err(VerbError::Confused),
        }
    }

    /// Nobody writes to it. Who has it open without its lock may be rbd-mirror, which can't be told from an idle client.
    pub(crate) fn unused(&self) -> Result<(), VerbError> {
        self.unused_by(self.crew.call(&Request::LookAtUsers(self.place.clone())))
    }

    /// As `unused`, by whoever has looked at its users.
    pub(crate) fn unused_by(&self, looked: Result<Reply, CallError>) -> Result<(), VerbError> {
        let users: Vec<_> = self.users_by(looked)?.into_iter().filter(UserView::writes).collect();
        if users.is_empty() { Ok(()) } else { Err(VerbError::InUse { place: self.place.clone(), users }) }
    }

    pub(crate) fn mirrored(&self) -> Result<ImageView, VerbError> {
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

    /// Mirrors the image by snapshots. Done before: nothing. Returns the mgr's schedules that reach it, which make mirror snapshots without a
    /// sync point before them; `is_scheduled`: those of the image alone are removed, since this agent takes its points.
    pub fn enable(&mut self, is_scheduled: bool) -> Result<(ImageView, Vec<Schedule>), VerbError> {
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
                    Err(VerbError::Call(error)) if error.is(FailureKind::Invalid) && view.parent_id.is_some() => {
                        return Err(VerbError::IsClone(self.image.place.clone()));
                    }
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
        let own = self.image.place.to_string();
        let (mut own, others): (Vec<_>, _) = self.schedules()?.into_iter().partition(|found| found.level == own);
        for schedule in own.iter().filter(|_| is_scheduled) {
            let (place, interval) = (self.image.place.clone(), schedule.interval.clone());
            self.change(&Request::RemoveSchedule { place, interval })?;
            tracing::info!(image = %self.image.place, interval = schedule.interval, "a schedule of the mgr gave way to Drover's");
        }
        if is_scheduled {
            own.clear();
        }
        Ok((view, [own, others].concat()))
    }

    fn schedules(&self) -> Result<Vec<Schedule>, VerbError> {
        match self.image.crew.call(&Request::Schedules(self.image.place.clone()))? {
            Reply::Schedules(found) => Ok(found),
            _ => Err(VerbError::Confused),
        }
    }
}
