//! Parts for tests on real agents, real file systems and real faults: trees, judges, hosts, mounts and saboteurs.
//!
//! Nothing here uses the product's own code to look at files, so that an error of the product can't hide in its test.

pub mod ceph;
pub mod cutlink;
pub mod eiofs;
pub mod execs;
pub mod figure;
pub mod fleet;
pub mod ganesha;
pub mod host;
pub mod judge;
pub mod mount;
pub mod nfs_client;
pub mod ports;
pub mod process;
pub mod rounds;
pub mod scratch;
pub mod seed;
pub mod skip;
pub mod snapshot;
pub mod subject;
pub mod tree;
