//! Keys of the tables: their order is what a list is in.

use drover_engine::id::VolumeId;
use uuid::Uuid;

use super::Record;

/// No name has it, so that no name is the beginning of another one's key.
const END: u8 = 0;

pub(super) fn of(volume: VolumeId, namespace: &str, name: &str) -> Vec<u8> {
    [volume.as_bytes().as_slice(), namespace.as_bytes(), &[END], name.as_bytes()].concat()
}

pub(super) fn of_record(record: &Record) -> Vec<u8> {
    of(record.volume, &record.namespace, &record.name)
}

/// In the order of the number also below 0.
fn time(secs: i64) -> [u8; 8] {
    (secs.cast_unsigned() ^ (1 << 63)).to_be_bytes()
}

/// `volume, time`, then the key; or `time`, then the key.
pub(super) fn by_time(volume: Option<VolumeId>, secs: i64, key: &[u8]) -> Vec<u8> {
    let volume = volume.as_ref().map_or([].as_slice(), |volume| volume.as_bytes());
    [volume, time(secs).as_slice(), key].concat()
}

/// `namespace, name`, then the key.
pub(super) fn by_name(namespace: &str, name: Option<&str>, key: &[u8]) -> Vec<u8> {
    let name = name.map_or_else(Vec::new, |name| [name.as_bytes(), &[END]].concat());
    [namespace.as_bytes(), &[END], &name, key].concat()
}

pub(super) fn by_change(volume: VolumeId, number: u64) -> Vec<u8> {
    [volume.as_bytes().as_slice(), &number.to_be_bytes()].concat()
}

/// The number of a key of changes.
pub(super) fn number(change: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(change.get(16..)?.try_into().ok()?))
}

/// What comes first after everything that begins with `prefix`. `None`: nothing does.
pub(super) fn after(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

/// A peer's watermark of a volume.
pub(super) fn of_peer(peer: &str, volume: VolumeId) -> Vec<u8> {
    [volume.as_bytes().as_slice(), peer.as_bytes()].concat()
}

/// Of one life of a store.
pub(super) fn incarnation() -> String {
    Uuid::new_v4().to_string()
}
