//! Block devices as content: which device it is whatever its name, how big, and whether somebody has written to it.
//!
//! A device has no times of its own that could tell of a write. The kernel counts what is written to it instead
//! (Documentation/admin-guide/iostats.rst, Documentation/ABI/stable/sysfs-block), so that `as_content` shows the counters in the place
//! of a file's change time: equal ones, read after everything in the device's page cache was written, mean that nothing was written
//! or discarded in between.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use rustix::fs::SeekFrom;

use crate::{FileId, Kind, Stat, Time, stat::DeviceKind};

/// What tells the device from every other one and survives a reboot: WWN, UUID or serial number, as the driver has it in
/// sysfs; a partition's by its disk, its number and its start. `None` where the driver has none. `InvalidInput` for what
/// is no block device.
pub fn identity(device: &File) -> io::Result<Option<String>> {
    let stat = crate::stat::stat_at(std::os::fd::AsFd::as_fd(device), b"")?;
    match stat.kind {
        Kind::Device(DeviceKind::Block) => identity_of(&Sysfs::of(stat.rdev)?),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a block device")),
    }
}

/// A device's directory in sysfs, and that of the disk that it is a partition of.
struct Sysfs {
    own: PathBuf,
    disk: PathBuf,
    partition: Option<String>,
}

impl Sysfs {
    fn of((major, minor): (u32, u32)) -> io::Result<Self> {
        let own = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}"))?;
        let partition = attribute(&own, "partition");
        let disk = match (&partition, own.parent()) {
            (Some(_), Some(disk)) => disk.to_owned(),
            _ => own.clone(),
        };
        Ok(Self { own, disk, partition })
    }
}

fn attribute(dir: &Path, name: &str) -> Option<String> {
    let text = fs::read_to_string(dir.join(name)).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

fn identity_of(sysfs: &Sysfs) -> io::Result<Option<String>> {
    // Device mapper, MD, NVMe, SCSI, virtio, and the file behind a loop device.
    const NAMES: [&str; 7] =
        ["dm/uuid", "md/uuid", "wwid", "device/wwid", "serial", "device/serial", "loop/backing_file"];
    let named = NAMES.iter().find_map(|name| Some(format!("{name} {}", attribute(&sysfs.disk, name)?)));
    let named = named.map(|named| match attribute(&sysfs.disk, "loop/offset").filter(|offset| offset != "0") {
        Some(offset) => format!("{named} from byte {offset}"),
        None => named,
    });
    // A mapped image of Ceph.
    let image = || {
        let of = |name: &str| attribute(&sysfs.disk.join("device"), name);
        let snapshot = of("current_snap").unwrap_or_default();
        Some(format!("rbd {} {} {} {snapshot}", of("cluster_fsid")?, of("pool_id")?, of("image_id")?))
    };
    let Some(disk) = named.or_else(image) else { return Ok(None) };
    Ok(Some(match &sysfs.partition {
        None => disk,
        Some(number) => {
            let start = attribute(&sysfs.own, "start").unwrap_or_default();
            format!("{disk} partition {number} at sector {start}")
        }
    }))
}

/// The device as if it were a regular file, `raw` being what `statx(2)` says of its node. Writes the device's dirty pages.
pub(crate) fn as_content(device: &File, raw: Stat) -> io::Result<Stat> {
    crate::file::write_back(device)?;
    let size = rustix::fs::seek(device, SeekFrom::End(0))?;
    let sysfs = Sysfs::of(raw.rdev)?;
    Ok(Stat {
        kind: Kind::File,
        mode: 0o600,
        uid: 0,
        gid: 0,
        size,
        blocks: size / SECTOR_BYTES,
        nlink: 1,
        id: id_of(&identity_of(&sysfs)?.unwrap_or_else(|| format!("{}:{}", raw.rdev.0, raw.rdev.1))),
        mtime: Time::default(),
        ctime: written(&sysfs.disk),
        attributes: 0,
        ..raw
    })
}

pub(crate) fn id_of(identity: &str) -> FileId {
    FileId { ino: fnv(identity.bytes()), born: Time::default() }
}

/// In the place of a change time where the kernel does not count, or may not see who writes: it says nothing.
pub const UNCOUNTED: Time = Time { secs: i64::MIN, nanos: 0 };

/// Of the kernel's counters, whatever the device's own are.
const SECTOR_BYTES: u64 = 512;

/// Whether others may write what this host's counters don't see: a disk on a network, or one with several paths.
fn is_shared(disk: &Path) -> bool {
    // Ceph, nbd and drbd by the kernel's names for them; iSCSI, Fibre Channel and NVMe over fabrics by their transports.
    const PLACES: [&str; 6] = ["/rbd", "/nbd", "/drbd", "/session", "/rport-", "/nvme-fabrics"];
    let place = disk.to_string_lossy();
    let is_multipath = attribute(disk, "dm/uuid").is_some_and(|uuid| uuid.starts_with("mpath-"));
    let slaves = fs::read_dir(disk.join("slaves")).into_iter().flatten().flatten();
    is_multipath
        || PLACES.iter().any(|part| place.contains(part))
        || slaves.filter_map(|slave| fs::canonicalize(slave.path()).ok()).any(|slave| is_shared(&slave))
}

/// The disk's counters of what was written and discarded, in the shape of a time that lies long ago. They begin anew with
/// each boot and each time that the disk is attached.
fn written(disk: &Path) -> Time {
    let counted = attribute(disk, "queue/iostats").is_none_or(|on| on != "0") && !is_shared(disk);
    let stat = attribute(disk, "stat").filter(|_| counted);
    let fields: Option<Vec<u64>> =
        stat.and_then(|stat| stat.split_whitespace().map(|field| field.parse().ok()).collect());
    // Sectors written, requests and sectors discarded. A flush counts as a request to write, of no sector.
    let counters = fields.and_then(|fields| {
        let of = |at: usize| fields.get(at).copied();
        Some([of(6)?, of(11).unwrap_or(0), of(13).unwrap_or(0)])
    });
    let Some([written, discards, discarded]) = counters else { return UNCOUNTED };
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let attached = attribute(disk, "diskseq").unwrap_or_default();
    let session = fnv(format!("{boot} {attached} {discards}").bytes());
    let sectors = i64::try_from(written.saturating_add(discarded)).unwrap_or(i64::MAX / 2);
    Time { secs: -sectors - 1, nanos: (session % 1_000_000_000) as u32 }
}

/// What counters come to when so many bytes are written past the page cache and nothing else is; `None` where that can't be told.
pub fn after_writing(counted: Time, bytes: u64) -> Option<Time> {
    let sectors = i64::try_from(bytes / SECTOR_BYTES).ok().filter(|_| bytes.is_multiple_of(SECTOR_BYTES))?;
    (counted != UNCOUNTED).then(|| Time { secs: counted.secs - sectors, ..counted })
}

/// FNV-1a: the same in every release, because volumes remember it.
fn fnv(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
