//! Volumes whose directory is lost: noticed, told, given up or taken up again without a restart.

use std::{
    fs,
    process::{Command, Output},
    thread,
    time::{Duration, Instant},
};

use crate::agent::{BINARY, Site};

fn volume(site: &Site, args: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.args(["volume", "--config"]).arg(site.config_path()).args(args).output().expect("drover-agent runs")
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Tries until `args` end with the exit code.
fn until(site: &Site, args: &[&str], code: i32) -> String {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let output = volume(site, args);
        if output.status.code() == Some(code) {
            return told(&output);
        }
        assert!(Instant::now() < deadline, "{args:?}: {}", told(&output));
        thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn a_lost_directory_is_put_back_or_given_up() {
    let (site, peer) = (Site::new("site-a"), Site::new("site-b"));
    site.write_config(&peer, "");
    let (tree, aside) = (site.root().join("v"), site.root().join("aside"));
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), "content").unwrap();
    let agent = site.start();
    let enabled =
        until(&site, &["enable", "--root", "data", "--path", "v", "--role", "primary", "--peer", "site-b"], 0);
    assert!(enabled.contains("--role secondary --peer site-a --id "), "{enabled}");

    // Another directory at its path, and a new start: the volume can't be opened.
    assert!(agent.terminate().success());
    fs::rename(&tree, &aside).unwrap();
    fs::create_dir(&tree).unwrap();
    let agent = site.start();
    let id = enabled.lines().find_map(|line| line.strip_prefix("volume ")).expect("an id").to_owned();
    let lost = until(&site, &["info", &id], 3);
    assert!(lost.contains("is not the directory") && lost.contains("noticed within ten seconds"), "{lost}");
    let refused = volume(&site, &["disable", &id, "--trash"]);
    assert_eq!(refused.status.code(), Some(3), "{}", told(&refused));

    // Put back, it is noticed; names other than the id are understood.
    fs::remove_dir(&tree).unwrap();
    fs::rename(&aside, &tree).unwrap();
    until(&site, &["info", "data/v"], 0);
    until(&site, &["info", &id[..8]], 0);
    assert_eq!(volume(&site, &["info", "data/other"]).status.code(), Some(1));

    // Lost for good, it is given up; what lay beside it is in the trash, and the path is free.
    fs::remove_dir_all(&tree).unwrap();
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("other"), "stays").unwrap();
    drop(agent);
    let _agent = site.start();
    until(&site, &["info", &id], 3);
    until(&site, &["disable", &id], 0);
    until(&site, &["info", &id], 1);
    assert_eq!(fs::read_to_string(tree.join("other")).unwrap(), "stays");
    let trash = fs::read_dir(site.root().join(".drover/trash")).unwrap().next().expect("something").unwrap();
    assert!(trash.file_name().to_string_lossy().starts_with(&id) && trash.path().join("volume/mark").exists());
    until(&site, &["enable", "--root", "data", "--path", "v", "--role", "primary"], 0);
}

#[test]
fn a_second_enable_takes_the_peer_that_it_names() {
    let (site, peer) = (Site::new("site-a"), Site::new("site-b"));
    site.write_config(&peer, "");
    fs::create_dir(site.root().join("v")).unwrap();
    let _agent = site.start();
    let enable = ["enable", "--root", "data", "--path", "v", "--role", "primary"];
    let enabled = until(&site, &enable, 0);
    assert!(!enabled.contains("peer "), "{enabled}");
    let id = enabled.lines().find_map(|line| line.strip_prefix("volume ")).expect("an id");
    let again = until(&site, &[&enable[..], &["--id", id, "--peer", "site-b"]].concat(), 0);
    assert!(again.contains("peer   site-b"), "{again}");
    let kept = until(&site, &[&enable[..], &["--id", id]].concat(), 0);
    assert!(kept.contains("peer   site-b"), "{kept}");
    // Without the primary's id it would be another volume.
    let refused = volume(&site, &["enable", "--root", "data", "--path", "w", "--role", "secondary"]);
    assert_eq!(refused.status.code(), Some(2), "{}", told(&refused));
    assert!(told(&refused).contains("--id"), "{}", told(&refused));
}
