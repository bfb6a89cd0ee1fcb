//! Directories that PersistentVolumes name, at a primary and at a replica that calls them otherwise.

use std::{fs, path::Path, process::Command};

use drover_proto::v1::StartRequest;
use drover_tests::{
    host::{Agent, Certificates, Faults, SYNC, agent_binary},
    judge,
    process::{self, Done},
    scratch::Scratch,
    skip,
};

fn enable(agent: &Agent, pv: &Path, more: &[&str]) -> Done {
    let mut command = Command::new(agent_binary());
    command.args(["volume", "--config"]).arg(agent.config()).args(["enable", "--pv"]).arg(pv).args(more);
    process::run(command, SYNC)
}

#[test]
fn a_persistent_volume_says_which_directory_is_meant() {
    const NAME: &str = "a_persistent_volume_says_which_directory_is_meant";
    if !skip::needs_root(NAME) {
        return;
    }
    let scratch = Scratch::new("pv");
    let certificates = Certificates::init(&scratch.join("certs"), &["site-a", "site-b"]);
    let (mut a, mut b) = (Agent::new("site-a", &certificates), Agent::new("site-b", &certificates));
    a.setup.peers = vec![("site-b".to_owned(), b.port())];
    b.setup.peers = vec![("site-a".to_owned(), a.port())];
    let base = ["nfs-1.example:/srv/nfs/openshift-01", "nfs-2.example:/srv/nfs/openshift-02"];
    for (agent, exports) in [(&mut a, &base[..1]), (&mut b, &base[..])] {
        let root = scratch.join(&agent.setup.name);
        fs::create_dir_all(&root).expect("a root");
        agent.setup.more = format!("[[root]]\nname = \"nfs\"\npath = {root:?}\nexports = {exports:?}\n");
        agent.start(&Faults::none());
    }
    let pv = |name: &str, spec: &str| {
        let path = scratch.join(format!("{name}.json"));
        let text = format!(r#"{{"kind":"PersistentVolume","metadata":{{"name":"{name}"}},"spec":{spec}}}"#);
        fs::write(&path, text).expect("write a PersistentVolume");
        path
    };
    let shapes = [
        ("shop-data-pvc-1", r#"{"nfs":{"server":"nfs-1.example","path":"/srv/nfs/openshift-01/shop-data-pvc-1"}}"#),
        (
            "pvc-2",
            r#"{"csi":{"driver":"nfs.csi.k8s.io","volumeHandle":"nfs-1.example#srv/nfs/openshift-01#pvc-2##","volumeAttributes":{"server":"nfs-1.example","share":"/srv/nfs/openshift-01","subdir":"pvc-2"}}}"#,
        ),
    ];
    for (directory, spec) in shapes {
        let source = scratch.join("site-a").join(directory);
        fs::create_dir(&source).expect("a directory");
        fs::write(source.join("file"), directory).expect("write");
        let pv = pv(directory, spec);
        let enabled = enable(&a, &pv, &["--role", "primary", "--peer", "site-b"]);
        assert!(enabled.status.success(), "{}{}", enabled.stdout, enabled.stderr);
        let id = enabled.stdout.lines().find_map(|line| line.strip_prefix("volume ")).expect("an id").trim().to_owned();
        let enabled = enable(&b, &pv, &["--role", "secondary", "--peer", "site-a", "--id", &id]);
        assert!(enabled.status.success(), "{}{}", enabled.stdout, enabled.stderr);
        let client = a.controller();
        let job = client.start(StartRequest { volume_id: id, ..StartRequest::default() }).expect("start a sync");
        client.outcome(&job, SYNC).expect("watch").expect_done("a sync");
        judge::assert_same(&source, &scratch.join("site-b").join(directory), "the directory of the same name");
    }

    // What is nowhere, or is not there any more, is told.
    let elsewhere = pv("elsewhere", r#"{"nfs":{"server":"nfs-9.example","path":"/srv/nfs/x"}}"#);
    let refused = enable(&a, &elsewhere, &["--role", "primary"]);
    assert!(!refused.status.success() && refused.stderr.contains("exports = ["), "{}", refused.stderr);
    fs::create_dir(scratch.join("site-a").join("archived-gone")).expect("a directory");
    let gone = pv("gone", r#"{"nfs":{"server":"nfs-1.example","path":"/srv/nfs/openshift-01/gone"}}"#);
    let refused = enable(&a, &gone, &["--role", "primary"]);
    assert!(!refused.status.success() && refused.stderr.contains("archived-gone"), "{}", refused.stderr);
}
