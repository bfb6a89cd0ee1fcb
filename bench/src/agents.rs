//! The contestant: two agents with TLS between them.
//!
//! They are asked over their Unix sockets, so that the questions are not counted as bytes on the wire.

mod end;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use drover_proto::v1::{
    DisableRequest, EnableRequest, JobState, JobStatus, NodeGetInfoRequest, StartRequest, VerifyRequest, VolumeRole,
    VolumeSpec, WatchRequest, node_client::NodeClient, replication_client::ReplicationClient, sync_client::SyncClient,
    volume_spec,
};
use rustix::process::{Pid, Signal, kill_process};
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};

use self::end::{End, SINK, SOURCE, configuration, spec};
use crate::{
    meter::{Cost, measure},
    site::Site,
};

const START_LIMIT: Duration = Duration::from_secs(20);
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// One volume at both agents.
#[derive(Clone, Debug)]
pub struct Pair {
    volume_id: String,
    /// Directory of the copy.
    pub replica: PathBuf,
    /// What is flushed after a sync.
    written: PathBuf,
}

impl Pair {
    /// What both agents remember of the image beside it. Files are emptied and not removed: the agents have them open.
    pub fn lose_index(&self, site: &Site) -> Result<()> {
        for beside in [SOURCE, SINK].map(|end| end::beside(site, end)) {
            let volume = beside.join("volumes").join(&self.volume_id);
            let bases =
                fs::read_dir(volume.join("bases")).with_context(|| format!("list {}/bases", volume.display()))?;
            let bases = bases.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
            for lost in bases.into_iter().chain([volume.join("index")]).filter(|lost| lost.exists()) {
                let emptied = File::options().write(true).truncate(true).open(&lost);
                emptied.with_context(|| format!("empty {}", lost.display()))?;
            }
        }
        Ok(())
    }
}

/// What a job cost, and its own report.
pub type Run = (Cost, serde_json::Value);

pub struct Agents {
    runtime: Runtime,
    source: Agent,
    sink: Agent,
}

struct Agent {
    child: Child,
    channel: Channel,
}

impl Agents {
    pub fn start(site: &Site, binary: &Path) -> Result<Self> {
        // A thread of its own: between calls the connections must answer keepalives, for as long as a rival runs.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        make_certificates(site, binary)?;
        let (source, sink) = start_both(&runtime, site, binary, "")?;
        Ok(Self { runtime, source, sink })
    }

    /// With more configuration for both.
    pub fn restart(self, site: &Site, binary: &Path, more: &str) -> Result<Self> {
        let Self { runtime, source, sink } = self;
        drop((source, sink));
        let (source, sink) = start_both(&runtime, site, binary, more)?;
        Ok(Self { runtime, source, sink })
    }

    /// Puts `source` (a name beneath the sources) and a new replica of it under protection.
    pub fn enable(&self, site: &Site, source: &str, replica: &str, image: Option<&str>) -> Result<Pair> {
        let volume_id = uuid::Uuid::new_v4().to_string();
        let (source, replica) = (site.sources().join(source), site.replicas().join(replica));
        if site.is_on_devices() {
            site.make_room(&replica)?;
        }
        let (from, to) = (spec(site, SOURCE, &source, image)?, spec(site, SINK, &replica, image)?);
        self.runtime.block_on(async {
            self.source.enable(&volume_id, from, VolumeRole::Primary, SINK.name).await?;
            self.sink.enable(&volume_id, to, VolumeRole::Secondary, SOURCE.name).await
        })?;
        Ok(Pair { volume_id, written: site.written(&replica), replica })
    }

    /// Forgets the volume; both trees stay.
    pub fn disable(&self, pair: &Pair) -> Result<()> {
        self.runtime.block_on(async {
            for agent in [&self.source, &self.sink] {
                let request = DisableRequest { volume_id: pair.volume_id.clone(), ..Default::default() };
                agent.replication().disable(request).await.context("disable volume")?;
            }
            Ok(())
        })
    }

    pub fn sync(&self, site: &Site, pair: &Pair) -> Result<Run> {
        self.measured(site, pair, self.synced(pair))
    }

    /// Nothing is flushed before or after it.
    pub fn timed_sync(&self, pair: &Pair) -> Result<(Duration, serde_json::Value)> {
        let start = Instant::now();
        let job = self.runtime.block_on(self.synced(pair))?;
        Ok((start.elapsed(), report(&job)?))
    }

    async fn synced(&self, pair: &Pair) -> Result<JobStatus> {
        let request = StartRequest { volume_id: pair.volume_id.clone(), ..Default::default() };
        let job = self.source.sync().start(request).await.context("start sync")?.into_inner().job_id;
        self.source.wait(job).await
    }

    pub fn verify_deep(&self, site: &Site, pair: &Pair) -> Result<Run> {
        let request = VerifyRequest { volume_id: pair.volume_id.clone(), deep: true, ..Default::default() };
        let (cost, report) = self.measured(site, pair, async {
            let job = self.source.sync().verify(request).await.context("start verification")?.into_inner().job_id;
            self.source.wait(job).await
        })?;
        ensure!(report["replica_is_point"] == true, "the verification found a discrepancy: {report}");
        Ok((cost, report))
    }

    fn measured(&self, site: &Site, pair: &Pair, job: impl Future<Output = Result<JobStatus>>) -> Result<Run> {
        let ends = [self.source.child.id(), self.sink.child.id()];
        let (cost, job) = measure(&site.network, &ends, &pair.written, |_| self.runtime.block_on(job))?;
        Ok((cost, report(&job)?))
    }
}

fn report(job: &JobStatus) -> Result<serde_json::Value> {
    serde_json::from_str(&job.report_json).context("read the report of the job")
}

fn make_certificates(site: &Site, binary: &Path) -> Result<()> {
    let status = Command::new(binary)
        .args(["certs", "init"])
        .arg(site.agents().join("certs"))
        .args(["--name", SOURCE.name, "--name", SINK.name])
        .stdout(Stdio::null())
        .status()
        .with_context(|| format!("start {}", binary.display()))?;
    ensure!(status.success(), "drover-agent certs init failed: {status}");
    Ok(())
}

fn start_both(runtime: &Runtime, site: &Site, binary: &Path, more: &str) -> Result<(Agent, Agent)> {
    let start = |ends| Agent::start(runtime, site, binary, ends, more);
    Ok((start((SOURCE, SINK))?, start((SINK, SOURCE))?))
}

impl Agent {
    fn start(runtime: &Runtime, site: &Site, binary: &Path, (end, peer): (End, End), more: &str) -> Result<Self> {
        let state = site.agents().join(end.name);
        fs::create_dir_all(&state)?;
        let config = site.agents().join(format!("{}.toml", end.name));
        fs::write(&config, configuration(site, &state, end, peer) + more)?;
        let log = site.agents().join(format!("{}.log", end.name));
        let append = || File::options().create(true).append(true).open(&log);
        let mut command = site.network.command(binary);
        command.args(["serve", "--config"]).arg(&config).stdin(Stdio::null()).stdout(append()?).stderr(append()?);
        let spawn = || command.spawn().with_context(|| format!("start {}", binary.display()));
        let mut child = site.network.at(end.place, spawn)?;
        match runtime.block_on(connect(&state.join("drover.sock"), &mut child)) {
            Ok(channel) => Ok(Self { child, channel }),
            Err(error) => {
                // It may be gone already; its log says why.
                let _ = child.kill();
                let _ = child.wait();
                let log = fs::read_to_string(&log).unwrap_or_default();
                Err(error.context(format!("agent {} did not start; its log:\n{log}", end.name)))
            }
        }
    }

    fn replication(&self) -> ReplicationClient<Channel> {
        ReplicationClient::new(self.channel.clone())
    }

    fn sync(&self) -> SyncClient<Channel> {
        SyncClient::new(self.channel.clone())
    }

    async fn enable(&self, volume_id: &str, kind: volume_spec::Kind, role: VolumeRole, peer: &str) -> Result<()> {
        let what = format!("enable {kind:?}");
        let request = EnableRequest {
            volume_id: volume_id.to_owned(),
            spec: Some(VolumeSpec { kind: Some(kind) }),
            role: role.into(),
            peer: Some(peer.to_owned()),
            ..Default::default()
        };
        self.replication().enable(request).await.context(what)?;
        Ok(())
    }

    /// Until the job has ended well.
    async fn wait(&self, job_id: String) -> Result<JobStatus> {
        let mut updates = self.sync().watch(WatchRequest { job_id }).await.context("watch job")?.into_inner();
        while let Some(update) = updates.message().await.context("watch job")? {
            let job = update.job.context("update without a job")?;
            match job.state() {
                JobState::Done => return Ok(job),
                JobState::Failed | JobState::Cancelled | JobState::Retrying => {
                    bail!("the job failed: {:?}", job.error)
                }
                JobState::Unspecified | JobState::Queued | JobState::Running => {}
            }
        }
        bail!("the watch of a job ended before the job")
    }
}

async fn connect(socket: &Path, child: &mut Child) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display())).context("name the agent's socket")?;
    let start = Instant::now();
    loop {
        if let Ok(channel) = endpoint.connect().await
            && NodeClient::new(channel.clone()).get_info(NodeGetInfoRequest {}).await.is_ok()
        {
            return Ok(channel);
        }
        if let Some(status) = child.try_wait()? {
            bail!("it ended: {status}");
        }
        ensure!(start.elapsed() < START_LIMIT, "it does not answer at {}", socket.display());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let start = Instant::now();
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // It may be gone already.
            let _ = kill_process(pid, Signal::TERM);
        }
        while start.elapsed() < STOP_LIMIT && matches!(self.child.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
