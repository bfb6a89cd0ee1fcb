//! Messages between the agent and a worker: a length of 4 bytes, little-endian, and that many bytes, of JSON but in the midst of a data
//! call (`crate::data`).

use std::{
    io::{self, Read, Write},
    time::{Duration, Instant},
};

use serde::{Serialize, de::DeserializeOwned};

/// Of an image with thousands of snapshots. More is refused before anything is allocated.
const MESSAGE_BYTES_MAX: usize = 8 << 20;

pub(crate) fn send(to: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    send_bytes(to, &[&serde_json::to_vec(message)?])
}

/// The parts as one message.
pub(crate) fn send_bytes(to: &mut impl Write, parts: &[&[u8]]) -> io::Result<()> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    if length > MESSAGE_BYTES_MAX {
        return Err(too_long(length));
    }
    to.write_all(&u32::try_from(length).expect("it is bounded").to_le_bytes())?;
    parts.iter().try_for_each(|part| to.write_all(part))
}

fn too_long(length: usize) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a message of {length} bytes"))
}

/// UnexpectedEof where the other side has gone.
pub(crate) fn receive<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<T> {
    Ok(serde_json::from_slice(&receive_bytes(from)?)?)
}

pub(crate) fn receive_bytes(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MESSAGE_BYTES_MAX {
        return Err(too_long(length));
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
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
