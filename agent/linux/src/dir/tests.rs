//! On real files in a temporary directory; what needs root is skipped aloud for others.

use std::{fs, os::unix::fs::symlink, path::Path};

use super::Dir;
use crate::{Kind, Time, privileges};

fn fixture() -> (tempfile::TempDir, Dir) {
    let temp = tempfile::tempdir().unwrap();
    let dir = Dir::open(temp.path()).unwrap();
    (temp, dir)
}

fn privileged(test: &str) -> bool {
    let missing = privileges::missing().unwrap();
    if !missing.is_empty() {
        eprintln!("SKIPPED {test}: lacks {missing:?}");
    }
    missing.is_empty()
}

fn names(dir: &Dir) -> Vec<Vec<u8>> {
    let mut names: Vec<_> = dir.list().unwrap().into_iter().map(|(name, _)| name).collect();
    names.sort();
    names
}

#[test]
fn no_symlink_and_no_dots_lead_out() {
    let (temp, dir) = fixture();
    fs::create_dir_all(temp.path().join("a/b")).unwrap();
    symlink("/etc", temp.path().join("out")).unwrap();
    symlink("a", temp.path().join("in")).unwrap();
    assert!(dir.open_beneath(b"a/b").is_ok());
    for bad in [&b"out"[..], b"in", b"in/b", b"..", b"a/../..", b"/etc", b"a/b/../../.."] {
        assert!(dir.open_beneath(bad).is_err(), "{}", bad.escape_ascii());
    }
    assert!(Dir::open(&temp.path().join("in")).is_err());
    assert!(Dir::open(Path::new(&format!("{}/in/", temp.path().display()))).is_err());
    assert!(dir.open_file(b"out/passwd").is_err());
    assert!(dir.stat(b"..").is_err());
    assert_eq!(dir.stat(b"out").unwrap().kind, Kind::Symlink);
}

#[test]
fn deeper_than_path_max() {
    let (_temp, root) = fixture();
    let name = [b'd'; 200];
    let mut dir = root.try_clone().unwrap();
    for _ in 0..50 {
        dir.mkdir(&name, 0o755).unwrap();
        dir = dir.open_beneath(&name).unwrap();
    }
    let path = [&name[..]; 50].join(&b'/');
    assert!(path.len() > 2 * 4096);
    let deepest = root.open_beneath(&path).unwrap();
    assert_eq!(deepest.stat_self().unwrap().id, dir.stat(b"").unwrap().id);
    assert!(root.open_beneath(&[b'd'; 5000]).is_err());
}

#[test]
fn lists_every_name_each_time() {
    let (_temp, dir) = fixture();
    let mut expected: Vec<Vec<u8>> = (0..2000).map(|n| format!("file with a longer name {n}").into_bytes()).collect();
    expected.push(b"\xff\n\\".to_vec());
    for name in &expected {
        dir.create_file(name, 0o600).unwrap();
    }
    expected.sort();
    assert_eq!(names(&dir), expected);
    assert_eq!(names(&dir), expected);
    let (name, ino) = dir.list().unwrap().swap_remove(0);
    assert_eq!(dir.stat(&name).unwrap().id.ino, ino);
}

#[test]
fn renames_replace_exchange_or_refuse() {
    let (temp, dir) = fixture();
    fs::write(temp.path().join("a"), "a").unwrap();
    fs::write(temp.path().join("b"), "b").unwrap();
    assert_eq!(dir.rename_noreplace(b"a", &dir, b"b").unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
    dir.exchange(b"a", &dir, b"b").unwrap();
    assert_eq!(fs::read(temp.path().join("a")).unwrap(), b"b");
    dir.rename_replace(b"a", &dir, b"b").unwrap();
    dir.link(b"b", &dir, b"c").unwrap();
    assert_eq!(dir.stat(b"c").unwrap().nlink, 2);
    dir.unlink(b"b").unwrap();
    assert_eq!(names(&dir), [b"c"]);
}

#[test]
fn only_regular_files_open_as_files() {
    let (temp, dir) = fixture();
    dir.mknod(b"fifo", Kind::Fifo, 0o600, 0, 0).unwrap();
    dir.mknod(b"socket", Kind::Socket, 0o600, 0, 0).unwrap();
    dir.symlink(b"file", b"link").unwrap();
    fs::write(temp.path().join("file"), "x").unwrap();
    assert!(dir.open_file(b"file").is_ok());
    assert!(dir.open_write(b"file").is_ok());
    for other in [&b"fifo"[..], b"socket", b"link", b"missing"] {
        assert!(dir.open_file(other).is_err());
        assert!(dir.open_write(other).is_err());
    }
    assert_eq!(dir.stat(b"socket").unwrap().kind, Kind::Socket);
    assert_eq!(dir.readlink(b"link").unwrap(), b"file");
    assert!(dir.chmod(b"link", 0o600).is_err());
}

#[test]
fn attributes_are_set_on_the_entry_itself() {
    let (_temp, dir) = fixture();
    dir.create_file(b"file", 0o600).unwrap();
    dir.symlink(b"file", b"link").unwrap();
    let past = Time { secs: -5, nanos: 123_456_789 };
    for name in [&b"file"[..], b"link", b""] {
        dir.set_mtime(name, past).unwrap();
        assert_eq!(dir.stat(name).unwrap().mtime, past);
    }
    dir.chmod(b"file", 0o4751).unwrap();
    assert_eq!(dir.stat(b"file").unwrap().mode, 0o4751);
    if privileged("attributes_are_set_on_the_entry_itself") {
        dir.chown(b"link", 7, 8).unwrap();
        let (link, file) = (dir.stat(b"link").unwrap(), dir.stat(b"file").unwrap());
        assert_eq!((link.uid, link.gid), (7, 8));
        assert_ne!(file.uid, 7);
    }
}

#[test]
fn xattrs_of_every_kind() {
    if !privileged("xattrs_of_every_kind") {
        return;
    }
    let (_temp, dir) = fixture();
    dir.symlink(b"nowhere", b"link").unwrap();
    dir.mknod(b"fifo", Kind::Fifo, 0o600, 0, 0).unwrap();
    dir.create_file(b"file", 0o600).unwrap();
    for name in [&b"link"[..], b"fifo", b"file", b""] {
        dir.set_xattr(name, b"trusted.b", &[7; 2000]).unwrap();
        dir.set_xattr(name, b"trusted.a", b"").unwrap();
        let expected = [(b"trusted.a".to_vec(), vec![]), (b"trusted.b".to_vec(), vec![7; 2000])];
        assert_eq!(dir.xattrs(name).unwrap(), expected, "{}", name.escape_ascii());
        dir.remove_xattr(name, b"trusted.b").unwrap();
        assert_eq!(dir.xattrs(name).unwrap(), expected[..1]);
    }
    for n in 0..30 {
        dir.set_xattr(b"file", format!("user.{n:0>100}").as_bytes(), b"v").unwrap();
    }
    assert_eq!(dir.xattrs(b"file").unwrap().len(), 31);
}

#[test]
fn inode_flags_change_only_what_is_masked() {
    const NODUMP: u32 = 0x40;
    const NOATIME: u32 = 0x80;
    let (_temp, dir) = fixture();
    dir.create_file(b"file", 0o600).unwrap();
    dir.symlink(b"file", b"link").unwrap();
    if let Err(error) = dir.set_inode_flags(b"file", NODUMP, NODUMP) {
        eprintln!("SKIPPED inode_flags_change_only_what_is_masked: {error}");
        return;
    }
    dir.set_inode_flags(b"file", NOATIME, NOATIME).unwrap();
    assert_eq!(dir.inode_flags(b"file").unwrap() & (NODUMP | NOATIME), NODUMP | NOATIME);
    dir.set_inode_flags(b"file", 0, NODUMP).unwrap();
    assert_eq!(dir.inode_flags(b"file").unwrap() & (NODUMP | NOATIME), NOATIME);
    assert_eq!(dir.inode_flags(b"").unwrap() & NOATIME, 0);
    assert!(dir.inode_flags(b"link").is_err());
}

#[test]
fn a_handle_follows_the_file_until_it_is_deleted() {
    if !privileged("a_handle_follows_the_file_until_it_is_deleted") {
        return;
    }
    let (_temp, dir) = fixture();
    let held = dir.create_file(b"file", 0o600).unwrap();
    let handle = match dir.handle(b"file") {
        Ok(handle) => handle,
        Err(error) => {
            return eprintln!("SKIPPED a_handle_follows_the_file_until_it_is_deleted: {error}");
        }
    };
    dir.rename_replace(b"file", &dir, b"moved").unwrap();
    let found = dir.open_by_handle(&handle).unwrap().unwrap();
    assert_eq!(crate::file::stat(&found).unwrap().id, dir.stat(b"moved").unwrap().id);
    drop(found);
    dir.unlink(b"moved").unwrap();
    assert!(dir.open_by_handle(&handle).unwrap().is_none(), "still open, but deleted");
    drop(held);
    assert!(dir.open_by_handle(&handle).unwrap().is_none());
}

#[test]
fn space_and_type_are_told() {
    let (_temp, dir) = fixture();
    let space = dir.space().unwrap();
    assert!(space.free_bytes <= space.total_bytes && space.total_bytes > 0);
    dir.filesystem().unwrap();
    dir.sync().unwrap();
    dir.sync_filesystem().unwrap();
}
