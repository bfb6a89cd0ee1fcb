//! Content that moved inside a file: rsync's rolling match of a range against a window of the base.
//!
//! Only found where leaves at the same place differ, because rolling over content that is nowhere in the window is slow
//! (0.1 GB/s). Once a shift is known the sink offers its leaves from there, which costs no signature.

use std::ops::Range;

use fast_rsync::{Signature, SignatureOptions, diff};

use super::Copy;

/// Grain of a signature: 12 bytes for each block.
const BLOCK_BYTES: u32 = 2048;
/// Of MD4; the body's digest decides in the end.
const HASH_BYTES: u32 = 8;
/// What the sink looks at before and after the place where it expects a segment.
pub const WINDOW_MARGIN_BYTES: u64 = 1 << 20;
/// Of a signature of a window of a segment with both margins: header and 12 bytes a block.
pub const SIGNATURE_BYTES_MAX: usize =
    12 + (super::SEGMENT_BYTES + 2 * WINDOW_MARGIN_BYTES as usize) / BLOCK_BYTES as usize * 12 + 12;

pub fn signature(window: &[u8]) -> Vec<u8> {
    let options = SignatureOptions { block_size: BLOCK_BYTES, crypto_hash_size: HASH_BYTES };
    Signature::calculate(window, options).into_serialized()
}

/// What of `data` is found in the window, which lies at `window_offset` of the base. `None` for a signature that is not
/// one of `signature`'s.
pub fn copies(signature: &[u8], window_offset: u64, data: &[u8]) -> Option<Vec<Copy>> {
    let parameters = [BLOCK_BYTES.to_be_bytes(), HASH_BYTES.to_be_bytes()].concat();
    if signature.len() > SIGNATURE_BYTES_MAX || signature.get(4..12)? != parameters {
        return None;
    }
    let signature = Signature::deserialize(signature.to_vec()).ok()?;
    let mut delta = Vec::new();
    diff(&signature.index(), data, &mut delta).ok()?;
    parse(&delta, window_offset)
}

/// Reads librsync's delta format: a magic number, then literals and copies with big-endian lengths.
fn parse(delta: &[u8], window_offset: u64) -> Option<Vec<Copy>> {
    let mut rest = delta.get(4..)?;
    let mut copies = Vec::new();
    let mut at = 0usize;
    loop {
        let command = take(&mut rest, 1)?[0];
        match command {
            0x00 => return Some(copies),
            0x01..=0x44 => {
                let len = match command {
                    0x41.. => number(&mut rest, 1 << (command - 0x41))?,
                    short => short.into(),
                };
                let len = usize::try_from(len).ok()?;
                take(&mut rest, len)?;
                at += len;
            }
            0x45..=0x54 => {
                let form = command - 0x45;
                let from = window_offset.checked_add(number(&mut rest, 1 << (form / 4))?)?;
                let len = usize::try_from(number(&mut rest, 1 << (form % 4))?).ok()?;
                copies.push(Copy { at, from, len });
                at += len;
            }
            _ => return None,
        }
    }
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(len)?;
    *rest = tail;
    Some(head)
}

fn number(rest: &mut &[u8], len: usize) -> Option<u64> {
    Some(take(rest, len)?.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

/// The part of a base that a signature for a segment covers, when the segment is expected `shift` away.
pub fn window(offset: u64, len: usize, shift: i64, base_len: u64) -> Range<u64> {
    let expected = offset.saturating_add_signed(shift);
    let start = expected.saturating_sub(WINDOW_MARGIN_BYTES).min(base_len);
    start..(expected.saturating_add(len as u64 + WINDOW_MARGIN_BYTES)).min(base_len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{Part, part};
    use proptest::prelude::*;

    fn noise(len: usize, seed: u8) -> Vec<u8> {
        let mut content = vec![0; len];
        blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut content);
        content
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn moved_content_is_found(at in 0usize..100_000, inserted in 0usize..5000, seed in any::<u8>(), offset in 0u64..1 << 40) {
            let base = noise(100_000, seed);
            let mut data = base.clone();
            data.splice(at..at, noise(inserted, !seed));
            let copies = copies(&signature(&base), offset, &data).unwrap();
            let literal = data.len() - copies.iter().map(|copy| copy.len).sum::<usize>();
            prop_assert!(literal <= inserted + 2 * BLOCK_BYTES as usize, "{} bytes", literal);
            let mut built = Vec::new();
            for part in part::compose(&data.clone().into(), &[], &copies) {
                match part {
                    Part::Data(bytes) => built.extend_from_slice(&bytes),
                    Part::Copy { from, len } => built.extend_from_slice(&base[(from - offset) as usize..][..len as usize]),
                    Part::Zeros(len) | Part::Hole(len) => built.resize(built.len() + len as usize, 0),
                }
            }
            prop_assert_eq!(built, data);
        }

        #[test]
        fn no_signature_panics(mut bytes in any::<Vec<u8>>(), data in any::<Vec<u8>>()) {
            let _ = copies(&bytes, 0, &data);
            let head = signature(&[1; 5000]);
            bytes.splice(0..0, head[..12].to_vec());
            let _ = copies(&bytes, 0, &data);
            let _ = parse(&bytes, 0);
        }
    }

    #[test]
    fn windows_stay_inside_the_base() {
        assert_eq!(window(0, 1 << 20, -37, 10 << 20), 0..2 << 20);
        assert_eq!(window(9 << 20, 1 << 20, 0, 5 << 20), 5 << 20..5 << 20);
        assert_eq!(window(4 << 20, 1 << 20, 1 << 20, 100 << 20), 4 << 20..7 << 20);
        assert!(signature(&[7; 3 << 20]).len() <= SIGNATURE_BYTES_MAX);
    }
}
