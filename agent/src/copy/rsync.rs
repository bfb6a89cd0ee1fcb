//! Flags that rsync users type from habit. What is always on is accepted; what Drover answers another way is refused
//! with the way. One table, so that the README can be checked against it.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Drover does this whether it is asked or not.
    Always,
    /// Refused, and what to do instead.
    Instead(&'static str),
}

use Answer::{Always, Instead};

#[derive(Clone, Copy, Debug)]
pub(super) struct Flag {
    pub(super) short: Option<char>,
    pub(super) long: &'static str,
    pub(super) value: Value,
    pub(super) answer: Answer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    None,
    One,
}

const fn on(short: char, long: &'static str) -> Flag {
    Flag { short: Some(short), long, value: Value::None, answer: Always }
}

const fn long_on(long: &'static str) -> Flag {
    Flag { short: None, long, value: Value::None, answer: Always }
}

const fn instead(short: Option<char>, long: &'static str, value: Value, answer: &'static str) -> Flag {
    Flag { short, long, value, answer: Instead(answer) }
}

const WHOLE_TREE: &str =
    "Drover copies whole trees, so that a restore point is one; copy a directory that holds only what you want";
const ONE_COPY: &str = "the point of a copy is the whole source; older states are restore points, see --retain";

pub(super) const FLAGS: &[Flag] = &[
    on('a', "archive"),
    on('r', "recursive"),
    on('l', "links"),
    on('p', "perms"),
    on('t', "times"),
    on('g', "group"),
    on('o', "owner"),
    on('D', "devices-and-specials"),
    on('H', "hard-links"),
    on('A', "acls"),
    on('X', "xattrs"),
    on('S', "sparse"),
    on('x', "one-file-system"),
    on('v', "verbose"),
    long_on("numeric-ids"),
    long_on("devices"),
    long_on("specials"),
    long_on("delete"),
    long_on("delete-before"),
    long_on("delete-during"),
    long_on("delete-delay"),
    long_on("delete-after"),
    long_on("delay-updates"),
    long_on("stats"),
    on('h', "human-readable"),
    long_on("fsync"),
    instead(Some('z'), "compress", Value::None, "Drover decides for each piece of data whether it compresses it"),
    instead(
        None,
        "inplace",
        Value::None,
        "DST changes as a whole when everything has arrived; nothing is written in place before",
    ),
    instead(None, "append", Value::None, "what was appended is found by itself; nothing is written in place"),
    instead(None, "partial", Value::None, "a copy that was cut goes on by itself: run the same command again"),
    instead(
        Some('P'),
        "partial-progress",
        Value::None,
        "progress is shown by itself, and a copy that was cut goes on: run it again",
    ),
    instead(None, "exclude", Value::One, WHOLE_TREE),
    instead(None, "exclude-from", Value::One, WHOLE_TREE),
    instead(None, "include", Value::One, WHOLE_TREE),
    instead(None, "filter", Value::One, WHOLE_TREE),
    instead(None, "files-from", Value::One, WHOLE_TREE),
    instead(None, "max-size", Value::One, WHOLE_TREE),
    instead(None, "min-size", Value::One, WHOLE_TREE),
    instead(None, "delete-excluded", Value::None, WHOLE_TREE),
    instead(
        Some('e'),
        "rsh",
        Value::One,
        "there is no remote shell: name an agent as HOST:PORT:PATH, with --ca, --cert and --key",
    ),
    instead(None, "rsync-path", Value::One, "there is no remote shell: name an agent as HOST:PORT:PATH"),
    instead(
        Some('c'),
        "checksum",
        Value::None,
        "every byte is checked when it arrives; --verify --deep reads both sides again",
    ),
    instead(None, "size-only", Value::None, "a file counts as unchanged only when its identity, size and times are"),
    instead(
        Some('I'),
        "ignore-times",
        Value::None,
        "--verify --deep reads both sides again; content is re-read every 30 days anyway",
    ),
    instead(Some('W'), "whole-file", Value::None, "only what changed is moved; on one host as well"),
    instead(Some('u'), "update", Value::None, ONE_COPY),
    instead(None, "existing", Value::None, ONE_COPY),
    instead(None, "ignore-existing", Value::None, ONE_COPY),
    instead(Some('b'), "backup", Value::None, "what is overwritten stays in restore points: --retain N says how many"),
    instead(None, "backup-dir", Value::One, "what is overwritten stays in restore points: --retain N says how many"),
    instead(None, "link-dest", Value::One, "older states are restore points: --retain N says how many"),
    instead(None, "compare-dest", Value::One, "older states are restore points: --retain N says how many"),
    instead(None, "copy-dest", Value::One, "older states are restore points: --retain N says how many"),
    instead(None, "remove-source-files", Value::None, "SRC is never changed; remove it yourself after --verify"),
    instead(Some('L'), "copy-links", Value::None, "symbolic links are copied as links"),
    instead(None, "chmod", Value::One, "a copy is faithful: owners and modes are those of SRC"),
    instead(None, "chown", Value::One, "a copy is faithful: owners and modes are those of SRC"),
    instead(
        None,
        "fake-super",
        Value::None,
        "run as root for faithful owners, or waive what is missing with --waive capabilities",
    ),
    instead(Some('i'), "itemize-changes", Value::None, "-n prints the plan, --output json all of it"),
    instead(None, "timeout", Value::One, "a link that is cut is noticed within 30 seconds by itself"),
];

/// Which of the table's flags were given.
#[derive(Clone, Debug, Default)]
pub(super) struct RsyncFlags(Vec<&'static Flag>);

impl RsyncFlags {
    /// One line for each flag that Drover answers another way.
    pub(super) fn refused(&self) -> Vec<String> {
        let line = |flag: &&Flag| match flag.answer {
            Always => None,
            Instead(way) => Some(format!("{}: {way}", flag.name())),
        };
        self.0.iter().filter_map(line).collect()
    }

    pub(super) fn asks_to_delete(&self) -> bool {
        self.0.iter().any(|flag| flag.long.starts_with("delete"))
    }
}

impl Flag {
    pub(super) fn name(&self) -> String {
        match self.short {
            Some('P') => "-P".to_owned(),
            Some(short) => format!("-{short}, --{}", self.long),
            None => format!("--{}", self.long),
        }
    }

    fn arg(&'static self) -> Arg {
        let arg = Arg::new(self.long).long(self.long).hide(true);
        let arg = match self.value {
            Value::None => arg.action(ArgAction::Count),
            Value::One => arg.action(ArgAction::Append),
        };
        self.short.map_or(arg.clone(), |short| arg.short(short))
    }

    fn is_in(&self, matches: &ArgMatches) -> bool {
        match self.value {
            Value::None => matches.get_count(self.long) > 0,
            Value::One => matches.get_many::<String>(self.long).is_some(),
        }
    }
}

impl Args for RsyncFlags {
    fn augment_args(command: Command) -> Command {
        FLAGS.iter().fold(command, |command, flag| command.arg(flag.arg()))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for RsyncFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self(FLAGS.iter().filter(|flag| flag.is_in(matches)).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
