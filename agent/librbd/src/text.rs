//! Text to C and from C.

use std::ffi::{CStr, CString, c_char};

use crate::Error;

/// EINVAL under the call's name where the text holds a NUL.
pub(crate) fn to_c(call: &'static str, text: &str) -> Result<CString, Error> {
    CString::new(text).map_err(|_| Error::new(call, libc::EINVAL))
}

/// A copy; nothing for NULL.
///
/// # Safety
/// NULL, or a C string that is not changed meanwhile.
pub(crate) unsafe fn from_c(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: what the caller promised.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_string_lossy().into_owned()
}

/// The text up to the first NUL of a buffer that C filled.
pub(crate) fn first_of(buffer: &[u8]) -> String {
    String::from_utf8_lossy(buffer.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

/// The first `count` texts of a buffer in which each ends with a NUL.
pub(crate) fn parts_of(buffer: &[u8], count: usize) -> Vec<String> {
    buffer.split(|byte| *byte == 0).take(count).map(|part| String::from_utf8_lossy(part).into_owned()).collect()
}

/// The texts up to the first empty one.
pub(crate) fn names_of(buffer: &[u8]) -> Vec<String> {
    buffer
        .split(|byte| *byte == 0)
        .take_while(|part| !part.is_empty())
        .map(|part| String::from_utf8_lossy(part).into_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_of_texts() {
        assert_eq!(first_of(b"abc\0def\0"), "abc");
        assert_eq!(first_of(b""), "");
        assert_eq!(names_of(b"a\0bc\0\0x"), ["a", "bc"]);
        assert_eq!(parts_of(b"\0b\0c\0", 2), ["", "b"]);
        assert_eq!(first_of(b"a\xff"), "a\u{fffd}");
    }

    #[test]
    fn a_nul_in_a_name_is_refused() {
        assert_eq!(to_c("rbd_open", "a\0b").unwrap_err(), Error::new("rbd_open", libc::EINVAL));
    }
}
