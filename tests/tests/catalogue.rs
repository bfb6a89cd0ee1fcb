//! The catalogue of snapshots: records that follow a volume's syncs, many of them, and kills while they are put.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use drover_proto::v1::{
    DeleteSnapshotRequest, Direction, GetSnapshotRequest, ListSnapshotsRequest, PutSnapshotsRequest, Snapshot,
};
use drover_tests::{
    figure::{self, Goal},
    host::{Agent, Faults, Pair, PairSetup, status_reason},
    rounds::Rounds,
    seed::Seeds,
    skip,
};
use tonic::Status;

const NAMESPACE: &str = "shop";

fn snapshot(volume: &str, name: &str, created_at_unix_secs: i64) -> Snapshot {
    Snapshot {
        volume_id: volume.to_owned(),
        namespace: NAMESPACE.to_owned(),
        name: name.to_owned(),
        uid: format!("uid-of-{name}"),
        created_at_unix_secs,
        handle: format!("nfs.example#share#{name}#{name}#pvc"),
        content_name: format!("snapcontent-{name}"),
        claim_name: "data".to_owned(),
        manifest: format!(r#"{{"kind":"VolumeSnapshot","metadata":{{"name":"{name}","namespace":"{NAMESPACE}"}}}}"#),
        ..Snapshot::default()
    }
}

fn put(agent: &Agent, snapshots: Vec<Snapshot>) -> Result<u64, Status> {
    let client = agent.controller();
    client.call(client.snapshots().put(PutSnapshotsRequest { snapshots })).map(|put| put.changed)
}

fn delete(agent: &Agent, name: &str) -> u64 {
    let client = agent.controller();
    let request =
        DeleteSnapshotRequest { namespace: NAMESPACE.to_owned(), name: name.to_owned(), ..Default::default() };
    client.call(client.snapshots().delete(request)).expect("delete a record").deleted
}

fn all(agent: &Agent, volume: &str) -> Vec<Snapshot> {
    let client = agent.controller();
    let mut request = ListSnapshotsRequest { volume_id: volume.to_owned(), page_size: 1000, ..Default::default() };
    let mut found = Vec::new();
    loop {
        let page = client.call(client.snapshots().list(request.clone())).expect("list records");
        found.extend(page.snapshots);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return found;
        }
    }
}

fn names(agent: &Agent, volume: &str) -> Vec<String> {
    all(agent, volume).into_iter().map(|snapshot| snapshot.name).collect()
}

#[test]
fn records_follow_the_syncs_of_their_volume() {
    const NAME: &str = "records_follow_the_syncs_of_their_volume";
    if !skip::needs_root(NAME) {
        return;
    }
    let mut pair = Pair::with(PairSetup::default());
    std::fs::write(pair.source().join("file"), "content").expect("write");
    let volume = pair.volume.clone();
    let [first, second] = ["first", "second"].map(|name| snapshot(&volume, name, 100));
    assert_eq!(put(&pair.a, vec![first.clone(), second.clone()]).expect("put records"), 2);
    assert_eq!(put(&pair.a, vec![first.clone()]).expect("put it again"), 0);
    assert!(names(&pair.b, &volume).is_empty());
    pair.sync();
    let told = all(&pair.b, &volume);
    assert_eq!(told.len(), 2);
    let plain = |it: &Snapshot| Snapshot { changed_at_unix_millis: 0, ..it.clone() };
    assert_eq!(plain(&told[0]), first);
    // Both sites are told of changes, and a sync in the other direction brings the same.
    assert_eq!(delete(&pair.b, "first"), 1);
    assert_eq!(delete(&pair.b, "first"), 0);
    put(&pair.b, vec![snapshot(&volume, "third", 50)]).expect("put a record");
    put(&pair.a, vec![Snapshot { handle: "another".to_owned(), ..second }]).expect("change a record");
    pair.try_sync_of(&volume, Direction::Pull).expect_done("a sync from site-b");
    for agent in [&pair.a, &pair.b] {
        assert_eq!(names(agent, &volume), ["third", "second"], "in the order of their time");
        let client = agent.controller();
        let request = GetSnapshotRequest {
            volume_id: volume.clone(),
            namespace: NAMESPACE.to_owned(),
            name: "second".to_owned(),
        };
        let found = client.call(client.snapshots().get(request.clone())).expect("get a record").snapshot;
        assert_eq!(found.expect("a record").handle, "another");
        let gone = GetSnapshotRequest { name: "first".to_owned(), ..request };
        let status = client.call(client.snapshots().get(gone)).expect_err("it was deleted");
        assert_eq!(status_reason(&status), "no-such-snapshot");
    }

    // What is wrong is refused, and nothing of the call is kept.
    let unknown = snapshot("0b1f7f8e-6b1c-4a76-9d0b-0c1f6f1c2a77", "fourth", 1);
    for (bad, reason) in [
        (unknown, "no-such-volume"),
        (snapshot(&volume, "Not_A_Name", 1), "bad-snapshot-record"),
        (Snapshot { manifest: "{".to_owned(), ..snapshot(&volume, "fifth", 1) }, "bad-snapshot-record"),
    ] {
        let status = put(&pair.a, vec![snapshot(&volume, "good", 1), bad]).expect_err("it must be refused");
        assert_eq!(status_reason(&status), reason, "{status}");
    }
    assert_eq!(names(&pair.a, &volume).len(), 2);

    // A state directory that was lost knows nothing until the next sync.
    pair.b.stop();
    std::fs::remove_file(pair.b.state_dir().join("catalogue.redb")).expect("lose the catalogue");
    pair.b.start(&Faults::none());
    assert!(names(&pair.b, &volume).is_empty());
    pair.sync();
    assert_eq!(names(&pair.b, &volume), ["third", "second"]);
}

#[test]
fn many_records_are_listed_at_once_and_survive_kills() {
    const NAME: &str = "many_records_are_listed_at_once_and_survive_kills";
    const EACH: usize = 1000;
    if !skip::needs_root(NAME) {
        return;
    }
    let mut rng = Seeds::of(NAME).rng(0);
    let mut pair = Pair::with(PairSetup::default());
    std::fs::write(pair.source().join("file"), "content").expect("write");
    pair.sync();
    let volume = pair.volume.clone();
    let count = Rounds::chosen().records;
    let mut volumes = vec![volume.clone()];
    while volumes.len() < count / EACH {
        volumes.push(pair.protect(&format!("pvc-{}", volumes.len())));
    }
    let (mut acknowledged, mut kills) = (BTreeSet::new(), 0);
    for (number, volume) in volumes.iter().enumerate() {
        let snapshots: Vec<_> =
            (0..EACH).map(|it| snapshot(volume, &format!("snap-{number}-{it}"), it as i64 * 3600)).collect();
        let parts: Vec<_> = snapshots.chunks(100).map(<[_]>::to_vec).collect();
        for (at, part) in parts.into_iter().enumerate() {
            if at == 5 && kills < Rounds::chosen().random_kills {
                // While the next one is put.
                let client = pair.a.controller();
                let request = PutSnapshotsRequest { snapshots: part.clone() };
                let putting = std::thread::spawn(move || client.call(client.snapshots().put(request)));
                std::thread::sleep(Duration::from_micros(rng.u64(0..20_000)));
                pair.a.kill();
                drop(putting.join().expect("put records"));
                pair.a.start(&Faults::none());
                kills += 1;
            }
            put(&pair.a, part.clone()).expect("put records");
            acknowledged.extend(part.into_iter().map(|snapshot| (snapshot.volume_id, snapshot.name)));
        }
    }
    pair.a.kill();
    pair.a.start(&Faults::none());
    let found: BTreeSet<_> =
        volumes.iter().flat_map(|volume| all(&pair.a, volume)).map(|it| (it.volume_id, it.name)).collect();
    assert!(found == acknowledged, "{} records, and {} were acknowledged", found.len(), acknowledged.len());
    figure::report("records of snapshots after kills", found.len() as u64, "records", Goal::AtLeast(100_000));
    figure::report("kills while records are put", kills, "kills", Goal::AtLeast(100));

    let client = pair.a.controller();
    let mut times: Vec<_> = (0..50)
        .map(|_| {
            let volume_id = volumes[rng.usize(0..volumes.len())].clone();
            let request = ListSnapshotsRequest { volume_id, ..ListSnapshotsRequest::default() };
            let begun = Instant::now();
            let page = client.call(client.snapshots().list(request)).expect("list records");
            assert_eq!(page.snapshots.len(), 500);
            begun.elapsed()
        })
        .collect();
    times.sort();
    let name = format!("a list of a volume's records, of {}, the slowest of 50", found.len());
    figure::report(&name, times[49].as_micros() as u64, "us", Goal::AtMost(10_000));
    println!("{NAME}: median {:.1?}", times[25]);

    let begun = Instant::now();
    pair.sync();
    let first = all(&pair.b, &volume);
    assert_eq!(first.len(), EACH, "they came with the sync, in {:.1?}", begun.elapsed());
    assert!(first.is_sorted_by_key(|snapshot| snapshot.created_at_unix_secs));
}
