//! Demotion.

use super::{Peer, VerbError};
use crate::{
    request::Request,
    turn::Turn,
    verdict::{self, Unsafe},
    view::Verb,
};

/// What a demotion found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demoted {
    Already,
    Now,
}

impl Turn<'_> {
    /// Only while nobody has the image's lock, whose next write would be acknowledged and be in no snapshot, and only where the peer has
    /// a copy that can be promoted instead.
    pub fn demote(&mut self, peer: Peer<'_>) -> Result<Demoted, VerbError> {
        match self.may_demote(peer)? {
            Demoted::Already => Ok(Demoted::Already),
            Demoted::Now => self.demote_now(),
        }
    }

    /// What a demotion would be, if it may be.
    pub(crate) fn may_demote(&mut self, peer: Peer<'_>) -> Result<Demoted, VerbError> {
        let view = self.image.mirrored()?;
        if !view.is_primary {
            return Ok(Demoted::Already);
        }
        self.ended_well(&view)?;
        self.remove_unwhole();
        let place = || self.image.place.clone();
        let needed = |why: &str| VerbError::PeerNeeded { place: place(), what: Verb::Demote, why: why.to_owned() };
        let there = peer().map_err(|why| needed(&why))?;
        if !there.is_same_image(&view) {
            return Err(needed("it has another image by that name"));
        }
        if let Err(Unsafe::PeerIsChanging(turn)) = verdict::still(&there) {
            return Err(VerbError::PeerIsChanging { place: place(), turn });
        }
        // Beside another primary this one is given up.
        if !there.is_primary {
            if !there.mirror_snapshots().any(|(_, mirror)| mirror.is_complete && !mirror.is_orphan()) {
                return Err(needed("no sync has arrived there whole: take a sync point and wait for it"));
            }
            if !verdict::follows(&there, &view) {
                return Err(needed("its copy does not follow this one: resync it, and wait until it has arrived"));
            }
            if !verdict::has_begun_to_follow(&there, &view) {
                return Err(needed(
                    "nothing has arrived there since this one was promoted, nor would it after a demotion: take a sync point and wait for it",
                ));
            }
        }
        self.image.unused()?;
        Ok(Demoted::Now)
    }

    pub(crate) fn demote_now(&mut self) -> Result<Demoted, VerbError> {
        self.left().group = None;
        self.until(&Request::Demote(self.image.place.clone()), |view| !view.is_primary)?;
        Ok(Demoted::Now)
    }
}
