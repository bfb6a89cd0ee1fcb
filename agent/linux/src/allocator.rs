//! How glibc's malloc keeps what is freed (mallopt(3)). Elsewhere nothing is done.
#![expect(unsafe_code, reason = "libc has no safe calls for its allocator")]

/// Buffers of up to a frame's length come from memory that is kept: by default each megabyte is mapped, zeroed by the
/// kernel and unmapped again, a fifth of a large copy's CPU. To be called before the first thread is started.
pub fn keep_buffers() {
    #[cfg(target_env = "gnu")]
    {
        const KEPT_BYTES_MAX: libc::c_int = 8 << 20;
        const TRIM_BYTES: libc::c_int = 64 << 20;
        /// Each keeps its own.
        const ARENAS: libc::c_int = 4;
        for (option, value) in [
            (libc::M_MMAP_THRESHOLD, KEPT_BYTES_MAX),
            (libc::M_TRIM_THRESHOLD, TRIM_BYTES),
            (libc::M_ARENA_MAX, ARENAS),
        ] {
            // SAFETY: sets a number, and no other thread is running yet. What is refused stays as it is.
            let _ = unsafe { libc::mallopt(option, value) };
        }
    }
}

/// Returns what is kept to the kernel: for the end of long work.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes locks of the allocator's own.
    let _ = unsafe { libc::malloc_trim(0) };
}
