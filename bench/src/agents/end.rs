//! The two agents' names, places, ports and configurations, and how a copy is named to each.

use std::path::{Path, PathBuf};

use anyhow::Result;
use drover_proto::v1::{BlockFile, Directory, volume_spec};

use crate::{network::Place, site::Site};

pub(super) const SOURCE: End = End { name: "site-a", port: 7171, root: "source", place: Place::Source };
pub(super) const SINK: End = End { name: "site-b", port: 7271, root: "replica", place: Place::Sink };

#[derive(Clone, Copy)]
pub(super) struct End {
    pub(super) name: &'static str,
    pub(super) port: u16,
    pub(super) root: &'static str,
    pub(super) place: Place,
}

/// `image` is the one file in the directory, or the device, that is the volume.
pub(super) fn spec(site: &Site, end: End, directory: &Path, image: Option<&str>) -> Result<volume_spec::Kind> {
    let root = end.root.to_owned();
    let path = directory.strip_prefix(site.base.join(end.root))?.display().to_string();
    Ok(match image {
        None => volume_spec::Kind::Directory(Directory { root, path }),
        Some(image) => {
            let path = site.device_name(directory).unwrap_or_else(|| format!("{path}/{image}"));
            volume_spec::Kind::BlockFile(BlockFile { root, path })
        }
    })
}

/// Where the agent keeps what it knows of its volumes.
pub(super) fn beside(site: &Site, end: End) -> PathBuf {
    let directory = site.base.join(end.root);
    directory.join(if site.is_on_devices() { "beside" } else { ".drover" })
}

/// Path of the agent's root; every device is beneath `/dev`, what Drover keeps of it beside the agent's copies.
fn root(site: &Site, end: End) -> String {
    let directory = site.base.join(end.root);
    match site.is_on_devices() {
        false => format!("path = {directory:?}"),
        true => format!("path = \"/dev\"\nkind = \"devices\"\nbeside = {:?}", beside(site, end)),
    }
}

/// With its peer at the other end.
pub(super) fn configuration(site: &Site, state: &Path, end: End, peer: End) -> String {
    let certificates = site.agents().join("certs").display().to_string();
    let root = root(site, end);
    let End { name, port, root: root_name, place } = end;
    format!(
        r#"name = "{name}"
listen = "{address}:{port}"
state_dir = "{state}"

[tls]
ca = "{certificates}/ca.pem"
certificate = "{certificates}/{name}.pem"
key = "{certificates}/{name}.key"

[roles]
controller = ["controller.drover"]
peer = ["{peer_name}.drover"]

[[root]]
name = "{root_name}"
{root}

[[peer]]
name = "{peer_name}"
address = "https://{peer_address}:{peer_port}"
server_name = "{peer_name}.drover"
"#,
        address = site.network.address(place),
        state = state.display(),
        peer_name = peer.name,
        peer_address = site.network.address(peer.place),
        peer_port = peer.port,
    )
}
