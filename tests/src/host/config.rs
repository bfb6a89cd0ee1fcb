//! The configuration file of one agent.

use std::{fmt::Write, path::Path};

use super::{Certificates, Setup};

pub(super) fn write(path: &Path, setup: &Setup, certificates: &Certificates, state: &Path, port: u16, metrics: u16) {
    let mut text = format!(
        "name = {:?}\nlisten = \"127.0.0.1:{port}\"\nmetrics_listen = \"127.0.0.1:{metrics}\"\nstate_dir = {state:?}\n",
        setup.name,
    );
    let (certificate, key) = (certificates.certificate(&setup.name), certificates.key(&setup.name));
    write!(text, "[tls]\nca = {:?}\ncertificate = {certificate:?}\nkey = {key:?}\n", certificates.ca()).unwrap();
    let peers: Vec<String> = setup.peers.iter().map(|(name, _)| format!("{name}.drover")).collect();
    write!(text, "[roles]\ncontroller = [\"controller.drover\"]\nviewer = [\"viewer.drover\"]\npeer = {peers:?}\n")
        .unwrap();
    for (name, root) in &setup.roots {
        write!(text, "[[root]]\nname = {name:?}\npath = {root:?}\n").unwrap();
    }
    for (name, port) in &setup.peers {
        write!(text, "[[peer]]\nname = {name:?}\naddress = \"https://127.0.0.1:{port}\"\n").unwrap();
        writeln!(text, "server_name = \"{name}.drover\"").unwrap();
    }
    text.push_str(&setup.more);
    std::fs::write(path, text).expect("write configuration");
}
