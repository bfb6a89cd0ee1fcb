//! The functions of `<nfsc/libnfs.h>` that are used. Names are those of C.

use std::ffi::{c_char, c_int, c_void};

use libloading::os::unix::Library;

#[repr(C)]
pub(crate) struct nfs_context {
    _private: [u8; 0],
}

#[repr(C)]
pub(crate) struct nfs_url {
    _private: [u8; 0],
}

#[repr(C)]
pub(crate) struct nfsfh {
    _private: [u8; 0],
}

/// Of the arguments of `nfs_pwrite`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriteOrder {
    /// `(context, file, offset, count, buffer)`, before 6.0.
    OffsetFirst,
    /// `(context, file, buffer, count, offset)`.
    BufferFirst,
}

macro_rules! functions {
    ($($name:ident: fn($($argument:ty),*) $(-> $result:ty)?;)*) => {
        pub(crate) struct Functions {
            $(pub(crate) $name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
            pub(crate) write: Write,
        }

        impl Functions {
            /// # Safety
            /// `library` is a libnfs whose functions have these types, `nfs_pwrite` with its arguments in this order.
            pub(crate) unsafe fn find(library: &Library, order: WriteOrder) -> Result<Self, &'static str> {
                $(
                    // SAFETY: as the caller says.
                    let $name = *unsafe { library.get(concat!(stringify!($name), "\0").as_bytes()) }
                        .map_err(|_| stringify!($name))?;
                )*
                let symbol = b"nfs_pwrite\0";
                let write = match order {
                    // SAFETY: as the caller says.
                    WriteOrder::OffsetFirst => unsafe { library.get(symbol) }.map(|it| Write::OffsetFirst(*it)),
                    // SAFETY: as the caller says.
                    WriteOrder::BufferFirst => unsafe { library.get(symbol) }.map(|it| Write::BufferFirst(*it)),
                };
                Ok(Self { $($name,)* write: write.map_err(|_| "nfs_pwrite")? })
            }
        }

        /// As C writes them, for the test that asks a compiler.
        #[cfg(test)]
        const NAMES: &[(&str, &[&str])] = &[$((stringify!($name), &[$(stringify!($argument)),*])),*];
    };
}

pub(crate) enum Write {
    OffsetFirst(unsafe extern "C" fn(*mut nfs_context, *mut nfsfh, u64, u64, *const c_void) -> c_int),
    BufferFirst(unsafe extern "C" fn(*mut nfs_context, *mut nfsfh, *const c_void, usize, u64) -> c_int),
}

functions! {
    nfs_init_context: fn() -> *mut nfs_context;
    nfs_destroy_context: fn(*mut nfs_context);
    nfs_get_error: fn(*mut nfs_context) -> *mut c_char;
    nfs_set_version: fn(*mut nfs_context, c_int) -> c_int;
    nfs_set_uid: fn(*mut nfs_context, c_int);
    nfs_set_gid: fn(*mut nfs_context, c_int);
    nfs_set_timeout: fn(*mut nfs_context, c_int);
    nfs_set_autoreconnect: fn(*mut nfs_context, c_int);
    nfs_parse_url_dir: fn(*mut nfs_context, *const c_char) -> *mut nfs_url;
    nfs_destroy_url: fn(*mut nfs_url);
    nfs_mount: fn(*mut nfs_context, *const c_char, *const c_char) -> c_int;
    nfs_open: fn(*mut nfs_context, *const c_char, c_int, *mut *mut nfsfh) -> c_int;
    nfs_creat: fn(*mut nfs_context, *const c_char, c_int, *mut *mut nfsfh) -> c_int;
    nfs_fsync: fn(*mut nfs_context, *mut nfsfh) -> c_int;
    nfs_close: fn(*mut nfs_context, *mut nfsfh) -> c_int;
    nfs_unlink: fn(*mut nfs_context, *const c_char) -> c_int;
}

#[cfg(test)]
mod tests {
    use std::{path::Path, process::Command};

    use super::*;

    fn c_type(rust: &str) -> &'static str {
        match rust.replace(' ', "").as_str() {
            "*mutnfs_context" => "struct nfs_context *",
            "*mutnfs_url" => "struct nfs_url *",
            "*mutnfsfh" => "struct nfsfh *",
            "*mut*mutnfsfh" => "struct nfsfh **",
            "*constc_char" => "const char *",
            "c_int" => "int",
            other => panic!("{other} has no C"),
        }
    }

    #[test]
    fn the_declarations_are_those_of_the_installed_header() {
        if !Path::new("/usr/include/nfsc/libnfs.h").exists() {
            println!("SKIPPED the_declarations_are_those_of_the_installed_header: libnfs-dev is not installed");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("declarations.c");
        let mut text = "#include <stdint.h>\n#include <sys/time.h>\n#include <nfsc/libnfs.h>\n".to_owned();
        for (name, arguments) in NAMES {
            let result = match *name {
                "nfs_init_context" => "struct nfs_context *",
                "nfs_get_error" => "char *",
                "nfs_parse_url_dir" => "struct nfs_url *",
                "nfs_destroy_context"
                | "nfs_destroy_url"
                | "nfs_set_uid"
                | "nfs_set_gid"
                | "nfs_set_timeout"
                | "nfs_set_autoreconnect" => "void",
                _ => "int",
            };
            let arguments: Vec<_> = arguments.iter().map(|argument| c_type(argument)).collect();
            let arguments = if arguments.is_empty() { "void".to_owned() } else { arguments.join(", ") };
            text.push_str(&format!(
                "_Static_assert(__builtin_types_compatible_p(__typeof__(&{name}), {result} (*)({arguments})), \"{name}\");\n"
            ));
        }
        std::fs::write(&source, text).unwrap();
        let compiled = Command::new("cc").arg("-fsyntax-only").arg(&source).output().unwrap();
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    }
}
