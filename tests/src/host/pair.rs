//! Two sites: agent `site-a` with the primary, `site-b` with the replica.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use drover_proto::v1::{self, Direction, VolumeRole, volume_spec::Kind};

use super::{Agent, Certificates, Client, Faults, Outcome};
use crate::{cutlink::CutLink, mount::Device, scratch::Scratch, subject::Subject};

pub const SYNC: Duration = Duration::from_secs(300);
const ROOT: &str = "nfs";
const DEVICES: &str = "disks";
/// In each root, for the volumes that are devices.
pub(super) const DEVICES_BESIDE: &str = ".disks";
const PEER_A: &str = "site-a";
const PEER_B: &str = "site-b";

/// What differs from an ordinary pair.
#[derive(Debug, Default)]
pub struct PairSetup {
    /// Where the roots lie, when not in a temporary directory: on a mounted image, say.
    pub root_a: Option<PathBuf>,
    pub root_b: Option<PathBuf>,
    /// More lines for both configurations.
    pub more: String,
    /// Restore points to keep; the default of the product when `None`.
    pub retain: Option<u32>,
    /// What the first volume is.
    pub subject: Subject,
    /// What `site-a` dials goes through a link that can be cut.
    pub with_link: bool,
    pub faults_a: Faults,
    pub faults_b: Faults,
}

#[derive(Debug)]
pub struct Pair {
    // Agents end before their directories go.
    pub a: Agent,
    pub b: Agent,
    pub link: Option<CutLink>,
    /// The first volume, `v`.
    pub volume: String,
    pub subject: Subject,
    retain: Option<u32>,
    root_a: PathBuf,
    root_b: PathBuf,
    pub devices: Vec<Device>,
    scratch: Scratch,
}

impl Pair {
    pub fn start() -> Self {
        Self::with(PairSetup::default())
    }

    /// Starts both agents and protects the volume `v`; the source exists and is empty.
    pub fn with(setup: PairSetup) -> Self {
        let scratch = Scratch::new("pair");
        let certificates = Certificates::init(&scratch.join("certs"), &[PEER_A, PEER_B]);
        let (mut a, mut b) = (Agent::new(PEER_A, &certificates), Agent::new(PEER_B, &certificates));
        let link = setup.with_link.then(|| CutLink::to(b.port()).expect("a link"));
        let root_a = setup.root_a.unwrap_or_else(|| scratch.join("a"));
        let root_b = setup.root_b.unwrap_or_else(|| scratch.join("b"));
        a.setup.peers = vec![(PEER_B.to_owned(), link.as_ref().map_or(b.port(), CutLink::port))];
        b.setup.peers = vec![(PEER_A.to_owned(), a.port())];
        for (agent, root) in [(&mut a, &root_a), (&mut b, &root_b)] {
            fs::create_dir_all(root).expect("root");
            agent.setup.roots = vec![(ROOT.to_owned(), root.clone())];
            agent.setup.more = setup.more.clone();
            if setup.subject == Subject::Device {
                let beside = root.join(DEVICES_BESIDE);
                agent.setup.more = format!(
                    "[[root]]\nname = {DEVICES:?}\npath = \"/dev\"\nkind = \"devices\"\nbeside = {beside:?}\n{}",
                    setup.more
                );
            }
        }
        a.start(&setup.faults_a);
        b.start(&setup.faults_b);
        let (subject, retain) = (setup.subject, setup.retain);
        let devices = Vec::new();
        let mut pair = Self { a, b, link, volume: String::new(), subject, retain, root_a, root_b, devices, scratch };
        pair.volume = pair.protect_as(subject, "v");
        pair
    }

    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    pub fn root_a(&self) -> &Path {
        &self.root_a
    }

    pub fn root_b(&self) -> &Path {
        &self.root_b
    }

    pub fn source(&self) -> PathBuf {
        self.root_a.join("v")
    }

    pub fn replica(&self) -> PathBuf {
        self.root_b.join("v")
    }

    /// Protects one more volume beneath both roots; returns its id.
    #[track_caller]
    pub fn protect(&mut self, path: &str) -> String {
        self.protect_as(Subject::Tree, path)
    }

    /// `dir` is the directory, or the one that the image is in.
    #[track_caller]
    pub fn protect_as(&mut self, subject: Subject, dir: &str) -> String {
        let volume_id = uuid::Uuid::new_v4().to_string();
        let (root, path) = (ROOT.to_owned(), subject.path(dir));
        let kinds = match subject {
            Subject::Tree => {
                [(); 2].map(|()| Kind::Directory(v1::Directory { root: root.clone(), path: path.clone() }))
            }
            Subject::Image => {
                [(); 2].map(|()| Kind::BlockFile(v1::BlockFile { root: root.clone(), path: path.clone() }))
            }
            Subject::Device => [&self.root_a, &self.root_b].map(|root| {
                let device = Subject::attach(&root.join(dir)).expect("a loop device");
                let path = device.name().to_owned();
                self.devices.push(device);
                Kind::BlockFile(v1::BlockFile { root: DEVICES.to_owned(), path })
            }),
        };
        if subject != Subject::Device {
            subject.found(&self.root_a.join(dir)).expect("source");
        }
        let request = |role: VolumeRole, peer: &str| v1::EnableRequest {
            volume_id: volume_id.clone(),
            spec: Some(v1::VolumeSpec { kind: Some(kinds[usize::from(role == VolumeRole::Secondary)].clone()) }),
            role: role.into(),
            peer: Some(peer.to_owned()),
            retain: self.retain,
            ..v1::EnableRequest::default()
        };
        self.a.controller().enable(request(VolumeRole::Primary, PEER_B)).expect("enable the primary");
        self.b.controller().enable(request(VolumeRole::Secondary, PEER_A)).expect("enable the secondary");
        volume_id
    }

    /// A sync of the first volume, which must succeed.
    #[track_caller]
    pub fn sync(&self) -> Outcome {
        self.try_sync().expect_done("sync")
    }

    #[track_caller]
    pub fn try_sync(&self) -> Outcome {
        self.try_sync_of(&self.volume, Direction::Unspecified)
    }

    /// Begun at the source, or with `Pull` at the replica.
    #[track_caller]
    pub fn try_sync_of(&self, volume_id: &str, direction: Direction) -> Outcome {
        let agent = if direction == Direction::Pull { &self.b } else { &self.a };
        let client = agent.controller();
        let job = client.start(self.request(volume_id, direction)).expect("start a sync");
        client.outcome(&job, SYNC).expect("watch a sync")
    }

    /// Starts a sync at the source and returns without waiting.
    #[track_caller]
    pub fn start_sync(&self) -> (Client, String) {
        let client = self.a.controller();
        let job = client.start(self.request(&self.volume, Direction::Unspecified)).expect("start a sync");
        (client, job)
    }

    pub fn request(&self, volume_id: &str, direction: Direction) -> v1::StartRequest {
        // Random edits may delete more than the guard for ordinary life lets pass.
        let options =
            v1::SyncOptions { delete_percent_max: Some(100), allow_empty_source: true, ..v1::SyncOptions::default() };
        v1::StartRequest {
            volume_id: volume_id.to_owned(),
            direction: direction.into(),
            options: Some(options),
            ..v1::StartRequest::default()
        }
    }

    /// A disaster: the replica is promoted while the source's agent is dead, which then comes back and is primary, too.
    #[track_caller]
    pub fn fail_over(&mut self, volume_id: &str) {
        Self::promote_beside_dead(&mut self.a, &self.b, volume_id);
    }

    /// The other way round.
    #[track_caller]
    pub fn fail_back(&mut self, volume_id: &str) {
        Self::promote_beside_dead(&mut self.b, &self.a, volume_id);
    }

    #[track_caller]
    fn promote_beside_dead(dead: &mut Agent, promoted: &Agent, volume_id: &str) {
        dead.kill();
        promoted.controller().promote(volume_id, false).expect_err("what the dead one has is not known");
        promoted.controller().promote(volume_id, true).expect("promote by force");
        dead.start(&Faults::none());
    }

    /// Why the volume is not healthy, by what the source's agent says.
    #[track_caller]
    pub fn troubles(&self) -> Vec<String> {
        self.a.controller().info(&self.volume).expect("look at the volume").health_because
    }

    /// Both judges agree that the replica is the source.
    #[track_caller]
    pub fn assert_same(&self, why: &str) {
        self.subject.assert_same(&self.source(), &self.replica(), why);
    }

    /// Neither agent warned of anything that is not listed.
    #[track_caller]
    pub fn assert_quiet(&self, listed: &[&str]) {
        self.a.assert_quiet(listed);
        self.b.assert_quiet(listed);
    }
}
