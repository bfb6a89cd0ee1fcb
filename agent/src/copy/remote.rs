//! An agent at one side of a copy.
//!
//! The copy itself is a session like any other, opened with a certificate of the role peer. Before the first one the
//! agent has to know the volume; a peer may not enable it, so that takes a certificate of the role controller. The
//! volume's id follows from the agent's name and the path, so that both find it again.

use std::{fs, path::PathBuf, time::Duration};

use drover_engine::{
    control::Control,
    id::VolumeId,
    report::Report,
    session::{self, Intent, Side, Wire},
    volume::Volume,
};
use drover_proto::v1::{
    self, EnableRequest, NodeGetInfoRequest, ResyncRequest, SessionRequest, SessionResponse, VolumeRole, VolumeSpec,
    node_client::NodeClient, replication_client::ReplicationClient, transfer_client::TransferClient,
};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tonic::{
    Status,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

use super::{
    CopyArgs, CopyError,
    place::{self, RemotePlace},
};
use crate::transfer::{
    CONNECTION_WINDOW_BYTES, GrpcLink, HTTP2_FRAME_BYTES, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, MESSAGE_BYTES_MAX,
    Outgoing, STREAM_WINDOW_BYTES,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Frames that wait for the link; an agent's own sessions have as much.
const IN_FLIGHT_BYTES: usize = drover_engine::control::IN_FLIGHT_BYTES as usize;
/// How soon a wait for the other side notices a cancel.
const CANCEL_TICK: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Remote {
    pub(super) volume: VolumeId,
    place: RemotePlace,
    channel: Channel,
    runtime: Handle,
}

/// A volume's place at the agent.
struct Spot {
    root: String,
    path: String,
    id: VolumeId,
    is_enabled: bool,
}

impl Remote {
    /// `side` is what the agent will be.
    pub(super) fn open(place: &RemotePlace, side: Side, args: &CopyArgs, runtime: &Handle) -> Result<Self, CopyError> {
        if side == Side::Source && args.bwlimit.0 > 0 {
            return Err(CopyError::BandwidthOfAgent);
        }
        let keys = Keys::load(args)?;
        runtime.block_on(async {
            let channel = dial(place, args, keys.ca.clone(), keys.peer).await?;
            let spot = find(place, &channel).await?;
            match keys.controller {
                Some(identity) => {
                    let controller = dial(place, args, keys.ca, identity).await?;
                    enable(place, &spot, side, args, ReplicationClient::new(controller)).await?;
                }
                None if !spot.is_enabled => return Err(not_enabled(place, &spot, side)),
                None => {}
            }
            Ok(Self { volume: spot.id, place: place.clone(), channel, runtime: runtime.clone() })
        })
    }

    /// Blocks; called outside the runtime. `side` is what `volume` here is.
    pub(super) fn session(
        &self,
        volume: &Volume,
        side: Side,
        intent: Intent,
        control: &Control,
        request: &str,
    ) -> Result<Report, CopyError> {
        let stop = CancellationToken::new();
        let guard = stop.clone().drop_guard();
        let watched = control.clone();
        self.runtime.spawn(stop_when_cancelled(watched, stop.clone()));
        let link = self.runtime.block_on(self.connect(stop))?;
        let result = session::dial(&Wire::new(&link, control), volume, side, intent, request);
        self.runtime.block_on(link.finish());
        drop(guard);
        result.map_err(CopyError::from)
    }

    async fn connect(&self, stop: CancellationToken) -> Result<GrpcLink<SessionResponse>, CopyError> {
        let (outgoing, stream) = Outgoing::new::<SessionRequest>(IN_FLIGHT_BYTES);
        let mut client = TransferClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let incoming = client.session(stream).await.map_err(told(&self.place))?.into_inner();
        Ok(outgoing.link(incoming, stop))
    }
}

async fn stop_when_cancelled(control: Control, stop: CancellationToken) {
    while !stop.is_cancelled() {
        tokio::time::sleep(CANCEL_TICK).await;
        if control.is_cancelled() {
            stop.cancel();
        }
    }
}

struct Keys {
    ca: Certificate,
    peer: Identity,
    controller: Option<Identity>,
}

impl Keys {
    fn load(args: &CopyArgs) -> Result<Self, CopyError> {
        let given = &args.credentials;
        let ca = read("--ca", given.ca.as_ref())?;
        let peer = Identity::from_pem(read("--cert", given.cert.as_ref())?, read("--key", given.key.as_ref())?);
        let controller = match (&given.controller_cert, &given.controller_key) {
            (None, None) => None,
            (cert, key) => Some(Identity::from_pem(
                read("--controller-cert", cert.as_ref())?,
                read("--controller-key", key.as_ref())?,
            )),
        };
        Ok(Self { ca: Certificate::from_pem(ca), peer, controller })
    }
}

fn read(flag: &'static str, path: Option<&PathBuf>) -> Result<Vec<u8>, CopyError> {
    let path = path.ok_or(CopyError::Credentials { flag })?;
    fs::read(path).map_err(|source| CopyError::CredentialsFile { flag, path: path.clone(), source })
}

async fn dial(place: &RemotePlace, args: &CopyArgs, ca: Certificate, identity: Identity) -> Result<Channel, CopyError> {
    let unreachable = |source| CopyError::Unreachable { place: place.clone(), source };
    let mut tls = ClientTlsConfig::new().ca_certificate(ca).identity(identity).timeout(CONNECT_TIMEOUT);
    if let Some(name) = &args.credentials.server_name {
        tls = tls.domain_name(name.clone());
    }
    let endpoint = Endpoint::from_shared(format!("https://{}:{}", place.host, place.port)).map_err(unreachable)?;
    let endpoint = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(HTTP2_FRAME_BYTES)
        .tls_config(tls)
        .map_err(unreachable)?;
    endpoint.connect().await.map_err(unreachable)
}

fn told(place: &RemotePlace) -> impl Fn(Status) -> CopyError {
    let place = place.clone();
    move |status| CopyError::Agent { place: place.clone(), status: Box::new(status) }
}

async fn find(place: &RemotePlace, channel: &Channel) -> Result<Spot, CopyError> {
    let asked = NodeClient::new(channel.clone()).get_info(NodeGetInfoRequest {}).await;
    let node = asked.map_err(told(place))?.into_inner();
    let found = node.roots.iter().find_map(|root| Some((root, beneath(root, &place.path)?)));
    let Some((root, path)) = found else {
        let roots: Vec<String> = node.roots.iter().map(|root| format!("{} ({})", root.name, root.path)).collect();
        return Err(CopyError::NoSuchRoot { place: place.clone(), roots: roots.join(", ") });
    };
    let id = place::volume_id(&[b"agent", node.name.as_bytes(), root.name.as_bytes(), path.as_bytes()]);
    let is_enabled = root.volume_ids.contains(&id.to_string());
    Ok(Spot { root: root.name.clone(), path, id, is_enabled })
}

/// The path beneath a root, when it is in it.
fn beneath(root: &v1::RootInfo, path: &str) -> Option<String> {
    let top = if path.starts_with('/') { root.path.trim_end_matches('/') } else { root.name.as_str() };
    let rest = path.strip_prefix(top)?.strip_prefix('/')?;
    (!rest.is_empty()).then(|| rest.to_owned())
}

fn role(side: Side) -> VolumeRole {
    match side {
        Side::Source => VolumeRole::Primary,
        Side::Sink => VolumeRole::Secondary,
    }
}

async fn enable(
    place: &RemotePlace,
    spot: &Spot,
    side: Side,
    args: &CopyArgs,
    mut controller: ReplicationClient<Channel>,
) -> Result<(), CopyError> {
    let volume_id = spot.id.to_string();
    if !spot.is_enabled {
        if args.dry_run {
            return Err(not_enabled(place, spot, side));
        }
        let directory = v1::Directory { root: spot.root.clone(), path: spot.path.clone() };
        let request = EnableRequest {
            volume_id,
            spec: Some(VolumeSpec { kind: Some(v1::volume_spec::Kind::Directory(directory)) }),
            role: role(side).into(),
            peer: None,
            retain: Some(args.retain),
            adopt: args.adopt,
            waive: if args.waive.is_empty() { Vec::new() } else { vec!["capabilities".to_owned()] },
            ..EnableRequest::default()
        };
        controller.enable(request).await.map_err(told(place))?;
    } else if side == Side::Sink && !args.dry_run {
        // SRC always wins: what does not descend from it is kept as a restore point and given up.
        controller.resync(ResyncRequest { volume_id }).await.map_err(told(place))?;
    }
    Ok(())
}

fn not_enabled(place: &RemotePlace, spot: &Spot, side: Side) -> CopyError {
    CopyError::NotEnabled {
        place: place.clone(),
        root: spot.root.clone(),
        path: spot.path.clone(),
        role: if side == Side::Source { "primary" } else { "secondary" },
        id: spot.id.to_string(),
    }
}
