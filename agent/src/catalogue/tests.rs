//! The store against a list in memory, and two stores that tell each other what they know.

use std::collections::BTreeMap;

use drover_engine::id::VolumeId;
use proptest::prelude::*;

use super::*;

fn record(volume: VolumeId, namespace: &str, name: &str, created_at: i64) -> Record {
    Record {
        volume,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        uid: format!("uid-{created_at}"),
        created_at,
        handle: "server#share#uuid".to_owned(),
        content: "snapcontent-1".to_owned(),
        claim: "data".to_owned(),
        data: None,
        manifest: r#"{"kind":"VolumeSnapshot"}"#.to_owned(),
    }
}

fn volume(number: u8) -> VolumeId {
    VolumeId::from_bytes([number; 16])
}

fn names(page: &Page) -> Vec<&str> {
    page.entries.iter().map(|entry| entry.record.name.as_str()).collect()
}

fn all(limit: usize) -> Query {
    Query { limit, ..Query::default() }
}

#[test]
fn records_are_put_listed_and_deleted_and_are_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let catalogue = Catalogue::open(dir.path()).unwrap();
    let records = [
        record(volume(1), "shop", "b", 20),
        record(volume(1), "shop", "a", -10),
        record(volume(2), "shop", "a", 15),
        record(volume(2), "shop-2", "a", 5),
    ];
    assert_eq!(catalogue.put(&records, 1000).unwrap(), 4);
    assert_eq!(catalogue.put(&records, 2000).unwrap(), 0, "the same again");
    // Of the same object, told without what another one says.
    let short = Record { handle: String::new(), content: String::new(), ..records[0].clone() };
    assert_eq!(catalogue.put(std::slice::from_ref(&short), 2000).unwrap(), 0);
    let anew = Record { uid: "anew".to_owned(), ..short };
    assert_eq!(catalogue.put(std::slice::from_ref(&anew), 2000).unwrap(), 1);
    assert_eq!(catalogue.get(volume(1), "shop", "b").unwrap().unwrap().record, anew);
    assert_eq!(catalogue.put(&records[..1], 2000).unwrap(), 1);
    assert!(matches!(Catalogue::open(dir.path()), Err(CatalogueError::InUse { .. })));
    drop(catalogue);
    let catalogue = Catalogue::open(dir.path()).unwrap();
    let list = |query: Query| names(&catalogue.list(&query).unwrap()).join(" ");
    assert_eq!(list(Query { volume: Some(volume(1)), ..all(9) }), "a b");
    assert_eq!(list(Query { namespace: Some("shop".to_owned()), ..all(9) }), "a a b");
    assert_eq!(list(Query { since: Some(5), until: Some(20), ..all(9) }), "a a");
    assert_eq!(list(Query { volume: Some(volume(1)), since: Some(-10), until: Some(-9), ..all(9) }), "a");
    assert_eq!(list(Query { since: Some(30), until: Some(20), ..all(9) }), "");
    assert_eq!(catalogue.get(volume(2), "shop", "a").unwrap().unwrap().record, records[2]);
    assert_eq!(catalogue.delete(Some(volume(9)), "shop", "a", None, 3000).unwrap(), 0);
    assert_eq!(catalogue.delete(None, "shop", "a", Some("uid-15"), 3000).unwrap(), 1);
    assert_eq!(catalogue.delete(None, "shop", "a", None, 3000).unwrap(), 1);
    assert_eq!(catalogue.delete(None, "shop", "a", None, 3000).unwrap(), 0);
    assert_eq!(list(all(9)), "a b");
    assert_eq!(catalogue.get(volume(2), "shop", "a").unwrap(), None);
    // Made anew.
    assert_eq!(catalogue.put(&records[2..3], 500).unwrap(), 1);
    assert_eq!(catalogue.get(volume(2), "shop", "a").unwrap().unwrap().changed_at_millis, 3001);
}

#[test]
fn what_is_no_record_is_refused_and_nothing_is_put() {
    let dir = tempfile::tempdir().unwrap();
    let catalogue = Catalogue::open(dir.path()).unwrap();
    let good = record(volume(1), "shop", "good", 1);
    let long = "x".repeat(MANIFEST_BYTES_MAX + 1);
    for bad in [
        Record { namespace: String::new(), ..good.clone() },
        Record { name: "a\0b".to_owned(), ..good.clone() },
        Record { name: "Upper".to_owned(), ..good.clone() },
        Record { name: "-a".to_owned(), ..good.clone() },
        Record { name: "a".repeat(NAME_BYTES_MAX + 1), ..good.clone() },
        Record { manifest: "{".to_owned(), ..good.clone() },
        Record { manifest: long, ..good.clone() },
    ] {
        let refused = catalogue.put(&[good.clone(), bad.clone()], 1);
        assert!(matches!(refused, Err(CatalogueError::Record(_))), "{bad:?}");
    }
    assert_eq!(catalogue.list(&all(9)).unwrap(), Page::default());
}

#[test]
fn what_is_of_the_future_is_refused_and_what_is_damaged_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let catalogue = Catalogue::open(dir.path()).unwrap();
    let entry =
        |changed_at_millis| Entry { record: record(volume(1), "shop", "a", 1), changed_at_millis, is_deleted: false };
    for future in [i64::MAX, 3_700_000] {
        assert!(matches!(catalogue.merge(&[entry(future)], 0), Err(CatalogueError::Record(_))));
    }
    assert_eq!(catalogue.merge(&[entry(3_500_000)], 0).unwrap(), 1);
    // A deletion of what has not come yet stands against it.
    catalogue.delete(Some(volume(1)), "shop", "b", None, 500).unwrap();
    let late = Entry { record: record(volume(1), "shop", "b", 1), changed_at_millis: 400, is_deleted: false };
    assert_eq!(catalogue.merge(&[late], 0).unwrap(), 0);
    drop(catalogue);
    std::fs::write(dir.path().join("catalogue.redb"), vec![0x5a; 8192]).unwrap();
    let catalogue = Catalogue::open(dir.path()).unwrap();
    assert_eq!(catalogue.list(&all(9)).unwrap(), Page::default());
    let aside = std::fs::read_dir(dir.path()).unwrap().filter_map(Result::ok);
    assert!(aside.map(|it| it.file_name()).any(|name| name.to_string_lossy().starts_with("catalogue.redb.damaged-")));
}

#[test]
fn deletions_are_forgotten_at_last_and_changes_go_on() {
    const DAY: i64 = 24 * 3600 * 1000;
    let dir = tempfile::tempdir().unwrap();
    let catalogue = Catalogue::open(dir.path()).unwrap();
    let put = |name: &str, now| catalogue.put(&[record(volume(1), "shop", name, 1)], now).unwrap();
    put("a", 0);
    put("b", 0);
    catalogue.delete(None, "shop", "a", None, DAY).unwrap();
    assert_eq!(catalogue.changes(volume(1), 0).unwrap().entries.len(), 2);
    let before = catalogue.changes(volume(1), 0).unwrap().next;
    put("c", 80 * DAY);
    assert_eq!(catalogue.changes(volume(1), 0).unwrap().entries.len(), 3);
    put("d", 92 * DAY);
    let changes = catalogue.changes(volume(1), before).unwrap();
    let told: Vec<_> = changes.entries.iter().map(|entry| entry.record.name.as_str()).collect();
    assert_eq!(told, ["c", "d"]);
    assert_eq!(catalogue.changes(volume(1), 0).unwrap().entries.len(), 3, "that of `a` is forgotten");
}

/// As [`Exchange`] does it, without a wire.
fn exchange(ours: &Catalogue, theirs: &Catalogue, volume: VolumeId, mark: &mut Watermark) {
    loop {
        let changes = theirs.changes(volume, mark.pulled).unwrap();
        ours.merge(&changes.entries, 0).unwrap();
        mark.pulled = changes.next;
        if !changes.has_more {
            break;
        }
    }
    loop {
        let changes = ours.changes(volume, mark.pushed).unwrap();
        theirs.merge(&changes.entries, 0).unwrap();
        mark.pushed = changes.next;
        if !changes.has_more {
            break;
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Put { at: usize, volume: u8, namespace: u8, name: u8, created_at: i64, now: i64 },
    Delete { at: usize, namespace: u8, name: u8, now: i64 },
    Exchange { dialer: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let put = (0..2_usize, 1..3_u8, 0..2_u8, 0..6_u8, -3..9_i64, 0..50_i64).prop_map(
        |(at, volume, namespace, name, created_at, now)| Step::Put { at, volume, namespace, name, created_at, now },
    );
    let delete = (0..2_usize, 0..2_u8, 0..6_u8, 0..50_i64).prop_map(|(at, namespace, name, now)| Step::Delete {
        at,
        namespace,
        name,
        now,
    });
    prop_oneof![6 => put, 2 => delete, 1 => (0..2_usize).prop_map(|dialer| Step::Exchange { dialer })]
}

fn namespace(number: u8) -> String {
    format!("ns-{number}")
}

fn name(number: u8) -> String {
    format!("snap-{number}")
}

/// All that is listed, by pages of that size.
fn listed(catalogue: &Catalogue, query: &Query, limit: usize) -> Vec<Record> {
    let (mut after, mut found) = (None, Vec::new());
    loop {
        let page = catalogue.list(&Query { after, limit, ..query.clone() }).unwrap();
        assert!(page.entries.len() <= limit);
        found.extend(page.entries.into_iter().map(|entry| entry.record));
        after = page.next;
        if after.is_none() {
            return found;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn two_catalogues_become_the_same_and_list_what_a_list_would(steps in proptest::collection::vec(step(), 1..60), limit in 1..5_usize) {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let both = [Catalogue::open(dirs[0].path()).unwrap(), Catalogue::open(dirs[1].path()).unwrap()];
        let mut marks: BTreeMap<(usize, u8), Watermark> = BTreeMap::new();
        let mut agree = |dialer: usize| {
            for number in 1..3 {
                let mark = marks.entry((dialer, number)).or_default();
                exchange(&both[dialer], &both[1 - dialer], volume(number), mark);
            }
        };
        for step in steps {
            match step {
                Step::Put { at, volume: number, namespace: space, name: call, created_at, now } => {
                    let record = record(volume(number), &namespace(space), &name(call), created_at);
                    both[at].put(std::slice::from_ref(&record), now).unwrap();
                    let found = both[at].get(volume(number), &namespace(space), &name(call)).unwrap();
                    prop_assert_eq!(found.map(|entry| entry.record), Some(record));
                }
                Step::Delete { at, namespace: space, name: call, now } => {
                    both[at].delete(None, &namespace(space), &name(call), None, now).unwrap();
                    for number in 1..3 {
                        prop_assert_eq!(both[at].get(volume(number), &namespace(space), &name(call)).unwrap(), None);
                    }
                }
                Step::Exchange { dialer } => agree(dialer),
            }
        }
        agree(0);
        let everything = listed(&both[0], &Query::default(), 100);
        prop_assert_eq!(&listed(&both[1], &Query::default(), 100), &everything);
        for catalogue in &both {
            for number in [None, Some(1), Some(2)] {
                for space in [None, Some(0), Some(1)] {
                    for (since, until) in [(None, None), (Some(2), None), (None, Some(5)), (Some(0), Some(3))] {
                        let query = Query { volume: number.map(volume), namespace: space.map(namespace), since, until, ..Query::default() };
                        let mut found = listed(catalogue, &query, limit);
                        let mut expected: Vec<_> = everything.iter().filter(|record| {
                            number.is_none_or(|number| record.volume == volume(number))
                                && space.is_none_or(|space| record.namespace == namespace(space))
                                && since.is_none_or(|since| record.created_at >= since)
                                && until.is_none_or(|until| record.created_at < until)
                        }).cloned().collect();
                        if number.is_some() || space.is_none() {
                            prop_assert!(found.is_sorted_by_key(|record| record.created_at));
                        }
                        let key = |record: &Record| (record.volume, record.namespace.clone(), record.name.clone());
                        found.sort_by_key(key);
                        expected.sort_by_key(key);
                        prop_assert_eq!(found, expected);
                    }
                }
            }
        }
    }
}
