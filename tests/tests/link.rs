//! A link that is cut, or hangs: jobs try again and go on where they were.

use std::time::Duration;

use drover_proto::v1::JobState;
use drover_tests::{
    host::{Pair, PairSetup, SYNC},
    judge::{self, Portrait},
    rounds::Rounds,
    seed::Seeds,
    skip,
    subject::Subject,
    tree,
};

/// What agents may say about a link that a test cuts.
const CUT: &[&str] = &["link", "connection", "unreachable", "retry", "attempt", "session", "transport"];

fn cut_after_n_bytes(name: &str, subject: Subject) {
    if !skip::needs_root(name) {
        return;
    }
    let (rounds, seeds) = (Rounds::chosen(), Seeds::of(name));
    let mut rng = seeds.rng(0);
    let pair = Pair::with(PairSetup { with_link: true, subject, ..PairSetup::default() });
    let link = pair.link.as_ref().expect("a link");
    subject.create(&pair.source(), &mut rng, &rounds);
    // A greeting, a listing, bodies: somewhere in each.
    for bytes in [100, 4_000, 30_000, 200_000, 1_000_000] {
        subject.edit(&pair.source(), &mut rng, &rounds);
        let cuts = link.cuts();
        link.cut_after(bytes);
        let outcome = pair.try_sync().expect_done(&format!("seed {}, cut after {bytes}", seeds.round(0)));
        let was_cut = link.cuts() > cuts;
        println!("{name}: cut after {bytes} bytes: {was_cut}, {} attempts", outcome.status.attempts);
        assert!(!was_cut || outcome.status.attempts > 1, "{outcome}");
        pair.assert_same(&format!("seed {}, cut after {bytes}", seeds.round(0)));
    }
    pair.assert_quiet(CUT);
}

#[test]
fn a_link_cut_after_n_bytes_is_taken_up_again() {
    cut_after_n_bytes("a_link_cut_after_n_bytes_is_taken_up_again", Subject::Tree);
}

#[test]
fn a_link_cut_in_an_image_is_taken_up_again() {
    cut_after_n_bytes("a_link_cut_in_an_image_is_taken_up_again", Subject::Image);
}

#[test]
fn a_link_cut_in_a_device_is_taken_up_again() {
    cut_after_n_bytes("a_link_cut_in_a_device_is_taken_up_again", Subject::Device);
}

/// While the link is down the replica is the old point, the job says that it retries, and another volume on another
/// link is no worse for it.
#[test]
fn a_link_that_is_down_leaves_the_old_point() {
    const NAME: &str = "a_link_that_is_down_leaves_the_old_point";
    if !skip::needs_root(NAME) {
        return;
    }
    let mut rng = Seeds::of(NAME).rng(0);
    let pair = Pair::with(PairSetup { with_link: true, ..PairSetup::default() });
    tree::create(&pair.source(), &mut rng, 100);
    pair.sync();
    let old = Portrait::of(&pair.replica());
    tree::edit(&pair.source(), &mut rng, 20);
    let link = pair.link.as_ref().expect("a link");
    link.down();
    let (client, job) = pair.start_sync();
    let retrying = client.watch(&job, Duration::from_secs(60), |job| job.state() == JobState::Retrying);
    let retrying = retrying.expect("watch");
    assert_eq!(retrying.state(), JobState::Retrying, "{retrying}");
    assert!(!retrying.reason().is_empty(), "{retrying}");
    judge::assert_is(&old, &pair.replica(), "while the link is down");
    link.up();
    client.outcome(&job, SYNC).expect("watch").expect_done("after the link came up");
    pair.assert_same("after the link came up");
}

/// A cancelled job stops work and leaves the old point.
#[test]
fn a_cancelled_job_leaves_the_old_point() {
    const NAME: &str = "a_cancelled_job_leaves_the_old_point";
    if !skip::needs_root(NAME) {
        return;
    }
    let mut rng = Seeds::of(NAME).rng(0);
    let pair = Pair::with(PairSetup { with_link: true, ..PairSetup::default() });
    tree::create(&pair.source(), &mut rng, 100);
    pair.sync();
    let old = Portrait::of(&pair.replica());
    tree::edit(&pair.source(), &mut rng, 20);
    let link = pair.link.as_ref().expect("a link");
    link.stall();
    let (client, job) = pair.start_sync();
    std::thread::sleep(Duration::from_millis(300));
    client.cancel(&job).expect("cancel");
    let outcome = client.outcome(&job, Duration::from_secs(60)).expect("watch");
    link.flow();
    assert_eq!(outcome.state(), JobState::Cancelled, "{outcome}");
    judge::assert_is(&old, &pair.replica(), "after the cancel");
    pair.sync();
    pair.assert_same("the next sync");
}
