//! The verbs of images that the agents sync and that belong together: all are looked at before the first is changed, as with mirrored ones
//! (`drover_rbd::group`). Here each copy is held by a thread of its own, for as long as the verb takes.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        mpsc::{self, Sender},
    },
    thread,
};

use drover_engine::{
    error::Kind,
    image::{ImageCopy as _, SnapshotName, verbs},
    point::{self, Force, PeerCopy, Role, Unsafe, VolumeState},
    session::Failure,
};
use drover_rbd::{
    delta::{self, Delta},
    group::{Failures, GroupError, GroupPoint, GroupPromoted},
    image::VerbError,
    point::PointName,
    view::{ImagePlace, Verb},
};

use super::super::{GroupMember, MirrorError, Mirrors};

/// Each keeps a worker while a verb is under way.
pub(in crate::mirror) const MEMBERS_MAX: usize = 32;

type Task<'s> = Box<dyn FnOnce(&Delta<'_, '_>) + Send + 's>;

/// Copies, each by a thread, until this is dropped.
struct Copies<'s>(Vec<Sender<Task<'s>>>);

impl<'s> Copies<'s> {
    /// The same with every copy at the same time.
    fn each<T: Send + 's>(
        &self,
        what: impl Fn(usize, &Delta<'_, '_>) -> Result<T, Failure> + Send + Sync + 's,
    ) -> Vec<Result<T, Failure>> {
        let what = Arc::new(what);
        let told = self.0.iter().enumerate().map(|(at, tasks)| {
            let ((tell, told), what) = (mpsc::channel(), Arc::clone(&what));
            let task = move |copy: &Delta<'_, '_>| drop(tell.send(what(at, copy)));
            // Of a thread that is gone nothing is told.
            let _ = tasks.send(Box::new(task));
            told
        });
        let told: Vec<_> = told.collect();
        told.into_iter().map(|told| told.recv().unwrap_or_else(|_| Err(lost()))).collect()
    }
}

fn lost() -> Failure {
    let (reason, message) =
        ("internal".to_owned(), "a thread of this agent ended in the middle of the verb".to_owned());
    Failure { kind: Kind::Internal, reason, message }
}

fn place<'a>(member: &GroupMember<'a>) -> &'a ImagePlace {
    &member.mirrored.place
}

fn refused(failures: Failures) -> GroupError {
    GroupError::Refused { failures, forced: None }
}

fn all<T>(members: &[GroupMember<'_>], done: Vec<Result<T, Failure>>) -> Result<Vec<T>, Failures> {
    let (mut values, mut failures) = (Vec::with_capacity(done.len()), Vec::new());
    for (done, member) in done.into_iter().zip(members) {
        match done {
            Ok(value) => values.push(value),
            Err(failure) => failures.push((place(member).clone(), failure.into())),
        }
    }
    if failures.is_empty() { Ok(values) } else { Err(Failures(failures)) }
}

/// An image before its group is promoted.
#[derive(Debug)]
struct Standing {
    role: Role,
    /// What it is at.
    current: Option<SnapshotName>,
    /// Points whose snapshots are there and whole.
    ends: BTreeSet<SnapshotName>,
    planned: Result<(), Unsafe>,
    /// A primary whose users have written nothing since: its promotion may have been one of the group that was interrupted.
    is_unwritten: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Already,
    Planned,
    /// All images on this point, and what came after it is left.
    At(SnapshotName),
}

fn named(point: SnapshotName) -> PointName {
    PointName { number: point.id.number, taken_at_unix_secs: point.taken_at }
}

/// An image alone is cut with nobody: its group ends where it is.
fn end(standing: &[Standing]) -> Option<SnapshotName> {
    match standing {
        [alone] => alone.current,
        _ => common(standing.iter().map(|it| &it.ends)),
    }
}

fn common<'a>(mut ends: impl Iterator<Item = &'a BTreeSet<SnapshotName>>) -> Option<SnapshotName> {
    let first = ends.next()?.clone();
    let common = ends.fold(first, |common, ends| &common & ends);
    common.last().copied()
}

/// The newest point that all of these have.
pub fn newest_common(states: &[VolumeState]) -> Option<u64> {
    if let [alone] = states {
        return alone.current.map(|point| point.number);
    }
    let ends: Vec<_> = states.iter().map(delta::ends).collect();
    common(ends.iter()).map(|point| point.id.number)
}

fn decide(places: &[&ImagePlace], standing: &[Standing], force: bool) -> Result<How, GroupError> {
    let secondaries = || places.iter().zip(standing).filter(|(_, it)| it.role == Role::Secondary);
    let primaries = || standing.iter().filter(|it| it.role == Role::Primary);
    if secondaries().next().is_none() {
        return Ok(How::Already);
    }
    let refusals = |is_final: bool| -> Vec<_> {
        let refused = secondaries().filter_map(|(place, it)| {
            let why = it.planned.as_ref().err().filter(|why| !is_final || why.is_final())?;
            let (kind, reason) = (why.kind(), why.reason().to_owned());
            let message = format!("a promotion is not safe: {why}");
            Some(((*place).clone(), VerbError::Delta(Failure { kind, reason, message })))
        });
        refused.collect()
    };
    let (lossy, impossible) = (refusals(false), refusals(true));
    if !impossible.is_empty() {
        return Err(refused(Failures(impossible)));
    }
    if primaries().next().is_some() {
        // A promotion of the group that was interrupted: it goes on to where those are.
        if !primaries().all(|it| it.is_unwritten) {
            return Err(GroupError::Apart);
        }
        let at: BTreeSet<_> = primaries().map(|it| it.current).collect();
        let (Some(Some(at)), 1) = (at.first().copied(), at.len()) else { return Err(GroupError::Apart) };
        if !secondaries().all(|(_, it)| it.ends.contains(&at)) {
            return Err(GroupError::Apart);
        }
        let is_there = secondaries().all(|(_, it)| it.current == Some(at));
        return match (is_there && lossy.is_empty(), force) {
            (true, _) => Ok(How::Planned),
            (false, true) => Ok(How::At(at)),
            (false, false) => Err(GroupError::Begun { point: named(at) }),
        };
    }
    let is_even = standing.iter().all(|it| it.current == standing[0].current);
    if lossy.is_empty() && is_even {
        return Ok(How::Planned);
    }
    let common = end(standing);
    let lossy = if lossy.is_empty() { vec![((*places[0]).clone(), uneven().into())] } else { lossy };
    match (common, force) {
        (_, false) => Err(GroupError::Refused { failures: Failures(lossy), forced: Some(common.map(named)) }),
        (Some(common), true) => Ok(How::At(common)),
        (None, true) => Err(GroupError::NoCommonPoint),
    }
}

/// Each is whole for itself, and they are not of one moment.
fn uneven() -> Failure {
    let message =
        "the images of the group are not at one point: cut them anew (`group point`), then sync each of them once"
            .to_owned();
    Failure { kind: Kind::Precondition, reason: "group-uneven".to_owned(), message }
}

fn standing(copy: &Delta<'_, '_>, told: Result<PeerCopy, String>) -> Result<Standing, Failure> {
    let state = copy.state()?;
    let there = copy.look()?.ok_or_else(verbs::no_image)?.snapshots;
    let mut ends = delta::ends(&state);
    ends.retain(|name| there.contains_key(name));
    let current = state.current_point().map(SnapshotName::from);
    if state.role == Role::Secondary && current.is_none() {
        let message = "no sync has ever come here, so there is nothing to promote".to_owned();
        return Err(Failure { kind: Kind::Precondition, reason: "never-synced".to_owned(), message });
    }
    let planned = point::planned(&state, told.as_ref().map_err(Clone::clone));
    let is_unwritten = state.role == Role::Primary && verbs::is_unwritten(copy, &state)?;
    Ok(Standing { role: state.role, current, ends, planned, is_unwritten })
}

/// That it is being promoted is on record before the peer is asked, so that of two sites that promote at least one sees the other; or not any more.
fn claim(copy: &Delta<'_, '_>, promoting: bool) -> Result<(), Failure> {
    let state = copy.state()?;
    if state.role == Role::Primary || state.promoting == promoting {
        return Ok(());
    }
    copy.set_state(&VolumeState { promoting, ..state })
}

/// A demotion of the group that can't be carried out. Nobody writes to the copy meanwhile; but the other site may have been promoted.
fn take_back(
    copy: &Delta<'_, '_>,
    before: &VolumeState,
    ask: impl Fn() -> Result<PeerCopy, String>,
) -> Result<(), Failure> {
    claim(copy, true)?;
    let told = ask();
    if let Err(why) = point::planned(before, told.as_ref().map_err(Clone::clone)) {
        claim(copy, false)?;
        let message = format!("its demotion can't be taken back: {why}");
        return Err(Failure { kind: why.kind(), reason: why.reason().to_owned(), message });
    }
    copy.set_state(before)
}

impl Mirrors {
    /// In one order, so that two verbs never wait for each other.
    fn with_copies<'s, T>(
        &'s self,
        members: &'s [GroupMember<'s>],
        verb: Verb,
        what: impl FnOnce(&Copies<'s>) -> Result<T, GroupError>,
    ) -> Result<T, GroupError> {
        if members.is_empty() || members.len() > MEMBERS_MAX {
            return Err(GroupError::Members { members: members.len() });
        }
        thread::scope(|scope| {
            let mut copies = Copies(Vec::with_capacity(members.len()));
            for member in members {
                let (tasks, queue) = mpsc::channel::<Task<'s>>();
                let (tell, told) = mpsc::channel();
                scope.spawn(move || {
                    let held = self.with_delta(member.mirrored, verb, |copy| -> Result<(), MirrorError> {
                        let _ = tell.send(None);
                        while let Ok(task) = queue.recv() {
                            task(copy);
                        }
                        Ok(())
                    });
                    if let Err(error) = held {
                        let _ = tell.send(Some(Failure::from(error)));
                    }
                });
                match told.recv() {
                    Ok(None) => copies.0.push(tasks),
                    Ok(Some(failure)) => return Err(refused(Failures(vec![(place(member).clone(), failure.into())]))),
                    Err(_) => return Err(refused(Failures(vec![(place(member).clone(), lost().into())]))),
                }
            }
            what(&copies)
        })
    }

    /// A snapshot of all images at one moment, which the syncs that follow bring to the other site. Nobody has to wait for a sync of another of them.
    pub(in crate::mirror) fn cut_deltas(&self, members: &[GroupMember<'_>]) -> Result<GroupPoint, MirrorError> {
        let mut failed = None;
        for member in members {
            match self.with_delta(member.mirrored, Verb::Point, |copy| Ok::<_, MirrorError>(copy.cut_now()?)) {
                Ok(Some(name)) => return Ok(GroupPoint { name: named(name), spread: Default::default(), gone: 0 }),
                Ok(None) => return Err(MirrorError::Alone(place(member).clone())),
                // It is synced now; another one will do.
                Err(error) if error.reason() == "image-in-verb" => failed = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(failed.unwrap_or(MirrorError::Group(GroupError::Members { members: 0 })))
    }

    pub(in crate::mirror) fn promote_deltas(
        &self,
        members: &[GroupMember<'_>],
        force: bool,
    ) -> Result<GroupPromoted, MirrorError> {
        let places: Vec<_> = members.iter().map(place).collect();
        let done = self.with_copies(members, Verb::Promote, |copies| {
            let claimed = copies.each(|_, copy| claim(copy, true));
            let how = all(members, claimed).map_err(refused).and_then(|_| {
                let standing = copies.each(|at, copy| standing(copy, (members[at].copy)()));
                decide(&places, &all(members, standing).map_err(refused)?, force)
            });
            let how = how.inspect_err(|_| drop(copies.each(|_, copy| claim(copy, false))))?;
            let promoted = copies.each(move |at, copy| {
                let ask = || (members[at].copy)();
                match how {
                    How::Already => Ok(None),
                    How::Planned => verbs::promote(copy, Force::No, ask),
                    How::At(point) => verbs::promote_at(copy, point.id, ask),
                }
            });
            let kept = all(members, promoted)
                .map_err(|failures| GroupError::Partly { members: members.len(), failures })?;
            for (kept, place) in kept.into_iter().zip(&places) {
                if let Some(kept) = kept {
                    tracing::warn!(image = %place, point = %kept, "what somebody had written to the replica is kept as a restore point");
                }
            }
            Ok(how)
        })?;
        for member in members {
            self.with(member.mirrored, |image| {
                image.repair_csi();
                Ok(())
            })?;
        }
        Ok(match done {
            How::Already => GroupPromoted::Already,
            How::Planned => GroupPromoted::Planned,
            How::At(point) => GroupPromoted::Forced(named(point)),
        })
    }

    /// All or none.
    pub(in crate::mirror) fn demote_deltas(&self, members: &[GroupMember<'_>]) -> Result<(), MirrorError> {
        let places: Vec<_> = members.iter().map(place).collect();
        let demoted = self.with_copies(members, Verb::Demote, |copies| {
            let found = copies.each(|_, copy| verbs::may_demote(copy, Force::No));
            let before = all(members, found).map_err(refused)?;
            let points: BTreeSet<_> =
                before.iter().flatten().map(|it| it.current_point().map(SnapshotName::from)).collect();
            if points.len() > 1 {
                return Err(refused(Failures(vec![(places[0].clone(), uneven().into())])));
            }
            let before = Arc::new(before);
            let states = Arc::clone(&before);
            let done = copies.each(move |at, copy| match states[at].clone() {
                Some(state) => verbs::demote_now(copy, state),
                None => Ok(()),
            });
            let Err(failures) = all(members, done) else { return Ok(()) };
            // Also those whose change failed, since it may have been carried out.
            let taken_back = copies.each(move |at, copy| {
                before[at].as_ref().map_or(Ok(()), |state| take_back(copy, state, || (members[at].copy)()))
            });
            match all(members, taken_back) {
                Ok(_) => Err(refused(failures)),
                Err(Failures(stay)) => Err(GroupError::Partly {
                    members: members.len(),
                    failures: Failures(failures.0.into_iter().chain(stay).collect()),
                }),
            }
        });
        Ok(demoted?)
    }
}

#[cfg(test)]
mod tests {
    use drover_engine::point::PointId;

    use super::*;

    fn name(number: u64) -> SnapshotName {
        SnapshotName { id: PointId::sync(number), taken_at: 1_795_317_300 }
    }

    fn at(role: Role, points: &[u64], planned: Result<(), Unsafe>) -> Standing {
        let ends: BTreeSet<_> = points.iter().map(|number| name(*number)).collect();
        Standing { role, current: ends.last().copied(), ends, planned, is_unwritten: role == Role::Primary }
    }

    fn dead() -> Result<(), Unsafe> {
        Err(Unsafe::PeerUnknown("it is dead".to_owned()))
    }

    fn decided(standing: &[Standing], force: bool) -> Result<How, GroupError> {
        let place = ImagePlace { pool: "p".to_owned(), namespace: String::new(), image: "i".to_owned() };
        decide(&vec![&place; standing.len()], standing, force)
    }

    #[test]
    fn by_force_all_end_on_the_newest_point_that_all_have() {
        let standing = [at(Role::Secondary, &[3, 4, 6], dead()), at(Role::Secondary, &[3, 4, 5], dead())];
        assert_eq!(decided(&standing, true).unwrap(), How::At(name(4)));
        let refused = decided(&standing, false).unwrap_err();
        assert!(
            matches!(refused, GroupError::Refused { forced: Some(Some(point)), .. } if point.number == 4),
            "{refused}"
        );
        let none = [at(Role::Secondary, &[3], dead()), at(Role::Secondary, &[4], dead())];
        assert!(matches!(decided(&none, true), Err(GroupError::NoCommonPoint)));
    }

    #[test]
    fn the_same_number_of_another_moment_is_another_point() {
        let mut standing = [at(Role::Secondary, &[3], dead()), at(Role::Secondary, &[3], dead())];
        standing[1].ends = [SnapshotName { taken_at: 5, ..name(3) }].into();
        assert!(matches!(decided(&standing, true), Err(GroupError::NoCommonPoint)));
    }

    #[test]
    fn what_loses_nothing_is_not_rolled_back_by_force_either() {
        let standing = [at(Role::Secondary, &[3, 5], Ok(())), at(Role::Secondary, &[4, 5], Ok(()))];
        for force in [false, true] {
            assert_eq!(decided(&standing, force).unwrap(), How::Planned);
        }
        // Each has all that its peer had, and they are of two moments.
        let standing = [at(Role::Secondary, &[3, 5], Ok(())), at(Role::Secondary, &[3, 4], Ok(()))];
        assert_eq!(decided(&standing, true).unwrap(), How::At(name(3)));
        let refused = decided(&standing, false).unwrap_err();
        assert!(
            matches!(refused, GroupError::Refused { forced: Some(Some(point)), .. } if point.number == 3),
            "{refused}"
        );
    }

    #[test]
    fn an_image_alone_ends_where_it_is() {
        let mut alone = at(Role::Secondary, &[3], dead());
        alone.current = Some(name(7));
        assert_eq!(decided(&[alone], true).unwrap(), How::At(name(7)));
    }

    #[test]
    fn a_primary_that_is_used_was_not_promoted_with_its_group() {
        let mut used = at(Role::Primary, &[3], Ok(()));
        used.is_unwritten = false;
        let standing = [used, at(Role::Secondary, &[3, 4], dead())];
        assert!(matches!(decided(&standing, true), Err(GroupError::Apart)));
    }

    #[test]
    fn nothing_overrides_a_primary_at_the_peer() {
        let standing = [at(Role::Secondary, &[3], Ok(())), at(Role::Secondary, &[3], Err(Unsafe::PeerIsPrimary))];
        for force in [false, true] {
            assert!(matches!(decided(&standing, force), Err(GroupError::Refused { forced: None, .. })));
        }
    }

    #[test]
    fn an_interrupted_promotion_goes_on_to_where_it_came() {
        let promoted = || at(Role::Primary, &[3, 4], Ok(()));
        let mut first = promoted();
        first.current = Some(name(3));
        let behind = [first, at(Role::Secondary, &[3, 4], dead())];
        assert_eq!(decided(&behind, true).unwrap(), How::At(name(3)));
        assert!(matches!(decided(&behind, false), Err(GroupError::Begun { point }) if point.number == 3));
        // Without force it would be at another one.
        let further = [behind.into_iter().next().unwrap(), at(Role::Secondary, &[3, 4], Ok(()))];
        assert!(matches!(decided(&further, false), Err(GroupError::Begun { .. })));
        assert_eq!(decided(&[promoted(), at(Role::Secondary, &[3, 4], Ok(()))], false).unwrap(), How::Planned);
        assert!(matches!(decided(&[promoted(), at(Role::Secondary, &[3], dead())], true), Err(GroupError::Apart)));
        let two = [at(Role::Primary, &[3], Ok(())), promoted(), at(Role::Secondary, &[3, 4], dead())];
        assert!(matches!(decided(&two, true), Err(GroupError::Apart)));
        assert_eq!(decided(&[promoted(), promoted()], false).unwrap(), How::Already);
    }
}
