use std::os::unix::fs::FileExt;

use super::*;

#[test]
fn many_small_files_of_all_sizes() {
    let mut rig = Rig::new();
    let sizes = [0, 1, 4095, 4096, 70_000, 200_000, 256 << 10, (256 << 10) + 1];
    let names: Vec<String> = (0..600).map(|n| format!("d{}/e/f{n}", n % 7)).collect();
    for (n, name) in names.iter().enumerate() {
        rig.write(
            "source",
            name,
            &noise(sizes[n % sizes.len()].min(if n > 100 { 9000 } else { usize::MAX }), n as u64),
        );
    }
    let fetches: Vec<Fetch> = names.iter().map(|name| rig.want(name)).collect();
    let fetched = rig.run(&fetches).unwrap();
    assert!(fetched.iter().all(|fetched| *fetched == Fetched::AsWanted));
    names.iter().for_each(|name| rig.is_staged(name));
    assert_eq!(rig.control.progress.entries_done.get(), 600);
    let bytes: u64 = fetches.iter().map(|fetch| fetch.body.size).sum();
    assert_eq!(rig.control.progress.bytes_done.get(), bytes);
}

#[test]
fn nothing_to_fetch_is_done() {
    assert_eq!(Rig::new().run(&[]).unwrap(), []);
}

#[test]
fn holes_of_small_files_stay() {
    let mut rig = Rig::new();
    rig.write("source", "sparse", b"");
    let file = File::options().write(true).open(rig.path("source", "sparse")).unwrap();
    file.set_len(200_000).unwrap();
    file.write_all_at(&[5; 5000], 65_536).unwrap();
    file.write_all_at(&[0; 4096], 131_072).unwrap();
    rig.write("source", "zeros", &[0; 30_000]);
    let fetches = [rig.want("sparse"), rig.want("zeros")];
    rig.run(&fetches).unwrap();
    rig.is_staged("sparse");
    rig.is_staged("zeros");
    assert!(rig.moved < 50_000, "{}", rig.moved);
}

#[test]
fn what_an_earlier_run_left_is_used_when_it_is_right() {
    let mut rig = Rig::new();
    for name in ["a", "b", "c"] {
        rig.write("source", name, &noise(100_000, name.len() as u64));
    }
    let fetches = ["a", "b", "c"].map(|name| rig.want(name));
    fs::copy(rig.path("source", "a"), rig.path("staging", "a")).unwrap();
    rig.write("staging", "b", &noise(100_000, 99));
    rig.leftovers = Leftovers::Possible;
    assert_eq!(rig.run(&fetches).unwrap(), vec![Fetched::AsWanted; 3]);
    ["a", "b", "c"].iter().for_each(|name| rig.is_staged(name));
    assert!(rig.moved < 210_000, "{}", rig.moved);
    rig.run(&fetches).unwrap();
    assert_eq!(rig.moved, 0);
}

#[test]
fn gone_files_are_told() {
    let mut rig = Rig::new();
    for name in ["d/small", "d/big", "d/stays", "was-file"] {
        rig.write("source", name, &noise(if name == "d/big" { 3 * MIB } else { 100 }, 1));
    }
    let fetches = ["d/small", "d/big", "d/stays", "was-file"].map(|name| rig.want(name));
    fs::remove_file(rig.path("source", "d/small")).unwrap();
    fs::remove_file(rig.path("source", "d/big")).unwrap();
    fs::remove_file(rig.path("source", "was-file")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", rig.path("source", "was-file")).unwrap();
    let expected = [Fetched::Gone, Fetched::Gone, Fetched::AsWanted, Fetched::Gone];
    assert_eq!(rig.run(&fetches).unwrap(), expected);
    assert!(!rig.path("staging", "d/big").exists());
}
