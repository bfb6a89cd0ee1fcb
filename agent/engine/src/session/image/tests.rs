//! The bookkeeping of points, on images in memory that fail where they are told to. Real ones are in the end-to-end tests.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    thread,
};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::{
    control::Control,
    image::{
        Basis, LEAF_BYTES, Look,
        stream::{Change, Decoder, Encoder},
        verbs,
    },
    path::RelPath,
    point::{Force, Origin, PeerCopy, Role},
    report::{SyncReport, VerifyReport},
    session::{LocalLink, SyncOptions, greet},
};

const BLOCK: usize = 64;

#[derive(Clone, Debug)]
struct Copy {
    state: VolumeState,
    head: Vec<u8>,
    snapshots: BTreeMap<SnapshotName, Vec<u8>>,
    /// Calls that change something until one fails; that one is not carried out.
    calls_left: Option<u32>,
    /// Snapshots of its group, and what its others have.
    cuts: BTreeSet<SnapshotName>,
    kept_from: Option<u64>,
}

#[derive(Debug)]
struct Memory(RefCell<Copy>);

fn failed() -> Failure {
    Failure { kind: Kind::Unavailable, reason: "test".to_owned(), message: "told to fail".to_owned() }
}

impl Memory {
    fn new(volume: VolumeId, role: Role, blocks: usize) -> Self {
        let mut state = VolumeState::new(volume, RelPath::root(), role, 3);
        state.blank = role == Role::Secondary;
        Self(RefCell::new(Copy {
            state,
            head: vec![0; blocks * BLOCK],
            snapshots: BTreeMap::new(),
            calls_left: None,
            cuts: BTreeSet::new(),
            kept_from: None,
        }))
    }

    fn change<T>(&self, change: impl FnOnce(&mut Copy) -> T) -> Result<T, Failure> {
        let mut copy = self.0.borrow_mut();
        if let Some(left) = &mut copy.calls_left {
            *left = left.checked_sub(1).ok_or_else(failed)?;
        }
        Ok(change(&mut copy))
    }

    fn write_block(&self, block: usize, byte: u8) {
        let mut copy = self.0.borrow_mut();
        let at = block * BLOCK % copy.head.len();
        copy.head[at..at + BLOCK].fill(byte);
    }

    fn at(&self, snapshot: Option<SnapshotName>, length: usize) -> Vec<u8> {
        let copy = self.0.borrow();
        let mut content = snapshot.map_or_else(Vec::new, |snapshot| copy.snapshots[&snapshot].clone());
        content.resize(length, 0);
        content
    }

    fn newest(&self) -> Vec<u8> {
        let point = self.0.borrow().state.current_point().map(SnapshotName::from).expect("a point");
        self.0.borrow().snapshots[&point].clone()
    }

    /// By a sync of another image of its group.
    fn cut(&self, number: u64) -> Vec<u8> {
        let mut copy = self.0.borrow_mut();
        let (name, head) = (SnapshotName { id: PointId::sync(number), taken_at: 5 }, copy.head.clone());
        copy.cuts.insert(name);
        copy.snapshots.insert(name, head.clone());
        head
    }

    fn promote(&self) {
        verbs::promote(self, Force::Yes, || Err("it is dead".to_owned())).unwrap();
    }
}

fn sizes(copy: &Copy) -> BTreeMap<SnapshotName, u64> {
    copy.snapshots.iter().map(|(name, content)| (*name, content.len() as u64)).collect()
}

fn differing(old: &[u8], new: &[u8]) -> Vec<Range> {
    let blocks = new.chunks(BLOCK).enumerate().filter(|(n, block)| **block != old[n * BLOCK..][..block.len()]);
    blocks.map(|(n, block)| Range { offset: (n * BLOCK) as u64, length: block.len() as u64 }).collect()
}

impl ImageCopy for Memory {
    fn state(&self) -> Result<VolumeState, Failure> {
        Ok(self.0.borrow().state.clone())
    }

    fn check_unused(&self) -> Result<(), Failure> {
        Ok(())
    }

    fn open(&self) -> Result<bool, Failure> {
        Ok(true)
    }

    fn keep_others_out(&self) -> Result<(), Failure> {
        self.change(|_| ())
    }

    fn set_state(&self, state: &VolumeState) -> Result<(), Failure> {
        self.change(|copy| copy.state = state.clone())
    }

    fn look(&self) -> Result<Option<Look>, Failure> {
        let copy = self.0.borrow();
        let snapshots = sizes(&copy);
        let cuts = copy.cuts.iter().filter(|cut| snapshots.contains_key(cut)).copied().collect();
        Ok(Some(Look { size_bytes: copy.head.len() as u64, order: 22, snapshots, cuts }))
    }

    fn cut(&self, at_least: u64) -> Result<Option<(SnapshotName, u64)>, Failure> {
        let copy = self.0.borrow();
        let pending = copy.cuts.iter().find(|cut| cut.id.number >= at_least && copy.snapshots.contains_key(cut));
        Ok(pending.map(|cut| (*cut, copy.snapshots[cut].len() as u64)))
    }

    fn kept_from(&self, _: &VolumeState) -> Result<Option<u64>, Failure> {
        Ok(self.0.borrow().kept_from)
    }

    fn create(&self, _: u64, _: u8) -> Result<(), Failure> {
        unreachable!("it is there")
    }

    fn take(&self, snapshot: SnapshotName) -> Result<u64, Failure> {
        self.change(|copy| {
            let head = copy.head.clone();
            copy.snapshots.entry(snapshot).or_insert(head).len() as u64
        })
    }

    fn remove(&self, snapshot: SnapshotName) -> Result<(), Failure> {
        self.change(|copy| drop(copy.snapshots.remove(&snapshot)))
    }

    fn head_changes(&self, since: Option<SnapshotName>) -> Result<Vec<Range>, Failure> {
        let head = self.0.borrow().head.clone();
        let length = since.map_or(0, |since| self.0.borrow().snapshots[&since].len()).max(head.len());
        let mut padded = head;
        padded.resize(length, 0);
        Ok(differing(&self.at(since, length), &padded))
    }

    fn read(
        &self,
        from: &Basis<'_>,
        to: SnapshotName,
        asked: &[Range],
        frame: &mut dyn FnMut(Bytes) -> Result<(), SessionError>,
    ) -> Result<Totals, SessionError> {
        let new = self.0.borrow().snapshots[&to].clone();
        let (from, known) = match from {
            Basis::Snapshot(name) => (Some(*name), [].as_slice()),
            Basis::Leaves(leaves) => (None, *leaves),
        };
        let old = self.at(from, new.len());
        let leaves: Vec<_> = new.chunks(LEAF_BYTES as usize).map(Digest::of).collect();
        let is_known = |offset: usize| {
            let number = offset / LEAF_BYTES as usize;
            known.contains(&Leaf { number: number as u64, digest: leaves[number] })
        };
        let mut encoder = Encoder::default();
        for (n, block) in new.chunks(BLOCK).enumerate() {
            let range = Range { offset: (n * BLOCK) as u64, length: block.len() as u64 };
            let is_asked = asked.iter().any(|asked| asked.offset < range.end() && range.offset < asked.end());
            if is_known(n * BLOCK) || (!is_asked && old[n * BLOCK..][..block.len()] == *block) {
                continue;
            }
            match block.iter().all(|byte| *byte == 0) {
                true => encoder.zeros(range),
                false => encoder.data(range.offset, block),
            }
        }
        let (last, totals) = encoder.finish();
        last.map_or(Ok(()), |last| frame(last.into()))?;
        Ok(totals)
    }

    fn write(
        &self,
        size_bytes: u64,
        frames: &mut dyn FnMut() -> Result<Option<Bytes>, SessionError>,
    ) -> Result<Totals, SessionError> {
        self.change(|copy| copy.head.resize(size_bytes as usize, 0))?;
        let mut decoder = Decoder::new(size_bytes);
        while let Some(frame) = frames()? {
            for change in decoder.changes(&frame).expect("a frame") {
                self.change(|copy| match change {
                    Change::Data { offset, data } => copy.head[offset as usize..][..data.len()].copy_from_slice(data),
                    Change::Zeros(range) => copy.head[range.offset as usize..][..range.length as usize].fill(0),
                })?;
            }
        }
        Ok(decoder.totals())
    }

    fn digests(
        &self,
        of: Option<SnapshotName>,
        leaves: &mut dyn FnMut(&[Leaf]) -> Result<(), SessionError>,
    ) -> Result<(), SessionError> {
        let content = match of {
            Some(of) => self.0.borrow().snapshots[&of].clone(),
            None => self.0.borrow().head.clone(),
        };
        let parts = content.chunks(LEAF_BYTES as usize).enumerate();
        let found = parts.filter(|(_, part)| part.iter().any(|byte| *byte != 0));
        let found: Vec<_> =
            found.map(|(number, part)| Leaf { number: number as u64, digest: Digest::of(part) }).collect();
        found.chunks(3).try_for_each(leaves)
    }

    fn restore(&self, to: SnapshotName) -> Result<(), Failure> {
        self.change(|copy| copy.head.clone_from(&copy.snapshots[&to]))
    }
}

/// Each side on a thread of its own, with a copy of its image that comes back.
fn run(source: &Memory, sink: &Memory, intent: &Intent) -> Result<Report, SessionError> {
    let (left, right) = LocalLink::pair();
    let volume = source.0.borrow().state.volume;
    let (theirs, answered) = thread::scope(|scope| {
        let copy = sink.0.borrow().clone();
        let listener = scope.spawn(move || {
            let (control, copy) = (Control::default(), Memory(RefCell::new(copy)));
            let wire = Wire::new(&right, &control);
            let answered = greet(&wire).and_then(|hello| answer_image(&wire, &hello, &copy));
            drop(right);
            (copy.0.into_inner(), answered)
        });
        let control = Control::default();
        let wire = Wire::new(&left, &control);
        let dialled = dial_image(&wire, volume, source, Side::Source, intent, "test");
        drop(left);
        let (copy, answered) = listener.join().unwrap();
        (copy, answered.and(dialled))
    });
    *sink.0.borrow_mut() = theirs;
    answered
}

fn sync(source: &Memory, sink: &Memory) -> Result<SyncReport, SessionError> {
    match run(source, sink, &Intent::Sync(SyncOptions::default()))? {
        Report::Sync(report) => Ok(report),
        other => panic!("{other:?}"),
    }
}

fn pair(blocks: usize) -> (Memory, Memory) {
    let volume = VolumeId::random();
    (Memory::new(volume, Role::Primary, blocks), Memory::new(volume, Role::Secondary, blocks))
}

#[test]
fn what_changed_moves_and_points_are_kept() {
    let (a, b) = pair(32);
    for round in 1..=6 {
        a.write_block(round * 3, round as u8);
        let report = sync(&a, &b).unwrap();
        assert_eq!(report.changes.bytes_changed, BLOCK as u64, "round {round}");
        assert_eq!((report.point.unwrap().id, report.unchanged), (PointId::sync(round as u64), false));
        assert_eq!(b.newest(), a.0.borrow().head);
        let report = sync(&a, &b).unwrap();
        assert!(report.unchanged && report.changes.is_empty());
    }
    for copy in [&a, &b] {
        let copy = copy.0.borrow();
        // Three besides the current one.
        assert_eq!((copy.snapshots.len(), copy.state.restorable.len()), (4, 4));
        assert_eq!(copy.state.history.len(), 6);
    }
}

#[test]
fn a_size_that_changes_alone_is_a_point() {
    let (a, b) = pair(8);
    a.write_block(7, 1);
    sync(&a, &b).unwrap();
    for blocks in [4, 6, 8] {
        a.0.borrow_mut().head.resize(blocks * BLOCK, 0);
        assert!(!sync(&a, &b).unwrap().unchanged);
        assert_eq!(b.newest(), a.0.borrow().head);
    }
}

#[test]
fn a_cut_of_the_group_is_the_next_point_and_what_is_older_is_swept() {
    let (a, b) = pair(8);
    a.write_block(1, 1);
    assert!(!sync(&a, &b).unwrap().point.unwrap().is_cut);
    a.cut(3);
    a.write_block(2, 2);
    let content = a.cut(4);
    a.write_block(3, 3);
    let point = sync(&a, &b).unwrap().point.unwrap();
    assert_eq!((point.id, point.is_cut), (PointId::sync(4), true));
    assert_eq!(b.newest(), content, "and not what was written since");
    assert_eq!(a.0.borrow().snapshots.len(), 2, "the superseded cut is gone");
    // Others have points that this one has nothing new for.
    a.cut(5);
    sync(&a, &b).unwrap();
    a.cut(6);
    let report = sync(&a, &b).unwrap();
    assert_eq!((report.unchanged, report.point.unwrap().id), (false, PointId::sync(6)));
}

#[test]
fn a_cut_of_before_a_promotion_is_no_point() {
    let (a, b) = pair(8);
    for byte in 1..=3 {
        a.write_block(1, byte);
        sync(&a, &b).unwrap();
    }
    a.write_block(2, 9);
    a.cut(7);
    // What was written is given up.
    verbs::demote(&a, Force::Yes).unwrap();
    verbs::rollback(&a, PointId::sync(2)).unwrap();
    a.promote();
    let content = a.0.borrow().head.clone();
    verbs::request_resync(&b).unwrap();
    let point = sync(&a, &b).unwrap().point.unwrap();
    assert_eq!((b.newest(), point.is_cut), (content, false));
    assert!(point.id.number > 7 && a.0.borrow().snapshots.keys().all(|name| name.id.number != 7), "{point:?}");
}

/// A failover after which nobody wrote, and back again.
#[test]
fn a_line_without_a_change_is_known_to_both() {
    let (a, b) = pair(8);
    a.write_block(1, 1);
    sync(&a, &b).unwrap();
    a.0.borrow_mut().state.demote();
    b.promote();
    sync(&b, &a).unwrap();
    b.0.borrow_mut().state.demote();
    a.promote();
    assert!(sync(&a, &b).is_ok() && sync(&a, &b).unwrap().unchanged);
}

/// Nobody wrote while the copy that is given up was primary.
#[test]
fn a_line_that_is_given_up_before_its_first_point_leaves_nothing_behind() {
    let (a, b) = pair(8);
    a.write_block(1, 1);
    sync(&a, &b).unwrap();
    b.promote();
    b.0.borrow_mut().state.demote();
    assert!(sync(&a, &b).is_err(), "it was superseded");
    verbs::request_resync(&b).unwrap();
    sync(&a, &b).unwrap();
    a.write_block(2, 2);
    sync(&a, &b).unwrap();
    assert_eq!(b.newest(), a.0.borrow().head);
}

#[test]
fn numbers_that_leave_no_room_are_refused() {
    let (a, b) = pair(8);
    a.write_block(1, 1);
    sync(&a, &b).unwrap();
    a.0.borrow_mut().state.history[0].id.number = u64::MAX;
    assert!(sync(&a, &b).is_err());
    assert_eq!(b.0.borrow().state.highest_number(), 1);
}

fn verify(source: &Memory, sink: &Memory, deep: bool) -> VerifyReport {
    match run(source, sink, &Intent::Verify { deep }).unwrap() {
        Report::Verify(report) => report,
        other => panic!("{other:?}"),
    }
}

/// Leaves that are there on one side alone, on both, and beyond what the other one has.
#[test]
fn a_verification_names_what_differs_and_the_next_sync_mends_it() {
    const LEAF: usize = LEAF_BYTES as usize;
    let (a, b) = pair(5 * LEAF / BLOCK);
    for leaf in [0, 2, 3] {
        a.write_block((leaf * LEAF + 9 * BLOCK) / BLOCK, 7);
    }
    sync(&a, &b).unwrap();
    let point = SnapshotName::from(b.0.borrow().state.current_point().unwrap());
    let good = verify(&a, &b, true);
    assert!(good.replica_is_point && good.source_is_point && good.differs_at.is_empty());
    {
        let copy = &mut *b.0.borrow_mut();
        for content in [&mut copy.head, copy.snapshots.get_mut(&point).unwrap()] {
            content[9 * BLOCK..10 * BLOCK].fill(0);
            content[LEAF] = 1;
            content[2 * LEAF + 5] = 1;
            content[4 * LEAF] = 1;
        }
    }
    assert!(verify(&a, &b, false).replica_is_point, "nothing was read");
    let bad = verify(&a, &b, true);
    let at = |first: u64, leaves: u64| Range { offset: first * LEAF_BYTES, length: leaves * LEAF_BYTES };
    assert_eq!((bad.differs_at, bad.replica_differs_total), (vec![at(0, 3), at(4, 1)], 4));
    assert!(!bad.replica_is_point && bad.replica_root != bad.source_root);
    let refused = verbs::rollback(&b, point.id).unwrap_err();
    assert_eq!(refused.reason, "point-damaged");
    let demoted = || Ok(PeerCopy { role: Role::Secondary, is_promoting: false, newest: None });
    assert_eq!(verbs::promote(&b, Force::No, demoted).unwrap_err().reason, "point-damaged");
    assert!(!sync(&a, &b).unwrap().unchanged);
    assert!(verify(&a, &b, true).replica_is_point);
    let damaged = b.0.borrow().state.damaged.clone();
    assert_eq!(damaged, [point.id], "of the older one nothing better is known");
    assert!(sync(&a, &b).unwrap().unchanged);
}

/// A copy that was made by other means, or an interrupted first one.
#[test]
fn what_a_copy_without_a_point_holds_is_not_sent_once_more() {
    const LEAF: usize = LEAF_BYTES as usize;
    let (a, b) = pair(4 * LEAF / BLOCK);
    for leaf in 0..3 {
        a.write_block((leaf * LEAF + 5 * BLOCK) / BLOCK, leaf as u8 + 1);
    }
    b.0.borrow_mut().head.clone_from(&a.0.borrow().head);
    b.0.borrow_mut().state.staging = true;
    for offset in [LEAF + 7, 3 * LEAF + 9] {
        b.0.borrow_mut().head[offset] = 9;
    }
    let report = sync(&a, &b).unwrap();
    assert_eq!(b.newest(), a.0.borrow().head);
    assert!(report.changes.bytes_needed <= 2 * LEAF_BYTES, "{report:?}");
    assert!(sync(&a, &b).unwrap().unchanged);
}

#[test]
fn a_plan_tells_what_would_move_and_changes_nothing() {
    let (a, b) = pair(16);
    a.write_block(1, 1);
    let plan = || match run(&a, &b, &Intent::Plan(SyncOptions::default())).unwrap() {
        Report::Plan(plan) => plan,
        other => panic!("{other:?}"),
    };
    assert_eq!(plan().changes.bytes_changed, BLOCK as u64, "a first copy");
    sync(&a, &b).unwrap();
    assert!(plan().changes.is_empty());
    a.write_block(2, 2);
    b.write_block(9, 9);
    let (before, after) = (a.0.borrow().state.clone(), b.0.borrow().state.clone());
    assert_eq!(plan().changes.bytes_changed, 2 * BLOCK as u64);
    assert_eq!((&a.0.borrow().state, &b.0.borrow().state), (&before, &after));
    b.promote();
    assert!(run(&a, &b, &Intent::Plan(SyncOptions::default())).is_err(), "two primaries");
}

#[test]
fn a_rollback_keeps_what_nobody_has_and_pauses() {
    let (a, b) = pair(8);
    for round in 1..=3 {
        a.write_block(round, round as u8);
        sync(&a, &b).unwrap();
    }
    let at = |number| {
        let point = b.0.borrow().state.restorable(PointId::sync(number)).unwrap().into();
        b.0.borrow().snapshots[&point].clone()
    };
    b.write_block(7, 7);
    let report = verbs::rollback(&b, PointId::sync(1)).unwrap();
    assert_eq!((report.from, b.0.borrow().head.clone()), (Some(PointId::sync(3)), at(1)));
    assert!(report.kept_as.is_some());
    assert_eq!(sync(&a, &b).unwrap_err().reason(), "rolled-back");
    verbs::rollback(&b, PointId::sync(3)).unwrap();
    assert_eq!(b.0.borrow().head, at(3));
    assert!(sync(&a, &b).unwrap().unchanged);
    verbs::rollback(&b, PointId::sync(2)).unwrap();
    verbs::release(&b).unwrap();
    sync(&a, &b).unwrap();
    assert_eq!(b.newest(), a.0.borrow().head);
    assert_eq!(verbs::rollback(&a, PointId::sync(2)).unwrap_err().reason, "is-primary");
}

/// A sync that was interrupted before its first byte, and a replica that was primary since: what was written then is nobody's staging.
#[test]
fn staging_ends_with_a_promotion() {
    let (a, b) = pair(8);
    a.write_block(1, 1);
    sync(&a, &b).unwrap();
    b.0.borrow_mut().state.staging = true;
    b.promote();
    b.write_block(3, 3);
    let written = b.0.borrow().head.clone();
    b.0.borrow_mut().state.demote();
    b.0.borrow_mut().state.resync = true;
    a.0.borrow_mut().state.epoch = 9;
    assert!(sync(&a, &b).unwrap().kept_as.is_some());
    assert!(b.0.borrow().snapshots.values().any(|content| *content == written));
}

/// The first point's confirmation was lost, and its users wrote on.
#[test]
fn a_primary_without_a_confirmed_point_is_kept_too() {
    let (a, b) = pair(8);
    a.write_block(1, 1);
    sync(&a, &b).unwrap();
    {
        let state = &mut a.0.borrow_mut().state;
        (state.offered, state.current) = (state.history.pop(), None);
        state.restorable.clear();
    }
    a.write_block(2, 2);
    let written = a.0.borrow().head.clone();
    assert_eq!(verbs::demote(&a, Force::No).unwrap_err().reason, "not-synced");
    verbs::demote(&a, Force::Yes).unwrap();
    b.promote();
    b.write_block(5, 5);
    sync(&b, &a).unwrap();
    assert_eq!(a.newest(), b.0.borrow().head);
    assert!(a.0.borrow().snapshots.values().any(|content| *content == written), "what its users wrote");
}

/// What was offered and never arrived is on no other site.
#[test]
fn a_point_that_nobody_confirmed_is_not_demoted_on() {
    let (a, b) = pair(8);
    a.write_block(1, 1);
    sync(&a, &b).unwrap();
    a.write_block(2, 2);
    // Until it has all, and can't make a snapshot of it.
    b.0.borrow_mut().calls_left = Some(3);
    sync(&a, &b).unwrap_err();
    b.0.borrow_mut().calls_left = None;
    assert!(a.0.borrow().state.offered.is_some());
    assert_eq!(verbs::demote(&a, Force::No).unwrap_err().reason, "not-synced");
    sync(&a, &b).unwrap();
    verbs::demote(&a, Force::No).unwrap();
}

/// Nothing but its size, which no range tells.
#[test]
fn a_replica_that_was_made_larger_is_not_its_point() {
    let (a, b) = pair(8);
    a.write_block(1, 1);
    sync(&a, &b).unwrap();
    let content = b.newest();
    for staging in [false, true] {
        b.0.borrow_mut().head.resize(12 * BLOCK, 0);
        b.0.borrow_mut().state.staging = staging;
        let promoted = Memory(RefCell::new(b.0.borrow().clone()));
        promoted.promote();
        assert_eq!(promoted.0.borrow().head, content);
        assert!(!sync(&a, &b).unwrap().unchanged);
        assert_eq!(b.0.borrow().head, content);
    }
}

/// R11: what is in the head and in no point goes with the next sync; and is kept where it is nobody's staging (R7).
#[test]
fn a_foreign_write_to_a_replica_is_kept_and_overwritten() {
    let (a, b) = pair(8);
    a.write_block(1, 1);
    sync(&a, &b).unwrap();
    b.write_block(5, 9);
    let foreign = b.0.borrow().head.clone();
    let report = sync(&a, &b).unwrap();
    assert_eq!(report.kept_as, Some(PointId { number: 1, kept: 1 }));
    assert_eq!(b.newest(), a.0.borrow().head);
    let copy = b.0.borrow();
    let kept = copy.state.restorable.iter().find(|point| point.origin == Origin::Kept).unwrap();
    assert_eq!(copy.snapshots[&kept.into()], foreign);
}

/// R7: the blocks that changed on either side move, and what the old primary had is a restore point.
#[test]
fn an_old_primary_catches_up_by_what_changed_on_either_side() {
    let (a, b) = pair(64);
    for block in 0..64 {
        a.write_block(block, 1);
    }
    sync(&a, &b).unwrap();
    a.write_block(3, 7);
    let lost = a.0.borrow().head.clone();
    b.promote();
    b.write_block(9, 8);
    assert_eq!(sync(&b, &a).unwrap_err().reason(), "both-primary");
    a.0.borrow_mut().state.demote();
    let report = sync(&b, &a).unwrap();
    assert_eq!(report.changes.bytes_changed, 2 * BLOCK as u64);
    assert_eq!(a.newest(), b.0.borrow().head);
    let copy = a.0.borrow();
    let kept = copy.state.restorable.iter().find(|point| point.origin == Origin::Kept).unwrap();
    assert_eq!(copy.snapshots[&kept.into()], lost);
}

/// R6: the old primary made a point of its own that nobody else has.
#[test]
fn a_diverged_line_is_given_up_only_when_it_is_said() {
    let (a, b) = pair(16);
    a.write_block(1, 1);
    sync(&a, &b).unwrap();
    let stale = b.0.borrow().clone();
    a.write_block(2, 2);
    sync(&a, &b).unwrap();
    // The replica that is promoted has never seen the second point.
    *b.0.borrow_mut() = stale;
    b.promote();
    b.write_block(4, 4);
    a.0.borrow_mut().state.demote();
    let lost = a.0.borrow().head.clone();
    assert_eq!(sync(&b, &a).unwrap_err().reason(), "split-brain");
    a.0.borrow_mut().state.resync = true;
    sync(&b, &a).unwrap();
    assert_eq!(a.newest(), b.0.borrow().head);
    assert!(a.0.borrow().snapshots.values().any(|content| *content == lost), "the loser's newest point is still there");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// R1 and R11: wherever either side fails, a promotion finds the old point or the new one, and the next sync succeeds.
    #[test]
    fn r11_a_sync_that_fails_anywhere_leaves_a_whole_point(
        edits in proptest::collection::vec((0usize..16, 1u8..200), 1..12),
        source_calls in proptest::option::of(0u32..6),
        sink_calls in proptest::option::of(0u32..16),
        grown in 0usize..3,
    ) {
        let (a, b) = pair(16);
        a.write_block(0, 1);
        sync(&a, &b).unwrap();
        let old = b.newest();
        for (block, byte) in edits {
            a.write_block(block, byte);
        }
        let blocks = 16 + 4 * grown - 4;
        a.0.borrow_mut().head.resize(blocks * BLOCK, 3);
        let new = a.0.borrow().head.clone();
        a.0.borrow_mut().calls_left = source_calls;
        b.0.borrow_mut().calls_left = sink_calls;
        let done = sync(&a, &b).is_ok();
        a.0.borrow_mut().calls_left = None;
        b.0.borrow_mut().calls_left = None;
        let promoted = Memory(RefCell::new(b.0.borrow().clone()));
        promoted.promote();
        let found = promoted.0.borrow().head.clone();
        prop_assert!(found == new || (!done && found == old));
        prop_assert!(promoted.0.borrow().state.restorable.iter().all(|point| point.origin == Origin::Sync));
        sync(&a, &b).unwrap();
        prop_assert!(b.newest() == new);
        let report = sync(&a, &b).unwrap();
        prop_assert!(report.unchanged);
        // Nothing is left that no point has.
        for copy in [&a, &b] {
            let copy = copy.0.borrow();
            let points = held(&copy.state, &sizes(&copy));
            prop_assert_eq!(points.len(), copy.snapshots.len());
        }
    }
}
