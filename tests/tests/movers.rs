//! A writer renames files to and fro between directories while syncs run. A scan that reads one directory before and the
//! other after such a rename sees the file in neither: that must not delete it on the replica (R5).

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use drover_tests::{
    figure::{self, Goal},
    host::Pair,
    rounds::Rounds,
    seed::{Rng, Seeds},
    skip,
};

const DIRECTORIES: usize = 12;
const FILES: usize = 240;

fn directory(root: &Path, number: usize) -> PathBuf {
    root.join(format!("d{number:02}"))
}

fn lay_out(root: &Path) {
    for number in 0..DIRECTORIES {
        fs::create_dir(directory(root, number)).expect("directory");
    }
    for number in 0..FILES {
        fs::write(directory(root, number % DIRECTORIES).join(format!("f{number}")), format!("content {number}"))
            .expect("file");
    }
}

/// Names of all files, wherever they are.
fn names(root: &Path) -> io::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for number in 0..DIRECTORIES {
        for entry in fs::read_dir(directory(root, number))? {
            names.insert(entry?.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(names)
}

/// Moves files until `stop`; each exists at every moment, in one of two directories.
fn move_about(root: &Path, rng: &mut Rng, stop: &AtomicBool, moves: &AtomicU64) {
    let mut at: Vec<usize> = (0..FILES).map(|number| number % DIRECTORIES).collect();
    while !stop.load(Ordering::SeqCst) {
        let (file, to) = (rng.usize(0..FILES), rng.usize(0..DIRECTORIES));
        let name = format!("f{file}");
        fs::rename(directory(root, at[file]).join(&name), directory(root, to).join(&name)).expect("rename");
        at[file] = to;
        // Fast enough that every scan meets renames, slow enough that a scan has a chance to settle.
        if moves.fetch_add(1, Ordering::SeqCst).is_multiple_of(4) {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn r5_what_only_moved_is_never_deleted() {
    const NAME: &str = "r5_what_only_moved_is_never_deleted";
    if !skip::needs_root(NAME) {
        return;
    }
    let (rounds, seeds) = (Rounds::chosen(), Seeds::of(NAME));
    rounds.announce(NAME, "syncs", |rounds| rounds.mover_syncs);
    let pair = Pair::start();
    lay_out(&pair.source());
    pair.sync();
    let (stop, moves) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writer = {
        let (root, stop, moves, mut rng) = (pair.source(), Arc::clone(&stop), Arc::clone(&moves), seeds.rng(0));
        thread::spawn(move || move_about(&root, &mut rng, &stop, &moves))
    };
    let (mut lost, mut kept) = (Vec::new(), 0);
    for sync in 0..rounds.mover_syncs {
        let outcome = pair.try_sync();
        assert!(outcome.is_done(), "sync {sync}: {outcome}");
        kept += outcome.list("/not_deleted").len();
        let names = names(&pair.replica()).expect("look at the replica");
        lost.extend((0..FILES).map(|number| format!("f{number}")).filter(|name| !names.contains(name)));
    }
    stop.store(true, Ordering::SeqCst);
    writer.join().expect("the writer");
    println!("{NAME}: {} renames, {kept} kept by a second look", moves.load(Ordering::SeqCst));
    figure::report("syncs while files move to and fro", rounds.mover_syncs, "syncs", Goal::AtLeast(50));
    figure::report("files deleted though they exist at both ends", lost.len() as u64, "files", Goal::AtMost(0));
    assert_eq!(lost, Vec::<String>::new(), "seed {}: deleted though it exists at both ends", seeds.round(0));
    pair.sync();
    pair.assert_same("after the writer stopped");
}
