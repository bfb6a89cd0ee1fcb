//! Snapshots of an image.

use std::time::{Duration, SystemTime};

use drover_librbd::{Access, ErrorKind, ImageOptions, ImageRef, Quiesce, Shrink, SnapshotNamespace};

use crate::site::{MIB, TestPool, kind};

#[test]
fn snapshots_from_their_making_to_their_end() {
    let Some(test) = TestPool::new() else { return };
    let mut image = test.create("a", 4 * MIB);
    assert_eq!(image.snapshots().unwrap(), []);
    image.write(0, b"1").unwrap();
    image.create_snapshot("one", Quiesce::Require).unwrap();
    assert_eq!(kind(image.create_snapshot("one", Quiesce::Skip)), ErrorKind::Exists);
    image.write(0, b"2").unwrap();
    image.resize(8 * MIB, Shrink::Refused, &mut |_, _| ()).unwrap();
    image.create_snapshot("two", Quiesce::Try).unwrap();
    image.write(0, b"3").unwrap();
    let list = image.snapshots().unwrap();
    let names: Vec<_> = list.iter().map(|snapshot| (snapshot.name.as_str(), snapshot.size_bytes)).collect();
    assert_eq!(names, [("one", 4 * MIB), ("two", 8 * MIB)]);
    assert!(list[0].id < list[1].id && list.iter().all(|snapshot| snapshot.namespace == SnapshotNamespace::User));
    assert!(list[1].created.max(list[0].created) <= SystemTime::now() + Duration::from_secs(5));
    assert!(SystemTime::now().duration_since(list[0].created).unwrap() < Duration::from_secs(60));
    assert_eq!(kind(image.mirror_namespace(list[0].id)), ErrorKind::Invalid);
    assert_eq!(kind(image.group_namespace(list[0].id)), ErrorKind::Invalid);
    assert_eq!(kind(image.mirror_namespace(999_999)), ErrorKind::NotFound);
    let byte = |image: &drover_librbd::Image| {
        let mut byte = [0];
        image.read(0, &mut byte).unwrap();
        byte[0]
    };
    image.set_snapshot(Some("one")).unwrap();
    assert_eq!((byte(&image), image.size_bytes().unwrap()), (b'1', 4 * MIB));
    image.set_snapshot_by_id(list[1].id).unwrap();
    assert_eq!(byte(&image), b'2');
    assert_eq!(kind(image.set_snapshot(Some("three"))), ErrorKind::NotFound);
    assert_eq!(kind(image.set_snapshot_by_id(999_999)), ErrorKind::NotFound);
    image.set_snapshot(None).unwrap();
    assert_eq!(byte(&image), b'3');
    let mut steps = 0;
    image.rollback("one", &mut |_, _| steps += 1).unwrap();
    assert!(steps > 0);
    assert_eq!((byte(&image), image.size_bytes().unwrap()), (b'1', 4 * MIB));
    assert_eq!(kind(image.rollback("three", &mut |_, _| ())), ErrorKind::NotFound);
    image.remove_snapshot_by_id(list[0].id).unwrap();
    assert_eq!(kind(image.remove_snapshot_by_id(list[0].id)), ErrorKind::NotFound);
    image.remove_snapshot("two").unwrap();
    assert_eq!(kind(image.remove_snapshot("two")), ErrorKind::NotFound);
    assert_eq!(image.snapshots().unwrap(), []);
}

#[test]
fn more_snapshots_than_the_first_buffer_holds() {
    let Some(test) = TestPool::new() else { return };
    let image = test.create("a", MIB);
    // 64 is the first buffer: with the entry that ends the list, 63, 64 and 65 snapshots are the edges.
    for count in 1..=66 {
        image.create_snapshot(&format!("s{count}"), Quiesce::Skip).unwrap();
        if count >= 62 {
            assert_eq!(image.snapshots().unwrap().len(), count);
        }
    }
}

#[test]
fn a_removed_snapshot_that_a_clone_needs_is_in_the_trash() {
    let Some(test) = TestPool::new() else { return };
    let image = test.create("a", MIB);
    image.create_snapshot("s", Quiesce::Skip).unwrap();
    let options = ImageOptions { clone_format: Some(2), ..ImageOptions::default() };
    test.pool.clone_snapshot("a", "s", &test.pool, "child", &options).unwrap();
    image.remove_snapshot("s").unwrap();
    let list = image.snapshots().unwrap();
    assert_eq!((list.len(), list[0].namespace), (1, SnapshotNamespace::Trash));
    let child = test.open("child");
    assert_eq!(child.parent().unwrap().unwrap().snapshot_namespace, SnapshotNamespace::Trash);
    child.flatten(&mut |_, _| ()).unwrap();
    // The last clone takes it along; whoever looks next opens the image again.
    assert_eq!(test.open("a").snapshots().unwrap(), []);
}

#[test]
fn what_a_read_only_handle_knows_is_old() {
    let Some(test) = TestPool::new() else { return };
    let image = test.create("a", MIB);
    let reader = test.pool.open(ImageRef::Name("a"), Access::ReadOnly).unwrap();
    let writer = test.by_another_client().open(ImageRef::Name("a"), Access::ReadWrite).unwrap();
    image.create_snapshot("s", Quiesce::Skip).unwrap();
    assert_eq!(writer.snapshots().unwrap().len(), 1);
    assert_eq!(reader.snapshots().unwrap(), []);
    assert_eq!(kind(reader.create_snapshot("t", Quiesce::Skip)), ErrorKind::ReadOnly);
}
