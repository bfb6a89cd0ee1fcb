//! A scan with an index finds what a scan without one finds, and reads no more than it must.

use std::fs;

use super::{Volume, find, path, sample};
use crate::tree::Node;

#[test]
fn only_what_changed_is_read() {
    let volume = sample();
    let first = volume.scan(None);
    volume.write("a/b/file", b"CONTENT");
    volume.write("a/new", b"new");
    fs::remove_file(volume.at("big")).unwrap();
    let second = volume.scan(Some(&first.index));
    assert_eq!((second.changed.entries, second.changed.bytes), (2, 10));
    volume.agrees(&second);
}

#[test]
fn a_change_of_metadata_alone_is_found() {
    let volume = sample();
    let first = volume.scan(None);
    volume.dir.chmod(b"big", 0o711).unwrap();
    volume.dir.chmod(b"empty", 0o711).unwrap();
    volume.dir.chmod(b"", 0o711).unwrap();
    let second = volume.scan(Some(&first.index));
    assert_eq!(find(&second, "big").meta.mode, 0o711);
    assert_eq!(find(&second, "empty").meta.mode, 0o711);
    assert_eq!(second.index.manifest.root().meta.mode, 0o711);
    volume.agrees(&second);
}

#[test]
fn a_renamed_directory_is_not_read_again() {
    let volume = sample();
    let first = volume.scan(None);
    fs::rename(volume.at("a"), volume.at("empty/moved")).unwrap();
    let second = volume.scan(Some(&first.index));
    assert_eq!(second.changed.entries, 0);
    volume.agrees(&second);
}

#[test]
fn a_file_that_became_a_directory_and_back() {
    let volume = sample();
    let first = volume.scan(None);
    fs::remove_file(volume.at("big")).unwrap();
    volume.write("big/inside", b"x");
    let second = volume.scan(Some(&first.index));
    volume.agrees(&second);
    fs::remove_dir_all(volume.at("big")).unwrap();
    fs::remove_dir_all(volume.at("a")).unwrap();
    volume.write("big", b"x");
    volume.agrees(&volume.scan(Some(&second.index)));
}

fn linked() -> Volume {
    let volume = Volume::new();
    volume.write("m/one", b"shared");
    volume.write("z/keep", b"");
    for name in ["z/two", "three"] {
        fs::hard_link(volume.at("m/one"), volume.at(name)).unwrap();
    }
    volume
}

#[test]
fn the_first_name_in_path_order_leads() {
    let volume = linked();
    let scan = volume.scan(None);
    assert_eq!(scan.changed.bytes, 6, "read once");
    assert!(find(&scan, "m/one").node.body().is_some());
    for name in ["z/two", "three"] {
        assert_eq!(find(&scan, name).node, Node::Hardlink { leader: path("m/one") });
        assert_eq!(find(&scan, name).meta, find(&scan, "m/one").meta);
    }
    assert_eq!(volume.scan(Some(&scan.index)).index, scan.index);
}

#[test]
fn another_name_takes_the_lead() {
    let volume = linked();
    let first = volume.scan(None);
    fs::rename(volume.at("m"), volume.at("zz")).unwrap();
    let second = volume.scan(Some(&first.index));
    assert!(find(&second, "three").node.body().is_some());
    assert_eq!(find(&second, "zz/one").node, Node::Hardlink { leader: path("three") });
    assert_eq!(second.changed.entries, 0);
    volume.agrees(&second);
}

#[test]
fn a_leader_that_left_the_volume_leaves_its_content() {
    let volume = linked();
    let outside = tempfile::tempdir_in(volume.temp.path().parent().unwrap()).unwrap();
    let first = volume.scan(None);
    fs::rename(volume.at("m"), outside.path().join("m")).unwrap();
    let second = volume.scan(Some(&first.index));
    assert_eq!(second.changed.entries, 0);
    volume.agrees(&second);
    fs::remove_file(volume.at("three")).unwrap();
    let third = volume.scan(Some(&second.index));
    assert!(find(&third, "z/two").node.body().is_some(), "two links, one inside");
    volume.agrees(&third);
}
