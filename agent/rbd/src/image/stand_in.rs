//! A copy that a sync has left half way can't be promoted: librbd would end behind the last complete sync, or crash. A clone of its newest
//! whole point takes its place under its name, which is the one that users open.
//!
//! ```text
//! 1  the point is cloned under a new name that is on record, and marked with what it stands in for
//! 2  the half copied image gets another name   (no secondary can be renamed: its mark is taken away for that)
//! 3  the clone gets its name                   -> users may start
//! 4  the clone is made independent (flattened), which copies all that it has
//! 5  it is mirrored, and the peer can be resynced; what is half copied goes when the peer gives its own copy of it up
//! ```
//! Until 3 is done nothing was promoted: what is interrupted before is undone, because the peer may have become primary meanwhile. Which image
//! has the name tells how far it came. A clone that came to nothing is removed later: librbd may wait for its dead user's watch.

use jiff::{SignedDuration, Timestamp};

use super::{Image, TRIES, VerbError};
use crate::{
    point::Point,
    request::{FailureKind, Request},
    turn::{Half, Turn},
    view::{ImagePlace, ImageView, Mirroring, StandIn},
};

impl Image<'_> {
    /// Nothing of an image that is no clone, or that no longer is the one that took the place.
    pub(crate) fn settle(&self, half: &Half) -> Result<(), VerbError> {
        if half.clone_id.as_ref() == Some(&self.look()?.id) { self.flatten() } else { Ok(()) }
    }

    /// Copies what a clone has of its parent, which takes minutes: outside of any turn. Nothing of an image that is no clone.
    pub fn flatten(&self) -> Result<(), VerbError> {
        if self.look()?.parent_id.is_none() {
            return Ok(());
        }
        match self.crew.call(&Request::Flatten(self.place.clone())) {
            // Another agent was faster.
            Err(error) if error.is(FailureKind::Invalid) => Ok(()),
            flattened => Ok(flattened.map(drop)?),
        }
    }

    /// A clone that no verb uses, whose name is on record; one that is gone already is removed.
    pub(crate) fn remove_clone(&self, name: &str) -> Result<(), VerbError> {
        match self.crew.call(&Request::RemoveUnused(self.beside(name))) {
            Err(error) if error.is(FailureKind::NotFound) => Ok(()),
            removed => Ok(removed.map(drop)?),
        }
    }

    fn beside(&self, name: &str) -> ImagePlace {
        ImagePlace { image: name.to_owned(), ..self.place.clone() }
    }

    fn look_at(&self, name: &str) -> Result<ImageView, VerbError> {
        Image { crew: self.crew, place: &self.beside(name) }.look()
    }
}

impl Turn<'_> {
    /// Users may open the image once this returns. After an error the half copied one is under its name again, or the next verb puts it there.
    pub(super) fn stand_in(&mut self, half: &ImageView, point: Point, now: Timestamp) -> Result<(), VerbError> {
        let mut tried = self.clone_point(self.half_of(half, point, now));
        // Of a verb that was interrupted in this millisecond.
        for later in 1..TRIES {
            if !tried.as_ref().is_err_and(|error| error.is(FailureKind::Exists)) {
                break;
            }
            let now = now.saturating_add(SignedDuration::from_secs(later as i64)).map_err(|_| VerbError::Confused)?;
            tried = self.clone_point(self.half_of(half, point, now));
        }
        let Err(error) = tried.and_then(|()| self.exchange()) else {
            self.forget_snapshots();
            return Ok(());
        };
        match self.undo_half() {
            Ok(Some(_)) => return Ok(()),
            Ok(None) => tracing::warn!(image = %self.image.place, "nothing was promoted, and what was begun is undone"),
            Err(undoing) => {
                tracing::warn!(image = %self.image.place, "what was begun is undone by the next verb: {undoing}");
            }
        }
        Err(error)
    }

    fn half_of(&self, half: &ImageView, point: Point, now: Timestamp) -> Half {
        let name =
            |what: &str, format: &str| format!("{}.drover-{what}.{}", self.image.place.image, now.strftime(format));
        Half {
            name: name("half", "%Y%m%dT%H%M%SZ"),
            new: name("new", "%Y%m%dT%H%M%S.%3fZ"),
            clone_id: None,
            image_id: half.id.clone(),
            global_id: half.global_id.clone(),
            point,
        }
    }

    /// What is left of other verbs is of snapshots and names that the clone does not have.
    fn forget_snapshots(&mut self) {
        let left = self.left();
        (left.unwhole, left.forced, left.aside) = (Vec::new(), None, None);
    }

    /// Only a call that said that it was done counts: of an interrupted one there may be an image without content.
    fn clone_point(&mut self, half: Half) -> Result<(), VerbError> {
        let (place, new) = (self.image.place.clone(), self.image.beside(&half.new));
        self.left().clones.push(half.new.clone());
        let snapshot = half.point.name.to_string();
        let cloned = self.change(&Request::Clone { place, snapshot, child: half.new.clone() });
        if let Err(error) = &cloned
            && error.is(FailureKind::Exists)
        {
            // It is not this verb's.
            self.left().clones.pop();
        }
        cloned?;
        let image_id = self.image.look_at(&half.new)?.id;
        let mark =
            StandIn { image_id: image_id.clone(), global_id: half.global_id.clone(), number: half.point.name.number };
        let value = serde_json::to_string(&mark).expect("a mark is JSON");
        self.change(&Request::SetMetadata { place: new, key: StandIn::KEY.to_owned(), value })?;
        self.left().half = Some(Half { clone_id: Some(image_id), ..half });
        Ok(())
    }

    fn exchange(&mut self) -> Result<(), VerbError> {
        let Some(half) = self.left().half.clone() else { return Err(VerbError::Confused) };
        self.rename_secondary(&half.image_id, self.image.place.clone(), &half.name)?;
        self.rename(self.image.beside(&half.new), &self.image.place.image.clone())?;
        let id = self.image.look()?.id;
        if half.clone_id != Some(id) {
            return Err(VerbError::NotSeen(self.image.place.clone()));
        }
        self.left().clones.retain(|name| *name != half.new);
        Ok(())
    }

    /// The mark is set again whatever came of it.
    fn rename_secondary(&mut self, id: &str, from: ImagePlace, to: &str) -> Result<(), VerbError> {
        let marked =
            |is_non_primary| Request::MarkNonPrimary { place: from.clone(), image_id: id.to_owned(), is_non_primary };
        self.change(&marked(false))?;
        let renamed = self.rename(from.clone(), to);
        self.change(&marked(true))?;
        renamed
    }

    fn rename(&mut self, from: ImagePlace, to: &str) -> Result<(), VerbError> {
        self.change(&Request::Rename { place: from, to: to.to_owned() }).map(drop)
    }

    /// What an interrupted verb has begun: the half copied image gets its name back, unless the clone has it, which then stays. Returns the
    /// point that has taken the place and is not settled yet.
    pub(crate) fn undo_half(&mut self) -> Result<Option<Point>, VerbError> {
        let Some(half) = self.left().half.clone() else { return Ok(None) };
        for _ in 0..TRIES {
            match self.image.look() {
                Ok(view) if half.clone_id.as_ref() == Some(&view.id) => {
                    self.forget_snapshots();
                    if view.mirroring != Mirroring::Snapshot {
                        return Ok(Some(half.point));
                    }
                    // It was settled, and that was not written any more.
                    self.left().half = None;
                    return Ok(None);
                }
                Ok(view) => {
                    if view.id == half.image_id {
                        let (place, image_id) = (self.image.place.clone(), half.image_id.clone());
                        self.change(&Request::MarkNonPrimary { place, image_id, is_non_primary: true })?;
                    }
                    self.left().half = None;
                    return Ok(None);
                }
                Err(VerbError::NoImage { .. }) => {}
                Err(error) => return Err(error),
            }
            self.rename_secondary(&half.image_id, self.image.beside(&half.name), &self.image.place.image.clone())?;
        }
        Err(VerbError::NotSeen(self.image.place.clone()))
    }

    /// Once it is independent of the half copied image.
    pub(crate) fn settle(&mut self) -> Result<(), VerbError> {
        self.undo_half()?;
        let Some(half) = self.left().half.clone() else { return Ok(()) };
        if self.image.look()?.parent_id.is_some() {
            return Err(VerbError::Settling(self.image.place.clone()));
        }
        let enabled = self
            .until(&Request::EnableMirroring(self.image.place.clone()), |view| view.mirroring == Mirroring::Snapshot);
        match enabled {
            Err(VerbError::Call(error)) if error.is(FailureKind::Invalid) => {
                return Err(VerbError::PoolMode { pool: self.image.place.pool.clone() });
            }
            enabled => enabled?,
        };
        tracing::warn!(
            image = %self.image.place, half = half.name, point = %half.point.name,
            "the image that took a half copied one's place is mirrored; that one stays until the peer is resynced"
        );
        self.left().half = None;
        Ok(())
    }
}
