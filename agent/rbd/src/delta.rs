//! An image that Drover syncs itself, since its pool is not mirrored: what the engine asks of a copy, by workers, under the image's turn.
//!
//! What the volume knows of itself is a key of an omap object in the image's pool, so that a lost state directory loses nothing and every agent
//! of the cluster sees the same (R6). It is written by the turn's holder alone.

use std::{cell::RefCell, collections::BTreeSet};

use bytes::Bytes;
use drover_engine::{
    error::Kind,
    id::VolumeId,
    image::{Basis, ImageCopy, Leaf, Look, Range, SnapshotName, stream::Totals},
    point::{PointId, Role, VolumeState},
    session::{Failure, SessionError},
    volume::unix_now,
};

use crate::{
    crew::{Lane, Unmoved},
    data::{Content, DataRequest, LEAVES_MAX, RANGES_MAX, decode_leaves, decode_ranges, encode_leaves, encode_ranges},
    image::{Image, VerbError},
    point::PointName,
    request::{Cut, FailureKind, Reply, Request},
    turn::Turn,
    view::{ContentView, ImagePlace, TurnView},
};

/// Of a pool or namespace. Keys are ids of volumes.
const OBJECT: &str = "drover.states";
/// Of the history; the value of a key is no place for thousands of points.
const HISTORY_MAX: usize = 256;
/// Points after the newest one that all images of a group have; more than there are cuts before a group waits.
const BEYOND_MAX: usize = 64;

/// `drover.<point>.<UTC>`: as points of mirrored images, and `drover.12+1.<UTC>` for what was kept of a copy after point 12.
pub(crate) fn text(name: SnapshotName) -> String {
    let plain = PointName { number: name.id.number, taken_at_unix_secs: name.taken_at }.to_string();
    match name.id.kept {
        0 => plain,
        _ => plain.replacen(&format!(".{}.", name.id.number), &format!(".{}.", name.id), 1),
    }
}

pub(crate) fn parse(text: &str) -> Option<SnapshotName> {
    let (point, at) = text.strip_prefix("drover.")?.split_once('.')?;
    let id: PointId = point.parse().ok()?;
    let plain = PointName::parse(&format!("drover.{}.{at}", id.number))?;
    let name = SnapshotName { id, taken_at: plain.taken_at_unix_secs };
    // No second spelling of a name.
    (self::text(name) == text).then_some(name)
}

/// The state of a volume, by its id. `None`: there is none.
pub fn state(image: Image<'_>, volume: VolumeId) -> Result<Option<VolumeState>, VerbError> {
    let ImagePlace { pool, namespace, .. } = image.place.clone();
    let key = volume.to_string();
    let read = image.crew.call(&Request::ReadKey { pool, namespace, object: OBJECT.to_owned(), key })?;
    let Reply::Record(record) = read else { return Err(VerbError::Confused) };
    let Some((_, value)) = record.into_iter().next() else { return Ok(None) };
    let state = serde_json::from_str(&value).map_err(|_| VerbError::StateUnknown(image.place.clone()))?;
    Ok(Some(state))
}

fn write(place: &ImagePlace, volume: VolumeId, state: Option<&VolumeState>) -> Request {
    let value = state.map(|state| {
        let surplus = state.history.len().saturating_sub(HISTORY_MAX);
        let short = VolumeState { history: state.history[surplus..].to_vec(), ..state.clone() };
        serde_json::to_string(&short).expect("a state is JSON")
    });
    Request::WriteRecord {
        pool: place.pool.clone(),
        namespace: place.namespace.clone(),
        object: OBJECT.to_owned(),
        key: volume.to_string(),
        value,
    }
}

/// The images that one belongs with, itself among them: they are cut at one moment.
#[derive(Clone, Copy)]
pub struct Group<'g> {
    pub name: &'g str,
    pub look: &'g dyn Fn() -> Result<GroupView, Failure>,
}

/// What an agent knows of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupView {
    /// In one order at all agents.
    pub members: Vec<(VolumeId, ImagePlace)>,
    /// Pools that may have it.
    pub homes: Vec<String>,
}

/// The copy, while its turn is held.
pub struct Delta<'t, 'a> {
    turn: RefCell<&'t mut Turn<'a>>,
    volume: VolumeId,
    group: Option<Group<'t>>,
}

/// Points whose content a group may end on: of one moment with those of the same name of its other images, and after a rollback none that it left.
pub fn ends(state: &VolumeState) -> BTreeSet<SnapshotName> {
    let last = state.current.filter(|_| state.paused).map_or(u64::MAX, |current| current.number);
    let points = state.restorable.iter().chain(state.current_point());
    let ends = points.filter(|point| point.is_cut && point.id.number <= last && !state.damaged.contains(&point.id));
    ends.map(SnapshotName::from).collect()
}

impl<'t, 'a> Delta<'t, 'a> {
    pub fn new(turn: &'t mut Turn<'a>, volume: VolumeId, group: Option<Group<'t>>) -> Self {
        Self { turn: RefCell::new(turn), volume, group }
    }

    /// What the others of its group know of themselves. `None`: it is alone. One of them that is not enabled here yet knows nothing.
    fn others(&self) -> Result<Option<Others<'t>>, Failure> {
        let Some(group) = self.group else { return Ok(None) };
        let GroupView { members, homes } = (group.look)()?;
        let mut others =
            Others { group: group.name, homes, members: Vec::new(), known: Vec::new(), states: Vec::new() };
        for (id, place) in members {
            let known = state(Image { crew: self.image().crew, place: &place }, id)?;
            others.known.push(known.as_ref().map_or(0, VolumeState::highest_number));
            if id != self.volume {
                others.states.push((place.clone(), known));
            }
            others.members.push(place);
        }
        Ok(Some(others).filter(|others| !others.states.is_empty()))
    }

    fn cut_group(&self, others: Others<'_>, at_least: u64) -> Result<(SnapshotName, u64), Failure> {
        let is_primary = |state: &Option<VolumeState>| state.as_ref().is_some_and(|it| it.role == Role::Primary);
        if let Some((place, _)) = others.states.iter().find(|(_, state)| !is_primary(state)) {
            return Err(VerbError::GroupApart { group: others.group.to_owned(), place: place.clone() }.into());
        }
        let common = newest_common(&ImageCopy::state(self)?, &others).map_or(0, |name| name.id.number);
        let known = others.states.iter().filter_map(|(_, state)| Some(state.as_ref()?.highest_number() + 1)).max();
        let cut = Request::Cut(Cut {
            group: others.group.to_owned(),
            members: others.members,
            homes: others.homes,
            known: others.known,
            common,
            of: self.place(),
            serves: at_least,
            number: at_least.max(known.unwrap_or(0)),
            now_unix_secs: unix_now(),
        });
        let name = match self.turn.borrow_mut().change(&cut)? {
            Reply::Taken(name) => name,
            Reply::Behind(place) => {
                return Err(VerbError::GroupBehind { group: others.group.to_owned(), place }.into());
            }
            Reply::Contended => return Err(VerbError::GroupInCut(others.group.to_owned()).into()),
            _ => return Err(VerbError::Confused.into()),
        };
        let snapshots = self.look()?.map(|look| look.snapshots).unwrap_or_default();
        let found = parse(&name).and_then(|name| Some((name, *snapshots.get(&name)?)));
        found.ok_or_else(|| self.no_snapshot(&name))
    }

    /// A new cut of its group, for the syncs that follow. `None`: it is alone.
    pub fn cut_now(&self) -> Result<Option<SnapshotName>, Failure> {
        let state = ImageCopy::state(self)?;
        if state.role != Role::Primary {
            return Err(VerbError::NotPrimary(self.place()).into());
        }
        let pending = self.look()?.and_then(|look| look.cuts.last().map(|cut| cut.id.number)).unwrap_or(0);
        let at_least = state.highest_number().max(pending) + 1;
        Ok(self.cut(at_least)?.map(|(name, _)| name))
    }

    fn image(&self) -> Image<'a> {
        self.turn.borrow().image
    }

    fn place(&self) -> ImagePlace {
        self.image().place.clone()
    }

    fn content(&self) -> Result<Option<ContentView>, VerbError> {
        let image = self.image();
        let looked = self.turn.borrow_mut().ask(&Request::LookAtContent(image.place.clone()));
        match looked {
            Ok(Reply::Content(view)) if view.is_mirrored => Err(VerbError::IsMirrored(image.place.clone())),
            Ok(Reply::Content(view)) => Ok(Some(view)),
            Ok(_) => Err(VerbError::Confused),
            Err(error) if error.is(FailureKind::NotFound) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn change(&self, request: &Request) -> Result<(), VerbError> {
        self.turn.borrow_mut().change(request).map(drop)
    }

    /// What changes nothing needs no turn.
    fn look_through(&self, request: &DataRequest, content: &mut dyn Content) -> Result<Totals, SessionError> {
        let mut worker = self.image().crew.hold(Lane::Data).map_err(VerbError::from)?;
        worker.move_content(request, content).map_err(|unmoved| match unmoved {
            Unmoved::Caller { error, .. } => error,
            Unmoved::Call(error) => VerbError::from(error).into(),
        })
    }

    /// What is being done with the image, and was begun by somebody who lives as far as can be told.
    pub fn turn(image: Image<'_>) -> Result<Option<TurnView>, VerbError> {
        Ok(image.turn()?.filter(|turn| !turn.has_ended))
    }

    /// Is cut with its group no more, unless it has points that were: those go with the group's snapshots. `homes`: pools that may have the group.
    pub fn leave(&self, group: &str, homes: Vec<String>) -> Result<(), VerbError> {
        let view = self.content()?;
        if view.is_none_or(|view| view.snapshots.iter().any(|it| it.before.is_some())) {
            return Ok(());
        }
        self.change(&Request::LeaveGroup { place: self.place(), group: group.to_owned(), homes })
    }

    /// Forgets the volume.
    pub fn forget(&self) -> Result<(), VerbError> {
        self.change(&write(&self.place(), self.volume, None))
    }

    /// What a volume begins with, and has to be written. A secondary's image need not be there; one that is there must be blank, unless it is adopted.
    pub fn begin(&self, new: VolumeState, adopt: bool) -> Result<VolumeState, Failure> {
        let place = self.place();
        let content = self.content()?;
        if content.is_some()
            && let Err(error @ VerbError::NoLock(_)) = self.image().users()
        {
            return Err(error.into());
        }
        match (content, new.role) {
            (None, Role::Primary) => {
                let cluster = self.image().crew.name().to_owned();
                return Err(VerbError::NoImage { cluster, place }.into());
            }
            (Some(_), Role::Secondary) if !adopt && !self.head_changes(None)?.is_empty() => {
                return Err(VerbError::NotBlank(place).into());
            }
            (None, Role::Secondary) | (Some(_), _) => {}
        }
        // Of an earlier life of the image.
        let floor =
            self.look()?.into_iter().flat_map(|look| look.snapshots.into_keys()).map(|name| name.id.number).max();
        Ok(VolumeState { floor: floor.unwrap_or(0), ..new })
    }
}

/// What all have, on this side.
fn newest_common(state: &VolumeState, others: &Others<'_>) -> Option<SnapshotName> {
    let mut common = ends(state);
    for (_, other) in &others.states {
        let theirs = other.as_ref().map(ends).unwrap_or_default();
        common.retain(|name| theirs.contains(name));
    }
    common.last().copied()
}

struct Others<'g> {
    group: &'g str,
    homes: Vec<String>,
    /// All of the group.
    members: Vec<ImagePlace>,
    /// The highest number that each of these has used.
    known: Vec<u64>,
    states: Vec<(ImagePlace, Option<VolumeState>)>,
}

#[derive(Default)]
struct Ranges(Vec<Range>);

impl Content for Ranges {
    fn take(&mut self, frame: Bytes) -> Result<(), SessionError> {
        self.0.extend(decode_ranges(&frame));
        Ok(())
    }
}

struct Reading<'a> {
    /// Frames for the worker.
    wanted: &'a mut dyn Iterator<Item = Vec<u8>>,
    frame: &'a mut dyn FnMut(Bytes) -> Result<(), SessionError>,
}

impl Content for Reading<'_> {
    fn give(&mut self) -> Result<Option<Bytes>, SessionError> {
        Ok(self.wanted.next().map(Bytes::from))
    }

    fn take(&mut self, frame: Bytes) -> Result<(), SessionError> {
        if frame.is_empty() { Ok(()) } else { (self.frame)(frame) }
    }
}

struct Leaves<'a>(&'a mut dyn FnMut(&[Leaf]) -> Result<(), SessionError>);

impl Content for Leaves<'_> {
    fn take(&mut self, frame: Bytes) -> Result<(), SessionError> {
        (self.0)(&decode_leaves(&frame))
    }
}

struct Writing<'a>(&'a mut dyn FnMut() -> Result<Option<Bytes>, SessionError>);

impl Content for Writing<'_> {
    fn give(&mut self) -> Result<Option<Bytes>, SessionError> {
        (self.0)()
    }
}

struct Nothing;

impl Content for Nothing {}

impl ImageCopy for Delta<'_, '_> {
    fn state(&self) -> Result<VolumeState, Failure> {
        let image = self.image();
        let found = state(image, self.volume)?;
        found.ok_or_else(|| VerbError::NoVolume(image.place.clone()).into())
    }

    fn check_unused(&self) -> Result<(), Failure> {
        let image = self.image();
        let looked = self.turn.borrow_mut().ask(&Request::LookAtUsers(image.place.clone()));
        match image.unused_by(looked) {
            Err(error) if error.is(FailureKind::NotFound) => Ok(()),
            unused => Ok(unused?),
        }
    }

    fn open(&self) -> Result<bool, Failure> {
        let held = self.turn.borrow_mut().hold();
        match held {
            Err(error) if error.is(FailureKind::NotFound) => Ok(false),
            held => Ok(held.map(|()| true)?),
        }
    }

    fn keep_others_out(&self) -> Result<(), Failure> {
        self.check_unused()?;
        Ok(self.turn.borrow_mut().keep_others_out()?)
    }

    fn set_state(&self, state: &VolumeState) -> Result<(), Failure> {
        Ok(self.change(&write(&self.place(), self.volume, Some(state)))?)
    }

    fn look(&self) -> Result<Option<Look>, Failure> {
        let look = |view: ContentView| Look {
            size_bytes: view.size_bytes,
            order: view.order,
            snapshots: view.snapshots.iter().filter_map(|it| Some((parse(&it.name)?, it.size_bytes))).collect(),
            cuts: view.snapshots.iter().filter(|it| it.before.is_some()).filter_map(|it| parse(&it.name)).collect(),
        };
        Ok(self.content()?.map(look))
    }

    fn create(&self, size_bytes: u64, order: u8) -> Result<(), Failure> {
        Ok(self.change(&Request::Create { place: self.place(), size_bytes, order })?)
    }

    fn take(&self, snapshot: SnapshotName) -> Result<u64, Failure> {
        let name = text(snapshot);
        let request = Request::TakeSnapshot { place: self.place(), name: name.clone() };
        let taken = self.turn.borrow_mut().change(&request);
        match taken {
            Ok(Reply::Size(size_bytes)) => return Ok(size_bytes),
            Ok(_) => return Err(VerbError::Confused.into()),
            Err(error) if error.is(FailureKind::Exists) => {}
            Err(error) => return Err(error.into()),
        }
        let there = self.look()?.and_then(|look| look.snapshots.get(&snapshot).copied());
        there.ok_or_else(|| self.no_snapshot(&name))
    }

    fn remove(&self, snapshot: SnapshotName) -> Result<(), Failure> {
        let (name, view) = (text(snapshot), self.content()?);
        let found = view.into_iter().flat_map(|view| view.snapshots).find(|snapshot| snapshot.name == name);
        // That of a group without the one before it is none any more.
        for id in found.into_iter().flat_map(|found| [Some(found.id), found.before]).flatten() {
            match self.change(&Request::RemoveSnapshot { place: self.place(), id }) {
                Err(error) if error.is(FailureKind::NotFound) => {}
                removed => removed?,
            }
        }
        Ok(())
    }

    fn cut(&self, at_least: u64) -> Result<Option<(SnapshotName, u64)>, Failure> {
        self.others()?.map(|others| self.cut_group(others, at_least)).transpose()
    }

    fn kept_from(&self, state: &VolumeState) -> Result<Option<u64>, Failure> {
        let Some(others) = self.others()? else { return Ok(None) };
        let common = newest_common(state, &others).map_or(0, |name| name.id.number);
        // One that is gone at the other site, and here not, would keep all for ever.
        let beyond: Vec<_> = ends(state).into_iter().filter(|name| name.id.number > common).collect();
        let surplus = beyond.len().saturating_sub(BEYOND_MAX);
        Ok(Some(if surplus > 0 { beyond[surplus].id.number } else { common }))
    }

    fn head_changes(&self, since: Option<SnapshotName>) -> Result<Vec<Range>, Failure> {
        let mut ranges = Ranges::default();
        let request = DataRequest::Head { place: self.place(), since: since.map(text) };
        self.look_through(&request, &mut ranges).map_err(|error| error.to_failure())?;
        Ok(ranges.0)
    }

    fn read(
        &self,
        from: &Basis<'_>,
        to: SnapshotName,
        asked: &[Range],
        frame: &mut dyn FnMut(Bytes) -> Result<(), SessionError>,
    ) -> Result<Totals, SessionError> {
        let (from, leaves) = match from {
            Basis::Snapshot(name) => (Some(text(*name)), [].as_slice()),
            Basis::Leaves(leaves) => (None, *leaves),
        };
        let request = DataRequest::Read { place: self.place(), from, to: text(to) };
        let ranges = asked.chunks(RANGES_MAX).map(encode_ranges);
        let leaves = leaves.chunks(LEAVES_MAX).map(encode_leaves);
        let mut wanted = ranges.chain([Vec::new()]).chain(leaves);
        self.look_through(&request, &mut Reading { wanted: &mut wanted, frame })
    }

    fn write(
        &self,
        size_bytes: u64,
        frames: &mut dyn FnMut() -> Result<Option<Bytes>, SessionError>,
    ) -> Result<Totals, SessionError> {
        let request = DataRequest::Write { place: self.place(), size_bytes };
        self.turn.borrow_mut().move_content(&request, &mut Writing(frames))
    }

    fn digests(
        &self,
        of: Option<SnapshotName>,
        leaves: &mut dyn FnMut(&[Leaf]) -> Result<(), SessionError>,
    ) -> Result<(), SessionError> {
        let request = DataRequest::Digests { place: self.place(), of: of.map(text) };
        self.look_through(&request, &mut Leaves(leaves)).map(drop)
    }

    fn restore(&self, to: SnapshotName) -> Result<(), Failure> {
        let request = DataRequest::Restore { place: self.place(), to: text(to) };
        let restored = self.turn.borrow_mut().move_content(&request, &mut Nothing);
        restored.map(drop).map_err(|error| error.to_failure())
    }
}

impl Delta<'_, '_> {
    fn no_snapshot(&self, name: &str) -> Failure {
        Failure {
            kind: Kind::DataLoss,
            reason: "snapshot-gone".to_owned(),
            message: format!("snapshot {name} of {} was removed by another hand", self.place()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_was_written_and_no_other_way() {
        for (name, kept) in [("drover.12.20261122T031500Z", 0), ("drover.12+1.20261122T031500Z", 1)] {
            let parsed = parse(name).expect("a name");
            assert_eq!((parsed.id, text(parsed).as_str()), (PointId { number: 12, kept }, name));
        }
        for other in ["drover.12+0.20261122T031500Z", "drover.012.20261122T031500Z", "drover.12", "snap"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
