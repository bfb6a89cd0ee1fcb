//! The worker's side: one connection to one cluster, one call at a time, until the agent closes the socket.

mod csi;
mod cut;
mod data;
mod image;
mod mirroring;
mod pool;

use std::{
    io,
    os::{fd::AsFd, unix::net::UnixStream},
    sync::mpsc::Receiver,
    thread,
    time::Duration,
};

use bytes::Bytes;
use drover_librbd::{Access, Ceph, Cluster, Image, Timeouts};
use rustix::process::{Signal, getpid, kill_process};

use crate::{
    data::{DataRequest, Ended, Part},
    request::{Connect, Connected, Failure, FailureKind, Reply, Request},
    view::ImagePlace,
    wire,
};

/// Nothing that takes longer is worth waiting for, other than a change that may need a dead client's lock.
pub(crate) const CONNECTING: Duration = Duration::from_secs(15);

/// Serves the agent at the other end of standard input; ends when it has gone.
pub fn serve() -> io::Result<()> {
    let mut socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let connect: Connect = wire::receive(&mut socket)?;
    let opened = open(&connect);
    let (cluster, told) = match opened {
        Ok((cluster, connected)) => (Some(cluster), Ok(connected)),
        Err(failure) => (None, Err(failure)),
    };
    let told: Result<Connected, Failure> = told;
    wire::send(&mut socket, &told)?;
    let Some(cluster) = cluster else { return Ok(()) };
    let (messages, queue) = std::sync::mpsc::sync_channel::<Vec<u8>>(FRAMES_WAITING);
    let mut reading = socket.try_clone()?;
    // The main thread may hang in librados for ever: this one sees that the agent has gone, and ends the process. It
    // must not exit: that would destroy what the threads of librados are using, and one of them would dump core.
    thread::Builder::new().name("requests".to_owned()).spawn(move || {
        while let Ok(message) = wire::receive_bytes(&mut reading) {
            if messages.send(message).is_err() {
                break;
            }
        }
        let _ = kill_process(getpid(), Signal::KILL);
    })?;
    let mut held = Held::default();
    while let Ok(message) = queue.recv() {
        match serde_json::from_slice(&message)? {
            Request::Data(request) => {
                let frames = &mut Frames { socket: &socket, queue: &queue, has_ended: false };
                move_content(&cluster, &held, request, frames)?;
            }
            request => {
                let answer: Result<Reply, Failure> = carry_out(&cluster, &mut held, request);
                wire::send(&mut socket, &answer)?;
            }
        }
    }
    Ok(())
}

/// An image that is kept open.
#[derive(Default)]
struct Held {
    image: Option<(ImagePlace, Image)>,
    /// Others are kept out.
    is_alone: bool,
}

impl Held {
    fn of(&self, place: &ImagePlace) -> Option<&Image> {
        self.image.as_ref().filter(|(held, _)| held == place).map(|(_, image)| image)
    }

    /// To change what it holds, by whom it is kept for.
    fn alone(&self, place: &ImagePlace) -> Result<&Image, Failure> {
        let image = self.of(place).filter(|_| self.is_alone).ok_or_else(|| not_held(place))?;
        match image.is_lock_owner()? {
            true => Ok(image),
            false => Err(Failure {
                call: "rbd_is_exclusive_lock_owner".to_owned(),
                kind: FailureKind::Other,
                message: format!("the lock of {place} was lost: somebody else may have written to it"),
            }),
        }
    }

    fn let_go(&mut self) -> Result<(), drover_librbd::Error> {
        self.is_alone = false;
        self.image.take().map_or(Ok(()), |(_, image)| image.close())
    }
}

fn not_held(place: &ImagePlace) -> Failure {
    let (call, message) = ("rbd_lock_acquire".to_owned(), format!("{place} is not held by this worker"));
    Failure { call, kind: FailureKind::Other, message }
}

/// Frames of an agent that are read before they are asked for.
const FRAMES_WAITING: usize = 4;

/// Of one data call.
struct Frames<'a> {
    socket: &'a UnixStream,
    queue: &'a Receiver<Vec<u8>>,
    has_ended: bool,
}

impl data::Agent for Frames<'_> {
    fn frame(&mut self) -> io::Result<Option<Bytes>> {
        if self.has_ended {
            return Ok(None);
        }
        let message = self.queue.recv().map_err(|_| io::ErrorKind::BrokenPipe)?;
        match Part::parse(message) {
            Some(Part::Frame(frame)) => Ok(Some(frame)),
            Some(Part::End(_)) => {
                self.has_ended = true;
                Ok(None)
            }
            None => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn send(&mut self, frame: Vec<u8>) -> io::Result<()> {
        Part::Frame(frame.into()).send(&mut &*self.socket)
    }
}

/// After a failure the agent's frames that are on their way still belong to nothing: this worker ends.
fn move_content(cluster: &Cluster, held: &Held, request: DataRequest, frames: &mut Frames<'_>) -> io::Result<()> {
    let (ended, is_usable) = match data::carry_out(cluster, held, request, frames) {
        // The end of what a call does not ask for.
        Ok(totals) => (Ended::Done(totals), data::Agent::frame(frames)?.is_none()),
        Err(failure) => (Ended::Failed(failure), false),
    };
    Part::End(serde_json::to_vec(&ended)?.into()).send(&mut &*frames.socket)?;
    // Until the agent has read it.
    while !is_usable && frames.queue.recv().is_ok() {}
    Ok(())
}

fn open(connect: &Connect) -> Result<(Cluster, Connected), Failure> {
    let ceph = Ceph::load().map_err(|error| Failure {
        call: "dlopen".to_owned(),
        kind: FailureKind::NotFound,
        message: error.to_string(),
    })?;
    let mut configuration = ceph.configure(&connect.user)?;
    configuration.conf_file(&connect.conf)?;
    if let Some(keyring) = &connect.keyring {
        configuration.keyring(keyring)?;
    }
    let timeout = connect.timeout;
    configuration.timeouts(Timeouts { connect: timeout.min(CONNECTING), monitor: timeout, osd: timeout })?;
    let cluster = configuration.connect()?;
    let connected =
        Connected { fsid: cluster.fsid()?, address: cluster.address()?, rbd_version: ceph.rbd_version().to_string() };
    Ok((cluster, connected))
}

fn carry_out(cluster: &Cluster, held: &mut Held, request: Request) -> Result<Reply, Failure> {
    match request {
        Request::Check => cluster.check()?,
        Request::Data(_) => unreachable!("a data call is no call"),
        Request::Look(place) => return Ok(Reply::Image(Box::new(image::look(cluster, &place)?))),
        Request::LookAtContent(place) => {
            let content = match held.of(&place) {
                Some(image) => image::content_of(image)?,
                None => image::content(cluster, &place)?,
            };
            return Ok(Reply::Content(content));
        }
        Request::Hold(place) => {
            held.let_go()?;
            let image = image::open(cluster, &place, Access::ReadWrite)?;
            held.image = Some((place, image));
        }
        Request::KeepOthersOut(place) => {
            // Until it is closed: librbd does not hand the lock over then, and refuses writes of others.
            held.of(&place).ok_or_else(|| not_held(&place))?.acquire_lock()?;
            held.is_alone = true;
        }
        Request::LetGo => held.let_go()?,
        Request::Create { place, size_bytes, order } => image::create(cluster, &place, size_bytes, order)?,
        Request::LookAtUsers(place) => {
            let users = match held.of(&place) {
                Some(image) => image::users_of(cluster, image)?,
                None => image::users(cluster, &place)?,
            };
            return Ok(Reply::Users(users));
        }
        Request::ImagesOf { place, address } => return Ok(Reply::Images(image::images_of(cluster, &place, &address)?)),
        Request::Blocklisted => return Ok(Reply::Record(pool::blocklisted(cluster)?)),
        Request::LookAtSites(place) => return Ok(Reply::Sites(image::sites(cluster, &place)?)),
        Request::ReadRecord { pool, namespace, object } => {
            return Ok(Reply::Record(pool::read_record(cluster, &pool, &namespace, &object)?));
        }
        Request::ReadKey { pool, namespace, object, key } => {
            return Ok(Reply::Record(pool::read_key(cluster, &pool, &namespace, &object, &key)?));
        }
        Request::Schedules(place) => return Ok(Reply::Schedules(pool::schedules(cluster, &place)?)),
        Request::TakeMirrorSnapshot(place) => {
            return Ok(Reply::Snapshot(image::take_mirror_snapshot(cluster, &place)?));
        }
        Request::ExchangeRecord { place, object, expected, value } => {
            let (expected, value) = (expected.as_deref(), value.as_deref());
            return Ok(Reply::Exchanged(pool::exchange_record(cluster, &place, &object, expected, value)?));
        }
        Request::Lead { pool, namespace, name, time } => {
            return Ok(Reply::Leads(pool::lead(cluster, &pool, &namespace, &name, time)?));
        }
        Request::RepairCsi(place) => return Ok(Reply::Repaired(csi::repair(cluster, &place)?)),
        Request::RemoveSchedule { place, interval } => pool::remove_schedule(cluster, &place, &interval)?,
        Request::EnableMirroring(place) => image::enable(cluster, &place)?,
        Request::Promote { place, force } => image::promote(cluster, &place, force)?,
        Request::Demote(place) => image::demote(cluster, &place)?,
        Request::DisableMirroring { place, force } => image::disable(cluster, &place, force)?,
        Request::RemoveSnapshot { place, id } => match held.of(&place) {
            Some(image) => image.remove_snapshot_by_id(id)?,
            None => image::remove_snapshot(cluster, &place, id)?,
        },
        Request::Cut(wanted) => return cut::cut(cluster, &wanted),
        Request::LeaveGroup { place, group, homes } => cut::leave(cluster, &group, &place, &homes)?,
        Request::Clone { place, snapshot, child } => image::clone(cluster, &place, &snapshot, &child)?,
        Request::SetMetadata { place, key, value } => image::set_metadata(cluster, &place, &key, &value)?,
        Request::MarkNonPrimary { place, image_id, is_non_primary } => {
            image::pool(cluster, &place.pool, &place.namespace)?.mark_non_primary(&image_id, is_non_primary)?;
        }
        Request::Flatten(place) => image::flatten(cluster, &place)?,
        Request::RemoveUnused(place) => image::remove_unused(cluster, &place)?,
        Request::Rename { place, to } => {
            image::pool(cluster, &place.pool, &place.namespace)?.rename(&place.image, &to)?;
        }
        Request::TakeSnapshot { place, name } => {
            let size_bytes = match held.of(&place) {
                Some(_) if held.is_alone => {
                    let size_bytes = image::take_snapshot_of(held.alone(&place)?, &name)?;
                    // librbd asks whoever has the lock to make one: it would be of what he has written as well.
                    held.alone(&place)?;
                    size_bytes
                }
                Some(image) => image::take_snapshot_of(image, &name)?,
                None => image::take_snapshot(cluster, &place, &name)?,
            };
            return Ok(Reply::Size(size_bytes));
        }
        Request::WriteRecord { pool, namespace, object, key, value } => {
            pool::write_record(cluster, &pool, &namespace, &object, &key, value.as_deref())?;
        }
        Request::LookAtPool(place) => return Ok(Reply::Pool(Box::new(mirroring::look(cluster, &place)?))),
        Request::PruneTrash { place, rest } => return Ok(Reply::Gone(pool::prune_trash(cluster, &place, rest)?)),
        Request::SetPoolMode { place, is_enabled } => mirroring::set_mode(cluster, &place, is_enabled)?,
        Request::SetSiteName(name) => cluster.set_site_name(&name)?,
        Request::CreatePeerToken(place) => return Ok(Reply::Token(mirroring::create_token(cluster, &place)?)),
        Request::ImportPeerToken { place, token, is_both } => mirroring::import(cluster, &place, token, is_both)?,
        Request::RemovePeer { place, uuid } => mirroring::remove_peer(cluster, &place, &uuid)?,
        Request::Blocklist { address, time } => cluster.blocklist_add(&address, time)?,
        Request::ShutOut { place, address, time } => pool::shut_out(cluster, &place, &address, time)?,
        Request::Unblocklist { address } => pool::unblocklist(cluster, &address)?,
        Request::BreakLock { place, address } => image::break_lock(cluster, &place, &address)?,
    }
    Ok(Reply::Done)
}
