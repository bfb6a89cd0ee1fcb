//! Random edits of a tree. Each looks at what is there now, so a chain of edits needs no model of the tree.

use std::{
    ffi::OsStr,
    fmt, fs, io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{
    Item, Kind, attributes, attributes::Mtime, content, create, is_root, list, names::random_name, remove_tree,
};
use crate::seed::Rng;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    CreateFile,
    CreateDirectory,
    CreateOther,
    WriteAt,
    Truncate,
    Extend,
    PunchHole,
    Chmod,
    Chown,
    SetXattr,
    RemoveXattr,
    SetAcl,
    RemoveAcl,
    Link,
    Unlink,
    RemoveTree,
    Rename,
    RenameOnto,
    Exchange,
    ReplaceByDirectory,
    ReplaceByFile,
    RewriteByRename,
    RewriteKeepingMtime,
    Touch,
    Chattr,
}

impl What {
    const ALL: [Self; 25] = [
        Self::CreateFile,
        Self::CreateDirectory,
        Self::CreateOther,
        Self::WriteAt,
        Self::Truncate,
        Self::Extend,
        Self::PunchHole,
        Self::Chmod,
        Self::Chown,
        Self::SetXattr,
        Self::RemoveXattr,
        Self::SetAcl,
        Self::RemoveAcl,
        Self::Link,
        Self::Unlink,
        Self::RemoveTree,
        Self::Rename,
        Self::RenameOnto,
        Self::Exchange,
        Self::ReplaceByDirectory,
        Self::ReplaceByFile,
        Self::RewriteByRename,
        Self::RewriteKeepingMtime,
        Self::Touch,
        Self::Chattr,
    ];
}

/// One edit that was made, for the message of a failed round.
#[derive(Clone, Debug)]
pub struct Edit {
    what: What,
    path: PathBuf,
    other: Option<PathBuf>,
}

impl fmt::Display for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}", self.what, self.path)?;
        self.other.as_ref().map_or(Ok(()), |other| write!(f, " {other:?}"))
    }
}

/// Makes `count` edits beneath `root` and says which.
pub fn edit(root: &Path, rng: &mut Rng, count: usize) -> Vec<Edit> {
    let mut edits = Vec::new();
    // Some can't be made (a directory into itself, nothing of the kind there): others are tried instead.
    for _ in 0..count * 50 {
        if edits.len() == count {
            break;
        }
        let mut editor = Editor { root, rng, items: list(root) };
        edits.extend(editor.edit());
    }
    assert_eq!(edits.len(), count, "the tree at {} can't be edited any more", root.display());
    edits
}

struct Editor<'a> {
    root: &'a Path,
    rng: &'a mut Rng,
    items: Vec<Item>,
}

impl Editor<'_> {
    fn edit(&mut self) -> Option<Edit> {
        let what = What::ALL[self.rng.usize(0..What::ALL.len())];
        let item = self.target(what)?;
        let other = self.other(what, &item);
        for path in [Some(&item.path), other.as_ref()].into_iter().flatten() {
            self.unlock(path);
        }
        match self.make(what, &item, other.as_deref()) {
            Ok(()) => {
                let short = |path: &Path| path.strip_prefix(self.root).unwrap_or(path).to_owned();
                Some(Edit { what, path: short(&item.path), other: other.as_deref().map(short) })
            }
            Err(error) if is_refused(&error) => None,
            Err(error) => panic!("{what:?} {:?} {other:?}: {error}", item.path),
        }
    }

    fn any(&mut self, fits: impl Fn(&Item) -> bool) -> Option<Item> {
        let fitting: Vec<&Item> = self.items.iter().filter(|item| fits(item)).collect();
        if fitting.is_empty() { None } else { Some(fitting[self.rng.usize(0..fitting.len())].clone()) }
    }

    fn new_path(&mut self) -> PathBuf {
        let root = Item { path: self.root.to_owned(), kind: Kind::Directory, size: 0 };
        let parent = self.any(|item| item.kind == Kind::Directory).unwrap_or(root);
        parent.path.join(OsStr::from_bytes(&random_name(self.rng)))
    }

    /// What is edited; for a creation, an entry that is not there yet.
    fn target(&mut self, what: What) -> Option<Item> {
        let file = |item: &Item| item.kind == Kind::File;
        let directory = |item: &Item| item.kind == Kind::Directory;
        match what {
            What::CreateFile | What::CreateDirectory | What::CreateOther => {
                let path = self.new_path();
                (!path.exists()).then_some(Item { path, kind: Kind::Special, size: 0 })
            }
            What::WriteAt | What::Truncate | What::Extend | What::PunchHole | What::Link => self.any(file),
            What::RewriteByRename | What::RewriteKeepingMtime | What::ReplaceByDirectory => self.any(file),
            What::RemoveTree | What::ReplaceByFile => self.any(directory),
            What::Chmod => self.any(|item| item.kind != Kind::Symlink),
            What::SetAcl | What::RemoveAcl | What::Chattr => self.any(|item| file(item) || directory(item)),
            What::Unlink => self.any(|item| item.kind != Kind::Directory),
            What::Chown | What::SetXattr | What::RemoveXattr | What::Touch => self.any(|_| true),
            What::Rename | What::RenameOnto | What::Exchange => self.any(|_| true),
        }
    }

    fn other(&mut self, what: What, item: &Item) -> Option<PathBuf> {
        match what {
            What::Link | What::Rename => Some(self.new_path()),
            What::RenameOnto => self.any(|other| other.kind == item.kind).map(|other| other.path),
            What::Exchange => self.any(|_| true).map(|other| other.path),
            _ => None,
        }
    }

    /// The entry and its directory may be changed from here on.
    fn unlock(&self, path: &Path) {
        for path in [Some(path), path.parent()].into_iter().flatten() {
            let meta = fs::symlink_metadata(path);
            if meta.is_ok_and(|meta| meta.is_file() || meta.is_dir()) {
                attributes::unlock(path).unwrap_or_else(|error| panic!("unlock {}: {error}", path.display()));
            }
        }
    }

    fn make(&mut self, what: What, item: &Item, other: Option<&Path>) -> io::Result<()> {
        let path = &item.path;
        match what {
            What::CreateFile => content::create(path, self.rng),
            What::CreateDirectory => fs::create_dir(path),
            What::CreateOther if self.rng.bool() => create::random_symlink(path, self.rng),
            What::CreateOther => create::special(path, self.rng),
            What::WriteAt | What::Truncate | What::Extend | What::PunchHole => self.change_content(what, item),
            What::RewriteKeepingMtime => {
                let meta = fs::symlink_metadata(path)?;
                self.change_content(What::WriteAt, item)?;
                attributes::set_mtime(path, Mtime(meta.mtime(), meta.mtime_nsec() as u32))
            }
            What::Chmod => attributes::chmod(path, self.rng),
            What::Chown if is_root() => attributes::chown(path, self.rng),
            What::Chown => attributes::chmod(path, self.rng),
            What::SetXattr => attributes::random_xattr(path, item.kind, self.rng),
            What::RemoveXattr => {
                // Only files and directories may have the first and the last.
                let has_all = matches!(item.kind, Kind::File | Kind::Directory);
                let names = ["trusted.x0", "trusted.x1", "user.x0", "security.capability"];
                let name = names[self.rng.usize(0..if has_all { 4 } else { 2 })];
                attributes::remove_xattr(path, name)
            }
            What::SetAcl => attributes::random_acl(path, item.kind, self.rng),
            What::RemoveAcl => attributes::remove_xattr(path, attributes::Acl::Access.xattr()),
            What::Touch => attributes::set_mtime(path, Mtime::random(self.rng)),
            What::Chattr if is_root() => attributes::random_flags(path, item.kind, self.rng),
            What::Chattr => Ok(()),
            _ => self.change_names(what, item, other),
        }
    }

    fn change_content(&mut self, what: What, item: &Item) -> io::Result<()> {
        let file = content::open(&item.path)?;
        match what {
            What::Truncate => file.set_len(self.rng.u64(0..=item.size)),
            What::Extend => file.set_len(item.size + self.rng.u64(1..content::HOLE * 2)),
            What::PunchHole => {
                let start = self.rng.u64(0..=item.size) & !4095;
                content::punch(&item.path, start, self.rng.u64(1..=content::HOLE))
            }
            _ => {
                let length = 1 << self.rng.u32(0..16);
                let bytes = content::bytes(self.rng, length);
                content::write_at(&item.path, self.rng.u64(0..=item.size), &bytes)
            }
        }
    }

    fn change_names(&mut self, what: What, item: &Item, other: Option<&Path>) -> io::Result<()> {
        let path = &item.path;
        match (what, other) {
            (What::Link, Some(new)) => fs::hard_link(path, new),
            (What::Rename, Some(new)) => Ok(renameat_with(CWD, path, CWD, new, RenameFlags::NOREPLACE)?),
            (What::RenameOnto, Some(new)) => fs::rename(path, new),
            (What::Exchange, Some(new)) => Ok(renameat_with(CWD, path, CWD, new, RenameFlags::EXCHANGE)?),
            (What::Unlink, _) => fs::remove_file(path),
            // Never so much that later edits have nothing left.
            (What::RemoveTree, _) if self.beneath(path) > 20 => Err(io::ErrorKind::DirectoryNotEmpty.into()),
            (What::ReplaceByFile, _) if self.beneath(path) > 20 => Err(io::ErrorKind::DirectoryNotEmpty.into()),
            (What::RemoveTree, _) => remove_tree(path),
            (What::ReplaceByFile, _) => {
                remove_tree(path)?;
                content::create(path, self.rng)
            }
            (What::ReplaceByDirectory, _) => {
                fs::remove_file(path)?;
                fs::create_dir(path)?;
                content::create(&path.join("inside"), self.rng)
            }
            (What::RewriteByRename, _) => {
                let new = path.with_file_name("rewritten.tmp");
                content::create(&new, self.rng)?;
                fs::rename(new, path)
            }
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn beneath(&self, dir: &Path) -> usize {
        self.items.iter().filter(|item| item.path.starts_with(dir)).count()
    }
}

/// What the kernel rightly refuses: the edit made no sense here.
fn is_refused(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    let no_such_xattr = error.raw_os_error() == Some(rustix::io::Errno::NODATA.raw_os_error());
    no_such_xattr
        || matches!(
            error.kind(),
            Kind::AlreadyExists
                | Kind::NotFound
                | Kind::InvalidFilename
                | Kind::DirectoryNotEmpty
                | Kind::NotADirectory
                | Kind::IsADirectory
                | Kind::InvalidInput
                | Kind::StorageFull
                | Kind::TooManyLinks
        )
}
