//! The whole crate against a live cluster, which `DROVER_TEST_CEPH_CONF` names by its `ceph.conf`, with the administrator's key. The parts
//! that need a second one take it from `DROVER_TEST_CEPH_PEER_CONF`. Without them each test says SKIPPED. Clusters are for tests:
//! pools are made and deleted, and peers are introduced.

mod connection;
mod content;
mod diff;
mod groups;
mod images;
mod mirroring;
mod objects;
mod site;
mod snapshots;
mod users;
