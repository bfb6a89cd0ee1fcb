//! Many images at once, and a cluster that hangs or dies in the middle of a verb of all of them.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use drover_proto::v1::{self, Direction, VolumeRole, volume_spec};
use drover_tests::{
    ceph::{Kind, Release},
    figure::{self, Goal},
    fleet::Fleet,
    host::{SYNC, status_reason},
    judge, process,
    rounds::Rounds,
    skip,
};

const BYTES: u64 = 8 << 20;
/// Of a verb's call in librados, then the end of its worker, shut out by another one, and what was looked for besides.
const DEADLINE: Duration = Duration::from_secs(300);
/// Of one agent: four that look, eight that change, two that copy.
const WORKERS_MAX: usize = 14;
const ROOT: &str = "nfs";

#[derive(Clone, Copy)]
enum Fault {
    /// The site is cut off, or its hosts hang.
    Stop,
    Kill,
}

/// A directory, which needs no cluster.
fn directory(fleet: &Fleet) -> String {
    let volume_id = uuid::Uuid::new_v4().to_string();
    fs::create_dir_all(fleet.scratch.join("a/v")).expect("a directory");
    for (agent, role, peer) in [(&fleet.a, VolumeRole::Primary, "site-b"), (&fleet.b, VolumeRole::Secondary, "site-a")]
    {
        let directory = v1::Directory { root: ROOT.to_owned(), path: "v".to_owned() };
        let request = v1::EnableRequest {
            volume_id: volume_id.clone(),
            spec: Some(v1::VolumeSpec { kind: Some(volume_spec::Kind::Directory(directory)) }),
            role: role.into(),
            peer: Some(peer.to_owned()),
            ..v1::EnableRequest::default()
        };
        Fleet::client(agent).enable(request).expect("enable a directory");
    }
    volume_id
}

fn a_promotion_of_many_images_in_which_the_cluster_is(name: &'static str, fault: Fault) {
    /// So that not all images are promoted: a dozen of them may take half a second.
    const IN_THE_MIDDLE: Duration = Duration::from_millis(200);
    if let Some(why) = Release::Pacific.missing() {
        return skip::skipped(name, &why);
    }
    let images = Rounds::chosen().many_images;
    let begun = Instant::now();
    let say = |what: &str| println!("{name}: {what} after {:.1?}", begun.elapsed());
    let fleet = Fleet::start(Release::Pacific, 1, images, BYTES, b"content");
    let volume = directory(&fleet);
    fleet.sync(0, &fleet.a, &fleet.b);
    fleet.demote(0, &fleet.a).expect("demote the group");
    fleet.wait_safe(0, &fleet.b);
    say("a promotion is safe");
    thread::scope(|scope| {
        let promoted = scope.spawn(|| {
            let begun = Instant::now();
            (fleet.promote(0, &fleet.b, false), begun.elapsed())
        });
        thread::sleep(IN_THE_MIDDLE);
        assert!(!promoted.is_finished(), "{images} images are promoted too quickly to be in the middle");
        match fault {
            Fault::Stop => fleet.clusters.b.stop_processes(&[Kind::Mon, Kind::Osd]),
            Fault::Kill => [Kind::Mon, Kind::Osd].into_iter().for_each(|kind| fleet.clusters.b.kill_daemon(kind)),
        }
        say("monitor and OSD don't answer");
        // What needs no cluster goes on meanwhile.
        fs::write(fleet.scratch.join("a/v/file"), "meanwhile").expect("write a file");
        let a = Fleet::client(&fleet.a);
        let request = v1::StartRequest {
            volume_id: volume.clone(),
            direction: Direction::Push.into(),
            ..v1::StartRequest::default()
        };
        let job = a.start(request).expect("start a sync");
        a.outcome(&job, SYNC).expect("watch a sync").expect_done("a sync of a directory");
        judge::assert_same(&fleet.scratch.join("a/v"), &fleet.scratch.join("b/v"), "synced meanwhile");
        // And so do images of the other cluster.
        assert_eq!(fleet.info(0, &fleet.a).expect("the other site's images").members.len(), images);
        say("a directory was synced, and the other site answers");
        let (refused, took) = promoted.join().expect("it ends");
        let refused = refused.expect_err("the cluster does not answer");
        println!("{name}: {refused} after {took:.1?}");
        assert_eq!(refused.code(), tonic::Code::DeadlineExceeded, "{refused}");
        // In the middle of changes, or of what was looked at before the first.
        let reason = status_reason(&refused);
        assert!(["group-half-done", "ceph-timed-out"].contains(&reason.as_str()), "{reason}: {refused}");
        assert!(took < DEADLINE, "{took:?}");
    });
    let left = fleet.b.workers();
    assert!(left.len() <= WORKERS_MAX, "{} workers", left.len());
    match fault {
        Fault::Stop => fleet.clusters.b.cont(&[Kind::Mon, Kind::Osd]),
        Fault::Kill => [Kind::Mon, Kind::Osd].into_iter().for_each(|kind| fleet.clusters.b.start_daemon(kind)),
    }
    // An OSD that stood still for long leaves groups of objects that are stuck.
    fleet.clusters.b.ceph(&["osd", "down", "0"]);
    fleet.clusters.b.wait_serving();
    say("the cluster answers again");
    let promoted = process::until("the promotion is taken up again", DEADLINE, || {
        fleet.promote(0, &fleet.b, false).inspect_err(|error| println!("{name}: {error}")).ok()
    });
    assert_eq!(promoted, None, "nothing was lost");
    say("promoted");
    let roles: Vec<_> = fleet.info(0, &fleet.b).expect("look").members.iter().map(v1::VolumeInfo::role).collect();
    assert_eq!(roles, vec![VolumeRole::Primary; images]);
    for image in &fleet.groups[0] {
        let [here, there] = [&fleet.clusters.a, &fleet.clusters.b].map(|cluster| cluster.image(image).content());
        there.assert_is(&here, image);
    }
    assert!(fleet.b.workers().len() <= WORKERS_MAX);
    figure::report("images in a promotion that was interrupted", images as u64, "images", Goal::AtLeast(50));
}

#[test]
fn a_promotion_of_many_images_in_which_the_cluster_hangs_is_told_and_taken_up_again() {
    const NAME: &str = "a_promotion_of_many_images_in_which_the_cluster_hangs_is_told_and_taken_up_again";
    a_promotion_of_many_images_in_which_the_cluster_is(NAME, Fault::Stop);
}

#[test]
fn a_promotion_of_many_images_in_which_the_cluster_dies_is_told_and_taken_up_again() {
    const NAME: &str = "a_promotion_of_many_images_in_which_the_cluster_dies_is_told_and_taken_up_again";
    if !Rounds::chosen().is_full() {
        return skip::skipped(NAME, "it takes five minutes, and its hang is tested: only with tests/run --full");
    }
    a_promotion_of_many_images_in_which_the_cluster_is(NAME, Fault::Kill);
}
