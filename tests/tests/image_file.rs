//! Copies of images in files, synced with RBD images and with each other. The judge reads the files, and Ceph's own tools the images.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::PathBuf,
    time::Duration,
};

use drover_proto::v1::{self, VolumeRole, volume_spec};
use drover_tests::{
    ceph::{Clusters, Content, Release},
    figure::{self, Goal},
    fleet::{self, rbd_image},
    host::{Agent, Certificates, Faults, Outcome, SYNC, status_reason},
    mount::{FileSystem, Image, Mounted, Store},
    process,
    rounds::Rounds,
    scratch::Scratch,
    seed::{Rng, Seeds},
    skip,
};

const MIB: u64 = 1 << 20;
const PAGE: u64 = 4096;
const BYTES: u64 = 48 * MIB;
const ROOT: &str = "files";
const NAME: &str = "vm.img";

/// File systems of both sites, which go after the agents.
struct Disks {
    mounts: Vec<Mounted>,
    _images: Vec<Image>,
    _store: Store,
}

/// Whether this machine lacks one of them, which is told.
fn is_skipped(test: &str, file_systems: &[FileSystem]) -> bool {
    let missing = file_systems.iter().find_map(|file_system| file_system.missing());
    missing.inspect(|why| skip::skipped(test, why)).is_some()
}

impl Disks {
    fn new(file_systems: &[FileSystem]) -> Self {
        let store = Store::new(file_systems.len() as u64 * (2 << 30)).expect("a store for images");
        let images: Vec<_> = file_systems.iter().map(|of| store.image(*of, 1 << 30).expect("an image")).collect();
        let mounts = images.iter().map(|image| image.mount().expect("mount")).collect();
        Self { mounts, _images: images, _store: store }
    }

    fn root(&self, at: usize) -> PathBuf {
        let root = self.mounts[at].join("root");
        fs::create_dir_all(&root).expect("a root");
        root
    }
}

fn spec(kind: volume_spec::Kind) -> Option<v1::VolumeSpec> {
    Some(v1::VolumeSpec { kind: Some(kind) })
}

fn image_file() -> volume_spec::Kind {
    volume_spec::Kind::ImageFile(v1::ImageFile { root: ROOT.to_owned(), path: NAME.to_owned() })
}

#[track_caller]
fn enable(agent: &Agent, volume: &str, kind: volume_spec::Kind, role: VolumeRole) {
    let peer = if agent.setup.name == "site-a" { "site-b" } else { "site-a" };
    let request = v1::EnableRequest {
        volume_id: volume.to_owned(),
        spec: spec(kind),
        role: role.into(),
        peer: Some(peer.to_owned()),
        retain: Some(2),
        ..v1::EnableRequest::default()
    };
    agent.controller().enable(request.clone()).expect("enable the volume");
    agent.controller().enable(v1::EnableRequest { peer: None, ..request }).expect("enable it again");
}

#[track_caller]
fn try_sync(agent: &Agent, volume: &str) -> Outcome {
    let client = agent.controller();
    let request = v1::StartRequest { volume_id: volume.to_owned(), ..v1::StartRequest::default() };
    let job = client.start(request).expect("start a sync");
    client.outcome(&job, SYNC).expect("watch a sync")
}

#[track_caller]
fn sync(agent: &Agent, volume: &str) -> Outcome {
    try_sync(agent, volume).expect_done("a sync")
}

#[track_caller]
fn verify(agent: &Agent, volume: &str) -> Outcome {
    let client = agent.controller();
    let request = v1::VerifyRequest { volume_id: volume.to_owned(), deep: true, ..v1::VerifyRequest::default() };
    let job = client.call(client.sync().verify(request)).expect("start a verification").job_id;
    client.outcome(&job, SYNC).expect("watch a verification").expect_done("a verification")
}

fn content(path: &std::path::Path) -> Content {
    Content::of(path).expect("read a file")
}

/// Writes of every size, holes, preallocated ranges, another size; in every case something is another thing after it.
fn edit(path: &std::path::Path, rng: &mut Rng) {
    let file = File::options().write(true).open(path).expect("open the image");
    if rng.u8(0..4) == 0 {
        file.set_len(rng.u64(BYTES / 2..BYTES * 2)).expect("another size");
    }
    let bytes = file.metadata().expect("look at it").len();
    for _ in 0..rng.usize(1..10) {
        let length = match rng.u8(0..4) {
            0 => rng.u64(1..2 * MIB),
            1 => rng.u64(1..100),
            _ => PAGE,
        };
        let at = rng.u64(0..bytes - length);
        match rng.u8(0..8) {
            0 => punch(&file, at, length),
            1 => preallocate(&file, at, length),
            _ => {
                let mut noise = vec![0; usize::try_from(length).expect("it fits")];
                if rng.u8(0..5) > 0 {
                    rng.fill(&mut noise);
                }
                file.write_all_at(&noise, at).expect("write to the image");
            }
        }
    }
    let mut noise = [0; PAGE as usize];
    rng.fill(&mut noise);
    file.write_all_at(&noise, rng.u64(0..bytes - PAGE)).expect("write to the image");
}

fn fallocate(file: &File, mode: rustix::fs::FallocateFlags, at: u64, length: u64) {
    rustix::fs::fallocate(file, mode, at, length).expect("fallocate");
}

fn punch(file: &File, at: u64, length: u64) {
    use rustix::fs::FallocateFlags as Flags;
    fallocate(file, Flags::PUNCH_HOLE | Flags::KEEP_SIZE, at, length);
}

fn preallocate(file: &File, at: u64, length: u64) {
    fallocate(file, rustix::fs::FallocateFlags::KEEP_SIZE, at, length);
}

/// Two agents, each with a root on a disk of its own.
fn pair(disks: &Disks, scratch: &Scratch) -> [Agent; 2] {
    let certificates = Certificates::init(&scratch.join("certs"), &["site-a", "site-b"]);
    let mut agents = [Agent::new("site-a", &certificates), Agent::new("site-b", &certificates)];
    let [port_a, port_b] = [agents[0].port(), agents[1].port()];
    agents[0].setup.peers = vec![("site-b".to_owned(), port_b)];
    agents[1].setup.peers = vec![("site-a".to_owned(), port_a)];
    for (at, agent) in agents.iter_mut().enumerate() {
        agent.setup.roots = vec![(ROOT.to_owned(), disks.root(at))];
        agent.start(&Faults::none());
    }
    agents
}

/// One image on XFS and one on btrfs, roles that change, kills of either agent on the way.
#[test]
fn random_images_between_files() {
    const TEST: &str = "random_images_between_files";
    const DISKS: [FileSystem; 2] = [FileSystem::Xfs, FileSystem::Btrfs];
    if is_skipped(TEST, &DISKS) {
        return;
    }
    let (disks, scratch) = (Disks::new(&DISKS), Scratch::new("image-file"));
    let mut rng = Seeds::of(TEST).rng(0);
    let mut agents = pair(&disks, &scratch);
    let volume = uuid::Uuid::new_v4().to_string();
    let image = |at: usize| disks.root(at).join(NAME);
    File::create_new(image(0)).and_then(|file| file.set_len(BYTES)).expect("an image");
    edit(&image(0), &mut rng);
    enable(&agents[0], &volume, image_file(), VolumeRole::Primary);
    enable(&agents[1], &volume, image_file(), VolumeRole::Secondary);
    let (mut primary, mut kills) = (0, 0);
    let rounds = if Rounds::chosen().is_full() { 300 } else { 24 };
    for round in 0..rounds {
        let why = format!("round {round}");
        let secondary = 1 - primary;
        edit(&image(primary), &mut rng);
        if rng.u8(0..5) == 0 {
            // A program that has no business there.
            edit_if_there(&image(secondary), &mut rng);
        }
        let expected = content(&image(primary));
        if rng.u8(0..3) == 0 {
            let (at, place) = match rng.u8(0..5) {
                0 => (primary, "image.taken"),
                1 => (primary, "image.proposed"),
                2 => (secondary, "image.staging"),
                3 => (secondary, "image.written"),
                _ => (secondary, "image.snapped"),
            };
            agents[at].restart(&Faults::kill(place, 1));
            let client = agents[primary].controller();
            let request = v1::StartRequest { volume_id: volume.clone(), ..v1::StartRequest::default() };
            let job = client.start(request).expect("start a sync");
            drop(client);
            process::until("the agent dies", Duration::from_secs(60), || (!agents[at].is_running()).then_some(()));
            agents[at].start(&Faults::none());
            let client = agents[primary].controller();
            client.outcome(&job, SYNC).expect("watch a sync").expect_done(&format!("{why}, killed at {place}"));
            kills += 1;
        } else {
            sync(&agents[primary], &volume);
        }
        content(&image(secondary)).assert_is(&expected, &why);
        if round % 6 == 5 {
            assert_eq!(verify(&agents[primary], &volume).report["replica_is_point"], true, "{why}");
            agents[primary].controller().demote(&volume).expect("demote the primary");
            agents[secondary].controller().promote(&volume, false).expect("promote the secondary");
            primary = secondary;
        }
    }
    figure::report("random changes of images in files", rounds, "rounds", Goal::AtLeast(300));
    figure::report("kills on the way", kills, "kills", Goal::AtLeast(60));
}

fn edit_if_there(path: &std::path::Path, rng: &mut Rng) {
    if path.exists() {
        edit(path, rng);
    }
}

/// A site without Ceph keeps the copy: failover to the file, and back to the image.
#[test]
fn an_rbd_image_is_synced_to_a_file_and_back() {
    const TEST: &str = "an_rbd_image_is_synced_to_a_file_and_back";
    if let Some(why) = Release::Pacific.missing() {
        return skip::skipped(TEST, &why);
    }
    if is_skipped(TEST, &[FileSystem::Xfs]) {
        return;
    }
    let disks = Disks::new(&[FileSystem::Xfs]);
    let clusters = Clusters::start(Release::Pacific);
    let scratch = Scratch::new("image-file");
    let [a, mut b] = fleet::agents(&clusters, &scratch);
    b.stop();
    b.setup.more = String::new();
    b.setup.roots = vec![(ROOT.to_owned(), disks.root(0))];
    b.start(&Faults::none());
    let (image, file) = (clusters.a.image("vm"), disks.root(0).join(NAME));
    let mut rng = Seeds::of(TEST).rng(0);
    let mut noise = |length: usize| {
        let mut noise = vec![0; length];
        rng.fill(&mut noise);
        noise
    };
    image.create(BYTES);
    image.write(&[(3 * MIB, &noise(5 << 20)), (40 * MIB, &noise(100))]);
    let volume = uuid::Uuid::new_v4().to_string();
    let replication = v1::RbdReplication::Delta.into();
    let place = v1::RbdImage { replication, ..rbd_image(&clusters.a, "vm") };
    enable(&a, &volume, volume_spec::Kind::RbdImage(place), VolumeRole::Primary);
    enable(&b, &volume, image_file(), VolumeRole::Secondary);

    sync(&a, &volume);
    content(&file).assert_is(&image.content(), "the first copy");
    image.write(&[(4 * MIB + 17, &noise(9000)), (30 * MIB, &noise(4096))]);
    let outcome = sync(&b, &volume);
    content(&file).assert_is(&image.content(), "a change");
    let moved = outcome.number("/wire_sent") + outcome.number("/wire_received");
    assert!(moved < 60_000, "{moved} bytes moved for four pages");
    assert_eq!(verify(&a, &volume).report["replica_is_point"], true);

    // Whoever uses the copy is not overwritten.
    let user = File::options().write(true).open(&file).expect("open the file");
    image.write(&[(0, &noise(4096))]);
    assert_eq!(try_sync(&a, &volume).expect_failed("the file is in use"), "image-in-use");
    user.write_all_at(&[7; 5000], 20 * MIB).expect("write to the file");
    drop(user);
    let kept = sync(&a, &volume).report["kept_as"].as_str().map(str::to_owned);
    assert!(kept.is_some(), "what somebody had written is kept");
    content(&file).assert_is(&image.content(), "what somebody had written is overwritten");

    let client = b.controller();
    let job = client.rollback(&volume, "2").expect("start a rollback");
    client.outcome(&job, SYNC).expect("watch a rollback").expect_done("a rollback");
    assert_eq!(try_sync(&a, &volume).expect_failed("it is paused"), "rolled-back");
    client.release(&volume).expect("release the replica");
    sync(&a, &volume);
    content(&file).assert_is(&image.content(), "forward again");

    let refused = b.controller().promote(&volume, false).expect_err("the image is primary");
    assert_eq!(status_reason(&refused), "peer-is-primary");
    a.controller().demote(&volume).expect("demote the image");
    b.controller().promote(&volume, false).expect("promote the file");
    let user = File::options().write(true).open(&file).expect("open the file");
    user.write_all_at(&noise(70_000), 11 * MIB + 5).expect("write to the file");
    assert_eq!(status_reason(&b.controller().demote(&volume).expect_err("it is in use")), "image-in-use");
    let outcome = sync(&b, &volume);
    let moved = outcome.number("/wire_sent") + outcome.number("/wire_received");
    assert!(moved < 120_000, "{moved} bytes moved for 70,000");
    image.content().assert_is(&content(&file), "back to the image, while the file is used");
    drop(user);
    b.controller().demote(&volume).expect("demote the file");
    a.controller().promote(&volume, false).expect("promote the image");
    image.write(&[(MIB, &noise(4096))]);
    sync(&a, &volume);
    content(&file).assert_is(&image.content(), "and on");
    let listed = b.controller().points(&volume).expect("list points");
    assert!(listed.len() >= 3, "{listed:?}");
    let request = v1::DisableRequest { volume_id: volume.clone(), ..v1::DisableRequest::default() };
    let client = b.controller();
    client.call(client.replication().disable(request)).expect("disable the copy");
    content(&file).assert_is(&image.content(), "the file stays");
}

/// Whoever opens the replica in the middle of a sync has no point made of what he may have written; and a replica whose file was deleted is
/// made anew from its points.
#[test]
fn r11_a_file_that_others_touch_is_its_newest_point() {
    const TEST: &str = "r11_a_file_that_others_touch_is_its_newest_point";
    const DISKS: [FileSystem; 2] = [FileSystem::Xfs, FileSystem::Xfs];
    if is_skipped(TEST, &DISKS) {
        return;
    }
    let (disks, scratch) = (Disks::new(&DISKS), Scratch::new("image-file"));
    let mut rng = Seeds::of(TEST).rng(0);
    let mut agents = pair(&disks, &scratch);
    let (volume, [here, there]) = (uuid::Uuid::new_v4().to_string(), [0, 1].map(|at| disks.root(at).join(NAME)));
    File::create_new(&here).and_then(|file| file.set_len(BYTES)).expect("an image");
    edit(&here, &mut rng);
    let request = |volume: &str| v1::EnableRequest {
        volume_id: volume.to_owned(),
        spec: spec(image_file()),
        role: VolumeRole::Primary.into(),
        ..v1::EnableRequest::default()
    };
    let refused = |agent: &Agent, request: v1::EnableRequest, why: &str| {
        let status = agent.controller().enable(request).expect_err(why);
        assert_eq!(status_reason(&status), why, "{status}");
    };
    fs::hard_link(&here, disks.root(0).join("another name")).expect("a hard link");
    refused(&agents[0], request(&volume), "unsuitable-path");
    fs::remove_file(disks.root(0).join("another name")).expect("remove it");
    enable(&agents[0], &volume, image_file(), VolumeRole::Primary);
    enable(&agents[1], &volume, image_file(), VolumeRole::Secondary);
    refused(&agents[0], request(&uuid::Uuid::new_v4().to_string()), "path-taken");
    let directory = v1::Directory { root: ROOT.to_owned(), path: "elsewhere".to_owned() };
    fs::create_dir(disks.root(0).join("elsewhere")).expect("a directory");
    let same_id = v1::EnableRequest { spec: spec(volume_spec::Kind::Directory(directory)), ..request(&volume) };
    refused(&agents[0], same_id, "volume-on-other-root");
    sync(&agents[0], &volume);

    // Between what was written and its point. Random edits may be holes in holes, and no change.
    let image = File::options().write(true).open(&here).expect("open the image");
    image.write_all_at(&[7; 5000], 9 * MIB).expect("write to the image");
    drop(image);
    let flag = scratch.join("paused");
    agents[1].restart(&Faults::pause("image.written", &flag));
    let client = agents[0].controller();
    let start = v1::StartRequest { volume_id: volume.clone(), ..v1::StartRequest::default() };
    let job = client.start(start).expect("start a sync");
    process::until("it was written", Duration::from_secs(30), || flag.exists().then_some(()));
    let mut nonblocking = File::options();
    std::os::unix::fs::OpenOptionsExt::custom_flags(
        nonblocking.write(true),
        rustix::fs::OFlags::NONBLOCK.bits().cast_signed(),
    );
    nonblocking.open(&there).expect_err("the agent holds a lease");
    fs::remove_file(&flag).expect("let it go on");
    client.outcome(&job, SYNC).expect("watch a sync").expect_done("the second try");
    agents[0].assert_logged("image-lock-lost");
    content(&there).assert_is(&content(&here), "the second try");

    let expected = content(&here);
    fs::remove_file(&there).expect("somebody deletes the replica");
    let outcome = sync(&agents[0], &volume);
    let moved = outcome.number("/wire_sent") + outcome.number("/wire_received");
    assert!(moved < 20_000, "{moved} bytes moved, and its points are there");
    content(&there).assert_is(&expected, "it is its newest point again");
    agents[0].kill();
    fs::remove_file(&there).expect("somebody deletes the replica");
    agents[1].controller().promote(&volume, true).expect("promote by force");
    content(&there).assert_is(&expected, "made anew from its points");
    let client = agents[1].controller();
    let request = v1::DisableRequest { volume_id: volume.clone(), ..v1::DisableRequest::default() };
    client.call(client.replication().disable(request)).expect("disable the volume");
    let trash = disks.root(1).join(".drover/trash");
    let kept: Vec<_> = fs::read_dir(&trash).expect("a trash").map(|entry| entry.expect("an entry").path()).collect();
    let points =
        kept.iter().find(|path| path.to_string_lossy().contains(&volume)).expect("in the trash").join("image/points");
    assert!(fs::read_dir(&points).expect("points").count() > 0, "points are in the trash");
    content(&there).assert_is(&expected, "the file stays");
}

/// Its points are clones.
#[test]
fn a_file_system_without_clones_is_refused() {
    if is_skipped("a_file_system_without_clones_is_refused", &[FileSystem::Ext4]) {
        return;
    }
    let disks = Disks::new(&[FileSystem::Ext4]);
    let scratch = Scratch::new("image-file");
    let certificates = Certificates::init(&scratch.join("certs"), &["site-a"]);
    let mut agent = Agent::new("site-a", &certificates);
    agent.setup.roots = vec![(ROOT.to_owned(), disks.root(0))];
    agent.start(&Faults::none());
    File::create_new(disks.root(0).join(NAME)).and_then(|file| file.set_len(BYTES)).expect("an image");
    let request = v1::EnableRequest {
        volume_id: uuid::Uuid::new_v4().to_string(),
        spec: spec(image_file()),
        role: VolumeRole::Primary.into(),
        ..v1::EnableRequest::default()
    };
    let refused = agent.controller().enable(request).expect_err("there are no clones");
    assert_eq!(status_reason(&refused), "no-reflink", "{refused}");
}
