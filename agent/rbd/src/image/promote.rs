//! Promotion.

use std::{
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::{BETWEEN_LOOKS, Peer, TRIES, VerbError};
use crate::{
    crew::CallError,
    point::{self, Point, PointName},
    request::{FailureKind, Request},
    turn::{ForcedFrom, Turn},
    verdict::{self, Forced, Unsafe},
    view::{ImageView, MirrorSnapshot, MirrorState},
};

/// How long rbd-mirror may take to let go of a demoted image; it looks every 30 s.
const REPLAYER: Duration = Duration::from_secs(60);

/// What a promotion found and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Promoted {
    Already,
    /// Nothing was lost.
    Planned,
    /// What came after this is lost; `None`: where it stands is no point of Drover's.
    Forced(Option<Point>),
}

/// What a promotion may lose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    /// Nothing.
    No,
    /// What came after the newest sync that is whole.
    Yes,
    /// What came after this point, on which it ends exactly, whatever else has arrived: that of a group.
    To(PointName),
}

enum Decision {
    /// The call that promotes, and what it does.
    Call { force: bool, promoted: Promoted },
    /// The image is half copied: this point takes its place.
    StandIn(Point),
}

impl Turn<'_> {
    /// Without force only what loses nothing; with force only what ends on something whole, and never beside a primary that answers.
    /// The turn says so to the peer before the peer is asked, and it is asked before each try: what it said may have changed.
    ///
    /// `accepted`: the number of the point that the caller has rolled an image back to whose promotion ended behind it.
    pub fn promote(&mut self, peer: Peer<'_>, force: Force, accepted: Option<u64>) -> Result<Promoted, VerbError> {
        let begun = Instant::now();
        let mut lost = 0;
        if let Some(point) = self.undo_half()? {
            return Ok(Promoted::Forced(Some(point)));
        }
        // Of an earlier verb, which nobody has finished.
        let earlier = self.left().clone();
        loop {
            let there = peer();
            // After the peer was asked, which may take long.
            let view = self.image.mirrored()?;
            if view.is_half_primary {
                // librbd takes that for primary; as a demoted copy it can be promoted.
                self.change(&Request::Demote(self.image.place.clone()))?;
                lost += 1;
                if lost > TRIES {
                    return Err(VerbError::NotSeen(self.image.place.clone()));
                }
                continue;
            }
            if view.is_primary {
                let number = |forced: ForcedFrom| forced.point.map_or(0, |point| point.name.number);
                if accepted.is_some() && self.left().forced.map(number) == accepted {
                    self.left().forced = None;
                }
                self.ended_well(&view)?;
                self.remove_unwhole();
                return Ok(Promoted::Already);
            }
            let decision = self.decide(&view, there, force)?;
            self.left().group = match force {
                Force::To(name) => Some(name),
                Force::No | Force::Yes => None,
            };
            let (by_force, promoted) = match decision {
                Decision::Call { force, promoted } => (force, promoted),
                Decision::StandIn(point) => {
                    self.stand_in(&view, point, Timestamp::now())?;
                    return Ok(Promoted::Forced(Some(point)));
                }
            };
            // What had not arrived when an earlier promotion was tried may have since.
            let arrived = point::arrived(&view);
            let unwhole: Vec<_> = earlier.unwhole.iter().copied().filter(|id| *id > arrived).collect();
            self.left().unwhole = [unwhole.clone(), point::not_whole(&view)].concat();
            let newest = view.newest_mirror_snapshot().map_or(0, |(id, _)| id);
            self.left().forced = match promoted {
                Promoted::Forced(point) => {
                    let now = ForcedFrom { newest, point, exactly: matches!(force, Force::To(_)) };
                    // Of the same, an earlier try may have changed something.
                    let is_same = |it: &ForcedFrom| (it.point, it.exactly) == (now.point, now.exactly);
                    Some(earlier.forced.filter(is_same).unwrap_or(now))
                }
                Promoted::Already | Promoted::Planned => None,
            };
            let request = Request::Promote { place: self.image.place.clone(), force: by_force };
            let after = match self.change(&request) {
                Ok(_) => self.image.seen(|view| view.is_primary && !view.is_half_primary)?,
                // rbd-mirror has the image's lock until it has seen that nothing more comes.
                Err(error) if error.is(FailureKind::ReadOnly) && begun.elapsed() < REPLAYER => {
                    thread::sleep(BETWEEN_LOOKS);
                    continue;
                }
                Err(VerbError::Call(CallError::Unknown { is_fenced: true, .. })) if lost < TRIES => {
                    lost += 1;
                    let after = self.image.mirrored()?;
                    if !after.is_primary || after.is_half_primary {
                        continue;
                    }
                    after
                }
                Err(error) => {
                    // librbd fails half way, too; and of what is unknown it is not known that nothing was changed.
                    let is_known = !matches!(error, VerbError::Call(CallError::Unknown { .. }));
                    if is_known && self.image.mirrored().is_ok_and(|view| !view.is_primary) {
                        *self.left() = earlier;
                    }
                    return Err(error);
                }
            };
            self.ended_well(&after)?;
            // What arrived between the look and the promotion is known only now, and so is what had begun to.
            self.left().unwhole = [unwhole, point::not_whole_at_promotion(&after, newest)].concat();
            self.remove_unwhole();
            return Ok(promoted);
        }
    }

    /// No sync began in the instant of a promotion by force, which would have gone back behind it. Stays an error until a promotion
    /// accepts it.
    pub(super) fn ended_well(&mut self, primary: &ImageView) -> Result<(), VerbError> {
        let Some(ForcedFrom { newest, point, exactly }) = self.left().forced else { return Ok(()) };
        let is_later = |(id, mirror): &(u64, &MirrorSnapshot)| {
            let is_copy = matches!(mirror.state, MirrorState::NonPrimary | MirrorState::NonPrimaryDemoted);
            *id > newest && is_copy && !mirror.is_orphan()
        };
        let place = || self.image.place.clone();
        let later: Vec<_> = primary.mirror_snapshots().filter(is_later).collect();
        if later.iter().any(|(_, mirror)| !mirror.is_complete) {
            return Err(VerbError::EndedBehind { place: place(), point });
        }
        if let Some(point) = point.filter(|_| exactly && !later.is_empty()) {
            return Err(VerbError::EndedBeyond { place: place(), point });
        }
        self.left().forced = None;
        Ok(())
    }

    fn decide(&self, view: &ImageView, there: Result<ImageView, String>, force: Force) -> Result<Decision, VerbError> {
        let place = || self.image.place.clone();
        let forced = verdict::forced(view);
        let refused = |why: Unsafe| {
            let forced = (!why.is_final()).then(|| verdict::told(&forced));
            Err(VerbError::Unsafe { place: place(), why, forced })
        };
        match (verdict::planned(view, there.as_ref().map_err(Clone::clone)), force) {
            (Err(why), _) if why.is_final() => return refused(why),
            (_, Force::To(name)) => return self.decide_on(view, name),
            (Ok(()), Force::No | Force::Yes) => {
                return Ok(Decision::Call { force: false, promoted: Promoted::Planned });
            }
            (Err(why), Force::No) => return refused(why),
            (Err(_), Force::Yes) => {}
        }
        match forced {
            Forced::OnNewest { point } => Ok(Decision::Call { force: true, promoted: Promoted::Forced(point) }),
            // For librbd that is no force.
            Forced::OnOwnDemotion { point } => Ok(Decision::Call { force: false, promoted: Promoted::Forced(point) }),
            Forced::InTheMiddle { point: Some(point) } => Ok(Decision::StandIn(point)),
            Forced::InTheMiddle { point: None } => Err(VerbError::InTheMiddle { place: place() }),
            Forced::Nothing => Err(VerbError::Nothing(place())),
            Forced::Primary => Err(VerbError::Confused),
        }
    }

    fn decide_on(&self, view: &ImageView, name: PointName) -> Result<Decision, VerbError> {
        let Some(point) = point::whole(view, name) else {
            return Err(VerbError::NotWhole { place: self.image.place.clone(), point: name });
        };
        Ok(match point::is_newest(view, &point) {
            true => Decision::Call { force: true, promoted: Promoted::Forced(Some(point)) },
            false => Decision::StandIn(point),
        })
    }

    /// Snapshots that a promotion made look whole. What can't be removed now is left for the next verb of the image.
    pub(super) fn remove_unwhole(&mut self) {
        let mut failed = Vec::new();
        for id in self.left().unwhole.clone() {
            let place = self.image.place.clone();
            match self.change(&Request::RemoveSnapshot { place, id }) {
                Ok(_) => {}
                Err(error) if error.is(FailureKind::NotFound) => {}
                Err(error) => {
                    tracing::warn!(image = %self.image.place, id, "a snapshot whose content never arrived stays: {error}");
                    failed.push(id);
                }
            }
        }
        self.left().unwhole = failed;
    }
}
