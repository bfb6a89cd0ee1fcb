//! The vocabulary of a plan.

use drover_linux::{FileId, Time};

use crate::{
    digest::Digest,
    path::RelPath,
    tree::{Entry, Flags, Meta},
};

/// Where something lies in the volume's staging directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// `staging/tree/<path>`: built there under the path that it will have.
    Tree(RelPath),
    /// `staging/out/<number>`: taken out of the tree.
    Out(u32),
}

/// How a staged entry gets its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Provider {
    /// Directories, symlinks, devices, fifos and sockets are made; there is nothing to get.
    Made,
    /// A regular file's content: from history, from another file of the replica, or from the source.
    Body {
        /// A file of the replica that holds the very content.
        copy_of: Option<RelPath>,
        /// The replica's file at this path, which the new content may resemble.
        base: Option<RelPath>,
    },
    /// Another name of a file that is staged too.
    LinkTo(RelPath),
}

/// One entry to be built in staging, with everything but locking flags.
#[derive(Clone, Debug, PartialEq)]
pub struct Staged {
    pub path: RelPath,
    pub entry: Entry,
    pub provider: Provider,
}

/// One step of applying. `id` is the inode that the step moves or changes.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Unlock {
        path: RelPath,
        id: FileId,
        flags: Flags,
    },
    /// `onward`: the inode enters the tree again at another path.
    Out {
        path: RelPath,
        id: FileId,
        place: Place,
        onward: bool,
    },
    /// The staged inode's identity is filled in when staging is done.
    In {
        path: RelPath,
        place: Place,
        id: Option<FileId>,
    },
    /// Swaps what is staged with what is there, in one system call.
    Exchange {
        path: RelPath,
        place: Place,
        id: Option<FileId>,
        old: FileId,
    },
    /// A further name for an inode that is (by then) in the tree at `from`.
    Link {
        path: RelPath,
        from: RelPath,
        place: Place,
        id: Option<FileId>,
        replaced: Option<FileId>,
    },
    /// Writes the staged patch over the live content.
    Patch {
        path: RelPath,
        id: FileId,
    },
    Meta {
        path: RelPath,
        id: FileId,
        old: Box<Entry>,
        new: Box<Meta>,
    },
    /// `old` is none for a directory that was not there before, `new` for one that goes: undoing brings it back.
    Times {
        path: RelPath,
        old: Option<Time>,
        new: Option<Time>,
    },
    Lock {
        path: RelPath,
        flags: Flags,
    },
}

impl Step {
    pub fn path(&self) -> &RelPath {
        match self {
            Self::Unlock { path, .. }
            | Self::Out { path, .. }
            | Self::In { path, .. }
            | Self::Exchange { path, .. }
            | Self::Link { path, .. }
            | Self::Patch { path, .. }
            | Self::Meta { path, .. }
            | Self::Times { path, .. }
            | Self::Lock { path, .. } => path,
        }
    }
}

/// What becomes of something old once the new point stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retire {
    /// An empty directory.
    Directory,
    /// The last name of a content: it goes to history.
    Body(Digest),
    /// The patch that makes the old content of the new one goes to history.
    Delta(Digest),
    /// Nothing is lost with it: a symlink, a node, or a name of an inode that stays.
    Name,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retired {
    pub place: Place,
    pub what: Retire,
}
