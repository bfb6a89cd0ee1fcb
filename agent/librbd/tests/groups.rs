//! Groups and their snapshots.

use std::ops::ControlFlow;

use drover_librbd::{
    Access, DiffFrom, ErrorKind, GroupSnapshotState, Image, ImageRef, ObjectDetail, Quiesce, SnapshotNamespace,
};

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

#[test]
fn a_groups_snapshot_is_read_compared_with_a_users_and_removed_from_one_image() {
    let Some(test) = TestPool::new() else { return };
    let pool = &test.pool;
    let (a, b) = (test.create("a", 16 * MIB), test.create("b", MIB));
    pool.group_create("vm").unwrap();
    for name in ["a", "b"] {
        pool.group_image_add("vm", pool, name).unwrap();
    }
    let write = |byte: u8, at: u64| a.aio_write(at, vec![byte; 4096]).unwrap().wait().unwrap();
    write(1, 0);
    a.create_snapshot("before", Quiesce::Skip).unwrap();
    write(2, 8 * MIB);
    a.flush().unwrap();
    pool.group_snapshot_create("vm", "cut", Quiesce::Skip).unwrap();
    write(3, 0);
    a.flush().unwrap();
    let of_group = |image: &Image| {
        let list = image.snapshots().unwrap();
        list.into_iter().find(|snapshot| snapshot.namespace == SnapshotNamespace::Group).unwrap().id
    };
    let mut at = pool.open(ImageRef::Name("a"), Access::ReadOnly).unwrap();
    at.set_snapshot_by_id(of_group(&a)).unwrap();
    let read = |offset| at.aio_read(offset, vec![0; 4096]).unwrap().wait().unwrap();
    assert_eq!((read(0), read(8 * MIB)), (vec![1; 4096], vec![2; 4096]));
    let mut offsets = Vec::new();
    let _ = at
        .diff(DiffFrom::Name("before"), (0, 16 * MIB), ObjectDetail::Ranges, &mut |extent| {
            offsets.push(extent.offset);
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(offsets, [8 * MIB]);
    at.close().unwrap();
    a.remove_snapshot_by_id(of_group(&a)).unwrap();
    assert_eq!(a.snapshots().unwrap().len(), 1);
    assert_eq!(b.snapshots().unwrap().len(), 1);
    // The other image has it still.
    assert_eq!(pool.group_snapshots("vm").unwrap().len(), 1);
    pool.group_image_remove("vm", pool, "b").unwrap();
    b.remove_snapshot_by_id(of_group(&b)).unwrap();
    pool.group_snapshot_remove("vm", "cut").unwrap();
    pool.group_remove("vm").unwrap();
    a.remove_snapshot("before").unwrap();
}
