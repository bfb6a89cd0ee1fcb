//! Names that break tools: newlines, bytes that are no text, the longest possible, options, escapes.

use crate::seed::Rng;

/// Longest name that Linux takes.
const NAME_MAX: usize = 255;

/// Any legal name. Some are drawn from few, so that edits meet names that were there before.
pub fn random_name(rng: &mut Rng) -> Vec<u8> {
    let number = rng.u32(0..400);
    let mut name = match rng.u8(0..16) {
        0 => format!("new\nline {number}").into_bytes(),
        1 => [&b"\xff\xfe broken \xc3"[..], number.to_string().as_bytes()].concat(),
        2 => [format!("{number}-").into_bytes(), vec![b'L'; NAME_MAX]].concat(),
        3 => format!("-rf {number}").into_bytes(),
        4 => format!("back\\slash\\x41 {number}").into_bytes(),
        5 => format!(".hidden{number}").into_bytes(),
        6 => format!("*?[{number}]'\"$`").into_bytes(),
        7 => format!("\u{e4}\u{f6}\u{fc} {number} \u{1f40e}").into_bytes(),
        8 => format!("a\u{308}{number}").into_bytes(),
        9 => random_bytes(rng),
        10 => format!("tab\t\r\x1b[31m{number}").into_bytes(),
        11 => format!("file.{number}~").into_bytes(),
        _ => format!("file-{number}").into_bytes(),
    };
    name.truncate(NAME_MAX);
    name
}

fn random_bytes(rng: &mut Rng) -> Vec<u8> {
    let length = rng.usize(1..40);
    let mut name: Vec<u8> = (0..length)
        .map(|_| match rng.u8(1..=255) {
            b'/' => b'|',
            byte => byte,
        })
        .collect();
    if name == b"." || name == b".." {
        name = b"...".to_vec();
    }
    name
}
