//! Verify: is the replica its point, and is the source still that point?

use std::{cmp::Ordering, collections::VecDeque};

use super::{ImageFrom, ImageMessage, ImageOffer, finished, held, receive, send};
use crate::{
    control::Phase,
    error::Kind,
    image::{Ground, ImageCopy, LEAF_BYTES, Leaf, Range, SnapshotName, is_at, verbs::no_image},
    point::Point,
    report::{PATHS_SHOWN, Report, VerifyReport},
    session::{Failure, SessionError, Wire, sink::finish},
};

/// Of these a state remembers where they are; of more, ranges with what lies between.
const RANGES_MAX: usize = 1024;

pub(super) fn source(wire: &Wire<'_>, image: &dyn ImageCopy, deep: bool) -> Result<Report, SessionError> {
    let progress = &wire.control().progress;
    progress.enter(Phase::Verifying, 0, 0);
    let state = image.state()?;
    let look = image.look()?.ok_or_else(|| SessionError::Image(no_image()))?;
    let points = held(&state, &look.snapshots);
    send(
        wire,
        ImageMessage::Offer(ImageOffer {
            state,
            size_bytes: look.size_bytes,
            order: look.order,
            points: points.clone(),
        }),
    )?;
    let ImageMessage::From(from) = receive(wire, "from")? else {
        return Err(SessionError::Protocol("asked for what no verification needs"));
    };
    let point = points.iter().find(|point| Some(point.id) == from.base);
    let point: SnapshotName = point.ok_or(SessionError::Protocol("named an unknown point"))?.into();
    send(wire, ImageMessage::Head(is_at(image, &look, point)?))?;
    if deep {
        image.digests(Some(point), &mut |leaves| {
            progress.bytes_done.add(leaves.len() as u64 * LEAF_BYTES);
            send(wire, ImageMessage::Leaves(leaves.to_vec()))
        })?;
        send(wire, ImageMessage::LeavesEnd)?;
    }
    match finished(wire)? {
        report @ Report::Verify(_) => Ok(report),
        _ => Err(SessionError::Protocol("sent a report of another kind")),
    }
}

pub(super) fn sink(wire: &Wire<'_>, image: &dyn ImageCopy, deep: bool) -> Result<Report, SessionError> {
    let progress = &wire.control().progress;
    progress.enter(Phase::Verifying, 0, 0);
    let mut state = image.state()?;
    let look = image.look()?.ok_or_else(|| SessionError::Image(no_image()))?;
    let ImageMessage::Offer(offer) = receive(wire, "image offer")? else {
        return Err(SessionError::Protocol("offered nothing"));
    };
    let current = state.current_point().cloned();
    let is_common = |point: &Point| {
        look.snapshots.contains_key(&SnapshotName::from(point)) && offer.points.iter().any(|it| it.is(point))
    };
    let (reason, message) = match current {
        None => ("never-synced", "no sync has ever come here: there is nothing to verify"),
        Some(_) => {
            ("point-not-at-source", "the replica's newest point has no snapshot at the source, or here: sync first")
        }
    };
    let Some(point) = current.filter(is_common) else {
        return Err(SessionError::Image(Failure {
            kind: Kind::Precondition,
            reason: reason.to_owned(),
            message: message.to_owned(),
        }));
    };
    let name = SnapshotName::from(&point);
    send(wire, ImageMessage::From(ImageFrom { base: Some(point.id), current: Some(point.clone()) }))?;
    let is_head = is_at(image, &look, name)?;
    let ImageMessage::Head(is_source_head) = receive(wire, "head")? else {
        return Err(SessionError::Protocol("sent another thing than what was asked for"));
    };
    let size_bytes = look.snapshots.get(&name).copied().unwrap_or(look.size_bytes);
    let mut content = Ground::default();
    let mut roots = [point.root.to_string(), point.root.to_string()];
    let mut differing = Differing { size_bytes, ..Differing::default() };
    if deep {
        let mut theirs =
            Theirs { wire, waiting: VecDeque::new(), has_ended: false, after: None, content: Ground::default() };
        image.digests(Some(name), &mut |leaves| {
            progress.bytes_done.add(leaves.len() as u64 * LEAF_BYTES);
            leaves.iter().for_each(|leaf| content.add(&[*leaf]));
            leaves.iter().try_for_each(|leaf| theirs.compare(Some(*leaf), &mut differing))
        })?;
        theirs.compare(None, &mut differing)?;
        roots = [content, theirs.content].map(|content| content.digest().to_string());
        let before = state.clone();
        state.differs.clone_from(&differing.ranges);
        state.damaged.retain(|id| *id != point.id);
        state.damaged.extend((differing.leaves > 0).then_some(point.id));
        if state != before {
            image.set_state(&state)?;
        }
    }
    let [replica_root, source_root] = roots;
    let report = VerifyReport {
        deep,
        replica_is_point: is_head && differing.leaves == 0,
        source_is_point: is_source_head,
        replica_differs: Vec::new(),
        replica_differs_total: differing.leaves,
        differs_at: differing.ranges.into_iter().take(PATHS_SHOWN).collect(),
        source_differs: Vec::new(),
        source_differs_total: 0,
        source_rotten: Vec::new(),
        point: Some(point.id),
        replica_root,
        source_root,
        entries: 1,
        bytes: size_bytes,
    };
    let report = Report::Verify(report);
    finish(wire, &report)?;
    Ok(report)
}

/// Leaves that are not the same at both sides.
#[derive(Debug, Default)]
struct Differing {
    size_bytes: u64,
    leaves: u64,
    ranges: Vec<Range>,
}

impl Differing {
    fn add(&mut self, number: u64) {
        self.leaves += 1;
        let offset = number * LEAF_BYTES;
        let end = (offset + LEAF_BYTES).min(self.size_bytes.max(offset));
        let is_full = self.ranges.len() >= RANGES_MAX;
        match self.ranges.last_mut() {
            Some(last) if is_full || last.end() == offset => last.length = end - last.offset,
            _ => self.ranges.push(Range { offset, length: end - offset }),
        }
    }
}

/// The other side's leaves, as they come.
struct Theirs<'a> {
    wire: &'a Wire<'a>,
    waiting: VecDeque<Leaf>,
    has_ended: bool,
    after: Option<u64>,
    /// Of those that have passed.
    content: Ground,
}

impl Theirs<'_> {
    fn front(&mut self) -> Result<Option<Leaf>, SessionError> {
        while self.waiting.is_empty() && !self.has_ended {
            match receive(self.wire, "leaves")? {
                ImageMessage::Leaves(leaves) => self.waiting.extend(leaves),
                ImageMessage::LeavesEnd => self.has_ended = true,
                _ => return Err(SessionError::Protocol("sent another thing than leaves")),
            }
        }
        let Some(front) = self.waiting.front().copied() else { return Ok(None) };
        if self.after.is_some_and(|after| front.number <= after) {
            return Err(SessionError::Protocol("sent leaves that are not in order"));
        }
        Ok(Some(front))
    }

    fn pass(&mut self, front: Leaf) {
        self.after = Some(front.number);
        self.content.add(&[front]);
        self.waiting.pop_front();
    }

    /// `ours`: the next leaf that is here. `None`: there are no more.
    fn compare(&mut self, ours: Option<Leaf>, differing: &mut Differing) -> Result<(), SessionError> {
        let leaves = differing.size_bytes.div_ceil(LEAF_BYTES);
        while let Some(front) = self.front()? {
            if front.number >= leaves {
                return Err(SessionError::Protocol("sent leaves beyond the image"));
            }
            let order = ours.map_or(Ordering::Less, |ours| front.number.cmp(&ours.number));
            match order {
                Ordering::Greater => break,
                Ordering::Less => {
                    self.pass(front);
                    differing.add(front.number);
                }
                Ordering::Equal => {
                    self.pass(front);
                    if ours != Some(front) {
                        differing.add(front.number);
                    }
                    return Ok(());
                }
            }
        }
        // Zeros there.
        if let Some(ours) = ours {
            differing.add(ours.number);
        }
        Ok(())
    }
}
