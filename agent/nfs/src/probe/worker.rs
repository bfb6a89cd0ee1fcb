//! The process of a probe: orders come as lines of JSON on its standard input, a socket, and their answers go back the same way.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    os::{fd::AsFd as _, unix::net::UnixStream},
    time::Duration,
};

use drover_libnfs::{Error, Libnfs, Mount, Protocol, Server};
use rustix::io::Errno;

use super::{Attempt, Order, Target};

const CONTENT: &[u8] = b"drover\n";

/// Until the other end goes.
pub fn serve() -> io::Result<()> {
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut orders = BufReader::new(socket.try_clone()?).lines();
    let mut answers = socket;
    let mut answer = |attempts: &[Attempt]| {
        let mut line = serde_json::to_string(attempts)?;
        line.push('\n');
        answers.write_all(line.as_bytes())
    };
    let Some(first) = orders.next().transpose()? else { return Ok(()) };
    let Ok(Order::Begin { target, name }) = serde_json::from_str(&first) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let mount = match mount(&target) {
        Ok(mount) => mount,
        Err(refused) => return answer(&[refused]),
    };
    let path = |name: &str| format!("{}/{name}", target.directory);
    // With libnfs 4.0 what making a file opens can't be written to.
    let made = mount.create(&path(&name), 0o600).map(drop);
    let file = match made.and_then(|()| mount.open(&path(&name))) {
        Ok(file) => file,
        Err(error) => return answer(&[done("mount"), of("make a file", Err(error))]),
    };
    answer(&[
        done("mount"),
        done("make a file"),
        of("write to it", file.write(CONTENT, 0)),
        of("sync it", file.sync()),
    ])?;
    for order in orders {
        let attempts = match serde_json::from_str(&order?)? {
            Order::Begin { .. } => return Err(io::ErrorKind::InvalidData.into()),
            Order::Again { name } => {
                // As a client that comes anew; what was refused in one leaves libnfs 4.0 in disorder.
                let another = match self::mount(&target) {
                    Ok(mount) => of("make another file", mount.create(&path(&name), 0o600).map(drop)),
                    Err(refused) => refused,
                };
                vec![of("write to the open file", write_again(&file)), another]
            }
            Order::Remove => vec![of("remove the file", mount.remove(&path(&name)))],
        };
        answer(&attempts)?;
    }
    Ok(())
}

fn mount(target: &Target) -> Result<Mount, Attempt> {
    let library = Libnfs::load().map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        Attempt { step: "load libnfs".to_owned(), errno: Errno::NOENT.raw_os_error(), said: format!("{error}{cause}") }
    })?;
    let server = Server {
        host: target.host.clone(),
        port: target.port,
        mount_port: target.mount_port,
        protocol: if target.version == 3 { Protocol::V3 } else { Protocol::V4 },
        uid: target.uid,
        gid: target.gid,
        patience: Duration::from_millis(target.patience_millis),
    };
    library.mount(&server, &target.export).map_err(|error| of("mount", Err(error)))
}

/// The server may take a write and refuse to keep it.
fn write_again(file: &drover_libnfs::File<'_>) -> Result<(), Error> {
    match (file.write(CONTENT, 0), file.sync()) {
        (Ok(()), Ok(())) => Ok(()),
        // libnfs 4.0 says EFAULT of a write that NFSv3 refused, and the right thing of the sync.
        (Err(error), Err(synced)) if synced.errno == Errno::ROFS => Err(Error { message: error.message, ..synced }),
        (Err(error), _) | (_, Err(error)) => Err(error),
    }
}

fn done(step: &str) -> Attempt {
    Attempt { step: step.to_owned(), errno: 0, said: String::new() }
}

fn of(step: &str, result: Result<(), Error>) -> Attempt {
    match result {
        Ok(()) => done(step),
        Err(error) => {
            Attempt { step: step.to_owned(), errno: error.errno.raw_os_error().max(1), said: error.to_string() }
        }
    }
}
