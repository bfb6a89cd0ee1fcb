//! Who uses an image, and how they are kept out.

use drover_librbd::{Access, ErrorKind, Features, ImageOptions, ImageRef};

use crate::site::{MIB, TestPool, kind};

#[test]
fn watchers_are_told() {
    let Some(test) = TestPool::new() else { return };
    let image = test.create("a", MIB);
    let other = test.by_another_client();
    let theirs = other.open(ImageRef::Name("a"), Access::ReadWrite).unwrap();
    let _unseen = other.open(ImageRef::Name("a"), Access::ReadOnly).unwrap();
    let watchers = image.watchers().unwrap();
    let cluster = other.cluster();
    let found = watchers.iter().find(|watcher| watcher.address == cluster.address().unwrap()).unwrap();
    assert_eq!(found.id.unsigned_abs(), cluster.instance_id());
    assert_eq!(watchers.len(), 2);
    theirs.close().unwrap();
    assert_eq!(image.watchers().unwrap().len(), 1);
}

#[test]
fn the_lock_goes_to_who_writes_and_can_be_broken() {
    let Some(test) = TestPool::new() else { return };
    let image = test.create("a", MIB);
    assert_eq!(image.lock_owners().unwrap(), []);
    let nobody = drover_librbd::LockOwner { address: "127.0.0.1:0/1".to_owned() };
    assert_eq!(kind(image.break_lock(&nobody)), ErrorKind::NotFound);
    let other = test.by_another_client();
    let theirs = other.open(ImageRef::Name("a"), Access::ReadWrite).unwrap();
    theirs.write(0, b"theirs").unwrap();
    assert!(theirs.is_lock_owner().unwrap() && !image.is_lock_owner().unwrap());
    let owners = image.lock_owners().unwrap();
    assert_eq!(
        owners.iter().map(|owner| owner.address.clone()).collect::<Vec<_>>(),
        [other.cluster().address().unwrap()]
    );
    image.break_lock(&owners[0]).unwrap();
    assert_eq!(kind(theirs.write(0, b"again!")), ErrorKind::Blocklisted);
    image.write(0, b"ours").unwrap();
    assert_eq!(kind(image.break_lock(&owners[0])), ErrorKind::Busy);
}

#[test]
fn a_lock_taken_by_hand_makes_others_fail() {
    let Some(test) = TestPool::new() else { return };
    let image = test.create("a", MIB);
    let theirs = test.by_another_client().open(ImageRef::Name("a"), Access::ReadWrite).unwrap();
    theirs.acquire_lock().unwrap();
    assert!(theirs.is_lock_owner().unwrap());
    assert_eq!(kind(image.write(0, b"ours")), ErrorKind::ReadOnly);
    // The owner makes the snapshot.
    image.create_snapshot("s", drover_librbd::Quiesce::Skip).unwrap();
    let refused = image.acquire_lock().unwrap_err();
    assert!([ErrorKind::Busy, ErrorKind::ReadOnly].contains(&refused.kind()), "{refused}");
    theirs.release_lock().unwrap();
    // Who has asked by hand, in vain or not, does not get it by writing any more.
    assert_eq!(kind(image.write(0, b"ours")), ErrorKind::ReadOnly);
    assert_eq!(kind(theirs.write(0, b"theirs")), ErrorKind::ReadOnly);
    test.open("a").write(0, b"ours").unwrap();
    image.acquire_lock().unwrap();
    image.write(0, b"ours").unwrap();
}

#[test]
fn an_image_without_the_feature_has_no_owner() {
    let Some(test) = TestPool::new() else { return };
    let options = ImageOptions { features: Some(Features::LAYERING), ..ImageOptions::default() };
    test.pool.create("a", MIB, &options).unwrap();
    assert_eq!(kind(test.open("a").lock_owners()), ErrorKind::Invalid);
}
