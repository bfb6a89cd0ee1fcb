//! The saboteurs do what they say: a failing disk, a cut link, a power cut.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
};

use drover_tests::{
    cutlink::CutLink,
    eiofs::EioFs,
    judge,
    mount::{FileSystem, Image, Store},
    scratch::Scratch,
    skip,
};

#[test]
fn eiofs_shows_a_tree_and_fails_where_it_should() {
    const NAME: &str = "eiofs_shows_a_tree_and_fails_where_it_should";
    if !skip::needs_root(NAME) {
        return;
    }
    let (real, at) = (Scratch::new("real"), Scratch::new("fuse"));
    fs::create_dir(real.join("d")).unwrap();
    fs::write(real.join("d/good"), vec![7; 300_000]).unwrap();
    fs::write(real.join("d/bad"), "x").unwrap();
    std::os::unix::fs::symlink("good", real.join("d/link")).unwrap();
    let fuse = match EioFs::mount(real.path(), at.path()) {
        Ok(fuse) => fuse,
        Err(error) => return skip::skipped(NAME, &format!("FUSE can't be mounted: {error}")),
    };
    judge::assert_same(real.path(), fuse.path(), "through FUSE");
    fuse.break_file("d/bad");
    let error = fs::read(fuse.path().join("d/bad")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()));
    fs::write(fuse.path().join("new"), "n").unwrap();
    fs::rename(fuse.path().join("new"), fuse.path().join("d/new")).unwrap();
    fs::rename(fuse.path().join("d"), fuse.path().join("e")).unwrap();
    assert_eq!(fs::read(fuse.path().join("e/new")).unwrap(), b"n");
    fuse.mend_all();
    assert_eq!(fs::read(fuse.path().join("e/bad")).unwrap(), b"x");
    fs::remove_dir_all(fuse.path().join("e")).unwrap();
    assert!(!real.join("e").exists());
}

#[test]
fn cutlink_passes_cuts_and_passes_again() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || std::io::copy(&mut stream.try_clone().unwrap(), &mut stream));
        }
    });
    let link = CutLink::to(port).unwrap();
    let connect = || TcpStream::connect(("127.0.0.1", link.port())).unwrap();
    let mut stream = connect();
    stream.write_all(b"hello").unwrap();
    stream.read_exact(&mut [0; 5]).unwrap();
    link.cut_after(100_000);
    let failed =
        (0..1000).any(|_| stream.write_all(&[1; 1000]).is_err() || !matches!(stream.read(&mut [0; 1000]), Ok(1..)));
    assert!(failed, "not cut after {} bytes", link.passed());
    assert_eq!(link.cuts(), 1);
    let mut stream = connect();
    stream.write_all(b"again").unwrap();
    stream.read_exact(&mut [0; 5]).unwrap();
}

/// What was synced is in the clone, what was only written need not be.
#[test]
fn a_power_cut_keeps_what_was_synced() {
    const NAME: &str = "a_power_cut_keeps_what_was_synced";
    if !skip::needs_root(NAME) {
        return;
    }
    let store = Store::new(2 << 30).unwrap();
    for file_system in FileSystem::ALL {
        if let Some(why) = file_system.missing() {
            skip::skipped(NAME, &why);
            continue;
        }
        let image = store.image(file_system, 0).unwrap();
        let mounted = image.mount().unwrap();
        fs::write(mounted.join("synced"), vec![5; 100_000]).unwrap();
        fs::File::open(mounted.join("synced")).unwrap().sync_all().unwrap();
        fs::write(mounted.join("cached"), vec![6; 100_000]).unwrap();
        let cut = image.cut_power("cut").unwrap();
        let lost = {
            drop(mounted);
            let after = cut.mount().unwrap();
            assert_eq!(fs::read(after.join("synced")).unwrap(), vec![5; 100_000], "{file_system:?}");
            fs::read(after.join("cached")).is_ok_and(|bytes| bytes == vec![6; 100_000])
        };
        assert!(!lost, "{file_system:?}: the page cache survived, so this would prove nothing");
    }
}

#[test]
fn rot_is_placed_beneath_the_file_system() {
    if !skip::needs_root("rot_is_placed_beneath_the_file_system") {
        return;
    }
    let image = Image::new(FileSystem::Ext4, 0).unwrap();
    let needle = b"a line that is nowhere else on this device";
    fs::write(image.mount().unwrap().join("file"), needle).unwrap();
    image.rot(needle).unwrap();
    let read = fs::read(image.mount().unwrap().join("file")).unwrap();
    assert_eq!(read.len(), needle.len());
    assert_ne!(read, needle);
}
