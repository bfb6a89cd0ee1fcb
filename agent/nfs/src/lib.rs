//! Exports of an NFS server: what it serves, who may write, fencing, and the proof that nobody may.
//!
//! - **Table** (`table`): what the running server serves to whom, read back from the server itself.
//! - **Files** (`edit`): its configuration, changed entry by entry and put back to the byte; `kernel` and `ganesha` know the two formats.
//! - **Book** (`book`): which fences there are and what was changed for them, durable before anything is changed.
//! - **Fences** (`fences`): the verbs. Each makes the server be as the book says, and can be repeated at any time.
//! - **Probe** (`probe`): a write through the server itself, in a process of its own that can be killed.
//!
//! All calls block.

mod book;
mod edit;
mod error;
mod fences;
mod ganesha;
mod kernel;
mod place;
pub mod probe;
mod server;
mod table;

pub use book::{Cause, Fence, Holder, ProbeOk, Proof, Refusal};
pub use error::NfsError;
pub use fences::{Asked, Fences, Owner, Seen, Wanted, Whole};
pub use ganesha::{GaneshaConfig, Reload};
pub use kernel::KernelConfig;
pub use probe::ProbeConfig;
pub use server::{ServerConfig, ServerKind, read_table};
pub use table::{Access, Client, Export, Shut, Table};
