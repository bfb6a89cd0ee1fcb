//! The capabilities (`capabilities(7)`) without which a copy would be less than faithful.

use std::io;

use crate::process::{malformed, status_field};

/// Name and bit number (linux/capability.h) of each, with what it is for.
const NEEDED: [(&str, u32); 9] = [
    ("CHOWN", 0),           // any owner
    ("DAC_OVERRIDE", 1),    // write where the mode forbids it
    ("DAC_READ_SEARCH", 2), // read anything, open by handle
    ("FOWNER", 3),          // modes, times and xattrs of others' files, O_NOATIME
    ("FSETID", 4),          // keep setuid and setgid bits
    ("LINUX_IMMUTABLE", 9), // chattr +i and +a
    ("SYS_ADMIN", 21),      // trusted.* xattrs
    ("MKNOD", 27),          // device nodes
    ("SETFCAP", 31),        // security.capability
];

/// Names of the needed capabilities that are not in this process's effective set.
pub fn missing() -> io::Result<Vec<&'static str>> {
    let effective = u64::from_str_radix(&status_field("CapEff")?, 16).map_err(|_| malformed())?;
    Ok(NEEDED.iter().filter(|(_, bit)| effective >> bit & 1 == 0).map(|(name, _)| *name).collect())
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_ordinary_user_lacks_all_and_root_none() {
        let missing = super::missing().unwrap();
        assert!(missing.is_empty() || missing.contains(&"SYS_ADMIN"), "{missing:?}");
    }
}
