//! Clients of an NFS server are shut out, provably, and let in again; and a primary that is one no more shuts its own out (R8).

use std::{
    fs,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use drover_proto::v1::{
    Direction, ExportFence, FenceExportRequest, FenceVolumeRequest, Label, ListExportsRequest, ListExportsResponse,
    Shut, UnfenceExportRequest, UnfenceVolumeRequest, Unfenced,
};
use drover_tests::{
    figure::{self, Goal},
    ganesha::{self, Ganesha, export},
    host::{Agent, Certificates, Faults, Pair, PairSetup, SYNC, agent_binary, status_reason},
    nfs_client::Writer,
    process,
    rounds::Rounds,
    scratch::Scratch,
    seed::Seeds,
    skip,
};
use tonic::Status;

const USER: u32 = 1000;
const EROFS: i32 = 30;
const SOON: Duration = Duration::from_secs(30);

fn fence(agent: &Agent, volume: &str, shut: Shut) -> Result<ExportFence, Status> {
    fence_as(agent, FenceVolumeRequest { volume_id: volume.to_owned(), shut: shut.into(), ..Default::default() })
}

fn fence_as(agent: &Agent, request: FenceVolumeRequest) -> Result<ExportFence, Status> {
    let client = agent.controller();
    let fenced = client.call(client.fence().fence_volume(request))?;
    Ok(fenced.volume.and_then(|volume| volume.export_fence).expect("a fence"))
}

fn unfence(agent: &Agent, volume: &str) -> Result<Unfenced, Status> {
    let client = agent.controller();
    let request = UnfenceVolumeRequest { volume_id: volume.to_owned() };
    client.call(client.fence().unfence_volume(request)).map(|unfenced| unfenced.exports.expect("exports"))
}

fn exports(agent: &Agent) -> ListExportsResponse {
    let client = agent.controller();
    client.call(client.fence().list_exports(ListExportsRequest {})).expect("list exports")
}

/// A pair whose primary is served by NFS-Ganesha: its directory as `/vol`, and again by another name as `/alias`.
struct Served {
    // The client ends before its server, which ends before its directories.
    ganesha: Ganesha,
    pair: Pair,
    _scratch: Scratch,
}

impl Served {
    fn with(squash: &str, owner: u32, more: &str) -> Self {
        let scratch = Scratch::new("served");
        let root = scratch.join("a");
        let source = root.join("v");
        fs::create_dir_all(&source).expect("the source");
        chown(&source, Some(owner), Some(owner)).expect("give the source to a user");
        let blocks = format!("{}{}", export(77, &source, "/vol", squash), export(78, &source, "/alias", squash));
        let ganesha = Ganesha::start(&blocks);
        let mut pair = Pair::with(PairSetup { root_a: Some(root), ..PairSetup::default() });
        pair.a.stop();
        pair.a.setup.more = ganesha.agent_config(more);
        pair.a.start(&Faults::none());
        Self { ganesha, pair, _scratch: scratch }
    }

    fn new() -> Self {
        Self::with("No_Root_Squash", USER, "")
    }

    fn writer(&self) -> Writer {
        Writer::start(self.ganesha.port(), "/vol", "written-over-nfs", USER)
    }
}

#[test]
fn clients_are_shut_out_and_that_is_proved() {
    const NAME: &str = "clients_are_shut_out_and_that_is_proved";
    if !skip::needs_root(NAME) || !ganesha::is_installed(NAME) {
        return;
    }
    let served = Served::new();
    let (pair, volume) = (&served.pair, served.pair.volume.clone());
    let before = served.ganesha.config_text();
    let writer = served.writer();
    pair.sync();

    let listed = exports(&pair.a);
    assert_eq!(listed.exports.len(), 2, "both names");
    assert!(listed.exports.iter().all(|export| export.volume_ids == [volume.clone()]), "both lead to the volume");
    let begin = Instant::now();
    let fence = fence(&pair.a, &volume, Shut::ReadOnly).expect("fence");
    println!("{NAME}: fenced in {} ms", begin.elapsed().as_millis());
    assert!(fence.proved, "{:?}", fence.lacking);
    assert_eq!((fence.before.len(), fence.after.len()), (2, 2), "a probe through each export");
    assert!(
        fence
            .after
            .iter()
            .all(|probe| probe.said.len() == 2
                && probe.said.iter().all(|it| it.contains("ROFS") || it.contains("ead-only"))),
        "{:?}",
        fence.after
    );
    // One address, a network and a pattern in a block, and everybody else.
    assert_eq!(fence.entries.len(), 8, "{:?}", fence.entries);
    let (errno, _) = writer.wait_refused(Duration::from_secs(2));
    assert_eq!(errno, EROFS);
    let told = writer.told();

    // Data of the point that is taken now, and what the point is worth.
    let outcome = pair.sync();
    pair.assert_same("nobody writes");
    let newest = pair.b.controller().info(&volume).expect("info").newest.expect("a point");
    assert_eq!((newest.id.as_str(), newest.label()), (outcome.point_id().as_str(), Label::Fenced));
    assert_eq!(writer.told().written, told.written, "nothing is written meanwhile");
    let names = |dir: &Path| {
        fs::read_dir(dir).expect("list").map(|entry| entry.expect("entry").file_name()).collect::<Vec<_>>()
    };
    assert_eq!(names(&pair.source()), ["written-over-nfs"], "probes leave nothing behind");

    // Again, and after the server's restart: it looks again.
    let again =
        fence_as(&pair.a, FenceVolumeRequest { volume_id: volume.clone(), ..Default::default() }).expect("again");
    assert!(again.proved && again.since_unix_secs == fence.since_unix_secs, "{:?}", again.lacking);

    let unfenced = unfence(&pair.a, &volume).expect("unfence");
    assert_eq!(unfenced, Unfenced::default());
    assert_eq!(served.ganesha.config_text(), before, "exactly what stood there");
    writer.wait_written();
    assert!(exports(&pair.a).fences.is_empty());
    let refused = unfence(&pair.a, &volume).expect_err("nothing is fenced");
    assert_eq!(status_reason(&refused), "not-fenced");
    // A point that is taken while clients write claims nothing.
    pair.sync();
    let newest = pair.b.controller().info(&volume).expect("info").newest.expect("a point");
    assert_ne!(newest.label(), Label::Fenced);
}

#[test]
fn clients_can_be_refused_altogether() {
    const NAME: &str = "clients_can_be_refused_altogether";
    if !skip::needs_root(NAME) || !ganesha::is_installed(NAME) {
        return;
    }
    let served = Served::new();
    let volume = served.pair.volume.clone();
    let before = served.ganesha.config_text();
    let writer = served.writer();
    let fence = fence(&served.pair.a, &volume, Shut::Refuse).expect("fence");
    assert!(fence.proved, "{:?}", fence.lacking);
    assert!(fence.entries.iter().all(|entry| entry.ends_with(": none")), "{:?}", fence.entries);
    assert_ne!(writer.wait_refused(Duration::from_secs(2)).0, 0);
    let client = drover_libnfs::Libnfs::load().expect("load libnfs");
    client.mount(&drover_tests::nfs_client::server(served.ganesha.port(), USER), "/vol").expect_err("nobody mounts it");
    unfence(&served.pair.a, &volume).expect("unfence");
    assert_eq!(served.ganesha.config_text(), before);
    std::thread::sleep(Duration::from_millis(100));
    println!("{NAME}: a handle that was open all the time: {:?}", writer.told());
    Writer::start(served.ganesha.port(), "/vol", "written-later", USER);
}

#[test]
fn what_was_not_seen_to_work_before_proves_nothing() {
    const NAME: &str = "what_was_not_seen_to_work_before_proves_nothing";
    if !skip::needs_root(NAME) || !ganesha::is_installed(NAME) {
        return;
    }
    // The directory is root's, and root is nobody here: each write is refused, fence or not.
    let served = Served::with("Root_Squash", 0, "");
    fs::set_permissions(served.pair.source(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("chmod");
    let (pair, volume) = (&served.pair, served.pair.volume.clone());
    let squashed = fence(&pair.a, &volume, Shut::ReadOnly).expect("fence");
    assert!(!squashed.proved && squashed.before.is_empty(), "{squashed:?}");
    assert!(squashed.lacking.iter().any(|why| why.contains("before")), "{:?}", squashed.lacking);
    pair.sync();
    let newest = pair.b.controller().info(&volume).expect("info").newest.expect("a point");
    assert_ne!(newest.label(), Label::Fenced, "not proved, so not said");
    let troubles = pair.troubles();
    assert!(troubles.iter().any(|why| why.contains("not proved")), "{troubles:?}");
    unfence(&pair.a, &volume).expect("unfence");

    // A dead server refuses everything as well.
    let mut served = Served::new();
    let volume = served.pair.volume.clone();
    let before = served.ganesha.config_text();
    served.ganesha.kill();
    let dead = fence(&served.pair.a, &volume, Shut::ReadOnly).expect("fence");
    assert!(!dead.proved && dead.before.is_empty() && dead.after.is_empty(), "{dead:?}");
    // It is meant all the same: the server comes back with it, and that proves nothing still.
    assert_ne!(served.ganesha.config_text(), before);
    served.ganesha.run();
    let library = drover_libnfs::Libnfs::load().expect("load libnfs");
    let mount = library.mount(&drover_tests::nfs_client::server(served.ganesha.port(), USER), "/vol").expect("mount");
    assert_eq!(mount.create("/x", 0o600).map(drop).expect_err("read-only").errno.raw_os_error(), EROFS);
    let again = fence(&served.pair.a, &volume, Shut::ReadOnly).expect("fence");
    assert!(!again.proved, "{again:?}");
    let unfenced = unfence(&served.pair.a, &volume).expect("unfence");
    assert_eq!((unfenced, served.ganesha.config_text()), (Unfenced::default(), before));
    // By the command line: what it says, and how it ends.
    let mut command = Command::new(agent_binary());
    command.args(["volume", "--config"]).arg(served.pair.a.config()).args(["fence", &volume]);
    let said = process::run(command, SOON).expect("fence by the command line");
    assert!(said.stdout.contains("FENCED, proved") && said.stdout.contains("before nfs://"), "{}", said.stdout);
}

#[test]
fn a_signal_reloads_and_proves_nothing() {
    const NAME: &str = "a_signal_reloads_and_proves_nothing";
    if !skip::needs_root(NAME) || !ganesha::is_installed(NAME) {
        return;
    }
    let mut served = Served::new();
    served.pair.a.stop();
    served.pair.a.setup.more = served.ganesha.agent_config_by_signal();
    served.pair.a.start(&Faults::none());
    let (before, writer) = (served.ganesha.config_text(), served.writer());
    let fence = fence(&served.pair.a, &served.pair.volume, Shut::ReadOnly).expect("fence");
    assert!(!fence.proved && fence.lacking.iter().any(|why| why.contains("D-Bus")), "{:?}", fence.lacking);
    assert_eq!(writer.wait_refused(SOON).0, EROFS);
    unfence(&served.pair.a, &served.pair.volume).expect("unfence");
    assert_eq!(served.ganesha.config_text(), before);
    writer.wait_written();
}

/// Places where the agent is killed while it fences or lets in again.
const PLACES: [&str; 8] = [
    "fence.booked",
    "fence.planned",
    "fence.file",
    "fence.loaded",
    "fence.carried",
    "unfence.booked",
    "fence.loaded#2",
    "unfence.carried",
];

#[test]
fn an_agent_killed_while_it_fences_goes_on_from_its_journal() {
    const NAME: &str = "an_agent_killed_while_it_fences_goes_on_from_its_journal";
    if !skip::needs_root(NAME) || !ganesha::is_installed(NAME) {
        return;
    }
    let (rounds, seeds) = (Rounds::chosen(), Seeds::of(NAME));
    rounds.announce(NAME, "kills while fencing", |rounds| rounds.fence_kills);
    let mut served = Served::new();
    let volume = served.pair.volume.clone();
    let before = served.ganesha.config_text();
    let writer = served.writer();
    let mut right = 0;
    for round in 0..rounds.fence_kills {
        let mut rng = seeds.rng(round);
        // Every other one at a failpoint, the rest at any moment.
        let place = PLACES[(round / 2) as usize % PLACES.len()];
        let (name, at) = place.split_once('#').map_or((place, 1), |(name, at)| (name, at.parse().expect("a number")));
        let is_placed = round % 2 == 0;
        let faults = if is_placed { Faults::kill(name, at) } else { Faults::none() };
        served.pair.a.restart(&faults);
        let wait = Duration::from_millis(rng.u64(0..120));
        let client = served.pair.a.controller();
        let calling = {
            let volume = volume.clone();
            std::thread::spawn(move || {
                let request = FenceVolumeRequest { volume_id: volume.clone(), ..Default::default() };
                // Killed in the middle: that is what comes of it.
                let _ = client.call(client.fence().fence_volume(request));
                let _ = client.call(client.fence().unfence_volume(UnfenceVolumeRequest { volume_id: volume }));
            })
        };
        if is_placed {
            process::until(&format!("{place} kills the agent"), SOON, || served.pair.a.ended());
        } else {
            std::thread::sleep(wait);
        }
        served.pair.a.kill();
        calling.join().expect("no panic");
        served.pair.a.start(&Faults::none());
        // The agent settles what was begun: the server is then as the journal says.
        let fences = process::until("the journal is carried out", SOON, || {
            let fences = exports(&served.pair.a).fences;
            fences.iter().all(|fence| !fence.lifting && fence.looked_at_unix_secs > 0).then_some(fences)
        });
        let text = served.ganesha.config_text();
        match fences.as_slice() {
            [] => {
                process::until("files are as they were", SOON, || {
                    (served.ganesha.config_text() == before).then_some(())
                });
                writer.wait_written();
            }
            [fence] => {
                assert_ne!(text, before, "round {round}: fenced in the journal");
                assert_eq!(writer.wait_refused(SOON).0, EROFS, "round {round}");
                assert!(fence.lacking.iter().all(|why| !why.contains("still open")), "{:?}", fence.lacking);
                assert!(fence.proved || fence.before.is_empty(), "round {round}: {:?}", fence.lacking);
                unfence(&served.pair.a, &volume).expect("unfence");
                writer.wait_written();
            }
            more => panic!("{} fences", more.len()),
        }
        assert_eq!(served.ganesha.config_text(), before, "round {round}: exactly what stood there");
        let left: Vec<_> =
            fs::read_dir(served.pair.source()).expect("list").flatten().map(|it| it.file_name()).collect();
        assert_eq!(left, ["written-over-nfs"], "round {round}: probes leave nothing behind");
        right += 1;
    }
    figure::report("agents killed while fencing: as journalled", right, "kills", Goal::AtLeast(rounds.fence_kills));
}

#[test]
fn an_export_that_leads_to_more_is_shut_only_when_that_is_said() {
    const NAME: &str = "an_export_that_leads_to_more_is_shut_only_when_that_is_said";
    if !skip::needs_root(NAME) || !ganesha::is_installed(NAME) {
        return;
    }
    let scratch = Scratch::new("shared");
    let root = scratch.join("a");
    for dir in ["v", "w"] {
        fs::create_dir_all(root.join(dir)).expect("a directory");
        chown(root.join(dir), Some(USER), Some(USER)).expect("chown");
    }
    let ganesha = Ganesha::start(&export(5, &root, "/base", "No_Root_Squash"));
    let mut pair = Pair::with(PairSetup { root_a: Some(root), more: String::new(), ..PairSetup::default() });
    pair.a.stop();
    pair.a.setup.more = ganesha.agent_config("");
    pair.a.start(&Faults::none());
    let other = pair.protect("w");
    let writer = Writer::start(ganesha.port(), "/base", "w/written", USER);
    let volume = pair.volume.clone();
    let refused = fence(&pair.a, &volume, Shut::ReadOnly).expect_err("it leads to more");
    assert_eq!(status_reason(&refused), "export-shared");
    assert!(refused.message().contains(&other), "it names the other: {}", refused.message());
    writer.wait_written();
    let whole =
        |volume: &str| FenceVolumeRequest { volume_id: volume.to_owned(), whole_export: true, ..Default::default() };
    let fenced = fence_as(&pair.a, whole(&volume)).expect("fence all");
    assert!(fenced.proved, "{:?}", fenced.lacking);
    assert_eq!(writer.wait_refused(SOON).0, EROFS);
    // For two: it opens when both are let in.
    let fenced = fence_as(&pair.a, whole(&other)).expect("fence the other");
    // Nobody can write to it before any more; that the export could be written through was seen for the first.
    assert!(fenced.proved && fenced.after[0].url.contains("/base/w"), "{:?} {:?}", fenced.lacking, fenced.after);
    let unfenced = unfence(&pair.a, &volume).expect("unfence");
    assert_eq!(unfenced.still, std::slice::from_ref(&other));
    assert_eq!(writer.told().errno, Some(EROFS));
    unfence(&pair.a, &other).expect("unfence the other");
    writer.wait_written();

    // What nobody exports has no clients.
    let nowhere = scratch.join("nowhere");
    fs::create_dir(&nowhere).expect("a directory");
    let client = pair.a.controller();
    let request = FenceExportRequest { path: nowhere.display().to_string(), ..Default::default() };
    let refused = client.call(client.fence().fence_export(request)).expect_err("not exported");
    assert_eq!(status_reason(&refused), "not-exported");
}

/// A promotion at the other site while this one's agent is dead and its clients write on.
fn superseded(served: &mut Served) {
    served.pair.sync();
    let volume = served.pair.volume.clone();
    served.pair.a.kill();
    served.pair.b.controller().promote(&volume, true).expect("promote by force");
}

#[test]
fn r8_a_superseded_primary_shuts_its_clients_out() {
    const NAME: &str = "r8_a_superseded_primary_shuts_its_clients_out";
    if !skip::needs_root(NAME) || !ganesha::is_installed(NAME) {
        return;
    }
    let mut served = Served::new();
    let volume = served.pair.volume.clone();
    let before = served.ganesha.config_text();
    let writer = served.writer();
    superseded(&mut served);
    writer.wait_written();
    // Both agents meet again.
    served.pair.a.start(&Faults::none());
    let (errno, took) = writer.wait_refused(SOON);
    assert_eq!(errno, EROFS);
    let millis = u64::try_from(took.as_millis()).expect("short");
    assert!(figure::report(
        "a writer at the old site gets errors after both agents met",
        millis,
        "ms",
        Goal::AtMost(30_000)
    ));
    let info = process::until("it says so", SOON, || {
        let info = served.pair.a.controller().info(&volume).expect("info");
        info.export_fence.as_ref().is_some_and(|fence| fence.proved).then_some(info)
    });
    let by = info.superseded.expect("superseded");
    assert_eq!((by.by.as_str(), by.epoch), ("site-b", 2));
    assert!(info.health_because.iter().any(|why| why.contains("site-b is primary")), "{:?}", info.health_because);
    let outcome = served.pair.try_sync();
    assert_eq!(outcome.expect_failed("no source any more"), "superseded");
    let metrics = metrics(&served.pair.a);
    assert!(metrics.contains(&format!("drover_volume_superseded{{volume=\"{volume}\"}} 1")), "{metrics}");
    assert!(metrics.contains(&format!("drover_volume_fenced{{volume=\"{volume}\"}} 1")), "{metrics}");

    // The way back: what was written here is kept, the other's data come, and after the promotion here clients write again.
    let a = served.pair.a.controller();
    a.demote_as(&volume, true).expect("demote");
    a.resync(&volume).expect("resync");
    let b = served.pair.b.controller();
    let job = b.start(served.pair.request(&volume, Direction::Unspecified)).expect("start a sync");
    b.outcome(&job, SYNC).expect("watch").expect_done("from the new primary");
    served.pair.assert_same("the old primary follows the new one");
    assert_eq!(writer.told().errno, Some(EROFS), "a replica's clients stay out");
    served.pair.b.controller().demote(&volume).expect("demote");
    let a = served.pair.a.controller();
    a.promote(&volume, false).expect("promote");
    assert_eq!(served.ganesha.config_text(), before, "exactly what stood there");
    let info = served.pair.a.controller().info(&volume).expect("info");
    assert!(info.superseded.is_none() && info.export_fence.is_none());
    // The file that the client had open was replaced, so another client.
    drop(writer);
    Writer::start(served.ganesha.port(), "/vol", "written-later", USER);
}

fn metrics(agent: &Agent) -> String {
    let mut command = Command::new("python3");
    let code = "import sys,urllib.request;print(urllib.request.urlopen(sys.argv[1]).read().decode())";
    command.args(["-c", code]).arg(format!("http://127.0.0.1:{}/metrics", agent.metrics_port()));
    process::run(command, SOON).expect("read metrics").stdout
}

#[test]
fn r8_a_superseded_primary_only_warns_where_that_is_said() {
    const NAME: &str = "r8_a_superseded_primary_only_warns_where_that_is_said";
    if !skip::needs_root(NAME) || !ganesha::is_installed(NAME) {
        return;
    }
    let mut served = Served::with("No_Root_Squash", USER, "on_superseded = \"warn\"");
    let (volume, before) = (served.pair.volume.clone(), served.ganesha.config_text());
    let writer = served.writer();
    superseded(&mut served);
    served.pair.a.start(&Faults::none());
    process::until("it says so", SOON, || served.pair.a.controller().info(&volume).expect("info").superseded);
    let outcome = served.pair.try_sync();
    assert_eq!(outcome.expect_failed("no source any more"), "superseded");
    writer.wait_written();
    assert_eq!(served.ganesha.config_text(), before);
    // What it knows outlives the agent, though the other one is gone.
    served.pair.b.kill();
    served.pair.a.restart(&Faults::none());
    assert!(served.pair.a.controller().info(&volume).expect("info").superseded.is_some());
}

/// The files of the kernel's server, seen by an agent in a mount namespace of its own.
struct KernelFiles {
    etc: PathBuf,
    state: PathBuf,
}

impl KernelFiles {
    fn new(scratch: &Scratch) -> Self {
        let files = Self { etc: scratch.join("etc"), state: scratch.join("nfs") };
        let mut copy = Command::new("cp");
        copy.arg("-a").arg("/etc/.").arg(&files.etc);
        fs::create_dir_all(&files.etc).expect("a directory");
        process::run(copy, SOON).expect("copy /etc");
        fs::create_dir_all(files.etc.join("exports.d")).expect("a directory");
        fs::create_dir_all(&files.state).expect("a directory");
        files
    }

    fn wrapped(&self) -> Vec<String> {
        let script = format!(
            "mount --bind {} /etc && mount --bind {} /var/lib/nfs && exec \"$@\"",
            self.etc.display(),
            self.state.display()
        );
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", &script, "sh"].map(str::to_owned).to_vec()
    }

    /// As the administrator calls it.
    fn exportfs(&self, arguments: &[&str]) -> process::Done {
        let words = self.wrapped();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg("/usr/sbin/exportfs").args(arguments);
        process::run(command, SOON)
    }

    fn texts(&self) -> Vec<String> {
        ["exports", "exports.d/pv.exports"].map(|file| fs::read_to_string(self.etc.join(file)).expect("read")).to_vec()
    }

    /// In no order.
    fn table(&self) -> Vec<String> {
        let text = fs::read_to_string(self.state.join("etab")).unwrap_or_default();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    /// Options of the table's entries for a path, `rw` or `ro` at their beginning.
    fn access(&self, path: &Path) -> Vec<String> {
        let prefix = format!("{}\t", path.display());
        let of_path = |line: &String| {
            line.strip_prefix(&prefix).map(|rest| rest.split_once('(').map_or("", |(_, it)| &it[..2]).to_owned())
        };
        let mut access: Vec<String> = self.table().iter().filter_map(of_path).collect();
        access.sort();
        access
    }
}

#[test]
fn the_kernels_server_is_fenced_in_its_files_and_its_table() {
    const NAME: &str = "the_kernels_server_is_fenced_in_its_files_and_its_table";
    if !skip::needs_root(NAME) {
        return;
    }
    if !Path::new("/usr/sbin/exportfs").exists() {
        return skip::skipped(NAME, "exportfs is not installed");
    }
    let scratch = Scratch::new("kernel");
    let files = KernelFiles::new(&scratch);
    let certificates = Certificates::init(&scratch.join("certs"), &["site-a"]);
    let root = scratch.join("root");
    for dir in ["pv1", "pv 2", "other"] {
        fs::create_dir_all(root.join(dir)).expect("a directory");
    }
    let (pv1, other) = (root.join("pv1"), root.join("other"));
    let show = root.display();
    let exports_text = format!(
        "# the base\n{show}/pv1 127.0.0.1(rw,sync,no_subtree_check,fsid=5) \\\n   10.0.0.0/24(rw,no_root_squash,no_subtree_check) # two\n\
         {show}/other -sync,rw,no_subtree_check 10.0.0.1 10.0.0.2(ro)\n"
    );
    let more_text = format!("\"{show}/pv 2\" *(rw,no_subtree_check) 2001:db8::/32(sec=sys,rw,no_subtree_check)\n");
    fs::write(files.etc.join("exports"), &exports_text).expect("write");
    fs::write(files.etc.join("exports.d/pv.exports"), &more_text).expect("write");
    files.exportfs(&["-ra"]).expect("export");
    // What a cluster manager adds is in no file.
    files.exportfs(&["-o", "rw,no_subtree_check", &format!("10.9.9.9:{}", pv1.display())]).expect("export");
    let (texts, table) = (files.texts(), files.table());

    let mut agent = Agent::new("site-a", &certificates);
    agent.setup.roots = vec![("nfs".to_owned(), root.clone())];
    agent.setup.wrapped = files.wrapped();
    agent.setup.more = "[nfs]\nserver = \"kernel\"\n[nfs.probe]\nport = 1\ntimeout_secs = 1\n".to_owned();
    agent.start(&Faults::none());
    let fence = |path: &Path, shut: Shut| {
        let client = agent.controller();
        let request = FenceExportRequest { path: path.display().to_string(), shut: shut.into(), whole_export: false };
        client.call(client.fence().fence_export(request)).expect("fence").fence.expect("a fence")
    };
    let unfence = |path: &Path| {
        let client = agent.controller();
        let request = UnfenceExportRequest { path: path.display().to_string() };
        client.call(client.fence().unfence_export(request)).expect("unfence").exports.expect("exports")
    };

    let told = fence(&pv1, Shut::ReadOnly);
    assert!(!told.proved && told.lacking.iter().any(|why| why.contains("nfsd")), "{:?}", told.lacking);
    assert!(told.lacking.iter().all(|why| !why.contains("still open")), "{:?}", told.lacking);
    assert_eq!(files.access(&pv1), ["ro", "ro", "ro"], "also what is in no file");
    assert_eq!(files.access(&other), ["ro", "rw"], "what leads elsewhere is as it was");
    let fenced = files.texts();
    let expected =
        exports_text.replacen("127.0.0.1(rw,", "127.0.0.1(ro,", 1).replacen("10.0.0.0/24(rw,", "10.0.0.0/24(ro,", 1);
    assert_eq!(fenced[0], expected);
    assert_eq!(fenced[1], texts[1]);
    // It survives what a reboot does, and whoever exports everything again.
    files.exportfs(&["-ra"]).expect("export");
    assert_eq!(files.access(&pv1), ["ro", "ro"]);
    // And is repaired where somebody opens it, or adds again what is in no file.
    files.exportfs(&["-i", "-o", "rw,no_subtree_check", &format!("10.9.9.9:{}", pv1.display())]).expect("export");
    files.exportfs(&["-i", "-o", "rw,no_subtree_check", &format!("10.0.0.0/24:{}", pv1.display())]).expect("export");
    process::until("it is shut again", SOON, || (files.access(&pv1) == ["ro", "ro", "ro"]).then_some(()));
    assert_eq!(unfence(&pv1), Unfenced::default());
    assert_eq!(files.texts(), texts, "to the byte");
    assert_eq!(files.table(), table, "and the table, with what is in no file");

    // Refused: not exported at all, and the path has a blank.
    let told = fence(&root.join("pv 2"), Shut::Refuse);
    assert!(told.entries.is_empty(), "{:?}", told.entries);
    let second = PathBuf::from(format!("{show}/pv\\040") + "2");
    assert!(files.access(&second).is_empty(), "{:?}", files.table());
    assert!(files.texts()[1].starts_with("# refused by drover-agent: "), "{}", files.texts()[1]);
    assert_eq!(unfence(&root.join("pv 2")), Unfenced::default());
    assert_eq!((files.texts(), files.table()), (texts.clone(), table.clone()));

    // While the directory is not there, as when its file system is not mounted, nobody is let in by that.
    fence(&pv1, Shut::ReadOnly);
    let away = root.join("away");
    fs::rename(&pv1, &away).expect("move the directory away");
    process::until("the agent sees that it is gone", SOON, || {
        let fences = exports(&agent).fences;
        fences.iter().any(|fence| fence.lacking.iter().any(|why| why.contains("can't be found"))).then_some(())
    });
    assert_eq!(files.access(&pv1), ["ro", "ro", "ro"]);
    assert_ne!(files.texts(), texts);
    fs::rename(&away, &pv1).expect("put the directory back");
    assert_eq!(unfence(&pv1), Unfenced::default());
    assert_eq!((files.texts(), files.table()), (texts.clone(), table.clone()));

    // A comment that reads as the entry does while it is shut, bytes that are no UTF-8, and a file that is renamed meanwhile.
    let second = files.etc.join("exports.d/pv.exports");
    let commented =
        [b"# caf\xe9\n#".to_vec(), more_text.replace("rw", "ro").into_bytes(), more_text.clone().into_bytes()].concat();
    fs::write(&second, &commented).expect("write");
    files.exportfs(&["-ra"]).expect("export");
    let table = files.table();
    fence(&root.join("pv 2"), Shut::ReadOnly);
    let renamed = files.etc.join("exports.d/10-pv.exports");
    let shut = fs::read(&second).expect("read");
    assert_eq!(shut, [b"# caf\xe9\n#".to_vec(), more_text.replace("rw", "ro").repeat(2).into_bytes()].concat());
    fs::rename(&second, &renamed).expect("rename");
    // Whatever the agent looks at meanwhile.
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(fs::read(&renamed).expect("read"), shut);
    assert_eq!(unfence(&root.join("pv 2")), Unfenced::default());
    assert_eq!((fs::read(&renamed).expect("read"), files.table()), (commented.clone(), table));
    fs::rename(&renamed, &second).expect("rename");

    // Killed anywhere, it goes on from its journal.
    for place in PLACES {
        let (name, at) = place.split_once('#').map_or((place, 1), |(name, at)| (name, at.parse().expect("a number")));
        agent.restart(&Faults::kill(name, at));
        let client = agent.controller();
        let path = pv1.display().to_string();
        let _ =
            client.call(client.fence().fence_export(FenceExportRequest { path: path.clone(), ..Default::default() }));
        let _ = client.call(client.fence().unfence_export(UnfenceExportRequest { path: path.clone() }));
        process::until(&format!("{place} kills the agent"), SOON, || agent.ended());
        agent.start(&Faults::none());
        let fences = process::until("the journal is carried out", SOON, || {
            let fences = exports(&agent).fences;
            fences.iter().all(|fence| !fence.lifting && fence.looked_at_unix_secs > 0).then_some(fences)
        });
        if fences.is_empty() {
            process::until("as it was", SOON, || (files.access(&pv1) == ["rw", "rw"]).then_some(()));
        } else {
            assert_eq!(files.access(&pv1), ["ro", "ro"], "{place}");
            let client = agent.controller();
            client.call(client.fence().unfence_export(UnfenceExportRequest { path })).expect("unfence");
        }
        assert_eq!(
            (files.access(&pv1), fs::read_to_string(files.etc.join("exports")).expect("read")),
            (vec!["rw".to_owned(); 2], exports_text.clone()),
            "{place}"
        );
    }

    // An entry that somebody edited meanwhile stays as it is, and is told.
    let fence = |path: &Path, shut: Shut| {
        let client = agent.controller();
        let request = FenceExportRequest { path: path.display().to_string(), shut: shut.into(), whole_export: false };
        client.call(client.fence().fence_export(request)).expect("fence").fence.expect("a fence")
    };
    let unfence = |path: &Path| {
        let client = agent.controller();
        let request = UnfenceExportRequest { path: path.display().to_string() };
        client.call(client.fence().unfence_export(request)).expect("unfence").exports.expect("exports")
    };
    fence(&pv1, Shut::ReadOnly);
    let text = fs::read_to_string(files.etc.join("exports")).expect("read");
    let edited = text.replacen("10.0.0.0/24(ro", "10.0.0.0/16(ro", 1);
    fs::write(files.etc.join("exports"), &edited).expect("edit");
    // Also when the agent has looked at it meanwhile.
    std::thread::sleep(Duration::from_secs(6));
    let unfenced = unfence(&pv1);
    assert_eq!(unfenced.edited.len(), 1, "{unfenced:?}");
    assert!(unfenced.edited[0].contains("10.0.0.0/24(rw,no_root_squash"), "{unfenced:?}");
    assert_eq!(fs::read_to_string(files.etc.join("exports")).expect("read"), edited, "as they left it");
}

/// By files and table alone the test above runs anywhere; this one writes through the server.
#[test]
fn writes_through_the_kernels_server_are_refused() {
    const NAME: &str = "writes_through_the_kernels_server_are_refused";
    const NFS: &str = "127.0.0.1:2049";
    if !skip::needs_root(NAME) {
        return;
    }
    if !Path::new("/proc/fs/nfsd/exports").exists() || std::net::TcpStream::connect(NFS).is_err() {
        return skip::skipped(NAME, "this kernel has no nfsd, or it does not serve on port 2049");
    }
    let scratch = Scratch::new("nfsd");
    let certificates = Certificates::init(&scratch.join("certs"), &["site-a"]);
    let directory = scratch.join("root/pv1");
    fs::create_dir_all(&directory).expect("a directory");
    chown(&directory, Some(USER), Some(USER)).expect("chown");
    let exportfs = |arguments: &[&str]| {
        let mut command = Command::new("/usr/sbin/exportfs");
        command.args(arguments);
        process::run(command, SOON).expect("exportfs")
    };
    let place = format!("127.0.0.1:{}", directory.display());
    exportfs(&["-i", "-o", "rw,sync,no_subtree_check,insecure,fsid=7431", &place]);
    let mut agent = Agent::new("site-a", &certificates);
    agent.setup.roots = vec![("nfs".to_owned(), scratch.join("root"))];
    agent.setup.more = "[nfs]\nserver = \"kernel\"\n".to_owned();
    agent.start(&Faults::none());
    let client = agent.controller();
    let request = FenceExportRequest { path: directory.display().to_string(), ..Default::default() };
    let fenced = client.call(client.fence().fence_export(request));
    let client = agent.controller();
    let request = UnfenceExportRequest { path: directory.display().to_string() };
    let unfenced = client.call(client.fence().unfence_export(request));
    exportfs(&["-u", &place]);
    let fence = fenced.expect("fence").fence.expect("a fence");
    assert!(fence.proved, "{:?}", fence.lacking);
    unfenced.expect("unfence");
}
