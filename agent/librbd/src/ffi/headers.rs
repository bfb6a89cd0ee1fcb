//! Test: the C compiler compares the whole table with the installed headers.

use std::{fmt::Write as _, process::Command};

use super::{constants, enums, functions, spelling::Layout, structs};

const INCLUDES: &str = "#include <stddef.h>\n#include <rados/librados.h>\n#include <rbd/librbd.h>\n";

/// What the compiler says of a C file: `Ok`, or its complaints.
fn checked(source: &str) -> Result<(), String> {
    run(&["-fsyntax-only"], source).map(drop)
}

fn run(arguments: &[&str], source: &str) -> Result<String, String> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("table.c");
    std::fs::write(&file, source).unwrap();
    let output = Command::new("cc").args(["-std=gnu11", "-w"]).args(arguments).arg(&file).output();
    let output = output.map_err(|error| format!("cc: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// The headers as the compiler sees them; says SKIPPED where there are none.
fn headers() -> Option<String> {
    match run(&["-E"], INCLUDES) {
        Ok(text) => Some(text),
        Err(error) => {
            let reason = error.lines().find(|line| line.contains("error")).unwrap_or(&error).to_owned();
            println!("SKIPPED comparison with the headers (packages librbd-dev, librados-dev, gcc): {reason}");
            None
        }
    }
}

fn function_check(name: &str, c_type: &str) -> String {
    format!("_Static_assert(__builtin_types_compatible_p(__typeof__(&{name}), {c_type}), \"{name}\");\n")
}

fn layout_checks(layout: &Layout) -> String {
    let Layout { name, size, fields } = layout;
    let mut checks = format!("_Static_assert(sizeof({name}) == {size}, \"size of {name}\");\n");
    for field in fields {
        let (at, c_type) = (field.name, &field.c_type);
        let place = format!("offsetof({name}, {at}) == {}", field.offset);
        let same = format!("__builtin_types_compatible_p(__typeof__((({name} *)0)->{at}), {c_type})");
        writeln!(checks, "_Static_assert({place} && {same}, \"{name}.{at}\");").unwrap();
    }
    checks
}

fn value_check(name: &str, value: i128) -> String {
    format!("_Static_assert(({name}) == {value}, \"{name}\");\n")
}

#[test]
fn the_table_is_that_of_the_headers() {
    let Some(headers) = headers() else { return };
    let mut source = INCLUDES.to_owned();
    for (name, c_type) in functions::required() {
        source += &function_check(name, &c_type);
    }
    let newer = functions::optional().into_iter().map(|(name, c_type)| (name, function_check(name, &c_type)));
    let numbers = constants::newer().into_iter().map(|(name, value)| (name, value_check(name, value)));
    for (name, check) in newer.chain(numbers) {
        if headers.contains(name) {
            source += &check;
        } else {
            println!("{name} is newer than these headers: not compared");
        }
    }
    for layout in structs::layouts() {
        source += &layout_checks(&layout);
    }
    for (name, value) in enums::values().into_iter().chain(constants::required()) {
        source += &value_check(name, value);
    }
    println!("{} comparisons", source.matches("_Static_assert").count());
    if let Err(complaints) = checked(&source) {
        panic!("{complaints}");
    }
}

/// A comparison that could not fail would be worth nothing.
#[test]
fn a_wrong_table_is_refused() {
    if headers().is_none() {
        return;
    }
    let refused = |check: &str, what: &str| {
        let complaints = checked(&format!("{INCLUDES}{check}")).expect_err(check);
        assert!(complaints.contains("static assertion failed") && complaints.contains(what), "{complaints}");
    };
    let (name, right) = functions::required().into_iter().find(|(name, _)| *name == "rbd_resize2").unwrap();
    assert_eq!(checked(&format!("{INCLUDES}{}", function_check(name, &right))), Ok(()));
    for (from, to) in [("uint64_t", "int64_t"), ("_Bool", "int"), ("int (*)(rbd", "void (*)(rbd"), (", void *)", ")")] {
        assert!(right.contains(from), "{right}");
        refused(&function_check(name, &right.replacen(from, to, 1)), name);
    }
    let mut layout = structs::layouts().into_iter().find(|layout| layout.name == "rbd_image_info_t").unwrap();
    layout.fields[2].offset += 8;
    refused(&layout_checks(&layout), "rbd_image_info_t.num_objs");
    layout.fields[2].offset -= 8;
    layout.fields[3].c_type = "unsigned".to_owned();
    refused(&layout_checks(&layout), "rbd_image_info_t.order");
    layout.size += 1;
    refused(&layout_checks(&layout), "size of rbd_image_info_t");
    refused(&value_check("RBD_SNAP_MIRROR_STATE_NON_PRIMARY", 3), "RBD_SNAP_MIRROR_STATE_NON_PRIMARY");
}
