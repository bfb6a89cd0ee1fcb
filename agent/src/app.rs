//! The composition root: what `serve` builds, in which order, and how it ends.
//!
//! Start: configuration, credentials, journal, roots (each volume is recovered as it is opened), listeners, the jobs
//! that were unfinished, READY. End: no new calls, running attempts stop and stay "running" in the journal, 30 s.

mod listen;

use std::{
    fs::DirBuilder,
    io,
    os::unix::fs::DirBuilderExt as _,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use drover_engine::{control::Throttle, volume::Shutter};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    catalogue::Catalogue,
    config::Config,
    exports::{Exports, SharedExports},
    job::{Journal, Keeper, Runner, SessionControl, Sessions},
    metrics::{self, Metrics},
    mirror::{self, Mirrors, SharedMirrors},
    peers::Peers,
    rpc::{
        node::NodeService, replication::ReplicationService, snapshots::SnapshotsService, sync::SyncService,
        transfer::TransferService,
    },
    superseded::Superseding,
    throttle,
    tls::Credentials,
    volumes::{Volumes, look_again_often},
    work::{Lane, Lanes},
};

const SHUTDOWN_LIMIT: Duration = Duration::from_secs(30);
/// Clients are told to go; one that does not listen is not waited for until its keepalive fails.
const GOODBYE: Duration = Duration::from_secs(2);

/// Of images whose verbs were interrupted: a cluster may answer only later.
const BETWEEN_SWEEPS: Duration = Duration::from_secs(60);

/// The rooms of a running agent.
struct App {
    config: Arc<Config>,
    credentials: Credentials,
    volumes: Arc<Volumes>,
    peers: Arc<Peers>,
    mirrors: SharedMirrors,
    lanes: Arc<Lanes>,
    metrics: Arc<Metrics>,
    sessions: Arc<Sessions>,
    keeper: Keeper,
    catalogue: Arc<Catalogue>,
    exports: SharedExports,
    superseding: Arc<Superseding>,
    tasks: TaskTracker,
    /// Everything that goes on by itself ends with this.
    stop: CancellationToken,
    /// The journal can't be written.
    broken: CancellationToken,
    started: Instant,
}

/// Runs until a signal, or until the agent can't go on.
pub fn serve(config: Config) -> anyhow::Result<ExitCode> {
    raise_open_files(config.limits.open_files);
    let threads = Lanes::threads(config.limits.jobs, config.limits.sessions);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(threads)
        .thread_name("drover")
        .build()
        .context("start the runtime")?;
    let code = runtime.block_on(run(config));
    // A blocking thread that hangs in the kernel must not keep the process: all that matters is durable.
    runtime.shutdown_timeout(Duration::from_secs(1));
    code
}

async fn run(config: Config) -> anyhow::Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let app = App::open(config).await?;
    let listeners = app.listen().await?;
    notify(&[sd_notify::NotifyState::Ready]);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), name = app.config.name, listen = %listeners.address, "agent is ready");
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM"),
        _ = interrupt.recv() => tracing::info!("SIGINT"),
        () = app.broken.cancelled() => {}
        () = listeners.failed() => tracing::error!("a listener ended"),
    }
    notify(&[sd_notify::NotifyState::Stopping]);
    let failed = app.broken.is_cancelled() || listeners.has_failed();
    app.shut_down(listeners).await;
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

impl App {
    async fn open(config: Config) -> anyhow::Result<Self> {
        let credentials = config.credentials().context("load certificates")?;
        let config = Arc::new(config);
        make_state_dir(&config.state_dir)
            .with_context(|| format!("make state directory {}", config.state_dir.display()))?;
        let lanes = Arc::new(Lanes::new(config.limits.jobs, config.limits.sessions));
        let exports = Arc::new(Exports::open(&config).context("open the journal of fences")?);
        let (opened, shutter) = (config.clone(), config.nfs.is_some().then(|| exports.clone() as Arc<dyn Shutter>));
        let (journal, volumes) = lanes
            .run(Lane::Calls, move || Journal::open(&opened.state_dir).map(|it| (it, Volumes::open(&opened, shutter))))
            .await?
            .context("open the job journal")?;
        let state_dir = config.state_dir.clone();
        let catalogue = lanes.run(Lane::Calls, move || Catalogue::open(&state_dir)).await?;
        let catalogue = Arc::new(catalogue.context("open the catalogue of snapshots")?);
        let (volumes, metrics) = (Arc::new(volumes), Arc::new(Metrics::new()));
        let (stop, broken, tasks) = (CancellationToken::new(), CancellationToken::new(), TaskTracker::new());
        let throttle = Arc::new(Throttle::new(throttle::in_force(&config.limits)));
        let in_flight_bytes = config.limits.in_flight_bytes() as u64;
        let control = SessionControl { throttle: throttle.clone(), in_flight_bytes, bases: config.limits.bases() };
        let sessions = Sessions::new(config.limits.sessions, control.clone(), stop.child_token());
        let peers = Arc::new(Peers::new(&config, credentials.clone()));
        let program = mirror::program().context("find this program")?;
        let mirrors = Arc::new(Mirrors::new(&config.name, &config.ceph, &config.defaults, &program));
        let runner = Arc::new(Runner {
            volumes: volumes.clone(),
            mirrors: mirrors.clone(),
            peers: peers.clone(),
            lanes: lanes.clone(),
            metrics: metrics.clone(),
            catalogue: catalogue.clone(),
            in_flight_bytes: config.limits.in_flight_bytes(),
        });
        let limits = (config.limits.jobs, control);
        let (keeper, _thread) = Keeper::start(journal, runner, limits, metrics.clone(), broken.clone())?;
        tasks.spawn(throttle::follow_timetable(config.limits.clone(), throttle, stop.clone()));
        let keep_days = config.defaults.trash_days;
        tasks.spawn(crate::trash::purge_daily(volumes.clone(), lanes.clone(), keep_days, stop.clone()));
        tasks.spawn(crate::scrub::scrub_always(
            volumes.clone(),
            lanes.clone(),
            metrics.clone(),
            config.scrub.clone(),
            stop.clone(),
        ));
        tasks.spawn(look_again_often(volumes.clone(), lanes.clone(), stop.clone()));
        let superseding = Superseding::new(volumes.clone(), peers.clone(), exports.clone(), lanes.clone());
        let superseding = Arc::new(superseding);
        tasks.spawn(superseding.clone().settle_always(stop.clone()));
        tasks.spawn(superseding.clone().compare_always(stop.clone()));
        if !mirrors.is_empty() {
            let (mirrors, lanes) = (mirrors.clone(), lanes.clone());
            let stop = stop.clone();
            // Not waited for: a cluster may hang.
            tokio::spawn(async move {
                while !stop.is_cancelled() {
                    let mirrors = mirrors.clone();
                    if lanes.run(Lane::CephVerbs, move || mirrors.sweep()).await.is_err() {
                        return;
                    }
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(BETWEEN_SWEEPS) => {}
                    }
                }
            });
        }
        let started = Instant::now();
        let app = Self {
            config,
            credentials,
            volumes,
            peers,
            mirrors,
            lanes,
            metrics,
            sessions,
            keeper,
            catalogue,
            exports,
            superseding,
            tasks,
            stop,
            broken,
            started,
        };
        if !app.mirrors.is_empty() {
            app.tasks.spawn(app.replication().take_points_always(app.stop.clone()));
        }
        Ok(app)
    }

    fn replication(&self) -> ReplicationService {
        ReplicationService {
            volumes: self.volumes.clone(),
            keeper: self.keeper.clone(),
            lanes: self.lanes.clone(),
            peers: self.peers.clone(),
            mirrors: self.mirrors.clone(),
            exports: self.exports.clone(),
            superseding: self.superseding.clone(),
            defaults: self.config.defaults.clone(),
            tasks: self.tasks.clone(),
            stop: self.stop.clone(),
        }
    }

    fn snapshots(&self) -> SnapshotsService {
        SnapshotsService {
            catalogue: self.catalogue.clone(),
            volumes: self.volumes.clone(),
            mirrors: self.mirrors.clone(),
            peers: self.peers.clone(),
            lanes: self.lanes.clone(),
        }
    }

    fn sync(&self) -> SyncService {
        SyncService {
            volumes: self.volumes.clone(),
            mirrors: self.mirrors.clone(),
            keeper: self.keeper.clone(),
            sessions: self.sessions.clone(),
            lanes: self.lanes.clone(),
            peers: self.peers.clone(),
            defaults: self.config.defaults.clone(),
            tasks: self.tasks.clone(),
            stop: self.stop.clone(),
        }
    }

    fn transfer(&self) -> TransferService {
        TransferService {
            volumes: self.volumes.clone(),
            mirrors: self.mirrors.clone(),
            peers: self.peers.clone(),
            sessions: self.sessions.clone(),
            lanes: self.lanes.clone(),
            metrics: self.metrics.clone(),
            superseding: self.superseding.clone(),
            tasks: self.tasks.clone(),
            in_flight_bytes: self.config.limits.in_flight_bytes(),
        }
    }

    fn node(&self) -> NodeService {
        NodeService {
            config: self.config.clone(),
            volumes: self.volumes.clone(),
            mirrors: self.mirrors.clone(),
            lanes: self.lanes.clone(),
            started: self.started,
        }
    }

    async fn serve_metrics(&self) -> Result<(), metrics::ServeError> {
        let Some(address) = self.config.metrics_listen else {
            return Ok(());
        };
        let (lanes, metrics) = (self.lanes.clone(), self.metrics.clone());
        let (volumes, sessions, exports) = (self.volumes.clone(), self.sessions.clone(), self.exports.clone());
        let text = move || {
            let (lanes, metrics) = (lanes.clone(), metrics.clone());
            let (volumes, sessions, exports) = (volumes.clone(), sessions.clone(), exports.clone());
            async move {
                let scraped = lanes.run(Lane::Calls, move || {
                    metrics.refresh(&volumes, &exports, sessions.len());
                    metrics.text()
                });
                scraped.await.unwrap_or_default()
            }
        };
        metrics::serve(address, text, self.stop.clone()).await
    }

    async fn shut_down(self, listeners: listen::Listeners) {
        let bound = tokio::time::timeout(SHUTDOWN_LIMIT, async {
            // Watchers and peers' sessions end with `stop`, own attempts are checkpointed by the keeper.
            self.stop.cancel();
            for session in self.sessions.list() {
                session.running.stop();
            }
            self.keeper.shut_down().await;
            let _ = tokio::time::timeout(GOODBYE, listeners.closed()).await;
            self.tasks.close();
            self.tasks.wait().await;
        });
        match bound.await {
            Ok(()) => tracing::info!("agent has stopped"),
            Err(_) => tracing::warn!(
                tasks = self.tasks.len(),
                sessions = self.sessions.len(),
                "agent stops although some work did not end in {} s; it is recovered at the next start",
                SHUTDOWN_LIMIT.as_secs()
            ),
        }
        let _ = std::fs::remove_file(self.config.socket_path());
    }
}

/// Mode 0700: the socket in it gives a controller's rights.
fn make_state_dir(path: &PathBuf) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// As far as the hard limit lets it; the engine keeps a descriptor for each level of a tree and each file in flight.
fn raise_open_files(wanted: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    if limit.current.is_some_and(|current| current < most)
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: limit.maximum })
    {
        tracing::warn!(wanted = most, "limit of open files can't be raised: {error}");
    }
}

fn notify(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!("systemd can't be notified: {error}");
    }
}
