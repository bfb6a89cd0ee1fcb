//! What `/proc/self/status` tells of this process (`proc_pid_status(5)`).

use std::{fs, io};

/// The value of one `Name:\tvalue` line.
pub(crate) fn status_field(name: &str) -> io::Result<String> {
    let status = fs::read_to_string("/proc/self/status")?;
    status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(|value| value.trim().to_owned())
        .ok_or_else(malformed)
}

pub(crate) fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "/proc/self/status is not as expected")
}

/// Highest resident set of this process so far (`VmHWM`), without its children.
pub fn process_peak_rss_bytes() -> io::Result<u64> {
    let value = status_field("VmHWM")?;
    let kib: u64 = value.strip_suffix(" kB").and_then(|n| n.parse().ok()).ok_or_else(malformed)?;
    Ok(kib * 1024)
}

/// Ends this process as a power cut would: SIGKILL, with no destructor and no flush. For failpoints.
pub fn kill_self() -> ! {
    // If it can't be sent, aborting is the next thing to dying at once.
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    std::process::abort()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_running_test_has_touched_memory() {
        assert!(super::process_peak_rss_bytes().unwrap() > 100 * 1024);
    }
}
