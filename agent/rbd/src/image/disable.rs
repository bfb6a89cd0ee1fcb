//! The end of an image's mirroring. rbd-mirror deletes the copy of a primary that is not mirrored any more, at once: so the copy is made an
//! image of its own first, by the same verb at its site.

use super::VerbError;
use crate::{
    point::{self, Point},
    request::Request,
    turn::Turn,
    verdict::{self, Unsafe},
    view::{ImageView, Mirroring},
};

/// Asks the agent at the other site whether it has an image by this name, volume or not.
pub type Copy<'a> = &'a (dyn Fn() -> Result<Option<ImageView>, String> + Sync);

impl Turn<'_> {
    /// Without force no copy of the image is deleted by it. What it holds stays, and so do a secondary's points; a primary's go, since nobody
    /// would ever remove them.
    pub fn disable(&mut self, copy: Copy<'_>, force: bool) -> Result<(), VerbError> {
        self.undo_half()?;
        let place = self.image.place.clone();
        let view = match self.image.look() {
            // It is gone, and with it its mirroring.
            Err(VerbError::NoImage { .. }) => return Ok(()),
            view => view?,
        };
        match view.mirroring {
            _ if view.is_settling() => return Err(VerbError::Settling(place)),
            Mirroring::Off => return Ok(()),
            Mirroring::Journal => return Err(VerbError::Journal(place)),
            Mirroring::Snapshot | Mirroring::Changing => {}
        }
        if view.is_primary {
            if !force {
                self.no_copy_goes(&view, copy)?;
            }
        } else {
            // librbd 16 crashes in the middle of a sync, and would keep what was before the last complete one.
            let is_half = view.newest_not_orphan().is_some_and(|(_, newest)| !point::is_proof(newest));
            if is_half {
                return Err(VerbError::Syncing(place));
            }
        }
        let disable = Request::DisableMirroring { place, force: !view.is_primary };
        self.until(&disable, |view| view.mirroring == Mirroring::Off)?;
        if view.is_primary {
            self.remove_points();
        }
        let left = self.left();
        (left.unwhole, left.forced, left.aside, left.group) = (Vec::new(), None, None, None);
        Ok(())
    }

    fn no_copy_goes(&self, view: &ImageView, copy: Copy<'_>) -> Result<(), VerbError> {
        let place = || self.image.place.clone();
        let there = copy().map_err(|why| VerbError::CopyGoes {
            place: place(),
            why: format!("whether the peer has a copy is not known: {why}"),
        })?;
        let Some(there) = there else { return Ok(()) };
        if let Err(Unsafe::PeerIsChanging(turn)) = verdict::still(&there) {
            return Err(VerbError::PeerIsChanging { place: place(), turn });
        }
        if there.mirroring == Mirroring::Off || there.is_primary || there.global_id != view.global_id {
            return Ok(());
        }
        let why = "rbd-mirror deletes the peer's copy then: disable it there first, which makes it an image of its own";
        Err(VerbError::CopyGoes { place: place(), why: why.to_owned() })
    }

    fn remove_points(&mut self) {
        let place = self.image.place.clone();
        let points = self.image.look().map(|view| point::points(&view)).unwrap_or_default();
        for Point { name, snapshot_id: id, .. } in points {
            if let Err(error) = self.change(&Request::RemoveSnapshot { place: place.clone(), id }) {
                tracing::warn!(image = %place, point = %name, "a point stays (`rbd snap rm`): {error}");
            }
        }
    }
}
