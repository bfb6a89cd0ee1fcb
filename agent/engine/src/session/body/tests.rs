//! Both sides over a local link, with real files.

mod broken;
mod codec;
mod large;
mod moving;
mod small;

use std::{
    collections::HashMap,
    fs::{self, File},
    path::PathBuf,
    thread,
};

use bytes::Bytes;
use drover_linux::{Dir, FileHandle, file::data_ranges};

use super::{BodyError, Dest, Fetch, Fetched, Leftovers, Limits, Replica, Server, Way, fetch};
use crate::{
    bases::Bases,
    control::Control,
    hash::hash_file,
    path::RelPath,
    session::{Link, LinkClosed, LocalLink, Message, Wire},
    tree::Body,
};

const MIB: usize = 1 << 20;

fn rel(path: &str) -> RelPath {
    RelPath::new(path.as_bytes()).unwrap()
}

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut content = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut content);
    content
}

/// A source, a live replica and a staging directory.
struct Rig {
    temp: tempfile::TempDir,
    source: Dir,
    live: Dir,
    staging: Dir,
    handles: HashMap<RelPath, FileHandle>,
    leftovers: Leftovers,
    control: Control,
    limits: Limits,
    /// Of the source and of the replica.
    bases: Option<(Bases, Bases)>,
    /// The source keeps what it knows of pages.
    has_pages: bool,
    /// Bytes of both directions of the last run.
    moved: u64,
}

impl Rig {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let open = |name: &str| {
            fs::create_dir(temp.path().join(name)).unwrap();
            Dir::open(&temp.path().join(name)).unwrap()
        };
        let (source, live, staging) = (open("source"), open("live"), open("staging"));
        let (handles, leftovers, control) = (HashMap::new(), Leftovers::None, Control::default());
        let limits = Limits { in_flight_bytes: 16 << 20, threads: 3 };
        Self {
            temp,
            source,
            live,
            staging,
            handles,
            leftovers,
            control,
            limits,
            bases: None,
            has_pages: false,
            moved: 0,
        }
    }

    fn path(&self, side: &str, name: &str) -> PathBuf {
        self.temp.path().join(side).join(name)
    }

    fn write(&self, side: &str, name: &str, content: &[u8]) {
        let path = self.path(side, name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn body(&self, side: &str, name: &str) -> Body {
        let file = File::open(self.path(side, name)).unwrap();
        let size = file.metadata().unwrap().len();
        hash_file(&file, size, &Control::default()).unwrap()
    }

    /// A fetch of the source's file as it is now, to the same place.
    fn want(&self, name: &str) -> Fetch {
        let path = rel(name);
        let (dir, name_only) = path.split().unwrap();
        let staged = self.path("staging", "").join(std::str::from_utf8(dir.as_bytes()).unwrap());
        fs::create_dir_all(staged).unwrap();
        let base = self.path("live", name).exists().then(|| path.clone());
        Fetch {
            body: self.body("source", name),
            path,
            base,
            base_body: None,
            dest: Dest { dir, name: name_only },
            way: Way::Whole,
        }
    }

    fn replica(&self) -> Replica<'_> {
        let bases = self.bases.as_ref().map(|(_, replica)| replica);
        // Patches are tested by whole syncs.
        Replica { live: &self.live, staging: &self.staging, patches: &self.staging, bases }
    }

    /// As agents have them that both saw the file as `live` holds it, and then scanned the source.
    fn with_bases(&mut self, name: &str) -> Fetch {
        let open = |side| {
            fs::create_dir(self.path(side, "")).unwrap();
            Bases::open(&Dir::open(&self.path(side, "")).unwrap(), false).unwrap()
        };
        let (source, replica) = (open("source-beside"), open("replica-beside"));
        let read = |bases: &Bases, side, before| {
            let file = File::open(self.path(side, name)).unwrap();
            let size = file.metadata().unwrap().len();
            bases.read(&file, size, before, &Control::default()).unwrap().body
        };
        let before = read(&replica, "live", None);
        assert_eq!(read(&source, "live", None), before);
        if self.has_pages {
            source.set_pages(true).unwrap();
            assert_eq!(read(&source, "live", Some(before.digest)), before);
        }
        let body = read(&source, "source", Some(before.digest));
        let want = self.want(name);
        assert_eq!(body, want.body);
        self.bases = Some((source, replica));
        Fetch { base_body: Some(before), ..want }
    }

    fn run(&mut self, fetches: &[Fetch]) -> Result<Vec<Fetched>, BodyError> {
        self.run_over(fetches, |link| Box::new(link))
    }

    fn run_over(
        &mut self,
        fetches: &[Fetch],
        wrap: impl FnOnce(LocalLink) -> Box<dyn Link> + Send,
    ) -> Result<Vec<Fetched>, BodyError> {
        let (near, far) = LocalLink::pair();
        let far_control = Control::default();
        let bases = self.bases.as_ref().map(|(source, _)| source);
        let (result, _) = thread::scope(|scope| {
            let serving = scope.spawn(|| serve(far, &self.source, bases, &self.handles, &far_control, &self.limits));
            let link = wrap(near);
            let wire = Wire::new(&*link, &self.control);
            let result = fetch(&wire, fetches, self.replica(), self.leftovers, &self.limits);
            drop(link);
            (result, serving.join().unwrap())
        });
        let progress = &far_control.progress;
        self.moved = progress.wire_sent.get() + progress.wire_received.get();
        result
    }

    fn is_staged(&self, name: &str) {
        let (source, staged) = (self.path("source", name), self.path("staging", name));
        let ranges = |path| {
            let file = File::open(path).unwrap();
            data_ranges(&file, file.metadata().unwrap().len()).unwrap()
        };
        // Before they are read: XFS tells preallocated blocks that were read into the page cache as data.
        assert_eq!(ranges(&source), ranges(&staged), "{name}: data and holes");
        assert!(fs::read(&source).unwrap() == fs::read(&staged).unwrap(), "{name} differs");
    }
}

/// What the source's loop does with bodies, until the link closes.
fn serve(
    link: LocalLink,
    root: &Dir,
    bases: Option<&Bases>,
    handles: &HashMap<RelPath, FileHandle>,
    control: &Control,
    limits: &Limits,
) -> Result<(), BodyError> {
    let wire = Wire::new(&link, control);
    thread::scope(|scope| {
        let server = Server::new(scope, root, bases, handles, &wire, limits);
        while let Ok(Message::Body(body)) = wire.receive() {
            server.handle(body)?;
        }
        server.finish()
    })
}
