//! Changes to the server's configuration files: each remembers what stood there, so that exactly that comes back.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Write as _},
    ops::Range,
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown},
    },
    path::{Path, PathBuf},
};

use drover_linux::Dir;

use serde::{Deserialize, Serialize};

use crate::error::NfsError;

/// One entry of a file, as it was and as it stands while its clients are shut out. Texts have one character for each byte.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Change {
    pub(crate) file: PathBuf,
    /// Path of the export.
    pub(crate) export: PathBuf,
    pub(crate) original: String,
    pub(crate) changed: String,
    /// Entries before it that read as `changed` does: somebody's own may.
    pub(crate) nth: usize,
}

/// What a file is to become.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Replanned {
    pub(crate) text: String,
    pub(crate) changes: Vec<Change>,
    /// Known changes of which nothing is left: somebody edited the entry since. What they wrote stands.
    pub(crate) abandoned: Vec<Change>,
    /// Known changes that were found here.
    pub(crate) found: Vec<Change>,
}

/// An entry that is to read otherwise.
pub(crate) struct Edit {
    pub(crate) range: Range<usize>,
    pub(crate) export: PathBuf,
    pub(crate) text: String,
}

/// What a kind of file is made of.
pub(crate) trait Format {
    /// Where its entries stand, also those that a fence has made comments.
    fn entries(&self, text: &str) -> Result<Vec<Range<usize>>, NfsError>;
    /// Entries of a text without any of Drover's changes that are to read otherwise.
    fn edits(&self, base: &str) -> Result<Vec<Edit>, NfsError>;
}

/// `known` are changes of this file, and of files that are not there any more.
pub(crate) fn replan(file: &Path, text: &str, known: &[&Change], format: &impl Format) -> Result<Replanned, NfsError> {
    let (mut base, mut found, mut missing) = (text.to_owned(), Vec::new(), Vec::new());
    // From the last to the first, so that the number before each stays what it was.
    let mut known = known.to_vec();
    known.sort_by_key(|change| std::cmp::Reverse(change.nth));
    for change in known {
        let entries = format.entries(&base)?;
        let mut equal = entries.into_iter().filter(|entry| base[entry.clone()] == change.changed).collect::<Vec<_>>();
        match equal.len() {
            0 => missing.push(change),
            count => {
                base.replace_range(equal.swap_remove(change.nth.min(count - 1)), &change.original);
                found.push(change.clone());
            }
        }
    }
    let mut abandoned = Vec::new();
    for change in missing.into_iter().filter(|change| change.file == file) {
        // Put back by another hand, or never made.
        let is_there = format.entries(&base)?.into_iter().any(|entry| base[entry] == change.original);
        match is_there {
            true => found.push(change.clone()),
            false => abandoned.push(change.clone()),
        }
    }
    let mut edits = format.edits(&base)?;
    edits.sort_by_key(|edit| edit.range.start);
    let mut changed = base.clone();
    for edit in edits.iter().rev() {
        changed.replace_range(edit.range.clone(), &edit.text);
    }
    // Where each stands in the text that it makes.
    let entries = format.entries(&changed)?;
    let (mut changes, mut shift) = (Vec::new(), 0isize);
    for Edit { range, export, text } in edits {
        let start = range.start.checked_add_signed(shift).unwrap_or(0);
        shift += text.len().cast_signed() - range.len().cast_signed();
        let original = base[range].to_owned();
        if original != text {
            let equal = entries.iter().filter(|entry| entry.start < start && changed[(*entry).clone()] == text);
            changes.push(Change { file: file.to_owned(), export, original, nth: equal.count(), changed: text });
        }
    }
    Ok(Replanned { text: changed, changes, abandoned, found })
}

/// Any bytes, one character for each.
pub(crate) fn read(path: &Path) -> Result<String, NfsError> {
    let bytes = fs::read(path).map_err(|source| NfsError::File { what: "read", path: path.to_owned(), source })?;
    Ok(bytes.into_iter().map(char::from).collect())
}

fn bytes(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect()
}

/// A part of a text that `read` gave, as a path.
pub(crate) fn path(text: &str) -> PathBuf {
    OsString::from_vec(bytes(text)).into()
}

/// The same for people.
pub(crate) fn shown(text: &str) -> String {
    String::from_utf8_lossy(&bytes(text)).trim().to_owned()
}

/// Durable when it returns; owner, mode and attributes stay, and so does a symlink. Refused when the file is not what was read.
pub(crate) fn replace(path: &Path, before: &str, text: &str) -> Result<(), NfsError> {
    write(path, &bytes(before), &bytes(text)).map_err(|source| NfsError::File {
        what: "replace",
        path: path.to_owned(),
        source,
    })
}

fn write(path: &Path, before: &[u8], text: &[u8]) -> io::Result<()> {
    let path = path.canonicalize()?;
    let metadata = fs::metadata(&path)?;
    let (directory, name) = path.parent().zip(path.file_name()).ok_or(io::ErrorKind::InvalidInput)?;
    // Hidden, so that no server takes it for one of its own.
    let hidden = format!(".{}.drover", name.to_string_lossy());
    let temporary = directory.join(&hidden);
    let _ = fs::remove_file(&temporary);
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&temporary)?;
    let written = (|| {
        fchown(&file, Some(metadata.uid()), Some(metadata.gid()))?;
        file.set_permissions(fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
        let dir = Dir::open(directory)?;
        for (attribute, value) in dir.xattrs(name.as_bytes())? {
            dir.set_xattr(hidden.as_bytes(), &attribute, &value)?;
        }
        file.write_all(text)?;
        file.sync_all()?;
        if fs::read(&path)? != before {
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, "somebody else has just changed it"));
        }
        fs::rename(&temporary, &path)?;
        dir.sync()
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines; those that begin so become capitals.
    struct Upper(&'static str);

    impl Format for Upper {
        fn entries(&self, text: &str) -> Result<Vec<Range<usize>>, NfsError> {
            let mut at = 0;
            let lines = text.split_inclusive('\n').map(|line| {
                at += line.len();
                at - line.len()..at
            });
            Ok(lines.filter(|line| !text[line.clone()].starts_with('#')).collect())
        }

        fn edits(&self, base: &str) -> Result<Vec<Edit>, NfsError> {
            let mut entries = self.entries(base)?;
            entries.retain(|entry| base[entry.clone()].starts_with(self.0));
            let edit =
                |range: Range<usize>| Edit { text: base[range.clone()].to_uppercase(), range, export: "/x".into() };
            Ok(entries.into_iter().map(edit).collect())
        }
    }

    const NONE: Upper = Upper("nothing");

    fn replanned(text: &str, known: &[Change], format: &Upper) -> Replanned {
        replan(Path::new("/f"), text, &known.iter().collect::<Vec<_>>(), format).unwrap()
    }

    #[test]
    fn what_stood_there_comes_back() {
        let text = "abc 1\nab 2\nabc 1\n";
        let plan = replanned(text, &[], &Upper("abc"));
        assert_eq!(plan.text, "ABC 1\nab 2\nABC 1\n");
        // The same again changes nothing.
        let again = replanned(&plan.text, &plan.changes, &Upper("abc"));
        assert_eq!((&again.text, &again.changes), (&plan.text, &plan.changes));
        // More, and less, from what stood there first.
        let more = replanned(&plan.text, &plan.changes, &Upper("ab"));
        assert_eq!(more.text, "ABC 1\nAB 2\nABC 1\n");
        let back = replanned(&more.text, &more.changes, &NONE);
        assert_eq!((back.text.as_str(), back.changes.len(), back.abandoned.len()), (text, 0, 0));
    }

    #[test]
    fn what_others_wrote_alike_is_left_alone() {
        // Comments, and an entry that reads as the changed one does.
        let text = "#ABC 1\nABC 1\nabc 1\nabc 1\n# ABC 1\n";
        let plan = replanned(text, &[], &Upper("abc"));
        assert_eq!(plan.text, "#ABC 1\nABC 1\nABC 1\nABC 1\n# ABC 1\n");
        let again = replanned(&plan.text, &plan.changes, &Upper("abc"));
        assert_eq!((&again.text, &again.changes), (&plan.text, &plan.changes));
        assert_eq!(replanned(&plan.text, &plan.changes, &NONE).text, text);
    }

    #[test]
    fn what_others_wrote_since_stands() {
        let text = "abc 1\nab 2\n";
        let plan = replanned(text, &[], &Upper("abc"));
        let edited = plan.text.replace("ABC 1", "ABC 1 more");
        let back = replanned(&edited, &plan.changes, &NONE);
        assert_eq!(back.text, edited);
        assert_eq!(back.abandoned, plan.changes);
        // Somebody put it back by hand.
        let back = replanned(text, &plan.changes, &NONE);
        assert_eq!((back.text.as_str(), back.abandoned.len()), (text, 0));
        // Or renamed the file: it is found where it is now.
        let moved: Vec<&Change> = plan.changes.iter().collect();
        let back = replan(Path::new("/g"), &plan.text, &moved, &NONE).unwrap();
        assert_eq!((back.text.as_str(), back.found.len()), (text, 1));
    }

    #[test]
    fn a_file_keeps_its_mode_and_its_symlink() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("exports"), dir.path().join("link"));
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let latin = b"caf\xe9 \xc3\xa9".to_vec();
        fs::write(&file, &latin).unwrap();
        let text = read(&link).unwrap();
        replace(&link, &text, &format!("{text}!")).unwrap();
        assert_eq!(fs::read(&file).unwrap(), [&latin[..], b"!"].concat());
        // Somebody was faster.
        replace(&link, &text, "lost").unwrap_err();
        replace(&link, &format!("{text}!"), "new").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o640);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
