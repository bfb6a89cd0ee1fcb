//! Replicas that are deleted wait in the trash, and come back as they were.

use std::fs;

use drover_proto::v1::{
    self, DisableRequest, Disposal, EnableRequest, ListTrashRequest, RestoreTrashRequest, TrashEntry, VolumeRole,
    VolumeSpec, volume_spec::Kind,
};
use drover_tests::{
    host::{Agent, Faults, Pair, PairSetup, SYNC, status_reason},
    judge::{self, Portrait},
    process,
    seed::Seeds,
    skip,
    subject::Subject,
    tree,
};
use tonic::Status;

fn delete(agent: &Agent, volume: &str, force: bool) -> Result<(), Status> {
    let client = agent.controller();
    let request = DisableRequest { volume_id: volume.to_owned(), disposal: Disposal::Trash.into(), force };
    client.call(client.replication().disable(request)).map(drop)
}

fn disable(agent: &Agent, volume: &str) {
    let client = agent.controller();
    let request = DisableRequest { volume_id: volume.to_owned(), ..DisableRequest::default() };
    client.call(client.replication().disable(request)).expect("disable the volume");
}

fn listed(agent: &Agent) -> Vec<TrashEntry> {
    let client = agent.controller();
    client.call(client.trash().list(ListTrashRequest::default())).expect("list the trash").entries
}

fn restore(agent: &Agent, name: &str) -> Result<String, Status> {
    let client = agent.controller();
    let request = RestoreTrashRequest { name: name.to_owned() };
    client.call(client.trash().restore(request)).map(|restored| restored.volume.expect("a volume").volume_id)
}

#[test]
fn a_deleted_replica_comes_back_as_it_was() {
    const NAME: &str = "a_deleted_replica_comes_back_as_it_was";
    if !skip::needs_root(NAME) {
        return;
    }
    let mut rng = Seeds::of(NAME).rng(0);
    let mut pair = Pair::with(PairSetup { retain: Some(4), ..PairSetup::default() });
    tree::create(&pair.source(), &mut rng, 60);
    pair.sync();
    tree::edit(&pair.source(), &mut rng, 10);
    pair.sync();
    let volume = pair.volume.clone();
    let (replica, before) = (pair.replica(), Portrait::of(&pair.replica()));
    let points = |agent: &Agent| agent.controller().points(&volume).expect("points").len();
    let had = points(&pair.b);

    // It is guarded: by a peer that protects it, and by one that can't be asked.
    let refused = |called: Result<(), Status>, reason: &str| {
        let status = called.expect_err("it must be refused");
        assert_eq!(status_reason(&status), reason, "{status}");
    };
    refused(delete(&pair.b, &volume, false), "peer-has-volume");
    pair.a.kill();
    refused(delete(&pair.b, &volume, false), "peer-needed");
    judge::assert_is(&before, &replica, "nothing was deleted");
    pair.a.start(&Faults::none());
    refused(delete(&pair.a, &volume, true), "is-primary");

    // By force, and back again; also after a restart.
    delete(&pair.b, &volume, true).expect("delete the replica");
    assert!(!replica.exists());
    let entry = listed(&pair.b).pop().expect("something in the trash");
    assert_eq!((entry.volume_id.as_str(), entry.restorable, entry.points as usize), (volume.as_str(), true, had));
    assert!(entry.purged_at_unix_secs - entry.deleted_at_unix_secs == 30 * 24 * 3600);
    pair.b.restart(&Faults::none());
    let status = restore(&pair.b, "nothing").expect_err("there is no such thing");
    assert_eq!(status_reason(&status), "not-in-trash");
    fs::create_dir(&replica).expect("a directory at its place");
    let status = restore(&pair.b, &entry.name).expect_err("something is there");
    assert_eq!(status_reason(&status), "path-occupied", "{status}");
    fs::remove_dir(&replica).expect("take it away");
    assert_eq!(restore(&pair.b, &entry.name).expect("restore it"), volume);
    judge::assert_is(&before, &replica, "as it was");
    assert_eq!(points(&pair.b), had);
    assert!(listed(&pair.b).is_empty());
    let status = restore(&pair.b, &entry.name).expect_err("it is back");
    assert_eq!(status_reason(&status), "not-in-trash");
    tree::edit(&pair.source(), &mut rng, 10);
    pair.sync();
    pair.assert_same("it is synced as before");

    // Once the peer protects it no more, nobody has to insist.
    disable(&pair.a, &volume);
    delete(&pair.b, &volume, false).expect("delete the replica");
    // A volume with its id is there again.
    let name = listed(&pair.b).pop().expect("something in the trash").name;
    let client = pair.b.controller();
    let spec = Kind::Directory(v1::Directory { root: "nfs".to_owned(), path: "w".to_owned() });
    let request = EnableRequest {
        volume_id: volume.clone(),
        spec: Some(VolumeSpec { kind: Some(spec) }),
        role: VolumeRole::Secondary.into(),
        ..EnableRequest::default()
    };
    client.enable(request).expect("enable another one");
    let status = restore(&pair.b, &name).expect_err("there is one with its id");
    assert_eq!(status_reason(&status), "volume-is-there", "{status}");
}

/// A block file is known by the directory that it lies in.
#[test]
fn a_deleted_image_comes_back_to_its_directory() {
    const NAME: &str = "a_deleted_image_comes_back_to_its_directory";
    if !skip::needs_root(NAME) {
        return;
    }
    let pair = Pair::with(PairSetup { subject: Subject::Image, ..PairSetup::default() });
    let [source, replica] = [pair.root_a(), pair.root_b()].map(|root| root.join(Subject::Image.path("v")));
    fs::write(&source, vec![7; 3 << 20]).expect("write an image");
    pair.sync();
    let volume = pair.volume.clone();
    delete(&pair.b, &volume, true).expect("delete the replica");
    let name = listed(&pair.b).pop().expect("something in the trash").name;
    assert!(!replica.exists());
    let (above, aside) = (replica.parent().expect("a directory"), pair.root_b().join("aside"));
    fs::rename(above, &aside).expect("move the directory away");
    let status = restore(&pair.b, &name).expect_err("it is not there");
    assert_eq!(status_reason(&status), "no-parent-directory", "{status}");
    fs::create_dir(above).expect("another directory");
    let status = restore(&pair.b, &name).expect_err("it is another one");
    assert_eq!(status_reason(&status), "other-parent-directory", "{status}");
    fs::remove_dir(above).expect("take it away");
    fs::rename(&aside, above).expect("put the directory back");
    restore(&pair.b, &name).expect("restore it");
    judge::assert_same_file(&source, &replica, "as it was");
    fs::write(&source, vec![8; 3 << 20]).expect("write to the image");
    pair.sync();
    judge::assert_same_file(&source, &replica, "it is synced as before");
}

#[test]
fn what_is_killed_while_it_is_put_back_is_put_back() {
    const NAME: &str = "what_is_killed_while_it_is_put_back_is_put_back";
    if !skip::needs_root(NAME) {
        return;
    }
    let mut rng = Seeds::of(NAME).rng(0);
    let mut pair = Pair::with(PairSetup::default());
    tree::create(&pair.source(), &mut rng, 60);
    pair.sync();
    let (volume, replica) = (pair.volume.clone(), pair.replica());
    let before = Portrait::of(&replica);
    for place in ["trash.tree", "trash.volume"] {
        delete(&pair.b, &volume, true).expect("delete the replica");
        let name = listed(&pair.b).pop().expect("something in the trash").name;
        pair.b.restart(&Faults::kill(place, 1));
        restore(&pair.b, &name).expect_err("the agent dies");
        process::until(&format!("it dies at {place}"), SYNC, || (!pair.b.is_running()).then_some(()));
        pair.b.start(&Faults::none());
        // Where the last step was done it is a volume already.
        if let Err(status) = restore(&pair.b, &name) {
            assert!(
                ["not-in-trash", "volume-is-there", "no-volume-in-trash"].contains(&status_reason(&status).as_str()),
                "{status}"
            );
        }
        judge::assert_is(&before, &replica, place);
        pair.sync();
    }
}
