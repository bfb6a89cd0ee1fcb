//! Groups and their snapshots.

use drover_librbd::{Access, ErrorKind, GroupSnapshotState, ImageRef, Quiesce, SnapshotNamespace};

use crate::site::{MIB, TestPool, kind};

#[test]
fn a_group_from_its_making_to_its_end() {
    let Some(test) = TestPool::new() else { return };
    let pool = &test.pool;
    let (a, b) = (test.create("a", MIB), test.create("b", MIB));
    assert_eq!(pool.groups().unwrap(), [""; 0]);
    pool.group_create("vm").unwrap();
    assert_eq!(kind(pool.group_create("vm")), ErrorKind::Exists);
    pool.group_create("other").unwrap();
    assert_eq!(pool.groups().unwrap(), ["other", "vm"]);
    assert_eq!(pool.group_images("no-such-group").unwrap(), []);
    assert_eq!(kind(pool.group_image_add("no-such-group", pool, "a")), ErrorKind::NotFound);
    assert_eq!(kind(pool.group_image_add("vm", pool, "no-such-image")), ErrorKind::NotFound);
    pool.group_image_add("vm", pool, "a").unwrap();
    pool.group_image_add("vm", pool, "a").unwrap();
    assert_eq!(kind(pool.group_image_add("other", pool, "a")), ErrorKind::Exists);
    pool.group_image_add("vm", pool, "b").unwrap();
    let mut images = pool.group_images("vm").unwrap();
    images.sort_by(|one, other| one.name.cmp(&other.name));
    let names: Vec<_> = images.iter().map(|image| (image.name.as_str(), image.pool, image.is_attached)).collect();
    assert_eq!(names, [("a", pool.id(), true), ("b", pool.id(), true)]);
    pool.group_snapshot_create("vm", "s1", Quiesce::Skip).unwrap();
    assert_eq!(kind(pool.group_snapshot_create("vm", "s1", Quiesce::Skip)), ErrorKind::Exists);
    pool.group_snapshot_create("vm", "s2", Quiesce::Try).unwrap();
    let other = test.by_another_client();
    let theirs = other.open(ImageRef::Name("a"), Access::ReadWrite).unwrap();
    theirs.acquire_lock().unwrap();
    assert_eq!(kind(pool.group_snapshot_create("vm", "s3", Quiesce::Skip)), ErrorKind::ReadOnly);
    theirs.close().unwrap();
    let snapshots = pool.group_snapshots("vm").unwrap();
    assert_eq!(snapshots.len(), 2);
    assert!(snapshots.iter().all(|snapshot| snapshot.state == GroupSnapshotState::Complete));
    for image in [&a, &b] {
        let list = image.snapshots().unwrap();
        assert_eq!((list.len(), list[0].namespace), (2, SnapshotNamespace::Group));
        let details = image.group_namespace(list[0].id).unwrap();
        assert_eq!((details.pool_id, details.group.as_str(), details.snapshot.as_str()), (pool.id(), "vm", "s1"));
    }
    pool.group_snapshot_remove("vm", "s1").unwrap();
    assert_eq!(kind(pool.group_snapshot_remove("vm", "s1")), ErrorKind::NotFound);
    pool.group_image_remove("vm", pool, "b").unwrap();
    // It keeps the group's snapshot.
    assert_eq!(b.snapshots().unwrap().len(), 1);
    pool.group_remove("vm").unwrap();
    pool.group_remove("other").unwrap();
    assert_eq!(pool.groups().unwrap(), [""; 0]);
}
