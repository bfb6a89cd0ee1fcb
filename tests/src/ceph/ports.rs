//! Ports on loopback that one cluster has for itself while it lives.

use std::{
    net::{Ipv4Addr, TcpListener},
    process,
};

/// Below the range that the kernel gives to connections, so that nothing takes them by chance.
const FIRST: u16 = 12_000;
const LAST: u16 = 32_000;
/// A cluster with its clients listens on about 20.
const BLOCK: u16 = 64;

#[derive(Debug)]
pub(super) struct Ports {
    /// Holds the first port of the block: another test's bind of it fails, also from another process.
    claim: TcpListener,
}

impl Ports {
    pub(super) fn claim() -> Self {
        let blocks = (LAST - FIRST) / BLOCK;
        let start = (process::id() % u32::from(blocks)) as u16;
        let claimed = (0..blocks).find_map(|step| {
            let first = FIRST + (start + step) % blocks * BLOCK;
            TcpListener::bind((Ipv4Addr::LOCALHOST, first)).ok()
        });
        Self { claim: claimed.expect("a free block of ports") }
    }

    fn first(&self) -> u16 {
        self.claim.local_addr().expect("a bound port").port()
    }

    /// As Ceph writes the addresses of a monitor that speaks both versions of the protocol.
    pub(super) fn monitor(&self) -> String {
        let first = self.first();
        format!("[v2:127.0.0.1:{},v1:127.0.0.1:{}]", first + 1, first + 2)
    }

    /// First and last for all other daemons, which take what is free of them.
    pub(super) fn others(&self) -> (u16, u16) {
        (self.first() + 3, self.first() + BLOCK - 1)
    }
}
