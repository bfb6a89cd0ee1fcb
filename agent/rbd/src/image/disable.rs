//! The end of an image's mirroring. rbd-mirror deletes the copy of a primary that is not mirrored any more, at once: so the copy is made an
//! image of its own first, by the same verb at its site.

use super::VerbError;
use crate::{
    point::{self, Point},
    request::Request,
    turn::{Disabling, Left, Turn},
    verdict::{self, Unsafe},
    view::{ImageView, Mirroring},
};

/// Asks the agent at the other site whether it has an image by this name, volume or not.
pub type Copy<'a> = &'a (dyn Fn() -> Result<Option<ImageView>, String> + Sync);

impl Turn<'_> {
    /// Without force no copy of the image is deleted by it. What it holds stays, and so do a secondary's points; a primary's go, since nobody
    /// would ever remove them. What it is doing is on record before the first change: on the way librbd promotes a secondary, and forgets of a
    /// primary that it was one.
    pub fn disable(&mut self, copy: Copy<'_>, force: bool) -> Result<(), VerbError> {
        self.undo_half()?;
        let view = match self.image.look() {
            // It is gone, and with it its mirroring.
            Err(VerbError::NoImage { .. }) => {
                let clones = std::mem::take(&mut self.left().clones);
                *self.left() = Left { clones, ..Left::default() };
                return Ok(());
            }
            view => view?,
        };
        let place = self.image.place.clone();
        let what = match (self.left().disabling, view.mirroring) {
            _ if view.is_settling() => return Err(VerbError::Settling(place)),
            // What was begun and left nothing behind is decided anew: the image may have another role by now.
            (_, Mirroring::Snapshot) => self.may_disable(&view, copy, force)?,
            (Some(begun), _) => begun,
            (None, Mirroring::Off) => return Ok(()),
            (None, Mirroring::Journal) => return Err(VerbError::Journal(place)),
            (None, Mirroring::Changing) => return Err(VerbError::Changing(place)),
        };
        self.left().disabling = Some(what);
        let disable = Request::DisableMirroring { place, force: !view.is_primary };
        self.until(&disable, |view| view.mirroring == Mirroring::Off)?;
        match what {
            Disabling::Primary => self.remove_points(),
            Disabling::Copy => self.remove_unwhole(),
        }
        let Left { unwhole, clones, .. } = std::mem::take(self.left());
        *self.left() = Left { unwhole, clones, ..Left::default() };
        Ok(())
    }

    fn may_disable(&mut self, view: &ImageView, copy: Copy<'_>, force: bool) -> Result<Disabling, VerbError> {
        if view.is_primary {
            if !force {
                self.no_copy_goes(view, copy)?;
            }
            return Ok(Disabling::Primary);
        }
        // librbd 16 crashes in the middle of a sync, and would keep what was before the last complete one.
        if view.newest_not_orphan().is_some_and(|(_, newest)| !point::is_proof(newest)) {
            return Err(VerbError::Syncing(self.image.place.clone()));
        }
        // Of a snapshot that is here before its content nobody could tell later that it is not whole.
        let unwhole = point::not_whole(view);
        self.left().unwhole.extend(unwhole);
        Ok(Disabling::Copy)
    }

    fn no_copy_goes(&self, view: &ImageView, copy: Copy<'_>) -> Result<(), VerbError> {
        let place = || self.image.place.clone();
        let goes = |why: &str| Err(VerbError::CopyGoes { place: place(), why: why.to_owned() });
        let there = match copy() {
            Err(why) => return goes(&format!("whether the peer has a copy is not known: {why}")),
            Ok(None) => return Ok(()),
            Ok(Some(there)) => there,
        };
        if let Err(Unsafe::PeerIsChanging(turn)) = verdict::still(&there) {
            return Err(VerbError::PeerIsChanging { place: place(), turn });
        }
        if there.is_settling() {
            return goes(
                "the peer's image took the place of its copy, and still depends on that: wait until it is mirrored",
            );
        }
        if there.mirroring == Mirroring::Off {
            return Ok(());
        }
        if there.global_id != view.global_id {
            return goes("the peer has another image by that name, so its copy may have any name");
        }
        if there.is_primary {
            return Ok(());
        }
        goes("rbd-mirror deletes the peer's copy then: disable it there first, which makes it an image of its own")
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
