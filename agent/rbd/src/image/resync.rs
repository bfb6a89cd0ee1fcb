//! Resync: the copy that lost is kept under another name, and rbd-mirror copies the peer's anew.

use jiff::Timestamp;

use super::{Peer, VerbError};
use crate::{
    point,
    request::{FailureKind, Request},
    turn::{Aside, Turn},
    verdict::{self, Unsafe},
    view::{ImagePlace, Mirroring, Verb},
};

/// librbd's own resync deletes the image before a byte of the new one is there. Here its mirroring ends and it takes another name, which
/// `rbd` can rename back; rbd-mirror finds the peer's image without a copy, and makes one under the old name.
impl Turn<'_> {
    /// Returns the name under which the copy is kept, unless the image follows its peer already.
    pub fn resync(&mut self, peer: Peer<'_>, now_unix_secs: i64) -> Result<Option<String>, VerbError> {
        let begun = self.left().aside.clone();
        let view = match (self.image.look(), &begun) {
            // It was renamed, or is another one, and the record of that was not written any more.
            (Err(VerbError::NoImage { .. }), Some(aside)) => return Ok(Some(self.was_kept(&aside.name))),
            (Ok(view), Some(aside)) if view.id != aside.image_id => return Ok(Some(self.was_kept(&aside.name))),
            (looked, _) => looked?,
        };
        let place = self.image.place.clone();
        let needed = |why: String| VerbError::PeerNeeded { place: place.clone(), what: Verb::Resync, why };
        let there = peer().map_err(needed)?;
        if !there.is_primary {
            return Err(needed("its copy is not primary: promote it first".to_owned()));
        }
        if let Err(Unsafe::PeerIsChanging(turn)) = verdict::still(&there) {
            return Err(VerbError::PeerIsChanging { place, turn });
        }
        match (view.mirroring, &begun) {
            // It was not given up after all.
            (Mirroring::Snapshot, Some(_)) if verdict::follows(&view, &there) => {
                self.left().aside = None;
                return Ok(None);
            }
            (_, Some(_)) => {}
            (Mirroring::Snapshot, None) if !there.is_same_image(&view) => {
                return Err(needed("it has another image by that name".to_owned()));
            }
            // What that was cloned from is deleted with this copy's mirroring.
            (Mirroring::Snapshot, None) if there.mirroring != Mirroring::Snapshot => {
                return Err(needed(
                    "its image took another one's place and is not mirrored yet: wait until it is".to_owned(),
                ));
            }
            (Mirroring::Snapshot, None) if verdict::follows(&view, &there) => return Ok(None),
            (Mirroring::Snapshot, None) => {}
            (Mirroring::Journal, None) => return Err(VerbError::Journal(place)),
            (Mirroring::Off | Mirroring::Changing, None) => return Err(VerbError::NotMirrored(place)),
        }
        self.image.unused()?;
        // librbd 16 crashes in the middle of a sync, and what is half copied is worth nothing.
        let is_half = !view.is_primary && view.newest_not_orphan().is_some_and(|(_, newest)| !point::is_proof(newest));
        if view.mirroring != Mirroring::Off && is_half {
            return Err(VerbError::Syncing(place));
        }
        let mut aside = match begun {
            Some(aside) => aside,
            None => Aside { name: name_aside(&place, now_unix_secs)?, image_id: view.id.clone() },
        };
        self.left().aside = Some(aside.clone());
        if view.mirroring != Mirroring::Off {
            let disable = Request::DisableMirroring { place: place.clone(), force: !view.is_primary };
            self.until(&disable, |view| view.mirroring == Mirroring::Off)?;
        }
        let rename = |to: &str| Request::Rename { place: place.clone(), to: to.to_owned() };
        match self.change(&rename(&aside.name)) {
            // One that was lost half way has taken the new name, and left the old one.
            Err(error) if error.is(FailureKind::Exists) => {
                aside.name = name_aside(&place, now_unix_secs + 1)?;
                self.left().aside = Some(aside.clone());
                self.change(&rename(&aside.name))?;
            }
            renamed => drop(renamed?),
        }
        Ok(Some(self.was_kept(&aside.name)))
    }

    fn was_kept(&mut self, name: &str) -> String {
        self.left().aside = None;
        // Both are of the copy that was given up.
        self.left().unwhole.clear();
        self.left().forced = None;
        self.left().half = None;
        self.left().group = None;
        name.to_owned()
    }
}

fn name_aside(place: &ImagePlace, now_unix_secs: i64) -> Result<String, VerbError> {
    let now = Timestamp::from_second(now_unix_secs).map_err(|_| VerbError::Confused)?;
    Ok(format!("{}.drover-kept.{}", place.image, now.strftime("%Y%m%dT%H%M%SZ")))
}
