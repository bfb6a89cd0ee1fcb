//! Ports on loopback for servers that tests start, kill and start again.

use std::{
    net::{Ipv4Addr, TcpListener},
    ops::RangeInclusive,
    process,
    sync::{Mutex, PoisonError},
};

/// Below the range that the kernel gives to connections, so that nothing takes one by chance while its server is down.
const FIRST: u16 = 12_000;
const LAST: u16 = 32_000;
/// A Ceph cluster with its clients listens on about 20.
const BLOCK: u16 = 64;

/// Neighbouring ports that nobody else is given while this lives, nor another process.
#[derive(Debug)]
pub struct Block {
    /// Holds the first port: the next who wants the block can't bind it.
    claim: TcpListener,
}

impl Block {
    pub fn claim() -> Self {
        let blocks = (LAST - FIRST) / BLOCK;
        let start = (process::id() % u32::from(blocks)) as u16;
        let claimed = (0..blocks).find_map(|step| {
            let first = FIRST + (start + step) % blocks * BLOCK;
            TcpListener::bind((Ipv4Addr::LOCALHOST, first)).ok()
        });
        Self { claim: claimed.expect("a free block of ports") }
    }

    /// Those that may be listened on.
    pub fn ports(&self) -> RangeInclusive<u16> {
        let first = self.claim.local_addr().expect("a bound port").port();
        first + 1..=first + (BLOCK - 1)
    }
}

/// A port that nobody listens on, and that nobody else is given while this process lives.
pub fn free_port() -> u16 {
    /// The newest is given from; the others are kept claimed.
    static GIVEN: Mutex<Vec<(Block, RangeInclusive<u16>)>> = Mutex::new(Vec::new());
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let left = given.last_mut().map(|(_, left)| left).into_iter().flatten();
        if let Some(port) = { left }.find(|&port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()) {
            return port;
        }
        let block = Block::claim();
        let ports = block.ports();
        given.push((block, ports));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{BLOCK, FIRST, LAST, free_port};

    #[test]
    fn ports_differ_also_past_the_end_of_a_block_and_are_not_given_to_connections() {
        let ports: HashSet<u16> = (0..BLOCK * 2).map(|_| free_port()).collect();
        assert_eq!(ports.len(), usize::from(BLOCK) * 2);
        assert!(ports.iter().all(|port| (FIRST..LAST).contains(port)), "{ports:?}");
        let of_connections = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
        let first: u16 = of_connections.split_whitespace().next().unwrap().parse().unwrap();
        assert!(LAST <= first, "the kernel gives ports from {first} on to connections");
    }
}
