//! The few primitives that every format of Drover is written with: LEB128 integers, length-prefixed bytes, digests.
//!
//! `Reader` never trusts a length: it is checked against what is left before anything is allocated.

use crate::{
    digest::Digest,
    path::{Name, PathError, RelPath},
};

#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("ends too early")]
    Truncated,
    #[error("{left} bytes too many")]
    Trailing { left: usize },
    #[error("integer does not fit")]
    Overflow,
    #[error("{what} {value} is unknown")]
    Unknown { what: &'static str, value: u64 },
    #[error("{what} are not in order")]
    Unsorted { what: &'static str },
    #[error("{what} is {value}, the limit is {limit}")]
    TooLarge { what: &'static str, value: u64, limit: u64 },
    #[error("JSON is not what this release understands")]
    Json,
    #[error(transparent)]
    Path(#[from] PathError),
}

#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    pub fn uint(&mut self, mut value: u64) -> &mut Self {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
        self
    }

    /// Zigzag, so that times before 1970 stay short.
    pub fn int(&mut self, value: i64) -> &mut Self {
        self.uint(((value << 1) ^ (value >> 63)) as u64)
    }

    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.uint(value.len() as u64);
        self.raw(value)
    }

    pub fn raw(&mut self, value: &[u8]) -> &mut Self {
        self.0.extend_from_slice(value);
        self
    }

    pub fn digest(&mut self, value: &Digest) -> &mut Self {
        self.raw(value.as_bytes())
    }

    pub fn path(&mut self, value: &RelPath) -> &mut Self {
        self.bytes(value.as_bytes())
    }

    pub fn name(&mut self, value: &Name) -> &mut Self {
        self.bytes(value.as_bytes())
    }
}

#[derive(Debug, Clone)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn left(&self) -> usize {
        self.0.len()
    }

    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.raw(1)?[0])
    }

    pub fn uint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..).step_by(7) {
            let byte = self.u8()?;
            let part = u64::from(byte & 0x7f);
            if shift >= 64 || (shift == 63 && part > 1) {
                return Err(DecodeError::Overflow);
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        Ok(value)
    }

    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        u32::try_from(self.uint()?).map_err(|_| DecodeError::Overflow)
    }

    pub fn int(&mut self) -> Result<i64, DecodeError> {
        let raw = self.uint()?;
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    /// A count of things of at least `bytes_each` bytes, so that a forged count can't make us allocate.
    pub fn count(&mut self, bytes_each: usize) -> Result<usize, DecodeError> {
        let count = usize::try_from(self.uint()?).map_err(|_| DecodeError::Overflow)?;
        if count.checked_mul(bytes_each.max(1)).is_none_or(|bytes| bytes > self.0.len()) {
            return Err(DecodeError::Truncated);
        }
        Ok(count)
    }

    pub fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.count(1)?;
        self.raw(len)
    }

    pub fn raw(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (head, tail) = self.0.split_at_checked(len).ok_or(DecodeError::Truncated)?;
        self.0 = tail;
        Ok(head)
    }

    pub fn digest(&mut self) -> Result<Digest, DecodeError> {
        let (head, tail) = self.0.split_first_chunk::<32>().ok_or(DecodeError::Truncated)?;
        self.0 = tail;
        Ok(Digest::from_bytes(*head))
    }

    pub fn path(&mut self) -> Result<RelPath, DecodeError> {
        Ok(RelPath::new(self.bytes()?)?)
    }

    pub fn name(&mut self) -> Result<Name, DecodeError> {
        Ok(Name::new(self.bytes()?)?)
    }

    pub fn end(self) -> Result<(), DecodeError> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::Trailing { left: self.0.len() }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn integers_come_back(u in any::<u64>(), i in any::<i64>(), b in any::<Vec<u8>>()) {
            let mut w = Writer::new();
            w.uint(u).int(i).bytes(&b);
            let bytes = w.into_bytes();
            let mut r = Reader::new(&bytes);
            prop_assert_eq!(r.uint().unwrap(), u);
            prop_assert_eq!(r.int().unwrap(), i);
            prop_assert_eq!(r.bytes().unwrap(), &b[..]);
            r.end().unwrap();
        }

        #[test]
        fn no_input_panics(bytes in any::<Vec<u8>>()) {
            let mut r = Reader::new(&bytes);
            let _ = r.uint();
            let _ = r.bytes();
            let _ = r.path();
        }
    }

    #[test]
    fn forged_length_is_refused() {
        let mut w = Writer::new();
        w.uint(u64::MAX);
        assert!(matches!(Reader::new(&w.into_bytes()).bytes(), Err(DecodeError::Truncated)));
    }
}
