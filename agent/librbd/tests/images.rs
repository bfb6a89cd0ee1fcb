//! Images of a pool: made, opened, copied, cloned, removed.

use std::time::Duration;

use drover_librbd::{Access, Error, ErrorKind, Features, Force, ImageOptions, ImageRef, Quiesce, Shrink};

use crate::site::{MIB, TestPool, kind};

#[test]
fn an_image_from_its_making_to_its_end() {
    let Some(test) = TestPool::new() else { return };
    let pool = &test.pool;
    let features = Features::LAYERING | Features::EXCLUSIVE_LOCK;
    let options = ImageOptions { features: Some(features), order: Some(20), ..ImageOptions::default() };
    pool.create("a", 10 * MIB, &options).unwrap();
    assert_eq!(kind(pool.create("a", MIB, &options)), ErrorKind::Exists);
    assert_eq!(kind(pool.open(ImageRef::Name("b"), Access::ReadOnly)), ErrorKind::NotFound);
    assert_eq!(kind(pool.open(ImageRef::Id("b"), Access::ReadWrite)), ErrorKind::NotFound);
    let entry = pool.images().unwrap().pop().unwrap();
    let image = pool.open(ImageRef::Id(&entry.id), Access::ReadWrite).unwrap();
    assert_eq!((image.id().unwrap(), image.name().unwrap()), (entry.id, "a".to_owned()));
    let info = image.stat().unwrap();
    assert_eq!((info.size_bytes, info.object_bytes, info.objects, info.order), (10 * MIB, MIB, 10, 20));
    assert_eq!(image.features().unwrap(), features);
    assert_eq!(image.parent().unwrap(), None);
    assert_eq!(kind(image.flatten(&mut |_, _| ())), ErrorKind::Invalid);
    assert_eq!(kind(image.resize(MIB, Shrink::Refused, &mut |_, _| ())), ErrorKind::Invalid);
    image.resize(4 * MIB, Shrink::Allowed, &mut |_, _| ()).unwrap();
    assert_eq!(image.size_bytes().unwrap(), 4 * MIB);
    pool.rename("a", "b").unwrap();
    assert_eq!(kind(pool.rename("a", "c")), ErrorKind::NotFound);
    assert_eq!(kind(test.by_another_client().remove("b", &mut |_, _| ())), ErrorKind::Busy);
    image.create_snapshot("s", Quiesce::Skip).unwrap();
    image.close().unwrap();
    assert_eq!(kind(pool.remove("b", &mut |_, _| ())), ErrorKind::NotEmpty);
    test.open("b").remove_snapshot("s").unwrap();
    let mut steps = Vec::new();
    pool.remove("b", &mut |done, total| steps.push((done, total))).unwrap();
    assert!(!steps.is_empty());
    assert_eq!(kind(pool.remove("b", &mut |_, _| ())), ErrorKind::NotFound);
    assert_eq!(pool.images().unwrap(), []);
}

#[test]
fn more_images_than_the_first_buffer_holds() {
    let Some(test) = TestPool::new() else { return };
    let mut expected: Vec<_> = (0..300).map(|index| format!("image-{index:03}")).collect();
    for name in &expected {
        test.pool.create(name, MIB, &ImageOptions::default()).unwrap();
    }
    let mut names: Vec<_> = test.pool.images().unwrap().into_iter().map(|entry| entry.name).collect();
    names.sort();
    assert_eq!(names, expected);
    assert_eq!(test.pool.with_namespace("no-such-namespace").unwrap().images().unwrap(), []);
    // The longest name that Ceph takes is beyond the first buffer of `name`.
    expected.push("n".repeat(200));
    test.pool.create(&expected[300], MIB, &ImageOptions::default()).unwrap();
    assert_eq!(test.open(&expected[300]).name().unwrap(), expected[300]);
}

#[test]
fn clones_and_copies() {
    let Some(test) = TestPool::new() else { return };
    let image = test.create("parent", 8 * MIB);
    image.write(MIB, b"old").unwrap();
    image.create_snapshot("s", Quiesce::Skip).unwrap();
    image.write(MIB, b"new").unwrap();
    let format_1 = ImageOptions { clone_format: Some(1), ..ImageOptions::default() };
    let unprotected = test.pool.clone_snapshot("parent", "s", &test.pool, "child", &format_1);
    assert_eq!(kind(unprotected), ErrorKind::Invalid);
    let format_2 = ImageOptions { clone_format: Some(2), ..ImageOptions::default() };
    let clone = |snapshot: &str| test.pool.clone_snapshot("parent", snapshot, &test.pool, "child", &format_2);
    assert_eq!(kind(clone("no-such-snapshot")), ErrorKind::NotFound);
    clone("s").unwrap();
    assert_eq!(kind(clone("s")), ErrorKind::Exists);
    let child = test.open("child");
    let parent = child.parent().unwrap().unwrap();
    assert_eq!(
        (parent.pool_id, parent.pool.as_str(), parent.image.as_str()),
        (test.pool.id(), test.name.as_str(), "parent")
    );
    assert_eq!((parent.image_id, parent.snapshot.as_str(), parent.is_in_trash), (image.id().unwrap(), "s", false));
    assert_eq!(parent.snapshot_id, image.snapshots().unwrap()[0].id);
    let mut steps = 0;
    child.flatten(&mut |_, _| steps += 1).unwrap();
    assert!(steps > 0);
    assert_eq!(child.parent().unwrap(), None);
    assert_eq!(read(&child, MIB), *b"old");
    // A copy of a snapshot, and one of the image.
    let mut source = test.open("parent");
    source.copy_to(&test.pool, "now", &ImageOptions::default(), &mut |_, _| ()).unwrap();
    source.set_snapshot(Some("s")).unwrap();
    source.copy_to(&test.pool, "then", &ImageOptions::default(), &mut |_, _| ()).unwrap();
    assert_eq!(kind(source.copy_to(&test.pool, "then", &ImageOptions::default(), &mut |_, _| ())), ErrorKind::Exists);
    assert_eq!((read(&test.open("now"), MIB), read(&test.open("then"), MIB)), (*b"new", *b"old"));
}

fn read(image: &drover_librbd::Image, offset: u64) -> [u8; 3] {
    let mut bytes = [0; 3];
    assert_eq!(image.read(offset, &mut bytes), Ok::<_, Error>(3));
    bytes
}

#[test]
fn the_trash() {
    let Some(test) = TestPool::new() else { return };
    let id = test.create("a", MIB).id().unwrap();
    assert_eq!(kind(test.pool.trash_move("b", Duration::ZERO)), ErrorKind::NotFound);
    let held = test.by_another_client().open(ImageRef::Name("a"), Access::ReadWrite).unwrap();
    held.write(0, b"x").unwrap();
    // Neither that it is open nor that it is written to keeps it; only a lock taken by hand does.
    test.pool.trash_move("a", Duration::ZERO).unwrap();
    held.write(0, b"y").unwrap();
    test.pool.trash_restore(&id, "a").unwrap();
    held.acquire_lock().unwrap();
    assert_eq!(kind(test.pool.trash_move("a", Duration::ZERO)), ErrorKind::Busy);
    drop(held);
    test.pool.trash_move("a", Duration::from_secs(3600)).unwrap();
    let entry = test.pool.trash().unwrap().pop().unwrap();
    assert_eq!((entry.id.as_str(), entry.name.as_str()), (id.as_str(), "a"));
    assert_eq!(entry.source, drover_librbd::TrashSource::User);
    assert_eq!(entry.kept_until.duration_since(entry.deleted).unwrap(), Duration::from_secs(3600));
    assert_eq!(kind(test.pool.trash_remove(&id, Force::No, &mut |_, _| ())), ErrorKind::Permission);
    drop(test.create("a", MIB));
    assert_eq!(kind(test.pool.trash_restore(&id, "a")), ErrorKind::Exists);
    test.pool.trash_restore(&id, "b").unwrap();
    test.pool.trash_move("b", Duration::from_secs(3600)).unwrap();
    test.pool.trash_remove(&id, Force::Yes, &mut |_, _| ()).unwrap();
    assert_eq!(kind(test.pool.trash_remove(&id, Force::Yes, &mut |_, _| ())), ErrorKind::NotFound);
    assert_eq!(test.pool.trash().unwrap(), []);
}

#[test]
fn metadata() {
    let Some(test) = TestPool::new() else { return };
    let image = test.create("a", MIB);
    assert_eq!(image.metadata("k"), Ok(None));
    assert_eq!(kind(image.remove_metadata("k")), ErrorKind::NotFound);
    assert!(image.all_metadata().unwrap().is_empty());
    // Beyond the first buffers, and more than one page; an empty value, too.
    let long = "v".repeat(5000);
    for index in 0..300 {
        image.set_metadata(&format!("drover.{index:03}"), if index == 7 { &long } else { "" }).unwrap();
    }
    assert_eq!(image.metadata("drover.007").unwrap().unwrap(), long);
    image.remove_metadata("drover.000").unwrap();
    let all = image.all_metadata().unwrap();
    assert_eq!((all.len(), all["drover.007"].as_str(), all["drover.299"].as_str()), (299, long.as_str(), ""));
    let reader = test.pool.open(ImageRef::Name("a"), Access::ReadOnly).unwrap();
    assert_eq!(kind(reader.set_metadata("k", "v")), ErrorKind::ReadOnly);
}
