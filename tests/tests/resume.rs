//! A kill in the middle of a big transfer: what was staged is not sent again.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use drover_tests::{
    figure::{self, Goal},
    host::{Faults, Pair, PairSetup},
    process,
    rounds::Rounds,
    scratch::Scratch,
    skip,
    subject::Subject,
};

const TRANSFER: Duration = Duration::from_secs(900);

/// Bytes that nothing can compress or find elsewhere.
fn random_file(path: &Path, bytes: u64) {
    let mut file = File::options().write(true).create(true).truncate(false).open(path).expect("big file");
    let mut random = File::open("/dev/urandom").expect("/dev/urandom").take(bytes);
    io::copy(&mut random, &mut file).expect("write big file");
}

/// Both sites' roots, with files behind devices of a size.
fn roots_with_devices(scratch: &Scratch, bytes: u64) -> [PathBuf; 2] {
    ["a", "b"].map(|site| {
        let root = scratch.join(site);
        std::fs::create_dir_all(root.join("v")).expect("directory");
        File::create_new(root.join("v/backing"))
            .and_then(|file| file.set_len(bytes))
            .expect("the file behind a device");
        root
    })
}

fn rest_after_kill(name: &str, victim: &str, subject: Subject, kill: fn(&mut Pair)) {
    if !skip::needs_root(name) {
        return;
    }
    let rounds = Rounds::chosen();
    rounds.announce(name, "bytes", |rounds| rounds.resume_bytes);
    let total = rounds.resume_bytes;
    let scratch = Scratch::new("resume");
    let mut setup = PairSetup { with_link: true, subject, ..PairSetup::default() };
    if subject == Subject::Device {
        let [a, b] = roots_with_devices(&scratch, total);
        (setup.root_a, setup.root_b) = (Some(a), Some(b));
    }
    let mut pair = Pair::with(setup);
    match subject {
        // One big file and some that are sent as ranges of their own: half of the whole each.
        Subject::Tree => {
            random_file(&pair.source().join("big"), total / 2);
            for number in 0..8 {
                random_file(&pair.source().join(format!("part{number}")), total / 16);
            }
        }
        Subject::Image | Subject::Device => random_file(&subject.image(&pair.source()), total),
    }
    let (client, job) = pair.start_sync();
    let passed = |pair: &Pair| pair.link.as_ref().expect("a link").passed();
    process::until("80 % of the transfer", TRANSFER, || (passed(&pair) >= total / 10 * 8).then_some(()));
    kill(&mut pair);
    let before = passed(&pair);
    drop(client);
    for agent in [&mut pair.a, &mut pair.b] {
        if !agent.is_running() {
            agent.start(&Faults::none());
        }
    }
    let client = pair.a.controller();
    client.outcome(&job, TRANSFER).expect("watch").expect_done("the resumed job");
    let rest = passed(&pair) - before;
    println!("{name}: {before} bytes before the kill, {rest} after, {total} in all: {} %", rest * 100 / total);
    let of = subject.of();
    let figure = format!("rest of a transfer of {} MiB{of} after a kill of the {victim} at 80 %", total >> 20);
    figure::report(&figure, rest * 100 / total, "%", Goal::AtMost(25));
    assert!(rest <= total / 4, "{rest} of {total} bytes after the kill");
    pair.assert_same("after the resumed job");
}

#[test]
fn the_rest_is_small_after_the_sink_is_killed_at_80_percent() {
    rest_after_kill("the_rest_is_small_after_the_sink_is_killed_at_80_percent", "sink", Subject::Tree, |pair| {
        pair.b.kill();
    });
}

#[test]
fn the_rest_is_small_after_the_source_is_killed_at_80_percent() {
    rest_after_kill("the_rest_is_small_after_the_source_is_killed_at_80_percent", "source", Subject::Tree, |pair| {
        pair.a.kill();
    });
}

#[test]
fn the_rest_of_an_image_is_small_after_a_kill_at_80_percent() {
    rest_after_kill("the_rest_of_an_image_is_small_after_a_kill_at_80_percent", "sink", Subject::Image, |pair| {
        pair.b.kill();
    });
}

#[test]
fn the_rest_of_a_device_is_small_after_a_kill_at_80_percent() {
    rest_after_kill("the_rest_of_a_device_is_small_after_a_kill_at_80_percent", "sink", Subject::Device, |pair| {
        pair.b.kill();
    });
}
