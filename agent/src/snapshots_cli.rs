//! `drover-agent snapshots`: the catalogue of snapshots, for root on the agent's own host, over its Unix socket.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Subcommand};
use drover_proto::v1::{
    DeleteSnapshotRequest, GetSnapshotRequest, ListSnapshotsRequest, PutSnapshotsRequest, Snapshot,
    snapshots_client::SnapshotsClient,
};
use drover_report::Exit;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use tonic::transport::Channel;

use crate::{
    cli::ConfigArgs,
    config::Config,
    volume_cli::{VolumeCliError, connect, failed, read_text, resolve, runtime},
};

#[derive(Clone, Debug, Args)]
pub struct SnapshotsArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(subcommand)]
    verb: Verb,
}

/// `NAMESPACE/NAME` of a VolumeSnapshot.
#[derive(Clone, Debug)]
struct Named {
    namespace: String,
    name: String,
}

impl std::str::FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
                Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
            }
            _ => Err("name it NAMESPACE/NAME".to_owned()),
        }
    }
}

#[derive(Clone, Debug, Args)]
struct Which {
    /// Of this volume: id, 8 or more characters of its beginning, or ROOT/PATH
    #[arg(long)]
    volume: Option<String>,
    /// Of this namespace
    #[arg(long)]
    namespace: Option<String>,
    /// Taken at this time or later, as 2026-11-23T05:00:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<Timestamp>,
    /// Taken before this time
    #[arg(long, value_name = "TIME")]
    until: Option<Timestamp>,
}

#[derive(Clone, Debug, Subcommand)]
enum Verb {
    /// Record VolumeSnapshots of a volume
    #[command(after_help = "\
Example:
  kubectl get volumesnapshot,volumesnapshotcontent -n shop -o json | drover-agent snapshots put nfs/pvc-1 - --claim data

Takes VolumeSnapshots as JSON, one or a List; of VolumeSnapshotContents in the list it takes the handles. What is not ready to use is left out, and told.
The same again changes nothing.")]
    Put {
        /// Id, 8 or more characters of its beginning, or ROOT/PATH
        volume: String,
        /// - is standard input
        file: PathBuf,
        /// Only those of this PersistentVolumeClaim; needed where there are others
        #[arg(long, value_name = "NAME")]
        claim: Option<String>,
        /// Of a single snapshot: the volume that its data are, where they lie in a directory of their own
        #[arg(long, value_name = "VOLUME")]
        data: Option<String>,
    },
    /// Print one as JSON
    Get {
        /// Id, 8 or more characters of its beginning, or ROOT/PATH
        volume: String,
        /// NAMESPACE/NAME
        snapshot: Named,
    },
    /// Print those that are known, one a line: time, volume, NAMESPACE/NAME, handle
    List(Which),
    /// Print those that are known as a JSON array
    Export(Which),
    /// Forget a snapshot, here and with the volume's next sync at the other site. Its data are not touched
    Delete {
        /// NAMESPACE/NAME
        snapshot: Named,
        /// Of this volume alone
        #[arg(long)]
        volume: Option<String>,
        /// Only the object with this uid, and not one that was made anew under its name
        #[arg(long)]
        uid: Option<String>,
    },
}

pub fn run(args: &SnapshotsArgs) -> ExitCode {
    match act(args) {
        Ok(()) => Exit::Ok.into(),
        Err(error) => failed(&error),
    }
}

fn act(args: &SnapshotsArgs) -> Result<(), VolumeCliError> {
    let config = Config::load(&args.config.config)?;
    runtime()?.block_on(async { args.verb.clone().call(connect(&config).await?).await })
}

/// What is read of an object of Kubernetes.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Object {
    kind: String,
    metadata: Metadata,
    spec: Spec,
    status: ObjectStatus,
    items: Vec<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    namespace: String,
    name: String,
    uid: String,
    creation_timestamp: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Spec {
    source: Source,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Source {
    persistent_volume_claim_name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ObjectStatus {
    ready_to_use: Option<bool>,
    bound_volume_snapshot_content_name: Option<String>,
    snapshot_handle: Option<String>,
    /// Of a VolumeSnapshot; a content has nanoseconds since 1970.
    creation_time: Value,
}

#[derive(Debug, thiserror::Error)]
enum ObjectError {
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    #[error("it holds a {0:?}, and VolumeSnapshots are wanted")]
    Kind(String),
    #[error("snapshot {0:?} says neither status.creationTime nor metadata.creationTimestamp")]
    NoTime(String),
}

/// Those that are ready, and the names of those that are not.
fn snapshots_of(text: &str, volume_id: &str) -> Result<(Vec<Snapshot>, Vec<String>), ObjectError> {
    let whole: Value = serde_json::from_str(text)?;
    let list: Object = serde_json::from_value(whole.clone())?;
    let items = if list.kind.ends_with("List") { list.items } else { vec![whole] };
    let (mut snapshots, mut handles, mut waiting) = (Vec::new(), BTreeMap::new(), Vec::new());
    for item in items {
        let Object { kind, metadata, spec, status, .. } = serde_json::from_value(item.clone())?;
        match kind.as_str() {
            "VolumeSnapshotContent" => {
                handles.extend(status.snapshot_handle.map(|handle| (metadata.name, handle)));
            }
            "VolumeSnapshot" if status.ready_to_use == Some(true) => {
                let times = [status.creation_time.as_str(), Some(&metadata.creation_timestamp)];
                let taken = times.into_iter().flatten().find_map(|text| text.parse::<Timestamp>().ok());
                let taken = taken.ok_or_else(|| ObjectError::NoTime(metadata.name.clone()))?;
                snapshots.push(Snapshot {
                    volume_id: volume_id.to_owned(),
                    namespace: metadata.namespace,
                    name: metadata.name,
                    uid: metadata.uid,
                    created_at_unix_secs: taken.as_second(),
                    content_name: status.bound_volume_snapshot_content_name.unwrap_or_default(),
                    claim_name: spec.source.persistent_volume_claim_name.unwrap_or_default(),
                    manifest: item.to_string(),
                    ..Snapshot::default()
                });
            }
            "VolumeSnapshot" => waiting.push(format!("{}/{}", metadata.namespace, metadata.name)),
            _ => return Err(ObjectError::Kind(kind)),
        }
    }
    for snapshot in &mut snapshots {
        snapshot.handle = handles.get(&snapshot.content_name).cloned().unwrap_or_default();
    }
    Ok((snapshots, waiting))
}

fn time(secs: i64) -> String {
    Timestamp::from_second(secs).map_or_else(|_| secs.to_string(), |time| time.to_string())
}

fn as_json(snapshot: &Snapshot) -> Value {
    json!({
        "volume_id": snapshot.volume_id,
        "namespace": snapshot.namespace,
        "name": snapshot.name,
        "uid": snapshot.uid,
        "created_at": time(snapshot.created_at_unix_secs),
        "handle": snapshot.handle,
        "content_name": snapshot.content_name,
        "claim_name": snapshot.claim_name,
        "data_volume_id": Some(&snapshot.data_volume_id).filter(|id| !id.is_empty()),
        // It was checked when it was put.
        "manifest": serde_json::from_str::<Value>(&snapshot.manifest).unwrap_or(Value::Null),
    })
}

impl Which {
    /// Each page as it comes.
    async fn each(
        self,
        channel: Channel,
        mut page: impl FnMut(Vec<Snapshot>) -> Result<(), VolumeCliError>,
    ) -> Result<(), VolumeCliError> {
        let volume_id = match &self.volume {
            Some(volume) => resolve(channel.clone(), volume).await?,
            None => String::new(),
        };
        let mut request = ListSnapshotsRequest {
            volume_id,
            namespace: self.namespace.unwrap_or_default(),
            since_unix_secs: self.since.map(Timestamp::as_second),
            until_unix_secs: self.until.map(Timestamp::as_second),
            ..ListSnapshotsRequest::default()
        };
        let mut agent = SnapshotsClient::new(channel);
        loop {
            let listed = agent.list(request.clone()).await?.into_inner();
            page(listed.snapshots)?;
            request.page_token = listed.next_page_token;
            if request.page_token.is_empty() {
                return Ok(());
            }
        }
    }
}

/// A reader that has gone away, as `head` does, ends the output and nothing else.
fn print(text: &str) -> Result<(), VolumeCliError> {
    let what = "it can't be written to";
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|source| VolumeCliError::File { what, path: "standard output".into(), source }),
    }
}

impl Verb {
    async fn call(self, channel: Channel) -> Result<(), VolumeCliError> {
        let mut agent = SnapshotsClient::new(channel.clone());
        match self {
            Self::Put { volume, file, claim, data } => {
                let what = "snapshots can't be read from";
                let failed = |source| VolumeCliError::File { what, path: file.clone(), source };
                let text = read_text(&file).map_err(failed)?;
                let volume_id = resolve(channel.clone(), &volume).await?;
                let parsed = snapshots_of(&text, &volume_id);
                let (mut snapshots, waiting) =
                    parsed.map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error)))?;
                if let Some(claim) = &claim {
                    snapshots.retain(|snapshot| snapshot.claim_name == *claim);
                }
                for name in waiting {
                    eprintln!("warning: snapshot {name} is not ready to use, and is left out");
                }
                let of_claim = |it: &Snapshot| format!("{}/{}", it.namespace, it.claim_name);
                let claims: Vec<_> = snapshots.iter().map(of_claim).collect::<BTreeSet<_>>().into_iter().collect();
                let why = match claims.as_slice() {
                    [] => Some("there is no snapshot that is ready to use, or none of that claim".to_owned()),
                    [_] => None,
                    _ => Some(format!(
                        "they are of several claims ({}): give those of one namespace, and say with --claim which is the volume's",
                        claims.join(", ")
                    )),
                };
                if let Some(why) = why {
                    return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, why)));
                }
                if let Some(data) = data {
                    let [snapshot] = snapshots.as_mut_slice() else {
                        let why = "--data is of one snapshot, and there are others or none";
                        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, why)));
                    };
                    snapshot.data_volume_id = resolve(channel, &data).await?;
                }
                let (mut changed, count) = (0, snapshots.len());
                for part in snapshots.chunks(PUT_AT_ONCE) {
                    let request = PutSnapshotsRequest { snapshots: part.to_vec() };
                    changed += agent.put(request).await?.into_inner().changed;
                }
                print(&format!("snapshots  {count}, {changed} of them new or changed\n"))
            }
            Self::Get { volume, snapshot: Named { namespace, name } } => {
                let volume_id = resolve(channel, &volume).await?;
                let request = GetSnapshotRequest { volume_id, namespace, name };
                let found = agent.get(request).await?.into_inner().snapshot.unwrap_or_default();
                print(&format!("{:#}\n", as_json(&found)))
            }
            Self::List(which) => {
                let line = |it: &Snapshot| {
                    let (time, handle) = (time(it.created_at_unix_secs), &it.handle);
                    format!("{time}  {}  {}/{}  {handle}", it.volume_id, it.namespace, it.name).trim_end().to_owned()
                        + "\n"
                };
                which.each(channel, |page| print(&page.iter().map(line).collect::<String>())).await
            }
            Self::Export(which) => {
                let mut separator = "[\n";
                let exported = which.each(channel, |page| {
                    for snapshot in &page {
                        print(&format!("{separator}{}", as_json(snapshot)))?;
                        separator = ",\n";
                    }
                    Ok(())
                });
                exported.await?;
                print(if separator.starts_with('[') { "[]\n" } else { "\n]\n" })
            }
            Self::Delete { snapshot: Named { namespace, name }, volume, uid } => {
                let volume_id = match volume {
                    Some(volume) => resolve(channel, &volume).await?,
                    None => String::new(),
                };
                let request = DeleteSnapshotRequest { volume_id, namespace, name, uid: uid.unwrap_or_default() };
                let deleted = agent.delete(request).await?.into_inner().deleted;
                print(&format!("deleted  {deleted}\n"))
            }
        }
    }
}

/// Manifests of the longest kind fit in a message.
const PUT_AT_ONCE: usize = 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_are_read_as_kubectl_prints_them() {
        let text = r#"{"kind":"List","apiVersion":"v1","items":[
            {"kind":"VolumeSnapshot","metadata":{"namespace":"shop","name":"s1","uid":"u1","creationTimestamp":"2026-11-23T05:00:00Z"},
             "spec":{"source":{"persistentVolumeClaimName":"data"}},
             "status":{"readyToUse":true,"boundVolumeSnapshotContentName":"c1","creationTime":"2026-11-23T05:00:01Z"}},
            {"kind":"VolumeSnapshot","metadata":{"namespace":"shop","name":"s2"},"spec":{"source":{}},"status":{"readyToUse":false}},
            {"kind":"VolumeSnapshotContent","metadata":{"name":"c1"},"spec":{"source":{"volumeHandle":"v"}},
             "status":{"snapshotHandle":"server#share#u#u#v","creationTime":1795410001000000000,"readyToUse":true}}]}"#;
        let (snapshots, waiting) = snapshots_of(text, "id").unwrap();
        assert_eq!((snapshots.len(), waiting), (1, vec!["shop/s2".to_owned()]));
        let Snapshot { namespace, name, handle, claim_name, created_at_unix_secs, .. } = snapshots[0].clone();
        assert_eq!((namespace.as_str(), name.as_str(), claim_name.as_str()), ("shop", "s1", "data"));
        assert_eq!((handle.as_str(), created_at_unix_secs), ("server#share#u#u#v", 1_795_410_001));
        assert!(snapshots_of(r#"{"kind":"Pod","metadata":{"name":"p"}}"#, "id").is_err());
        assert!(snapshots_of("{", "id").is_err());
        assert!(snapshots_of(&text.replace("2026-11-23", "soon"), "id").is_err());
    }
}
