//! Where the programs under test are. They are built by `tests/run` with the feature `faults`.

use std::{env, path::PathBuf};

/// In `DROVER_BIN_DIR`, or beside this program, or beside this test's own directory.
pub fn binary(name: &str) -> PathBuf {
    let dir = env::var_os("DROVER_BIN_DIR").map(PathBuf::from).unwrap_or_else(|| {
        let exe = env::current_exe().expect("this program has a path");
        let mut near = exe.ancestors().skip(1).take(2);
        near.find(|dir| dir.join(name).is_file())
            .expect("target/PROFILE/deps/TEST or target/PROFILE/PROGRAM")
            .to_owned()
    });
    let path = dir.join(name);
    assert!(path.is_file(), "{} is not built: use tests/run", path.display());
    path
}

pub fn agent_binary() -> PathBuf {
    binary("drover-agent")
}

pub fn controller_binary() -> PathBuf {
    binary("drover")
}
