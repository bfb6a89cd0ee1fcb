//! A peer that lies: one of its messages is damaged before its checksum is made, so that only what the message says can give it away.
//! The other agent stays alive and of modest size, its copy is what it was (a sink's may be the source's content), and the next
//! sync with the same peer, honest again, succeeds.

use std::path::Path;

use drover_proto::v1::Direction;
use drover_tests::{
    figure::{self, Goal},
    host::{Agent, Faults, Pair, PairSetup},
    judge,
    mount::{FileSystem, Image, Mounted},
    rounds::Rounds,
    seed::Seeds,
    skip,
    subject::Subject,
};

use crate::failpoints::unsettle;

/// A length that was forged is no reason to allocate it.
const PEAK_BYTES_MAX: u64 = 256 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Liar {
    Source,
    Sink,
}

/// How many messages each agent sends in an ordinary sync.
fn messages(pair: &mut Pair, prepare: &mut dyn FnMut(&Pair)) -> (u64, u64) {
    let [a, b] = ["a", "b"].map(|name| pair.scratch().join(format!("messages-{name}")));
    prepare(pair);
    pair.b.restart(&Faults::none().noted_in(&b));
    pair.a.restart(&Faults::none().noted_in(&a));
    pair.sync();
    let sent = |log: &Path| Faults::hits(log).get("wire.send").copied().unwrap_or(0);
    (sent(&a), sent(&b))
}

fn lies(test: &str, subject: Subject, roots: Option<(&Path, &Path)>) {
    let (rounds, seeds) = (Rounds::chosen(), Seeds::of(test));
    rounds.announce(test, "lies", |rounds| rounds.lies);
    let mut rng = seeds.rng(0);
    let (root_a, root_b) = roots.map(|(a, b)| (a.to_owned(), b.to_owned())).unzip();
    let mut pair = Pair::with(PairSetup { subject, root_a, root_b, retain: Some(4), ..PairSetup::default() });
    subject.create(&pair.source(), &mut rng, &rounds);
    pair.sync();
    let edit = |pair: &Pair, rng: &mut _| {
        subject.edit(&pair.source(), rng, &rounds);
        // What is in the replica beside it has to be moved again, too.
        subject.edit(&pair.replica(), rng, &rounds);
        unsettle(pair);
    };
    let (of_source, of_sink) = messages(&mut pair, &mut |pair| edit(pair, &mut rng));
    assert!(of_source > 3 && of_sink > 3, "both talk: {of_source} and {of_sink} messages");
    let mut noticed = 0;
    for round in 0..rounds.lies {
        edit(&pair, &mut rng);
        let liar = if rng.bool() { Liar::Source } else { Liar::Sink };
        let sent = if liar == Liar::Source { of_source } else { of_sink };
        let direction = if rng.bool() { Direction::Push } else { Direction::Pull };
        let lie = Faults::forge(rng.u64(1..=sent), rng.u64(..));
        let none = Faults::none();
        let (faults_a, faults_b) = if liar == Liar::Source { (&lie, &none) } else { (&none, &lie) };
        pair.b.restart(faults_b);
        pair.a.restart(faults_a);
        let old = subject.portrait(&pair.replica());
        let source = subject.portrait(&pair.source());
        let why = format!("round {round}, {lie:?} by the {liar:?}, {direction:?}");
        let outcome = pair.try_sync_of(&pair.volume, direction);
        assert_nothing(&judge::compare(&source, &subject.portrait(&pair.source())), &format!("the source, {why}"));
        if !outcome.is_done() {
            noticed += 1;
            println!("{test}: {why}: {}", outcome.message());
        }
        // A sink that asks for another thing than it wants gets it: its own copy is its own.
        let found = subject.portrait(&pair.replica());
        if liar == Liar::Source && !judge::compare(&source, &found).is_empty() {
            assert!(!outcome.is_done(), "the replica is not the source, {why}");
            assert_nothing(&judge::compare(&old, &found), &format!("the replica, {why}"));
        }
        for agent in [&mut pair.a, &mut pair.b] {
            assert_alive(agent, &why);
        }
        // It may not have come to its lie.
        if liar == Liar::Source { &mut pair.a } else { &mut pair.b }.restart(&Faults::none());
        pair.try_sync().expect_done(&format!("an honest sync after {why}"));
        pair.assert_same(&format!("an honest sync after {why}"));
    }
    figure::report(&format!("lies of a peer{}", subject.of()), rounds.lies, "lies", Goal::AtLeast(200));
    println!("{test}: {noticed} of {} ended the sync", rounds.lies);
    assert!(noticed > 0, "no lie was noticed");
}

#[track_caller]
fn assert_nothing(differences: &[judge::Difference], why: &str) {
    assert!(differences.is_empty(), "{why} is not what it was: {differences:?}");
}

#[track_caller]
fn assert_alive(agent: &mut Agent, why: &str) {
    assert!(agent.is_running(), "an agent ended: {why}");
    let peak = agent.peak_rss_bytes().expect("the peak of a running agent");
    assert!(peak < PEAK_BYTES_MAX, "{peak} bytes: {why}");
}

#[test]
fn a_peer_that_lies_changes_no_tree() {
    lies("a_peer_that_lies_changes_no_tree", Subject::Tree, None);
}

/// Clones take the place of the image.
#[test]
fn a_peer_that_lies_changes_no_image_on_xfs() {
    on(FileSystem::Xfs, "a_peer_that_lies_changes_no_image_on_xfs");
}

/// The image is patched in place.
#[test]
fn a_peer_that_lies_changes_no_image_on_ext4() {
    on(FileSystem::Ext4, "a_peer_that_lies_changes_no_image_on_ext4");
}

fn on(file_system: FileSystem, test: &str) {
    if !skip::needs_root(test) {
        return;
    }
    if let Some(why) = file_system.missing() {
        return skip::skipped(test, &why);
    }
    let [(_image_a, a), (_image_b, b)] = [(); 2].map(|()| mounted(file_system));
    lies(test, Subject::Image, Some((&a.join("root"), &b.join("root"))));
}

fn mounted(file_system: FileSystem) -> (Image, Mounted) {
    let image = Image::new(file_system, 512 << 20).expect("image");
    let mounted = image.mount().expect("mount");
    (image, mounted)
}

#[test]
fn a_peer_that_lies_changes_no_device() {
    const NAME: &str = "a_peer_that_lies_changes_no_device";
    if !skip::needs_root(NAME) {
        return;
    }
    lies(NAME, Subject::Device, None);
}
