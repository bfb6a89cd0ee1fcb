//! Power cuts. SIGKILL keeps the page cache, so it proves no fsync: here the replica lies on a loop-mounted file system
//! whose image is cloned while the sync runs. The clone is what the disk holds after a cut; it is mounted, recovered
//! and judged.

use std::{collections::BTreeMap, thread, time::Duration};

use drover_proto::v1::Phase;
use drover_tests::{
    figure::{self, Goal},
    host::{Faults, Pair, PairSetup, SYNC, recover},
    judge::{Difference, Portrait, compare},
    mount::{Device, FileSystem, Image, Mounted, Store},
    process,
    rounds::Rounds,
    scratch::Scratch,
    seed::{Rng, Seeds},
    skip,
    subject::Subject,
};

/// Cuts at random moments of one sync; one more after its end.
const CUTS_PER_SYNC: u64 = 4;
/// Where every second sync is stopped for a cut: time alone hits the short phases too seldom.
const STEPS: [&str; 8] =
    ["apply.*", "apply.*", "apply.*", "apply.*", "retain.*", "commit.recorded", "commit.before-record", "stage.*"];
/// How long a sync may take to get there; edits are random, so some never do.
const REACH: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
struct Tally {
    cuts: u64,
    /// At a random step; the others are at a random time.
    stepped: u64,
    old: u64,
    new: u64,
    /// What `recover` said.
    recoveries: BTreeMap<&'static str, u64>,
    phases: BTreeMap<String, u64>,
}

/// Both sites on one kind of file system, so that each can hold what the other has.
struct Site {
    pair: Pair,
    image: Image,
    // Unmounted last.
    mounts: [Option<Mounted>; 2],
    _at: Scratch,
    _images: Image,
    _store: Store,
}

impl Site {
    fn new(file_system: FileSystem, subject: Subject, faults: &Faults) -> Self {
        let store = Store::new(8 << 30).expect("a store for images");
        let images = [0, 1].map(|_| store.image(file_system, 1 << 30).expect("image"));
        // At places of their own, where clones can take the images' places.
        let at = Scratch::new("power");
        let mounts = [0, 1].map(|side| {
            let at = at.join(side.to_string());
            std::fs::create_dir(&at).expect("mount point");
            images[side].mount_at(&at).expect("mount")
        });
        let pair = Pair::with(PairSetup {
            root_a: Some(mounts[0].join("root")),
            root_b: Some(mounts[1].join("root")),
            subject,
            faults_b: faults.clone(),
            ..PairSetup::default()
        });
        let [source, image] = images;
        Self { pair, image, mounts: mounts.map(Some), _at: at, _images: source, _store: store }
    }

    /// What was written until now is on the disk.
    fn settle(&self) {
        let root = std::fs::File::open(self.pair.root_b()).expect("the replica's root");
        rustix::fs::syncfs(&root).expect("sync the replica's file system");
    }

    /// The tree as recovery leaves it after a cut, and what recovery said.
    fn recovered(&mut self, clone: &Image) -> Result<(Portrait, &'static str), String> {
        if self.pair.subject == Subject::Device {
            return self.recovered_device(clone);
        }
        let mounted = clone.mount().map_err(|error| format!("mount the clone: {error}"))?;
        let root = mounted.join("root");
        let done = recover(&root, &Faults::none());
        if !done.status.success() {
            return Err(format!("recover: {}\n{}{}", done.status, done.stdout, done.stderr));
        }
        let portrait =
            self.pair.subject.try_portrait(&root.join("v")).map_err(|error| format!("look at the clone: {error}"))?;
        Ok((portrait, said(&done.stdout)))
    }
}

impl Site {
    /// The file behind the device lies on the same image as what is beside the device, so that both are cut at one instant. The
    /// device is known by that file's path, so the clone takes the image's place for this.
    fn recovered_device(&mut self, clone: &Image) -> Result<(Portrait, &'static str), String> {
        let (root, dir) = (self.pair.root_b().to_owned(), self.pair.replica());
        let at = self.mounts[1].as_ref().expect("the replica's file system is mounted").path().to_owned();
        self.pair.b.kill();
        let device = self.pair.devices.pop().expect("the replica's device").path().to_owned();
        self.mounts[1] = None;
        let found = {
            let _mounted = clone.mount_at(&at).map_err(|error| format!("mount the clone: {error}"))?;
            let _device = Device::named(&device, &dir.join("backing"));
            let done = recover(&root, &Faults::none());
            match done.status.success() {
                true => Ok((Subject::Device.portrait(&dir), said(&done.stdout))),
                false => Err(format!("recover: {}\n{}{}", done.status, done.stdout, done.stderr)),
            }
        };
        self.mounts[1] = Some(self.image.mount_at(&at).map_err(|error| format!("mount the image: {error}"))?);
        self.pair.devices.push(Device::named(&device, &dir.join("backing")));
        self.pair.b.start(&Faults::none());
        found
    }
}

fn said(stdout: &str) -> &'static str {
    let words = stdout.to_lowercase().replace('-', " ");
    ["rolled forward", "undone"].into_iter().find(|word| words.contains(word)).unwrap_or("clean")
}

/// One cut, and whether the sync was reported as done before it.
struct Cut {
    clone: Image,
    is_done: bool,
}

/// Cuts until `cuts` are made, or the first violation. `faults` are the sink's for the whole campaign.
fn campaign(site: &mut Site, rng: &mut Rng, rounds: &Rounds, cuts: u64, faults: &Faults) -> Result<Tally, String> {
    let mut tally = Tally::default();
    let subject = site.pair.subject;
    subject.create(&site.pair.source(), rng, rounds);
    site.pair.sync();
    site.settle();
    let mut lasts = Duration::from_millis(200);
    for sync in 0.. {
        if tally.cuts >= cuts {
            break;
        }
        subject.edit(&site.pair.source(), rng, rounds);
        let (old, new) = (subject.portrait(&site.pair.replica()), subject.portrait(&site.pair.source()));
        let mut made = if sync % 2 == 0 {
            at_random_times(site, rng, &mut lasts, &mut tally)?
        } else {
            at_a_random_step(site, rng, faults, &mut tally)?
        };
        // What was reported as done survives.
        let clone = site.image.cut_power("done-").map_err(|error| error.to_string())?;
        made.push(Cut { clone, is_done: true });
        for Cut { clone, is_done } in made {
            let (found, recovery) = site.recovered(&clone)?;
            judge(&old, &new, &found, is_done, &mut tally).map_err(|why| format!("cut {}: {why}", tally.cuts))?;
            *tally.recoveries.entry(recovery).or_default() += 1;
            tally.cuts += 1;
        }
    }
    Ok(tally)
}

/// Several cuts at random moments of one sync.
fn at_random_times(site: &Site, rng: &mut Rng, lasts: &mut Duration, tally: &mut Tally) -> Result<Vec<Cut>, String> {
    let (client, job) = site.pair.start_sync();
    let begun = std::time::Instant::now();
    let mut moments: Vec<Duration> = (0..CUTS_PER_SYNC).map(|_| lasts.mul_f64(rng.f64())).collect();
    moments.sort();
    let mut made = Vec::new();
    for (number, moment) in moments.into_iter().enumerate() {
        thread::sleep(moment.saturating_sub(begun.elapsed()));
        let clone = site.image.cut_power(&format!("cut{number}-")).map_err(|error| error.to_string())?;
        made.push(Cut { clone, is_done: false });
        let status = client.watch(&job, SYNC, |_| true).map(|outcome| outcome.status);
        let phase = status.map_or(Phase::Unspecified, |status| status.phase());
        *tally.phases.entry(format!("{phase:?}")).or_default() += 1;
    }
    // The next cuts are spread over what this sync seems to have taken.
    let was_over = client.watch(&job, SYNC, |_| true).is_ok_and(|outcome| outcome.is_done());
    *lasts = lasts.mul_f64(if was_over { 0.8 } else { 1.25 });
    client.outcome(&job, SYNC).map_err(|status| status.to_string())?.expect_done("sync");
    Ok(made)
}

/// One cut while the sink stands still at a random step.
fn at_a_random_step(site: &mut Site, rng: &mut Rng, faults: &Faults, tally: &mut Tally) -> Result<Vec<Cut>, String> {
    let (step, hit) = (STEPS[rng.usize(0..STEPS.len())], rng.u64(1..=30));
    let hit = if step.ends_with('*') { hit } else { 1 };
    let flag = site.pair.scratch().join("paused");
    site.pair.b.restart(&faults.clone().and(format!("{step}#{hit}=pause:{}", flag.display())));
    let (client, job) = site.pair.start_sync();
    let is_there = process::until("the step or the sync's end", REACH, || {
        let over = || client.watch(&job, SYNC, |_| true).is_ok_and(|outcome| outcome.is_done());
        if flag.exists() { Some(true) } else { over().then_some(false) }
    });
    let mut made = Vec::new();
    if is_there {
        let clone = site.image.cut_power("step-").map_err(|error| error.to_string())?;
        made.push(Cut { clone, is_done: false });
        tally.stepped += 1;
        std::fs::remove_file(&flag).map_err(|error| error.to_string())?;
    }
    client.outcome(&job, SYNC).map_err(|status| status.to_string())?.expect_done("sync");
    if !is_there {
        // The step may lie ahead still: a later sync would stand there, and nobody would let it go on.
        site.pair.b.restart(faults);
    }
    Ok(made)
}

fn judge(old: &Portrait, new: &Portrait, found: &Portrait, is_done: bool, tally: &mut Tally) -> Result<(), String> {
    let from_new = compare(new, found);
    if from_new.is_empty() {
        tally.new += 1;
        return Ok(());
    }
    let from_old = compare(old, found);
    if from_old.is_empty() && !is_done {
        tally.old += 1;
        return Ok(());
    }
    let shown = |list: &[Difference]| list.iter().take(4).map(|one| format!("  {one}\n")).collect::<String>();
    let what = if is_done { "not the point that was reported as done" } else { "neither point" };
    Err(format!("{what}\nfrom the old:\n{}from the new:\n{}", shown(&from_old), shown(&from_new)))
}

fn r1_power_cut_on(file_system: FileSystem, subject: Subject, name: &str) {
    if !skip::needs_root(name) {
        return;
    }
    if let Some(why) = file_system.missing() {
        return skip::skipped(name, &why);
    }
    let (rounds, seeds) = (Rounds::chosen(), Seeds::of(name));
    rounds.announce(name, "cuts", |rounds| rounds.power_cuts);
    let mut site = Site::new(file_system, subject, &Faults::none());
    let tally = campaign(&mut site, &mut seeds.rng(0), &rounds, rounds.power_cuts, &Faults::none());
    let tally = tally.unwrap_or_else(|why| panic!("DROVER_SEED={}: {why}", seeds.round(0)));
    println!("{name}: {} cuts: {} old, {} new; recovery {:?}", tally.cuts, tally.old, tally.new, tally.recoveries);
    println!("{name}: {} cuts at a random step, the others at a random time: {:?}", tally.stepped, tally.phases);
    let of = subject.of();
    let what = format!("power cuts{of} on {}, each a whole point", file_system.name());
    figure::report(&what, tally.cuts, "cuts", Goal::AtLeast(200));
}

#[test]
fn r1_power_cut_ext4() {
    r1_power_cut_on(FileSystem::Ext4, Subject::Tree, "r1_power_cut_ext4");
}

#[test]
fn r1_power_cut_image_ext4() {
    r1_power_cut_on(FileSystem::Ext4, Subject::Image, "r1_power_cut_image_ext4");
}

#[test]
fn r1_power_cut_device() {
    r1_power_cut_on(FileSystem::Ext4, Subject::Device, "r1_power_cut_device");
}

#[test]
fn r1_power_cut_xfs() {
    r1_power_cut_on(FileSystem::Xfs, Subject::Tree, "r1_power_cut_xfs");
}

#[test]
fn r1_power_cut_image_xfs() {
    r1_power_cut_on(FileSystem::Xfs, Subject::Image, "r1_power_cut_image_xfs");
}

#[test]
fn r1_power_cut_btrfs() {
    r1_power_cut_on(FileSystem::Btrfs, Subject::Tree, "r1_power_cut_btrfs");
}

#[test]
fn r1_power_cut_image_btrfs() {
    r1_power_cut_on(FileSystem::Btrfs, Subject::Image, "r1_power_cut_image_btrfs");
}

/// The same test with fsync switched off must fail, or it would prove nothing.
#[test]
fn a_power_cut_without_fsync_is_noticed() {
    const NAME: &str = "a_power_cut_without_fsync_is_noticed";
    if !skip::needs_root(NAME) {
        return;
    }
    let (rounds, seeds) = (Rounds::chosen(), Seeds::of(NAME));
    for file_system in FileSystem::ALL {
        if let Some(why) = file_system.missing() {
            skip::skipped(NAME, &why);
            continue;
        }
        let faults = Faults::none().without("fsync");
        let mut site = Site::new(file_system, Subject::Tree, &faults);
        let tally = campaign(&mut site, &mut seeds.rng(0), &rounds, 100, &faults);
        let why = tally.expect_err("no cut was noticed without fsync");
        println!("{NAME}: {file_system:?}: noticed: {why}");
        let what = format!("a power cut without fsync is noticed on {}", file_system.name());
        figure::report(&what, 1, "(1 = yes)", Goal::AtLeast(1));
    }
}
