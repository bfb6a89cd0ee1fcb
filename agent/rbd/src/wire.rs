//! Messages between the agent and a worker: a length of 4 bytes, little-endian, and that many bytes of JSON.

use std::{
    io::{self, Read, Write},
    time::{Duration, Instant},
};

use serde::{Serialize, de::DeserializeOwned};

/// Of an image with thousands of snapshots. More is refused before anything is allocated.
const MESSAGE_BYTES_MAX: usize = 8 << 20;

pub(crate) fn send(to: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message)?;
    let length = bytes.len() - 4;
    if length > MESSAGE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of {length} bytes")));
    }
    bytes[..4].copy_from_slice(&u32::try_from(length).expect("it is bounded").to_le_bytes());
    to.write_all(&bytes)
}

/// UnexpectedEof where the other side has gone.
pub(crate) fn receive<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<T> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MESSAGE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of {length} bytes")));
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// A stream whose reads end together at a deadline, with TimedOut.
pub(crate) struct Until<'a> {
    pub(crate) stream: &'a std::os::unix::net::UnixStream,
    pub(crate) deadline: Instant,
}

impl Read for Until<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left == Duration::ZERO {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        match (&mut &*self.stream).read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(io::ErrorKind::TimedOut.into()),
            read => read,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_message_arrives_as_it_was_sent() {
        let mut buffer = Vec::new();
        send(&mut buffer, &vec!["a", "ä"]).unwrap();
        assert_eq!(receive::<Vec<String>>(&mut &buffer[..]).unwrap(), ["a", "ä"]);
    }

    #[test]
    fn a_length_beyond_the_bound_is_refused_before_it_is_allocated() {
        let error = receive::<String>(&mut &[0xff; 8][..]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn half_a_message_does_not_outlast_the_deadline() {
        let (near, mut far) = UnixStream::pair().unwrap();
        far.write_all(&[9, 0, 0, 0, b'"']).unwrap();
        let deadline = Instant::now() + Duration::from_millis(50);
        let error = receive::<String>(&mut Until { stream: &near, deadline }).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(Instant::now() >= deadline);
    }
}
