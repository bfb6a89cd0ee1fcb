//! Who of a cluster listens where.

use crate::ports::Block;

#[derive(Debug)]
pub(super) struct Ports(Block);

impl Ports {
    pub(super) fn claim() -> Self {
        Self(Block::claim())
    }

    /// As Ceph writes the addresses of a monitor that speaks both versions of the protocol.
    pub(super) fn monitor(&self) -> String {
        let (first, _) = self.0.ports().into_inner();
        format!("[v2:127.0.0.1:{first},v1:127.0.0.1:{}]", first + 1)
    }

    /// First and last for all other daemons, which take what is free of them.
    pub(super) fn others(&self) -> (u16, u16) {
        let (first, last) = self.0.ports().into_inner();
        (first + 2, last)
    }
}
