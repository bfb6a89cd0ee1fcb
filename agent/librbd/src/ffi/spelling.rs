//! How a Rust type of the table is spelled in C.

use std::ffi::{c_char, c_int, c_uint, c_void};

use super::Octet;

pub(crate) trait Spelling {
    fn c() -> String;
}

/// A struct as Rust lays it out.
pub(crate) struct Layout {
    pub(crate) name: &'static str,
    pub(crate) size: usize,
    pub(crate) fields: Vec<Field>,
}

pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) offset: usize,
    pub(crate) c_type: String,
}

macro_rules! spelled {
    ($( $type:ty = $c:literal ),* $(,)?) => {
        $( impl Spelling for $type { fn c() -> String { $c.to_owned() } } )*
    };
}

spelled! {
    () = "void", c_void = "void", c_char = "char", Octet = "uint8_t", c_int = "int", c_uint = "unsigned", u64 = "uint64_t",
    i64 = "int64_t", usize = "size_t", isize = "ssize_t", bool = "_Bool", libc::timespec = "struct timespec",
    libc::timeval = "struct timeval",
}

// The qualifier stands behind what it qualifies, so that it needs no parentheses however deep the pointers are.
impl<T: Spelling> Spelling for *const T {
    fn c() -> String {
        format!("{} const *", T::c())
    }
}

impl<T: Spelling> Spelling for *mut T {
    fn c() -> String {
        format!("{} *", T::c())
    }
}

impl<T: Spelling, const N: usize> Spelling for [T; N] {
    fn c() -> String {
        format!("{} [{N}]", T::c())
    }
}

impl<F: Spelling> Spelling for Option<F> {
    /// Of a function pointer, which may be NULL in C anyway.
    fn c() -> String {
        F::c()
    }
}

macro_rules! function_pointers {
    ($( ( $( $argument:ident )* ) )*) => {
        $(
            impl<R: Spelling, $( $argument: Spelling ),*> Spelling for unsafe extern "C" fn($( $argument ),*) -> R {
                fn c() -> String {
                    let arguments: &[String] = &[$( $argument::c() ),*];
                    let arguments = if arguments.is_empty() { "void".to_owned() } else { arguments.join(", ") };
                    format!("{} (*)({arguments})", R::c())
                }
            }
        )*
    };
}

function_pointers! {
    () (A) (A B) (A B C) (A B C D) (A B C D E) (A B C D E F) (A B C D E F G) (A B C D E F G H) (A B C D E F G H I)
    (A B C D E F G H I J) (A B C D E F G H I J K) (A B C D E F G H I J K L)
}

#[test]
fn spellings() {
    assert_eq!(<*const *const c_char as Spelling>::c(), "char const * const *");
    type Callback = unsafe extern "C" fn(u64, usize, c_int, *mut c_void) -> c_int;
    assert_eq!(Callback::c(), "int (*)(uint64_t, size_t, int, void *)");
    assert_eq!(<unsafe extern "C" fn() as Spelling>::c(), "void (*)(void)");
}
