//! The configuration file of one agent.

use std::{
    collections::HashSet,
    fmt::Write,
    net::{Ipv4Addr, TcpListener},
    path::Path,
    sync::{LazyLock, Mutex},
};

use super::{Certificates, Setup};

/// A port that nobody listens on, and that no other test of this process was given.
pub fn free_port() -> u16 {
    static GIVEN: LazyLock<Mutex<HashSet<u16>>> = LazyLock::new(Mutex::default);
    loop {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("a bound port").port();
        if GIVEN.lock().expect("no holder panics").insert(port) {
            return port;
        }
    }
}

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
