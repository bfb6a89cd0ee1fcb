//! What only the kernel gives: TUN devices and network namespaces.
#![expect(unsafe_code, reason = "TUNSETIFF has no wrapper, and unshare(2) is unsafe in rustix")]

use std::{fs::File, os::fd::OwnedFd};

use anyhow::{Context, Result, ensure};
use rustix::{
    fs::{Mode, OFlags},
    ioctl::{Opcode, Setter},
    thread::UnshareFlags,
};

/// `_IOW('T', 202, int)` of linux/if_tun.h. The int is a lie of old: it takes a `struct ifreq`.
const TUNSETIFF: Opcode = 0x4004_54CA;
/// IP packets, without a header of four bytes before each.
const IFF_TUN: i16 = 0x0001;
const IFF_NO_PI: i16 = 0x1000;

/// `struct ifreq` of linux/if.h: 40 bytes, of which TUNSETIFF looks at the name and the flags.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: i16,
    rest: [u8; 22],
}

/// A device in the namespace of this thread. It is gone with the last descriptor of it.
pub(super) fn tun(name: &str) -> Result<OwnedFd> {
    let mut request = InterfaceRequest { name: [0; 16], flags: IFF_TUN | IFF_NO_PI, rest: [0; 22] };
    ensure!(name.len() < request.name.len(), "{name} is too long for a device");
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let device = rustix::fs::open("/dev/net/tun", flags, Mode::empty()).context("open /dev/net/tun")?;
    // SAFETY: TUNSETIFF takes a pointer to a struct ifreq, which InterfaceRequest is, size and layout.
    let set = unsafe { Setter::<TUNSETIFF, _>::new(request) };
    // SAFETY: the kernel reads and writes only the 40 bytes of the request, which `set` owns during the call.
    unsafe { rustix::ioctl::ioctl(&device, set) }.context("TUNSETIFF")?;
    Ok(device)
}

pub(super) fn namespace_of_this_thread() -> Result<OwnedFd> {
    Ok(File::open("/proc/thread-self/ns/net").context("open this thread's network namespace")?.into())
}

/// A network namespace that this thread is in from now on, and that lives as long as the descriptor.
pub(super) fn new_namespace() -> Result<OwnedFd> {
    // SAFETY: NEWNET leaves the table of descriptors shared, which is what this function is unsafe for.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.context("unshare the network")?;
    namespace_of_this_thread()
}
