//! Making a cluster: keys, the monitor's map and the data of its daemons.

use std::{fs, path::Path};

use uuid::Uuid;

use super::{Cluster, daemon::Kind, ports::Ports};

/// Entity, and its capabilities as `ceph-authtool` takes them.
const KEYS: &[(&str, &[&str])] = &[
    ("mon.", &["mon", "allow *"]),
    ("client.admin", &["mon", "allow *", "mgr", "allow *", "osd", "allow *"]),
    ("mgr.x", &["mon", "allow profile mgr", "osd", "allow *"]),
    ("osd.0", &["mon", "allow profile osd", "mgr", "allow profile osd", "osd", "allow *"]),
    ("client.rbd-mirror.x", &["mon", "profile rbd-mirror", "osd", "profile rbd"]),
];

/// From an empty directory with a configuration to a cluster that serves.
pub(super) fn make(cluster: &Cluster, ports: &Ports) {
    let dir = cluster.dir();
    let keyring = dir.join("keyring");
    fs::write(&keyring, "").expect("write a keyring");
    for (entity, caps) in KEYS {
        let mut command = cluster.tool("ceph-authtool");
        command.arg(&keyring).args(["--gen-key", "--name", entity]);
        for cap in caps.chunks(2) {
            command.arg("--cap").args(cap);
        }
        cluster.must(command);
    }
    make_monitor(cluster, ports, &keyring);
    cluster.start_daemon(Kind::Mon);
    cluster.start_daemon(Kind::Mgr);
    make_osd(cluster, &keyring);
    cluster.start_daemon(Kind::Osd);
    cluster.ceph(&["osd", "pool", "create", super::cluster::POOL, "8"]);
    cluster.rbd(&["pool", "init", super::cluster::POOL]);
}

fn make_monitor(cluster: &Cluster, ports: &Ports, keyring: &Path) {
    let map = cluster.dir().join("monmap");
    let mut command = cluster.tool("monmaptool");
    command.args(["--create", "--fsid", cluster.fsid(), "--enable-all-features"]);
    command.args(["--set-min-mon-release", cluster.release().number()]);
    command.args(["--addv", Kind::Mon.id(), &ports.monitor()]).arg(&map);
    cluster.must(command);
    let mut command = cluster.tool("ceph-mon");
    command.args(["--mkfs", "--id", Kind::Mon.id()]).arg("--monmap").arg(map).arg("--keyring").arg(keyring);
    cluster.must(command);
}

fn make_osd(cluster: &Cluster, keyring: &Path) {
    let mut command = cluster.tool("ceph-authtool");
    command.arg(keyring).args(["--name", "osd.0", "--print-key"]);
    let key = cluster.must(command);
    let secrets = cluster.dir().join("osd.json");
    fs::write(&secrets, format!("{{\"cephx_secret\": {:?}}}", key.trim())).expect("write the OSD's key");
    let id = Uuid::new_v4().to_string();
    cluster.ceph(&["osd", "new", &id, "-i", secrets.to_str().expect("a path in UTF-8")]);
    let mut command = cluster.tool("ceph-osd");
    command.args(["--mkfs", "--id", Kind::Osd.id(), "--osd-uuid", &id, "--no-mon-config"]);
    cluster.must(command);
}
