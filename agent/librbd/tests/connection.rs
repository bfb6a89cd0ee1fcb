//! Connecting, and what is asked of a cluster.

use std::{
    net::TcpListener,
    path::Path,
    time::{Duration, Instant},
};

use drover_librbd::{Access, Ceph, Configuration, ErrorKind, ImageRef, Timeouts};

use crate::site::{TestPool, cluster, command, conf, kind};

#[test]
fn what_a_cluster_says_of_itself() {
    let Some(cluster) = cluster() else { return };
    cluster.check().unwrap();
    let fsid = cluster.fsid().unwrap();
    assert!(command(&cluster, r#"{"prefix":"fsid"}"#).contains(&fsid));
    // As the blocklist names clients: an address with a nonce.
    let address = cluster.address().unwrap();
    assert!(address.starts_with("127.0.0.1:0/"), "{address}");
    assert!(cluster.instance_id() > 0);
    assert_eq!(cluster.pool_id("no-such-pool").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(kind(cluster.pool_name(99_999)), ErrorKind::NotFound);
    assert_eq!(kind(cluster.pool("no-such-pool")), ErrorKind::NotFound);
    let test = TestPool::new().unwrap();
    // Pools that other tests make appear meanwhile.
    let entry = test.pool.cluster().pools().unwrap().into_iter().find(|entry| entry.name == test.name);
    let id = cluster.pool_id(&test.name).unwrap();
    assert_eq!(entry.map(|entry| entry.id), Some(id));
    assert_eq!((test.pool.id(), cluster.pool_name(id).unwrap()), (id, test.name.clone()));
    assert_eq!(format!("{:?}", test.pool), format!("Pool({id}, \"\")"));
}

#[test]
fn commands_say_why_they_are_refused() {
    let Some(cluster) = cluster() else { return };
    let refused = cluster.mon_command(r#"{"prefix":"no such command"}"#).unwrap_err();
    assert_eq!((refused.error.kind(), refused.status.as_str()), (ErrorKind::Invalid, "command not known"));
    let listed = r#"{"prefix":"rbd mirror snapshot schedule list","level_spec":""}"#;
    let begun = Instant::now();
    // The module of the manager needs a while on a new cluster.
    let reply = loop {
        match cluster.mgr_command(listed) {
            Ok(reply) => break reply,
            Err(error) if error.error.errno.raw() == libc::EAGAIN && begun.elapsed() < Duration::from_secs(60) => {
                std::thread::sleep(Duration::from_millis(500));
            }
            Err(error) => panic!("{error}"),
        }
    };
    assert!(serde_json::from_str::<serde_json::Value>(&reply.output).unwrap().is_object());
    let add = r#"{"prefix":"rbd mirror snapshot schedule add","level_spec":"no-such-pool/","interval":"5m"}"#;
    let refused = cluster.mgr_command(add).unwrap_err();
    assert!(refused.status.contains("no-such-pool"), "{refused}");
}

fn configured(conf: &Path, user: &str) -> Configuration {
    let mut configuration = Ceph::load().unwrap().configure(user).unwrap();
    let short = Duration::from_secs(3);
    let timeouts = Timeouts { connect: short, monitor: short, osd: short };
    configuration.conf_file(conf).unwrap().timeouts(timeouts).unwrap();
    configuration
}

#[test]
fn what_keeps_from_connecting() {
    let Some(conf) = conf("DROVER_TEST_CEPH_CONF") else { return };
    let ceph = Ceph::load().unwrap();
    assert_eq!(ceph.configure("admin").err().unwrap().kind(), ErrorKind::Invalid);
    assert_eq!(
        ceph.configure("client.x").unwrap().conf_file(Path::new("/nonexistent")).err().unwrap().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(
        ceph.configure("client.x").unwrap().option("no_such_option", "1").err().unwrap().kind(),
        ErrorKind::NotFound
    );
    let mut no_keyring = configured(&conf, "client.admin");
    no_keyring.keyring(Path::new("/nonexistent/keyring")).unwrap();
    assert_eq!(no_keyring.connect().unwrap_err().kind(), ErrorKind::NotFound);
    let directory = tempfile::tempdir().unwrap();
    let keyring = directory.path().join("keyring");
    // A key in the right form that the cluster never gave out.
    std::fs::write(&keyring, "[client.admin]\n\tkey = AQBGr3tnAAAAABAAHMA6qRvkJ3Ag3Nf9y7sUkQ==\n").unwrap();
    let mut wrong_key = configured(&conf, "client.admin");
    wrong_key.keyring(&keyring).unwrap();
    assert_eq!(wrong_key.connect().unwrap_err().kind(), ErrorKind::Permission);
    // A monitor that takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut hung = configured(&conf, "client.admin");
    hung.mon_host(&format!("v1:{}", silent.local_addr().unwrap())).unwrap();
    let begun = Instant::now();
    assert_eq!(hung.connect().unwrap_err().kind(), ErrorKind::TimedOut);
    let waited = begun.elapsed();
    assert!(waited >= Duration::from_secs(3) && waited < Duration::from_secs(9), "{waited:?}");
}

#[test]
fn a_user_with_daily_capabilities() {
    let Some(test) = TestPool::new() else { return };
    let conf = conf("DROVER_TEST_CEPH_CONF").unwrap();
    drop(test.create("a", 1 << 20));
    let pool = &test.name;
    let add = format!(
        r#"{{"prefix":"auth get-or-create","entity":"client.daily-{pool}","format":"plain",
            "caps":["mon","profile rbd","osd","profile rbd pool={pool}","mgr","profile rbd pool={pool}"]}}"#
    );
    let directory = tempfile::tempdir().unwrap();
    let keyring = directory.path().join("keyring");
    std::fs::write(&keyring, command(&test.pool.cluster(), &add)).unwrap();
    let mut configuration = configured(&conf, &format!("client.daily-{pool}"));
    configuration.keyring(&keyring).unwrap();
    let cluster = configuration.connect().unwrap();
    cluster.check().unwrap();
    let daily = cluster.pool(pool).unwrap();
    assert_eq!(daily.images().unwrap().len(), 1);
    daily.open(ImageRef::Name("a"), Access::ReadWrite).unwrap().write(0, b"x").unwrap();
    // Without the capability of rbd-mirror the name is not readable: the fsid stands in its place.
    assert_eq!(cluster.site_name().unwrap(), cluster.fsid().unwrap());
    assert_eq!(kind(cluster.set_site_name("other")), ErrorKind::Permission);
    command(&test.pool.cluster(), &format!(r#"{{"prefix":"auth rm","entity":"client.daily-{pool}"}}"#));
}

#[test]
fn a_blocklisted_client_is_out() {
    let Some(test) = TestPool::new() else { return };
    let image = test.create("a", 1 << 20);
    let other = test.by_another_client();
    let theirs = other.open(ImageRef::Name("a"), Access::ReadWrite).unwrap();
    theirs.write(0, b"before").unwrap();
    let address = other.cluster().address().unwrap();
    let ours = test.pool.cluster();
    ours.blocklist_add(&address, Duration::from_secs(600)).unwrap();
    // The OSD hears of it from the monitors a moment later, or from whoever knows the map.
    let mut seen = [0; 6];
    image.read(0, &mut seen).unwrap();
    assert_eq!(&seen, b"before");
    assert_eq!(kind(theirs.write(0, b"after!")), ErrorKind::Blocklisted);
    assert!(command(&ours, r#"{"prefix":"osd blocklist ls"}"#).contains(&address));
    command(&ours, &format!(r#"{{"prefix":"osd blocklist","blocklistop":"rm","addr":"{address}"}}"#));
    assert_eq!(kind(ours.blocklist_add("not an address", Duration::ZERO)), ErrorKind::Invalid);
}
