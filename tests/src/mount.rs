//! File systems in image files: small ones that run full, others whose image is cloned in the middle of a write, which
//! is what a power cut leaves.

mod device;
mod image;
mod mounted;

pub use device::Device;
pub use image::{FileSystem, Image, Store};
pub use mounted::Mounted;
