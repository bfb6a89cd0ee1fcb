//! Where a directory lies, so that two paths to it are known as one: bind mounts and symlinks lead exports to it by other names.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
};

/// Of a directory or file that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Of the file system, `MAJOR:MINOR` of its superblock.
    device: String,
    /// Within the file system, whatever part of it is mounted where.
    within: PathBuf,
    /// Without symlinks.
    path: PathBuf,
}

/// How an export and a directory lie to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The export is the directory.
    Same,
    /// The export is a part of the directory.
    Inside,
    /// The export holds the directory, and more.
    Around,
}

#[derive(Debug)]
struct MountPoint {
    device: String,
    /// Which part of the file system is mounted.
    root: PathBuf,
    at: PathBuf,
}

/// The mounts of this process (proc(5), `/proc/self/mountinfo`).
#[derive(Debug)]
pub(crate) struct Mounts(Vec<MountPoint>);

impl Mounts {
    pub(crate) fn read() -> io::Result<Self> {
        Ok(Self::parse(&fs::read("/proc/self/mountinfo")?))
    }

    fn parse(text: &[u8]) -> Self {
        let line = |line: &[u8]| {
            let mut fields = line.split(|byte| *byte == b' ').skip(2);
            let device = String::from_utf8_lossy(fields.next()?).into_owned();
            let (root, at) = (unescape(fields.next()?), unescape(fields.next()?));
            Some(MountPoint { device, root, at })
        };
        Self(text.split(|byte| *byte == b'\n').filter_map(line).collect())
    }

    pub(crate) fn place(&self, path: &Path) -> io::Result<Place> {
        let path = path.canonicalize()?;
        // Of several at one place the last one covers the others.
        let mounts = self.0.iter().filter(|mount| path.starts_with(&mount.at));
        let mount = mounts.max_by_key(|mount| mount.at.components().count()).ok_or(io::ErrorKind::NotFound)?;
        let beneath = path.strip_prefix(&mount.at).unwrap_or(Path::new(""));
        let within = if beneath.as_os_str().is_empty() { mount.root.clone() } else { mount.root.join(beneath) };
        Ok(Place { device: mount.device.clone(), within, path })
    }
}

impl Mounts {
    /// How an export lies to a directory. One that crosses serves what is mounted beneath it as well, by whatever name it is mounted there.
    pub(crate) fn reach(&self, export: &Place, directory: &Place, crosses: bool) -> Option<Reach> {
        let at = |device: &str, within: &Path| {
            if device != directory.device {
                None
            } else if within == directory.within {
                Some(Reach::Same)
            } else if within.starts_with(&directory.within) {
                Some(Reach::Inside)
            } else {
                directory.within.starts_with(within).then_some(Reach::Around)
            }
        };
        let beneath = || {
            let mounted = self.0.iter().filter(|mount| mount.at != export.path && mount.at.starts_with(&export.path));
            mounted.into_iter().any(|mount| at(&mount.device, &mount.root).is_some()).then_some(Reach::Around)
        };
        at(&export.device, &export.within).or_else(|| if crosses { beneath() } else { None })
    }
}

impl Place {
    /// Of the directory, beneath an export that holds it.
    pub(crate) fn beneath(&self, export: &Self) -> PathBuf {
        let within = self.within.strip_prefix(&export.within).ok().filter(|_| self.device == export.device);
        within.or_else(|| self.path.strip_prefix(&export.path).ok()).unwrap_or(Path::new("")).to_owned()
    }
}

/// `\040` and the like, as in proc(5), exports(5) and etab.
pub(crate) fn unescape(text: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = || {
            let digits =
                after.get(..3)?.iter().map(|digit| (b'0'..=b'7').contains(digit).then(|| u32::from(digit - b'0')));
            let value = digits.collect::<Option<Vec<_>>>()?.into_iter().fold(0, |value, digit| value * 8 + digit);
            u8::try_from(value).ok()
        };
        match (byte == b'\\').then(octal).flatten() {
            Some(value) => {
                bytes.push(value);
                rest = &after[3..];
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &[u8] = b"21 1 8:1 / / rw - ext4 /dev/sda1 rw
22 21 8:2 / /srv rw - xfs /dev/sdb rw
23 21 8:2 /nfs /export/nfs rw - xfs /dev/sdb rw
24 21 8:3 / /mnt/with\\040space rw - xfs /dev/sdc rw
25 22 8:4 / /srv/nfs/other rw - xfs /dev/sdd rw
";

    fn place(device: &str, within: &str, path: &str) -> Place {
        Place { device: device.to_owned(), within: within.into(), path: path.into() }
    }

    #[test]
    fn a_bind_mount_is_the_same_directory() {
        let mounts = Mounts::parse(MOUNTS);
        assert_eq!(mounts.0.len(), 5);
        assert_eq!(mounts.0[3].at, Path::new("/mnt/with space"));
        let volume = place("8:2", "/nfs/pv1", "/srv/nfs/pv1");
        for (export, crosses, reach) in [
            (place("8:2", "/nfs/pv1", "/export/nfs/pv1"), false, Some(Reach::Same)),
            (place("8:2", "/nfs", "/export/nfs"), false, Some(Reach::Around)),
            (place("8:2", "/nfs/pv1/sub", "/srv/nfs/pv1/sub"), false, Some(Reach::Inside)),
            (place("8:2", "/nfs/pv10", "/srv/nfs/pv10"), true, None),
            (place("8:1", "/", "/"), false, None),
            (place("8:1", "/", "/"), true, Some(Reach::Around)),
            // A bind mount beneath it leads there.
            (place("8:1", "/export", "/export"), false, None),
            (place("8:1", "/export", "/export"), true, Some(Reach::Around)),
            (place("8:3", "/", "/mnt/with space"), true, None),
        ] {
            assert_eq!(mounts.reach(&export, &volume, crosses), reach, "{export:?}");
        }
        let around = place("8:2", "/nfs", "/export/nfs");
        assert_eq!(volume.beneath(&around), Path::new("pv1"));
        assert_eq!(volume.beneath(&place("8:1", "/", "/")), Path::new("srv/nfs/pv1"));
    }

    #[test]
    fn escapes_are_read() {
        assert_eq!(unescape(b"/a\\040b\\134c\\9"), Path::new("/a b\\c\\9"));
    }

    #[test]
    fn a_directory_of_this_host_has_a_place() {
        let dir = tempfile::tempdir().unwrap();
        let (inner, link) = (dir.path().join("inner"), dir.path().join("link"));
        fs::create_dir(&inner).unwrap();
        std::os::unix::fs::symlink(&inner, &link).unwrap();
        let mounts = Mounts::read().unwrap();
        let (inner, link) = (mounts.place(&inner).unwrap(), mounts.place(&link).unwrap());
        assert_eq!(mounts.reach(&link, &inner, false), Some(Reach::Same));
        assert_eq!(mounts.reach(&mounts.place(dir.path()).unwrap(), &inner, false), Some(Reach::Around));
    }
}
