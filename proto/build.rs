//! Compiles the `.proto` files without a system protoc, and keeps the descriptor set for reflection and for the test
//! that only additions happen.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

const FILES: [&str; 10] = [
    "drover/v1/volume.proto",
    "drover/v1/replication.proto",
    "drover/v1/group.proto",
    "drover/v1/fence.proto",
    "drover/v1/pool.proto",
    "drover/v1/snapshot.proto",
    "drover/v1/sync.proto",
    "drover/v1/node.proto",
    "drover/v1/transfer.proto",
    "drover/v1/trash.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("drover.v1.bin"), descriptors.encode_to_vec())?;
    // Frames are large: `Bytes` lets them pass without a copy.
    tonic_prost_build::configure().bytes(".drover.v1").compile_fds(descriptors)?;
    Ok(())
}
