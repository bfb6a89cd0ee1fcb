//! The record's bytes, and those that an earlier release left.

use drover_linux::{FileId, Time};
use proptest::prelude::*;

use super::*;
use crate::{
    digest::Digest,
    id::VolumeId,
    path::RelPath,
    plan::{Place, Retire, Retired, Step},
    point::Role,
    tree::{Body, Entry, Flags, Meta, Node},
};

fn path() -> impl Strategy<Value = RelPath> {
    "[a-z]{1,8}(/[a-z]{1,8}){0,3}".prop_map(|text| RelPath::new(text.as_bytes()).unwrap())
}

fn id() -> impl Strategy<Value = FileId> {
    (any::<u64>(), any::<i64>(), 0..1_000_000_000u32)
        .prop_map(|(ino, secs, nanos)| FileId { ino, born: Time { secs, nanos } })
}

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![path().prop_map(Place::Tree), any::<u32>().prop_map(Place::Out)]
}

fn step() -> impl Strategy<Value = Step> {
    let time = (any::<i64>(), 0..1_000_000_000u32).prop_map(|(secs, nanos)| Time { secs, nanos });
    let flags = Flags::carried(Flags::APPEND);
    prop_oneof![
        (path(), id()).prop_map(move |(path, id)| Step::Unlock { path, id, flags }),
        (path(), id(), place(), any::<bool>()).prop_map(|(path, id, place, onward)| Step::Out {
            path,
            id,
            place,
            onward
        }),
        (path(), place(), proptest::option::of(id())).prop_map(|(path, place, id)| Step::In { path, place, id }),
        (path(), place(), proptest::option::of(id()), id())
            .prop_map(|(path, place, id, old)| { Step::Exchange { path, place, id, old } }),
        (path(), path(), place(), proptest::option::of(id()), proptest::option::of(id()))
            .prop_map(|(path, from, place, id, replaced)| Step::Link { path, from, place, id, replaced }),
        (path(), id(), 0..0o7777u32).prop_map(|(path, id, mode)| {
            let name = path.split().unwrap().1;
            let old = Entry { name, meta: Meta::default(), node: Node::File(Body::default()) };
            Step::Meta { path, id, old: Box::new(old), new: Box::new(Meta { mode, ..Meta::default() }) }
        }),
        (path(), proptest::option::of(time.clone()), proptest::option::of(time))
            .prop_map(|(path, old, new)| Step::Times { path, old, new }),
        path().prop_map(move |path| Step::Lock { path, flags }),
        (path(), id()).prop_map(|(path, id)| Step::Patch { path, id }),
    ]
}

proptest! {
    #[test]
    fn a_record_comes_back(steps in proptest::collection::vec(step(), 0..20), places in proptest::collection::vec(place(), 0..5)) {
        let dir = tempfile::tempdir().unwrap();
        let dir = Dir::open(dir.path()).unwrap();
        let state = crate::point::VolumeState::new(VolumeId::random(), RelPath::root(), Role::Secondary, 2);
        let whats = [Retire::Directory, Retire::Body(Digest::of(b"x")), Retire::Name, Retire::Delta(Digest::of(b"z"))];
        let retired = places.into_iter().zip(whats.into_iter().cycle()).map(|(place, what)| Retired { place, what });
        let record = CommitRecord {
            direction: Direction::Forward,
            state,
            steps,
            retired: retired.collect(),
            from_pool: vec![Digest::of(b"y")],
        };
        record.store(&dir).unwrap();
        prop_assert_eq!(CommitRecord::load(&dir).unwrap().unwrap(), record.clone());
        record.reversed().store(&dir).unwrap();
        prop_assert_eq!(CommitRecord::load(&dir).unwrap().unwrap().direction, Direction::Undo);
    }
}

#[test]
fn a_damaged_or_newer_record_is_refused_by_name() {
    let temp = tempfile::tempdir().unwrap();
    let dir = Dir::open(temp.path()).unwrap();
    let state = crate::point::VolumeState::new(VolumeId::random(), RelPath::root(), Role::Secondary, 2);
    store_state(&dir, &state).unwrap();
    assert_eq!(load_state(&dir).unwrap(), Some(state));
    let file = temp.path().join("state");
    let good = std::fs::read(&file).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(&file, bad).unwrap();
        assert!(load_state(&dir).is_err(), "byte {at}");
    }
    let mut newer = good;
    newer[4] = 9;
    std::fs::write(&file, newer).unwrap();
    assert!(load_state(&dir).unwrap_err().to_string().contains("version 9"));
}
