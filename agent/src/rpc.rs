//! The gRPC services: thin adapters that convert, call and convert back. Who may call what is decided in `access`
//! before any of them sees a request; which code an error gets in `status`.

pub mod access;
pub mod convert;
pub mod exports;
pub mod node;
pub mod replication;
pub mod snapshots;
pub mod status;
pub mod sync;
pub mod transfer;
