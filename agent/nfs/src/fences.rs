//! The verbs: shut the clients of a directory out, prove it, let them in again.
//!
//! ```text
//! fence   reach    which exports lead to the directory
//!         write    a probe writes through each, and keeps its file open
//!         book     what is meant, durable
//!         files    the configuration, each file replaced whole; what is changed is in the book first
//!         load     the running server follows
//!         look     every entry is read back from the server; the same probes are refused with EROFS
//!         book     the proof
//! ```
//! Killed anywhere it goes on from the book: [`Fences::settle`] makes the server be as the book says, and is called at every start and
//! every few seconds, so that what others change is changed back. Clients are let in the same way, from the book backwards.

mod carry;
mod check;
mod probing;

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, TryLockError},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use drover_engine::{error::chain as told, fault};
use drover_linux::Dir;

use crate::{
    book::{Book, Cause, Fence, Holder, Proof},
    error::NfsError,
    place::{Mounts, Place, Reach},
    probe::{ProbeConfig, Program},
    server::{Load, Server, ServerConfig},
    table::{Export, Shut, Table},
};

/// Reasons that are remembered of one fence.
const LACKING_MAX: usize = 100;
/// How long a verb waits for another one.
const PATIENCE: Duration = Duration::from_secs(30);
/// Others that an error names.
const OTHERS_SHOWN: usize = 20;

/// A directory of a volume.
#[derive(Clone, Debug)]
pub struct Owner {
    pub name: String,
    pub path: PathBuf,
    /// Its users write to it.
    pub is_used: bool,
}

/// Whether exports that hold more than the directory are shut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whole {
    No,
    /// Where all directories in them are volumes that nobody uses.
    IfUnused,
    Yes,
}

/// What a call wants.
#[derive(Clone, Debug)]
pub struct Asked {
    pub holder: Holder,
    pub path: PathBuf,
    pub shut: Shut,
    pub cause: Cause,
    pub whole: Whole,
}

/// An export, and what leads to it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub export: Export,
    /// Names of the owners whose directories it reaches.
    pub owners: Vec<String>,
    /// Whoever its clients are shut out for.
    pub fenced_for: Vec<Holder>,
}

/// What was found when clients were let in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Entries that somebody edited while they were shut: they stay as they are. As they were before.
    pub edited: Vec<String>,
    /// Others that the directory's clients are still shut out for.
    pub still: Vec<Holder>,
}

#[derive(Debug)]
pub struct Fences {
    server: Option<Server>,
    dir: Dir,
    book: RwLock<Result<Arc<Book>, NfsError>>,
    /// One verb at a time.
    turn: Mutex<()>,
    probe: ProbeConfig,
    program: Program,
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed())
}

fn faulted(source: io::Error) -> NfsError {
    NfsError::Book { what: "written", source }
}

/// Not to be guessed by those who may write where probes do.
fn random() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(0)
}

impl Fences {
    /// The book lies in `state_dir`. One that can't be read keeps the agent from nothing but fences.
    pub fn open(
        server: Option<&ServerConfig>,
        state_dir: &Path,
        probe: ProbeConfig,
        program: Program,
    ) -> io::Result<Self> {
        let dir = Dir::open(state_dir)?;
        let book = Book::load(&dir).map(Arc::new);
        if server.is_none() && book.as_ref().is_ok_and(|book| !book.fences.is_empty()) {
            tracing::error!(
                "exports are shut, and the configuration names no NFS server any more: nobody keeps them so or lets clients in"
            );
        }
        let (server, book) = (server.map(Server::new), RwLock::new(book));
        Ok(Self { server, dir, book, turn: Mutex::new(()), probe, program })
    }

    pub fn is_configured(&self) -> bool {
        self.server.is_some()
    }

    fn server(&self) -> Result<&Server, NfsError> {
        self.server.as_ref().ok_or(NfsError::NotConfigured)
    }

    fn turn(&self) -> Result<MutexGuard<'_, ()>, NfsError> {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.turn.try_lock() {
                Ok(turn) => return Ok(turn),
                Err(TryLockError::Poisoned(poisoned)) => return Ok(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) if Instant::now() > end => return Err(NfsError::Busy),
                Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    fn book(&self) -> Result<Arc<Book>, NfsError> {
        let known = self.book.read().unwrap_or_else(PoisonError::into_inner).as_ref().ok().cloned();
        if let Some(book) = known {
            return Ok(book);
        }
        // It may have been put right.
        let book = Arc::new(Book::load(&self.dir)?);
        *self.book.write().unwrap_or_else(PoisonError::into_inner) = Ok(book.clone());
        Ok(book)
    }

    /// To be changed, by who has the turn.
    fn open_book(&self) -> Result<Book, NfsError> {
        let book = Book::clone(&*self.book()?);
        match book.server.filter(|kind| *kind != self.server().map(Server::kind).unwrap_or(*kind)) {
            Some(kind) => Err(NfsError::OtherServer(kind)),
            None => Ok(book),
        }
    }

    /// Durable when it returns.
    fn store(&self, book: &mut Book) -> Result<(), NfsError> {
        let is_empty = book.fences.is_empty() && book.changes.is_empty() && book.former.is_empty();
        book.server = if is_empty { None } else { Some(self.server()?.kind()) };
        book.store(&self.dir)?;
        *self.book.write().unwrap_or_else(PoisonError::into_inner) = Ok(Arc::new(book.clone()));
        Ok(())
    }

    pub fn all(&self) -> Result<Vec<Fence>, NfsError> {
        Ok(self.book()?.fences.clone())
    }

    pub fn of(&self, holder: &Holder) -> Option<Fence> {
        self.book().ok()?.fence(holder).cloned()
    }

    /// What the server serves, and for whom it is shut.
    pub fn exports(&self, owners: &[Owner]) -> Result<(Vec<Seen>, Table), NfsError> {
        let table = self.server()?.table()?;
        let (mounts, book) = (mounts()?, self.book()?);
        let owners: Vec<_> = owners.iter().filter_map(|it| Some((mounts.place(&it.path).ok()?, &it.name))).collect();
        let fences: Vec<_> =
            book.fences.iter().filter_map(|it| Some((mounts.place(&it.path).ok()?, &it.holder))).collect();
        let seen = |export: &Export| {
            let at = mounts.place(&export.path).ok();
            let reaches =
                |place: &Place| at.as_ref().is_some_and(|at| mounts.reach(at, place, export.crosses).is_some());
            let owners = owners.iter().filter(|(place, _)| reaches(place)).map(|(_, name)| (*name).clone());
            let fenced_for = fences.iter().filter(|(place, _)| reaches(place)).map(|(_, holder)| (*holder).clone());
            Seen { export: export.clone(), owners: owners.collect(), fenced_for: fenced_for.collect() }
        };
        Ok((table.exports.iter().map(seen).collect(), table))
    }

    /// Shuts the clients of a directory out. That they are is only said by the fence's proof. The same call again looks again.
    pub fn fence(&self, asked: &Asked, owners: &[Owner]) -> Result<Fence, NfsError> {
        let _turn = self.turn()?;
        let server = self.server()?;
        let mounts = mounts()?;
        let place = place(&mounts, &asked.path)?;
        let reaching = reaching(&server.exported()?, &mounts, &place);
        if reaching.is_empty() {
            return Err(NfsError::NotExported { path: asked.path.clone() });
        }
        let mut book = self.open_book()?;
        let known = book.fence(&asked.holder).filter(|fence| !fence.is_lifting).cloned();
        let is_whole = known.as_ref().is_some_and(|fence| fence.whole_export);
        if !is_whole {
            check_whole(asked, &reaching, &mounts, owners)?;
        }
        let mut fence = known.unwrap_or_else(|| Fence {
            holder: asked.holder.clone(),
            path: asked.path.clone(),
            shut: Shut::ReadOnly,
            cause: asked.cause.clone(),
            whole_export: false,
            exports: BTreeSet::new(),
            since: now(),
            generation: random(),
            probe_name: format!("{}{:016x}", probing::PREFIX, random()),
            before: Vec::new(),
            before_lacking: Vec::new(),
            proof: Proof::default(),
            is_lifting: false,
        });
        let inside = reaching.iter().filter(|(_, reach)| *reach == Reach::Inside).map(|(export, _)| export.clone());
        let inside: Vec<PathBuf> = inside.collect();
        fence.whole_export |= asked.whole != Whole::No;
        fence.exports.extend(reaching.into_iter().map(|(export, _)| export));
        // Somebody asked: it is not lifted by itself any more.
        if asked.cause == Cause::Asked {
            fence.cause = Cause::Asked;
        }
        // Clients that are refused get all kinds of errors. So they are first shown to be read-only, if that can be shown.
        let steps: &[Shut] = match asked.shut {
            Shut::ReadOnly => &[Shut::ReadOnly],
            Shut::Refuse if fence.shut == Shut::Refuse => &[Shut::Refuse],
            Shut::Refuse => &[Shut::ReadOnly, Shut::Refuse],
        };
        for shut in steps {
            fence.shut = *shut;
            fence = self.step(&mut book, fence, &inside, &mounts)?;
        }
        Ok(fence)
    }

    /// `inside`: exports of parts of the directory, where probes make their files.
    fn step(&self, book: &mut Book, mut fence: Fence, inside: &[PathBuf], mounts: &Mounts) -> Result<Fence, NfsError> {
        let server = self.server()?;
        let mut sessions = Vec::new();
        let is_new = book.fence(&fence.holder).is_none_or(|known| known.is_lifting);
        if fence.before.is_empty() && is_new {
            let directory = probing::directory_of(&fence.path);
            for directory in inside.iter().chain([&directory]) {
                book.left_behind(directory, &fence.probe_name);
            }
            self.store(book)?;
            (sessions, fence.before_lacking) = self.begin(server, &fence, mounts);
            fence.before = sessions.iter().map(probing::succeeded).collect();
            if fence.before.is_empty() {
                fence.before = self.shown_by_others(book, &fence);
            }
        }
        book.put(fence.clone());
        self.store(book)?;
        fault::hit("fence.booked").map_err(faulted)?;
        let carried = self.carry_out(book, Load::Always);
        fault::hit("fence.carried").map_err(faulted)?;
        let before = std::mem::take(&mut fence.proof);
        let mut proof = match (&carried, &server.table()) {
            (Ok(_), Ok(table)) => self.look(table, &fence, mounts, &mut sessions),
            (Err(error), _) | (Ok(_), Err(error)) => {
                Proof { lacking: vec![told(error)], at: now(), ..Proof::default() }
            }
        };
        without_before(&fence, &mut proof);
        proof.before = fence.before.clone();
        if proof.after.is_empty() && fence.shut == Shut::Refuse && before.is_proved() {
            // It was refused with EROFS just before the clients were refused altogether.
            proof.after = before.after;
        }
        drop(sessions);
        fence.proof = proof;
        // With what was found to lead there meanwhile.
        let exports = book.fence(&fence.holder).map(|it| it.exports.clone());
        fence.exports.extend(exports.unwrap_or_default());
        book.put(fence.clone());
        probing::sweep(book);
        self.store(book)?;
        if let Err(error) = carried {
            tracing::error!(fence = %fence.holder, "clients are not shut out: {}", told(&error));
        } else if fence.proof.is_proved() {
            tracing::warn!(fence = %fence.holder, path = %fence.path.display(), shut = %fence.shut, "clients are shut out, proved");
        } else {
            let lacking = fence.proof.lacking.join("; ");
            tracing::warn!(fence = %fence.holder, path = %fence.path.display(), shut = %fence.shut, "clients are shut out, not proved: {lacking}");
        }
        Ok(fence)
    }

    /// Lets the clients in again that were shut out for `holder`; exactly what stood in the files and in the server comes back.
    pub fn lift(&self, holder: &Holder) -> Result<Wanted, NfsError> {
        let _turn = self.turn()?;
        let mut book = self.open_book()?;
        let fence = book.fence_mut(holder).ok_or_else(|| NfsError::NotFenced(holder.to_string()))?;
        fence.is_lifting = true;
        let fence = fence.clone();
        self.store(&mut book)?;
        fault::hit("unfence.booked").map_err(faulted)?;
        let failed = |error: NfsError| NfsError::NotLifted { name: holder.to_string(), problem: told(&error) };
        self.carry_out(&mut book, Load::Always).map_err(failed)?;
        fault::hit("unfence.carried").map_err(faulted)?;
        let edited = book.abandoned.iter().filter(|change| fence.exports.contains(&change.export));
        let edited = edited.map(|change| crate::edit::shown(&change.original)).collect();
        close(&mut book);
        probing::sweep(&mut book);
        self.store(&mut book)?;
        tracing::warn!(fence = %holder, path = %fence.path.display(), "clients are let in again");
        let shares = |it: &&Fence| it.exports.intersection(&fence.exports).next().is_some();
        let still = book.fences.iter().filter(shares).map(|it| it.holder.clone()).collect();
        Ok(Wanted { edited, still })
    }
}

/// What is lifted is gone, and with it what was only known for its sake.
fn close(book: &mut Book) {
    book.fences.retain(|fence| !fence.is_lifting);
    let fences = &book.fences;
    book.abandoned.retain(|change| fences.iter().any(|fence| fence.exports.contains(&change.export)));
}

fn mounts() -> Result<Mounts, NfsError> {
    Mounts::read().map_err(|source| NfsError::File { what: "read", path: "/proc/self/mountinfo".into(), source })
}

fn place(mounts: &Mounts, path: &Path) -> Result<Place, NfsError> {
    mounts.place(path).map_err(|source| NfsError::Place { path: path.to_owned(), source })
}

/// Of exports, configured or in force, those that lead to a directory.
fn reaching(exported: &[(PathBuf, bool)], mounts: &Mounts, directory: &Place) -> Vec<(PathBuf, Reach)> {
    let reach = |(export, crosses): &(PathBuf, bool)| {
        let reach = mounts.reach(&mounts.place(export).ok()?, directory, *crosses)?;
        Some((export.clone(), reach))
    };
    let mut seen = BTreeSet::new();
    exported.iter().filter_map(reach).filter(|(export, _)| seen.insert(export.clone())).collect()
}

/// Whether exports that lead to more may be shut.
fn check_whole(
    asked: &Asked,
    reaching: &[(PathBuf, Reach)],
    mounts: &Mounts,
    owners: &[Owner],
) -> Result<(), NfsError> {
    let around = reaching.iter().filter(|(_, reach)| *reach == Reach::Around).map(|(export, _)| export);
    let around: Vec<&PathBuf> = around.collect();
    let Some(export) = around.first() else { return Ok(()) };
    let is_in = |owner: &&Owner| {
        let place = mounts.place(&owner.path).ok();
        let reaches = |export: &&PathBuf| {
            let at = mounts.place(export).ok();
            at.zip(place.clone()).is_some_and(|(at, place)| mounts.reach(&at, &place, true).is_some())
        };
        owner.path != asked.path && around.iter().any(reaches)
    };
    let mut others: Vec<String> = match asked.whole {
        Whole::Yes => return Ok(()),
        Whole::No => owners.iter().filter(is_in).map(|owner| owner.name.clone()).collect(),
        Whole::IfUnused => {
            let used = owners.iter().filter(is_in).filter(|owner| owner.is_used).map(|owner| owner.name.clone());
            let strange = around.iter().flat_map(|export| strangers(export, owners));
            let others: Vec<String> = used.chain(strange).collect();
            if others.is_empty() {
                return Ok(());
            }
            others
        }
    };
    others.truncate(OTHERS_SHOWN);
    Err(NfsError::Shared { path: asked.path.clone(), export: (*export).clone(), others })
}

/// Directories in an export that are no volumes, nor lead to one.
fn strangers(export: &Path, owners: &[Owner]) -> Vec<String> {
    let Ok(entries) = fs::read_dir(export) else { return vec![export.display().to_string()] };
    let directories = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let is_known = |path: &Path| {
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let of_owner = |owner: &Owner| owner.path.canonicalize().unwrap_or_else(|_| owner.path.clone());
        let mut paths = owners.iter().map(of_owner);
        paths.any(|owner| owner.starts_with(&path) || path.starts_with(&owner))
    };
    let is_strange = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default();
        name != ".drover" && name != "lost+found" && !is_known(path)
    };
    directories.map(|entry| entry.path()).filter(is_strange).map(|path| path.display().to_string()).collect()
}

/// Nothing can be shown then.
fn without_before(fence: &Fence, proof: &mut Proof) {
    if fence.before.is_empty() {
        let why = "no probe could write before: nothing tells a server that refuses from one that does not work. [nfs.probe] says where and as whom \
                   a probe writes; to prove it, unfence and fence again while one can";
        proof.lacking.splice(0..0, fence.before_lacking.iter().cloned().chain([why.to_owned()]));
        let mut seen = BTreeSet::new();
        proof.lacking.retain(|why| seen.insert(why.clone()));
    }
}
