//! Files that change under the source's hands.

use std::{
    os::unix::fs::{FileExt, PermissionsExt},
    sync::atomic::{AtomicBool, Ordering},
};

use super::*;
use crate::session::body::Settled;

fn digest_is_what_is_staged(rig: &Rig, name: &str, body: &Body) {
    assert_eq!(rig.body("staging", name).digest, body.digest);
    assert_eq!(fs::metadata(rig.path("staging", name)).unwrap().len(), body.size);
}

#[test]
fn a_file_that_changed_since_the_scan_comes_as_it_is_now() {
    let mut rig = Rig::new();
    let (small, big) = (noise(5000, 1), noise(9 * MIB, 2));
    rig.write("live", "big", &big);
    let cases: [(&str, &[u8], &[u8]); 6] = [
        ("small", &small, &small[..4000]),
        ("longer", &small, &[&b"x"[..], &small].concat()),
        ("grown", &small, &big),
        ("big", &big, &[&big[..5 * MIB], b"y", &big[5 * MIB..]].concat()),
        ("shrunk", &big, &small),
        ("emptied", &big, b""),
    ];
    cases.iter().for_each(|(name, before, _)| rig.write("source", name, before));
    let fetches: Vec<Fetch> = cases.iter().map(|(name, ..)| rig.want(name)).collect();
    for (name, _, after) in &cases {
        rig.write("source", name, after);
        fs::set_permissions(rig.path("source", name), fs::Permissions::from_mode(0o751)).unwrap();
    }
    for ((name, ..), fetched) in cases.iter().zip(rig.run(&fetches).unwrap()) {
        let Fetched::Changed { meta, body, settled } = fetched else { panic!("{name}: {fetched:?}") };
        assert_eq!((body, settled, meta.mode), (rig.body("source", name), Settled::Still, 0o751), "{name}");
        rig.is_staged(name);
    }
    assert_eq!(rig.control.progress.entries_done.get(), 6);
}

#[test]
fn an_appended_log_comes_as_it_was_scanned() {
    let mut rig = Rig::new();
    for (name, size) in [("small", 1000), ("big", 2 * MIB + 9)] {
        rig.write("source", name, &noise(size, 3));
    }
    let fetches = [rig.want("small"), rig.want("big")];
    for name in ["small", "big"] {
        let mut content = fs::read(rig.path("source", name)).unwrap();
        content.extend_from_slice(b"more");
        rig.write("source", name, &content);
    }
    assert_eq!(rig.run(&fetches).unwrap(), [Fetched::AsWanted, Fetched::AsWanted]);
    digest_is_what_is_staged(&rig, "big", &fetches[1].body);
}

#[test]
fn a_file_that_never_holds_still_is_named_and_whole() {
    let mut rig = Rig::new();
    rig.write("source", "small", &noise(200_000, 1));
    rig.write("source", "big", &noise(8 * MIB, 1));
    let fetches = [rig.want("small"), rig.want("big")];
    let files = ["small", "big"].map(|name| File::options().write(true).open(rig.path("source", name)).unwrap());
    let (begun, done) = (AtomicBool::new(false), AtomicBool::new(false));
    let fetched = thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 0u64;
            while !done.load(Ordering::Relaxed) {
                n += 1;
                files.iter().for_each(|file| file.write_all_at(&n.to_le_bytes(), n * 977 % 190_000).unwrap());
                begun.store(true, Ordering::Relaxed);
            }
        });
        while !begun.load(Ordering::Relaxed) {
            thread::yield_now();
        }
        let fetched = rig.run(&fetches);
        done.store(true, Ordering::Relaxed);
        fetched.unwrap()
    });
    for (name, fetched) in ["small", "big"].iter().zip(fetched) {
        let Fetched::Changed { body, .. } = fetched else { panic!("{name}: {fetched:?}") };
        digest_is_what_is_staged(&rig, name, &body);
    }
}

#[test]
fn a_renamed_file_is_found_by_its_handle() {
    let mut rig = Rig::new();
    for (name, size) in [("d/small", 1000), ("d/big", 3 * MIB)] {
        rig.write("source", name, &noise(size, 4));
    }
    let fetches = [rig.want("d/small"), rig.want("d/big")];
    let dir = rig.source.open_beneath(b"d").unwrap();
    for name in ["small", "big"] {
        rig.handles.insert(rel(&format!("d/{name}")), dir.handle(name.as_bytes()).unwrap());
    }
    let root_may = rig.source.open_by_handle(&rig.handles[&rel("d/big")]).is_ok();
    if !root_may {
        return eprintln!("SKIPPED a_renamed_file_is_found_by_its_handle: needs CAP_DAC_READ_SEARCH");
    }
    fs::rename(rig.path("source", "d"), rig.path("source", "elsewhere")).unwrap();
    assert_eq!(rig.run(&fetches).unwrap(), [Fetched::AsWanted, Fetched::AsWanted]);
    // Another file takes the old name: the handle still tells which one was meant.
    rig.write("source", "d/small", b"someone else");
    assert_eq!(rig.run(&fetches[..1]).unwrap(), [Fetched::AsWanted]);
    digest_is_what_is_staged(&rig, "d/small", &fetches[0].body);
    // Renamed and changed: its metadata is read where it is now.
    rig.write("source", "elsewhere/small", b"changed");
    let fetched = rig.run(&fetches[..1]).unwrap();
    assert!(matches!(fetched[0], Fetched::Changed { body, .. } if body.size == 7), "{fetched:?}");
}
