//! Between the wire's messages and the engine's types. What comes in is checked here, each error names its field.

use drover_engine::{
    control::{Phase, Progress},
    error::Kind,
    id::VolumeId,
    path::RelPath,
    point::{self, PeerCopy, PointId, Role, VolumeKind, VolumeState},
    session::{Intent, Side, SyncOptions},
    volume::{Recovery, Waiver},
};
use drover_proto::v1;

use crate::{
    config::Defaults,
    job::{Job, JobId, Session, State, Work, unix_now},
    volumes::Held,
};

#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    #[error("{field} is missing")]
    Missing { field: &'static str },
    #[error("{field}: {text:?} is not {expected}")]
    Malformed { field: &'static str, text: String, expected: &'static str },
    #[error("{field} has the unknown value {value}")]
    UnknownEnum { field: &'static str, value: i32 },
    #[error("{field} is {value}, the most is {max}")]
    TooLarge { field: &'static str, value: u64, max: u64 },
}

impl ConvertError {
    pub fn kind(&self) -> Kind {
        Kind::Invalid
    }

    pub fn reason(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "missing-field",
            Self::Malformed { .. } => "malformed-field",
            Self::UnknownEnum { .. } => "unknown-enum-value",
            Self::TooLarge { .. } => "value-too-large",
        }
    }
}

pub fn volume_id(text: &str) -> Result<VolumeId, ConvertError> {
    if text.is_empty() {
        return Err(ConvertError::Missing { field: "volume_id" });
    }
    let malformed = |_| ConvertError::Malformed { field: "volume_id", text: shorten(text), expected: "a UUID" };
    text.parse().map_err(malformed)
}

pub fn point_id(text: &str) -> Result<PointId, ConvertError> {
    let malformed =
        |_| ConvertError::Malformed { field: "point_id", text: shorten(text), expected: "a point such as 12 or 12+1" };
    text.parse().map_err(malformed)
}

/// An empty id is the caller's leave to make one.
pub fn request_id(text: &str) -> Result<JobId, crate::job::JobError> {
    if text.is_empty() { Ok(JobId::random()) } else { text.parse() }
}

/// What a caller sent is quoted, but not at any length.
fn shorten(text: &str) -> String {
    text.chars().take(200).collect()
}

/// Kind, root and path beneath it.
pub fn spec(spec: Option<v1::VolumeSpec>) -> Result<(VolumeKind, String, RelPath), ConvertError> {
    let spec = spec.and_then(|spec| spec.kind).ok_or(ConvertError::Missing { field: "spec" })?;
    let (kind, root, path) = match spec {
        v1::volume_spec::Kind::Directory(directory) => (VolumeKind::Directory, directory.root, directory.path),
        v1::volume_spec::Kind::BlockFile(file) => (VolumeKind::BlockFile, file.root, file.path),
        v1::volume_spec::Kind::RbdImage(_) | v1::volume_spec::Kind::ImageFile(_) => {
            return Err(ConvertError::Missing { field: "spec.root" });
        }
    };
    let path = beneath(&root, &path)?;
    Ok((kind, root, path))
}

/// What a spec says of a place beneath a root.
pub fn beneath(root: &str, path: &str) -> Result<RelPath, ConvertError> {
    if root.is_empty() {
        return Err(ConvertError::Missing { field: "spec.root" });
    }
    let malformed = |_| ConvertError::Malformed {
        field: "spec.path",
        text: shorten(path),
        expected: "a path beneath the root, without . or .. and without a slash at either end",
    };
    path.parse().map_err(malformed)
}

pub fn path(bytes: &[u8]) -> Result<RelPath, ConvertError> {
    let text = || shorten(&String::from_utf8_lossy(bytes));
    let expected = "a path beneath the volume";
    RelPath::new(bytes).map_err(|_| ConvertError::Malformed { field: "path", text: text(), expected })
}

fn spec_of(held: &Held, kind: VolumeKind) -> v1::VolumeSpec {
    let (root, path) = (held.root.clone(), held.volume.path().to_string());
    let kind = match kind {
        VolumeKind::Directory => v1::volume_spec::Kind::Directory(v1::Directory { root, path }),
        VolumeKind::BlockFile | VolumeKind::BlockDevice => {
            v1::volume_spec::Kind::BlockFile(v1::BlockFile { root, path })
        }
    };
    v1::VolumeSpec { kind: Some(kind) }
}

pub fn role(value: i32) -> Result<Role, ConvertError> {
    match v1::VolumeRole::try_from(value) {
        Ok(v1::VolumeRole::Primary) => Ok(Role::Primary),
        Ok(v1::VolumeRole::Secondary) => Ok(Role::Secondary),
        Ok(v1::VolumeRole::Unspecified) => Err(ConvertError::Missing { field: "role" }),
        Err(_) => Err(ConvertError::UnknownEnum { field: "role", value }),
    }
}

pub fn waiver(name: &str) -> Result<Waiver, ConvertError> {
    let malformed = |_| ConvertError::Malformed {
        field: "waive",
        text: shorten(name),
        expected: "the name of a waiver (capabilities, device-identity)",
    };
    serde_json::from_value(name.into()).map_err(malformed)
}

/// The side that this agent takes.
pub fn side(value: i32) -> Result<Option<Side>, ConvertError> {
    match v1::Direction::try_from(value) {
        Ok(v1::Direction::Unspecified) => Ok(None),
        Ok(v1::Direction::Push) => Ok(Some(Side::Source)),
        Ok(v1::Direction::Pull) => Ok(Some(Side::Sink)),
        Err(_) => Err(ConvertError::UnknownEnum { field: "direction", value }),
    }
}

pub fn options(options: Option<v1::SyncOptions>, defaults: &Defaults) -> Result<SyncOptions, ConvertError> {
    let options = options.unwrap_or_default();
    let percent = match options.delete_percent_max {
        None => defaults.delete_percent_max,
        Some(percent) => u8::try_from(percent)
            .ok()
            .filter(|percent| *percent <= 100)
            .ok_or(ConvertError::TooLarge { field: "options.delete_percent_max", value: percent.into(), max: 100 })?,
    };
    Ok(SyncOptions {
        delete_percent_max: percent,
        delete_entries_max: options.delete_entries_max,
        allow_empty_source: options.allow_empty_source,
        always_point: options.always_point,
    })
}

fn label(label: point::Label) -> v1::Label {
    match label {
        point::Label::Fuzzy => v1::Label::Fuzzy,
        point::Label::PerFile => v1::Label::PerFile,
        point::Label::CrashConsistent => v1::Label::CrashConsistent,
        point::Label::Fenced => v1::Label::Fenced,
        point::Label::Quiesced => v1::Label::Quiesced,
    }
}

pub fn point(point: &point::Point) -> v1::Point {
    let origin = match point.origin {
        point::Origin::Sync => v1::Origin::Sync,
        point::Origin::Kept => v1::Origin::Kept,
    };
    v1::Point {
        id: point.id.to_string(),
        origin: origin.into(),
        lineage: point.lineage.to_string(),
        epoch: point.epoch,
        parent: point.parent.map(|parent| parent.to_string()),
        taken_at_unix_secs: point.taken_at,
        root_digest: point.root.to_string(),
        entries: point.totals.entries,
        bytes: point.totals.bytes,
        label: label(point.label).into(),
        bytes_moved: point.bytes_moved,
        lost_paths: point.lost.iter().map(ToString::to_string).collect(),
    }
}

/// Of the agent at the other site. Where its copy can't be used, nothing that it says of it will do.
pub fn peer_copy(info: &v1::VolumeInfo) -> Result<PeerCopy, String> {
    if info.health() == v1::Health::Error {
        return Err(format!("its copy can't be used there: {}", info.health_because.join("; ")));
    }
    let malformed = || "its answer can't be read".to_owned();
    let role = role(info.role).map_err(|_| malformed())?;
    let newest = info.newest.as_ref().map(|newest| Some((newest.id.parse().ok()?, newest.root_digest.parse().ok()?)));
    let newest = newest.map(|newest| newest.ok_or_else(malformed)).transpose()?;
    Ok(PeerCopy { role, is_promoting: info.promoting, newest })
}

/// Newest first.
pub fn restore_points(state: &VolumeState) -> Vec<v1::RestorePoint> {
    let mut points: Vec<_> = state.restorable.iter().collect();
    points.sort_by_key(|point| std::cmp::Reverse(point.id));
    let convert = |p: &point::Point| v1::RestorePoint {
        point: Some(point(p)),
        current: state.current == Some(p.id),
        on_copy: false,
    };
    points.into_iter().map(convert).collect()
}

/// What a failover now would lose, in seconds of writing.
pub fn rpo_age_seconds(state: &VolumeState) -> Option<u64> {
    let confirmed = state.confirmed_at.or_else(|| state.newest().map(|point| point.taken_at))?;
    Some(u64::try_from(unix_now() - confirmed).unwrap_or(0))
}

fn health(held: &Held, state: &VolumeState, trouble: Vec<String>) -> (v1::Health, Vec<String>) {
    if let Err(error) = held.volume.check_tree() {
        return (v1::Health::Error, vec![super::status::chain(&error)]);
    }
    let mut because = Vec::new();
    if let Recovery::Undone { reason } = held.volume.recovery() {
        because.push(format!("a commit could not be applied and was undone: {reason}"));
    }
    because.extend(troubles_of(state));
    if let Some(scrub) = held.volume.scrub_state().filter(|scrub| !scrub.damaged.is_empty()) {
        because.push(format!("a scrub found rot or a foreign write: {}", crate::scrub::damage(&scrub)));
    }
    because.extend(trouble);
    let health = if because.is_empty() { v1::Health::Ok } else { v1::Health::Degraded };
    (health, because)
}

/// What a copy says of itself.
pub fn troubles_of(state: &VolumeState) -> Vec<String> {
    let mut because = Vec::new();
    if let Some(by) = &state.superseded {
        because.push(format!(
            "superseded: {} is primary since a promotion there (epoch {}), and this copy is no source any more: demote it (volume demote --force), ask for a resync (what it holds is kept as a restore point), and sync from there",
            by.by, by.epoch
        ));
    }
    if state.paused {
        let at = state.current.map_or_else(String::new, |at| format!(" to point {at}"));
        because.push(format!("rolled back{at}: syncs pause until it is released"));
    }
    if let (Role::Secondary, false, Some(at), Some(newest)) = (state.role, state.paused, state.current, state.newest())
        && at != newest.id
    {
        because.push(format!("it is at point {at}, and the newest is {}: the next sync brings it forward", newest.id));
    }
    if let Some(at) = state.current.filter(|at| state.damaged.contains(at)) {
        because.push(format!(
            "a verification found that point {at} here is not what the source had: sync, which mends it"
        ));
    }
    if state.resync {
        because.push("resync was asked for and has not happened yet".to_owned());
    }
    if state.newest().is_none() {
        because.push("never synced".to_owned());
    }
    if state.newest().is_some_and(|newest| newest.label == point::Label::Fuzzy) {
        because.push("the newest point is fuzzy: files changed while they were read".to_owned());
    }
    because
}

/// What is told of a volume's jobs besides the volume.
#[derive(Debug, Default)]
pub struct Jobs {
    pub running: Option<String>,
    pub trouble: Vec<String>,
}

pub fn volume_info(held: &Held, jobs: Jobs) -> v1::VolumeInfo {
    let (volume, state) = (&held.volume, held.volume.state());
    let (health, health_because) = health(held, &state, jobs.trouble);
    let (recovery, recovery_detail) = match volume.recovery() {
        Recovery::Clean => (v1::Recovery::Clean, String::new()),
        Recovery::RolledForward { point } => {
            (v1::Recovery::RolledForward, point.map(|point| point.to_string()).unwrap_or_default())
        }
        Recovery::Undone { reason } => (v1::Recovery::Undone, reason.clone()),
    };
    v1::VolumeInfo {
        oldest_read_unix_secs: volume.oldest_read(),
        recovery: recovery.into(),
        recovery_detail,
        scrub: volume.scrub_state().map(|scrub| v1::Scrub {
            offset: scrub.offset,
            passed_at_unix_secs: scrub.passed_at,
            damaged: scrub
                .damaged
                .iter()
                .map(|range| v1::ByteRange { offset: range.start, length: range.end - range.start })
                .collect(),
            damaged_bytes: scrub.damaged_bytes(),
        }),
        ..state_info(&state, spec_of(held, state.kind), (health, health_because), jobs.running)
    }
}

/// What every kind of copy has.
pub fn state_info(
    state: &VolumeState,
    spec: v1::VolumeSpec,
    (health, health_because): (v1::Health, Vec<String>),
    running_job: Option<String>,
) -> v1::VolumeInfo {
    v1::VolumeInfo {
        volume_id: state.volume.to_string(),
        spec: Some(spec),
        role: match state.role {
            Role::Primary => v1::VolumeRole::Primary.into(),
            Role::Secondary => v1::VolumeRole::Secondary.into(),
        },
        epoch: state.epoch,
        lineage: state.lineage.to_string(),
        peer: state.peer.clone(),
        health: health.into(),
        health_because,
        newest: state.newest().map(point),
        confirmed_at_unix_secs: state.confirmed_at,
        rpo_age_seconds: rpo_age_seconds(state),
        restore_points: restore_points(state),
        retain: state.retain,
        paused: state.paused,
        resync: state.resync,
        running_job,
        retain_seconds: state.retain_secs,
        promoting: state.promoting,
        superseded: state.superseded.as_ref().map(|by| v1::Superseded {
            by: by.by.clone(),
            epoch: by.epoch,
            since_unix_secs: by.at,
        }),
        ..v1::VolumeInfo::default()
    }
}

fn intent(intent: &Intent) -> v1::JobIntent {
    match intent {
        Intent::Sync(_) => v1::JobIntent::Sync,
        Intent::Plan(_) => v1::JobIntent::Plan,
        Intent::Verify { deep: false } => v1::JobIntent::Verify,
        Intent::Verify { deep: true } => v1::JobIntent::VerifyDeep,
    }
}

fn direction(side: Side) -> v1::Direction {
    match side {
        Side::Source => v1::Direction::Push,
        Side::Sink => v1::Direction::Pull,
    }
}

fn phase(phase: Phase) -> v1::Phase {
    match phase {
        Phase::Waiting => v1::Phase::Waiting,
        Phase::Connecting => v1::Phase::Connecting,
        Phase::Scanning => v1::Phase::Scanning,
        Phase::Comparing => v1::Phase::Comparing,
        Phase::Planning => v1::Phase::Planning,
        Phase::Transferring => v1::Phase::Transferring,
        Phase::Committing => v1::Phase::Committing,
        Phase::Applying => v1::Phase::Applying,
        Phase::Retaining => v1::Phase::Retaining,
        Phase::Verifying => v1::Phase::Verifying,
        Phase::Done => v1::Phase::Done,
    }
}

fn job_state(state: State) -> v1::JobState {
    match state {
        State::Queued => v1::JobState::Queued,
        // Stopping is between two states that callers know.
        State::Running | State::Stopping => v1::JobState::Running,
        State::Retrying => v1::JobState::Retrying,
        State::Done => v1::JobState::Done,
        State::Failed => v1::JobState::Failed,
        State::Cancelled => v1::JobState::Cancelled,
    }
}

fn add_progress(status: &mut v1::JobStatus, progress: &Progress) {
    status.phase = phase(progress.phase()).into();
    status.entries_done = progress.entries_done.get();
    status.entries_total = progress.entries_total.get();
    status.bytes_done = progress.bytes_done.get();
    status.bytes_total = progress.bytes_total.get();
    status.wire_sent_bytes = progress.wire_sent.get();
    status.wire_received_bytes = progress.wire_received.get();
}

pub fn job_status(job: &Job, progress: Option<&Progress>) -> v1::JobStatus {
    let error = job.problem.as_ref().map(|problem| v1::JobError {
        kind: super::status::kind_name(problem.kind).to_owned(),
        reason: problem.reason.clone(),
        message: problem.message.clone(),
    });
    let report_json = job.report.as_ref().map(|report| serde_json::to_string(report).expect("a report is plain data"));
    let mut status = v1::JobStatus {
        job_id: job.id.to_string(),
        volume_id: job.request.volume.to_string(),
        state: job_state(job.state).into(),
        attempts: job.attempts,
        created_at_unix_secs: job.created_at,
        started_at_unix_secs: job.started_at,
        finished_at_unix_secs: job.finished_at,
        report_json: report_json.unwrap_or_default(),
        error,
        ..v1::JobStatus::default()
    };
    match &job.request.work {
        Work::Session { intent: asked, .. } => status.intent = intent(asked).into(),
        Work::Rollback { to } => {
            status.intent = v1::JobIntent::Rollback.into();
            status.point_id = to.to_string();
        }
    }
    if let Some(route) = &job.route {
        status.direction = direction(route.side).into();
        status.peer.clone_from(&route.peer);
    }
    match progress {
        Some(progress) => add_progress(&mut status, progress),
        None if job.state == State::Done => status.phase = v1::Phase::Done.into(),
        None => status.phase = v1::Phase::Waiting.into(),
    }
    status
}

/// A peer's session as this side sees it: its direction is ours.
pub fn session_status(session: &Session) -> Option<v1::JobStatus> {
    let hello = session.hello.as_ref()?;
    let mut status = v1::JobStatus {
        job_id: hello.request.clone(),
        volume_id: hello.volume.to_string(),
        intent: intent(&hello.intent).into(),
        direction: direction(hello.side.other()).into(),
        peer: session.peer.clone(),
        state: v1::JobState::Running.into(),
        attempts: 1,
        created_at_unix_secs: session.started_at,
        started_at_unix_secs: Some(session.started_at),
        passive: true,
        ..v1::JobStatus::default()
    };
    add_progress(&mut status, &session.running.control.progress);
    Some(status)
}
