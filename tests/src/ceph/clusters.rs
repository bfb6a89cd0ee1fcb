//! Two clusters that can mirror each other.

use std::{fs, thread, time::Duration};

use super::{Cluster, Release};
use crate::process;

/// Until rbd-mirror on both sides says that it is well; about 10 s.
const HEALTHY: Duration = Duration::from_secs(90);

#[derive(Debug)]
pub struct Clusters {
    /// Primary at first.
    pub a: Cluster,
    pub b: Cluster,
}

impl Clusters {
    /// Both at a time.
    #[track_caller]
    pub fn start(release: Release) -> Self {
        thread::scope(|scope| {
            let a = scope.spawn(|| Cluster::start_new("site-a", release));
            let b = Cluster::start_new("site-b", release);
            Self { a: a.join().expect("site-a starts"), b }
        })
    }

    pub fn both(&self) -> [&Cluster; 2] {
        [&self.a, &self.b]
    }

    /// Mirrors the pool in both directions, image by image, with the tools; waits until both daemons are well.
    #[track_caller]
    pub fn mirror(&self) {
        self.mirror_as("admin");
    }

    /// As this user of both clusters (without `client.`).
    #[track_caller]
    pub fn mirror_as(&self, user: &str) {
        let call = |cluster: &Cluster, arguments: &[&str]| {
            cluster.rbd(&[&["--id", user, "mirror", "pool"], arguments].concat())
        };
        for cluster in self.both() {
            call(cluster, &["enable", cluster.pool(), "image", "--site-name", cluster.name()]);
        }
        let token = self.b.dir().join("token");
        let text = call(&self.a, &["peer", "bootstrap", "create", self.a.pool()]);
        fs::write(&token, text).expect("write a token");
        let path = token.to_str().expect("a path in UTF-8");
        call(&self.b, &["peer", "bootstrap", "import", "--direction", "rx-tx", self.b.pool(), path]);
        self.both().iter().for_each(|cluster| cluster.start_rbd_mirror());
        self.wait_healthy();
    }

    /// Both rbd-mirror daemons run and complain about nothing.
    #[track_caller]
    pub fn wait_healthy(&self) {
        for cluster in self.both() {
            process::until("rbd-mirror is well", HEALTHY, || {
                let status = cluster.rbd_json(&["mirror", "pool", "status", cluster.pool()]);
                (status["summary"]["daemon_health"] == "OK").then_some(())
            });
        }
    }
}
