//! Several images as one: the disks of a machine have one number for each sync point, and end on the same one.
//!
//! A verb holds the turns of all its images, looks at all before it changes the first, and then changes all at the same time.

use std::{
    collections::BTreeSet,
    panic::resume_unwind,
    thread,
    time::{Duration, Instant},
};

use crate::{
    image::{Demoted, Force, Image, Peer, VerbError},
    point::{self, PointName},
    turn::{Turn, Turns},
    verdict::{self, Unsafe},
    view::{ImagePlace, ImageView, Verb},
};

/// Each takes a thread while a verb is under way.
pub const MEMBERS_MAX: usize = 128;

/// An image of the group, of this agent's clusters.
#[derive(Clone, Copy)]
pub struct Member<'a> {
    pub turns: &'a Turns,
    pub image: Image<'a>,
    pub peer: Peer<'a>,
}

/// What went wrong with which images.
#[derive(Debug)]
pub struct Failures(pub Vec<(ImagePlace, VerbError)>);

impl std::fmt::Display for Failures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Some(((place, first), others)) = self.0.split_first() else { return Ok(()) };
        write!(f, "{place}: {first}")?;
        if others.is_empty() { Ok(()) } else { write!(f, " (and {} more images)", others.len()) }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    #[error("nothing was changed: {failures}{}", by_force(.forced))]
    Refused { failures: Failures, forced: Option<Option<PointName>> },
    #[error(
        "{} of {members} images are done, then: {failures}. Repeat the verb: what is done stays done",
        members - failures.0.len()
    )]
    Partly { members: usize, failures: Failures },
    #[error("no point is whole on every image of the group, so there is nothing that all of them could end on")]
    NoCommonPoint,
    #[error(
        "some images of the group are primary already, and not by a promotion of the group: demote them, or promote the others one by one"
    )]
    Apart,
    #[error(
        "a promotion of the group by force to point {point} was interrupted: repeat it with force, which ends on that point"
    )]
    Begun { point: PointName },
    #[error("the group has {members} images here; it may have {MEMBERS_MAX} at most, and one at least")]
    Members { members: usize },
}

fn by_force(forced: &Option<Option<PointName>>) -> String {
    match forced {
        None => String::new(),
        Some(Some(point)) => format!(". By force all images would end on point {point}"),
        Some(None) => ". By force nothing could be had either: no point is whole on every image".to_owned(),
    }
}

/// A point that all images have under the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupPoint {
    pub name: PointName,
    /// Between the first image's snapshot and the last one's mirror snapshot: by so much the images may be apart, if they are written to.
    pub spread: Duration,
    /// Old points that are gone, of all images.
    pub gone: usize,
}

/// Takes a point on every image, all under the number that is free on each of them.
pub fn take_point(members: &[Member<'_>], now_unix_secs: i64, keep: usize) -> Result<GroupPoint, GroupError> {
    hold(members, Verb::Point, now_unix_secs, &mut |turns| {
        let numbers = all(each(turns, |_, turn| turn.next_number()), turns).map_err(refused)?;
        let number = numbers.into_iter().max().unwrap_or(1);
        let name = PointName { number, taken_at_unix_secs: now_unix_secs };
        let begun = Instant::now();
        let own = all(each(turns, |_, turn| turn.take_snapshot(name)), turns).map_err(partly(members))?;
        let carried = each(turns, |at, turn| turn.take_mirror_snapshot(own[at]));
        let spread = begun.elapsed();
        all(carried, turns).map_err(partly(members))?;
        Ok(GroupPoint { name, spread, gone: prune(members, turns, keep) })
    })
}

/// What all images would end on stays, also on those whose peers are further.
fn prune(members: &[Member<'_>], turns: &mut [&mut Turn<'_>], keep: usize) -> usize {
    let there: Vec<_> = each(turns, |at, _| Ok((members[at].peer)())).into_iter().flatten().collect();
    let there: Result<Vec<ImageView>, String> = there.into_iter().collect();
    let there = match there {
        Ok(there) if there.len() == members.len() => there,
        Ok(_) => return 0,
        Err(why) => {
            tracing::info!("old points of a group stay, since the peer can't be asked: {why}");
            return 0;
        }
    };
    let Some(common) = point::newest_common(&there) else { return 0 };
    let gone = each(turns, |at, turn| Ok(turn.prune_below(&there[at], keep, common.number)));
    gone.into_iter().flatten().sum()
}

/// Demotes every image, or none: if one can't be, those that were are promoted again.
pub fn demote(members: &[Member<'_>], now_unix_secs: i64) -> Result<Demoted, GroupError> {
    hold(members, Verb::Demote, now_unix_secs, &mut |turns| {
        let found = all(each(turns, |at, turn| turn.may_demote(members[at].peer)), turns).map_err(refused)?;
        if found.iter().all(|found| *found == Demoted::Already) {
            return Ok(Demoted::Already);
        }
        let done = each(turns, |at, turn| match found[at] {
            Demoted::Already => Ok(Demoted::Already),
            Demoted::Now => turn.demote_now(),
        });
        let Err(failures) = all(done, turns) else { return Ok(Demoted::Now) };
        // Also those whose demotion failed, since it may have been carried out; one that was not is primary already.
        let taken_back = each(turns, |at, turn| match found[at] {
            Demoted::Now => turn.promote(members[at].peer, Force::No, None).map(drop),
            Demoted::Already => Ok(()),
        });
        match all(taken_back, turns) {
            Ok(_) => Err(refused(failures)),
            Err(Failures(stay)) => Err(partly(members)(Failures(failures.0.into_iter().chain(stay).collect()))),
        }
    })
}

/// Where an image of the group is before its promotion.
enum Standing {
    /// `begun`: a promotion of the group to that point has come so far.
    Primary {
        begun: Option<PointName>,
    },
    Secondary {
        planned: Result<(), Unsafe>,
        view: Box<ImageView>,
    },
}

/// What a promotion of a group did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupPromoted {
    Already,
    /// Nothing was lost.
    Planned,
    /// All images are at this point.
    Forced(PointName),
}

/// All images without loss, or with `force` all on the newest point that is whole on each of them. Nothing is changed before that is known of
/// all; from the first promotion on it only goes forward.
pub fn promote(members: &[Member<'_>], now_unix_secs: i64, force: bool) -> Result<GroupPromoted, GroupError> {
    hold(members, Verb::Promote, now_unix_secs, &mut |turns| {
        let standing = all(each(turns, |at, turn| turn.standing(members[at].peer)), turns).map_err(refused)?;
        let places: Vec<_> = members.iter().map(|member| member.image.place).collect();
        let how = decide(&places, &standing, force)?;
        let is_over = standing.iter().all(|standing| matches!(standing, Standing::Primary { .. }));
        let begun = standing.iter().find_map(|standing| match standing {
            Standing::Primary { begun } => *begun,
            Standing::Secondary { .. } => None,
        });
        let promoted = each(turns, |at, turn| turn.promote(members[at].peer, how, None));
        all(promoted, turns).map_err(partly(members))?;
        for turn in turns.iter_mut() {
            turn.left().group = None;
        }
        Ok(match how {
            Force::To(point) => GroupPromoted::Forced(point),
            Force::No | Force::Yes if is_over => begun.map_or(GroupPromoted::Already, GroupPromoted::Forced),
            Force::No | Force::Yes => GroupPromoted::Planned,
        })
    })
}

fn decide(places: &[&ImagePlace], standing: &[Standing], force: bool) -> Result<Force, GroupError> {
    let begun: BTreeSet<PointName> = standing
        .iter()
        .filter_map(|standing| match standing {
            Standing::Primary { begun } => *begun,
            Standing::Secondary { .. } => None,
        })
        .collect();
    let secondaries = || {
        places.iter().zip(standing).filter_map(|(place, standing)| match standing {
            Standing::Secondary { planned, view } => Some((*place, planned, view.as_ref())),
            Standing::Primary { .. } => None,
        })
    };
    let refusals = |is_final: bool| -> Vec<_> {
        let refused = secondaries().filter_map(|(place, planned, _)| {
            let why = planned.as_ref().err().filter(|why| !is_final || why.is_final())?.clone();
            Some((place.clone(), VerbError::Unsafe { place: place.clone(), why, forced: None }))
        });
        refused.collect()
    };
    if secondaries().next().is_none() {
        return Ok(Force::No);
    }
    let (lossy, impossible) = (refusals(false), refusals(true));
    if !impossible.is_empty() {
        return Err(GroupError::Refused { failures: Failures(impossible), forced: None });
    }
    let common = || point::newest_common(secondaries().map(|(_, _, view)| view));
    let forced = |point: PointName| {
        let stuck = |(place, _, view): (&ImagePlace, _, &ImageView)| {
            let is_there = point::whole(view, point).is_some_and(|point| point::is_newest(view, &point));
            let error = || VerbError::DataPool { place: place.clone(), point };
            (view.has_data_pool && !is_there).then(|| (place.clone(), error()))
        };
        let stuck: Vec<_> = secondaries().filter_map(stuck).collect();
        if stuck.is_empty() { Ok(Force::To(point)) } else { Err(refused(Failures(stuck))) }
    };
    let is_of_no_group = |standing: &Standing| matches!(standing, Standing::Primary { begun: None });
    let mut begun = begun.into_iter();
    match (begun.next(), begun.next()) {
        (Some(_), Some(_)) => Err(GroupError::Apart),
        (Some(_), None) if standing.iter().any(is_of_no_group) => Err(GroupError::Apart),
        (Some(point), None) if !force => Err(GroupError::Begun { point }),
        (Some(point), None) => forced(point),
        (None, _) if lossy.is_empty() => Ok(Force::No),
        // By force there would be nothing to be had either.
        (None, _) if secondaries().count() < places.len() => Err(GroupError::Apart),
        (None, _) if !force => Err(GroupError::Refused { failures: Failures(lossy), forced: Some(common()) }),
        (None, _) => common().ok_or(GroupError::NoCommonPoint).and_then(forced),
    }
}

impl Turn<'_> {
    fn standing(&mut self, peer: Peer<'_>) -> Result<Standing, VerbError> {
        // The number of the group is on record before the image's place is taken.
        if self.undo_half()?.is_some() {
            return Ok(Standing::Primary { begun: self.left().group });
        }
        let there = peer();
        let view = self.image.mirrored()?;
        if view.is_primary && !view.is_half_primary {
            return Ok(Standing::Primary { begun: self.left().group });
        }
        let planned = verdict::planned(&view, there.as_ref().map_err(Clone::clone));
        Ok(Standing::Secondary { planned, view: Box::new(view) })
    }
}

/// Does `what` while this agent has the turn of every image.
fn hold<T>(
    members: &[Member<'_>],
    verb: Verb,
    now_unix_secs: i64,
    what: &mut dyn FnMut(&mut [&mut Turn<'_>]) -> Result<T, GroupError>,
) -> Result<T, GroupError> {
    if members.is_empty() || members.len() > MEMBERS_MAX {
        return Err(GroupError::Members { members: members.len() });
    }
    let (mut begun, mut failed) = (Vec::with_capacity(members.len()), None);
    // In one order, so that two verbs never wait for each other.
    for Member { turns, image, .. } in members {
        match turns.begin(*image, verb, now_unix_secs) {
            Ok(turn) => begun.push(turn),
            Err(error) => {
                failed = Some(refused(Failures(vec![(image.place.clone(), error)])));
                break;
            }
        }
    }
    let done = match failed {
        Some(error) => Err(error),
        None => what(&mut begun.iter_mut().map(|begun| &mut begun.turn).collect::<Vec<_>>()),
    };
    // A cluster that hangs is waited for once, and not by one image after the other.
    thread::scope(|scope| begun.into_iter().for_each(|begun| drop(scope.spawn(|| begun.end()))));
    done
}

/// The same with every image at the same time.
fn each<T: Send>(
    turns: &mut [&mut Turn<'_>],
    what: impl Fn(usize, &mut Turn<'_>) -> Result<T, VerbError> + Sync,
) -> Vec<Result<T, VerbError>> {
    let what = &what;
    thread::scope(|scope| {
        let threads: Vec<_> =
            turns.iter_mut().enumerate().map(|(at, turn)| scope.spawn(move || what(at, turn))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    })
}

fn all<T>(done: Vec<Result<T, VerbError>>, turns: &[&mut Turn<'_>]) -> Result<Vec<T>, Failures> {
    let (mut values, mut failures) = (Vec::with_capacity(done.len()), Vec::new());
    for (done, turn) in done.into_iter().zip(turns) {
        match done {
            Ok(value) => values.push(value),
            Err(error) => failures.push((turn.image.place.clone(), error)),
        }
    }
    if failures.is_empty() { Ok(values) } else { Err(Failures(failures)) }
}

fn refused(failures: Failures) -> GroupError {
    GroupError::Refused { failures, forced: None }
}

fn partly(members: &[Member<'_>]) -> impl Fn(Failures) -> GroupError {
    let members = members.len();
    move |failures| GroupError::Partly { members, failures }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::{
        MirrorState,
        tests::{mirror, secondary, user},
    };

    fn named(number: u64) -> PointName {
        PointName { number, taken_at_unix_secs: 1_795_317_300 }
    }

    /// Points with these numbers are whole.
    fn at(planned: Result<(), Unsafe>, numbers: &[u64]) -> Standing {
        let snapshots = numbers
            .iter()
            .flat_map(|n| [user(n * 10, &named(*n).to_string()), mirror(n * 10 + 1, MirrorState::NonPrimary, true)]);
        Standing::Secondary { planned, view: Box::new(secondary(snapshots.collect())) }
    }

    fn decided(standing: &[Standing], force: bool) -> Result<Force, GroupError> {
        let place = ImagePlace { pool: "rbd".to_owned(), namespace: String::new(), image: "vm".to_owned() };
        decide(&vec![&place; standing.len()], standing, force)
    }

    fn unknown() -> Result<(), Unsafe> {
        Err(Unsafe::PeerUnknown("it is dead".to_owned()))
    }

    #[test]
    fn all_are_promoted_without_loss_or_none() {
        assert_eq!(decided(&[at(Ok(()), &[1]), at(Ok(()), &[2])], false).unwrap(), Force::No);
        assert_eq!(decided(&[at(Ok(()), &[1]), at(Ok(()), &[2])], true).unwrap(), Force::No);
        let refused = decided(&[at(Ok(()), &[1, 2]), at(unknown(), &[1])], false).unwrap_err();
        assert!(
            matches!(refused, GroupError::Refused { forced: Some(Some(PointName { number: 1, .. })), .. }),
            "{refused}"
        );
        // The rest of a planned promotion that was interrupted.
        assert_eq!(decided(&[Standing::Primary { begun: None }, at(Ok(()), &[1])], false).unwrap(), Force::No);
        assert_eq!(
            decided(&[Standing::Primary { begun: Some(named(1)) }], false).unwrap(),
            Force::No,
            "all of them are"
        );
    }

    #[test]
    fn by_force_all_end_on_one_number() {
        assert_eq!(decided(&[at(unknown(), &[1, 2, 3]), at(unknown(), &[1, 2])], true).unwrap(), Force::To(named(2)));
        // One whose demotion has arrived is further than its points.
        assert_eq!(decided(&[at(Ok(()), &[1, 2, 3]), at(unknown(), &[1, 2])], true).unwrap(), Force::To(named(2)));
        assert!(matches!(decided(&[at(unknown(), &[1]), at(unknown(), &[2])], true), Err(GroupError::NoCommonPoint)));
        // It would have to be replaced, and can't be.
        let mut further = at(unknown(), &[1, 2]);
        if let Standing::Secondary { view, .. } = &mut further {
            view.has_data_pool = true;
        }
        let refused = decided(&[further, at(unknown(), &[1])], true).unwrap_err();
        assert!(matches!(&refused, GroupError::Refused { failures, .. } if failures.0.len() == 1), "{refused}");
        let primary = at(Err(Unsafe::PeerIsPrimary), &[1]);
        let refused = decided(&[at(unknown(), &[1]), primary], true).unwrap_err();
        assert!(matches!(&refused, GroupError::Refused { failures, .. } if failures.0.len() == 1), "{refused}");
    }

    #[test]
    fn what_was_begun_by_force_ends_on_its_number() {
        let begun = || Standing::Primary { begun: Some(named(2)) };
        // More has arrived since.
        assert_eq!(decided(&[begun(), at(unknown(), &[1, 2, 3])], true).unwrap(), Force::To(named(2)));
        assert!(matches!(
            decided(&[begun(), at(Ok(()), &[2])], false),
            Err(GroupError::Begun { point: PointName { number: 2, .. } })
        ));
        let other = Standing::Primary { begun: None };
        assert!(matches!(decided(&[begun(), other, at(unknown(), &[2])], true), Err(GroupError::Apart)));
        let other = Standing::Primary { begun: Some(named(3)) };
        assert!(matches!(decided(&[begun(), other, at(unknown(), &[2])], true), Err(GroupError::Apart)));
        let alone = Standing::Primary { begun: None };
        assert!(matches!(decided(&[alone, at(unknown(), &[2])], true), Err(GroupError::Apart)));
    }
}
