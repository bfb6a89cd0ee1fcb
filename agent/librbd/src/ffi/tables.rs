//! The macros that turn a table into Rust, and into what the test compares.

/// Function pointers and how they are found. `required` ones must be there, `optional` ones are looked for.
macro_rules! functions {
    (
        required { $( fn $name:ident ( $( $argument:ident : $type:ty ),* $(,)? ) $( -> $returned:ty )? ; )* }
        optional { $( fn $may:ident ( $( $may_argument:ident : $may_type:ty ),* $(,)? ) $( -> $may_returned:ty )? ; )* }
    ) => {
        /// The functions of one loaded library.
        pub(crate) struct Functions {
            $( pub(crate) $name: unsafe extern "C" fn($($type),*) $( -> $returned )?, )*
            $( pub(crate) $may: Option<unsafe extern "C" fn($($may_type),*) $( -> $may_returned )?>, )*
        }

        impl Functions {
            /// `Err` is the name of a required function that the library lacks.
            ///
            /// # Safety
            /// The library is librbd, whose functions have the types of this table.
            pub(crate) unsafe fn find(library: &libloading::os::unix::Library) -> Result<Self, &'static str> {
                Ok(Self {
                    $( $name: {
                        // SAFETY: what the caller promised.
                        let found = unsafe { library.get(stringify!($name)) };
                        *found.map_err(|_| stringify!($name))?
                    }, )*
                    $( $may: {
                        // SAFETY: what the caller promised.
                        let found = unsafe { library.get(stringify!($may)) };
                        found.ok().map(|symbol| *symbol)
                    }, )*
                })
            }
        }

        /// Each function's name and its type in C.
        #[cfg(test)]
        pub(crate) fn required() -> Vec<(&'static str, String)> {
            use crate::ffi::spelling::Spelling;
            vec![ $( (stringify!($name), <unsafe extern "C" fn($($type),*) $( -> $returned )? as Spelling>::c()), )* ]
        }

        #[cfg(test)]
        pub(crate) fn optional() -> Vec<(&'static str, String)> {
            use crate::ffi::spelling::Spelling;
            vec![ $( (stringify!($may), <unsafe extern "C" fn($($may_type),*) $( -> $may_returned )? as Spelling>::c()), )* ]
        }
    };
}

/// Structs that C fills.
macro_rules! structs {
    ($( struct $name:ident { $( $field:ident : $type:ty ),* $(,)? } )*) => {
        $(
            #[repr(C)]
            #[derive(Clone, Copy)]
            pub(crate) struct $name { $( pub(crate) $field: $type, )* }

            // SAFETY: integers, pointers and `bool`, all of which may be zero.
            unsafe impl Plain for $name {}

            // Each field is a part of the layout, read or not.
            const _: &[usize] = &[$( std::mem::offset_of!($name, $field) ),*];

            #[cfg(test)]
            impl crate::ffi::spelling::Spelling for $name {
                fn c() -> String { stringify!($name).to_owned() }
            }
        )*

        #[cfg(test)]
        pub(crate) fn layouts() -> Vec<crate::ffi::spelling::Layout> {
            use crate::ffi::spelling::{Field, Layout, Spelling};
            vec![$( Layout {
                name: stringify!($name),
                size: size_of::<$name>(),
                fields: vec![$( Field {
                    name: stringify!($field),
                    offset: std::mem::offset_of!($name, $field),
                    c_type: <$type as Spelling>::c(),
                }, )*],
            }, )*]
        }
    };
}

/// Pointers to what only C knows: a type each, so that they can't be exchanged.
macro_rules! handles {
    ($( $name:ident ),* $(,)?) => {
        $(
            #[repr(transparent)]
            #[derive(Clone, Copy)]
            pub(crate) struct $name(pub(crate) *mut std::ffi::c_void);

            // SAFETY: a pointer, NULL before C has filled it in.
            unsafe impl Plain for $name {}

            #[cfg(test)]
            impl crate::ffi::spelling::Spelling for $name {
                fn c() -> String { stringify!($name).to_owned() }
            }
        )*
    };
}

/// Enums of C, to which later releases add values: one that is not known is `Other`.
macro_rules! enums {
    ($(
        $(#[$meta:meta])*
        $visibility:vis enum $rust:ident : $name:ident { $( $(#[$doc:meta])* $variant:ident = $constant:ident $value:literal, )* }
    )*) => {
        $(
            #[repr(transparent)]
            #[derive(Clone, Copy)]
            pub(crate) struct $name(pub(crate) u32);

            $(#[$meta])*
            #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
            $visibility enum $rust {
                $( $(#[$doc])* $variant, )*
                /// A value that a later release added.
                Other(u32),
            }

            impl From<$name> for $rust {
                fn from(raw: $name) -> Self {
                    match raw.0 { $( $value => Self::$variant, )* other => Self::Other(other) }
                }
            }

            impl From<$rust> for $name {
                fn from(value: $rust) -> Self {
                    Self(match value { $( $rust::$variant => $value, )* $rust::Other(other) => other })
                }
            }

            // SAFETY: a number.
            unsafe impl crate::ffi::Plain for $name {}

            #[cfg(test)]
            impl crate::ffi::spelling::Spelling for $name {
                fn c() -> String { stringify!($name).to_owned() }
            }
        )*

        #[cfg(test)]
        pub(crate) fn values() -> Vec<(&'static str, i128)> {
            vec![$( (concat!("sizeof(", stringify!($name), ")"), size_of::<$name>() as i128), $( (stringify!($constant), $value), )* )*]
        }
    };
}

/// Numbers of the headers; `newer` ones are not in all of them.
macro_rules! constants {
    (
        required { $( const $name:ident : $type:ty = $value:expr; )* }
        newer { $( const $later:ident : $later_type:ty = $later_value:expr; )* }
    ) => {
        $( pub(crate) const $name: $type = $value; )*
        $( pub(crate) const $later: $later_type = $later_value; )*

        #[cfg(test)]
        pub(crate) fn required() -> Vec<(&'static str, i128)> {
            vec![$( (stringify!($name), i128::from($name)), )*]
        }

        #[cfg(test)]
        pub(crate) fn newer() -> Vec<(&'static str, i128)> {
            vec![$( (stringify!($later), i128::from($later)), )*]
        }
    };
}
