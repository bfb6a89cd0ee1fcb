//! A connection to the test cluster, and a pool that lives as long as its test.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use drover_librbd::{Access, Ceph, Cluster, Error, ErrorKind, Image, ImageOptions, ImageRef, Pool, Timeouts};

pub(crate) const MIB: u64 = 1 << 20;

pub(crate) const TIMEOUTS: Timeouts =
    Timeouts { connect: Duration::from_secs(20), monitor: Duration::from_secs(20), osd: Duration::from_secs(60) };

/// The configuration that a variable names, or SKIPPED.
pub(crate) fn conf(variable: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable).map(PathBuf::from);
    if path.is_none() {
        println!("SKIPPED: {variable} names no ceph.conf of a test cluster");
    }
    path
}

pub(crate) fn connect(conf: &std::path::Path) -> Cluster {
    let ceph = Ceph::load().unwrap();
    let mut configuration = ceph.configure("client.admin").unwrap();
    configuration.conf_file(conf).unwrap().timeouts(TIMEOUTS).unwrap();
    configuration.connect().unwrap()
}

pub(crate) fn cluster() -> Option<Cluster> {
    conf("DROVER_TEST_CEPH_CONF").map(|conf| connect(&conf))
}

/// A pool of its own for one test; deleted at the end.
pub(crate) struct TestPool {
    pub(crate) pool: Pool,
    pub(crate) name: String,
}

impl TestPool {
    /// `None` without a cluster.
    pub(crate) fn new() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Some(Self::named(&cluster()?, name))
    }

    /// Pools of two sites that mirror each other have the same name.
    pub(crate) fn named(cluster: &Cluster, name: String) -> Self {
        command(cluster, &format!(r#"{{"prefix":"osd pool create","pool":"{name}","pg_num":4}}"#));
        command(cluster, &format!(r#"{{"prefix":"osd pool application enable","pool":"{name}","app":"rbd"}}"#));
        Self { pool: cluster.pool(&name).unwrap(), name }
    }

    pub(crate) fn create(&self, name: &str, size: u64) -> Image {
        self.pool.create(name, size, &ImageOptions::default()).unwrap();
        self.open(name)
    }

    pub(crate) fn open(&self, name: &str) -> Image {
        self.pool.open(ImageRef::Name(name), Access::ReadWrite).unwrap()
    }

    /// The same pool through a connection of its own: another client.
    pub(crate) fn by_another_client(&self) -> Pool {
        cluster().unwrap().pool(&self.name).unwrap()
    }
}

impl Drop for TestPool {
    fn drop(&mut self) {
        let name = &self.name;
        let json = format!(
            r#"{{"prefix":"osd pool delete","pool":"{name}","pool2":"{name}","yes_i_really_really_mean_it":true}}"#
        );
        if let Err(error) = self.pool.cluster().mon_command(&json) {
            println!("{name} was not deleted: {error}");
        }
    }
}

pub(crate) fn command(cluster: &Cluster, json: &str) -> String {
    cluster.mon_command(json).unwrap_or_else(|error| panic!("{json}: {error}")).output
}

#[track_caller]
pub(crate) fn kind<T: std::fmt::Debug>(result: Result<T, Error>) -> ErrorKind {
    let error = result.unwrap_err();
    println!("{error}");
    error.kind()
}
