//! The rival for W5 on files: blocksync-fast, which keeps a digest file so as to read the source alone.
//!
//! It knows no network, so that it copies from directory to directory: its bytes on the wire are none, and it
//! takes no part in a run over a WAN.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::{
    meter::{Cost, measure},
    site::Site,
    workload::image,
};

pub const NAME: &str = "blocksync-fast";

pub fn is_on_path() -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|directory| directory.join(NAME).is_file())
}

/// Directory of its replica.
pub fn replica(site: &Site, replica: &str) -> PathBuf {
    site.blocksync_replicas().join(replica)
}

/// Copies the image in `source`; the first copy makes the replica and its digest file.
pub fn copy(site: &Site, source: &Path, name: &str) -> Result<Cost> {
    let destination = replica(site, name);
    fs::create_dir_all(&destination)?;
    let mut blocksync = Command::new(NAME);
    // Blocks of 4 KiB are its default as well; wider ones would make it write more for each random page.
    blocksync.args(["--silent", "--block-size=4K"]).stdout(Stdio::null());
    blocksync.arg("--src").arg(source.join(image::NAME)).arg("--dst").arg(destination.join(image::NAME));
    blocksync.arg("--digest").arg(destination.join("disk.digest"));
    let (cost, ()) = measure(&site.network, &[], &destination, |sampler| {
        let mut client = blocksync.spawn().context("start blocksync-fast")?;
        sampler.watch(client.id());
        let status = client.wait()?;
        ensure!(status.success(), "blocksync-fast failed: {status}");
        Ok(())
    })?;
    Ok(cost)
}
