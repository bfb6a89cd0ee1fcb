//! `drover-agent points`: restore points of the copy on this host, read without moving the replica.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, IsTerminal as _},
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        fs::OpenOptionsExt as _,
    },
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use clap::{Args, Subcommand};
use drover_engine::{control::Control, digest::Digest, hash::hash_file, patch::lay_over};
use drover_linux::{Kind, file};
use drover_proto::v1::{
    ListRestorePointsRequest, LocateContentRequest, LocateContentResponse, RestorePoint, sync_client::SyncClient,
};
use drover_report::{Bytes, Exit, Moment};
use rustix::fs::OFlags;
use tonic::transport::Channel;

use crate::{
    cli::ConfigArgs,
    config::Config,
    volume_cli::{VolumeCliError, connect, failed, resolve, runtime},
};

#[derive(Clone, Debug, Args)]
pub struct PointsArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Debug, Subcommand)]
enum Verb {
    /// Print the restore points of the copy on this host, newest first
    List {
        /// Id, 8 or more characters of its beginning, or ROOT/PATH
        volume: String,
    },
    /// Write the content of a restore point to a new file, proved by its digest; the replica stays as it is
    #[command(after_help = "\
Examples:
  drover-agent points export images/vm1.img 12 /var/tmp/vm1-before.img
  drover-agent points export nfs/pvc-1 12 /var/tmp/report.ods --file docs/report.ods

The file shares its blocks with the point on XFS and btrfs; holes stay holes.")]
    Export {
        #[command(flatten)]
        content: Content,
        /// File to make; it must not exist
        path: PathBuf,
    },
    /// Attach the content of a restore point to a read-only loop device and print its name
    #[command(after_help = "\
Example:
  dev=$(drover-agent points attach images/vm1.img 12) && mount -o ro,norecovery $dev /mnt
  umount /mnt && losetup --detach $dev

The device has a copy of its own, which has no name and goes with it (blocks are shared on XFS and btrfs): it stays as it is,
whatever is synced, rolled back or expires meanwhile.")]
    Attach {
        #[command(flatten)]
        content: Content,
    },
}

#[derive(Clone, Debug, Args)]
struct Content {
    /// Id, 8 or more characters of its beginning, or ROOT/PATH
    volume: String,
    /// Point as `list` prints it
    point: String,
    /// File in a directory volume
    #[arg(long, value_name = "PATH")]
    file: Option<OsString>,
}

/// Makes its own runtime.
pub fn run(args: PointsArgs) -> ExitCode {
    match act(&args) {
        Ok(said) => {
            print!("{said}");
            Exit::Ok.into()
        }
        Err(error) => failed(&error),
    }
}

fn act(args: &PointsArgs) -> Result<String, VolumeCliError> {
    let config = Config::load(&args.config.config)?;
    let runtime = runtime()?;
    let channel = runtime.block_on(connect(&config))?;
    match &args.verb {
        Verb::List { volume } => runtime.block_on(list(channel, volume)),
        Verb::Export { content, path } => {
            let source = proved(&runtime, &channel, content)?;
            export(&source, path)?;
            Ok(format!("{}\n", path.display()))
        }
        Verb::Attach { content } => attach(&proved(&runtime, &channel, content)?),
    }
}

async fn list(channel: Channel, volume: &str) -> Result<String, VolumeCliError> {
    let volume_id = resolve(channel.clone(), volume).await?;
    let answer = SyncClient::new(channel).list_restore_points(ListRestorePointsRequest { volume_id }).await?;
    let line = |restorable: RestorePoint| {
        let point = restorable.point?;
        let note = match (restorable.current, point.lost_paths.is_empty(), restorable.on_copy) {
            (true, ..) => "  current",
            (false, false, _) => "  lost: the copy that it was a difference from was written to",
            (false, true, true) => "  a difference from the copy: ends when others write to that",
            (false, true, false) => "",
        };
        let taken = Moment(point.taken_at_unix_secs);
        Some(format!("{:<8}  {taken}  {:>10}{note}\n", point.id, Bytes(point.bytes).to_string()))
    };
    let answer = answer.into_inner();
    if answer.points.is_empty() {
        eprintln!("this copy has no restore points; those of a primary are at its peer");
    }
    Ok(answer.points.into_iter().filter_map(line).collect())
}

/// Open content, and what it is.
struct Proved {
    file: File,
    path: PathBuf,
    located: LocateContentResponse,
}

/// Content may move between the answer and the look: then the answer is another one.
fn proved(runtime: &tokio::runtime::Runtime, channel: &Channel, content: &Content) -> Result<Proved, VolumeCliError> {
    const TRIES: u32 = 3;
    let volume_id = runtime.block_on(resolve(channel.clone(), &content.volume))?;
    let mut last = None;
    for _ in 0..TRIES {
        let request = LocateContentRequest {
            volume_id: volume_id.clone(),
            point_id: content.point.clone(),
            path: content.file.as_ref().map(|file| file.as_bytes().to_vec().into()),
        };
        let located = runtime.block_on(SyncClient::new(channel.clone()).locate_content(request))?.into_inner();
        let mut path = path_of(&located.file);
        let mut flags = OFlags::NONBLOCK.union(OFlags::NOFOLLOW);
        // Devices have symlinks for names, and are read from the disk.
        if let Ok(real) = path.canonicalize()
            && real.starts_with("/dev")
        {
            (path, flags) = (real, flags.union(OFlags::DIRECT));
        }
        match OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(&path) {
            // What is made of it is proved once it is made.
            Ok(file) if !located.deltas.is_empty() => return Ok(Proved { file, path, located }),
            Ok(file) if is_content(&file, &path, &located)? => return Ok(Proved { file, path, located }),
            Ok(_) => last = Some(VolumeCliError::NotThePoint { path }),
            Err(source) => last = Some(VolumeCliError::File { what: "open", path, source }),
        }
    }
    Err(last.expect("there is one try at least"))
}

fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes.to_vec()))
}

fn is_content(file: &File, path: &Path, located: &LocateContentResponse) -> Result<bool, VolumeCliError> {
    let at = |source| VolumeCliError::File { what: "read", path: path.to_owned(), source };
    let wanted: Digest = located.digest.parse().map_err(|_| VolumeCliError::Answer)?;
    let stat = file::stat(file).map_err(at)?;
    if stat.kind != Kind::File || stat.size != located.size {
        return Ok(false);
    }
    let control = Control::default();
    let read = showing(&control, located.size, || hash_file(file, located.size, &control)).map_err(at)?;
    Ok(read.digest == wanted)
}

/// Says on a terminal how far the reading is.
fn showing<T>(control: &Control, total: u64, work: impl FnOnce() -> T) -> T {
    const EVERY: Duration = Duration::from_millis(500);
    if !io::stderr().is_terminal() {
        return work();
    }
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let shown = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                std::thread::park_timeout(EVERY);
                eprint!("\rproving {} of {} ", Bytes(control.progress.bytes_done.get()), Bytes(total));
            }
            eprintln!();
        });
        let done = work();
        is_over.store(true, Ordering::Relaxed);
        shown.thread().unpark();
        done
    })
}

fn export(source: &Proved, path: &Path) -> Result<(), VolumeCliError> {
    let at = |source| VolumeCliError::File { what: "write", path: path.to_owned(), source };
    let copy = OpenOptions::new().write(true).read(true).create_new(true).mode(0o600).open(path);
    let copy = copy.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => VolumeCliError::Exists { path: path.to_owned() },
        _ => at(error),
    })?;
    let exported = copy_content(source, &copy).map_err(at).and_then(|()| {
        match is_content(&copy, path, &source.located)? {
            true => Ok(()),
            // It changed after it was proved.
            false => Err(VolumeCliError::NotThePoint { path: source.path.clone() }),
        }
    });
    if exported.is_err() {
        // Nothing is left that looks like the point and is none.
        let _ = fs::remove_file(path);
    }
    exported
}

fn copy_content(source: &Proved, copy: &File) -> io::Result<()> {
    file::copy_content(&source.file, copy, file::stat(&source.file)?.size)?;
    for delta in &source.located.deltas {
        lay_over(copy, &path_of(&delta.ranges), &path_of(&delta.data))?;
    }
    copy.sync_all()
}

/// By losetup(8), which finds a free device and can set it read-only at once. The device gets a copy, because a rollback
/// puts the point's own file back into the tree, where it may be written to; it is named by its descriptor alone.
fn attach(source: &Proved) -> Result<String, VolumeCliError> {
    use std::os::fd::AsRawFd as _;
    let at = |what| move |error| VolumeCliError::File { what, path: source.path.clone(), source: error };
    let bytes = source.located.size;
    if !bytes.is_multiple_of(512) || bytes == 0 {
        return Err(VolumeCliError::NoSectors { bytes });
    }
    let dir = path_of(&source.located.scratch);
    let flags = OFlags::TMPFILE.bits().cast_signed();
    let copy = OpenOptions::new().read(true).write(true).custom_flags(flags).mode(0o600).open(dir);
    let copy = copy.map_err(at("make a copy of"))?;
    copy_content(source, &copy).map_err(at("copy"))?;
    if !is_content(&copy, &source.path, &source.located)? {
        return Err(VolumeCliError::NotThePoint { path: source.path.clone() });
    }
    let own = format!("/proc/{}/fd/{}", std::process::id(), copy.as_raw_fd());
    let output = Command::new("losetup").args(["--read-only", "--find", "--show", &own]).output();
    let output = output.map_err(at("run losetup (util-linux) on"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(at("attach")(io::Error::other(said)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
