//! Linux file-system calls behind safe types.
//!
//! Everything is reached from an open [`Dir`] and one name; a path is only ever opened beneath a directory, without
//! following symlinks and without crossing mounts, so that whoever can rename things inside a volume can't make Drover
//! leave it. Errors are the kernel's own (`io::Error` with its errno); a name that is no single name is `InvalidInput`.

pub mod allocator;
pub mod device;
mod dir;
mod extents;
pub mod file;
pub mod privileges;
mod process;
mod stat;
mod time;

pub use dir::{Dir, FileHandle, FilesystemType, Space, WINDOW_NAME, is_gone};
pub use extents::{Extent, Extents};
pub use process::{kill_self, process_peak_rss_bytes};
pub use stat::{DeviceKind, FileId, Kind, Stat};
pub use time::Time;
