//! Objects: omap and lock.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use drover_librbd::{Condition, ErrorKind, Lock, OmapChange, Renewal, Written};

use crate::site::{TestPool, kind};

#[test]
fn an_omap_is_compared_and_set() {
    let Some(test) = TestPool::new() else { return };
    let object = test.pool.object("drover.state").unwrap();
    assert_eq!(kind(object.omap()), ErrorKind::NotFound);
    assert_eq!(kind(object.omap_values(&["epoch"])), ErrorKind::NotFound);
    assert_eq!(kind(object.remove()), ErrorKind::NotFound);
    let epoch = |value: &'static [u8]| OmapChange {
        set: if value == b"1" { &[("epoch", b"1")] } else { &[("epoch", b"2")] },
        remove: &[],
    };
    let equal =
        |value: &'static [u8]| Condition::Equal(if value == b"1" { &[("epoch", b"1")] } else { &[("epoch", b"2")] });
    assert_eq!(kind(object.change_omap(equal(b"1"), epoch(b"2"))), ErrorKind::NotFound);
    assert_eq!(object.change_omap(Condition::New, epoch(b"1")), Ok(Written::Done));
    assert_eq!(object.change_omap(Condition::New, epoch(b"2")), Ok(Written::Refused));
    assert_eq!(object.change_omap(equal(b"2"), epoch(b"2")), Ok(Written::Refused));
    assert_eq!(object.change_omap(equal(b"1"), epoch(b"2")), Ok(Written::Done));
    assert_eq!(object.omap().unwrap(), BTreeMap::from([("epoch".to_owned(), b"2".to_vec())]));
    // A key that is missing is an empty value; both conditions must be true.
    let both = Condition::Equal(&[("epoch", b"2"), ("role", b"")]);
    let change = OmapChange { set: &[("role", b"\0binary\xff")], remove: &["epoch", "no-such-key"] };
    assert_eq!(object.change_omap(both, change), Ok(Written::Done));
    assert_eq!(object.change_omap(both, change), Ok(Written::Refused));
    let values = object.omap_values(&["role", "epoch"]).unwrap();
    assert_eq!(values, BTreeMap::from([("role".to_owned(), b"\0binary\xff".to_vec())]));
    object.remove().unwrap();
    assert_eq!(kind(object.omap()), ErrorKind::NotFound);
}

#[test]
fn more_keys_than_one_answer_holds() {
    let Some(test) = TestPool::new() else { return };
    let object = test.pool.object("many").unwrap();
    let keys: Vec<_> = (0..2500).map(|index| format!("key-{index:05}")).collect();
    for part in keys.chunks(500) {
        let set: Vec<(&str, &[u8])> = part.iter().map(|key| (key.as_str(), key.as_bytes())).collect();
        assert_eq!(object.change_omap(Condition::Always, OmapChange { set: &set, remove: &[] }), Ok(Written::Done));
    }
    let all = object.omap().unwrap();
    assert!(all.len() == 2500 && all.iter().all(|(key, value)| key.as_bytes() == value));
}

#[test]
fn of_two_who_change_one_key_one_wins() {
    let Some(test) = TestPool::new() else { return };
    let object = test.pool.object("o").unwrap();
    assert_eq!(object.change_omap(Condition::New, OmapChange { set: &[("n", b"0")], remove: &[] }), Ok(Written::Done));
    let count = || {
        let pool = test.by_another_client();
        let object = pool.object("o").unwrap();
        let mut won = 0;
        while won < 50 {
            let old = object.omap_values(&["n"]).unwrap()["n"].clone();
            let new = (String::from_utf8_lossy(&old).parse::<u32>().unwrap() + 1).to_string();
            let change = OmapChange { set: &[("n", new.as_bytes())], remove: &[] };
            won += u32::from(object.change_omap(Condition::Equal(&[("n", &old)]), change) == Ok(Written::Done));
        }
    };
    thread::scope(|scope| {
        let threads = [scope.spawn(count), scope.spawn(count), scope.spawn(count)];
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    assert_eq!(object.omap().unwrap()["n"], b"150");
}

#[test]
fn a_lock_is_held_renewed_lost_and_broken() {
    let Some(test) = TestPool::new() else { return };
    let object = test.pool.object("leader").unwrap();
    let other = test.by_another_client();
    let theirs = other.object("leader").unwrap();
    let lock = Lock { name: "leader", cookie: "a" };
    let time = Some(Duration::from_millis(1500));
    assert_eq!(kind(object.lockers("leader")), ErrorKind::NotFound);
    assert_eq!(kind(object.lock(lock, "", time, Renewal::Must)), ErrorKind::NotFound);
    object.lock(lock, "agent one", time, Renewal::Never).unwrap();
    assert_eq!(kind(object.lock(lock, "", time, Renewal::Never)), ErrorKind::Exists);
    assert_eq!(kind(theirs.lock(lock, "", time, Renewal::May)), ErrorKind::Busy);
    assert_eq!(kind(object.lock(Lock { cookie: "b", ..lock }, "", time, Renewal::Never)), ErrorKind::Busy);
    assert_eq!(kind(theirs.unlock(lock)), ErrorKind::NotFound);
    let lockers = theirs.lockers("leader").unwrap();
    let cluster = test.pool.cluster();
    assert!(lockers.is_exclusive && lockers.lockers.len() == 1);
    assert_eq!(lockers.lockers[0].client, format!("client.{}", cluster.instance_id()));
    assert_eq!(lockers.lockers[0].cookie, "a");
    assert_eq!(lockers.lockers[0].address, cluster.address().unwrap());
    // Renewed, it outlives its first time.
    for _ in 0..3 {
        thread::sleep(Duration::from_millis(700));
        object.lock(lock, "", time, Renewal::Must).unwrap();
    }
    assert_eq!(kind(theirs.lock(lock, "", time, Renewal::Never)), ErrorKind::Busy);
    let begun = Instant::now();
    while theirs.lock(lock, "", None, Renewal::Never).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(5));
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(kind(object.lock(lock, "", time, Renewal::Must)), ErrorKind::NotFound);
    let holder = object.lockers("leader").unwrap().lockers.pop().unwrap();
    let odd = drover_librbd::Locker { client: "x".to_owned(), ..holder.clone() };
    assert_eq!(kind(object.break_lock("leader", &odd)), ErrorKind::Invalid);
    object.break_lock("leader", &holder).unwrap();
    assert_eq!(kind(object.break_lock("leader", &holder)), ErrorKind::NotFound);
    assert_eq!(object.lockers("leader").unwrap().lockers, []);
    object.lock(lock, "", None, Renewal::Never).unwrap();
    object.unlock(lock).unwrap();
}
