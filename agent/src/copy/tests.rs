use clap::Parser;

use super::{
    bandwidth::Bandwidth,
    place::{Place, PlaceError, RemotePlace, local_volume_id},
    rsync::{Answer, FLAGS},
    *,
};

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    copy: CopyArgs,
}

fn parse(line: &str) -> Result<CopyArgs, clap::Error> {
    Cli::try_parse_from(std::iter::once("copy").chain(line.split_whitespace())).map(|cli| cli.copy)
}

#[test]
fn places_are_read_as_rsync_reads_them() {
    let local = |path: &str| Ok(Place::Local(path.into()));
    let remote = |host: &str, path: &str| {
        Ok(Place::Remote(RemotePlace { host: host.to_owned(), port: 7171, path: path.to_owned() }))
    };
    for (text, place) in [
        ("/srv/data", local("/srv/data")),
        ("./a:b", local("./a:b")),
        ("dir/a:7171:b", local("dir/a:7171:b")),
        ("site-b:7171:nfs/data/", remote("site-b", "nfs/data")),
        ("[::1]:7171:/srv/nfs/data", remote("[::1]", "/srv/nfs/data")),
        ("host:data", Err(PlaceError::NoPort { host: "host".into(), path: "data".into() })),
        ("host:7171:", Err(PlaceError::NoPath("host:7171:".into()))),
        ("rsync://host/module", Err(PlaceError::RsyncUrl)),
        ("", Err(PlaceError::Empty)),
    ] {
        assert_eq!(text.parse::<Place>(), place, "{text}");
    }
}

#[test]
fn bandwidth_is_written_as_for_rsync() {
    let read = |text: &str| text.parse::<Bandwidth>().map(|rate| rate.0);
    for (text, bytes) in
        [("0", 0), ("100", 102_400), ("1.5m", 1_572_864), ("2GB", 2_000_000_000), ("1MiB", 1 << 20), ("500b", 500)]
    {
        assert_eq!(read(text), Ok(bytes), "{text}");
    }
    for wrong in ["", "fast", "5x", "5kk", "-1", "1bb"] {
        assert!(read(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn the_usual_rsync_line_is_accepted_and_a_foreign_flag_is_answered() {
    let args = parse("-aHAX --delete --numeric-ids -S /src /dst").unwrap();
    assert!(args.rsync.refused().is_empty());
    assert!(args.rsync.asks_to_delete());

    let args = parse("-az --inplace --exclude *.tmp -e ssh /src /dst").unwrap();
    assert_eq!(
        args.rsync.refused(),
        [
            "-z, --compress: Drover decides for each piece of data whether it compresses it",
            "--inplace: DST changes as a whole when everything has arrived; nothing is written in place before",
            "--exclude: Drover copies whole trees, so that a restore point is one; copy a directory that holds only what \
             you want",
            "-e, --rsh: there is no remote shell: name an agent as HOST:PORT:PATH, with --ca, --cert and --key",
        ]
    );
    assert!(parse("--no-such-flag /src /dst").is_err());
    assert!(parse("/only-one").is_err());
}

#[test]
fn options_become_guards() {
    let guards = |line: &str| {
        let options = parse(&format!("{line} /src /dst")).unwrap().options();
        (options.delete_percent_max, options.delete_entries_max, options.allow_empty_source)
    };
    assert_eq!(guards(""), (50, None, false));
    assert_eq!(guards("--max-delete 7"), (100, Some(7), false));
    assert_eq!(guards("--max-delete 5% --allow-empty-source"), (5, None, true));
}

#[test]
fn a_destination_is_the_same_volume_each_time() {
    let id = local_volume_id(std::path::Path::new("/mnt/backup/data"));
    assert_eq!(id, local_volume_id(std::path::Path::new("/mnt/backup/data")));
    assert_ne!(id, local_volume_id(std::path::Path::new("/mnt/backup/data2")));
    let text = id.to_string();
    assert_eq!(&text[14..15], "8", "{text} is of version 8");
}

#[test]
fn the_readme_answers_every_rsync_flag() {
    let readme = include_str!("../../../README.md");
    for flag in FLAGS {
        let name = format!("`--{}`", flag.long);
        let stands = readme.contains(&name) || flag.name() == "-P" && readme.contains("`-P`");
        assert!(stands, "README.md does not mention {name} ({:?})", matches!(flag.answer, Answer::Always));
    }
}
