//! Mirroring, as far as it goes without an rbd-mirror daemon.

use std::time::{Duration, UNIX_EPOCH};

use drover_librbd::{
    Access, Condition, ErrorKind, Force, ImageMode, ImageRef, ImageState, MirrorMode, OmapChange, PeerDirection,
    Quiesce, Secret, SnapshotMirrorState, SnapshotNamespace, StatusState,
};

use crate::site::{MIB, TestPool, conf, connect, kind};

#[test]
fn one_site() {
    let Some(test) = TestPool::new() else { return };
    let pool = &test.pool;
    let image = test.create("a", MIB);
    assert_eq!(pool.mirror_mode(), Ok(MirrorMode::Disabled));
    assert_eq!(kind(image.mirror_enable(ImageMode::Snapshot)), ErrorKind::Invalid);
    assert_eq!(kind(pool.peer_bootstrap_create()), ErrorKind::Invalid);
    pool.set_mirror_mode(MirrorMode::Image).unwrap();
    assert_eq!(pool.mirror_mode(), Ok(MirrorMode::Image));
    assert_eq!(pool.mirror_uuid().unwrap().len(), 36);
    assert_eq!(pool.mirrored_images("").unwrap(), []);
    let info = image.mirror_info().unwrap();
    assert_eq!((info.global_id.as_str(), info.state, info.is_primary), ("", ImageState::Disabled, false));
    assert_eq!(kind(image.mirror_promote(Force::No)), ErrorKind::NotFound);
    let mode = image.mirror_mode();
    assert!(mode == Ok(ImageMode::Journal) || kind(mode) == ErrorKind::Invalid, "{mode:?}");
    assert_eq!(kind(image.mirror_resync()), ErrorKind::NotFound);
    image.mirror_disable(Force::No).unwrap();
    assert_eq!(kind(image.mirror_snapshot(Quiesce::Skip)), ErrorKind::Invalid);
    image.mirror_enable(ImageMode::Snapshot).unwrap();
    image.mirror_enable(ImageMode::Snapshot).unwrap();
    assert_eq!(kind(image.mirror_enable(ImageMode::Journal)), ErrorKind::Invalid);
    assert_eq!(image.mirror_mode(), Ok(ImageMode::Snapshot));
    let info = image.mirror_info().unwrap();
    assert_eq!((info.global_id.len(), info.state, info.is_primary), (36, ImageState::Enabled, true));
    let listed = pool.mirrored_images("").unwrap().pop().unwrap();
    assert_eq!((listed.id, listed.global_id), (image.id().unwrap(), info.global_id));
    assert_eq!((listed.mode, listed.state), (ImageMode::Snapshot, ImageState::Enabled));
    assert_eq!(kind(pool.set_mirror_mode(MirrorMode::Disabled)), ErrorKind::Invalid);
    assert_eq!(kind(pool.set_mirror_mode(MirrorMode::Pool)), ErrorKind::Invalid);
    // No peer to send to.
    assert_eq!(kind(image.mirror_snapshot(Quiesce::Skip)), ErrorKind::Invalid);
    assert_eq!(kind(image.mirror_promote(Force::No)), ErrorKind::Invalid);
    assert_eq!(kind(image.mirror_promote(Force::Yes)), ErrorKind::Invalid);
    assert_eq!(kind(image.mirror_resync()), ErrorKind::Invalid);
    let status = image.mirror_status().unwrap();
    assert_eq!((status.name.as_str(), status.info.is_primary), ("a", true));
    assert!(status.sites.iter().all(|site| !site.is_up && site.last_update == UNIX_EPOCH), "{status:?}");
    assert_eq!(pool.mirror_status_summary().unwrap(), [(StatusState::Unknown, 1)]);
    let no_daemon = image.mirror_instance_id().unwrap_err();
    assert!([libc::ENOENT, libc::ESTALE].contains(&no_daemon.errno.raw()), "{no_daemon}");
    image.mirror_demote().unwrap();
    assert_eq!(kind(image.mirror_demote()), ErrorKind::Invalid);
    // A handle that was open may write once more; a new one may not.
    assert_eq!(kind(test.open("a").write(0, b"x")), ErrorKind::ReadOnly);
    assert_eq!(kind(image.mirror_disable(Force::No)), ErrorKind::Invalid);
    assert!(!image.mirror_info().unwrap().is_primary);
    assert_eq!(kind(pool.remove("a", &mut |_, _| ())), ErrorKind::Busy);
    assert_eq!(kind(pool.trash_move("a", Duration::ZERO)), ErrorKind::Invalid);
    image.mirror_promote(Force::No).unwrap();
    image.write(0, b"x").unwrap();
    // The trash ends mirroring of a primary.
    let id = image.id().unwrap();
    pool.trash_move("a", Duration::ZERO).unwrap();
    pool.trash_restore(&id, "a").unwrap();
    assert_eq!(test.open("a").mirror_info().unwrap().state, ImageState::Disabled);
    image.mirror_enable(ImageMode::Snapshot).unwrap();
    image.mirror_disable(Force::No).unwrap();
    assert_eq!(image.mirror_info().unwrap().state, ImageState::Disabled);
    pool.set_mirror_mode(MirrorMode::Disabled).unwrap();
}

#[test]
fn two_sites() {
    let (Some(here), Some(there)) = (conf("DROVER_TEST_CEPH_CONF"), conf("DROVER_TEST_CEPH_PEER_CONF")) else { return };
    let (here, there) = (connect(&here), connect(&there));
    let name = format!("mirror-{}", std::process::id());
    let (ours, theirs) = (TestPool::named(&here, name.clone()), TestPool::named(&there, name));
    here.set_site_name("site-a").unwrap();
    there.set_site_name("site-b").unwrap();
    assert_eq!((here.site_name().unwrap(), there.site_name().unwrap()), ("site-a".to_owned(), "site-b".to_owned()));
    for pool in [&ours.pool, &theirs.pool] {
        pool.set_mirror_mode(MirrorMode::Image).unwrap();
    }
    let token = ours.pool.peer_bootstrap_create().unwrap();
    assert_eq!(format!("{token:?}"), "Secret");
    assert_eq!(kind(ours.pool.peer_bootstrap_import(PeerDirection::Both, &token)), ErrorKind::Invalid);
    assert_eq!(kind(theirs.pool.peer_bootstrap_import(PeerDirection::Send, &token)), ErrorKind::Invalid);
    let damaged = Secret::new("bm90IGpzb24=".to_owned());
    assert_eq!(kind(theirs.pool.peer_bootstrap_import(PeerDirection::Both, &damaged)), ErrorKind::Invalid);
    theirs.pool.peer_bootstrap_import(PeerDirection::Both, &token).unwrap();
    theirs.pool.peer_bootstrap_import(PeerDirection::Both, &token).unwrap();
    for (pool, site) in [(&ours.pool, "site-b"), (&theirs.pool, "site-a")] {
        let peers = pool.peers().unwrap();
        assert_eq!((peers.len(), peers[0].site_name.as_str()), (1, site));
        assert_eq!(
            (peers[0].direction, peers[0].client_name.as_str()),
            (PeerDirection::Both, "client.rbd-mirror-peer")
        );
        let attributes = pool.peer_attributes(&peers[0].uuid).unwrap();
        assert!(attributes.mon_host.contains("127.0.0.1") && !attributes.key.reveal().is_empty());
        assert!(!format!("{attributes:?}").contains(attributes.key.reveal()));
    }
    assert_eq!(kind(ours.pool.peer_attributes("no-such-peer")), ErrorKind::NotFound);
    mirror_snapshots(&ours);
}

fn mirror_snapshots(ours: &TestPool) {
    let image = ours.create("a", MIB);
    image.mirror_enable(ImageMode::Snapshot).unwrap();
    let first = image.mirror_snapshot(Quiesce::Skip).unwrap();
    image.create_snapshot("user", Quiesce::Skip).unwrap();
    let second = image.mirror_snapshot(Quiesce::Skip).unwrap();
    let snapshots = image.snapshots().unwrap();
    let mirrored: Vec<_> =
        snapshots.iter().filter(|snapshot| snapshot.namespace == SnapshotNamespace::Mirror).collect();
    assert!(
        mirrored.iter().any(|snapshot| snapshot.id == first) && mirrored.last().unwrap().id == second,
        "{snapshots:?}"
    );
    let details = image.mirror_namespace(second).unwrap();
    assert_eq!((details.state, details.is_complete), (SnapshotMirrorState::Primary, true));
    assert_eq!(details.peer_uuids, [ours.pool.peers().unwrap()[0].uuid.as_str()]);
    assert_eq!((details.primary_mirror_uuid.as_str(), details.primary_snapshot_id), ("", None));
    assert_eq!(kind(ours.pool.set_mirror_mode(MirrorMode::Disabled)), ErrorKind::Busy);
    let theirs = ours.by_another_client().open(ImageRef::Name("a"), Access::ReadWrite).unwrap();
    theirs.acquire_lock().unwrap();
    assert_eq!(kind(image.mirror_demote()), ErrorKind::ReadOnly);
    image.mirror_snapshot(Quiesce::Skip).unwrap();
    theirs.close().unwrap();
    image.mirror_demote().unwrap();
    let demotion = image.snapshots().unwrap().pop().unwrap();
    assert_eq!(image.mirror_namespace(demotion.id).unwrap().state, SnapshotMirrorState::PrimaryDemoted);
    // What the controller keeps with the pool stays writable.
    let change = OmapChange { set: &[("epoch", b"1")], remove: &[] };
    assert!(ours.pool.object("drover").unwrap().change_omap(Condition::Always, change).is_ok());
}
