//! Where a process can be killed: the failpoints that a clean run passes, and the workloads that pass them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, Metadata},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use drover_proto::v1::{Direction, Origin, RestorePoint};
use drover_tests::{
    host::{Faults, Pair, PairSetup, SYNC},
    rounds::Rounds,
    seed::Rng,
    subject::Subject,
    tree,
};
use rustix::fs::IFlags;

/// What is going on when the kill comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Workload {
    /// Edits of every kind, then a sync.
    Sync,
    /// The replica was changed behind the agent's back as well.
    Repair,
    /// Back to an older point.
    Rollback,
}

/// Which agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Victim {
    Source,
    Sink,
}

impl Workload {
    pub(crate) const ALL: [Self; 3] = [Self::Sync, Self::Repair, Self::Rollback];

    /// Changes the trees, so that there is something to do.
    pub(crate) fn prepare(self, pair: &Pair, rounds: &Rounds, rng: &mut Rng) {
        let source = pair.source();
        pair.subject.edit(&source, rng, rounds);
        if pair.subject != Subject::Tree {
            if self == Self::Repair {
                pair.subject.edit(&pair.replica(), rng, rounds);
            }
            unsettle(pair);
            return;
        }
        edit_of_every_step(&source, rng);
        if tree::list(&source).len() < rounds.entries / 2 {
            tree::unlock_tree(&source).expect("unlock");
            // A random edit may have left a symlink of that name that leads nowhere.
            let is_free = |path: &PathBuf| fs::symlink_metadata(path).is_err();
            let more = (0..).map(|n| source.join(format!("more{n}"))).find(is_free);
            tree::create(&more.expect("some name is free"), rng, rounds.entries / 2);
        }
        if self == Self::Repair {
            tree::edit(&pair.replica(), rng, 5);
        }
    }

    /// Starts the work; the job's id with its client, or nothing when the victim died before it could answer.
    pub(crate) fn start(self, pair: &Pair) -> Option<String> {
        match self {
            Self::Sync | Self::Repair => {
                let client = pair.a.controller();
                client.start(pair.request(&pair.volume, Direction::Unspecified)).ok()
            }
            Self::Rollback => {
                let client = pair.b.controller();
                let points = client.points(&pair.volume).expect("restore points");
                let older = points.iter().find(|point| is_older(point)).expect("an older restore point");
                client.rollback(&pair.volume, &older.point.as_ref()?.id).ok()
            }
        }
    }

    /// To its end, on agents that nothing happens to.
    pub(crate) fn run(self, pair: &Pair) {
        let job = self.start(pair).expect("start");
        let client = if self == Self::Rollback { pair.b.controller() } else { pair.a.controller() };
        client.outcome(&job, SYNC).expect("watch").expect_done(&format!("{self:?}"));
        self.finish(pair);
    }

    /// Lets syncs go on.
    pub(crate) fn finish(self, pair: &Pair) {
        if self == Self::Rollback {
            pair.b.controller().release(&pair.volume).expect("release");
        }
    }
}

/// What a device holds is known after a sync: it is read again when somebody has written to it.
pub(crate) fn unsettle(pair: &Pair) {
    if pair.subject == Subject::Device {
        pair.subject.rewrite(&pair.replica());
    }
}

/// Random edits may leave a kind of step out; these make sure that each is taken, so that no failpoint is missed.
fn edit_of_every_step(source: &Path, rng: &mut Rng) {
    let dir = source.join("every step");
    let (old, number) = (fs::read_dir(&dir).map_or(0, Iterator::count), rng.u32(..));
    tree::unlock_tree(source).expect("unlock");
    // Random edits come here as well, and may have made anything of it.
    let inode = |name| fs::symlink_metadata(dir.join(name)).ok().filter(Metadata::is_file).map(|meta| meta.ino());
    let inodes: BTreeSet<u64> = ["locked", "large", "small", "mode"].into_iter().filter_map(inode).collect();
    if old > 12 || inodes.len() < 4 {
        tree::remove_tree(&dir).or_else(|_| fs::remove_file(&dir)).expect("remove");
        fs::create_dir(&dir).expect("directory");
        fs::write(dir.join("mode"), "only its metadata change").expect("write");
    }
    let locked = dir.join("locked");
    fs::write(&locked, number.to_string()).expect("write");
    tree::set_flags(&locked, IFlags::IMMUTABLE, IFlags::empty()).expect("lock");
    // Large enough for ranges, small enough for a batch, a further name, a directory in and one out.
    fs::write(dir.join("large"), number.to_le_bytes().repeat(400_000)).expect("write");
    fs::write(dir.join("small"), number.to_string()).expect("write");
    let linked = dir.join(format!("linked {number}"));
    fs::hard_link(dir.join("small"), &linked).expect("link");
    let gone = dir.join("in and out");
    // Not what a symlink leads to.
    if fs::symlink_metadata(&gone).is_ok_and(|meta| meta.is_dir()) {
        tree::remove_tree(&gone).expect("remove");
    } else {
        // There may be nothing.
        let _ = fs::remove_file(&gone);
        fs::create_dir(&gone).expect("directory");
    }
    tree::set_mtime(&dir.join("large"), tree::Mtime(number.into(), 7)).expect("time");
    tree::set_xattr(&dir.join("mode"), "user.x", &number.to_le_bytes()).expect("xattr");
}

/// Not what the tree is at, nor what was kept of a change behind the agent's back.
fn is_older(point: &RestorePoint) -> bool {
    !point.current && point.point.as_ref().is_some_and(|point| point.origin() == Origin::Sync)
}

/// One failpoint: in which work of which agent it lies, and how often a clean run hits it.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) name: String,
    pub(crate) workload: Workload,
    pub(crate) victim: Victim,
    pub(crate) hits: u64,
}

/// Failpoints of all workloads on both agents, from clean runs. A name that two agents pass is there for both, and one
/// that a rollback passes is there for the rollback as well.
pub(crate) fn places(subject: Subject, rounds: &Rounds, seed: u64) -> Vec<Place> {
    let mut rng = Rng::with_seed(seed);
    let mut pair = Pair::with(PairSetup { subject, retain: Some(4), ..PairSetup::default() });
    subject.create(&pair.source(), &mut rng, rounds);
    pair.sync();
    let mut found = BTreeMap::new();
    for workload in Workload::ALL {
        workload.prepare(&pair, rounds, &mut rng);
        if workload == Workload::Rollback {
            pair.sync();
            unsettle(&pair);
        }
        let logs = [pair.scratch().join("faults-a"), pair.scratch().join("faults-b")];
        pair.a.restart(&Faults::none().noted_in(&logs[0]));
        pair.b.restart(&Faults::none().noted_in(&logs[1]));
        workload.run(&pair);
        pair.a.kill();
        pair.b.kill();
        for (victim, log) in [(Victim::Source, &logs[0]), (Victim::Sink, &logs[1])] {
            note(&mut found, workload, victim, log);
        }
        pair.a.start(&Faults::none());
        pair.b.start(&Faults::none());
        pair.sync();
    }
    found.into_values().collect()
}

/// By name, victim and whether it is a rollback.
type Found = BTreeMap<(String, Victim, bool), Place>;

fn note(found: &mut Found, workload: Workload, victim: Victim, log: &Path) {
    for (name, hits) in Faults::hits(log) {
        let place = Place { name: name.clone(), workload, victim, hits };
        found.entry((name, victim, workload == Workload::Rollback)).or_insert(place);
    }
    // What the start of the next agent logs is another workload's.
    let _ = std::fs::remove_file(log);
}

/// How many different names there are, and how many of them lie between the commit record and the end of apply.
pub(crate) fn count(places: &[Place]) -> (usize, usize) {
    let names: std::collections::BTreeSet<&str> = places.iter().map(|place| place.name.as_str()).collect();
    let applying = names.iter().filter(|name| name.starts_with("apply.")).count();
    (names.len(), applying)
}
