//! Bytes in and out, and what lives how long.

use std::collections::VecDeque;

use drover_librbd::{Access, ErrorKind, ImageRef, Quiesce};

use crate::site::{MIB, TestPool, cluster, kind};

#[test]
fn bytes_come_back() {
    let Some(test) = TestPool::new() else { return };
    let image = test.create("a", 4 * MIB);
    image.write(5000, b"written").unwrap();
    image.flush().unwrap();
    let mut bytes = [9; 9];
    assert_eq!(image.read(4999, &mut bytes), Ok(9));
    assert_eq!(&bytes, b"\0written\0");
    // Small and unaligned.
    image.write_zeroes(5001, 3).unwrap();
    image.read(4999, &mut bytes).unwrap();
    assert_eq!(&bytes, b"\0w\0\0\0ten\0");
    // The end of the image.
    assert_eq!(image.read(4 * MIB - 4, &mut bytes), Ok(4));
    assert_eq!(kind(image.write(4 * MIB, b"beyond")), ErrorKind::Invalid);
    assert_eq!(image.write(4 * MIB - 4, b"across").unwrap_err().errno.raw(), libc::EIO);
    assert_eq!(image.aio_write(4 * MIB - 4, b"across".to_vec()).unwrap().wait().unwrap(), b"across");
    assert_eq!(image.size_bytes(), Ok(4 * MIB));
    let reader = test.pool.open(ImageRef::Name("a"), Access::ReadOnly).unwrap();
    assert_eq!(kind(reader.write(0, b"x")), ErrorKind::ReadOnly);
    image.create_snapshot("s", Quiesce::Skip).unwrap();
    let at = test.pool.open_at(ImageRef::Name("a"), "s").unwrap();
    assert_eq!(kind(at.write_zeroes(0, 4096)), ErrorKind::ReadOnly);
    assert_eq!(kind(test.pool.open_at(ImageRef::Name("a"), "t")), ErrorKind::NotFound);
}

#[test]
fn many_operations_at_once() {
    let Some(test) = TestPool::new() else { return };
    const BLOCK: u64 = 256 << 10;
    let image = test.create("a", 32 * MIB);
    let blocks = 32 * MIB / BLOCK;
    let content = |index: u64| vec![u8::try_from(index % 251).unwrap() + 1; BLOCK as usize];
    let mut outstanding = VecDeque::new();
    for index in 0..blocks {
        if outstanding.len() == 16 {
            let done: drover_librbd::Completion = outstanding.pop_front().unwrap();
            assert_eq!(done.wait().unwrap().len(), BLOCK as usize);
        }
        outstanding.push_back(image.aio_write(index * BLOCK, content(index)).unwrap());
    }
    outstanding.into_iter().for_each(|completion| drop(completion.wait().unwrap()));
    assert!(image.aio_write_zeroes(0, BLOCK as usize).unwrap().wait().unwrap().is_empty());
    assert!(image.aio_flush().unwrap().wait().unwrap().is_empty());
    let reads: Vec<_> =
        (0..blocks).map(|index| image.aio_read(index * BLOCK, vec![0; BLOCK as usize]).unwrap()).collect();
    // On another thread, and out of order.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for (index, read) in reads.into_iter().enumerate().rev() {
                let expected = if index == 0 { vec![0; BLOCK as usize] } else { content(index as u64) };
                assert!(read.wait().unwrap() == expected, "block {index}");
            }
        });
    });
    let short = image.aio_read(32 * MIB - 10, vec![0; 100]).unwrap();
    while !short.is_complete() {
        std::thread::yield_now();
    }
    assert_eq!(short.wait().unwrap().len(), 10);
    assert_eq!(kind(image.aio_write(32 * MIB, vec![1]).unwrap().wait()), ErrorKind::Invalid);
}

#[test]
fn a_completion_that_is_dropped_early_waits() {
    let Some(test) = TestPool::new() else { return };
    let image = test.create("a", 64 * MIB);
    for round in 0..50 {
        drop(image.aio_write(round * MIB, vec![7; MIB as usize]).unwrap());
        drop(image.aio_read(round * MIB, vec![0; MIB as usize]).unwrap());
    }
    // Dropped is done.
    let mut last = [0];
    image.read(50 * MIB - 1, &mut last).unwrap();
    assert_eq!(last, [7]);
    // The image stays open for what is on its way.
    let write = image.aio_write(0, vec![8; MIB as usize]).unwrap();
    assert_eq!(kind(image.close()), ErrorKind::Busy);
    write.wait().unwrap();
    test.open("a").read(0, &mut last).unwrap();
    assert_eq!(last, [8]);
}

#[test]
fn what_is_held_stays_open() {
    let Some(test) = TestPool::new() else { return };
    drop(test.create("a", MIB));
    let connection = cluster().unwrap();
    let pool = connection.pool(&test.name).unwrap();
    let object = pool.object("o").unwrap();
    let image = pool.open(ImageRef::Name("a"), Access::ReadWrite).unwrap();
    drop(pool);
    drop(connection);
    image.write(0, b"x").unwrap();
    let write = image.aio_write(0, b"y".to_vec()).unwrap();
    drop(image);
    assert_eq!(write.wait().unwrap(), b"y");
    assert_eq!(kind(object.omap()), ErrorKind::NotFound);
}
