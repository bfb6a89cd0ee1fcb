//! Names and paths inside a volume.
//!
//! A name is any byte string that Linux accepts as one directory entry. A path is names joined by `/`; the empty
//! path is the volume's root. Paths are ordered name by name, so that a directory comes right before what is in it.
//! The wire and the disk are not trusted: both types can only be made through a check.

use std::{cmp::Ordering, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// `NAME_MAX` of Linux (limits.h): bytes in one name.
pub const NAME_BYTES_MAX: usize = 255;
/// Longest path that Drover handles. Longer than `PATH_MAX`, because very deep trees exist and are opened piece by piece.
pub const PATH_BYTES_MAX: usize = 128 * 1024;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PathError {
    #[error("name is empty")]
    Empty,
    #[error("name {0} is reserved")]
    Reserved(Name),
    #[error("name holds a slash or a NUL byte")]
    Separator,
    #[error("name has {bytes} bytes, the limit is {NAME_BYTES_MAX}")]
    NameTooLong { bytes: usize },
    #[error("path has {bytes} bytes, the limit is {PATH_BYTES_MAX}")]
    PathTooLong { bytes: usize },
}

/// One directory entry's name: 1 to 255 bytes, no `/`, no NUL, neither `.` nor `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<[u8]>);

impl Name {
    pub fn new(bytes: &[u8]) -> Result<Self, PathError> {
        check_name(bytes)?;
        Ok(Self(bytes.into()))
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

fn check_name(bytes: &[u8]) -> Result<(), PathError> {
    match bytes {
        [] => Err(PathError::Empty),
        b"." | b".." => Err(PathError::Reserved(Name(bytes.into()))),
        _ if bytes.len() > NAME_BYTES_MAX => Err(PathError::NameTooLong { bytes: bytes.len() }),
        _ if bytes.iter().any(|b| matches!(b, b'/' | 0)) => Err(PathError::Separator),
        _ => Ok(()),
    }
}

/// A path beneath a volume's root; empty for the root itself.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RelPath(Arc<[u8]>);

impl RelPath {
    pub fn root() -> Self {
        Self(Arc::from(&[][..]))
    }

    pub fn new(bytes: &[u8]) -> Result<Self, PathError> {
        if bytes.len() > PATH_BYTES_MAX {
            return Err(PathError::PathTooLong { bytes: bytes.len() });
        }
        if !bytes.is_empty() {
            bytes.split(|b| *b == b'/').try_for_each(check_name)?;
        }
        Ok(Self(bytes.into()))
    }

    pub fn join(&self, name: &Name) -> Self {
        if self.0.is_empty() {
            return Self(Arc::from(name.as_bytes()));
        }
        Self([&self.0[..], b"/", name.as_bytes()].concat().into())
    }

    /// The path of `self` beneath `prefix`, or `None` when it is not beneath it. `p.strip(p)` is the root.
    pub fn strip(&self, prefix: &Self) -> Option<Self> {
        if prefix.is_root() {
            return Some(self.clone());
        }
        match self.0.strip_prefix(&prefix.0[..])? {
            [] => Some(Self::root()),
            [b'/', rest @ ..] => Some(Self(rest.into())),
            _ => None,
        }
    }

    pub fn concat(&self, rest: &Self) -> Self {
        match (self.is_root(), rest.is_root()) {
            (true, _) => rest.clone(),
            (_, true) => self.clone(),
            _ => Self([&self.0[..], b"/", &rest.0[..]].concat().into()),
        }
    }

    /// Parent and last name; `None` for the root.
    pub fn split(&self) -> Option<(Self, Name)> {
        if self.0.is_empty() {
            return None;
        }
        let (parent, name) = match self.0.iter().rposition(|b| *b == b'/') {
            Some(at) => (&self.0[..at], &self.0[at + 1..]),
            None => (&[][..], &self.0[..]),
        };
        Some((Self(parent.into()), Name(name.into())))
    }

    pub fn parent(&self) -> Option<Self> {
        self.split().map(|(parent, _)| parent)
    }

    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    pub fn depth(&self) -> usize {
        if self.0.is_empty() { 0 } else { 1 + self.0.iter().filter(|b| **b == b'/').count() }
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Ord for RelPath {
    fn cmp(&self, other: &Self) -> Ordering {
        let rank = |b: &u8| if *b == b'/' { 0 } else { *b };
        self.0.iter().map(rank).cmp(other.0.iter().map(rank))
    }
}

impl PartialOrd for RelPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Any byte can stand in a name, so what is shown to people, logs and JSON is escaped: control characters, backslashes
/// and bytes that are not UTF-8 as `\xNN`. `unescaped` is its inverse.
fn escaped(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let hex = |f: &mut fmt::Formatter<'_>, b: &u8| write!(f, "\\x{b:02x}");
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() || c == '\\' {
                c.encode_utf8(&mut [0; 4]).bytes().try_for_each(|b| hex(f, &b))?;
            } else {
                write!(f, "{c}")?;
            }
        }
        chunk.invalid().iter().try_for_each(|b| hex(f, b))?;
    }
    Ok(())
}

/// Bytes of what `Display` shows; a `\x` without two hexadecimal digits stands for itself.
fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let code = rest.strip_prefix(b"\\x").and_then(|r| r.get(..2)).and_then(|h| std::str::from_utf8(h).ok());
        match code.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => (bytes.push(byte), rest = &rest[4..]).0,
            None => (bytes.push(*first), rest = tail).0,
        }
    }
    bytes
}

impl FromStr for RelPath {
    type Err = PathError;

    /// Of what `Display` shows: `.` is the root.
    fn from_str(text: &str) -> Result<Self, PathError> {
        if text == "." { Ok(Self::root()) } else { Self::new(&unescaped(text)) }
    }
}

impl Serialize for RelPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RelPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escaped(&self.0, f)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() { f.write_str(".") } else { escaped(&self.0, f) }
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(s: &str) -> RelPath {
        RelPath::new(s.as_bytes()).unwrap()
    }

    #[test]
    fn directory_sorts_right_before_its_content() {
        let mut paths = ["a.b", "a/b", "a", "a/b/c", "a-b", "a b", "b"].map(path);
        paths.sort();
        assert_eq!(paths, ["a", "a/b", "a/b/c", "a b", "a-b", "a.b", "b"].map(path));
    }

    #[test]
    fn refuses_what_could_leave_the_volume() {
        for bad in ["/a", "a/", "a//b", "..", "a/../b", "./a", "a/.", "a\0b"] {
            assert!(RelPath::new(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(Name::new(&[b'n'; 256]).is_err());
        assert!(Name::new(b"a/b").is_err());
    }

    #[test]
    fn any_bytes_survive_being_shown() {
        for bytes in [&b"plain"[..], b"new\nline", b"back\\slash", b"\\x41", b"\xff\xfe/\xc3\xa4", "\u{85}".as_bytes()]
        {
            let path = RelPath::new(bytes).unwrap();
            assert_eq!(path.to_string().parse::<RelPath>().unwrap(), path, "{path}");
        }
    }

    #[test]
    fn strips_and_joins() {
        assert_eq!(path("a/b/c").strip(&path("a")), Some(path("b/c")));
        assert_eq!(path("ab").strip(&path("a")), None);
        assert_eq!(path("a").concat(&path("b/c")), path("a/b/c"));
        assert_eq!(path("a/b").split().unwrap().0, path("a"));
    }
}
