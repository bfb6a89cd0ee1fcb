//! What a diff says, and that a collector can end it.

use std::{
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
};

use drover_librbd::{Ceph, DiffFrom, ErrorKind, Extent, Image, ImageOptions, ObjectDetail, Quiesce};

use crate::site::{MIB, TestPool, kind};

fn diff(image: &Image, from: DiffFrom<'_>, detail: ObjectDetail) -> Vec<Extent> {
    let mut extents = Vec::new();
    let mut collect = |extent| {
        extents.push(extent);
        ControlFlow::Continue(())
    };
    let whole = (0, image.size_bytes().unwrap());
    assert_eq!(image.diff(from, whole, detail, &mut collect), Ok(ControlFlow::Continue(())));
    extents
}

fn covers(extents: &[Extent], offset: u64, exists: bool) -> bool {
    extents
        .iter()
        .any(|extent| extent.offset <= offset && offset < extent.offset + extent.length && extent.exists == exists)
}

#[test]
fn changes_between_snapshots() {
    let Some(test) = TestPool::new() else { return };
    let mut image = test.create("a", 32 * MIB);
    image.write(0, &[1; 4096]).unwrap();
    image.write(20 * MIB, &[1; 4096]).unwrap();
    image.create_snapshot("one", Quiesce::Skip).unwrap();
    image.write(9 * MIB, &[2; 4096]).unwrap();
    image.write_zeroes(20 * MIB, 4 * MIB as usize).unwrap();
    image.create_snapshot("two", Quiesce::Skip).unwrap();
    image.write(30 * MIB, &[3; 4096]).unwrap();
    // What is written after the snapshot that is set is not seen.
    image.set_snapshot(Some("two")).unwrap();
    let all = diff(&image, DiffFrom::Nothing, ObjectDetail::Ranges);
    assert!(covers(&all, 0, true) && covers(&all, 9 * MIB, true) && !covers(&all, 30 * MIB, true), "{all:?}");
    let changed = diff(&image, DiffFrom::Name("one"), ObjectDetail::Ranges);
    assert!(covers(&changed, 9 * MIB, true) && covers(&changed, 20 * MIB, false), "{changed:?}");
    assert!(!covers(&changed, 0, true) && !covers(&changed, 30 * MIB, true), "{changed:?}");
    assert!(changed.is_sorted_by_key(|extent| extent.offset));
    let objects = diff(&image, DiffFrom::Name("one"), ObjectDetail::Whole);
    assert!(objects.contains(&Extent { offset: 8 * MIB, length: 4 * MIB, exists: true }), "{objects:?}");
    let refused = |from| kind(image.diff(from, (0, MIB), ObjectDetail::Ranges, &mut |_| ControlFlow::Continue(())));
    assert_eq!(refused(DiffFrom::Name("three")), ErrorKind::NotFound);
    let mut head = test.open("a");
    head.set_snapshot(Some("one")).unwrap();
    let newer = head.diff(DiffFrom::Name("two"), (0, MIB), ObjectDetail::Ranges, &mut |_| ControlFlow::Continue(()));
    assert_eq!(kind(newer), ErrorKind::Invalid);
    by_id(&image, &changed);
}

fn by_id(image: &Image, by_name: &[Extent]) {
    let id = image.snapshots().unwrap()[0].id;
    if Ceph::load().unwrap().can_diff_from_id() {
        assert_eq!(diff(image, DiffFrom::Id(id), ObjectDetail::Ranges), by_name);
        assert!(!diff(image, DiffFrom::Id(id), ObjectDetail::Whole).is_empty());
    } else {
        println!("rbd_diff_iterate3 is newer than this librbd: only its refusal was tested");
        let refused = image.diff(DiffFrom::Id(id), (0, MIB), ObjectDetail::Ranges, &mut |_| ControlFlow::Continue(()));
        assert_eq!(refused.unwrap_err().errno.raw(), libc::ENOSYS);
    }
}

#[test]
fn a_clone_is_told_with_its_parent() {
    let Some(test) = TestPool::new() else { return };
    let image = test.create("a", 8 * MIB);
    image.write(5 * MIB, &[1; 4096]).unwrap();
    image.create_snapshot("s", Quiesce::Skip).unwrap();
    let options = ImageOptions { clone_format: Some(2), ..ImageOptions::default() };
    test.pool.clone_snapshot("a", "s", &test.pool, "child", &options).unwrap();
    let extents = diff(&test.open("child"), DiffFrom::Nothing, ObjectDetail::Ranges);
    assert!(covers(&extents, 5 * MIB, true), "{extents:?}");
}

#[test]
fn a_collector_can_end_it_and_can_panic() {
    let Some(test) = TestPool::new() else { return };
    let image = test.create("a", 256 * MIB);
    for index in 0..64 {
        image.write(index * 4 * MIB, &[1; 4096]).unwrap();
    }
    for detail in [ObjectDetail::Ranges, ObjectDetail::Whole] {
        let whole = (0, 256 * MIB);
        let mut seen = 0;
        let stopped = image.diff(DiffFrom::Nothing, whole, detail, &mut |_| {
            seen += 1;
            if seen == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert_eq!((stopped, seen), (Ok(ControlFlow::Break(())), 3));
        let mut seen = 0;
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            image.diff(DiffFrom::Nothing, whole, detail, &mut |_| {
                seen += 1;
                assert!(seen < 5, "planted");
                ControlFlow::Continue(())
            })
        }));
        assert_eq!((panicked.is_err(), seen), (true, 5));
        // The handle is as good as before.
        assert_eq!(diff(&image, DiffFrom::Nothing, detail).len(), 64);
    }
    let resized = catch_unwind(AssertUnwindSafe(|| {
        image.resize(8 * MIB, drover_librbd::Shrink::Allowed, &mut |_, _| panic!("planted"))
    }));
    assert!(resized.is_err());
    assert_eq!(image.size_bytes().unwrap(), 8 * MIB);
}
